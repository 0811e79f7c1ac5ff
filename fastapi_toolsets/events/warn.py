"""Warnings that point at the user's line, and not at one of SQLAlchemy's or of this library."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING

from . import compatibility

if TYPE_CHECKING:
    from types import FrameType

    from ..errors import ToolsetsWarning

_NOT_THE_USERS = ("fastapi_toolsets.", "sqlalchemy.", "contextlib.")


def warn(message: str, category: type[ToolsetsWarning]) -> None:
    """Give a warning for the line that called SQLAlchemy: the commit, the flush, the end of a ``begin()`` block."""
    frame = _users_frame(inspect.currentframe())
    if frame is None and compatibility.in_greenlet():  # an async session's work has a stack of its own
        frame = _users_frame(compatibility.waiting_frame())
    if frame is None:
        warnings.warn(message, category, stacklevel=2)
        return
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    module = str(frame.f_globals.get("__name__", ""))
    warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, module, registry)


def _users_frame(frame: FrameType | None) -> FrameType | None:
    while frame is not None and f"{frame.f_globals.get('__name__', '')}.".startswith(_NOT_THE_USERS):
        frame = frame.f_back
    return frame
