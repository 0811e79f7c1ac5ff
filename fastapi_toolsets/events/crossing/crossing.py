"""From sync code to where async callbacks can run: the one user of anyio, threads and loops.

A sync session may stand in five places. Inside SQLAlchemy's greenlet bridge (every ``EventSession`` does) an awaitable
is awaited on the loop that runs the bridge. In an AnyIO worker thread, such as a FastAPI ``def`` endpoint, it runs on
the application's own loop. Where a loop runs in this very thread, which must not be entered twice, it runs on a helper
thread's loop. Anywhere else, in a script, a thread or a Celery task, it runs on a loop of the library's in this thread.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import functools
import importlib.util
import math
import os
import sys
import threading
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.from_thread

from ...errors import SessionOptionError
from .. import compatibility
from .failures import raise_again
from .helper_threads import HelperThread, trio_runs_here
from .kept_loop import KeptLoop, make_loop
from .outliving import AsyncFunction, given_up, is_given_up, outlive_call, raised_meanwhile, running_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..types import Backend

_default_backend: Backend = "asyncio"


def set_callback_backend(backend: Backend) -> None:
    """Choose the event loop for async callbacks of sync sessions that stand where no loop is theirs.

    Args:
        backend: ``"asyncio"`` (the default) or ``"trio"``. A session factory's ``callback_backend`` goes before it.

    Raises:
        SessionOptionError: It is neither, or trio is not installed.
    """
    global _default_backend  # noqa: PLW0603 - a setting of the process, as anyio.run's backend is one of the program
    _default_backend = checked_backend(backend)


def checked_backend(backend: object) -> Backend:
    """Return the backend, or say what is wrong with it."""
    if backend == "asyncio":
        return "asyncio"
    if backend == "trio":
        if _has_trio():
            return "trio"
        msg = "the callback backend was given as 'trio', which is not installed: install trio, or give it 'asyncio'"
        raise SessionOptionError(msg)
    msg = f"the callback backend was given as {backend!r}: give it 'asyncio' or 'trio'"
    raise SessionOptionError(msg)


@functools.cache
def _has_trio() -> bool:
    return importlib.util.find_spec("trio") is not None


class Crossing(Protocol):
    """A way from sync code to a loop and back.

    Attributes:
        in_bridge: Whether the session's own work on that loop needs SQLAlchemy's greenlet bridge.
    """

    in_bridge: bool

    def run(self, function: AsyncFunction, grace: float, *, cancelled: bool = False) -> None:
        """Run an async function to its end.

        Args:
            function: What to run.
            grace: Seconds that it may still take once the caller was cancelled. Then it is cancelled, too.
            cancelled: Whether the caller was cancelled already.
        """
        ...


def stands_in_bridge() -> bool:
    """Whether the caller stands inside SQLAlchemy's greenlet bridge, so that a loop of this process runs it."""
    # Only a loop of asyncio's that runs in this thread can run the bridge; that there is none is quicker to see.
    return asyncio._get_running_loop() is not None and _in_bridge()  # noqa: SLF001 - documented, for those who make loops


def _in_bridge() -> bool:
    return compatibility.in_greenlet() and (
        _inherited_bridge is None or compatibility.current_greenlet() is not _inherited_bridge
    )


def find_crossing(backend: Backend | None) -> Crossing:
    """Return the way from where the caller stands."""
    loop_runs = asyncio._get_running_loop() is not None  # noqa: SLF001 - as above
    if loop_runs and _in_bridge():
        return _BRIDGE
    chosen = backend or _default_backend
    own: _OwnLoop | None = getattr(_local, "own", None)
    # A thread with a loop of the library's is no worker thread, and never becomes one.
    if own is None and _in_worker_thread():
        return _WorkerThread(chosen)
    if chosen == "trio" or loop_runs or trio_runs_here() or (own is not None and own.is_used):
        return HelperThread(chosen)
    if own is None:
        own = _local.own = _OwnLoop()
    return own


def _in_worker_thread() -> bool:
    # Quicker than to be refused; and a worker thread that forks goes on as its process's main thread, where anyio still
    # takes it for one of the loop that the parent runs.
    if threading.current_thread() is threading.main_thread():
        return False
    try:
        anyio.from_thread.check_cancelled()
    except RuntimeError:
        return False
    except BaseException:  # noqa: BLE001 - the host task was cancelled, and only a worker thread has one
        return True
    return True


