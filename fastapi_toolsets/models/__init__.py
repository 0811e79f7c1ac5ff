"""Column mixins and the lifecycle-event API: the door that the guide uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..events import (
    CallbackFailure,
    Changes,
    Event,
    EventRecorder,
    FieldChange,
    ModelEvent,
    Phase,
    RecordedEvent,
    SyncEventSession,
    capture_events,
    listener_scope,
    listens_for,
    muted,
    remove_listener,
    set_callback_backend,
)
from .columns import (
    CreatedAtMixin,
    TimestampMixin,
    UpdatedAtMixin,
    UTCDateTime,
    UTCDateTimeError,
    UUIDMixin,
    UUIDv7Mixin,
    render_item,
)

if TYPE_CHECKING:
    from ..events import EventSession

__all__ = [
    "CallbackFailure",
    "Changes",
    "CreatedAtMixin",
    "Event",
    "EventRecorder",
    "EventSession",
    "FieldChange",
    "ModelEvent",
    "Phase",
    "RecordedEvent",
    "SyncEventSession",
    "TimestampMixin",
    "UTCDateTime",
    "UTCDateTimeError",
    "UUIDMixin",
    "UUIDv7Mixin",
    "UpdatedAtMixin",
    "capture_events",
    "listener_scope",
    "listens_for",
    "muted",
    "remove_listener",
    "render_item",
    "set_callback_backend",
]

_REMOVED = {
    "WatchedFieldsMixin": "leave the mixin out, and set __watched_fields__ on the model where fewer changes count",
    "watch": "set __watched_fields__ = (...) on the model instead of decorating it",
}


def __getattr__(name: str) -> object:
    """Import the async front-end when it is asked for; say what replaced a name of version 2."""
    if name == "EventSession":
        from ..events.asyncio import EventSession  # noqa: PLC0415

        return EventSession
    if name in _REMOVED:
        msg = (
            f"{name} was removed in fastapi_toolsets 3.0: {_REMOVED[name]}, and register callbacks with listens_for. "
            "The migration guide, docs/migration/v3.md, shows each step"
        )
        raise ImportError(msg, name=name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
