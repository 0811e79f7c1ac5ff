"""Which callbacks the current context does not call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .registry import AnyCallback, Listener

_EVERY_CALLBACK = object()
"""Stands among the muted callbacks for all of them, where recorders still hear of everything."""

_EVERYTHING = (_EVERY_CALLBACK, object())
"""Stands in their place where recorders hear of nothing either."""

_muted: ContextVar[tuple[object, ...]] = ContextVar("fastapi_toolsets_muted", default=())

muted_callbacks: Callable[[], tuple[object, ...]] = _muted.get
"""Returns what the current context has muted; empty where it is nothing."""


@contextlib.contextmanager
def muted(*callbacks: AnyCallback) -> Generator[None]:
    """Do not call ``callbacks`` (all callbacks when none is named) for what is committed in this block.

    Holds for the current task or thread and what it starts, not for others. Muted events are not made up for later.
    Where all callbacks are muted, :func:`capture_events` records nothing either: nothing is delivered.
    """
    before = _muted.get()
    token = _muted.set(_EVERYTHING if not callbacks or before is _EVERYTHING else (*before, *callbacks))
    try:
        yield
    finally:
        _muted.reset(token)


@contextlib.contextmanager
def only_recorded() -> Generator[None]:
    """Call no callbacks for what is committed in this block, and let recorders hear of it nevertheless."""
    before = _muted.get()
    token = _muted.set(_EVERYTHING if before is _EVERYTHING else (*before, _EVERY_CALLBACK))
    try:
        yield
    finally:
        _muted.reset(token)


def everything_muted() -> bool:
    """Whether the current context delivers nothing, so that recorders do not hear of it."""
    return _muted.get() is _EVERYTHING


def is_muted(listener: Listener) -> bool:
    """Whether the current context has muted the listener."""
    callbacks = _muted.get()
    return _EVERY_CALLBACK in callbacks or listener.callback in callbacks
