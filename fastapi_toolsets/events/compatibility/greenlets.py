"""SQLAlchemy's greenlet bridge, and the asyncio task that runs in it."""

from __future__ import annotations

import asyncio
import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy.util import concurrency

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import FrameType


ResultT = TypeVar("ResultT")


# ``await_only`` is called ``await_`` from SQLAlchemy 2.1 on; the old name stays as an alias for a while.
_await: Callable[[Awaitable[Any]], Any] = getattr(concurrency, "await_", None) or concurrency.await_only


def await_in_greenlet(awaitable: Awaitable[ResultT]) -> ResultT:
    """Wait for ``awaitable`` from sync code that runs inside SQLAlchemy's greenlet bridge."""
    result: ResultT = _await(awaitable)
    return result


async def spawn_greenlet(function: Callable[[], None]) -> None:
    """Run sync code inside SQLAlchemy's greenlet bridge."""
    await concurrency.greenlet_spawn(function)


def in_greenlet() -> bool:
    """Whether this code runs inside SQLAlchemy's greenlet bridge, so that it may await; False without greenlet."""
    try:
        return bool(concurrency.in_greenlet())
    except (ImportError, ValueError):  # greenlet is missing, or too old for SQLAlchemy
        return False


def current_greenlet() -> object:
    """Return the greenlet that runs now; only where :func:`in_greenlet` says that there is one."""
    return _greenlet().getcurrent()


@functools.cache
def _greenlet() -> Any:  # noqa: ANN401 - a module, which has no types
    return importlib.import_module("greenlet")  # not above: the sync half works without it


def waiting_frame() -> FrameType | None:
    """Return the frame in which an async session waits for this greenlet; only where :func:`in_greenlet`."""
    parent = getattr(current_greenlet(), "parent", None)
    return cast("FrameType | None", getattr(parent, "gr_frame", None))


def call_with_waits(function: Callable[[], None], wait: Callable[[Awaitable[Any]], Awaitable[Any]]) -> None:
    """Call sync code inside the greenlet bridge so that what it waits for is first wrapped by ``wait``.

    SQLAlchemy's bridge hands what sync code waits for to ``parent`` of the greenlet that runs it; so for the time of
    the call that greenlet shows another parent, by another class. Would the bridge not ask the greenlet for its parent
    any more, a cancellation would reach what sync callbacks wait for.
    """
    current = _greenlet().getcurrent()
    own_class, outer = current.__class__, getattr(current, "waits_for", None)  # of a call around this one
    current.waits_for = current.parent, wait
    current.__class__ = _showing.get(own_class) or _make_showing(own_class)
    try:
        function()
    finally:
        current.__class__ = own_class
        current.waits_for = outer


class _Parent:
    """What a greenlet shows as its parent.

    Attributes:
        waits_for: The parent behind it, and what wraps the awaitables that it is handed.
    """

    def __init__(self, waits_for: tuple[Any, Callable[[Awaitable[Any]], Awaitable[Any]]]) -> None:
        self.waits_for = waits_for

    def switch(self, awaitable: Awaitable[Any]) -> object:
        """Hand on what is waited for."""
        parent, wait = self.waits_for
        return parent.switch(wait(awaitable))

    @property
    def gr_frame(self) -> FrameType | None:
        """The frame in which the real parent stands."""
        frame: FrameType | None = self.waits_for[0].gr_frame
        return frame


_showing: dict[type, type] = {}
"""The class that shows another parent, by the class of the greenlet (and by itself, for calls within calls)."""


def _make_showing(own_class: type) -> type:
    parent = property(lambda greenlet: _Parent(greenlet.waits_for))
    made = type(f"{own_class.__name__}WithWaits", (own_class,), {"parent": parent})
    _showing[made] = _showing[own_class] = made
    return made


def switch_task(
    loop: asyncio.AbstractEventLoop, was: asyncio.Task[Any] | None, becomes: asyncio.Task[Any] | None
) -> None:
    """Make another task of a loop the current one, as asyncio does around each of a task's steps.

    ``_leave_task`` and ``_enter_task`` are documented, for those who write tasks. Python 3.11 only: later ones take a
    task's first step themselves.
    """
    if was is not None:
        asyncio._leave_task(loop, was)  # noqa: SLF001
    if becomes is not None:
        asyncio._enter_task(loop, becomes)  # noqa: SLF001


def forget_task(task: asyncio.Task[Any]) -> None:
    """Let nobody hear of a task that is pending only because the loop has not come to it; Python 3.11 only.

    ``_unregister_task`` is documented, for those who write tasks. ``Task._log_destroy_pending`` is not; asyncio uses it
    for the tasks of ``gather()``. Without it a loop that is stopped and closed in this very turn would log that a
    pending task was destroyed.
    """
    asyncio._unregister_task(task)  # noqa: SLF001
    task._log_destroy_pending = False  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue] # noqa: SLF001


def mark_awaited(waits_for: object, *, is_awaited: bool) -> None:
    """Say of what a task's coroutine has yielded whether the task is to take it as awaited; Python 3.11 only.

    A future has ``_asyncio_future_blocking`` from where it is awaited until the task is given it: that is the loop's
    first step, and until then nobody else could await it.
    """
    if asyncio.isfuture(waits_for):
        cast("Any", waits_for)._asyncio_future_blocking = is_awaited  # noqa: SLF001
