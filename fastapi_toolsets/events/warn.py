"""Warnings that point at the user's line, and not at one of SQLAlchemy's, of a loop's or of this library."""

from __future__ import annotations

import inspect
import warnings
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, cast

from . import compatibility

if TYPE_CHECKING:
    from collections.abc import Callable
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


def warn_of(callback: Callable[..., object], message: str, category: type[ToolsetsWarning]) -> None:
    """Give a warning for the first line of a callback, which has returned, and which a loop has called perhaps."""
    function = _function_of(callback)
    if function is None:  # made in C, it has no line
        warn(message, category)
        return
    names, code = function.__globals__, function.__code__
    registry = names.setdefault("__warningregistry__", {})
    module = str(names.get("__name__", ""))
    warnings.warn_explicit(message, category, code.co_filename, code.co_firstlineno, module, registry)


def _function_of(callback: Callable[..., object]) -> FunctionType | None:
    """Return the function inside partials, decorators and bound methods, or that of an object's ``__call__``."""
    function: object = callback
    while isinstance(function, partial):
        function = function.func
    if not inspect.isroutine(function):
        function = getattr(function, "__call__", None)  # noqa: B004
    function = inspect.unwrap(cast("Callable[..., object]", getattr(function, "__func__", function)))
    return function if isinstance(function, FunctionType) else None


def _users_frame(frame: FrameType | None) -> FrameType | None:
    while frame is not None and f"{frame.f_globals.get('__name__', '')}.".startswith(_NOT_THE_USERS):
        frame = frame.f_back
    return frame
