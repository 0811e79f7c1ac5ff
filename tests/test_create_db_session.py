"""``create_db_session`` and its sync twin, on every driver that they name."""

from __future__ import annotations

import enum
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection, Engine, Enum, ForeignKey, MetaData, event, insert, inspect, make_url, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from fastapi_toolsets.errors import SessionClassError
from fastapi_toolsets.models import EventSession, SyncEventSession
from fastapi_toolsets.pytest import (
    TablesInUseError,
    create_db_session,
    create_sync_db_session,
)

from .databases import TYPES, Database, TestRunDatabases
from .front_ends import SessionAdapter, entered, run_without_loop

ASYNC_DRIVERS = {
    "sqlite+aiosqlite": "sqlite",
    "postgresql+asyncpg": "postgresql",
    "postgresql+psycopg": "postgresql",
    "mysql+asyncmy": "mariadb",
    "mysql+aiomysql": "mariadb",
}
SYNC_DRIVERS = {"sqlite+pysqlite": "sqlite", "postgresql+psycopg": "postgresql", "mysql+pymysql": "mariadb"}
CASES = [("async", driver) for driver in ASYNC_DRIVERS] + [("sync", driver) for driver in SYNC_DRIVERS]

CreateSession = Callable[..., AbstractAsyncContextManager[Any] | AbstractContextManager[Any]]


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Team(Base):
    __tablename__ = "teams"
    __table_args__ = ({"sqlite_autoincrement": True},)  # its last key is kept in a table of SQLite's own
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    colour: Mapped[Colour] = mapped_column(Enum(Colour), default=Colour.RED)


class Player(Base):
    __tablename__ = "players"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int] = mapped_column(ForeignKey("teams.id"))


def models_that_refer_to_each_other() -> tuple[type[Any], type[Any], type[Any]]:
    """Make models whose tables no order of creation or of dropping is right for.

    New ones for each test: where SQLAlchemy has once created such a foreign key by ALTER, it leaves it out on SQLite.
    """

    class Circular(DeclarativeBase):
        type_annotation_map = TYPES

    class Author(Circular):
        __tablename__ = "authors"
        id: Mapped[int] = mapped_column(primary_key=True)
        colour: Mapped[Colour] = mapped_column(Enum(Colour), default=Colour.RED)
        best_book_id: Mapped[int | None] = mapped_column(ForeignKey("books.id"))

    class Book(Circular):
        __tablename__ = "books"
        id: Mapped[int] = mapped_column(primary_key=True)
        author_id: Mapped[int | None] = mapped_column(ForeignKey("authors.id"))

    return Circular, Author, Book


