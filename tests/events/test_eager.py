"""Tasks whose first step is taken at once, on any loop: what asyncio does later it does to them as to all others."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, cast

import pytest

from fastapi_toolsets.events.crossing.eager import begin

pytestmark = pytest.mark.anyio

NAME = contextvars.ContextVar("NAME", default="nobody")


def started(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Begin a task that goes on."""
    task = begin(coroutine, asyncio.get_running_loop(), asyncio.current_task())
    assert task is not None
    return task


async def test_coroutine_that_waits_for_nothing() -> None:
    """It is over at once, in a task and a context of its own, and the loop knows no other task than before."""
    host, known, seen = asyncio.current_task(), asyncio.all_tasks(), list[object]()

    async def work() -> None:
        seen.extend((asyncio.current_task(), NAME.get()))
        NAME.set("work")

    NAME.set("host")
    assert begin(work(), asyncio.get_running_loop(), asyncio.current_task()) is None
    assert seen[0] is not host
    assert (seen[1], NAME.get()) == ("host", "host")
    assert (asyncio.current_task(), asyncio.all_tasks()) == (host, known)


@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
async def test_coroutine_that_raises(kind: type[BaseException]) -> None:
    """It raises in the host, and nowhere else."""
    host, known = asyncio.current_task(), asyncio.all_tasks()

    async def fail() -> None:
        raise kind

    with pytest.raises(kind):
        begin(fail(), asyncio.get_running_loop(), asyncio.current_task())
    assert (asyncio.current_task(), asyncio.all_tasks()) == (host, known)
    await asyncio.sleep(0)


async def test_without_a_host() -> None:
    """A callback of the loop is no task."""
    begun: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    loop.call_soon(lambda: begun.append(started(asyncio.sleep(0))))
    await asyncio.sleep(0)
    assert [task.done() for task in begun] == [False]
    await begun[0]


async def wait_for_a_turn() -> None:
    await asyncio.sleep(0)


async def wait_for_a_future() -> None:
    future = asyncio.get_running_loop().create_future()

    def end() -> None:
        if not future.cancelled():
            future.set_result(None)

    asyncio.get_running_loop().call_soon(end)
    await future


async def wait_for_a_result_that_is_there() -> None:
    future = asyncio.get_running_loop().create_future()
    waiting = Waiting(future)
    future.set_result(None)
    await waiting


class Waiting:
    """Waits for a future although it is done."""

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future

    def __await__(self) -> Generator[Any, None, None]:
        cast("Any", self.future)._asyncio_future_blocking = True  # noqa: SLF001 - documented, for those who write futures
        yield self.future


WAITS = (wait_for_a_turn, wait_for_a_future, wait_for_a_result_that_is_there)


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.__name__)
async def test_coroutine_that_waits(wait: Callable[[], Awaitable[None]]) -> None:
    """Each of its steps is the same task's, whose coroutine tells where it is."""
    host, known, seen = asyncio.current_task(), asyncio.all_tasks(), list[object]()

    async def work() -> None:
        seen.append(asyncio.current_task())
        await wait()
        seen.append(asyncio.current_task())
        await wait()
        seen.append(asyncio.current_task())

    task = started(work())
    assert (asyncio.current_task(), asyncio.all_tasks()) == (host, {*known, task})
    assert inspect.getcoroutinestate(cast("Any", task.get_coro())) == inspect.CORO_SUSPENDED
    assert ("work" in repr(task), len(task.get_stack())) == (True, 1)
    await task
    assert seen == [task, task, task]


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.__name__)
async def test_cancelled_before_the_loop_has_come_to_it(wait: Callable[[], Awaitable[None]]) -> None:
    """The cancellation is raised where it waits, with its message, and can be taken back."""
    seen: list[object] = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await wait()
        except asyncio.CancelledError as error:
            seen.extend((error.args, task.cancelling(), task.uncancel()))
        await wait()
        seen.append("end")

    task = started(work())
    task.cancel("why")
    await task
    assert seen == [("why",), 1, 0, "end"]


async def test_cancelling_it_cancels_what_it_waits_for() -> None:
    """As with any task that waits for another."""

    async def work() -> None:
        await inner

    inner = asyncio.create_task(asyncio.Event().wait())
    task = started(work())
    await asyncio.sleep(0)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inner.cancelled()
    inner = asyncio.create_task(asyncio.Event().wait())
    task = started(work())
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inner.cancelled()


async def test_shielded_from_its_cancellation() -> None:
    """What ``asyncio.shield`` protects goes on."""
    inner = asyncio.create_task(asyncio.sleep(0, "result"))

    async def work() -> None:
        await asyncio.shield(inner)

    task = started(work())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await inner == "result"


async def test_cancels_itself_and_waits_for_nothing() -> None:
    """A task is cancelled, too, when it ends before its cancellation could reach it."""

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("itself")

    async def run() -> None:
        task = begin(work(), asyncio.get_running_loop(), asyncio.current_task())
        assert task is not None
        await task

    with pytest.raises(asyncio.CancelledError) as raised:
        await run()
    assert raised.value.args == ("itself",)


class Yielding:
    """Waits for what no task understands."""

    def __await__(self) -> Generator[Any, None, None]:
        yield "nonsense"


async def test_what_no_task_can_wait_for() -> None:
    """The error is asyncio's own, and raised where it is waited for."""

    async def work() -> None:
        with pytest.raises(RuntimeError, match="Task got bad yield: 'nonsense'"):
            await Yielding()

    await started(work())
