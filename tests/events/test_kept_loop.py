"""The loop that takes a task's first step by itself: what holds while it does, and what when that fails."""

from __future__ import annotations

import asyncio
import contextvars
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from fastapi_toolsets.events.crossing.kept_loop import KeptLoop, make_loop


@pytest.fixture
def loop() -> Iterator[KeptLoop]:
    loop = make_loop()
    assert isinstance(loop, KeptLoop)
    yield loop
    loop.close()


def run(loop: KeptLoop, coroutine: Any) -> asyncio.Task[None]:  # noqa: ANN401 - a coroutine
    task: asyncio.Task[None] = loop.begin(coroutine, contextvars.copy_context())
    loop.advance()
    return task


def test_it_runs_while_it_takes_a_step(loop: KeptLoop) -> None:
    """So that neither it nor another loop is run inside it, and nobody closes it."""
    seen: list[object] = []
    other = asyncio.new_event_loop()

    async def work() -> None:
        seen.append((loop.is_running(), asyncio.get_running_loop() is loop))
        for refused in (loop, other):
            with pytest.raises(RuntimeError, match="running"):
                refused.run_until_complete(refused.create_future())
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()

    assert run(loop, work()).done()
    other.close()
    assert seen == [(True, True)]
    assert not loop.is_running()
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_the_step(loop: KeptLoop, kind: type[BaseException]) -> None:
    """It comes out of the loop, as out of one that runs; the task is done, and the next one begins as usual."""

    async def interrupt() -> None:
        raise kind

    task = loop.begin(interrupt(), contextvars.copy_context())
    with pytest.raises(kind):
        loop.advance()
    assert isinstance(task.exception(), kind)
    assert not loop.is_running()
    loop.take_up(task)
    assert run(loop, asyncio.sleep(0)).done() is False


def test_interrupt_before_the_step(loop: KeptLoop) -> None:
    """The step is still to be taken, in a turn."""
    context = contextvars.copy_context()
    task = loop.begin(asyncio.sleep(0, "result"), context)
    with pytest.raises(RuntimeError, match="already entered"):
        context.run(loop.advance)
    assert not loop.is_running()
    loop.take_up(task)
    assert loop.run_until_complete(task) == "result"


def test_task_that_is_not_the_first_thing_scheduled(loop: KeptLoop) -> None:
    """What a task factory schedules before is no task's first step, and everything is served in its order."""
    steps: list[str] = []

    async def work() -> None:
        steps.append("work")

    def make(_: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:  # noqa: ANN401 - theirs
        loop.call_soon(steps.append, "factory")
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(make)
    assert run(loop, work()).done()
    loop.set_task_factory(None)
    assert run(loop, work()).done()
    assert sorted(steps) == ["factory", "work", "work"]


def test_signal_handlers_need_turns(loop: KeptLoop) -> None:
    """One that a callback has set is called in the turn of a later commit."""
    called: list[str] = []

    async def handle() -> None:
        loop.add_signal_handler(signal.SIGUSR1, called.append, "handler")

    async def work() -> None:
        called.append("work")

    run(loop, handle())
    signal.raise_signal(signal.SIGUSR1)
    run(loop, work())
    run(loop, work())
    loop.remove_signal_handler(signal.SIGUSR1)
    assert called == ["work", "handler", "work"]
