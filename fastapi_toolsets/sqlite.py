"""What SQLite and its Python drivers do otherwise than other databases, put right for each connection of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Engine, event

from .errors import SessionClassError
from .messages import described

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

_BEGINS_BY_ITSELF = "fastapi_toolsets.begins_by_itself"
"""Key of a connection's ``info``: whether the SQLite driver keeps a transaction open by itself."""


def enable_sqlite_savepoints(engine: Engine | AsyncEngine) -> None:
    """Make savepoints and rollbacks work on SQLite, whose Python driver otherwise begins transactions too late.

    The driver's own transaction control is switched off for each new connection and ``BEGIN`` sent when SQLAlchemy
    begins: the recipe of SQLAlchemy's documentation. A connection whose COMMIT failed is rolled back when the pool gets
    it: SQLite leaves its transaction open, and SQLAlchemy takes it for ended. Call it before the engine is used; to
    call it again changes nothing.

    Args:
        engine: A sync or async engine; one of another database is left as it is.

    Raises:
        SessionClassError: ``engine`` is no engine.
    """
    sync_engine = _checked_engine(engine, "enable_sqlite_savepoints()")
    if sync_engine.dialect.name == "sqlite" and not event.contains(sync_engine, "begin", _begin):
        event.listen(sync_engine, "connect", _leave_transactions_to_sqlalchemy)
        event.listen(sync_engine, "begin", _begin)
        event.listen(sync_engine, "reset", _end_what_a_failed_commit_left)


def _leave_transactions_to_sqlalchemy(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    if not _begins_by_itself(entry):
        connection.isolation_level = None


def _begin(connection: Connection) -> None:
    from .events.compatibility import is_autocommit  # noqa: PLC0415 - for engines, which need none of it, to be made

    if not connection.info.get(_BEGINS_BY_ITSELF) and not is_autocommit(connection):  # as VACUUM needs it
        connection.exec_driver_sql("BEGIN")


def _begins_by_itself(entry: ConnectionPoolEntry) -> bool:
    """Whether a new connection is in a transaction already, as ``connect_args={"autocommit": False}`` makes it.

    That is right as it is. It is noted, since the driver could be asked in its own thread only.
    """
    begins = getattr(entry.driver_connection, "in_transaction", False) is True
    return bool(entry.info.setdefault(_BEGINS_BY_ITSELF, begins))


def _end_what_a_failed_commit_left(
    connection: DBAPIConnection, entry: ConnectionPoolEntry, state: PoolResetState
) -> None:
    if state.asyncio_safe and getattr(entry.driver_connection, "in_transaction", False):
        connection.rollback()


def enable_sqlite_foreign_keys(engine: Engine | AsyncEngine) -> None:
    """Make SQLite check foreign keys, as every other database does. Call it before the engine is used.

    Args:
        engine: A sync or async engine; one of another database is left as it is.

    Raises:
        SessionClassError: ``engine`` is no engine.
    """
    sync_engine = _checked_engine(engine, "enable_sqlite_foreign_keys()")
    if sync_engine.dialect.name == "sqlite":
        event.listen(sync_engine, "connect", _check_foreign_keys)


def _check_foreign_keys(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    pragma = "PRAGMA foreign_keys=ON"  # does nothing in a transaction
    cursor = connection.cursor()
    for statement in ("COMMIT", pragma, "BEGIN") if _begins_by_itself(entry) else (pragma,):
        cursor.execute(statement)
    cursor.close()


def _checked_engine(engine: object, caller: str) -> Engine:
    """Return the sync engine, which an async one has, or say what was given instead."""
    sync_engine = getattr(engine, "sync_engine", engine)
    if not isinstance(sync_engine, Engine):
        raise SessionClassError(
            f"{caller} was given {described(engine)}, which is no engine: give it what create_engine() or "
            "create_async_engine() has returned"
        )
    return sync_engine
