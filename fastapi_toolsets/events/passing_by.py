"""Notices models whose listeners a session without events passes by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ReferenceType, WeakKeyDictionary, ref

from sqlalchemy.orm import Session

from ..errors import PlainSessionWarning
from . import compatibility
from .dispatch.host import caller_of
from .plans import plans
from .warn import warn

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapper
    from sqlalchemy.orm.unitofwork import UOWTransaction

    from .registry import Listener

_Mark: TypeAlias = "ReferenceType[Any] | str"

_passed_by: WeakKeyDictionary[Mapper[Any], list[_Mark]] = WeakKeyDictionary()
"""The callbacks that a warning was given for, by mapper."""


def notice_plain_session(session: Session, flush_context: UOWTransaction) -> None:
    """Warn once for each model that has listeners and was flushed by a session that calls none."""
    for mapper in compatibility.flushed_states(flush_context):
        plan = plans.by_mapper[mapper]
        if plan is None or plan.passed_by:
            continue
        plan.passed_by = True
        callbacks = [_mark_of(listener) for listener in plan.listeners]
        known = [mark for mark in _passed_by.get(mapper, ()) if isinstance(mark, str) or mark() is not None]
        if not all(callback in known for callback in callbacks):
            _passed_by[mapper] = known + callbacks
            warn(
                f"{mapper.class_.__qualname__} has listeners, but was flushed by {_described(caller_of(session))}",
                PlainSessionWarning,
            )


def _mark_of(listener: Listener) -> _Mark:
    """Return what tells a callback from others without keeping it: it may be removed again."""
    try:
        return ref(listener.callback)
    except TypeError:  # an object with slots
        return listener.name


def _described(session: object) -> str:
    """Name a session without events, and what to use instead."""
    is_sync = isinstance(session, Session)
    ours, factory = ("SyncEventSession", "sessionmaker") if is_sync else ("EventSession", "async_sessionmaker")
    name, instead = type(session).__name__, f"make its factory with {factory}(..., class_={ours})"
    for base in type(session).__mro__:
        # A factory makes a class of its own, which looks like one of SQLAlchemy's: the user's is behind it.
        if not base.__module__.startswith("sqlalchemy.") and hasattr(base, "commit"):
            name = f"{base.__module__}.{base.__qualname__}"
            instead = f"give its factory a class that derives from both, class Name({ours}, {base.__name__})"
            break
    return f"a session of class {name}, which calls none of them: {instead}"
