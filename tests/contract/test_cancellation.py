"""Rule C5: a committer that is cancelled while callbacks run: they still run, for a grace, and then it is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import math
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
from sqlalchemy.orm import sessionmaker
from sqlalchemy.util import await_only

from fastapi_toolsets.events import listener_scope
from fastapi_toolsets.events.crossing import outliving
from fastapi_toolsets.models import CallbackFailure, Changes, ModelEvent, SyncEventSession, listens_for

from ..databases import Database, tables
from ..front_ends import EventRecorder, FrontEnd, SessionAdapter, scenario
from .event_models import LOCAL, created, updated
from .transaction_models import ORDERS, Base, ExpectedError, Order

SERVERS_TOO = ("sqlite", "postgresql", "mariadb")
ENOUGH = 60.0  # seconds; a grace that no test uses up
NONE = 0.0
GOES_ON = "the commit stands and the other callbacks run"

Canceller = Callable[["Committer"], Coroutine[Any, Any, None]]


class Committer:
    """A task that commits an order whose first callback waits until it is let go on."""

    def __init__(self, session: SessionAdapter, *, waits_for_ever: bool = False) -> None:
        self.session = session
        self.waits_for_ever = waits_for_ever
        self.waiting = anyio.Event()
        self.go_on = anyio.Event()
        self.returned = False
        self.calls: list[str] = []

    async def commit(self) -> None:
        await self.session.add(Order(id=1))
        await self.session.commit()
        self.returned = True

    def let_go(self) -> None:
        if not self.waits_for_ever:
            self.go_on.set()

    def listen(self) -> None:
        """Register callbacks: one that waits, then an async, a sync and one that uses the session."""

        @listens_for(Order, ModelEvent.CREATE)
        async def waits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            self.waiting.set()
            await self.go_on.wait()
            self.calls.append("waits")

        @listens_for(Order, ModelEvent.CREATE)
        async def asynchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            await asyncio.sleep(0)
            self.calls.append("asynchronous")

        @listens_for(Order, ModelEvent.CREATE)
        def synchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            self.calls.append("synchronous")

        @listens_for(Order, ModelEvent.CREATE)
        async def uses_the_session(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            order.quantity = len((await self.session.execute(ORDERS)).all())
            await self.session.commit()
            self.calls.append("uses the session")


ALL = ["waits", "asynchronous", "synchronous", "uses the session"]


async def by_task_cancel(committer: Committer) -> None:
    task = asyncio.create_task(committer.commit())
    await committer.waiting.wait()
    task.cancel()
    await asyncio.sleep(0)
    committer.let_go()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def by_repeated_task_cancel(committer: Committer) -> None:
    task = asyncio.create_task(committer.commit())
    await committer.waiting.wait()
    for _ in range(5):
        task.cancel()
        await asyncio.sleep(0)
    committer.let_go()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_asyncio_timeout(committer: Committer) -> None:
    limit = asyncio.timeout(None)

    async def expire() -> None:
        await committer.waiting.wait()
        loop = asyncio.get_running_loop()
        limit.reschedule(loop.time())
        loop.call_soon(committer.let_go)

    async def commit() -> None:
        async with limit:
            await committer.commit()

    expiring = asyncio.create_task(expire())
    with pytest.raises(TimeoutError):
        await commit()
    await expiring


async def by_anyio_scope(committer: Committer) -> None:
    scope = anyio.CancelScope()

    async def expire() -> None:
        await committer.waiting.wait()
        scope.cancel()
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, committer.let_go)

    expiring = asyncio.create_task(expire())
    with scope:
        await committer.commit()
    assert scope.cancelled_caught
    await expiring


async def by_task_group(committer: Committer) -> None:
    """Be cancelled because a sibling failed."""

    async def fail() -> None:
        await committer.waiting.wait()
        asyncio.get_running_loop().call_soon(committer.let_go)
        raise ExpectedError

    async def run_both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(committer.commit())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as raised:
        await run_both()
    assert [type(error) for error in raised.value.exceptions] == [ExpectedError]


CANCELLERS: tuple[Canceller, ...] = (
    by_task_cancel,
    by_repeated_task_cancel,
    by_asyncio_timeout,
    by_anyio_scope,
    by_task_group,
)


@pytest.mark.parametrize("cancel", CANCELLERS, ids=lambda canceller: canceller.__name__)
@scenario(Base.metadata, databases=SERVERS_TOO, front_ends=["async"], callback_grace=ENOUGH)
async def test_the_rest_runs_and_then_the_cancellation_goes_on(
    front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture, *, cancel: Canceller
) -> None:
    """C5: the callback that waits is not disturbed, the others follow, ``commit()`` does not return; nothing is lost.

    The session is whole afterwards, and the task can be cancelled again.
    """
    committer = Committer(front)
    committer.listen()
    recorder.listen(Order)
    await cancel(committer)
    assert (committer.calls, committer.returned) == (ALL, False)
    assert recorder.take() == [created(Order, 1), updated(Order, 1, quantity=(0, 1))]
    assert not front.in_transaction()
    assert [record for record in caplog.records if record.name.startswith("fastapi_toolsets")] == []
    (await front.get_one(Order, 1)).status = "later"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "later"))]


@pytest.mark.parametrize("cancel", CANCELLERS, ids=lambda canceller: canceller.__name__)
@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=NONE)
async def test_what_cannot_run_in_the_grace_is_logged_by_name(
    front: FrontEnd, caplog: pytest.LogCaptureFixture, *, cancel: Canceller
) -> None:
    """C5: without a grace the waiting callback is cancelled, and the log names it and those that were not called."""
    committer = Committer(front, waits_for_ever=True)
    committer.listen()
    await cancel(committer)
    assert (committer.calls, committer.returned) == ([], False)
    logged = " ".join(caplog.messages)
    names = ("waits", "asynchronous", "synchronous", "uses_the_session")
    assert [name for name in names if f"listen.<locals>.{name} for create of Order" not in logged] == []
    assert await front.committed_rows(ORDERS) == [(1, "new")]
    assert not front.in_transaction()


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=NONE)
async def test_callback_may_tidy_up_when_its_grace_is_over(front: FrontEnd) -> None:
    """C5: it is cancelled where it waits, so that its ``finally`` runs before the committer's cancellation goes on."""
    committer = Committer(front)
    steps: list[str] = []

    @listens_for(Order)
    async def tidy(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        committer.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("tidied")

    task = asyncio.create_task(committer.commit())
    await committer.waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["tidied"]


@scenario(Base.metadata, databases=SERVERS_TOO, front_ends=["async"], callback_grace=ENOUGH)
async def test_sync_callback_that_does_io_is_not_cut_short(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C5 with C1: a sync callback that waits for the database when the cancellation comes runs to its end, too."""
    committer = Committer(front)
    statuses: list[str] = []

    @listens_for(Order, ModelEvent.CREATE)
    def read(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        committer.waiting.set()
        for _ in range(5):
            statuses.extend(status for _, status in front.sync_session.execute(ORDERS))

    committer.listen()
    await by_task_cancel(committer)
    assert (statuses, committer.calls) == (["new"] * 5, ALL)
    assert caplog.messages == []
    assert not front.in_transaction()


@pytest.mark.parametrize("policy", ["log", "raise", "function"])
@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=ENOUGH)
async def test_errors_in_the_grace_are_told(front: FrontEnd, caplog: pytest.LogCaptureFixture, *, policy: str) -> None:
    """C5 with C4: what callbacks raised is handed over or logged although the committer was cancelled."""
    handed: list[str] = []

    def take(failure: CallbackFailure) -> None:
        handed.append(failure.callback.rpartition(".")[2])

    committer = Committer(front.new_session(on_callback_error=take if policy == "function" else policy))

    @listens_for(Order)
    async def fails_before(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise ExpectedError

    @listens_for(Order)
    async def fails_meanwhile(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        committer.waiting.set()
        await committer.go_on.wait()
        raise ExpectedError

    @listens_for(Order)
    def fails_after(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise ExpectedError

    await by_task_cancel(committer)
    names = ["fails_before", "fails_meanwhile", "fails_after"]
    logged = [name for name in names if name in caplog.text]
    assert (handed, logged) == ((names, []) if policy == "function" else ([], names))


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=ENOUGH)
async def test_cancellation_that_a_callback_makes_up_is_its_own_error(
    front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """C5 with C4: nobody cancelled the committer, so ``commit()`` returns and the others run."""

    @listens_for(Order)
    async def waits_for_a_cancelled_task(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        task = asyncio.create_task(asyncio.sleep(ENOUGH))
        task.cancel()
        await task

    @listens_for(Order)
    async def has_a_timeout(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    @listens_for(Order)
    async def moves_on(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        with anyio.move_on_after(0):
            await anyio.sleep_forever()
        recorder.record(order, event_type, changes)

    recorder.listen(Order)
    await front.add(Order(id=1))
    await front.commit()
    assert recorder.take() == [created(Order, 1), created(Order, 1)]
    names = ("waits_for_a_cancelled_task", "has_a_timeout")
    assert [name for name in names if name not in caplog.text] == []


@pytest.mark.parametrize("waits", [False, True], ids=["returns", "waits"])
@pytest.mark.parametrize("alone", [False, True], ids=["among others", "alone"])
@scenario(Base.metadata, databases=LOCAL, callback_grace=ENOUGH)
async def test_callback_that_cancels_its_own_task(
    front: FrontEnd, caplog: pytest.LogCaptureFixture, *, waits: bool, alone: bool
) -> None:
    """C5 with C4: nobody has cancelled the committer; an error of that callback at most, and the others run whole."""
    calls: list[str] = []

    @listens_for(Order)
    async def cancels(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        calls.append(f"cancels {order.id}")
        asyncio.current_task().cancel()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
        if waits:
            await asyncio.sleep(0)

    if not alone:

        @listens_for(Order)
        async def asynchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            async with asyncio.timeout(ENOUGH):
                await asyncio.sleep(0)
            calls.append(f"asynchronous {order.id}")

        @listens_for(Order)
        def synchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            calls.append(f"synchronous {order.id}")

    await front.add_all([Order(id=1), Order(id=2)])
    await front.commit()
    names = ["cancels"] if alone else ["cancels", "asynchronous", "synchronous"]
    assert calls == [f"{name} {identity}" for identity in (1, 2) for name in names]
    name = f"{__name__}.test_callback_that_cancels_its_own_task.<locals>.cancels"
    assert caplog.messages == [f"callback {name} for create of Order raised; {GOES_ON}"] * (2 if waits else 0)
    await front.add(Order(id=3))
    await front.commit()
    assert calls[-len(names) :] == [f"{name} 3" for name in names]


@pytest.mark.parametrize("others", ["nobody", "async", "sync"])
@scenario(Base.metadata, databases=LOCAL, callback_grace=ENOUGH)
async def test_next_row_is_told_whole_where_a_callback_cancels_its_own_task(
    front: FrontEnd, caplog: pytest.LogCaptureFixture, others: str
) -> None:
    """C5 with C4: the same callback is called with the next row, and waits there as if nothing had happened."""
    calls: list[int] = []

    @listens_for(Order)
    async def cancels_or_waits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id % 2:
            asyncio.current_task().cancel()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
        else:
            await asyncio.sleep(0)
        calls.append(order.id)

    if others == "async":

        @listens_for(Order)
        async def asynchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            await asyncio.sleep(0)
            calls.append(order.id)

    elif others == "sync":

        @listens_for(Order)
        def cancels_too(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            if front.is_async:  # elsewhere no task runs it
                asyncio.current_task().cancel()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
            calls.append(order.id)

    await front.add_all([Order(id=number) for number in range(1, 6)])
    await front.commit()
    times = 1 if others == "nobody" else 2
    assert (calls, caplog.messages) == ([number for number in range(1, 6) for _ in range(times)], [])


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=ENOUGH)
async def test_every_task_of_the_loop_is_cancelled(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C5: as ``asyncio.run()`` does at its end: the callback that waits is cut short, the others have their grace."""
    committer = Committer(front, waits_for_ever=True)
    committer.listen()
    this = asyncio.current_task()
    before = asyncio.all_tasks()
    committing = asyncio.create_task(committer.commit())
    await committer.waiting.wait()
    for task in asyncio.all_tasks() - before - {this}:
        task.cancel()
    await asyncio.wait({committing})
    assert (committing.cancelled(), committer.calls) == (True, ALL[1:])
    assert caplog.messages == [
        f"callback {__name__}.Committer.listen.<locals>.waits for create of Order raised; {GOES_ON}"
    ]
    assert await front.committed_rows(ORDERS) == [(1, "new")]


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "among others"])
@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=ENOUGH)
async def test_task_is_cancelled_before_its_first_step(
    front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture, *, alone: bool
) -> None:
    """C5: as a task factory of the application's allows; the committer is not, so another task begins anew."""
    loop = asyncio.get_running_loop()
    cancelled: list[asyncio.Task[Any]] = []

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:  # noqa: ANN401 - theirs
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        if not cancelled:
            cancelled.append(task)
            task.cancel()
        return task

    @listens_for(Order)
    async def record(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        recorder.record(order, event_type, changes)

    if not alone:
        recorder.listen(Order)
    await front.add(Order(id=1))
    loop.set_task_factory(make)
    try:
        await front.commit()
    finally:
        loop.set_task_factory(None)
    assert (len(cancelled), recorder.take()) == (1, [created(Order, 1)] * (1 if alone else 2))
    assert caplog.messages == []


async def wait_whatever_comes(begun: asyncio.Event, go_on: asyncio.Event) -> None:
    """Wait as a callback does that takes a cancellation for an error like any other, and raises it in the end."""
    begun.set()
    cancellation: asyncio.CancelledError | None = None
    while not go_on.is_set():
        try:
            await go_on.wait()
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation


def stubborn_to_the_end(begun: asyncio.Event, go_on: asyncio.Event) -> Callable[..., object]:
    async def late(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await wait_whatever_comes(begun, go_on)

    return late


def stubborn_async(begun: asyncio.Event, go_on: asyncio.Event) -> Callable[..., object]:
    async def late(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await wait_whatever_comes(begun, go_on)

    return late


def stubborn_sync(begun: asyncio.Event, go_on: asyncio.Event) -> Callable[..., object]:
    def late(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        begun.set()
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await_only(go_on.wait())

    return late


def stubborn_awaitable(begun: asyncio.Event, go_on: asyncio.Event) -> Callable[..., object]:
    def late(order: Order, event_type: ModelEvent, changes: Changes | None) -> object:
        return wait_whatever_comes(begun, go_on)

    return late


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(
    ("stubborn", "after_another"),
    [
        (stubborn_async, False),
        (stubborn_async, True),
        (stubborn_to_the_end, False),
        (stubborn_to_the_end, True),
        (stubborn_awaitable, False),
        (stubborn_awaitable, True),
        (stubborn_sync, True),  # alone it runs in the committer's own task, which waits for it
    ],
)
@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=NONE)
async def test_callback_that_outlives_its_grace(
    front: FrontEnd,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    stubborn: Callable[[asyncio.Event, asyncio.Event], Callable[..., object]],
    after_another: bool,
    rows: int,
) -> None:
    """C4, C5: it is named once, and whenever it ends, the transaction that the caller has begun meanwhile stays."""
    monkeypatch.setattr(outliving, "LAST_WORDS", 0.01)
    go_on, begun = asyncio.Event(), asyncio.Event()

    if after_another:

        @listens_for(Order, ModelEvent.CREATE)
        async def another(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    listens_for(Order, ModelEvent.CREATE)(stubborn(begun, go_on))

    async def commit() -> None:
        await front.add_all([Order(id=identity) for identity in range(rows)])
        await front.commit()

    before = asyncio.all_tasks()
    committing = asyncio.create_task(commit())
    await begun.wait()
    committing.cancel()
    await asyncio.wait({committing})
    logged = [*caplog.messages]
    await front.add(Order(id=10, status="the caller's"))
    await front.flush()
    go_on.set()
    if left := asyncio.all_tasks() - before:
        await asyncio.wait(left)
    assert (committing.cancelled(), caplog.messages) == (True, logged)
    with listener_scope(inherit=False):
        await front.commit()
    rows_found = [(identity, "new") for identity in range(rows)]
    assert await front.committed_rows(ORDERS) == [*rows_found, (10, "the caller's")]


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=NONE)
async def test_nothing_is_begun_when_the_grace_is_over(front: FrontEnd) -> None:
    """C2, C5: a sync callback that catches its cancellation and waits again leaves no coroutine unawaited."""
    waiting = asyncio.Event()
    raised: list[str] = []

    @listens_for(Order)
    def waits_again(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        for _ in range(3):
            waiting.set()
            try:
                await_only(asyncio.sleep(ENOUGH))
            except asyncio.CancelledError:
                raised.append("cancelled")

    async def commit() -> None:
        await front.add(Order(id=1))
        await front.commit()

    with warnings.catch_warnings(record=True, action="always", category=RuntimeWarning) as caught:
        committing = asyncio.create_task(commit())
        await waiting.wait()
        committing.cancel()
        await asyncio.wait({committing})
        gc.collect()
    assert (raised, [str(warning.message) for warning in caught]) == (["cancelled"] * 3, [])


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=ENOUGH)
async def test_awaitable_of_a_sync_callback_has_the_grace_too(
    front: FrontEnd, caplog: pytest.LogCaptureFixture
) -> None:
    """C5 with C1: what a sync function returned is waited for like an async callback, and what it raises is told."""
    committer = Committer(front)

    async def wait_and_fail() -> None:
        committer.waiting.set()
        await committer.go_on.wait()
        committer.calls.append("returned")
        raise ExpectedError

    @listens_for(Order, ModelEvent.CREATE)
    def returns(order: Order, event_type: ModelEvent, changes: Changes | None) -> object:
        return wait_and_fail()

    committer.listen()
    await by_task_cancel(committer)
    assert (committer.calls, committer.returned) == (["returned", *ALL], False)
    name = f"{__name__}.test_awaitable_of_a_sync_callback_has_the_grace_too.<locals>.returns"
    assert caplog.messages == [f"callback {name} for create of Order raised; {GOES_ON}"]


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=ENOUGH)
async def test_cancelled_before_the_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """C5 with T2: whoever is cancelled before COMMIT has committed nothing, and nothing is told."""
    recorder.listen(Order)

    async def work() -> None:
        async with front.begin():
            await front.add(Order(id=1))
            await front.flush()
            asyncio.current_task().cancel()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
            await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())
    assert recorder.take() == []
    await front.add(Order(id=2))
    await front.commit()
    assert recorder.take() == [created(Order, 2)]
    assert await front.committed_rows(ORDERS) == [(2, "new")]


# A sync session in an AnyIO worker thread, whose host task is cancelled


class Endpoint:
    """An endpoint's task that waits for a worker thread, which commits an order whose first callback waits."""

    def __init__(self, factory: sessionmaker[SyncEventSession], *, goes_on: bool) -> None:
        self.factory = factory
        self.goes_on = goes_on
        self.calls: list[str] = []
        self.returned: list[str] = []
        listens_for(Order)(self.waits)
        listens_for(Order)(self.synchronous)
        listens_for(Order)(self.asynchronous)

    async def waits(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        self.waiting.set()
        await self.go_on.wait()
        self.calls.append("waits")

    def synchronous(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        self.calls.append("synchronous")

    async def asynchronous(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await anyio.lowlevel.checkpoint()
        self.calls.append("asynchronous")

    def work(self) -> None:
        with self.factory() as session:
            session.add(Order(id=1))
            session.commit()
        self.returned.append("thread")

    async def handle(self) -> None:
        await anyio.to_thread.run_sync(self.work)
        self.returned.append("wait for the thread")
        await anyio.lowlevel.checkpoint()
        self.returned.append("endpoint")

    async def application(self) -> None:
        self.waiting, self.go_on = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(self.handle)
            await self.waiting.wait()
            group.cancel_scope.cancel()
            if self.goes_on:
                self.go_on.set()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("grace", [ENOUGH, NONE])
@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_worker_thread(database: Database, caplog: pytest.LogCaptureFixture, grace: float, backend: str) -> None:
    """C5: within the grace all run; without one they are logged by name. Either way the host is cancelled after."""
    engine = database.create_engine()
    factory = sessionmaker(engine, class_=SyncEventSession, callback_grace=grace)
    endpoint = Endpoint(factory, goes_on=bool(grace))
    with tables(database, Base.metadata):
        anyio.run(endpoint.application, backend=backend)
        with engine.connect() as connection:
            assert [tuple(row) for row in connection.execute(ORDERS)] == [(1, "new")]
    engine.dispose()
    assert endpoint.returned == ["thread", "wait for the thread"]
    names = ["waits", "synchronous", "asynchronous"]
    logged = [name for name in names if f".{name} for create of Order" in caplog.text]
    assert (endpoint.calls, logged) == ((names, []) if grace else ([], names))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_worker_thread_has_one_grace(database: Database, backend: str) -> None:
    """C5: async callbacks with sync ones between them share it, however often the thread goes back to the loop."""
    engine = database.create_engine()
    endpoint = Endpoint(sessionmaker(engine, class_=SyncEventSession, callback_grace=ENOUGH), goes_on=True)
    ends: list[float] = []

    async def note_the_end(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        ends.append(anyio.current_effective_deadline())

    def returns(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    listens_for(Order)(note_the_end)
    listens_for(Order)(returns)
    listens_for(Order)(functools.partial(note_the_end))
    with tables(database, Base.metadata):
        anyio.run(endpoint.application, backend=backend)
    engine.dispose()
    assert (len(ends), len(set(ends)), math.isfinite(ends[0])) == (2, 1, True)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("cancelled", [True, False])
@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_worker_thread_whose_task_is_cancelled_before(database: Database, backend: str, *, cancelled: bool) -> None:
    """C5: as the thread flushes or commits: the grace is for all callbacks. Who is not cancelled has all the time."""
    engine = database.create_engine()
    factory = sessionmaker(engine, class_=SyncEventSession, callback_grace=ENOUGH)
    ends: list[float] = []

    async def note_the_end(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await anyio.lowlevel.checkpoint()
        ends.append(anyio.current_effective_deadline())

    def returns(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    listens_for(Order)(note_the_end)
    listens_for(Order)(returns)
    listens_for(Order)(functools.partial(note_the_end))

    async def application() -> None:
        def work() -> None:
            with factory.begin() as session:
                session.add(Order(id=1))
                session.flush()
                if cancelled:
                    anyio.from_thread.run_sync(scope.cancel)

        with anyio.CancelScope() as scope:
            await anyio.to_thread.run_sync(work)
            await anyio.lowlevel.checkpoint()
        assert scope.cancelled_caught is cancelled

    with tables(database, Base.metadata):
        anyio.run(application, backend=backend)
    engine.dispose()
    assert (len(ends), len(set(ends)), math.isfinite(ends[0])) == (2, 1, cancelled)
