"""What a flush has changed in watched relationships, also where it was expired meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import PassiveFlag

from .. import compatibility
from ..records import Members
from .old_values import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.orm import InstanceState
    from sqlalchemy.orm.unitofwork import UOWTransaction

    from ..plan import Plan
    from ..records import Change
    from .old_values import OldValues

# A collection that is not loaded may change from the other side: those changes are pending until somebody loads it.
_HISTORY = PassiveFlag.PASSIVE_NO_INITIALIZE | PassiveFlag.INCLUDE_PENDING_MUTATIONS


def related_changes(
    plan: Plan, state: InstanceState[Any], olds: Mapping[str, Any], flush: UOWTransaction
) -> Iterator[Change]:
    """Find out what has changed in the watched relationships of an object that a flush has written."""
    for key, is_collection in plan.relationships.items():
        if is_collection:
            members = olds[key] if key in olds else _members(state, key)
            if members:
                yield key, None, members
        elif key in state.committed_state or key in olds:
            history = compatibility.flush_history(flush, state, key)
            if history.added or history.deleted:
                old = olds[key] if key in olds else _first(history.deleted)
                new = _first(history.added)
                if old is not new:
                    yield key, old, new


def keep_related(plan: Plan, state: InstanceState[Any], olds: OldValues) -> None:
    """Keep it for an object that is about to be expired, and what it leads to, which the flush knows by its state."""
    kept = olds.of[state]
    for key, is_collection in plan.relationships.items():
        if is_collection:
            members = _members(state, key)
            if members:
                kept.setdefault(key, members)
        elif key in state.committed_state:
            old = state.committed_state[key]
            kept.setdefault(key, None if any(old is value for value in UNKNOWN) else old)
            olds.held += (old, state.dict.get(key))


def _members(state: InstanceState[Any], key: str) -> Members:
    history = state.get_history(key, _HISTORY)
    return Members(list(history.deleted), list(history.added))


def _first(states: Sequence[InstanceState[Any] | None] | None) -> object:
    """Return the object that a scalar relationship's history names."""
    state = states[0] if states else None
    return None if state is None else state.obj()
