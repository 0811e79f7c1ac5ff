"""Every way to make a session."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_toolsets.db import create_db_context
from fastapi_toolsets.models import WatchedFieldsMixin

engine = create_async_engine(
    "sqlite+aiosqlite:///app.db",
)
told: list[str] = []


class Base(DeclarativeBase):
    pass


class Order(Base, WatchedFieldsMixin):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]

    async def on_create(self):
        told.append(self.item)


class OurSession(AsyncSession):
    """Knows something of its own."""

    async def order(self, item: str) -> None:
        self.add(Order(item=item))
        await self.commit()


class OurSyncSession(Session):
    pass


plain = async_sessionmaker(engine, expire_on_commit=False)
named = async_sessionmaker(bind=engine, class_=AsyncSession)
ours = async_sessionmaker(engine, class_=OurSession)
ours_inside = async_sessionmaker(engine, sync_session_class=OurSyncSession)
old_style = sessionmaker(engine, class_=AsyncSession)
scoped = async_scoped_session(async_sessionmaker(engine), asyncio.current_task)
bound = functools.partial(async_sessionmaker, expire_on_commit=False)
later = bound()
later.configure(bind=engine)
in_context = create_db_context(plain)


async def direct() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session


async def settle(step: str) -> list[object]:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others)
    found, told[:] = list(told), []
    return [step, found]


async def main() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    steps = []
    for factory in (plain, named, ours, ours_inside, old_style, later, in_context):
        async with factory() as session:
            session.add(Order(item="ink"))
            await session.commit()
            steps.append(await settle("a factory"))
    async with ours.begin() as session:
        await session.run_sync(lambda each: each.add(Order(item="paper")))
    steps.append(await settle("a block"))
    async with ours() as session:
        await session.order("glue")
    steps.append(await settle("a method"))
    scoped.add(Order(item="pencil"))
    await scoped.commit()
    steps.append(await settle("scoped"))
    await scoped.remove()
    async for session in direct():
        session.add(Order(item="pen"))
        await session.commit()
    steps.append(await settle("direct"))
    await engine.dispose()
    print(json.dumps(steps))


if __name__ == "__main__":
    asyncio.run(main())
