"""Which callbacks the current context does not call."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from contextvars import ContextVar
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.orm import Mapper

from ..errors import ListenerError
from ..messages import described
from .callbacks import callback_identity

if TYPE_CHECKING:
    from .callbacks import AnyCallback
    from .registry import Listener

_EVERY_CALLBACK = object()
"""Stands among the muted callbacks for all of them, where recorders still hear of everything."""

_EVERYTHING = (_EVERY_CALLBACK, object())
"""Stands in their place where recorders hear of nothing either."""

_muted: ContextVar[tuple[object, ...]] = ContextVar("fastapi_toolsets_muted", default=())

_is_used = False
"""Whether anything was ever muted: quicker to see than that nothing is here."""


def muted_callbacks() -> tuple[object, ...]:
    """Return what the current context has muted; empty where it is nothing."""
    return _muted.get() if _is_used else ()


@contextlib.contextmanager
def muted(*callbacks: AnyCallback) -> Generator[None]:
    """Do not call ``callbacks`` (all callbacks when none is named) for what is committed in this block.

    Holds for the current task or thread, and for the tasks and AnyIO worker threads that it starts; not for a
    ``threading.Thread`` or an executor's thread, which inherit no context variables, nor for others. Muted events are
    not made up for later. Where all callbacks are muted, :func:`capture_events` records nothing either: nothing is
    delivered.

    Args:
        *callbacks: The functions that listeners were registered with.

    Raises:
        ListenerError: One of them is a model, or cannot be called. It is a ``TypeError``.
    """
    for callback in callbacks:
        _check_callback(callback)
    before = _muted.get()
    with _muting(_EVERYTHING if not callbacks or before is _EVERYTHING else (*before, *callbacks)):
        yield


def _check_callback(given: object) -> None:
    """Refuse what would mute nothing, and let everybody be called whom the block was to keep quiet."""
    if callable(given) and not isinstance(sqlalchemy.inspect(given, raiseerr=False), Mapper):
        return
    msg = (
        f"muted() was given {described(given)}, which is no callback: give it the functions that listens_for "
        "decorated, or nothing"
    )
    raise ListenerError(msg)


@contextlib.contextmanager
def only_recorded() -> Generator[None]:
    """Call no callbacks for what is committed in this block, and let recorders hear of it nevertheless."""
    before = _muted.get()
    with _muting(_EVERYTHING if before is _EVERYTHING else (*before, _EVERY_CALLBACK)):
        yield


@contextlib.contextmanager
def _muting(callbacks: tuple[object, ...]) -> Generator[None]:
    global _is_used  # noqa: PLW0603 - once for the process
    _is_used = True
    before = _muted.get()
    token = _muted.set(callbacks)
    try:
        yield
    finally:
        try:
            _muted.reset(token)
        except ValueError:  # a sync generator, which FastAPI ends in another context than it was begun in
            _muted.set(before)


def are_all_muted(callbacks: tuple[object, ...]) -> bool:
    """Whether a context that has muted these delivers nothing, so that recorders do not hear of it."""
    return callbacks is _EVERYTHING


def is_muted(listener: Listener, callbacks: tuple[object, ...]) -> bool:
    """Whether a context that has muted these does not call the listener."""
    return any(each is _EVERY_CALLBACK or listener.identity == callback_identity(each) for each in callbacks)
