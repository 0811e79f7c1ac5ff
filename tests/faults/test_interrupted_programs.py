"""Rules C4, C5, T1 to T3, T9 and B2 at once: random programs, interrupted anywhere, and no event lost or made up.

``INTERRUPTED_PROGRAMS`` says how many for each database and front-end, ``INTERRUPTED_SEED`` where they begin.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import delete, event, select
from sqlalchemy.engine.interfaces import DBAPIConnection

from fastapi_toolsets.events.dispatch.delivery import generation
from fastapi_toolsets.models import Changes, Event, EventSession, ModelEvent, Phase, SyncEventSession, listens_for

from ..front_ends import FrontEnd, SessionAdapter, entered, resolve, scenario
from .interrupted_programs import Audit, Base, Order, Program, Rows, cancel, press_ctrl_c, replay
from .models import library_log

PROGRAMS = int(os.environ.get("INTERRUPTED_PROGRAMS", "25"))
SEED = int(os.environ.get("INTERRUPTED_SEED", "1"))

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::Warning"),  # of what callbacks and the programs leave behind
]


class Callbacks:
    """Callbacks of each kind, which write down what happened in one program."""

    def __init__(self, front: FrontEnd) -> None:
        self._audits = 0
        listens_for(Order)(self.note)
        listens_for(Audit)(self.note)
        listens_for(Order)(self.wait)
        if front.is_async:
            listens_for(Order, ModelEvent.UPDATE)(self.go_on_async)
        else:
            listens_for(Order, ModelEvent.UPDATE)(self.go_on)
        listens_for(Order, phase=Phase.BEFORE_COMMIT)(self.vote)
        listens_for(Order, phase=Phase.AFTER_ROLLBACK)(self.note_rollback)

    def begin(self, *, uses_session: bool, votes: bool) -> None:
        """Forget the last program, and do this much in the next one."""
        self.events: list[Event] = []
        self.rolled_back: set[object] = set()
        self.uses_session = uses_session
        self.votes = votes

    def note(self, obj: object, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        self.events.append(event)

    def note_rollback(self, obj: object, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        self.rolled_back.add(event.transaction_id)

    async def wait(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await asyncio.sleep(0)

    def vote(self, order: Order, event_type: ModelEvent, changes: Changes | None, *, session: Any) -> None:  # noqa: ANN401 - of either kind
        if self.votes:
            session.add(self._audit("before the commit"))

    async def go_on_async(
        self, order: Order, event_type: ModelEvent, changes: Changes | None, *, session: EventSession
    ) -> None:
        if self.uses_session and order.quantity % 3 == 0:
            session.add(self._audit("committed"))
            await session.commit()
        elif self.uses_session and order.quantity % 3 == 1:
            await session.execute(select(Order.id))

    def go_on(
        self, order: Order, event_type: ModelEvent, changes: Changes | None, *, session: SyncEventSession
    ) -> None:
        if self.uses_session and order.quantity % 3 == 0:
            session.add(self._audit("committed"))
            session.commit()
        elif self.uses_session and order.quantity % 3 == 1:
            session.add(self._audit("left behind"))

    def _audit(self, reason: str) -> Audit:
        self._audits += 1
        return Audit(id=self._audits, reason=reason)


@scenario(Base.metadata)
async def test_interrupted_programs(front: FrontEnd) -> None:
    """Replayed, the events of each program give its tables, unless the log names what was not told.

    On the async front-end tasks are cancelled at some await, on the sync one Ctrl-C comes at some call.
    """
    interrupt = cancel if front.is_async else press_ctrl_c
    callbacks = Callbacks(front)
    leave_no_locks(front)
    wrong: dict[int, object] = {}
    reported = 0
    for seed in range(SEED, SEED + PROGRAMS):
        chance = random.Random(f"session {seed}")  # noqa: S311 - to repeat it; not the choices of the program again
        callbacks.begin(uses_session=chance.random() < 0.4, votes=chance.random() < 0.3)
        factory = front.factory(
            expire_on_commit=chance.random() < 0.5,
            on_callback_error=chance.choice(["log", "raise"]),
            callback_grace=60.0,
        )
        program = Program(seed, SessionAdapter(factory()), interrupt)
        with library_log() as log:
            await program.run()
        rows, problems = replay(callbacks.events)
        if generation.get():
            problems.append("what is committed next counts as a callback's")
        problems += [
            f"rolled back: {told}" for told in callbacks.events if told.transaction_id in callbacks.rolled_back
        ]
        if rows != (found := await tables(front)):
            problems.append(f"told {rows}, but there is {found}")
        if problems and any("not called" in message for _, message in log):
            reported += 1
        elif problems:
            wrong[seed] = problems, program.history, log
        del program  # a session whose close() was interrupted may keep its connection for as long as it lives
        gc.collect()
        await empty(front)
    assert wrong == {}
    assert reported < PROGRAMS / 2


def leave_no_locks(front: FrontEnd) -> None:
    """See to it that the locks of one interrupted session neither stop the next one nor what looks at the tables."""
    if front.database.name == "sqlite":
        event.listen(front.sync_engine, "connect", wait_for_no_lock)
    elif not front.is_async:
        event.listen(front.sync_engine, "checkin", end_what_was_begun)


def wait_for_no_lock(connection: DBAPIConnection, _: object) -> None:
    """Fail at once where a session whose close() was interrupted holds the lock: it keeps it while it lives."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 0")
    cursor.close()


def end_what_was_begun(connection: DBAPIConnection | None, _: object) -> None:
    """Roll back a connection that the pool gets.

    Where Ctrl-C comes after SQLAlchemy has declared a transaction inactive, and before it has sent the COMMIT, a plain
    session, too, gives its connection back without a reset: what was written there would keep its locks, and be
    committed with what the next session writes.
    """
    if connection is not None:
        connection.rollback()


@asynccontextmanager
async def patient(front: FrontEnd) -> AsyncGenerator[Any]:
    """Begin a transaction that waits for locks: a connection's thread may still send a COMMIT that was cancelled."""
    async with entered(front.engine.begin()) as connection:
        if front.database.name != "sqlite":
            yield connection
            return
        await resolve(connection.exec_driver_sql("PRAGMA busy_timeout = 10000"))
        yield connection
        await resolve(connection.exec_driver_sql("PRAGMA busy_timeout = 0"))


async def tables(front: FrontEnd) -> Rows:
    async with patient(front) as connection:
        orders = (await resolve(connection.execute(select(Order.id, Order.quantity)))).all()
        audits = (await resolve(connection.execute(select(Audit.id, Audit.reason)))).all()
    return {
        **{(Order, (identity,)): {"id": identity, "quantity": quantity} for identity, quantity in orders},
        **{(Audit, (identity,)): {"id": identity, "reason": reason} for identity, reason in audits},
    }


async def empty(front: FrontEnd) -> None:
    async with patient(front) as connection:
        for model in (Order, Audit):
            await resolve(connection.execute(delete(model)))
