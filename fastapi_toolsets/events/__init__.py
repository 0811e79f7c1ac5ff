"""Lifecycle events: what happened to mapped rows, told after the commit. The public door of the event system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .crossing.crossing import set_callback_backend
from .muting import muted
from .observation import (
    CallbackOutcome,
    DispatchObserver,
    Ending,
    ObservedCallback,
    ObservedDispatch,
    add_observer,
    remove_observer,
)
from .recorded_events import RecordedEvent, created, deleted, updated
from .recording import EventRecorder, capture_events
from .registry import (
    RegisteredListener,
    listener_scope,
    listens_for,
    registered_listeners,
    remove_listener,
)
from .session import SyncEventSession
from .types import CallbackFailure, Changes, Event, FieldChange, ModelEvent, Phase

if TYPE_CHECKING:
    from .asyncio import EventSession

__all__ = [
    "CallbackFailure",
    "CallbackOutcome",
    "Changes",
    "DispatchObserver",
    "Ending",
    "Event",
    "EventRecorder",
    "EventSession",
    "FieldChange",
    "ModelEvent",
    "ObservedCallback",
    "ObservedDispatch",
    "Phase",
    "RecordedEvent",
    "RegisteredListener",
    "SyncEventSession",
    "add_observer",
    "capture_events",
    "created",
    "deleted",
    "listener_scope",
    "listens_for",
    "muted",
    "registered_listeners",
    "remove_listener",
    "remove_observer",
    "set_callback_backend",
    "updated",
]


def __getattr__(name: str) -> object:
    """Import the async front-end when it is asked for: without greenlet there is none, and the rest still works."""
    if name == "EventSession":
        from .asyncio import EventSession  # noqa: PLC0415

        return EventSession
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
