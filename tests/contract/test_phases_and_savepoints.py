"""Rules P1, P2 and P3 where savepoints, failed COMMITs and observers meet callbacks of other phases."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import pytest
from sqlalchemy.exc import IntegrityError

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


@scenario(DeferredBase.metadata, databases=LOCAL)
async def test_commit_that_fails_is_regretted(front: FrontEnd, recorder: EventRecorder) -> None:
    """P2, T4: a COMMIT that the database has refused is rolled back, and those hear of it who listen to that."""
    recorder.listen(Book, phase=Phase.AFTER_ROLLBACK)
    await front.add(Book(id=1, shelf_id=404))
    with pytest.raises(IntegrityError):
        await front.commit()
    await front.rollback()
    assert recorder.take() == [created(Book, 1)]
