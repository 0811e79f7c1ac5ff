"""Rules C4 and C5 in a task that was cancelled before it commits, and where a callback's time is over."""

from __future__ import annotations

import asyncio
import contextlib

import anyio
import anyio.to_thread
import pytest
from sqlalchemy.orm import sessionmaker

from fastapi_toolsets.events import CallbackOutcome
from fastapi_toolsets.models import Changes, ModelEvent, Phase, SyncEventSession, listens_for

from ..databases import Database, tables
from ..front_ends import EventRecorder, FrontEnd, scenario
from ..observers import Outcomes, observing
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


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("phase", [Phase.AFTER_COMMIT, Phase.BEFORE_COMMIT])
@scenario(Base.metadata, databases=LOCAL, front_ends=["async"])
async def test_observers_are_told_of_an_error(
    front: FrontEnd, *, phase: Phase, asynchronous: bool, before: bool
) -> None:
    """C4, P3: not of a cancellation, which nobody asked for while the callback ran."""
    observer = Outcomes()

    def gives_up(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise asyncio.CancelledError

    async def gives_up_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise asyncio.CancelledError

    listens_for(Order, phase=phase)(gives_up_later if asynchronous else gives_up)

    async def work() -> None:
        try:
            if before:
                await asyncio.Event().wait()
        finally:
            await front.add(Order(id=1))
            with contextlib.suppress(asyncio.CancelledError):  # before the commit it comes out of that
                await front.commit()

    with observing(observer):
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        if before:
            task.cancel()
        await asyncio.wait({task})
    assert (task.cancelled(), observer.found) == (before, [CallbackOutcome.ERROR])


@pytest.mark.parametrize("database", LOCAL, indirect=True)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_observers_are_told_what_is_cut_short_in_a_worker_thread(database: Database, *, asynchronous: bool) -> None:
    """C5: a sync callback's awaitable, too, although nothing is raised in the thread that waits for it."""
    engine = database.create_engine()
    factory = sessionmaker(engine, class_=SyncEventSession, callback_grace=0.0)
    observer = Outcomes()

    def work() -> None:
        with factory.begin() as session:
            session.add(Order(id=1))

    async def application() -> None:
        waiting = anyio.Event()

        async def waits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            waiting.set()
            await anyio.sleep_forever()

        def returns(order: Order, event_type: ModelEvent, changes: Changes | None) -> object:
            return waits(order, event_type, changes)

        listens_for(Order)(waits if asynchronous else returns)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, work)
            await waiting.wait()
            group.cancel_scope.cancel()

    with observing(observer), tables(database, Base.metadata):
        anyio.run(application)
    engine.dispose()
    assert observer.found == [CallbackOutcome.CANCELLED]


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
