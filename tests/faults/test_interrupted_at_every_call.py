"""Rules C4 and T2: Ctrl-C, or a time limit, at every call in the library: what was committed is told, or named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import InvalidRequestError

import fastapi_toolsets.events
from fastapi_toolsets.errors import CommitAbortedError
from fastapi_toolsets.events.dispatch.delivery import generation
from fastapi_toolsets.models import Changes, ModelEvent, Phase, SyncEventSession, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from ..interrupts import InterruptAtCall, TimeLimitError
from .models import ORDERS, Base, Order, created, library_log

# Interrupted between two calls that make a task, Python says so of the coroutine, and asyncio of the task.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LIBRARY = (str(Path(fastapi_toolsets.events.__file__).parent),)


def one_callback(recorder: EventRecorder) -> None:
    recorder.listen(Order)


def async_callback(recorder: EventRecorder) -> None:
    recorder.listen(Order, asynchronous=True)


def waiting_callback(recorder: EventRecorder) -> None:
    async def wait(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await asyncio.sleep(0)

    listens_for(Order)(wait)
    recorder.listen(Order, asynchronous=True)


def two_callbacks(recorder: EventRecorder) -> None:
    recorder.listen(Order)

    @listens_for(Order)
    def another(order: Order, event_type: ModelEvent, changes: Changes | None, *, session: SyncEventSession) -> None:
        session.get_one(Order, order.id)


def every_phase(recorder: EventRecorder) -> None:
    def ignore(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        pass

    recorder.listen(Order)
    listens_for(Order, phase=Phase.BEFORE_COMMIT)(ignore)
    listens_for(Order, phase=Phase.AFTER_ROLLBACK)(ignore)


def commit(session: SyncEventSession) -> None:
    session.commit()


def flush_then_commit(session: SyncEventSession) -> None:
    session.flush()
    session.commit()


def transaction_commit(session: SyncEventSession) -> None:
    transaction = session.get_transaction()
    assert transaction is not None
    transaction.commit()


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (commit, KeyboardInterrupt),
        (flush_then_commit, KeyboardInterrupt),
        (transaction_commit, KeyboardInterrupt),
        (commit, TimeLimitError),
    ],
    ids=lambda part: part.__name__,
)
@pytest.mark.parametrize(
    "listen",
    [one_callback, async_callback, waiting_callback, two_callbacks, every_phase],
    ids=lambda listen: listen.__name__,
)
@scenario(Base.metadata, databases=("sqlite",), front_ends=("sync",))
async def test_interrupted_at_every_call(
    front: FrontEnd,
    recorder: EventRecorder,
    listen: Callable[[EventRecorder], None],
    end: Callable[[SyncEventSession], None],
    error: type[BaseException],
) -> None:
    """C4, T2: told once, and otherwise named; nothing that was not committed is told. The session goes on to be used.

    Whoever catches the interrupt commits again, then closes the session. The next session of the thread finds nothing
    left of the interrupt.
    """
    listen(recorder)
    places: dict[int, str | None] = {}
    named: set[int] = set()
    point = 0
    while point == 0 or places[point] is not None:
        point += 1
        interrupt = InterruptAtCall(LIBRARY, point, error)
        # Interrupted as it schedules its next step, a task has none: it is given up when its grace is over.
        session = front.factory(callback_grace=0.05)()
        with library_log() as log:
            session.add_all([Order(id=identity) for identity in range(3 * point, 3 * point + 3)])
            # Interrupted where it leaves a flush, SQLAlchemy rolls back and finds that the transaction is closed.
            with interrupt.armed(), suppress(error, InvalidRequestError):
                end(session)
            # All that it allows may be to be closed; and what it does not know to be told cannot be committed.
            with suppress(InvalidRequestError, CommitAbortedError):
                session.commit()
            session.close()
        # What is committed next does not count as a callback's, in no phase.
        assert generation.get() == 0, interrupt.place
        with front.factory(cascade_limit=0).begin() as later:
            later.add(Order(id=-point))
        assert created(-point) in recorder.events, interrupt.place
        places[point] = interrupt.place
        if any("record" in message for _, message in log):
            named.add(point)
    rows = {identity for identity, _ in await front.committed_rows(ORDERS) if identity > 0}
    told = [event for event in recorder.take() if int(str(event[2])) > 0]
    assert told == [created(identity) for identity in sorted(rows) if created(identity) in told]
    untold = {identity // 3 for identity in rows if created(identity) not in told}
    assert {places[point] for point in untold - named} == set()
    assert 3 * point in rows
    assert 0 < len(named) < len(rows) // 3
