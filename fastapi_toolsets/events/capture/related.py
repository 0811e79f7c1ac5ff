"""What a flush changes in watched relationships: what they led to before it, and what they lead to after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import LoaderCallableStatus, PassiveFlag

from .. import compatibility
from ..plan import NO_VALUE
from ..records import Members
from .loading import read_objects

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import InstanceState, Mapper, RelationshipProperty, Session
    from sqlalchemy.orm.unitofwork import UOWTransaction

    from ..plan import Plan
    from ..records import Change

LOADED_AND_PENDING = PassiveFlag.PASSIVE_NO_INITIALIZE | PassiveFlag.INCLUDE_PENDING_MUTATIONS
"""Asks a collection for its history without loading it: what the other side changes is pending until somebody does."""

_UNKNOWN = (LoaderCallableStatus.NO_VALUE, LoaderCallableStatus.PASSIVE_NO_RESULT, LoaderCallableStatus.NEVER_SET)


def related_changes(
    plan: Plan, state: InstanceState[Any], olds: Mapping[str, Any], flush: UOWTransaction
) -> Iterator[Change]:
    """Find out what has changed in the watched relationships of an object that a flush has written."""
    for key, is_collection in plan.relationships.items():
        if is_collection:
            members = olds[key] if key in olds else members_of(state, key)
            if members:
                yield key, None, members
        elif key in state.committed_state or key in olds:
            history = compatibility.flush_history(flush, state, key)
            if history.added or history.deleted:
                old = olds[key] if key in olds else _first(history.deleted)
                new = _first(history.added)
                if old is not new:
                    yield key, old, new


def _first(states: Sequence[InstanceState[Any] | None] | None) -> object:
    """Return the object that a scalar relationship's history names."""
    state = states[0] if states else None
    return None if state is None else state.obj()


def members_of(state: InstanceState[Any], key: str) -> Members:
    """Return what has left a collection since the last flush, and what has joined it."""
    history = state.get_history(key, LOADED_AND_PENDING)
    return Members(list(history.deleted), list(history.added))


def is_unknown(old: object) -> bool:
    """Whether what a relationship led to was not loaded when something else was assigned to it."""
    return any(old is value for value in _UNKNOWN)


def old_related(
    session: Session,
    related: Iterable[tuple[InstanceState[Any], str]],
    olds: Mapping[InstanceState[Any], Mapping[str, Any]],
) -> Iterator[tuple[InstanceState[Any], str, object]]:
    """Find the objects that many-to-one relationships led to when nobody had loaded them, by the old foreign keys.

    Args:
        session: The session.
        related: Objects that are about to be flushed, each with the name of one of its relationships.
        olds: Old values that the objects do not know themselves, by attribute.

    Returns:
        Each of the objects, the relationship and what it led to; none whose foreign key was NULL.
    """
    wanted: dict[tuple[Mapper[Any], Any], dict[tuple[Any, ...], list[tuple[InstanceState[Any], str]]]] = {}
    for state, key in related:
        target = state.manager.mapper.relationships[key].mapper
        identity = _old_reference(state, key, olds.get(state, {}))
        if identity is not None:
            place = (target, state.identity_token)  # what a row leads to is in its own shard
            wanted.setdefault(place, {}).setdefault(identity, []).append((state, key))
    for (target, token), by_identity in wanted.items():
        objects = read_objects(session, target, by_identity, token)
        for identity, places in by_identity.items():
            for state, key in places:
                yield state, key, objects.get(identity)


def _old_reference(state: InstanceState[Any], key: str, olds: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return the identity that a many-to-one relationship's foreign key had before the flush."""
    mapper = state.manager.mapper
    values: list[Any] = []
    for column in mapper.relationships[key].mapper.primary_key:
        local = _referring_column(mapper.relationships[key], column)
        if local is None:
            return None
        name = mapper.get_property_by_column(local).key
        old = state.committed_state.get(name, NO_VALUE)
        if old is NO_VALUE:
            old = olds.get(name, state.dict.get(name))
        if old is None:
            return None
        values.append(old)
    return tuple(values)


def _referring_column(prop: RelationshipProperty[Any], column: ColumnElement[Any]) -> ColumnElement[Any] | None:
    """Return the foreign key of a many-to-one relationship that has the value of a column of the other side.

    It may name a subclass's table, whose column has the same value.
    """
    local_of = {remote: local for local, remote in prop.local_remote_pairs or ()}
    equivalents = compatibility.equivalent_columns(prop.mapper)
    waiting, found = [column], {column}
    for same in waiting:
        if same in local_of:
            return local_of[same]
        waiting += [other for other in equivalents.get(same, ()) if other not in found]
        found.update(waiting)
    return None
