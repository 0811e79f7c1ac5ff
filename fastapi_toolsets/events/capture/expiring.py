"""What a session expires or expunges while a flush is under way, before anybody has read what it has written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import inspect

from ..plan import NO_VALUE
from .loading import readable_columns
from .related import LOADED_AND_PENDING, is_unknown, members_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import InstanceState, Session

    from ..plan import Plan
    from .old_values import OldValues


def keep_expiring(olds: OldValues, session: Session, instance: object, *, cascades: bool) -> None:
    """Keep what the rows of objects were before the flush, as far as the objects know it: they are about to forget it.

    Listeners of mappers expire parents, to have their collections loaded anew, and with them what is in these.

    Args:
        olds: The old values of the flush.
        session: The session.
        instance: What is expired; ``None`` for everything.
        cascades: Whether that takes along what the relationships of the object say.
    """
    for state in _reached(session, instance, "refresh-expire" if cascades else None):
        plan = olds.routes.by_mapper[state.manager.mapper]
        if plan is None or state.key is None or state in olds.reread:  # which is known already
            continue
        known = readable_columns(state, plan)
        known.update((key, old) for key, old in state.committed_state.items() if key in plan.columns)
        kept = olds.of.setdefault(state, {})
        for key, old in known.items():
            if old is not NO_VALUE and key not in kept:
                kept[key] = plan.copied(key, old)
        if plan.relationships:
            _keep_related(plan, state, olds)
        olds.held.append(state.obj())  # SQLAlchemy holds objects until they are written, but not those that it expires
        olds.reread.add(state)
        olds.is_used = True


def hold_expunged(olds: OldValues, session: Session, instance: object) -> None:
    """Hold what the session is about to let go of, and the flush knows by its state: nobody else may hold it.

    Args:
        olds: The old values of the flush.
        session: The session.
        instance: What is expunged; ``None`` for everything.
    """
    olds.held += [state.obj() for state in _reached(session, instance, "expunge")]
    olds.is_used = True


def _keep_related(plan: Plan, state: InstanceState[Any], olds: OldValues) -> None:
    """Keep what has changed in watched relationships, and what they led to: the flush knows that by its state only."""
    kept = olds.of[state]
    for key, is_collection in plan.relationships.items():
        if is_collection:
            members = members_of(state, key)
            if members:
                kept.setdefault(key, members)
        elif key in state.committed_state:
            old = state.committed_state[key]
            if is_unknown(old):  # nor was it read before the flush, if it is found by another column than its key
                history = state.get_history(key, LOADED_AND_PENDING)
                old = history.deleted[0] if history.deleted else None
            kept.setdefault(key, old)
            olds.held += (old, state.dict.get(key))


def _reached(session: Session, instance: object, cascade: str | None) -> Iterable[InstanceState[Any]]:
    if instance is None:
        return session.identity_map.all_states()
    state = cast("InstanceState[Any] | None", inspect(instance, raiseerr=False))
    if state is None:
        return ()  # SQLAlchemy is about to say so
    if cascade is None:
        return (state,)
    return (state, *(found[2] for found in state.mapper.cascade_iterator(cascade, state)))
