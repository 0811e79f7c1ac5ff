"""Rule C4 where somebody presses Ctrl-C while a script's callbacks run."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest

from fastapi_toolsets.models import Changes, ModelEvent, listener_scope, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from .models import Base, Order, created, library_log, updated

LOCAL = ("sqlite",)


@pytest.fixture(autouse=True)
def interrupts_arrive() -> Iterator[None]:
    """Python's own handling of Ctrl-C, also where the tests were started in the background, with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def identifier_of(thread: threading.Thread) -> int:
    assert thread.ident is not None
    return thread.ident


def press_ctrl_c() -> None:
    """Send what a terminal sends, to the thread that Python handles it in."""
    signal.pthread_kill(identifier_of(threading.main_thread()), signal.SIGINT)


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
            await anyio.sleep_forever()
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
