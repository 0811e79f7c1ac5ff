"""Engines for tests: made from a URL, with errors that say which driver to name, and SQLite set up to behave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.pool import StaticPool

from ..errors import ToolsetsError
from ..sqlite import enable_sqlite_foreign_keys, enable_sqlite_savepoints

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

EngineT = TypeVar("EngineT", bound="Engine | AsyncEngine")

_ASYNC_DRIVERS = {
    "sqlite": ("aiosqlite",),
    "postgresql": ("asyncpg", "psycopg"),
    "mysql": ("asyncmy", "aiomysql"),
    "mariadb": ("asyncmy", "aiomysql"),
}
_SYNC_DRIVERS = {
    "sqlite": ("pysqlite",),
    "postgresql": ("psycopg",),
    "mysql": ("pymysql",),
    "mariadb": ("pymysql",),
}


_OF_THE_OTHER_KIND = {
    "create_db_session()": "create_sync_db_session()",
    "create_sync_db_session()": "create_db_session()",
    "rolled_back_session()": "rolled_back_sync_session()",
    "rolled_back_sync_session()": "rolled_back_session()",
}


class DatabaseURLError(ToolsetsError, ValueError):
    """A database URL cannot be read, or names a driver that is not there or is of the other kind."""


def make_async_engine(database_url: str | URL, caller: str, options: Mapping[str, Any]) -> AsyncEngine:
    """Make an async engine for a test."""
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - it needs greenlet, the sync form does not

    url = parsed_url(database_url, caller)
    try:
        return _prepared(create_async_engine, url, caller, options, _ASYNC_DRIVERS)
    except InvalidRequestError as error:
        if url.get_dialect().is_async:
            raise
        raise DatabaseURLError(
            f"{caller} works with an async driver, and {shown(url)} names a sync one: "
            f"{_advice(url, _ASYNC_DRIVERS)}, or use {_OF_THE_OTHER_KIND[caller]}"
        ) from error


def make_sync_engine(database_url: str | URL, caller: str, options: Mapping[str, Any]) -> Engine:
    """Make a sync engine for a test."""
    url = parsed_url(database_url, caller)
    engine = _prepared(create_engine, url, caller, options, _SYNC_DRIVERS)
    if engine.dialect.is_async:
        raise DatabaseURLError(
            f"{caller} works with a sync driver, and {shown(url)} names an async one: "
            f"{_advice(url, _SYNC_DRIVERS)}, or use {_OF_THE_OTHER_KIND[caller]}"
        )
    return engine


def _prepared(
    create: Callable[..., EngineT],
    url: URL,
    caller: str,
    options: Mapping[str, Any],
    drivers: Mapping[str, tuple[str, ...]],
) -> EngineT:
    if is_memory_database(url) and not {"poolclass", "pool", "creator", "async_creator"} & options.keys():
        # Each connection to a memory database opens another database: all share one, in whichever thread they are.
        connect_args: Mapping[str, Any] = options.get("connect_args", {})
        options = {**options, "poolclass": StaticPool, "connect_args": {"check_same_thread": False, **connect_args}}
    try:
        engine = create(url, **options)
    except NoSuchModuleError as error:
        raise DatabaseURLError(
            f"{caller} cannot use {shown(url)}: SQLAlchemy knows no {url.drivername!r}; {_advice(url, drivers)}"
        ) from error
    except ModuleNotFoundError as error:
        raise DatabaseURLError(
            f"{caller} cannot use {shown(url)}: its driver needs the module {error.name!r}, which is not installed; "
            f"install it, or {_advice(url, drivers)}"
        ) from error
    enable_sqlite_savepoints(engine)
    enable_sqlite_foreign_keys(engine)
    return engine


def parsed_url(database_url: str | URL, caller: str) -> URL:
    """Parse a database URL, or say how to write one."""
    given: object = database_url
    form = "dialect+driver://user:password@host/database, for example sqlite+aiosqlite:///:memory:"
    if not isinstance(given, (str, URL)):
        raise DatabaseURLError(
            f"{caller} was given an object of type {type(given).__name__}, which is no database URL: "
            f"write one as {form}"
        )
    try:
        return make_url(given)
    except (ArgumentError, ValueError) as error:
        # Not shown: what cannot be read may still hold a password.
        raise DatabaseURLError(f"{caller} was given a database URL that cannot be read: write it as {form}") from error


def is_memory_database(url: URL) -> bool:
    """Whether each connection to the URL opens an SQLite database of its own, in memory."""
    if url.get_backend_name() != "sqlite":
        return False
    return url.database in {None, "", ":memory:", "file::memory:"} or url.query.get("mode") == "memory"


def shown(url: URL) -> str:
    """Write a URL for a message, without its password, and without its query, in which one may stand as well."""
    return url.set(query={}).render_as_string(hide_password=True)


def _advice(url: URL, drivers: Mapping[str, tuple[str, ...]]) -> str:
    backend = url.get_backend_name()
    known = drivers.get(backend)
    if known is None:
        return f"name one of the databases {', '.join(sorted(drivers))}"
    return "write " + " or ".join(f"{backend}+{driver}://…" for driver in known)
