"""Where commits are measured: an engine and sessions of each kind on it; sync or async, the same to the caller."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from .observers import Observer

ResultT = TypeVar("ResultT")


class Stage(Protocol):
    """A database to measure on, the same for both front-ends."""

    engine: Engine
    """The engine; for an async one the sync engine behind it."""

    def write(self, work: Callable[[Connection], object]) -> None:
        """Run ``work`` in a transaction of its own, past any session."""
        ...

    def commit(self, variant: str, *, expire: bool, prepare: Callable[[Session], object], observer: Observer) -> None:
        """Open a session, let ``prepare`` bring it changes, and observe its ``commit()``.

        What ``prepare`` returns is held until the session is closed, as a caller would hold his objects.
        """
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class SyncStage:
    """SQLite in memory by its own driver."""

    def __init__(self, classes: dict[str, type[Session]], *, savepoints: bool = False) -> None:
        """Connect.

        Args:
            classes: The session class of each variant.
            savepoints: Whether to begin transactions as SQLite needs it for savepoints.
        """
        self._classes = classes
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        if savepoints:
            event.listen(self.engine, "connect", _leave_begin_to_us)
            event.listen(self.engine, "begin", _begin)

    def session(self, variant: str, *, expire: bool) -> Session:
        """Open a session of a variant."""
        return self._classes[variant](self.engine, expire_on_commit=expire)

    def write(self, work: Callable[[Connection], object]) -> None:
        """Run ``work`` in a transaction of its own."""
        with self.engine.begin() as connection:
            work(connection)

    def commit(self, variant: str, *, expire: bool, prepare: Callable[[Session], object], observer: Observer) -> None:
        """Open a session, prepare it, and observe its commit."""
        with self.session(variant, expire=expire) as session:
            held = prepare(session)
            with observer:
                session.commit()
            del held

    def close(self) -> None:
        """Close the connection."""
        self.engine.dispose()


class AsyncStage:
    """SQLite in memory by aiosqlite, or PostgreSQL by asyncpg, on one event loop for the life of the stage."""

    def __init__(self, classes: dict[str, type[AsyncSession]], url: str, schema: str | None) -> None:
        """Connect.

        Args:
            classes: The session class of each variant.
            url: The database.
            schema: The PostgreSQL schema that is this stage's own; made when it is not there.
        """
        self._classes = classes
        self._runner = asyncio.Runner()
        options: dict[str, Any] = {"poolclass": StaticPool}
        if schema is not None:
            # Waiting for the disk would only blur the figures: what is compared is what the client does.
            settings = {"search_path": schema, "synchronous_commit": "off"}
            options["connect_args"] = {"server_settings": settings}
        self._engine = create_async_engine(url, **options)
        self.engine = self._engine.sync_engine
        if schema is not None:
            self.write(lambda connection: connection.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))

    def write(self, work: Callable[[Connection], object]) -> None:
        """Run ``work`` in a transaction of its own."""

        async def write() -> None:
            async with self._engine.begin() as connection:
                await connection.run_sync(work)

        self._runner.run(write())

    def commit(self, variant: str, *, expire: bool, prepare: Callable[[Session], object], observer: Observer) -> None:
        """Open a session, prepare it, and observe its commit."""

        async def commit() -> None:
            async with self._classes[variant](self._engine, expire_on_commit=expire) as session:
                held = await session.run_sync(prepare)
                with observer:
                    await session.commit()
                del held

        self._runner.run(commit())

    def close(self) -> None:
        """Close the connection and the loop."""
        self._runner.run(self._engine.dispose())
        self._runner.close()


def _leave_begin_to_us(dbapi_connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's connection
    dbapi_connection.isolation_level = None


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