class Case:
    """``create_db_session`` on one driver, or its sync twin, behind one awaitable face."""

    def __init__(self, kind: str, driver: str, database: Database) -> None:
        self.is_async = kind == "async"
        self.database = database
        self.url = database.url.set(drivername=driver)
        self.create: CreateSession = create_db_session if self.is_async else create_sync_db_session

    @asynccontextmanager
    async def session(self, base: object = Base, **options: object) -> AsyncGenerator[SessionAdapter]:
        async with entered(self.create(self.url, base, **options)) as session:
            yield SessionAdapter(session)

    def run(self, steps: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self.is_async:
            anyio.run(steps, backend="asyncio")
        else:
            run_without_loop(steps())

    def look(self, function: Callable[[Connection], list[str]]) -> list[str]:
        """Look at the database over a connection of the test's own."""
        engine = self.database.create_engine(poolclass=NullPool)
        try:
            with engine.connect() as connection:
                return function(connection)
        finally:
            engine.dispose()

    def table_names(self) -> list[str]:
        return self.look(lambda connection: sorted(inspect(connection).get_table_names()))

    def team_names(self) -> list[str]:
        return self.look(lambda connection: list(connection.scalars(select(Team.name).order_by(Team.id))))


@pytest.fixture(params=CASES, ids=[f"{driver}-{kind}" for kind, driver in CASES])
def case(request: pytest.FixtureRequest, test_run_databases: TestRunDatabases, tmp_path: Path) -> Generator[Case]:
    kind, driver = request.param
    case = Case(kind, driver, test_run_databases.provide((ASYNC_DRIVERS | SYNC_DRIVERS)[driver], tmp_path))
    yield case
    with create_sync_db_session(case.database.sync_url, Base):  # what the test kept on purpose goes
        pass


def test_gives_an_event_session_on_fresh_tables(case: Case) -> None:
    async def steps() -> None:
        async with case.session() as session:
            assert isinstance(session.session, EventSession if case.is_async else SyncEventSession)
            assert case.table_names() == ["players", "teams"]
            await session.add(Team(name="first"))
            await session.commit()
            assert case.team_names() == ["first"]
        assert case.table_names() == []

    case.run(steps)


def test_metadata_serves_as_base(case: Case) -> None:
    async def steps() -> None:
        async with case.session(Base.metadata):
            assert case.table_names() == ["players", "teams"]
        assert case.table_names() == []

    case.run(steps)


def test_kept_tables_keep_their_rows(case: Case) -> None:
    async def steps() -> None:
        async with case.session(drop_tables=False) as session:
            await session.add(Team(name="kept"))
            await session.commit()
        assert case.team_names() == ["kept"]
        async with case.session(drop_tables=False) as session:
            assert list(await session.scalars(select(Team.name))) == ["kept"]

    case.run(steps)


def test_cleanup_deletes_rows_and_restarts_keys(case: Case) -> None:
    async def steps() -> None:
        for _ in range(2):
            async with case.session(drop_tables=False, cleanup=True) as session:
                team = Team(name="gone")
                await session.add(team)
                await session.flush()
                await session.add(Player(team_id=team.id))
                await session.commit()
                assert team.id == 1
            assert case.table_names() == ["players", "teams"]
            assert case.team_names() == []

    case.run(steps)


def test_tables_that_refer_to_each_other_are_emptied_and_dropped(case: Case) -> None:
    base, author_class, book_class = models_that_refer_to_each_other()

    async def write(session: SessionAdapter) -> tuple[int, int]:
        author, book = author_class(), book_class()
        await session.add_all([author, book])
        await session.flush()
        author.best_book_id, book.author_id = book.id, author.id
        await session.commit()
        return author.id, book.id

    async def steps() -> None:
        for _ in range(2):
            async with case.session(base, drop_tables=False, cleanup=True) as session:
                assert await write(session) == (1, 1)
            assert case.table_names() == ["authors", "books"]
        for _ in range(2):
            async with case.session(base) as session:
                assert await write(session) == (1, 1)
            assert case.table_names() == []

    case.run(steps)


def test_cleanup_and_drop_tables_leave_nothing(case: Case) -> None:
    async def steps() -> None:
        async with case.session(cleanup=True) as session:
            await session.add(Team(name="gone"))
            await session.commit()
        assert case.table_names() == []

    case.run(steps)


def test_what_was_not_committed_is_rolled_back(case: Case) -> None:
    async def steps() -> None:
        async with case.session(drop_tables=False) as session:
            await session.add(Team(name="flushed only"))
            await session.flush()
        assert case.team_names() == []

    case.run(steps)


def test_savepoints_are_real(case: Case) -> None:
    async def steps() -> None:
        async with case.session() as session:
            async with session.begin():
                await session.add(Team(name="kept"))
                savepoint = await session.begin_nested()
                await session.add(Team(name="dropped"))
                await session.flush()
                await savepoint.rollback()
            assert case.team_names() == ["kept"]

    case.run(steps)


def test_foreign_keys_are_checked(case: Case) -> None:
    async def steps() -> None:
        async with case.session() as session:
            await session.add(Player(team_id=404))
            with pytest.raises(IntegrityError):
                await session.commit()

    case.run(steps)


def test_tables_go_and_the_engine_is_disposed_of_when_the_block_raises(case: Case) -> None:
    engines: list[Engine] = []

    async def steps() -> None:
        async with case.session() as session:
            engine = session.sync_session.get_bind()
            assert isinstance(engine, Engine)
            event.listen(engine, "engine_disposed", engines.append)
            await session.add(Team(name="gone"))
            await session.flush()
            message = "the test failed"
            raise ZeroDivisionError(message)

    with pytest.raises(ZeroDivisionError, match="the test failed"):
        case.run(steps)
    assert case.table_names() == []
    assert len(engines) == 1


def test_options_reach_the_engine_and_the_session(case: Case) -> None:
    async def steps() -> None:
        async with case.session(
            echo=True,
            expire_on_commit=True,
            engine_options={"pool_pre_ping": True, "logging_name": "of-the-test"},
            session_options={"autoflush": False},
        ) as session:
            engine = session.sync_session.get_bind()
            assert isinstance(engine, Engine)
            assert (engine.echo, engine.logging_name) == (True, "of-the-test")
            assert (session.sync_session.expire_on_commit, session.sync_session.autoflush) == (True, False)
        async with case.session() as session:
            assert (session.sync_session.expire_on_commit, session.sync_session.autoflush) == (False, True)

    case.run(steps)


def test_subclass_of_the_event_session_may_be_given(case: Case) -> None:
    class OwnAsync(EventSession):
        pass

    class OwnSync(SyncEventSession):
        pass

    own = OwnAsync if case.is_async else OwnSync

    async def steps() -> None:
        async with case.session(session_options={"class_": own}) as session:
            assert isinstance(session.session, own)

    case.run(steps)


def test_session_class_without_events_is_refused(case: Case) -> None:
    plain: type[object] = AsyncSession if case.is_async else Session

    async def steps() -> None:
        async with case.session(session_options={"class_": plain}):
            pytest.fail("the block must not run")

    with pytest.raises(SessionClassError, match=f"given {plain.__name__} as class_ in session_options"):
        case.run(steps)


def test_tables_locked_by_somebody_else_end_in_an_error(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is held by a connection that the test forgot to close: an error says so, instead of a wait for ever."""
    monkeypatch.setattr("fastapi_toolsets.pytest.tables._LOCK_TIMEOUT_SECONDS", 0.1)
    shorter = {"connect_args": {"timeout": 0.1}} if case.database.name == "sqlite" else {}
    forgotten = case.database.create_engine(poolclass=NullPool)

    async def steps() -> None:
        async with case.session(engine_options=shorter) as session:
            await session.add(Team(name="read"))
            await session.commit()
            connection.execute(select(Team.name))

    with forgotten.connect() as connection, pytest.raises(TablesInUseError, match="close every session and connection"):
        case.run(steps)
    forgotten.dispose()


@pytest.mark.parametrize("cleanup", [False, True], ids=["dropped", "emptied"])
@pytest.mark.parametrize(("kind", "driver"), [("async", "sqlite+aiosqlite"), ("sync", "sqlite+pysqlite")])
def test_sqlite_waits_for_whoever_writes(kind: str, driver: str, *, cleanup: bool, tmp_path: Path) -> None:
    """For as long as the driver is told to: only then it is an error."""
    waiting_time = 0.3
    case = Case(kind, driver, Database("sqlite", make_url(f"sqlite:///{tmp_path / 'app.sqlite'}")))
    writer = case.database.create_engine(poolclass=NullPool)
    options = {"connect_args": {"timeout": waiting_time}}
    began: list[float] = []

    async def steps() -> None:
        async with case.session(engine_options=options, drop_tables=not cleanup, cleanup=cleanup):
            connection.execute(insert(Team).values(name="written"))
            began.append(time.monotonic())

    with writer.connect() as connection, pytest.raises(TablesInUseError):
        case.run(steps)
    assert time.monotonic() - began[0] >= waiting_time
    writer.dispose()


@pytest.mark.anyio
async def test_cancelled_block_leaves_nothing_behind(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'cancelled.sqlite'}"
    engines: list[Engine] = []
    with anyio.CancelScope() as scope:
        async with create_db_session(url, Base) as session:
            event.listen(session.sync_session.get_bind(), "engine_disposed", engines.append)
            session.add(Team(name="gone"))
            await session.commit()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert len(engines) == 1
    async with create_db_session(url, MetaData()) as session:
        assert list(await session.scalars(text("SELECT name FROM sqlite_master WHERE name != 'sqlite_sequence'"))) == []
