"""Tasks that take their first step at once, on a loop that is somebody else's and runs."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Coroutine, Generator
from typing import Any

from .. import compatibility


def begin(
    coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, host: asyncio.Task[Any] | None
) -> asyncio.Task[None] | None:
    """Make a task and take its first step, within the step of another one.

    Args:
        coroutine: What the task runs.
        loop: The one that runs here.
        host: The task whose step this is.

    Returns:
        The task, if it goes on; ``None`` if it has come to its end. What it raised is raised here.
    """
    if sys.version_info >= (3, 12):
        task = asyncio.Task(coroutine, loop=loop, eager_start=True)
        if not task.done():
            return task
        task.result()
        return None
    else:  # noqa: RET505 - for the type checkers, which follow only one
        return _begin_by_hand(coroutine, loop, host)


def _begin_by_hand(
    coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, host: asyncio.Task[Any] | None
) -> asyncio.Task[None] | None:
    """Do what Python's own ``eager_start`` does from 3.12 on; see :func:`begin`."""
    begun = _Begun(coroutine)
    context = contextvars.copy_context()
    task: asyncio.Task[None] = asyncio.Task(begun, loop=loop, context=context)
    compatibility.switch_task(loop, host, task)
    try:
        context.run(begun.take_first_step)
    except BaseException:
        compatibility.forget_task(task)
        raise
    finally:
        compatibility.switch_task(loop, task, host)
    if not begun.is_over or task.cancelling():  # where it has cancelled itself, the loop ends it
        return task
    compatibility.forget_task(task)
    return None


class _Begun(Coroutine[Any, Any, None]):
    """What a task runs whose first step was taken before the loop came to it.

    The loop's first step finds what that one has left: nothing to do, or something to wait for. Whoever looks at the
    task's coroutine, as anyio and asyncio's debug mode do, is shown the original's attributes.

    Attributes:
        is_over: Whether the coroutine has come to its end in its first step.
    """

    __slots__ = ("_coroutine", "_waits_for", "is_over")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._waits_for: Any = None  # what the first step has yielded: a future, or None for "in the next turn"
        self.is_over = True

    def take_first_step(self) -> None:
        """Run the coroutine until it waits or ends; raise what it raises."""
        # A ``for`` takes no exception to come to the end, as send() does.
        for waits_for in self._coroutine.__await__():
            compatibility.mark_awaited(waits_for, is_awaited=False)
            self._waits_for = waits_for
            self.is_over = False
            return

    def send(self, value: None, /) -> Any:  # noqa: ANN401 - whatever is waited for
        """Go on; in the loop's first step hand on what the coroutine waits for."""
        if self.is_over:
            raise StopIteration
        waits_for, self._waits_for = self._waits_for, None
        if waits_for is None:
            return self._coroutine.send(value)
        compatibility.mark_awaited(waits_for, is_awaited=True)
        return waits_for

    def throw(self, error: Any, /, *rest: Any) -> Any:  # noqa: ANN401 - as declared for coroutines
        """Raise an error where the coroutine waits; before the loop's first step that can only be a cancellation."""
        if self.is_over:
            raise error
        waits_for, self._waits_for = self._waits_for, None
        if asyncio.isfuture(waits_for) and isinstance(error, asyncio.CancelledError) and waits_for.cancel(*error.args):
            compatibility.mark_awaited(waits_for, is_awaited=True)
            return waits_for  # it tells the task, as if that had waited for it already
        return self._coroutine.throw(error, *rest)

    def close(self) -> None:
        """Close the coroutine."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a coroutine has
        return getattr(self._coroutine, name)
