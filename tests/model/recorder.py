"""The callbacks of the programs: one writes down what it is told, the other does what callbacks should not."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import Session

from fastapi_toolsets.events import Changes, Event, ModelEvent, Phase, listener_scope, listens_for, muted
from tests.front_ends import SessionAdapter, run_without_loop

from .oracle import Oracle
from .programs import Program
from .reference import Told, Values
from .tables import Account, Base, Line, Node, Note, Order, Tag

T = TypeVar("T")


class DeliberateError(Exception):
    """What a callback or a block raises because its program says so."""


@dataclass(frozen=True)
class Delivery:
    """An event as it came, in its place among the events of its transaction."""

    told: Told
    transaction_id: UUID
    position: int


Phased: TypeAlias = tuple[str, str, tuple[Any, ...], dict[str, dict[str, Any]] | None]
"""An event in another phase: its type, model, identity and changes."""


def _phased(event: Event) -> Phased:
    changes = None if event.changes is None else {key: dict(change) for key, change in event.changes.items()}
    return event.type.value, event.model.__name__, event.identity, changes


def plain(value: T) -> T | dict[str, Any]:
    """Copy a value, so that nothing that happens later reaches it."""
    if isinstance(value, MutableDict):
        contents: dict[str, Any] = dict(cast("MutableDict[str, Any]", value))
        return copy.deepcopy(contents)
    return copy.deepcopy(value)


class Recorder:
    """Writes down the events of one program after another, and reacts to some as the program says.

    Attributes:
        voted: What was told before each COMMIT, by transaction and by step of the program.
        regretted: What was told after each rollback, by transaction.
        log: Events, and tokens of ``on_commit`` callbacks, in the order in which they came.
        problems: What was found wrong while a callback ran.
        errors_expected: How many callbacks have raised so far.
        warnings_expected: How many callbacks have left changes behind so far.
    """

    def __init__(self) -> None:
        self.begin(Program(()), None)

    def begin(self, program: Program, oracle: Oracle | None) -> None:
        """Forget the last program."""
        self._program = program
        self._oracle = oracle
        self._count = self._made = 0
        self._reacted = False
        self._changed = False
        self._reacting = False
        self._votes = 0
        self.step = 0
        self.voted: dict[UUID, dict[int, list[Phased]]] = {}
        self.regretted: dict[UUID, list[Phased]] = {}
        self.log: list[Delivery | int] = []
        self.problems: list[str] = []
        self.errors_expected = self.warnings_expected = 0

    @property
    def listens_to_phases(self) -> bool:
        return self._program.phases

    def take(self) -> list[Delivery | int]:
        """Give what was written down since the last time."""
        taken, self.log = self.log, []
        self._reacted = self._changed = False
        self.step += 1
        return taken

    @contextmanager
    def listening(self) -> Generator[None]:
        """Register the callbacks of either kind; a program mutes those it does not want."""
        with listener_scope(inherit=False):
            listens_for(Base)(self.record)
            listens_for(Base)(self.record_awaited)
            listens_for(Base)(self.react)
            listens_for(Base)(self.react_awaited)
            yield

    @contextmanager
    def for_program(self) -> Generator[None]:
        """Mute the callbacks of the other kind; listen to the other phases if the program says so.

        Who listens to a rollback is shown rows that are read at each flush: without, they are read as late as can be.
        """
        asynchronous = self._program.async_callbacks
        others = (self.record, self.react) if asynchronous else (self.record_awaited, self.react_awaited)
        with muted(*others), listener_scope() if self._program.phases else nullcontext():
            if self._program.phases:
                vote, regret = (self.vote_awaited, self.regret_awaited) if asynchronous else (self.vote, self.regret)
                listens_for(Base, phase=Phase.BEFORE_COMMIT)(vote)
                listens_for(Base, phase=Phase.AFTER_ROLLBACK)(regret)
            yield

    # What listens.

    def record(self, obj: Base, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        try:
            self._write_down(obj, event_type, changes, event)
        except Exception as error:  # noqa: BLE001 - the session would only log it
            self.problems.append(f"obj of {event_type} {type(obj).__name__} cannot be read: {error!r}")

    async def record_awaited(self, obj: Base, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        self.record(obj, event_type, changes, event=event)

    def vote(self, obj: Base, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        self.voted.setdefault(event.transaction_id, {}).setdefault(self.step, []).append(_phased(event))
        if not self._reacting:
            number, self._votes = self._votes, self._votes + 1
            if number == self._program.veto:
                raise DeliberateError(number)

    async def vote_awaited(self, obj: Base, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        self.vote(obj, event_type, changes, event=event)

    def regret(self, obj: Base, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        oracle = self._oracle
        assert oracle is not None
        sent = oracle.statements
        row = {prop.key: plain(getattr(obj, prop.key)) for prop in inspect(type(obj)).column_attrs}
        if oracle.statements != sent:
            self.problems.append(f"reading obj of a {event_type} rolled back of {type(obj).__name__} sent SQL")
        if event.after is not None and row != event.after:
            self.problems.append(f"obj of a {event_type} rolled back shows {row}, but the event {event.after}")
        self.regretted.setdefault(event.transaction_id, []).append(_phased(event))

    async def regret_awaited(self, obj: Base, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        self.regret(obj, event_type, changes, event=event)

    def react(
        self, obj: Base, event_type: ModelEvent, changes: Changes | None, *, session: AsyncSession | Session
    ) -> None:
        adapter = SessionAdapter(session.sync_session if isinstance(session, AsyncSession) else session)
        run_without_loop(self._react(obj, adapter))

    async def react_awaited(
        self, obj: Base, event_type: ModelEvent, changes: Changes | None, *, session: AsyncSession | Session
    ) -> None:
        await self._react(obj, SessionAdapter(session))

    def on_commit(self, token: int) -> None:
        self.log.append(token)

    async def on_commit_awaited(self, token: int) -> None:
        self.log.append(token)

    def _write_down(self, obj: Base, event_type: ModelEvent, changes: Changes | None, event: Event) -> None:
        oracle = self._oracle
        assert oracle is not None
        if not self._reacted and oracle.statements != oracle.statements_at_commit:
            self.problems.append(f"SQL was sent between the COMMIT and {event_type} of {type(obj).__name__}")
        sent = oracle.statements
        mapper = inspect(type(obj))
        row: Values = {prop.key: plain(getattr(obj, prop.key)) for prop in mapper.column_attrs}
        if oracle.statements != sent:
            self.problems.append(f"reading obj of {event_type} {type(obj).__name__} sent SQL")
        told = Told(
            event_type.value,
            type(obj).__name__,
            event.identity,
            None if changes is None else {key: {**change} for key, change in changes.items()},
            None if self._changed else row,
            None if event.before is None else dict(event.before),
            None if event.after is None else dict(event.after),
        )
        if event.changes != told.changes:
            self.problems.append(f"event.changes is {event.changes}, changes is {told.changes}")
        self.log.append(Delivery(told, event.transaction_id, event.position))

    async def _react(self, obj: Base, session: SessionAdapter) -> None:
        number, self._count = self._count, self._count + 1
        for reaction in self._program.reactions:
            if reaction.at == number:
                self._reacted = self._reacting = True
                self._made += 1
                try:
                    await _REACTIONS[reaction.kind](self, obj, session, self._made)
                finally:
                    self._reacting = False
                return

    # What it does then. New rows have keys that programs do not use.

    async def do_raise(self, obj: Base, session: SessionAdapter, number: int) -> None:
        self.errors_expected += 1
        raise DeliberateError(number)

    async def do_commit(self, obj: Base, session: SessionAdapter, number: int) -> None:
        await session.add(Tag(code=f"r{number}", title="reaction"))
        await session.commit()

    async def do_change(self, obj: Base, session: SessionAdapter, number: int) -> None:
        attribute = _CHANGEABLE.get(type(obj), "body")
        if obj in session.sync_session:
            self._changed = True
            await session.run_sync(_assign, obj, attribute, f"reaction {number}")
            await session.commit()

    async def do_rollback(self, obj: Base, session: SessionAdapter, number: int) -> None:
        await session.add(Tag(code=f"r{number}", title="reaction"))
        await session.flush()
        await session.rollback()

    async def do_dirty(self, obj: Base, session: SessionAdapter, number: int) -> None:
        self.warnings_expected += 1
        await session.add(Tag(code=f"r{number}", title="reaction"))
        await session.flush()

    async def do_broken(self, obj: Base, session: SessionAdapter, number: int) -> None:
        self.errors_expected += 1
        self.warnings_expected += 1
        await session.add_all([Tag(code=f"r{number}", title="one")])
        await session.flush()
        await session.add(Line(id=number, order_id=-1))
        await session.flush()

    async def do_block(self, obj: Base, session: SessionAdapter, number: int) -> None:
        async with session.begin():
            await session.add(Tag(code=f"r{number}", title="reaction"))

    async def do_savepoint(self, obj: Base, session: SessionAdapter, number: int) -> None:
        async with session.begin_nested():
            await session.add(Tag(code=f"r{number}", title="reaction"))
        try:
            async with session.begin_nested():
                await session.add(Tag(code=f"s{number}", title="dropped"))
                await session.flush()
                raise DeliberateError(number)  # noqa: TRY301 - a block that raises is what is wanted
        except DeliberateError:
            pass
        await session.commit()

    async def do_close(self, obj: Base, session: SessionAdapter, number: int) -> None:
        await session.add(Tag(code=f"r{number}", title="reaction"))
        await session.flush()
        await session.close()


def _assign(_session: Session, obj: Base, attribute: str, value: str) -> None:
    setattr(obj, attribute, value)


_CHANGEABLE: dict[type[Base], str] = {
    Account: "name",
    Order: "status",
    Line: "label",
    Node: "name",
    Note: "body",
    Tag: "title",
}

_REACTIONS: dict[str, Callable[[Recorder, Base, SessionAdapter, int], Awaitable[None]]] = {
    "raise": Recorder.do_raise,
    "commit": Recorder.do_commit,
    "change": Recorder.do_change,
    "rollback": Recorder.do_rollback,
    "dirty": Recorder.do_dirty,
    "broken": Recorder.do_broken,
    "block": Recorder.do_block,
    "savepoint": Recorder.do_savepoint,
    "close": Recorder.do_close,
}
