"""One scenario, both front-ends: an adapter whose methods await an async session and call a sync one.

Write a scenario once as a coroutine function and decorate it::

    @scenario(Base.metadata)
    async def test_update_is_told(front: FrontEnd, recorder: EventRecorder) -> None: ...

It is collected once per database and front-end (``test_update_is_told[sqlite-async]``, ...), on fresh tables.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Coroutine, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import anyio
import pytest
from sqlalchemy import Connection, Engine, Executable, MetaData, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, object_mapper, sessionmaker

from fastapi_toolsets.models import Changes, EventSession, ModelEvent, SyncEventSession, listens_for

from .databases import DATABASES, Database, tables
from .session_adapter import AnySession, SessionAdapter, Transaction, entered, resolve

__all__ = [
    "AnySession",
    "Case",
    "EventRecorder",
    "FrontEnd",
    "PreparedCase",
    "RecordedEvent",
    "Scenario",
    "SessionAdapter",
    "Transaction",
    "entered",
    "resolve",
    "run_without_loop",
    "scenario",
]

T = TypeVar("T")

FRONT_ENDS = ("async", "sync")

Scenario = Callable[..., Coroutine[Any, Any, None]]


class FrontEnd(SessionAdapter):
    """The front-end under test: its session, its engine, and more sessions of the same kind on request."""

    def __init__(self, name: str, database: Database, engine: Engine | AsyncEngine, **options: object) -> None:
        self.name = name
        self.database = database
        self.engine: Any = engine
        self._options: dict[str, object] = {"expire_on_commit": False, **options}
        self._opened: list[SessionAdapter] = []
        super().__init__(self.factory()())

    @property
    def is_async(self) -> bool:
        return self.name == "async"

    @property
    def sync_engine(self) -> Engine:
        return cast("Engine", self.engine.sync_engine if isinstance(self.engine, AsyncEngine) else self.engine)

    def factory(self, **options: object) -> Any:  # noqa: ANN401 - either kind, and no type spans their begin()
        """Make a session factory of this front-end's kind; options override those of the scenario."""
        session_class = EventSession if self.is_async else SyncEventSession
        merged: dict[str, Any] = {"bind": self.engine, "class_": session_class, **self._options, **options}
        return async_sessionmaker(**merged) if self.is_async else sessionmaker(**merged)

    def new_session(self, **options: object) -> SessionAdapter:
        """Open a further event session, closed with the scenario."""
        return self.adapt(self.factory(**options)())

    def plain_session(self, **options: object) -> SessionAdapter:
        """Open a session of SQLAlchemy's own on the same engine, closed with the scenario."""
        merged: dict[str, Any] = {"bind": self.engine, "expire_on_commit": False, **options}
        return self.adapt(AsyncSession(**merged) if self.is_async else Session(**merged))

    def adapt(self, session: AnySession) -> SessionAdapter:
        """Give a session that the scenario opened the adapter's methods; it is closed with the scenario."""
        adapter = SessionAdapter(session)
        self._opened.append(adapter)
        return adapter

    async def committed_rows(self, statement: Executable) -> list[tuple[Any, ...]]:
        """Read with a connection of its own: what the database holds, whatever the sessions believe."""
        async with entered(self.engine.connect()) as connection:
            result = await resolve(connection.execute(statement))
            return [tuple(row) for row in result]

    @contextmanager
    def statements(self, *, boundaries: bool = False) -> Generator[list[str]]:
        """Collect the SQL sent through this engine; with ``boundaries`` also ``COMMIT`` and ``ROLLBACK``.

        The engine tells of a COMMIT just before the driver sends it. ``BEGIN`` is left out: only SQLite has it spelled.
        """
        collected: list[str] = []

        def on_statement(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            if statement != "BEGIN":
                collected.append(statement)

        def on_commit(_connection: Connection) -> None:
            collected.append("COMMIT")

        def on_rollback(_connection: Connection) -> None:
            collected.append("ROLLBACK")

        listeners: list[tuple[str, Callable[..., None]]] = [("after_cursor_execute", on_statement)]
        if boundaries:
            listeners += [("commit", on_commit), ("rollback", on_rollback)]
        for name, listener in listeners:
            event.listen(self.sync_engine, name, listener)
        try:
            yield collected
        finally:
            for name, listener in listeners:
                event.remove(self.sync_engine, name, listener)

    async def close_all(self) -> None:
        """Close every session that the scenario opened here."""
        for adapter in (*self._opened, self):
            await adapter.close()


@dataclass(frozen=True)
class Case:
    """Where one collected item of a scenario runs."""

    database: str
    front_end: str

    def __str__(self) -> str:
        return f"{self.database}-{self.front_end}"


@dataclass(frozen=True)
class PreparedCase:
    """A front-end and a database that is there."""

    front_end: str
    database: Database

    def run(
        self,
        metadata: MetaData,
        steps: Callable[[FrontEnd], Coroutine[Any, Any, None]],
        *,
        engine_options: dict[str, Any],
        session_options: dict[str, Any],
    ) -> None:
        """Run a scenario on fresh tables: on an event loop, or with none in this thread."""

        async def on_fresh_engine() -> None:
            if self.front_end == "async":
                engine: AsyncEngine | Engine = self.database.create_async_engine(**engine_options)
            else:
                engine = self.database.create_engine(**engine_options)
            try:
                front = FrontEnd(self.front_end, self.database, engine, **session_options)
                try:
                    await steps(front)
                finally:
                    await front.close_all()
            finally:
                await resolve(cast("Any", engine.dispose()))

        with tables(self.database, metadata):
            if self.front_end == "async":
                anyio.run(on_fresh_engine, backend="asyncio")
            else:
                run_without_loop(on_fresh_engine())


def run_without_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, in a thread where no event loop runs: where a script stands."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return cast("T", finished.value)
    coroutine.close()
    message = (
        "a scenario waited for an event loop on the sync front-end: there is none; await the adapter's methods only"
    )
    raise RuntimeError(message)


def scenario(
    metadata: MetaData,
    *,
    databases: Sequence[str] = DATABASES,
    front_ends: Sequence[str] = FRONT_ENDS,
    engine_options: dict[str, Any] | None = None,
    **session_options: object,
) -> Callable[[Scenario], Callable[..., None]]:
    """Collect a coroutine function once per database and front-end, on fresh tables of ``metadata``.

    The function takes ``front`` and any other fixtures or parameters, by name. ``session_options`` go to the session
    factory of ``front.session`` and of ``front.new_session()``; ``expire_on_commit`` is off unless given.
    """
    cases = [Case(database, front_end) for database in databases for front_end in front_ends]

    def decorate(function: Scenario) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*arguments: object, prepared_case: PreparedCase, **fixtures: object) -> None:
            prepared_case.run(
                metadata,
                lambda front: function(*arguments, front=front, **fixtures),
                engine_options=engine_options or {},
                session_options=session_options,
            )

        signature = inspect.signature(function)
        kept = [parameter for name, parameter in signature.parameters.items() if name != "front"]
        prepared = inspect.Parameter("prepared_case", inspect.Parameter.KEYWORD_ONLY)
        vars(run)["__signature__"] = signature.replace(parameters=[*kept, prepared])  # what pytest gives fixtures for
        mark = pytest.mark.parametrize("prepared_case", cases, indirect=True, ids=str)
        return cast("Callable[..., None]", mark(run))

    return decorate


