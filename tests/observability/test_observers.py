"""The seam under spans and metrics: what observers are told, in which order, and that they disturb nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence

import anyio
import pytest
from sqlalchemy.util import await_only

from fastapi_toolsets.errors import CascadeLimitError, ObserverError
from fastapi_toolsets.events import (
    CallbackOutcome,
    Ending,
    ObservedCallback,
    ObservedDispatch,
    add_observer,
    capture_events,
    observation,
    remove_observer,
)
from fastapi_toolsets.events import created as recorded
from fastapi_toolsets.events.dispatch.observing import ObservingDispatch
from fastapi_toolsets.events.dispatch.straight import Straight
from fastapi_toolsets.models import Changes, ModelEvent, Phase, SyncEventSession, listens_for, muted

from ..contract.event_models import LOCAL, created
from ..contract.transaction_models import Base, ExpectedError, Order
from ..front_ends import EventRecorder, FrontEnd, SessionAdapter, scenario
from ..observers import observing

MODULE = __name__
GRACE_OVER = "the grace after a cancellation was over (callback_grace on the session factory sets it)"


class Notes:
    """An observer that writes down what it is told, as short lines, under a name of its own."""

    def __init__(self, name: str = "", lines: list[str] | None = None) -> None:
        self.lines: list[str] = [] if lines is None else lines
        self._name = name

    def begin_dispatch(self, dispatch: ObservedDispatch) -> Ending:
        return self._begun(f"dispatch of {dispatch.deliveries}")

    def begin_callback(self, call: ObservedCallback) -> Ending:
        return self._begun(shown(call))

    def callbacks_not_called(self, calls: Sequence[ObservedCallback], reason: str) -> None:
        self.lines += [f"{self._name}not called: {shown(call)}: {reason}" for call in calls]

    def _begun(self, what: str) -> Ending:
        self.lines.append(f"{self._name}begin {what}")

        def end(outcome: CallbackOutcome, error: BaseException | None) -> None:
            self.lines.append(f"{self._name}end {what}: {outcome.value} {error!r}")

        return end


def shown(call: ObservedCallback) -> str:
    """A call in a few words."""
    name = call.callback.removeprefix(f"{MODULE}.").rpartition(".")[2]
    subject = "on_commit" if call.event_type is None else f"{call.event_type.value} {call.model}"
    return f"{'async' if call.is_async else 'sync'} {name} for {subject}"


def listen(*names: str) -> None:
    """Register callbacks by name: a name tells whether it is async and whether it raises."""
    for name in names:
        listens_for(Order)(CALLBACKS[name])


async def awaits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    await anyio.lowlevel.checkpoint()


def returns(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...


async def awaits_and_raises(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    await anyio.lowlevel.checkpoint()
    raise ExpectedError("async")


def raises(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    raise ExpectedError("sync")


def returns_awaitable(order: Order, event_type: ModelEvent, changes: Changes | None) -> object:
    return awaits_and_raises(order, event_type, changes)


CALLBACKS = {
    function.__name__: function for function in (awaits, returns, awaits_and_raises, raises, returns_awaitable)
}


@pytest.fixture
def notes() -> Generator[Notes]:
    observer = Notes()
    with observing(observer):
        yield observer


@scenario(Base.metadata, databases=LOCAL)
async def test_observer_is_told_of_each_callback(front: FrontEnd, notes: Notes) -> None:
    """C4: before and after it, what it raised included, inside one dispatch for the commit."""
    listen("awaits", "raises", "awaits_and_raises", "returns_awaitable")
    front.session.on_commit(returns, None, None, None)
    await front.add(Order(id=1))
    await front.commit()
    assert notes.lines == [
        "begin dispatch of 2",
        "begin async awaits for create Order",
        "end async awaits for create Order: success None",
        "begin sync raises for create Order",
        "end sync raises for create Order: error ExpectedError('sync')",
        "begin async awaits_and_raises for create Order",
        "end async awaits_and_raises for create Order: error ExpectedError('async')",
        "begin sync returns_awaitable for create Order",
        "end sync returns_awaitable for create Order: error ExpectedError('async')",
        "begin sync returns for on_commit",
        "end sync returns for on_commit: success None",
        "end dispatch of 2: success None",
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_each_event_of_a_long_queue(front: FrontEnd, notes: Notes) -> None:
    """C3: many events with the same listener are told one by one."""
    listen("returns")
    await front.add_all([Order(id=number) for number in range(50)])
    await front.commit()
    calls = ["begin sync returns for create Order", "end sync returns for create Order: success None"] * 50
    assert notes.lines == ["begin dispatch of 50", *calls, "end dispatch of 50: success None"]


@scenario(Base.metadata, databases=LOCAL, on_callback_error="raise")
async def test_dispatch_that_raises(front: FrontEnd, notes: Notes) -> None:
    """C4: what ``commit()`` raises is how the dispatch ended."""
    listen("raises")
    await front.add(Order(id=1))
    with pytest.raises(ExceptionGroup):
        await front.commit()
    assert [line.partition("callbacks raised")[0] for line in notes.lines] == [
        "begin dispatch of 1",
        "begin sync raises for create Order",
        "end sync raises for create Order: error ExpectedError('sync')",
        "end dispatch of 1: error ExceptionGroup('the commit stands and is not to be repeated, but ",
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_nothing_to_tell_is_no_dispatch(front: FrontEnd, notes: Notes) -> None:
    """E1, T2: a commit without a net event, and one that is rolled back, are not observed."""
    listen("returns")
    await front.commit()
    order = Order(id=1)
    await front.add(order)
    await front.flush()
    await front.delete(order)
    await front.commit()
    await front.add(Order(id=2))
    await front.rollback()
    assert notes.lines == []


@scenario(Base.metadata, databases=LOCAL)
async def test_cascade_belongs_to_the_dispatch_that_caused_it(front: FrontEnd, notes: Notes) -> None:
    """C6: what callbacks commit on the session is told before that dispatch ends."""

    @listens_for(Order)
    async def react(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id < 2:
            await front.add(Order(id=order.id + 1))
            await front.commit()

    await front.add(Order(id=1))
    await front.commit()
    assert notes.lines == [
        "begin dispatch of 1",
        "begin async react for create Order",
        "end async react for create Order: success None",
        "begin async react for create Order",
        "end async react for create Order: success None",
        "end dispatch of 1: success None",
    ]


@scenario(Base.metadata, databases=LOCAL, cascade_limit=0)
async def test_end_of_a_chain(front: FrontEnd, notes: Notes) -> None:
    """C6: what the bound leaves out is told as not called."""

    @listens_for(Order)
    async def feed(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await front.add(Order(id=order.id + 1))
        await front.commit()

    await front.add(Order(id=1))
    with pytest.raises(CascadeLimitError):
        await front.commit()
    assert [line.partition("CascadeLimitError")[0] for line in notes.lines] == [
        "begin dispatch of 1",
        "begin async feed for create Order",
        "not called: async feed for create Order: callbacks have committed too many times in a row",
        "end async feed for create Order: success None",
        "end dispatch of 1: error ",
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_phases(front: FrontEnd) -> None:
    """P1, P2: a dispatch for each phase of a transaction; the rounds before a commit are dispatches of their own."""
    calls: list[tuple[str, str]] = []

    class Phases(Notes):
        def begin_dispatch(self, dispatch: ObservedDispatch) -> Ending:
            calls.append(("dispatch", dispatch.phase.value))
            return super().begin_dispatch(dispatch)

        def begin_callback(self, call: ObservedCallback) -> Ending:
            calls.append(("callback", call.phase.value))
            return super().begin_callback(call)

    @listens_for(Order, phase=Phase.BEFORE_COMMIT)
    async def write(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id == 1:
            await front.add(Order(id=2))

    listens_for(Order, phase=Phase.BEFORE_COMMIT)(returns)
    listens_for(Order)(returns)
    listens_for(Order, phase=Phase.AFTER_ROLLBACK)(awaits)
    with observing(Phases()), muted(returns):
        await front.add(Order(id=1))
        await front.commit()
        await front.add(Order(id=3))
        await front.flush()
        await front.rollback()
    rounds = [("dispatch", "before_commit"), ("callback", "before_commit")]
    assert calls == [
        *rounds,
        *rounds,
        ("dispatch", "after_commit"),
        ("dispatch", "after_rollback"),
        ("callback", "after_rollback"),
    ]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@scenario(Base.metadata, databases=LOCAL, front_ends=["async"])
async def test_cancelled_before_the_commit(front: FrontEnd, notes: Notes, *, asynchronous: bool) -> None:
    """P1, C5: nothing has been committed, so the callback is cancelled with the committer, and no other is told of."""
    waiting = anyio.Event()

    async def waits_on_loop(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        waiting.set()
        await asyncio.Event().wait()

    def waits_in_place(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        waiting.set()
        await_only(asyncio.Event().wait())

    waits = waits_on_loop if asynchronous else waits_in_place
    listens_for(Order, phase=Phase.BEFORE_COMMIT)(waits)
    listen("awaits", "returns")
    await cancelled_commit(front, waiting)
    await front.rollback()
    kind = "async" if asynchronous else "sync"
    assert notes.lines == [
        "begin dispatch of 1",
        f"begin {kind} {waits.__name__} for create Order",
        f"end {kind} {waits.__name__} for create Order: cancelled CancelledError()",
        "end dispatch of 1: cancelled CancelledError()",
    ]


async def cancelled_commit(session: SessionAdapter, waiting: anyio.Event) -> None:
    """Commit an order in a task that is cancelled once a callback waits."""

    async def commit() -> None:
        await session.add(Order(id=1))
        await session.commit()

    task = asyncio.create_task(commit())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=0.0)
async def test_cancelled_committer(front: FrontEnd, notes: Notes, *, asynchronous: bool) -> None:
    """C5: the callback that is cut short, those that are not called, and the dispatch, which passes it on."""
    waiting = anyio.Event()

    async def waits_on_loop(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        waiting.set()
        await asyncio.Event().wait()

    def waits_in_place(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        waiting.set()
        await_only(asyncio.Event().wait())

    waits = waits_on_loop if asynchronous else waits_in_place
    listens_for(Order)(waits)
    listen("awaits", "returns")
    await cancelled_commit(front, waiting)
    kind = "async" if asynchronous else "sync"
    assert notes.lines == [
        "begin dispatch of 1",
        f"begin {kind} {waits.__name__} for create Order",
        f"end {kind} {waits.__name__} for create Order: cancelled CancelledError()",
        f"not called: async awaits for create Order: {GRACE_OVER}",
        f"not called: sync returns for create Order: {GRACE_OVER}",
        "end dispatch of 1: cancelled CancelledError()",
    ]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_interrupted_callback(
    front: FrontEnd, notes: Notes, *, asynchronous: bool, interrupt: type[BaseException]
) -> None:
    """C4: an interrupt ends the dispatch; what it keeps from being called is told."""

    async def stops_on_loop(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise interrupt

    def stops_in_place(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise interrupt

    stops = stops_on_loop if asynchronous else stops_in_place
    listens_for(Order)(stops)
    listen("returns")
    await front.add(Order(id=1))
    with pytest.raises(interrupt):
        await front.commit()
    kind = "async" if asynchronous else "sync"
    assert notes.lines == [
        "begin dispatch of 1",
        f"begin {kind} {stops.__name__} for create Order",
        f"end {kind} {stops.__name__} for create Order: error {interrupt()!r}",
        "not called: sync returns for create Order: interrupted",
        f"end dispatch of 1: error {interrupt()!r}",
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_observers_are_nested(front: FrontEnd) -> None:
    """The first to be told of a beginning is the last to be told of the end."""
    lines: list[str] = []
    listen("returns")
    with observing(Notes("outer ", lines), Notes("inner ", lines)):
        await front.add(Order(id=1))
        await front.commit()
    assert lines == [
        "outer begin dispatch of 1",
        "inner begin dispatch of 1",
        "outer begin sync returns for create Order",
        "inner begin sync returns for create Order",
        "inner end sync returns for create Order: success None",
        "outer end sync returns for create Order: success None",
        "inner end dispatch of 1: success None",
        "outer end dispatch of 1: success None",
    ]


class FailsToBegin:
    def begin_dispatch(self, dispatch: ObservedDispatch) -> Ending:
        raise ExpectedError

    def begin_callback(self, call: ObservedCallback) -> Ending:
        raise ExpectedError

    def callbacks_not_called(self, calls: Sequence[ObservedCallback], reason: str) -> None:
        raise ExpectedError


class FailsToEnd(FailsToBegin):
    def begin_dispatch(self, dispatch: ObservedDispatch) -> Ending:
        return self.end

    def begin_callback(self, call: ObservedCallback) -> Ending:
        return self.end

    def end(self, outcome: CallbackOutcome, error: BaseException | None) -> None:
        raise ExpectedError


@scenario(Base.metadata, databases=LOCAL, cascade_limit=0)
async def test_observer_that_raises(front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture) -> None:
    """C4: it is logged, and neither callbacks nor other observers are affected."""
    recorder.listen(Order)
    notes = Notes()
    with observing(FailsToBegin(), notes, FailsToEnd()):
        await front.add(Order(id=1))
        await front.commit()

        @listens_for(Order)
        async def feed(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            order.status = "fed"
            await front.commit()

        await front.add(Order(id=2))
        with pytest.raises(CascadeLimitError):
            await front.commit()
    assert recorder.take() == [created(Order, 1), created(Order, 2)]
    begun = ["dispatch of 1", "sync record for create Order"]
    assert notes.lines[:4] == [
        *(f"begin {what}" for what in begun),
        *(f"end {what}: success None" for what in reversed(begun)),
    ]
    says = "The dispatch observer's %s raised; callbacks are not affected"
    first_commit = ["FailsToBegin.begin_dispatch", "FailsToBegin.begin_callback", "FailsToEnd.end", "FailsToEnd.end"]
    assert caplog.messages[:4] == [says % name for name in first_commit]
    assert caplog.messages.count(says % "FailsToBegin.callbacks_not_called") == 2


@scenario(Base.metadata, databases=LOCAL)
async def test_observer_is_removed_again(front: FrontEnd) -> None:
    """From the next commit on it is told nothing, and a dispatch is a plain one again, which asks for no observer."""
    dispatches: list[object] = []

    @listens_for(Order)
    def look(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        session = front.sync_session
        assert isinstance(session, SyncEventSession)
        dispatches.append(type(session._tracker.dispatch))  # noqa: SLF001 - the point is what is there

    notes = Notes()
    for observer in ((), (notes,), ()):
        with observing(*observer):
            await front.add(Order(id=len(dispatches)))
            await front.commit()
    assert dispatches == [Straight, ObservingDispatch, Straight]
    assert len(notes.lines) == 4
    assert observation.current is None


def test_observer_is_added_and_removed_once() -> None:
    """A mistake says what to do about it."""
    notes = Notes()
    with pytest.raises(ObserverError, match="does not observe: give remove_observer the object"):
        remove_observer(notes)
    with observing(notes), pytest.raises(ObserverError, match=r"observes already.*add an observer once"):
        add_observer(notes)


@scenario(Base.metadata, databases=LOCAL)
async def test_a_recorder_makes_no_dispatch(front: FrontEnd) -> None:
    """Observers are told of callbacks: what is only recorded is no dispatch."""
    notes = Notes()
    with observing(notes), capture_events(Order) as events:
        await front.add(Order(id=1))
        await front.commit()
    assert (events == [recorded(Order, 1)], notes.lines) == (True, [])
