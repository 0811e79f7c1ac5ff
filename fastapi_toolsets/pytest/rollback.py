"""Sessions whose commits deliver events and are undone: inside a transaction that is rolled back at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import anyio
from sqlalchemy import URL, Connection, Engine, MetaData
from sqlalchemy.orm import sessionmaker

from ..errors import SessionClassError, ToolsetsError
from .engines import make_async_engine, make_sync_engine
from .sessions import checked_class, metadata_of
from .tables import create_tables

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

    from ..models import EventSession, SyncEventSession

_ASYNC_CALLER = "rolled_back_session()"
_SYNC_CALLER = "rolled_back_sync_session()"
_JOINS: Mapping[str, Any] = {"join_transaction_mode": "create_savepoint", "dispatch_on_joined_commit": True}


class SavepointsError(ToolsetsError, RuntimeError):
    """An SQLite engine does not begin transactions, so that nothing on it could be rolled back."""


@asynccontextmanager
async def rolled_back_session(
    database: AsyncEngine | str | URL,
    base: type[object] | MetaData | None = None,
    *,
    expire_on_commit: bool = False,
    engine_options: Mapping[str, Any] | None = None,
    session_options: Mapping[str, Any] | None = None,
) -> AsyncGenerator[EventSession]:
    """Give an ``EventSession`` whose commits deliver events, and undo all that it did at the end.

    ::

        @pytest.fixture
        async def db_session(worker_database_url):
            async with rolled_back_session(worker_database_url) as session:
                yield session

    One connection, one transaction around everything: the session's ``commit()`` releases a savepoint, calls the
    callbacks as a real one does, and the next test finds the database as it was. Nobody else sees the rows meanwhile:
    what the code under test opens by itself has to be made by :func:`rolled_back_sessionmaker`. The database does not
    roll back everything: sequences go on counting, and on MariaDB a statement such as CREATE TABLE commits the
    transaction. Runs on the event loop of the caller, which must be asyncio's.

    Args:
        database: An engine, or the URL of a database to make one for. An SQLite engine has to begin transactions (see
            ``fastapi_toolsets.db.enable_sqlite_savepoints``); one that is made from a URL does.
        base: The declarative base of the models, or their ``MetaData``, where the tables may have to be created. They
            are created before the transaction begins, and stay.
        expire_on_commit: Expire the session's objects at each commit.
        engine_options: Further arguments for ``create_async_engine``, with a URL.
        session_options: Further arguments for the session factory, such as those of ``EventSession``.

    Yields:
        The session.

    Raises:
        DatabaseURLError: The URL cannot be read, its driver is sync or is not installed.
        ModelBaseError: ``base`` has no ``MetaData``.
        SavepointsError: The SQLite engine begins no transactions.
        SessionClassError: The engine is of the other kind, or ``class_`` in ``session_options`` is no event session of
            this kind.
    """
    async with (
        rolled_back_sessionmaker(
            database,
            base,
            expire_on_commit=expire_on_commit,
            engine_options=engine_options,
            session_options=session_options,
        ) as make_session,
        make_session() as session,
    ):
        yield session


@asynccontextmanager
async def rolled_back_sessionmaker(
    database: AsyncEngine | str | URL,
    base: type[object] | MetaData | None = None,
    *,
    expire_on_commit: bool = False,
    engine_options: Mapping[str, Any] | None = None,
    session_options: Mapping[str, Any] | None = None,
) -> AsyncGenerator[async_sessionmaker[EventSession]]:
    """Give a session factory as :func:`rolled_back_session` gives a session, for code that opens its own.

    Its sessions share one connection and one transaction, and see what the others have committed. Their savepoints lie
    inside each other, so a session has to end its transaction before another one goes on.

    Args:
        database: As for :func:`rolled_back_session`, and so are the others.
        base: The declarative base of the models, where the tables may have to be created.
        expire_on_commit: Expire the sessions' objects at each commit.
        engine_options: Further arguments for ``create_async_engine``, with a URL.
        session_options: Further arguments for the session factory.

    Yields:
        The factory.

    Raises:
        DatabaseURLError: The URL cannot be read, its driver is sync or is not installed.
        ModelBaseError: ``base`` has no ``MetaData``.
        SavepointsError: The SQLite engine begins no transactions.
        SessionClassError: The engine is of the other kind, or ``class_`` in ``session_options`` is no event session of
            this kind.
    """
    from sqlalchemy.ext.asyncio import (  # noqa: PLC0415 - it needs greenlet, the sync form does not
        AsyncEngine,
        async_sessionmaker,
    )

    from ..models import EventSession  # noqa: PLC0415 - as above

    caller = _ASYNC_CALLER
    metadata = None if base is None else metadata_of(base, caller)
    options: dict[str, Any] = {"expire_on_commit": expire_on_commit, **_JOINS, **(session_options or {})}
    session_class = checked_class(options.pop("class_", EventSession), EventSession, caller)
    if isinstance(database, Engine):
        raise SessionClassError(f"{caller} was given a sync engine: give it an async one, or use {_SYNC_CALLER}")
    engine = (
        database if isinstance(database, AsyncEngine) else make_async_engine(database, caller, engine_options or {})
    )
    try:
        async with engine.connect() as connection:
            if metadata is not None:
                await connection.run_sync(create_tables, metadata)
            transaction = await connection.begin()
            try:
                await connection.run_sync(_check_begun)
                yield async_sessionmaker(connection, class_=session_class, **options)
            finally:
                with anyio.CancelScope(shield=True):
                    await transaction.rollback()
    finally:
        if engine is not database:
            with anyio.CancelScope(shield=True):
                await engine.dispose()


@contextmanager
def rolled_back_sync_session(
    database: Engine | str | URL,
    base: type[object] | MetaData | None = None,
    *,
    expire_on_commit: bool = False,
    engine_options: Mapping[str, Any] | None = None,
    session_options: Mapping[str, Any] | None = None,
) -> Generator[SyncEventSession]:
    """Give a ``SyncEventSession`` whose commits deliver events, and undo all that it did at the end.

    The sync twin of :func:`rolled_back_session`, with the same arguments and promises, in the caller's thread.

    Args:
        database: An engine, or the URL of a database to make one for, with a sync driver.
        base: The declarative base of the models, where the tables may have to be created.
        expire_on_commit: Expire the session's objects at each commit.
        engine_options: Further arguments for ``create_engine``, with a URL.
        session_options: Further arguments for the session factory.

    Yields:
        The session.

    Raises:
        DatabaseURLError: The URL cannot be read, its driver is async or is not installed.
        ModelBaseError: ``base`` has no ``MetaData``.
        SavepointsError: The SQLite engine begins no transactions.
        SessionClassError: The engine is of the other kind, or ``class_`` in ``session_options`` is no event session of
            this kind.
    """
    with (
        rolled_back_sync_sessionmaker(
            database,
            base,
            expire_on_commit=expire_on_commit,
            engine_options=engine_options,
            session_options=session_options,
        ) as make_session,
        make_session() as session,
    ):
        yield session


@contextmanager
def rolled_back_sync_sessionmaker(
    database: Engine | str | URL,
    base: type[object] | MetaData | None = None,
    *,
    expire_on_commit: bool = False,
    engine_options: Mapping[str, Any] | None = None,
    session_options: Mapping[str, Any] | None = None,
) -> Generator[sessionmaker[SyncEventSession]]:
    """Give a session factory as :func:`rolled_back_sync_session` gives a session, for code that opens its own.

    The sync twin of :func:`rolled_back_sessionmaker`, with the same arguments and promises.

    Args:
        database: An engine, or the URL of a database to make one for, with a sync driver.
        base: The declarative base of the models, where the tables may have to be created.
        expire_on_commit: Expire the sessions' objects at each commit.
        engine_options: Further arguments for ``create_engine``, with a URL.
        session_options: Further arguments for the session factory.

    Yields:
        The factory.

    Raises:
        DatabaseURLError: The URL cannot be read, its driver is async or is not installed.
        ModelBaseError: ``base`` has no ``MetaData``.
        SavepointsError: The SQLite engine begins no transactions.
        SessionClassError: The engine is of the other kind, or ``class_`` in ``session_options`` is no event session of
            this kind.
    """
    from ..models import SyncEventSession  # noqa: PLC0415 - so that both names above are for type checkers only

    caller = _SYNC_CALLER
    metadata = None if base is None else metadata_of(base, caller)
    options: dict[str, Any] = {"expire_on_commit": expire_on_commit, **_JOINS, **(session_options or {})}
    session_class = checked_class(options.pop("class_", SyncEventSession), SyncEventSession, caller)
    if hasattr(database, "sync_engine"):
        raise SessionClassError(f"{caller} was given an async engine: give it a sync one, or use {_ASYNC_CALLER}")
    engine = database if isinstance(database, Engine) else make_sync_engine(database, caller, engine_options or {})
    try:
        with engine.connect() as connection:
            if metadata is not None:
                create_tables(connection, metadata)
            transaction = connection.begin()
            try:
                _check_begun(connection)
                yield sessionmaker(connection, class_=session_class, **options)
            finally:
                transaction.rollback()
    finally:
        if engine is not database:
            engine.dispose()


def _check_begun(connection: Connection) -> None:
    """Refuse an SQLite connection whose driver begins a transaction when it likes, and then commits what it likes."""
    if connection.dialect.name == "sqlite" and not getattr(
        connection.connection.driver_connection, "in_transaction", True
    ):
        raise SavepointsError(
            "this SQLite engine begins no transactions, so what a test commits on it would stay: call "
            "fastapi_toolsets.db.enable_sqlite_savepoints(engine) right after making the engine, or give the URL"
        )
