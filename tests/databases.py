"""Databases under test: one per test run and process on each server, one file per test on SQLite."""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, String, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from fastapi_toolsets.db import enable_sqlite_foreign_keys, enable_sqlite_savepoints

from .services import give_up, require_service, url_of, variable_of
from .standing_tables import StandingTables

DATABASES = ("sqlite", "postgresql", "mariadb")

TYPES: dict[Any, Any] = {str: String(200)}
"""A ``type_annotation_map`` for the models of tests: MariaDB has no VARCHAR without a length."""

ASYNC_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "mariadb": "mysql+asyncmy"}
SYNC_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "mariadb": "mysql+pymysql"}


def _sync_url(name: str, url: URL) -> URL:
    """Give the URL for the sync driver."""
    url = url.set(drivername=SYNC_DRIVERS[name])
    if name == "mariadb" and not any(option.startswith("ssl") for option in url.query):
        # PyMySQL would read every certificate of the system for each connection, also where the server has no TLS.
        return url.update_query_dict({"ssl_disabled": "true"})
    return url


@dataclass(frozen=True)
class Database:
    """A database that belongs to this test run, and how to reach it with either kind of driver."""

    name: str
    """``sqlite``, ``postgresql`` or ``mariadb``."""
    url: URL
    standing: StandingTables | None = field(default=None, compare=False)
    """What creates, empties and drops tables; none on SQLite."""

    @property
    def async_url(self) -> URL:
        return self.url.set(drivername=ASYNC_DRIVERS[self.name])

    @property
    def sync_url(self) -> URL:
        return _sync_url(self.name, self.url)

    def create_async_engine(self, **options: Any) -> AsyncEngine:  # noqa: ANN401 - SQLAlchemy's function types them
        """Make an async engine; the caller disposes of it."""
        engine = create_async_engine(self.async_url, **options)
        enable_sqlite_savepoints(engine)
        enable_sqlite_foreign_keys(engine)
        return engine

    def create_engine(self, **options: Any) -> Engine:  # noqa: ANN401 - SQLAlchemy's function types them
        """Make a sync engine; the caller disposes of it."""
        engine = create_engine(self.sync_url, **options)
        enable_sqlite_savepoints(engine)
        enable_sqlite_foreign_keys(engine)
        return engine


class TestRunDatabases:
    """Creates each server's database when a test first asks for it, and drops them all at the end."""

    __test__ = False

    def __init__(self) -> None:
        self._created: dict[str, Database] = {}
        self._unreachable: dict[str, str] = {}

    def provide(self, name: str, directory: Path) -> Database:
        """Give a database to a test; skip or fail the test where its server is not there."""
        if name == "sqlite":
            return Database(name, URL.create("sqlite", database=str(directory / f"{uuid.uuid4().hex}.sqlite")))
        if name not in self._created:
            self._created[name] = self._create(name)
        return self._created[name]

    def drop_tables(self) -> None:
        """Drop the tables that still stand on any server."""
        for database in self._created.values():
            if database.standing is not None:
                database.standing.drop()

    def drop_all(self) -> None:
        """Drop every database that was created."""
        while self._created:
            name, database = self._created.popitem()
            if database.standing is not None:
                database.standing.close()
            force = " WITH (FORCE)" if name == "postgresql" else ""
            with _administrator(name) as connection:
                connection.execute(text(f"DROP DATABASE {database.url.database}{force}"))

    def _create(self, name: str) -> Database:
        if name in self._unreachable:
            give_up(self._unreachable[name])
        require_service(name)
        database_name = f"toolsets_{os.getpid()}_{uuid.uuid4().hex[:12]}"
        try:
            with _administrator(name) as connection:
                connection.execute(text(f"CREATE DATABASE {database_name}"))
                if name == "postgresql":  # nothing here has to survive a power failure
                    connection.execute(text(f"ALTER DATABASE {database_name} SET synchronous_commit = off"))
        except SQLAlchemyError as error:
            self._unreachable[name] = (
                f"{name} answers but refuses to create a database: {error}; set {variable_of(name)} to a user who may"
            )
            give_up(self._unreachable[name])
        url = url_of(name).set(database=database_name)
        return Database(name, url, StandingTables(create_engine(_sync_url(name, url), pool_pre_ping=True)))


@contextmanager
def _administrator(name: str) -> Generator[Connection]:
    """Connect, outside any transaction, as the user who may create databases."""
    engine = create_engine(_sync_url(name, url_of(name)), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def tables(database: Database, metadata: MetaData) -> Generator[None]:
    """Give the test empty tables; those of a server stand until the module's end, a SQLite file goes with its test."""
    if database.standing is not None:
        with database.standing.emptied(metadata):
            yield
        return
    engine = database.create_engine(poolclass=NullPool)
    try:
        metadata.create_all(engine)
        yield
    finally:
        engine.dispose()
