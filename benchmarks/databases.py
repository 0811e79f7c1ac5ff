"""Where the commits go: SQLite in memory, and a PostgreSQL database made for this run and dropped after it."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from .matrix import AIOSQLITE, POSTGRESQL, SQLITE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

VARIABLE = "TEST_POSTGRESQL_URL"
_DEFAULT_URL = "postgresql://postgres@127.0.0.1:5432/postgres"
_CONNECT_TIMEOUT_SECONDS = 5


class DatabaseError(RuntimeError):
    """PostgreSQL does not answer, or refuses to make a database."""


@contextmanager
def database_urls(databases: Iterable[str]) -> Generator[dict[str, str]]:
    """Make what is needed for a block.

    Yields:
        The URL of each database.

    Raises:
        DatabaseError: PostgreSQL is among them and cannot be used.
    """
    urls = {SQLITE: "sqlite://", AIOSQLITE: "sqlite+aiosqlite://"}
    wanted = set(databases)
    if POSTGRESQL not in wanted:
        yield urls
        return
    server = make_url(os.environ.get(VARIABLE) or _DEFAULT_URL)
    name = f"benchmarks_{uuid.uuid4().hex[:12]}"
    try:
        _execute(server, f'CREATE DATABASE "{name}"')
    except SQLAlchemyError as error:
        msg = (
            f"PostgreSQL at {server.host}:{server.port} gave no database to measure on "
            f"({error.__cause__ or error}): set {VARIABLE} to another one, or choose cells without it, "
            "such as --cells 'aiosqlite/*'"
        )
        raise DatabaseError(msg) from None
    database = server.set(drivername="postgresql+asyncpg", database=name)
    try:
        yield {**urls, POSTGRESQL: database.render_as_string(hide_password=False)}
    finally:
        _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def _execute(server: URL, statement: str) -> None:
    """Run a statement outside any transaction."""
    engine = create_engine(
        server.set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
        connect_args={"connect_timeout": _CONNECT_TIMEOUT_SECONDS},
    )
    with engine.connect() as connection:
        connection.execute(text(statement))
