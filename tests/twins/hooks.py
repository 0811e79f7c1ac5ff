"""Listeners of the user's own, which change things, registered for one program."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event, update
from sqlalchemy.orm import Session, object_session

from .models import Base, Box, Club, Content, Letter, Node, Owner, Pet, core_table


def before_flush(session: Session, *_: object) -> None:
    """Change what is about to be written, and add to it."""
    for instance in sorted_by_class(session.dirty):
        if isinstance(instance, Node):
            instance.name = "b"
        if isinstance(instance, Content) and not any_new(session, Club):
            session.add(Club(title="hook"))


def before_flush_deletes(session: Session, *_: object) -> None:
    """Delete an object because another is changed."""
    boxes = [instance for instance in session.dirty if isinstance(instance, Box)]
    if boxes:
        for instance in [*session.identity_map.values()]:
            if isinstance(instance, Content):
                session.delete(instance)


def after_flush(session: Session, *_: object) -> None:
    """Make the next flush have something to do."""
    if any(isinstance(instance, Node) for instance in session.new) and not any_new(session, Box):
        session.add(Content(name="after"))


def after_flush_postexec(session: Session, *_: object) -> None:
    for instance in session.identity_map.values():
        if isinstance(instance, Club) and instance.title == "a":
            instance.title = "b"


def before_commit(session: Session) -> None:
    """Write in the last moment, and send a statement past the unit of work."""
    for instance in session.identity_map.values():
        # Read first: callbacks may have, and what is assigned unread is written although it is the same.
        if isinstance(instance, Box) and instance.size != 2:
            instance.size = 2
    session.execute(update(Club).where(Club.id == 1).values(seats=9))


def before_insert(_mapper: object, _connection: Connection, target: Any) -> None:  # noqa: ANN401 - an object
    if isinstance(target, Pet):
        target.name = "inserted"


def before_update(_mapper: object, _connection: Connection, target: Any) -> None:  # noqa: ANN401 - an object
    if isinstance(target, Pet):
        target.weight = 2
    if isinstance(target, Owner):
        target.remark = "updated"


def before_update_elsewhere(_mapper: object, connection: Connection, target: Any) -> None:  # noqa: ANN401 - an object
    """Write another row by the connection that the listener is given."""
    if isinstance(target, Letter):
        connection.execute(update(core_table(Club)).values(seats=5))


def after_insert_connection(_mapper: object, connection: Connection, target: Any) -> None:  # noqa: ANN401 - an object
    if isinstance(target, Node) and object_session(target) is not None:
        connection.execute(update(core_table(Content)).values(name="b"))


def any_new(session: Session, model: type[Base]) -> bool:
    return any(isinstance(instance, model) for instance in session.new)


def sorted_by_class(instances: Any) -> list[object]:  # noqa: ANN401 - a set of SQLAlchemy's
    return sorted(instances, key=lambda instance: type(instance).__name__)


_ON_SESSIONS: dict[str, Callable[..., None]] = {
    hook.__name__: hook
    for hook in (before_flush, before_flush_deletes, after_flush, after_flush_postexec, before_commit)
}
_ON_MODELS: dict[str, tuple[str, Callable[..., None]]] = {
    "before_insert": ("before_insert", before_insert),
    "before_update": ("before_update", before_update),
    "before_update_elsewhere": ("before_update", before_update_elsewhere),
    "after_insert_connection": ("after_insert", after_insert_connection),
}


WRITES_PAST = {
    "before_commit": "twin_clubs",
    "before_update_elsewhere": "twin_clubs",
    "after_insert_connection": "twin_contents",
}
"""The tables into which they write past the unit of work."""


def hook_session(session: Session, names: tuple[str, ...]) -> None:
    """Register the listeners of a session."""
    for name in names:
        if name in _ON_SESSIONS:
            event.listen(session, _EVENTS.get(name, name), _ON_SESSIONS[name])


_EVENTS = {"before_flush_deletes": "before_flush"}


@contextmanager
def hooked_models(names: tuple[str, ...]) -> Generator[None]:
    """Register the listeners of mappers."""
    found = [_ON_MODELS[name] for name in names if name in _ON_MODELS]
    for name, hook in found:
        event.listen(Base, name, hook, propagate=True)
    try:
        yield
    finally:
        for name, hook in found:
            event.remove(Base, name, hook)
