"""What a flush seems to have written, and has not: deletions, rows that were taken over, values of a batched UPDATE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..plan import NO_VALUE
from ..records import PENDING, Kind, same
from .loading import populate, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from sqlalchemy.orm import InstanceState, Session

    from ..plan import Plan
    from ..records import Change, IdentityKey, Record, Writes


def leave_out_absent(found: list[Writes], absent: Collection[InstanceState[Any]]) -> None:
    """Leave out deletions of what was deleted before, unless the flush itself has just made such a row again.

    Args:
        found: What the flush seems to have written.
        absent: The states of objects to be deleted whose rows were not there.
    """
    made = {
        key_to_be(writes.plan, state, instance)
        for writes in found
        if writes.kind is Kind.CREATED
        for state, instance in zip(writes.states, writes.objects, strict=True)
    }
    gone = {state for state in absent if state.key not in made}
    _leave_out(found, Kind.DELETED, lambda _plan, state, _instance: state in gone)


def leave_out_taken_over(found: list[Writes], undone: Collection[IdentityKey]) -> None:
    """Leave out the objects that took over rows which the flush has deleted after that.

    Args:
        found: What the flush seems to have written.
        undone: The keys of those rows.
    """
    _leave_out(found, Kind.CREATED, lambda plan, state, instance: key_to_be(plan, state, instance) in undone)


def _leave_out(found: list[Writes], kind: Kind, is_out: Callable[[Plan, InstanceState[Any], object], bool]) -> None:
    for index in reversed(range(len(found))):
        writes = found[index]
        if writes.kind is kind:
            rows = enumerate(zip(writes.states, writes.objects, strict=True))
            places = [at for at, (state, instance) in rows if not is_out(writes.plan, state, instance)]
            if len(places) < len(writes.states):
                found[index : index + 1] = [writes.part(places)] if places else []


def key_to_be(plan: Plan, state: InstanceState[Any], instance: object) -> IdentityKey:
    """Return the key that a row has after the flush: SQLAlchemy gives it to the object when ``after_flush`` is over."""
    if state.key is None or any(key in state.committed_state for key in plan.primary_key):
        return plan.mapper.identity_key_from_instance(instance)
    return state.key


def read_again(session: Session, records: list[Record]) -> None:
    """Correct ``onupdate`` values: after a batched UPDATE SQLAlchemy shows each object that of the first row."""
    by_plan: dict[Plan, list[Record]] = {}
    for record in records:
        by_plan.setdefault(record.plan, []).append(record)
    for plan, group in by_plan.items():
        rows = read_rows(session, plan.mapper, [record.key for record in group], plan.misread)
        for record in group:
            row, assigned = rows.get(record.key, {}), record.state.committed_state
            # What a listener of ``after_flush_postexec`` has assigned is still to be written.
            populate(record.state, {key: row[key] for key in row if key not in assigned} if assigned else row)
            changes = [(key, old, plan.copied(key, row.get(key, new))) for key, old, new in record.changes]
            record.changes = tuple(change for change in changes if not same(plan, *change))


def switch_row(record: Record, before: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a new object that took over a deleted object's row into the UPDATE that was written.

    Args:
        record: What was recorded of the new object.
        before: The row that it took over.

    Returns:
        The row that the flush left, which yet another object finds that takes it over.
    """
    plan, state = record.plan, record.state
    record.kind = Kind.UPDATED
    changes: list[Change] = []
    left: dict[str, Any] = {}
    for key in plan.columns:
        old, new = before.get(key, NO_VALUE), _left_by_flush(state, key)
        if new is not NO_VALUE:
            left[key] = new
            if key in plan.watched_columns and old is not NO_VALUE and not same(plan, key, old, new):
                changes.append((key, plan.copied(key, old), plan.copied(key, new)))
        elif key in state.expired_attributes or key in state.committed_state:
            if key in plan.watched_columns:
                changes.append((key, plan.copied(key, old), PENDING))
        elif old is not NO_VALUE:
            populate(state, {key: old})
            left[key] = old
    record.changes = tuple(changes)
    return left


def _left_by_flush(state: InstanceState[Any], key: str) -> object:
    """Return what an attribute was right after its flush, to which ``after_flush_postexec`` may have assigned since."""
    return state.committed_state[key] if key in state.committed_state else state.dict.get(key, NO_VALUE)
