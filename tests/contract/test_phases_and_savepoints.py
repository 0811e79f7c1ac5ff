"""Rules P1, P2 and P3 where savepoints, failed COMMITs and observers meet callbacks of other phases."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fastapi_toolsets.events import (
    CallbackOutcome,
    Ending,
    ObservedCallback,
    ObservedDispatch,
    add_observer,
    remove_observer,
)
from fastapi_toolsets.models import Changes, EventSession, ModelEvent, Phase, SyncEventSession, listens_for

from ..front_ends import EventRecorder, FrontEnd, SessionAdapter, scenario
from .event_models import LOCAL, created
from .test_failed_commits import Book, DeferredBase
from .transaction_models import ORDERS, Base, Order


class Silent:
    """An observer that has nothing to say."""

    def begin_dispatch(self, dispatch: ObservedDispatch) -> Ending:
        return self._end

    def begin_callback(self, call: ObservedCallback) -> Ending:
        return self._end

    def callbacks_not_called(self, calls: Sequence[ObservedCallback], reason: str) -> None: ...

    def _end(self, outcome: CallbackOutcome, error: BaseException | None) -> None: ...


@contextmanager
def observed(*, really: bool) -> Generator[None]:
    """Watch what is called, or leave it alone."""
    observer = Silent()
    if really:
        add_observer(observer)
    try:
        yield
    finally:
        if really:
            remove_observer(observer)


@pytest.mark.parametrize("really", [False, True])
@scenario(Base.metadata, databases=LOCAL)
async def test_savepoints_of_a_callback_before_the_commit(
    front: FrontEnd, recorder: EventRecorder, *, really: bool
) -> None:
    """P1, P3: what it writes in a savepoint is told when the others of this round were called, observed or not."""
    told: list[int] = []

    @listens_for(Order, phase=Phase.BEFORE_COMMIT)
    async def add(
        order: Order, event_type: ModelEvent, changes: Changes | None, *, session: EventSession | SyncEventSession
    ) -> None:
        told.append(order.id)
        if order.id < 10:
            adapter = SessionAdapter(session)
            async with adapter.begin_nested():
                await adapter.add(Order(id=order.id + 10))

    recorder.listen(Order)
    await front.add_all([Order(id=1), Order(id=2)])
    with observed(really=really):
        await front.commit()
    assert told == [1, 2, 11, 12]
    assert recorder.take() == [created(Order, key) for key in (1, 2, 11, 12)]
    assert await front.committed_rows(ORDERS) == [(key, "new") for key in (1, 2, 11, 12)]


@contextmanager
def listening_before_commit(front: FrontEnd, listener: Callable[[Session], None], *, first: bool) -> Generator[None]:
    """Call a listener of SQLAlchemy's own before or after the library's."""
    target = SyncEventSession if first else front.sync_session
    event.listen(target, "before_commit", listener, insert=first)
    try:
        yield
    finally:
        event.remove(target, "before_commit", listener)


@pytest.mark.parametrize("votes", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("act", ["release", "roll back", "leave open", "flush"])
@scenario(Base.metadata, databases=LOCAL)
async def test_savepoint_of_a_before_commit_listener(
    front: FrontEnd, recorder: EventRecorder, *, act: str, pending: bool, first: bool, votes: bool
) -> None:
    """T1, T3, P1: what it writes is told as the rest is, once, and a savepoint of its own stops no commit."""
    if votes:
        recorder.listen(Order, phase=Phase.BEFORE_COMMIT)
    recorder.listen(Order)

    def write(session: Session) -> None:
        if session.in_nested_transaction() or session.info.get("has_written"):
            return
        session.info["has_written"] = True
        if act != "flush":
            savepoint = session.begin_nested()
        session.add(Order(id=3))
        session.flush()
        if act == "release":
            savepoint.commit()
        elif act == "roll back":
            savepoint.rollback()

    await front.add(Order(id=1))
    await front.flush()
    if pending:
        await front.add(Order(id=2))
    with listening_before_commit(front, write, first=first):
        await front.commit()
    keys = [1, *([2] if pending else []), *([] if act == "roll back" else [3])]
    assert recorder.take() == [created(Order, key) for key in keys] * (2 if votes else 1)
    assert await front.committed_rows(ORDERS) == [(key, "new") for key in keys]


@scenario(DeferredBase.metadata, databases=LOCAL)
async def test_commit_that_fails_is_regretted(front: FrontEnd, recorder: EventRecorder) -> None:
    """P2, T4: a COMMIT that the database has refused is rolled back, and those hear of it who listen to that."""
    recorder.listen(Book, phase=Phase.AFTER_ROLLBACK)
    await front.add(Book(id=1, shelf_id=404))
    with pytest.raises(IntegrityError):
        await front.commit()
    await front.rollback()
    assert recorder.take() == [created(Book, 1)]
