"""Runs the models beside it."""

import asyncio
import json

import sqlalchemy.ext.asyncio as sa
from models import Article, Base, Basket, Invoice, heard, make_model

engine = sa.create_async_engine("sqlite+aiosqlite:///app.db")
Factory = sa.async_sessionmaker
session_factory: sa.async_sessionmaker[sa.AsyncSession] = Factory[sa.AsyncSession](engine, expire_on_commit=False)
Made = make_model("made")


async def settle(step: str) -> list[object]:
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
    found, heard[:] = list(heard), []
    return [step, found]


async def main() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    steps = []
    async with session_factory() as session:
        for model in (Article, Basket, Basket.Line, Invoice, Made):
            name = model.__qualname__
            instance = model(status="a")
            session.add(instance)
            await session.commit()
            steps.append(await settle(f"{name} created"))
            instance.status = "b"
            await session.commit()
            steps.append(await settle(f"{name} updated"))
            if model is Article:
                instance.stock = 9
                await session.commit()
                steps.append(await settle("unwatched"))
                instance.price, instance.name = 2, "m"
                await session.commit()
                steps.append(await settle("watched"))
            await session.delete(instance)
            await session.commit()
            steps.append(await settle(f"{name} deleted"))
    await engine.dispose()
    print(json.dumps(steps))


if __name__ == "__main__":
    asyncio.run(main())