def was_cancelled(error: BaseException, before: int = 0) -> bool:
    """Whether ``error`` is the cancellation of the running task itself, not one that a callback made up.

    Call it on the loop, from the committer's task, which has caught ``error``.

    Args:
        error: What was caught.
        before: How often the task had been cancelled before (:func:`times_cancelled`): it may commit while it tidies up
            after that, and before Python 3.13 a task group of asyncio's that has failed leaves it so.
    """
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return False
    return not isinstance(error, asyncio.CancelledError) or times_cancelled() > before


def times_cancelled() -> int:
    """Return how often the task that runs here was cancelled, and nobody has taken it back."""
    task = running_task()
    return 0 if task is None else task.cancelling()


def was_given_up(error: BaseException) -> bool:
    """Whether ``error`` cancels a task of the library's that runs callbacks, since their time is over.

    Call it on the loop, from that task. Any other cancellation that comes there is the callback's own affair: also
    where it has cancelled the very task, and where somebody cancels every task of the loop.
    """
    return isinstance(error, anyio.get_cancelled_exc_class()) and (
        not isinstance(error, asyncio.CancelledError) or is_given_up()
    )


def run_to_end(crossing: Crossing, function: AsyncFunction, grace: float) -> bool:
    """Run an async function, and raise here what it raised: on the loop some kinds of error would end the loop.

    Returns:
        Whether it came to its end; ``False`` where a cancelled host's grace was over first.
    """
    has_ended = False
    raised: list[BaseException] = []

    async def guarded() -> None:
        nonlocal has_ended
        try:
            await function()
        except BaseException as error:
            if was_given_up(error):
                raise
            raised.append(raised_meanwhile(error))
        has_ended = True

    crossing.run(guarded, grace)
    if raised:
        raise_again(raised)
    return has_ended


class Bridge:
    """Awaits on the loop that runs SQLAlchemy's bridge, in a task of its own that a cancelled host waits for."""

    in_bridge = True

    def __init__(self, notice: Callable[[], None] | None = None) -> None:
        """Take what to call when the host is cancelled and the grace begins."""
        self._notice = notice

    def run(self, function: AsyncFunction, grace: float, *, cancelled: bool = False) -> None:
        """Run the function; see :class:`Crossing`."""
        compatibility.await_in_greenlet(outlive_call(function, grace, cancelled=cancelled, notice=self._notice))


class Here:
    """Awaits inside SQLAlchemy's bridge, in the task that runs here: one of the library's, which has its own grace."""

    in_bridge = True

    def run(self, function: AsyncFunction, grace: float, *, cancelled: bool = False) -> None:  # noqa: ARG002 - as above
        """Run the function; see :class:`Crossing`."""
        compatibility.await_in_greenlet(function())


class _WorkerThread:
    """Runs on the loop that this AnyIO worker thread belongs to, shielded from the host task's cancellation."""

    in_bridge = False
    _ends: float = math.inf  # the grace, once the host task was cancelled: one for all that is run

    def __init__(self, backend: Backend) -> None:
        """Take what to run where the thread has outlived its loop, as one may that was abandoned."""
        self._backend: Backend = backend
        self._has_begun = False

    def run(self, function: AsyncFunction, grace: float, *, cancelled: bool = False) -> None:
        """Run the function; see :class:`Crossing`."""
        self._has_begun = False
        try:
            anyio.from_thread.run(self._run_shielded, function, grace)
        except RuntimeError:  # the loop is closed
            if self._has_begun:
                raise
            HelperThread(self._backend).run(function, grace, cancelled=cancelled)

    async def _run_shielded(self, function: AsyncFunction, grace: float) -> None:
        self._has_begun, is_over = True, False
        if anyio.current_effective_deadline() == -math.inf:  # cancelled before, of which asyncio does not tell again
            self._begin_grace(grace)

        async def limit(scope: anyio.CancelScope) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                if not is_over:
                    self._begin_grace(grace)
                    scope.deadline = self._ends

        try:
            async with anyio.create_task_group() as group:
                with anyio.CancelScope(deadline=self._ends, shield=True) as scope:
                    group.start_soon(limit, scope)
                    try:
                        await function()
                    finally:
                        is_over = True
                group.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            # The host task gets its cancellation where it waits for this thread; the thread's commit has succeeded.
            return

    def _begin_grace(self, grace: float) -> None:
        self._ends = min(self._ends, anyio.current_time() + grace)


