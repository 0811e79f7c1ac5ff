"""Runs the package beside it."""

import asyncio
import json

from catalogue import parts
from catalogue.base import Base, Box, Item, SessionLocal, Shelf, engine, told
from catalogue.books import Book, Film, Map, Record, Series, Single


async def settle(step: str) -> list[object]:
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
    found, told[:] = list(told), []
    return [step, found]


async def main() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    steps = []
    async with SessionLocal() as session:
        for model in (Item, Book, Map, Film, Record, Single, Series, Shelf, Box, parts.Space, parts.Vault):
            name = model.__name__
            instance = model(name="a")
            session.add(instance)
            await session.commit()
            steps.append(await settle(f"{name} created"))
            instance.name = "b"
            await session.commit()
            steps.append(await settle(f"{name} updated"))
            if model is Map:
                instance.scale = 3
                await session.commit()
                steps.append(await settle("unwatched"))
            if model is Series:
                await instance.announce_again()
                steps.append(await settle("by hand"))
            await session.delete(instance)
            await session.commit()
            steps.append(await settle(f"{name} deleted"))
    await engine.dispose()
    print(json.dumps(steps))


if __name__ == "__main__":
    asyncio.run(main())
