"""Creating, emptying and dropping the tables of a test, on every database, whatever refers to what."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from math import ceil
from typing import cast

from sqlalchemy import Connection, ForeignKeyConstraint, MetaData, Table, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import sort_tables_and_constraints  # pyright: ignore[reportUnknownVariableType]

from ..errors import ToolsetsError

_LOCK_TIMEOUT_SECONDS = 10.0
_POSTGRESQL_LOCK_NOT_AVAILABLE = "55P03"
_MARIADB_LOCK_WAIT_TIMEOUT = 1205


class TablesInUseError(ToolsetsError, RuntimeError):
    """Tables could not be dropped or emptied, because another connection holds a lock on them."""


def create_tables(connection: Connection, metadata: MetaData) -> None:
    """Create the tables that are not there yet."""
    with connection.begin():
        metadata.create_all(connection)


def drop_tables_of(connection: Connection, metadata: MetaData) -> None:
    """Drop all tables that are there, also those that refer to each other in a circle."""
    with _transaction(connection, "dropped"):
        circular = _circular_tables(metadata)
        if circular:
            _drop_in_any_order(connection, circular)
        metadata.drop_all(connection)


def empty_tables(connection: Connection, metadata: MetaData) -> None:
    """Delete all rows and let generated keys start from one again."""
    tables = list(metadata.tables.values())
    if not tables:
        return
    with _transaction(connection, "emptied"), _foreign_keys_at_rest(connection):
        names = [connection.dialect.identifier_preparer.format_table(table) for table in tables]
        match connection.dialect.name:
            case "postgresql":
                connection.execute(text(f"TRUNCATE {', '.join(names)} RESTART IDENTITY CASCADE"))
            case "mysql" | "mariadb":
                for name in names:
                    connection.execute(text(f"TRUNCATE {name}"))
            case _:
                for table in tables:
                    connection.execute(table.delete())
                if connection.dialect.name == "sqlite" and inspect(connection).has_table("sqlite_sequence"):
                    connection.execute(text("DELETE FROM sqlite_sequence"))


def _circular_tables(metadata: MetaData) -> list[Table]:
    """Find the tables that no order of foreign keys is right for."""
    # SQLAlchemy has documented this function but not annotated it.
    order = cast(
        "list[tuple[Table | None, list[ForeignKeyConstraint]]]",
        sort_tables_and_constraints(metadata.tables.values()),  # type: ignore[no-untyped-call]
    )
    constraints = order[-1][1]
    return list(dict.fromkeys(constraint.table for constraint in constraints))


def _drop_in_any_order(connection: Connection, tables: list[Table]) -> None:
    """Drop tables whose foreign keys go in a circle; ``drop_all`` gives up on them where the keys have no names."""
    if connection.dialect.name == "postgresql":
        names = ", ".join(connection.dialect.identifier_preparer.format_table(table) for table in tables)
        connection.execute(text(f"DROP TABLE IF EXISTS {names} CASCADE"))
        return
    with _foreign_keys_at_rest(connection):
        for table in tables:
            table.drop(connection, checkfirst=True)


@contextmanager
def _foreign_keys_at_rest(connection: Connection) -> Generator[None]:
    """Let rows and tables go in any order; on SQLite until the transaction ends, where all have gone."""
    match connection.dialect.name:
        case "sqlite":
            connection.execute(text("PRAGMA defer_foreign_keys=ON"))
            yield
        case "mysql" | "mariadb":
            connection.execute(text("SET SESSION foreign_key_checks=0"))
            yield
            connection.execute(text("SET SESSION foreign_key_checks=1"))
        case _:
            yield


@contextmanager
def _transaction(connection: Connection, done: str) -> Generator[None]:
    """Turn a wait for somebody else's lock, without end on most databases, into an error that says what to look for."""
    try:
        with connection.begin():
            match connection.dialect.name:
                case "postgresql":
                    connection.execute(text(f"SET LOCAL lock_timeout = {int(_LOCK_TIMEOUT_SECONDS * 1000)}"))
                case "mysql" | "mariadb":
                    connection.execute(text(f"SET SESSION lock_wait_timeout = {ceil(_LOCK_TIMEOUT_SECONDS)}"))
                case "sqlite":
                    # The driver waits, five seconds unless the engine's options say otherwise, for who wants to write
                    # from the beginning; where a transaction has read before, its first write fails at once.
                    connection.exec_driver_sql("ROLLBACK")
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                case _:
                    pass
            yield
    except DBAPIError as error:
        if not _is_lock_timeout(error):
            raise
        raise TablesInUseError(
            f"the tables could not be {done}, since another connection still has a transaction open on them: close "
            "every session and connection that the test opened before its create_db_session() block ends"
        ) from error


def _is_lock_timeout(error: DBAPIError) -> bool:
    driver_error: object = error.orig
    if getattr(driver_error, "sqlstate", None) == _POSTGRESQL_LOCK_NOT_AVAILABLE:
        return True
    arguments: tuple[object, ...] = getattr(driver_error, "args", ())
    return arguments[:1] == (_MARIADB_LOCK_WAIT_TIMEOUT,) or "locked" in str(arguments[:1])
