"""Interrupts at a point of one's choice: a cancellation where a task waits, Ctrl-C wherever Python looks for it."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import FrameType
from typing import Any

from fastapi_toolsets.events.crossing import kept_loop


class CancelledAt:
    """Awaits a coroutine and cancels the task that does so when it waits for the n-th time.

    ``late`` cancels only in the loop's next round, when what the coroutine waits for may have come to its end.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        point: int,
        *,
        late: bool,
        cancel: Callable[[], object] | None = None,
    ) -> None:
        self.coroutine = coroutine
        self.point = point
        self.late = late
        self.cancelled = False
        self._cancel_task = cancel

    def __await__(self) -> Generator[Any, Any, None]:
        waits = 0
        resume: Callable[[], object] = partial(self.coroutine.send, None)
        while True:
            try:
                waited_for = resume()
            except StopIteration:
                return
            waits += 1
            if waits == self.point:
                self._cancel()
            try:
                yield waited_for
            except BaseException as error:  # noqa: BLE001 - a coroutine gets what its awaiter gets
                resume = partial(self.coroutine.throw, error)
            else:
                resume = partial(self.coroutine.send, None)

    def _cancel(self) -> None:
        self.cancelled = True
        task = asyncio.current_task()
        assert task is not None
        cancel = self._cancel_task or task.cancel
        if self.late:
            asyncio.get_running_loop().call_soon(cancel)
        else:
            cancel()


@asynccontextmanager
async def threads_of_drivers_ended() -> AsyncGenerator[None]:
    """Wait, as the block is left, for the threads that a driver has started in it.

    aiosqlite closes a connection in the connection's own thread, also when nobody waits for that any more, and the
    thread then calls the loop: one that has been closed by then it answers with an exception of its own.
    """
    before = set(threading.enumerate())
    yield
    gc.collect()  # a connection that was left to it tells its thread to stop
    # The driver gives its threads no name; those of asyncio and anyio, which wait for more work, have one. In older
    # versions the thread of a connection that nobody closed lives on: it calls nobody, and is not waited for long.
    patience = time.monotonic() + 1.0
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("Thread-"):
            await asyncio.to_thread(thread.join, max(0.0, patience - time.monotonic()))


class TimeLimitError(Exception):
    """What Celery's soft time limit raises in a signal handler is an exception as any other."""


class InterruptAtCall:
    """Raises what a signal handler does where Python would, once: as a function begins, or a C function has returned.

    There the interpreter looks for signals; between any two lines it does not, as when a lock is given back.

    Attributes:
        place: Where that was, as ``file:line``; ``None`` where it looked less often.
    """

    def __init__(self, files: tuple[str, ...], point: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        """Prepare; :meth:`armed` does it.

        Args:
            files: How the paths of the files begin whose code is interrupted.
            point: At which of these places, counted from 1.
            error: What is raised, the handler of Ctrl-C's or another one's.
        """
        self.place: str | None = None
        self._files = files
        self._left = point
        self._error = error

    @contextmanager
    def armed(self) -> Generator[None]:
        """Interrupt this thread while the block runs."""
        before = sys.getprofile()
        sys.setprofile(self._look)
        try:
            yield
        finally:
            sys.setprofile(before)

    def _look(self, frame: FrameType, event: str, argument: object) -> None:
        if self.place is None and event in ("call", "c_return") and self._is_interrupted(frame.f_code.co_filename):
            self._left -= 1
            if self._left == 0:
                self.place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise self._error

    def _is_interrupted(self, file: str) -> bool:
        # An exception in its own code asyncio only logs, and a task whose next step was to be scheduled waits for ever.
        in_loop = file == kept_loop.__file__ and issubclass(self._error, Exception)
        return file.startswith(self._files) and not in_loop