RecordedEvent = tuple[str, str, object, Changes | None]


class EventRecorder:
    """Callbacks that write down what they were told: ``(event type, model name, identity, changes)``."""

    def __init__(self) -> None:
        self.events: list[RecordedEvent] = []

    def listen(
        self,
        target: type[object],
        events: ModelEvent | Collection[ModelEvent] = tuple(ModelEvent),
        *,
        asynchronous: bool = False,
        **options: Any,  # noqa: ANN401 - those of listens_for, which types them
    ) -> None:
        """Register a recording callback as ``listens_for`` does, until the test ends."""
        listens_for(target, events, **options)(self.record_asynchronously if asynchronous else self.record)

    def record(self, instance: object, event_type: ModelEvent, changes: Changes | None) -> None:
        identity: tuple[object, ...] = tuple(object_mapper(instance).primary_key_from_instance(instance))
        shown = identity[0] if len(identity) == 1 else identity
        self.events.append((event_type.value, type(instance).__name__, shown, changes))

    async def record_asynchronously(self, instance: object, event_type: ModelEvent, changes: Changes | None) -> None:
        self.record(instance, event_type, changes)

    def take(self) -> list[RecordedEvent]:
        """Give what was recorded since the last time, and forget it."""
        taken, self.events = self.events, []
        return taken