class _OwnLoop:
    """Runs on an asyncio loop of the library's in this thread, kept as long as the thread.

    Attributes:
        is_used: Whether it runs something, so that the thread has to look for another loop.
    """

    in_bridge = False
    _loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self.is_used: bool = False
        self._runner: asyncio.Runner | None = None

    def run(self, function: AsyncFunction, grace: float, *, cancelled: bool = False) -> None:  # noqa: ARG002 - nobody cancels a thread
        """Run the function; see :class:`Crossing`. Interrupted by Ctrl-C, it has its grace to end.

        An ``Exception`` of a signal handler's, such as Celery's soft time limit, is the callback's that waits: it is
        cancelled there, with :func:`raised_meanwhile` to say why, and the others go on.
        """
        runner = self._runner
        if runner is None:
            # The factory keeps the runner from making its loop the thread's current one.
            runner = asyncio.Runner(loop_factory=make_loop)
            _local.end = _EndOfThread(runner)
            self._loop = runner.get_loop()
            self._runner = runner  # last: interrupted before, the loop is closed by whoever makes the next one
        try:
            self.is_used = True  # a signal handler may commit now, before the loop runs
            self._run_on(runner, self._loop, function, grace)
        finally:
            self.is_used = False

    def _run_on(
        self, runner: asyncio.Runner, loop: asyncio.AbstractEventLoop, function: AsyncFunction, grace: float
    ) -> None:
        context = contextvars.copy_context()
        kept = loop if isinstance(loop, KeptLoop) else None
        task = kept.begin(function(), context) if kept else loop.create_task(function(), context=context)
        # One step, or one turn of the loop, is as far as callbacks come that wait for nothing. The runner would do as
        # well, in many times the time, since it takes over the process's interrupts.
        try:
            if kept:
                kept.advance()
            else:
                loop.stop()
                loop.run_forever()
            if not task.done():
                try:
                    runner.run(_ended(task), context=context)
                except Exception as error:  # noqa: BLE001 - whatever a signal handler raises
                    task.cancel(error)
                    runner.run(_ended(task), context=context)
        except BaseException:  # an interrupt: that is what reaches the caller, and not that its task was cancelled
            given_up.add(task)
            task.cancel()
            if kept:
                kept.take_up(task)
            if not task.done():
                # For ever it might not: interrupted as it schedules its next step, a task has none (``Task.__step``).
                runner.run(_ended(task, grace), context=context)
            raise
        if not task.cancelled():  # otherwise a callback has cancelled it, which ended nevertheless
            task.result()


async def _ended(task: asyncio.Task[None], seconds: float | None = None) -> None:
    """Wait for a task, whatever comes out of it; left behind by an interrupt, this hurts no later turn of the loop."""
    await asyncio.wait({task}, timeout=seconds)


_left_alone: list[object] = []
"""Loops that this process must not close: they are the parent's, or may be running in a thread that goes with it."""


class _EndOfThread:
    """Closes a thread's loop when the thread goes, or the process. Only the thread's locals refer to it."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._loop = runner.get_loop()
        self._thread = threading.get_ident()

    def __del__(
        self,
        get_ident: Callable[[], int] = threading.get_ident,
        is_finalizing: Callable[[], bool] = sys.is_finalizing,
        left_alone: list[object] = _left_alone,
    ) -> None:
        # A forked child gives up the locals of the parent's other threads. Where the process ends before a daemon
        # thread, the interpreter gives up that one's in another: the loop may be running, and to end its threads would
        # be to wait for ever.
        if get_ident() != self._thread:
            left_alone.append(self._runner)
        elif not self._loop.is_running() and not is_finalizing():
            with contextlib.suppress(RuntimeError):  # Python 3.12.1 starts no thread any more to end the loop's own
                self._runner.close()


_local = threading.local()
# The bridge from which this process was forked: its loop runs in the parent only.
_inherited_bridge: object = None
_BRIDGE = Bridge()


def _close_loop() -> None:
    """Close this thread's loop before the interpreter goes."""
    vars(_local).clear()


def _begin_again_after_fork() -> None:
    """Leave the parent's loops alone: closing one here would unregister its wake-up from the selector they share."""
    global _local, _inherited_bridge  # noqa: PLW0603 - as above
    _inherited_bridge = compatibility.current_greenlet() if compatibility.in_greenlet() else None
    _left_alone.append(vars(_local).copy())
    _local = threading.local()


atexit.register(_close_loop)  # after that of the helper threads, so it is called before it
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_again_after_fork)
