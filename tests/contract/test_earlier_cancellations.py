"""Rules C4 and C5 in a task that was cancelled before it commits, and where a callback's time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from fastapi_toolsets.events import (
    CallbackOutcome,
    Ending,
    ObservedCallback,
    ObservedDispatch,
    add_observer,
    remove_observer,
)
from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, created
from .transaction_models import Base, ExpectedError, Order

GRACE = 0.2  # seconds


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("others", [False, True])
@scenario(Base.metadata, databases=LOCAL, front_ends=["async"])
async def test_cancellation_that_a_callback_makes_up(
    front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture, *, others: bool, asynchronous: bool
) -> None:
    """C4: it is the callback's error also where the task tidies up after a cancellation of its own."""
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    tidied_up: list[str] = []

    def takes_the_result(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        cancelled.result()

    async def awaits_the_result(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await cancelled

    listens_for(Order)(awaits_the_result if asynchronous else takes_the_result)
    if others:
        recorder.listen(Order)

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await front.add(Order(id=1))
            await front.commit()
            tidied_up.append("tidied up")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert (task.cancelled(), tidied_up) == (True, ["tidied up"])
    assert recorder.take() == ([created(Order, 1)] if others else [])
    assert "raised; the commit stands and the other callbacks run" in caplog.text


class Outcomes:
    """An observer that writes down how callbacks ended."""

    def __init__(self) -> None:
        self.found: list[CallbackOutcome] = []

    def begin_dispatch(self, dispatch: ObservedDispatch) -> Ending:
        return lambda outcome, error: None

    def begin_callback(self, call: ObservedCallback) -> Ending:
        return lambda outcome, error: self.found.append(outcome)

    def callbacks_not_called(self, calls: Sequence[ObservedCallback], reason: str) -> None: ...


@pytest.mark.parametrize("before", [False, True])
@scenario(Base.metadata, databases=LOCAL, front_ends=["async"])
async def test_observers_are_told_of_an_error(front: FrontEnd, *, before: bool) -> None:
    """C4: not of a cancellation, which nobody asked for while the callback ran."""
    observer = Outcomes()

    @listens_for(Order)
    def gives_up(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise asyncio.CancelledError

    async def work() -> None:
        try:
            if before:
                await asyncio.Event().wait()
        finally:
            await front.add(Order(id=1))
            await front.commit()

    add_observer(observer)
    try:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        if before:
            task.cancel()
        await asyncio.wait({task})
    finally:
        remove_observer(observer)
    assert (task.cancelled(), observer.found) == (before, [CallbackOutcome.ERROR])


@pytest.mark.parametrize("fails", [False, True])
@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=GRACE)
async def test_awaitable_of_a_sync_callback_has_one_grace(
    front: FrontEnd, caplog: pytest.LogCaptureFixture, *, fails: bool
) -> None:
    """C5: it is cut short when the grace is over that began with another callback, and not called interrupted else."""
    began = asyncio.Event()
    ended: list[str] = []

    @listens_for(Order)
    async def begins(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        began.set()
        await asyncio.sleep(GRACE / 2)

    async def wait() -> None:
        try:
            await asyncio.sleep(GRACE)
        except asyncio.CancelledError:
            ended.append("cut short")
            raise
        ended.append("ended")
        if fails:
            raise ExpectedError

    @listens_for(Order)
    def returns(order: Order, event_type: ModelEvent, changes: Changes | None) -> object:
        return wait()

    async def work() -> None:
        await front.add(Order(id=1))
        await front.commit()

    task = asyncio.create_task(work())
    await began.wait()
    task.cancel()
    await asyncio.wait({task})
    assert (task.cancelled(), ended) == (True, ["cut short"])
    assert "interrupted callback" in caplog.text
    assert "returns" in caplog.text
