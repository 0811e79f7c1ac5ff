"""Rule C4 where somebody presses Ctrl-C, or a time limit strikes, while a script's callbacks run."""

from __future__ import annotations

import selectors
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import anyio
import anyio.lowlevel
import pytest

from fastapi_toolsets.events import Ending, ObservedCallback
from fastapi_toolsets.models import CallbackFailure, Changes, ModelEvent, Phase, listener_scope, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from ..interrupts import TimeLimitError
from ..observers import Silent, observing
from .models import Base, Order, created, library_log, updated

LOCAL = ("sqlite",)
AGAIN = 0.05
"""Seconds after which somebody looks whether an interrupt was seen."""


def take_no_notice(*_: object) -> None:
    """Do nothing; but whatever the thread waits for in the system is interrupted, and its interpreter looks around."""


@pytest.fixture(autouse=True)
def interrupts_arrive() -> Iterator[None]:
    """Python's own handling of Ctrl-C, also where the tests were started in the background, with the signal ignored."""
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGUSR2: take_no_notice,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def identifier_of(thread: threading.Thread) -> int:
    assert thread.ident is not None
    return thread.ident


def press_ctrl_c() -> None:
    """Send what a terminal sends, to the thread that Python handles it in."""
    signal.pthread_kill(identifier_of(threading.main_thread()), signal.SIGINT)


def remind() -> None:
    """Have the script's thread look for signals once more.

    One that comes in the moment before the system lets the thread wait is seen only when it has waited, since Python
    looks for signals between its own instructions. A user would press Ctrl-C again.
    """
    signal.pthread_kill(identifier_of(threading.main_thread()), signal.SIGUSR2)


async def script_waits() -> None:
    """Return when the script's thread, unless it is this one, does nothing but wait."""
    script = threading.main_thread()
    waiting = threading.Condition.wait.__code__
    while threading.current_thread() is not script:
        frame = sys._current_frames()[identifier_of(script)]  # noqa: SLF001 - no public way to see a thread wait
        if frame.f_code is waiting:
            return
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_signal_while_a_callback_waits(front: FrontEnd, recorder: EventRecorder, backend: str) -> None:
    """C4: an async callback is interrupted where it waits and may tidy up; the rest is named, the loop stays usable.

    With asyncio the callback is in the thread of the script, with trio in a helper thread that the script waits for.
    """
    steps: list[str] = []

    async def wait(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        try:
            await script_waits()
            press_ctrl_c()
            while True:
                await anyio.sleep(AGAIN)
                remind()
        finally:
            steps.append("tidied")

    session = front.new_session(callback_backend=backend)
    order = Order(id=1)
    with listener_scope(), library_log() as logged:
        listens_for(Order)(wait)
        recorder.listen(Order)
        await session.add(order)
        with pytest.raises(KeyboardInterrupt):
            await session.commit()
    assert (steps, recorder.take(), session.in_transaction()) == (["tidied"], [], False)
    assert ["EventRecorder.record for create of Order" in message for _, message in logged] == [True]
    recorder.listen(Order, asynchronous=True)
    order.status = "again"
    await session.commit()
    assert recorder.take() == [updated(1, "new", "again")]


@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_signal_while_a_sync_callback_works(front: FrontEnd, recorder: EventRecorder) -> None:
    """C4: the interrupt is raised where the script is, goes on to the committer, and the rest is named."""

    def work(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        press_ctrl_c()
        for _ in range(1_000_000):  # the interpreter looks for signals between two steps of a loop
            pass

    with listener_scope(), library_log() as logged:
        listens_for(Order)(work)
        recorder.listen(Order, asynchronous=True)
        await front.add(Order(id=1))
        with pytest.raises(KeyboardInterrupt):
            await front.commit()
    assert (recorder.take(), front.in_transaction()) == ([], False)
    assert ["record_asynchronously for create of Order" in message for _, message in logged] == [True]
    recorder.listen(Order)
    await front.add(Order(id=2))
    await front.commit()
    assert recorder.take() == [created(2)]


def raise_time_limit(*_: object) -> None:
    raise TimeLimitError


a_callback_waits = threading.Event()


@pytest.fixture
def time_limit() -> Iterator[None]:
    """Let a time limit strike in this thread as soon as its event loop does nothing but wait for a callback."""
    before = signal.signal(signal.SIGUSR1, raise_time_limit)
    script, waits = threading.main_thread(), selectors.DefaultSelector.select.__code__
    over = threading.Event()

    def strike() -> None:
        a_callback_waits.wait()
        while not over.is_set():
            if sys._current_frames()[identifier_of(script)].f_code is waits:  # noqa: SLF001 - as above
                signal.pthread_kill(identifier_of(script), signal.SIGUSR1)
                while not over.wait(AGAIN):
                    remind()

    clock = threading.Thread(target=strike)
    clock.start()
    yield
    over.set()
    a_callback_waits.set()
    clock.join()
    a_callback_waits.clear()
    signal.signal(signal.SIGUSR1, before)


async def wait_for_ever(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    if order.id == 1:
        a_callback_waits.set()
        await anyio.sleep_forever()


@pytest.mark.parametrize("recorded", [False, True], ids=["the only listener", "one of two"])
@pytest.mark.usefixtures("time_limit")
@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_time_limit_while_a_callback_waits(front: FrontEnd, recorder: EventRecorder, *, recorded: bool) -> None:
    """C4: what a signal handler raises is the waiting callback's error; the others run, and the loop stays usable."""
    failures: list[CallbackFailure] = []
    told: list[int] = []

    async def wait(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await wait_for_ever(order, event_type, changes)
        told.append(order.id)

    session = front.new_session(on_callback_error=failures.append)
    with listener_scope():
        listens_for(Order)(wait)
        if recorded:
            recorder.listen(Order, asynchronous=True)
        await session.add_all([Order(id=1), Order(id=2)])
        await session.commit()
    assert [type(failure.error) for failure in failures] == [TimeLimitError]
    assert (told, recorder.take(), session.in_transaction()) == (
        [2],
        [created(1), created(2)] if recorded else [],
        False,
    )
    recorder.listen(Order, asynchronous=True)
    await session.add(Order(id=3))
    await session.commit()
    assert recorder.take() == [created(3)]


@pytest.mark.usefixtures("time_limit")
@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_time_limit_while_a_callback_before_the_commit_waits(front: FrontEnd, recorder: EventRecorder) -> None:
    """P1: it aborts the commit, as the callback's own exception would."""
    recorder.listen(Order)
    with listener_scope():
        listens_for(Order, phase=Phase.BEFORE_COMMIT)(wait_for_ever)
        await front.add(Order(id=1))
        with pytest.raises(TimeLimitError):
            await front.commit()
    assert (recorder.take(), front.in_transaction()) == ([], False)


class Errors(Silent):
    """An observer that writes down what callbacks raised."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def begin_callback(self, call: ObservedCallback) -> Ending:
        return lambda outcome, error: self.found.append(f"{outcome.value} {error!r}")


@pytest.mark.usefixtures("time_limit")
@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_observer_is_told_of_the_time_limit(front: FrontEnd) -> None:
    """C4: and not of the cancellation by which the callback hears of it."""
    errors = Errors()
    with listener_scope(), observing(errors), library_log():
        listens_for(Order)(wait_for_ever)
        await front.add_all([Order(id=1), Order(id=2)])
        await front.commit()
    assert errors.found == ["error TimeLimitError()", "success None"]
