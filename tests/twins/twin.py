"""Runs a program on a session of one kind, and writes down all that can be seen of it."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import DetachedInstanceError, ObjectDeletedError
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, PoolProxiedConnection, QueuePool

from fastapi_toolsets.events import (
    Event,
    EventSession,
    ModelEvent,
    Phase,
    SyncEventSession,
    listener_scope,
    listens_for,
)
from tests.databases import Database
from tests.model.programs import Op
from tests.session_adapter import SessionAdapter

from .hooks import WRITES_PAST, hook_session, hooked_models
from .models import MODELS, SEED, SEED_OF_TABLES, Base
from .objects import Skip, state_of
from .programs import Program
from .steps import WITHOUT_BEGIN, Steps
from .truth import Commit, Rows, Told, read_rows, table_of


class PlainSession(Session):
    """SQLAlchemy's own session."""


class PlainAsyncSession(AsyncSession):
    """SQLAlchemy's own session."""

    sync_session_class = PlainSession


_COUNTING = {table_of(model) for model in MODELS} - {"twin_slots", "twin_boxes"}
"""The tables whose keys the database counts; on a server from the same number for both, SQLite from what is there."""

_COUNTERS = "SELECT table_name, auto_increment FROM information_schema.tables WHERE table_schema = DATABASE()"

Sent = tuple[str, str]
"""A statement and its parameters."""


@dataclass(frozen=True)
class Seen:
    """What could be seen of an object.

    Attributes:
        state: Pending, persistent…
        is_modified: Whether it is taken to have changes.
        loaded: What it has loaded, spelled.
        committed: What its row was at the last COMMIT, spelled.
    """

    state: str
    is_modified: bool
    loaded: dict[str, str]
    committed: dict[str, str]


@dataclass
class Step:
    """What could be seen of one step."""

    op: Op
    said: list[str]
    error: str | None = None
    sent: list[Sent] = field(default_factory=list)
    objects: dict[str, Seen] = field(default_factory=dict)
    assigned: dict[str, frozenset[str]] = field(default_factory=dict)
    is_past: bool = False
    """Whether something has written past the unit of work."""
    is_ambiguous: bool = False
    """Whether SQLAlchemy itself may flush what there is now in one way or another."""
    session: tuple[Any, ...] = ()


@dataclass
class Run:
    """What could be seen of a program."""

    steps: list[Step] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    rows: Rows = field(default_factory=dict)


