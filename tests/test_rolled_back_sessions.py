"""``rolled_back_session`` and its siblings: commits that deliver events and leave nothing behind, on every driver."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from fastapi_toolsets.errors import SessionClassError
from fastapi_toolsets.events import Changes, ModelEvent, capture_events, created, deleted, listens_for, updated
from fastapi_toolsets.models import EventSession, SyncEventSession
from fastapi_toolsets.pytest import (
    DatabaseURLError,
    ModelBaseError,
    SavepointsError,
    rolled_back_session,
    rolled_back_sessionmaker,
    rolled_back_sync_session,
    rolled_back_sync_sessionmaker,
)

from .databases import TYPES, Database, TestRunDatabases, tables
from .front_ends import SessionAdapter, entered, run_without_loop

CASES = [
    ("async", "sqlite+aiosqlite", "sqlite"),
    ("async", "postgresql+asyncpg", "postgresql"),
    ("async", "postgresql+psycopg", "postgresql"),
    ("async", "mysql+asyncmy", "mariadb"),
    ("sync", "sqlite+pysqlite", "sqlite"),
    ("sync", "postgresql+psycopg", "postgresql"),
    ("sync", "mysql+pymysql", "mariadb"),
]

RolledBack = Callable[..., AbstractAsyncContextManager[Any] | AbstractContextManager[Any]]


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(default="new")


class Case:
    """``rolled_back_session`` on one driver, or its sync twin, behind one awaitable face."""

    def __init__(self, kind: str, driver: str, database: Database) -> None:
        self.is_async = kind == "async"
        self.database = database
        self.url = database.url.set(drivername=driver)
        self.create: RolledBack = rolled_back_session if self.is_async else rolled_back_sync_session
        self.create_maker: RolledBack = rolled_back_sessionmaker if self.is_async else rolled_back_sync_sessionmaker

    @asynccontextmanager
    async def session(self, *arguments: object, **options: object) -> AsyncGenerator[SessionAdapter]:
        async with entered(self.create(*(arguments or (self.url,)), **options)) as session:
            yield SessionAdapter(session)

    @asynccontextmanager
    async def engine(self) -> AsyncGenerator[Any]:
        """The suite's own engine, with savepoints on SQLite."""
        engine: Any = self.database.create_async_engine() if self.is_async else self.database.create_engine()
        try:
            yield engine
        finally:
            disposed = engine.dispose()
            if self.is_async:
                await disposed

    def run(self, steps: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self.is_async:
            anyio.run(steps)
        else:
            run_without_loop(steps())

    def order_ids(self) -> list[int]:
        """What is in the database for everybody else."""

        def read(connection: Connection) -> list[int]:
            return list(connection.scalars(select(Order.id).order_by(Order.id)))

        engine = self.database.create_engine(poolclass=NullPool)
        try:
            with engine.connect() as connection:
                return read(connection)
        finally:
            engine.dispose()


@pytest.fixture(params=CASES, ids=[f"{driver}-{kind}" for kind, driver, _ in CASES])
def case(request: pytest.FixtureRequest, test_run_databases: TestRunDatabases, tmp_path: Path) -> Generator[Case]:
    kind, driver, name = request.param
    database = test_run_databases.provide(name, tmp_path)
    with tables(database, Base.metadata):
        yield Case(kind, driver, database)


Told = list[tuple[int, str, Changes | None]]


def tell(told: Told) -> None:
    """Listen with a callback of each kind."""

    @listens_for(Order, ModelEvent.UPDATE)
    def plain(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        told.append((order.id, "plain", changes))

    @listens_for(Order, ModelEvent.UPDATE)
    async def asynchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        told.append((order.id, "async", changes))


def test_commits_deliver_events_and_are_undone(case: Case) -> None:
    """T5, T3: commits, rollbacks and savepoints mean what they mean elsewhere, and the database stays as it was."""
    told: Told = []
    tell(told)

    async def steps() -> None:
        for _ in range(2):
            with capture_events() as events:
                async with case.session() as session:
                    await write(session)
            assert events == [
                created(Order, 1),
                updated(Order, 1, status=("new", "paid")),
                deleted(Order, 1),
                created(Order, 4),
            ]
            assert case.order_ids() == []

    async def write(session: SessionAdapter) -> None:
        assert isinstance(session.session, EventSession if case.is_async else SyncEventSession)
        order = Order(id=1)
        await session.add(order)
        await session.commit()
        async with session.begin_nested():
            order.status = "paid"
        savepoint = await session.begin_nested()
        order.status = "lost"
        await savepoint.rollback()
        await session.commit()
        await session.add(Order(id=2))
        await session.flush()
        await session.rollback()
        assert list(await session.scalars(select(Order.id))) == [1]
        await session.delete(order)
        await session.commit()
        await session.add(Order(id=3))
        await session.flush()
        await session.rollback()
        await session.add(Order(id=4))
        await session.commit()

    case.run(steps)
    change: Changes = {"status": {"old": "new", "new": "paid"}}
    assert told == [(1, "plain", change), (1, "async", change)] * 2


def test_an_error_of_the_database_spares_what_was_committed(case: Case) -> None:
    async def steps() -> None:
        async with case.session() as session:
            await session.add(Order(id=1))
            await session.commit()
            await session.expunge_all()
            await session.add(Order(id=1))
            with pytest.raises(IntegrityError):
                await session.commit()
            await session.rollback()
            await session.add(Order(id=2))
            await session.commit()
            assert sorted(await session.scalars(select(Order.id))) == [1, 2]
        assert case.order_ids() == []

    case.run(steps)


def test_tables_are_created_where_they_are_missing_and_stay(case: Case) -> None:
    async def steps() -> None:
        engine = case.database.create_engine(poolclass=NullPool)
        Base.metadata.drop_all(engine)
        engine.dispose()
        for base in (Base, Base.metadata):
            async with case.session(case.url, base) as session:
                await session.add(Order(id=1))
                await session.commit()
            assert case.order_ids() == []

    case.run(steps)


def test_engine_of_the_suite_is_used_and_kept(case: Case) -> None:
    disposed: list[Engine] = []

    async def steps() -> None:
        async with case.engine() as engine:
            event.listen(getattr(engine, "sync_engine", engine), "engine_disposed", disposed.append)
            for _ in range(2):
                async with case.session(engine, expire_on_commit=True, session_options={"autoflush": False}) as session:
                    assert (session.sync_session.expire_on_commit, session.sync_session.autoflush) == (True, False)
                    await session.add(Order(id=1))
                    await session.commit()
            assert disposed == []
        assert case.order_ids() == []

    case.run(steps)
    assert len(disposed) == 1


def test_engine_made_from_the_url_is_disposed_of_when_the_block_raises(case: Case) -> None:
    engines: list[Engine] = []

    async def steps() -> None:
        async with case.session(engine_options={"logging_name": "of-the-test"}) as session:
            engine = session.sync_session.get_bind().engine
            assert engine.logging_name == "of-the-test"
            event.listen(engine, "engine_disposed", engines.append)
            await session.add(Order(id=1))
            await session.commit()
            message = "the test failed"
            raise ZeroDivisionError(message)

    with pytest.raises(ZeroDivisionError, match="the test failed"):
        case.run(steps)
    assert (case.order_ids(), len(engines)) == ([], 1)


def test_sessions_of_one_factory_see_what_the_others_committed(case: Case) -> None:
    async def steps() -> None:
        with capture_events() as events:
            async with entered(case.create_maker(case.url)) as make_session:
                async with entered(make_session.begin()) as session:
                    session.add(Order(id=1))
                async with entered(make_session()) as session:
                    adapter = SessionAdapter(session)
                    assert list(await adapter.scalars(select(Order.id))) == [1]
                    await adapter.add(Order(id=2))
                    await adapter.commit()
                left_open = SessionAdapter(make_session())
                await left_open.add(Order(id=3))
                await left_open.flush()
            await left_open.close()
        assert events == [created(Order, 1), created(Order, 2)]
        assert case.order_ids() == []

    case.run(steps)


def test_what_cannot_work_is_refused(case: Case) -> None:
    """Each before anything is connected to."""
    other = case.database.create_engine() if case.is_async else case.database.create_async_engine()
    plain: type[object] = AsyncSession if case.is_async else Session
    twin = "rolled_back_sync_session()" if case.is_async else "rolled_back_session()"

    async def expect(error: type[Exception], message: str, *arguments: object, **options: object) -> None:
        with pytest.raises(error, match=message):
            async with case.session(*arguments, **options):
                pytest.fail("the block must not run")

    async def steps() -> None:
        await expect(SessionClassError, f"or use {twin}".replace("(", r"\(").replace(")", r"\)"), other)
        await expect(ModelBaseError, "which has no tables", case.url, int)
        await expect(DatabaseURLError, "cannot be read", "nonsense")
        await expect(SessionClassError, "which is no", session_options={"class_": plain})

    case.run(steps)


def test_sqlite_engine_without_transactions_is_refused(tmp_path: Path) -> None:
    """It would commit what the test commits, and not undo it."""
    path = tmp_path / "plain.sqlite"
    engine = create_engine(f"sqlite:///{path}")
    with pytest.raises(SavepointsError, match="enable_sqlite_savepoints"), rolled_back_sync_session(engine):
        pytest.fail("the block must not run")
    engine.dispose()

    async def steps() -> None:
        async_engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        with pytest.raises(SavepointsError, match="enable_sqlite_savepoints"):
            async with rolled_back_session(async_engine):
                pytest.fail("the block must not run")
        await async_engine.dispose()

    anyio.run(steps)


def test_database_in_memory_has_the_tables_of_its_base() -> None:
    with capture_events() as events, rolled_back_sync_session("sqlite://", Base) as session:
        session.add(Order(id=1))
        session.commit()
    assert events == [created(Order, 1)]


def test_cancelled_block_is_rolled_back(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'cancelled.sqlite'}"

    async def steps() -> None:
        with anyio.CancelScope() as scope:
            async with rolled_back_session(url, Base) as session:
                session.add(Order(id=1))
                await session.commit()
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        async with rolled_back_session(url) as session:
            assert list(await session.scalars(select(Order.id))) == []

    anyio.run(steps)
