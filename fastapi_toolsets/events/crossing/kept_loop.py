"""An asyncio loop for callbacks in threads without one: as long as nothing needs its turns, it makes none."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

ResultT = TypeVar("ResultT")
ArgumentsT = TypeVarTuple("ArgumentsT")


def make_loop() -> asyncio.AbstractEventLoop:
    """Make the loop that the process's policy makes, as a :class:`KeptLoop` where that is asyncio's own."""
    loop = asyncio.new_event_loop()
    if type(loop) is asyncio.SelectorEventLoop:  # others, such as uvloop's or Windows' proactor, have ways of their own
        loop.__class__ = KeptLoop  # it keeps what the policy has set on it
        cast("KeptLoop", loop).look_around()
    return loop


class KeptLoop(asyncio.SelectorEventLoop):
    """Takes the first step of a task without a turn, until something is scheduled that only turns can serve.

    A turn asks the system for news of connections and looks for timers, which takes longer than most callbacks. Once
    somebody has scheduled anything, be it a task that nobody waits for, a timer, a connection or the result of another
    thread, each commit makes a turn: what callbacks have left on the loop goes on, and timers do not pile up.
    """

    _is_idle = False
    _is_debugged = False  # debug mode looks how long a step takes in a turn
    _captures = False
    _is_stepping = False
    _first_step: Callable[[], object] | None = None
    _generator_hooks: tuple[Any, Any] = (None, None)

    def look_around(self) -> None:
        """Find out in a first turn what this loop does about async generators."""

        def look() -> None:
            hooks = sys.get_asyncgen_hooks()
            self._generator_hooks = hooks.firstiter, hooks.finalizer

        self.call_soon(look)
        self.stop()
        self.run_forever()
        self._is_debugged = self.get_debug()
        self._is_idle = True

    def set_debug(self, enabled: bool) -> None:  # noqa: FBT001 - asyncio's own signature
        """Set the debug mode."""
        super().set_debug(enabled)
        self._is_debugged = enabled

    def begin(self, coroutine: Coroutine[Any, Any, ResultT], context: Context) -> asyncio.Task[ResultT]:
        """Make a task; :meth:`advance` takes its first step."""
        self._first_step = None
        self._captures = self._is_idle and not self._is_debugged
        try:
            if self.get_task_factory() is None:  # as create_task() does, but for the look at its own debug mode
                return asyncio.Task(coroutine, loop=self, context=context)
            return self.create_task(coroutine, context=context)
        finally:
            self._captures = False

    def advance(self) -> None:
        """Take the first step of the task that was made last, in a turn where one is due."""
        step = self._first_step
        if step is None:
            self.stop()
            self.run_forever()
            return
        hooks = sys.get_asyncgen_hooks()
        try:  # as run_forever() does
            self._is_stepping = True
            sys.set_asyncgen_hooks(*self._generator_hooks)
            asyncio._set_running_loop(self)  # noqa: SLF001 - documented, for those who make loops
            step()
        finally:
            asyncio._set_running_loop(None)  # noqa: SLF001 - as above
            sys.set_asyncgen_hooks(*hooks)
            self._is_stepping = False
        self._first_step = None

    def take_up(self, task: asyncio.Task[Any]) -> None:
        """See to it that a turn takes the first step of the task that was made last, if an interrupt came before it."""
        step, self._first_step = self._first_step, None
        if step is not None and inspect.getcoroutinestate(cast("Any", task.get_coro())) == inspect.CORO_CREATED:
            super().call_soon(step)

    def is_running(self) -> bool:
        """Return whether the loop runs, if only for a step."""
        return self._is_stepping or super().is_running()

    def stop(self) -> None:
        """Stop after the turn; a step is over by itself."""
        if not self._is_stepping:
            super().stop()

    # Whatever is scheduled comes by here.

    def call_soon(
        self,
        callback: Callable[[*ArgumentsT], object],
        *args: *ArgumentsT,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Schedule a call, unless it is the first step of a task that is being made."""
        if self._captures and context is not None and not args:
            self._captures = False
            self._first_step = functools.partial(context.run, callback)  # type: ignore[call-arg] # pyright: ignore[reportAttributeAccessIssue] - it takes none
            return None  # type: ignore[return-value] # pyright: ignore[reportReturnType] - a task takes no interest in it
        self._is_idle = False
        return super().call_soon(callback, *args, context=context)

    def call_soon_threadsafe(
        self,
        callback: Callable[[*ArgumentsT], object],
        *args: *ArgumentsT,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Schedule a call from another thread, among others the end of what an executor runs."""
        self._is_idle = False
        return super().call_soon_threadsafe(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*ArgumentsT], object],
        *args: *ArgumentsT,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Set a timer."""
        self._is_idle = False
        return super().call_at(when, callback, *args, context=context)

    def add_reader(self, fd: FileDescriptorLike, callback: Callable[[*ArgumentsT], Any], *args: *ArgumentsT) -> None:
        """Watch a file for something to read."""
        self._is_idle = False
        super().add_reader(fd, callback, *args)

    def add_writer(self, fd: FileDescriptorLike, callback: Callable[[*ArgumentsT], Any], *args: *ArgumentsT) -> None:
        """Watch a file until it can be written to."""
        self._is_idle = False
        super().add_writer(fd, callback, *args)

    def add_signal_handler(self, sig: int, callback: Callable[[*ArgumentsT], object], *args: *ArgumentsT) -> None:
        """Watch for a signal."""
        self._is_idle = False
        super().add_signal_handler(sig, callback, *args)