class Twin:
    """A database, with an engine for sessions of one kind and a connection that watches what is committed."""

    def __init__(self, database: Database, *, asynchronous: bool, has_events: bool) -> None:
        self.database = database
        self.asynchronous = asynchronous
        self.has_events = has_events
        options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 2}
        self.engine: Engine | AsyncEngine = (
            database.create_async_engine(poolclass=AsyncAdaptedQueuePool, **options)
            if asynchronous
            else database.create_engine(poolclass=QueuePool, **options)
        )
        self._watcher = create_engine(database.sync_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        self._watching = self._watcher.connect()
        self._sent: list[Sent] = []
        self._writes = self._wrote = self._is_past = False
        self._hooked: frozenset[str] = frozenset()
        self._run = Run()
        self._rows: Rows = {}
        self._unwatched: set[str] = set()
        self._watch()

    def close(self) -> None:
        """Let go of the connection that watches."""
        self._watching.close()
        self._watcher.dispose()

    @property
    def _sync_engine(self) -> Engine:
        return self.engine.sync_engine if isinstance(self.engine, AsyncEngine) else self.engine

    def _watch(self) -> None:
        engine = self._sync_engine
        dialect = engine.dialect
        send_commit = dialect.do_commit

        def do_commit(dbapi_connection: PoolProxiedConnection) -> None:
            send_commit(dbapi_connection)
            before, self._rows = self._rows, read_rows(self._watching)
            if not self._wrote:
                return
            self._run.commits.append(Commit(before, self._rows, frozenset(self._unwatched) | self._hooked))
            self._unwatched.clear()

        # The one place that is reached after the driver's COMMIT has succeeded, and only then.
        dialect.do_commit = do_commit  # type: ignore[method-assign]

        @event.listens_for(engine, "before_cursor_execute")
        def _statement(
            _connection: Connection, _cursor: object, statement: str, parameters: object, *_: object
        ) -> None:
            if statement != "BEGIN":  # only SQLite has it spelled, and it may be for what one session need not load
                self._writes = self._writes or not statement.lstrip().startswith("SELECT")
                self._sent.append((statement, repr(parameters)))

        @event.listens_for(engine, "commit")
        def _commit(_connection: Connection) -> None:
            self._note_end("COMMIT")

        @event.listens_for(engine, "rollback")
        def _rollback(_connection: Connection) -> None:
            self._note_end("ROLLBACK")

    def _note_end(self, statement: str) -> None:
        """Note the end of a transaction, unless it has only read, which one session may not have needed to."""
        if self._writes:
            self._sent.append((statement, ""))
        self._wrote, self._writes = self._writes, False

    def drop_tables(self) -> None:
        """Drop the tables, which the other twin may have done already, if they share a server's database."""
        Base.metadata.drop_all(self._watching)

    def create_tables(self) -> None:
        """Create the tables."""
        Base.metadata.create_all(self._watching)

    def _sow(self) -> None:
        connection = self._watching
        if self.database.name == "mariadb":  # it looks after each row, and those of a tree come in any order
            connection.execute(text("SET foreign_key_checks = 0"))
        connection.execute(text("BEGIN"))
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
        for model, rows in SEED.items():
            for row in rows:
                connection.execute(Base.metadata.tables[table_of(model)].insert(), row)
        for name, rows in SEED_OF_TABLES.items():
            connection.execute(Base.metadata.tables[name].insert(), rows)
        connection.execute(text("COMMIT"))
        self._restart_counters(connection)

    def _restart_counters(self, connection: Connection) -> None:
        if self.database.name == "postgresql":
            for table in _COUNTING:
                connection.execute(text(f"ALTER SEQUENCE {table}_id_seq RESTART WITH 100"))
        elif self.database.name == "mariadb":
            for table, count in connection.execute(text(_COUNTERS)).all():
                if table in _COUNTING and count != 100:  # an ALTER takes as long as a program
                    connection.execute(text(f"ALTER TABLE {table} AUTO_INCREMENT = 100"))

    async def run(self, program: Program) -> Run:
        """Run a program on fresh rows."""
        self._sow()
        self._run = Run()
        self._is_past = False
        self._rows = read_rows(self._watching)
        self._hooked = frozenset(WRITES_PAST[hook] for hook in program.hooks if hook in WRITES_PAST)
        opened: list[SessionAdapter] = []

        def open_session() -> Session:
            opened.append(SessionAdapter(self._new_session(program)))
            session = opened[-1].sync_session
            hook_session(session, program.hooks)
            return session

        steps = Steps(open_session(), open_session)
        self._unwatched = steps.unwatched
        kept: list[object] = []  # or one session would let go of what the other holds for its events
        with self._listening(program), hooked_models(program.hooks), _holding(kept):
            try:
                for op in program.ops:
                    await opened[-1].run_sync(self._step, steps, op, program)
                await opened[-1].run_sync(self._reveal, steps)
            finally:
                for session in opened:
                    await session.close()
        self._run.rows = read_rows(self._watching)
        return self._run

    def _new_session(self, program: Program) -> Session | AsyncSession:
        options: dict[str, Any] = {"expire_on_commit": program.expire_on_commit, "autoflush": program.autoflush}
        if isinstance(self.engine, AsyncEngine):
            if self.has_events:
                return EventSession(self.engine, on_bulk_write="ignore", **options)
            return PlainAsyncSession(self.engine, **options)
        if self.has_events:
            return SyncEventSession(self.engine, on_bulk_write="ignore", **options)
        return PlainSession(self.engine, **options)

    def _step(self, _session: Session, steps: Steps, op: Op, program: Program) -> None:
        self._sent.clear()
        steps.said.clear()
        steps.assigned.clear()
        step = Step(op, steps.said.copy())
        try:
            if op.name not in WITHOUT_BEGIN:
                steps.begin()
            getattr(steps, op.name)(op.a, op.b, op.c)
        except Skip:
            return
        except NameError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, both have to raise it
            step.error = spelled(error)
            step.sent.append(("-- error", ""))
            try:
                # Half of it may have been written: bulk.md, "When a statement fails halfway".
                steps.recover("root" if op.name.startswith("bulk") else program.on_error)
            except Exception as second:  # noqa: BLE001 - as above
                step.error += f"; {spelled(second)}"
        step.said = steps.said.copy()
        step.assigned = steps.assigned.copy()
        self._look(steps, step)

    def _look(self, steps: Steps, step: Step) -> None:
        session = steps.session
        step.sent = self._sent.copy()
        for instance in steps.objects:
            step.objects[steps.name(instance)] = describe(instance, steps, self._rows)
        self._is_past = self._is_past or bool(self._unwatched or self._hooked)
        step.is_past = self._is_past
        step.is_ambiguous = steps.is_ambiguous()
        step.session = (
            *(sorted(map(steps.name, found)) for found in (session.new, session.dirty, session.deleted)),
            session.in_transaction(),
            session.in_nested_transaction(),
            session.is_active,
        )
        self._run.steps.append(step)

    def _reveal(self, _session: Session, steps: Steps) -> None:
        """Read everything that can be read: what a session has loaded wrongly shows."""
        self._sent.clear()
        steps.session.rollback()
        step = Step(Op("reveal"), ["read everything"])
        steps.begin()
        for instance in list(steps.objects):
            for key in column_names(type(instance)):
                # It is detached, or its row is gone: where one session has loaded it, the other may not have.
                with contextlib.suppress(DetachedInstanceError, ObjectDeletedError, KeyError):
                    getattr(instance, key)
        self._look(steps, step)
        step.sent.clear()  # what callbacks have read already is not read once more

    @contextmanager
    def _listening(self, program: Program) -> Generator[None]:
        if not self.has_events:
            yield
            return

        def tell(instance: Base, event_type: ModelEvent, changes: Any, *, event: Event) -> None:  # noqa: ANN401 - what it is given
            commits = self._run.commits
            if commits:
                commits[-1].told.append(told_of(instance, event, changes))

        def look(instance: Base, event_type: ModelEvent, changes: Any) -> None:  # noqa: ANN401 - what it is given
            for key in column_names(type(instance)):
                getattr(instance, key)

        with listener_scope(inherit=False):
            listens_for(Base, [ModelEvent.CREATE, ModelEvent.UPDATE, ModelEvent.DELETE])(tell)
            if program.phases:
                listens_for(Base, phase=Phase.BEFORE_COMMIT)(look)
                listens_for(Base, phase=Phase.AFTER_ROLLBACK)(look)
            yield


def column_names(model: type[Base]) -> list[str]:
    return [prop.key for prop in model.__mapper__.column_attrs]


def told_of(instance: Base, event: Event, changes: Any) -> Told:  # noqa: ANN401 - what a callback is given
    key = table_of(type(instance)), event.identity
    plain = None if changes is None else {name: (change["old"], change["new"]) for name, change in changes.items()}
    if plain is not None:
        plain.pop("address", None)  # the columns of the composite are there, too
    shown = {name: copy.deepcopy(getattr(instance, name)) for name in column_names(type(instance))}
    before, after = (None if row is None else dict(row) for row in (event.before, event.after))
    return Told(event.type.value, type(instance).__name__, key, plain, before, after, shown)


def describe(instance: Base, steps: Steps, rows: Rows) -> Seen:
    """Spell an object's state, whether it is modified, and what it has loaded."""
    state = state_of(instance)
    names = ("transient", "pending", "persistent", "deleted", "detached", "was_deleted")
    loaded = {key: _spelled(value, steps) for key, value in state.dict.items() if key != "_sa_instance_state"}
    row = rows.get((table_of(type(instance)), state.key[1])) if state.key else None
    committed = {} if row is None else {key: repr(value) for key, value in row[1].items()}
    return Seen(", ".join(name for name in names if getattr(state, name)), state.modified, loaded, committed)


def _spelled(value: object, steps: Steps) -> str:
    if isinstance(value, Base):
        return steps.name(value)
    if isinstance(value, list):
        return f"[{', '.join(_spelled(each, steps) for each in cast('list[object]', value))}]"
    return repr(value) if not hasattr(value, "__clause_element__") and not hasattr(value, "compile") else "SQL"


def spelled(error: Exception) -> str:
    return f"{type(error).__name__}: {re.sub('0x[0-9a-f]+', '0x…', str(error))}"


@contextmanager
def _holding(kept: list[object]) -> Generator[None]:
    def hold(_session: Session, instance: object) -> None:
        kept.append(instance)

    names = ("loaded_as_persistent", "pending_to_persistent", "detached_to_persistent")
    for name in names:
        event.listen(Session, name, hold)
    try:
        yield
    finally:
        for name in names:
            event.remove(Session, name, hold)
