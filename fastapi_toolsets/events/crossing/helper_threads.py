"""Helper threads with loops of the library's, for async callbacks of a thread in which a loop runs already."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio
import anyio.from_thread

from ..process_lock import ProcessLock
from .outliving import LAST_WORDS, AsyncFunction

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from anyio.from_thread import BlockingPortal

    from ..types import Backend


def trio_runs_here() -> bool:
    """Whether trio runs in this thread."""
    # Another thread may be importing it, as libraries do that try whether it is there: nothing runs on it before it is.
    in_trio_run = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)
    return in_trio_run is not None and bool(in_trio_run())


class HelperThread:
    """Runs on a loop in a helper thread of the library's, kept as long as the process.

    A callback that runs there may itself commit a sync session, which stands where a loop runs: a thread for each such
    level, since a loop cannot wait for itself.
    """

    in_bridge = False

    def __init__(self, backend: Backend) -> None:
        self._backend: Backend = backend

    def run(self, function: AsyncFunction, grace: float, *, cancelled: bool = False) -> None:  # noqa: ARG002 - nobody cancels a thread
        """Run the function; see :class:`.crossing.Crossing`."""
        # Not the context's level alone: what others schedule on a helper thread's loop has another context.
        level = max(_level.get(), getattr(_local, "level", 0))

        async def run_there() -> None:
            _local.level = level + 1
            await function()

        call = _HelperCall(run_there, level + 1)
        portal = self._open_portal(level)
        try:
            try:
                future = _submitted(portal, call.run)
            except RuntimeError:  # a callback has stopped the loop
                portal = self._open_portal(level, instead_of=portal)
                future = _submitted(portal, call.run)
            future.result()
        except BaseException:  # an interrupt of this thread: the callback must not go on beside it
            call.stop(portal)
            raise

    def _open_portal(self, level: int, instead_of: BlockingPortal | None = None) -> BlockingPortal:
        """Return the way into the helper thread of a level, another one where the one before has ended."""
        key: tuple[Backend, int] = (self._backend, level)
        with _portal_lock.current:
            portal = _portals.get(key)
            if portal is None or portal is instead_of:
                opened = anyio.from_thread.start_blocking_portal(
                    self._backend, name=f"fastapi_toolsets-callbacks-{level}"
                )
                portal = _portals[key] = opened.__enter__()
                _open_portals.callback(_close_portal, opened)
            return portal


def _close_portal(opened: AbstractContextManager[BlockingPortal]) -> None:
    """End a helper thread, unless a callback has."""
    with contextlib.suppress(RuntimeError):
        opened.__exit__(None, None, None)


class _HelperCall:
    """A function on its way to a helper thread, which can be stopped whenever its caller is interrupted."""

    def __init__(self, function: AsyncFunction, level: int) -> None:
        self._function = function
        self._inner_level = level
        self._stopped = False
        self._scope: anyio.CancelScope | None = None
        self._finished = threading.Event()

    async def run(self) -> None:
        """Run the function on the helper thread's loop."""
        _level.set(self._inner_level)
        try:
            with anyio.CancelScope() as self._scope:
                if self._stopped:
                    self._scope.cancel()
                await self._function()
        finally:
            self._finished.set()

    def stop(self, portal: BlockingPortal) -> None:
        """Cancel the function, and wait a moment until it has tidied up."""
        if self._finished.is_set():
            return
        self._stopped = True
        _submitted(portal, self._cancel)
        self._finished.wait(LAST_WORDS)

    async def _cancel(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


def _submitted(portal: BlockingPortal, function: AsyncFunction) -> Future[None]:
    """Start a function on a portal's loop, also from a thread in which trio runs, where trio refuses to be asked."""
    if not trio_runs_here():
        return portal.start_task_soon(function)
    with ThreadPoolExecutor(1) as executor:
        context = contextvars.copy_context()
        return executor.submit(lambda: context.run(lambda: portal.start_task_soon(function))).result()


_level: contextvars.ContextVar[int] = contextvars.ContextVar("fastapi_toolsets_level", default=0)
_local = threading.local()
_portals: dict[tuple[Backend, int], BlockingPortal] = {}
_open_portals = contextlib.ExitStack()
_portal_lock = ProcessLock()
_of_parent_process: list[object] = []


def _close_portals() -> None:
    """End the helper threads before the interpreter goes."""
    _portals.clear()
    _open_portals.close()


def _begin_again_after_fork() -> None:
    """Leave the parent's threads and loops alone: they do not run here."""
    global _local, _portals, _open_portals  # noqa: PLW0603 - as the threads, they are of the process
    _of_parent_process.extend((vars(_local).copy(), _portals, _open_portals))
    _local, _portals = threading.local(), {}
    _open_portals = contextlib.ExitStack()


atexit.register(_close_portals)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_again_after_fork)
