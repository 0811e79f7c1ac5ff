"""Tasks that go on for a while although the task that waits for them is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar
from weakref import WeakSet

import anyio

from .eager import begin

ResultT = TypeVar("ResultT")
AsyncFunction: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

LAST_WORDS = 1.0
"""Seconds that a callback has to tidy up once its grace is over and it was cancelled."""

given_up: WeakSet[asyncio.Task[Any]] = WeakSet()
"""The library's tasks that the library has cancelled. Whoever else cancels one, such as a callback, ends nothing."""


async def outlive_call(
    function: AsyncFunction, grace: float, *, cancelled: bool, notice: Callable[[], None] | None = None
) -> None:
    """Run an async function that goes on for a grace although this task is cancelled; see ``Crossing.run``.

    Args:
        function: What to run.
        grace: Seconds that it may still take once this task was cancelled.
        cancelled: Whether it was cancelled already.
        notice: Called as the grace begins, where this task is cancelled meanwhile.
    """
    # A task of its own, since asyncio has no other way to keep a cancellation of the host from the callback that is
    # awaiting at that moment. Until it awaits something it needs no turn of the loop.
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] | None = None

    async def run() -> None:
        try:
            await function()
        finally:
            _set(ended)  # a turn of the loop earlier than the task's own callback would

    if cancelled:  # its grace may be over by now
        await _grant(loop.create_task(run()), grace)
        return
    host = asyncio.current_task(loop)
    try:
        task = loop.create_task(run()) if loop.get_task_factory() else begin(run(), loop, host)
    except asyncio.CancelledError:  # a callback has cancelled its task, which ended nevertheless
        task = None
    if task is None:
        if host is not None and host.cancelling():  # somebody has asked for it meanwhile: as if we had waited
            await asyncio.sleep(0)
        return
    ended = loop.create_future()
    task.add_done_callback(lambda _: _set(ended))  # where it ended before, or was cancelled before it began
    try:
        await ended
    except asyncio.CancelledError:
        if notice is not None:
            notice()
        await _grant(task, grace)
        raise
    if not task.cancelled():  # otherwise as above
        task.result()


def _set(ended: asyncio.Future[None] | None) -> None:
    if ended is not None and not ended.done():
        ended.set_result(None)


async def outlive(awaitable: Awaitable[ResultT], seconds: float | None, grace: float) -> Outlived[ResultT]:
    """Wait for something that goes on although this task is cancelled, for so many seconds.

    Args:
        awaitable: What to wait for.
        seconds: How long, where this task was cancelled before; ``None`` where it was not.
        grace: How long from the cancellation on, where it comes while waiting.
    """

    async def wait() -> ResultT:
        return await awaitable

    task = asyncio.create_task(wait())
    if seconds is not None:
        await _grant(task, seconds)
        close_unstarted(awaitable)
        return Outlived(task)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError as error:
        ends = time.monotonic() + grace
        await _grant(task, grace)
        close_unstarted(awaitable)
        return Outlived(task, error, ends)
    return Outlived(task)


def close_unstarted(awaitable: Awaitable[Any]) -> None:
    """Close a coroutine that nobody will await any more, as there was no time for its first step."""
    if inspect.iscoroutine(awaitable) and inspect.getcoroutinestate(awaitable) == inspect.CORO_CREATED:
        awaitable.close()


def running_task() -> asyncio.Task[Any] | None:
    """Return the task of asyncio's that runs here; ``None`` on a loop of trio's."""
    # To ask for a task where no loop runs is an error.
    return None if asyncio._get_running_loop() is None else asyncio.current_task()  # noqa: SLF001 - documented, for those who make loops


def is_given_up() -> bool:
    """Whether the library has cancelled the task in which it runs callbacks, or a cancel scope that it stands in."""
    return running_task() in given_up or anyio.current_effective_deadline() <= anyio.current_time()


def raised_meanwhile(error: BaseException) -> BaseException:
    """Return what a signal handler raised while a callback waited, where ``error`` is how the callback hears of it."""
    match error:
        case asyncio.CancelledError(args=(Exception() as raised,)):
            return raised
        case _:
            return error


async def go_on_after_cancellation() -> None:
    """Take back that a callback, or whoever cancels every task there is, has cancelled the task that runs here."""
    task = running_task()
    if task is None or is_given_up():
        return
    while task.uncancel():
        pass
    with contextlib.suppress(asyncio.CancelledError):  # before Python 3.13 it comes nevertheless, where something waits
        await asyncio.sleep(0)
    if is_given_up():
        raise asyncio.CancelledError


class Outlived(NamedTuple, Generic[ResultT]):
    """A task that was waited for, the cancellation that came meanwhile, and when its grace ends (monotonic clock)."""

    task: asyncio.Task[ResultT]
    cancellation: asyncio.CancelledError | None = None
    ends: float | None = None

    def result(self) -> ResultT:
        """Return or raise what the task did; raise a cancellation where it did not end in time."""
        if not self.task.done():
            raise asyncio.CancelledError
        try:
            return self.task.result()
        finally:
            del self  # whose task knows what was raised, whose traceback knows this frame; see raise_again


async def _grant(task: asyncio.Task[Any], grace: float) -> None:
    """Let a task go on for ``grace`` seconds, however often the host is cancelled meanwhile, then cancel it."""
    loop = asyncio.get_running_loop()
    for seconds in (grace, LAST_WORDS):
        deadline = loop.time() + seconds
        with anyio.CancelScope(shield=True):
            while not task.done() and loop.time() < deadline:
                with contextlib.suppress(asyncio.CancelledError):  # the one that began the grace goes on afterwards
                    await asyncio.wait({task}, timeout=deadline - loop.time())
        if not task.done():
            given_up.add(task)
            task.cancel()
