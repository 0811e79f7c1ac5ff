"""``create_db_session`` and its sync twin: an event session on fresh tables, which are gone afterwards."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from sqlalchemy import URL, MetaData
from sqlalchemy.orm import sessionmaker

from ..errors import SessionClassError, ToolsetsError
from .engines import make_async_engine, make_sync_engine
from .tables import create_tables, drop_tables_of, empty_tables

if TYPE_CHECKING:
    from ..models import EventSession, SyncEventSession

SessionT = TypeVar("SessionT", bound="EventSession | SyncEventSession")


class ModelBaseError(ToolsetsError, TypeError):
    """Something without tables was given where a declarative base or a ``MetaData`` belongs."""


@asynccontextmanager
async def create_db_session(
    database_url: str | URL,
    base: type[object] | MetaData,
    *,
    echo: bool = False,
    expire_on_commit: bool = False,
    drop_tables: bool = True,
    cleanup: bool = False,
    engine_options: Mapping[str, Any] | None = None,
    session_options: Mapping[str, Any] | None = None,
) -> AsyncGenerator[EventSession]:
    """Create the tables, give an ``EventSession`` on them, and leave nothing behind.

    ::

        @pytest.fixture
        async def db_session():
            async with create_db_session("sqlite+aiosqlite:///:memory:", Base) as session:
                yield session

    On SQLite savepoints work and foreign keys are checked, as on the other databases, and everybody who uses the engine
    of a memory database shares its one connection. At the end, also when the block raised or was cancelled, the session
    is closed (what it did not commit is rolled back), the tables are dropped or emptied, and the engine is disposed of.
    Runs on the event loop of the caller, which must be asyncio's.

    Args:
        database_url: Where the database is, with an async driver: ``sqlite+aiosqlite``, ``postgresql+asyncpg``,
            ``postgresql+psycopg``, ``mysql+asyncmy`` or ``mysql+aiomysql`` (MariaDB). The database itself has to exist.
        base: The declarative base of the models, or their ``MetaData``. Tables that are there already are kept as they
            are, with their rows.
        echo: Log every statement.
        expire_on_commit: Expire the session's objects at each commit.
        drop_tables: Drop the tables at the end.
        cleanup: Delete all rows at the end and let generated keys start from one again, where the tables are kept
            (``drop_tables=False``): faster than making them anew for each test.
        engine_options: Further arguments for ``create_async_engine``.
        session_options: Further arguments for the session factory, such as those of ``EventSession``.

    Yields:
        The session.

    Raises:
        DatabaseURLError: The URL cannot be read, its driver is sync or is not installed.
        ModelBaseError: ``base`` has no ``MetaData``.
        SessionClassError: ``class_`` in ``session_options`` is no event session of this kind.
        TablesInUseError: At the end, another connection held a lock on the tables for longer than 10 seconds.
    """
    from sqlalchemy.ext.asyncio import async_sessionmaker  # noqa: PLC0415 - it needs greenlet, the sync form does not

    from ..models import EventSession  # noqa: PLC0415 - as above

    metadata = metadata_of(base, "create_db_session()")
    options: dict[str, Any] = {"expire_on_commit": expire_on_commit, **(session_options or {})}
    session_class = checked_class(options.pop("class_", EventSession), EventSession, "create_db_session()")
    engine = make_async_engine(database_url, "create_db_session()", {"echo": echo, **(engine_options or {})})
    try:
        async with engine.connect() as connection:
            await connection.run_sync(create_tables, metadata)
        session_maker = async_sessionmaker(engine, class_=session_class, **options)
        try:
            async with session_maker() as session:
                yield session
        finally:
            with anyio.CancelScope(shield=True):
                if drop_tables:
                    async with engine.connect() as connection:
                        await connection.run_sync(drop_tables_of, metadata)
                elif cleanup:
                    async with engine.connect() as connection:
                        await connection.run_sync(empty_tables, metadata)
    finally:
        with anyio.CancelScope(shield=True):
            await engine.dispose()


@contextmanager
def create_sync_db_session(
    database_url: str | URL,
    base: type[object] | MetaData,
    *,
    echo: bool = False,
    expire_on_commit: bool = False,
    drop_tables: bool = True,
    cleanup: bool = False,
    engine_options: Mapping[str, Any] | None = None,
    session_options: Mapping[str, Any] | None = None,
) -> Generator[SyncEventSession]:
    """Create the tables, give a ``SyncEventSession`` on them, and leave nothing behind.

    The sync twin of :func:`create_db_session`, with the same arguments and the same promises, in the caller's thread.

    Args:
        database_url: Where the database is, with a sync driver: ``sqlite+pysqlite`` (or ``sqlite``),
            ``postgresql+psycopg`` or ``mysql+pymysql`` (MariaDB). The database itself has to exist.
        base: The declarative base of the models, or their ``MetaData``. Tables that are there already are kept as they
            are, with their rows.
        echo: Log every statement.
        expire_on_commit: Expire the session's objects at each commit.
        drop_tables: Drop the tables at the end.
        cleanup: Delete all rows at the end and let generated keys start from one again, where the tables are kept.
        engine_options: Further arguments for ``create_engine``.
        session_options: Further arguments for the session factory, such as those of ``SyncEventSession``.

    Yields:
        The session.

    Raises:
        DatabaseURLError: The URL cannot be read, its driver is async or is not installed.
        ModelBaseError: ``base`` has no ``MetaData``.
        SessionClassError: ``class_`` in ``session_options`` is no event session of this kind.
        TablesInUseError: At the end, another connection held a lock on the tables for longer than 10 seconds.
    """
    from ..models import SyncEventSession  # noqa: PLC0415 - so that both names above are for type checkers only

    metadata = metadata_of(base, "create_sync_db_session()")
    options: dict[str, Any] = {"expire_on_commit": expire_on_commit, **(session_options or {})}
    session_class = checked_class(options.pop("class_", SyncEventSession), SyncEventSession, "create_sync_db_session()")
    engine = make_sync_engine(database_url, "create_sync_db_session()", {"echo": echo, **(engine_options or {})})
    try:
        with engine.connect() as connection:
            create_tables(connection, metadata)
        session_maker = sessionmaker(engine, class_=session_class, **options)
        try:
            with session_maker() as session:
                yield session
        finally:
            if drop_tables:
                with engine.connect() as connection:
                    drop_tables_of(connection, metadata)
            elif cleanup:
                with engine.connect() as connection:
                    empty_tables(connection, metadata)
    finally:
        engine.dispose()


def metadata_of(base: object, caller: str) -> MetaData:
    """Return the tables of a declarative base, or say what was given instead of one."""
    metadata = base if isinstance(base, MetaData) else getattr(base, "metadata", None)
    if isinstance(metadata, MetaData):
        return metadata
    name = base.__name__ if isinstance(base, type) else f"an object of type {type(base).__name__}"
    raise ModelBaseError(
        f"{caller} was given {name}, which has no tables: give it the class that your models derive from "
        "(class Base(DeclarativeBase)), or its metadata"
    )


def checked_class(given: object, session_class: type[SessionT], caller: str) -> type[SessionT]:
    """Return the session class that a test asked for, or say why it will not do."""
    if isinstance(given, type) and issubclass(given, session_class):
        return given
    name = given.__name__ if isinstance(given, type) else f"an object of type {type(given).__name__}"
    raise SessionClassError(
        f"{caller} was given {name} as class_ in session_options, which is no {session_class.__name__}: give it a "
        f"subclass of {session_class.__name__}, or leave class_ out"
    )
