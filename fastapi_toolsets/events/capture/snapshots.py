"""What objects show is kept before somebody changes or expires it, and given back before callbacks see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..records import Kind, show_last_row
from .loading import populate, readable_columns
from .rows import RowRecord

if TYPE_CHECKING:
    from ..records import Record

_DELETED = Kind.DELETED  # looking a member up in its enumeration takes longer than comparing with it


def take_snapshot(record: Record) -> None:
    """Keep the object's column values, since something is about to change or expire them."""
    if record.snapshot is None and not (isinstance(record, RowRecord) and not record.has_object):
        state = record.state
        if record.kind is _DELETED and state.committed_state:
            show_last_row(record.plan, state)
        readable = readable_columns(state, record.plan)
        if record.plan.has_mutable:
            readable = {key: record.plan.copied(key, value) for key, value in readable.items()}
        record.snapshot = readable


def restore(record: Record) -> None:
    """Give an object back what it showed: something may have assigned to it, or expired it, since."""
    snapshot, state = record.snapshot, record.state
    if record.kind is _DELETED:
        if snapshot is None:
            show_last_row(record.plan, state)
        elif state.committed_state or state.expired_attributes or not record.plan.has_mutable:
            # A cascade may have expired it, and a statement of its flush's listener have let it show what it wrote.
            state.dict.update((key, record.plan.copied(key, value)) for key, value in snapshot.items())
            state.expired_attributes.difference_update(snapshot)
        return
    if snapshot is not None:
        loaded, expired = state.dict, state.expired_attributes
        missing = {
            key: value for key, value in snapshot.items() if key not in loaded and (value is not None or key in expired)
        }
        if missing:
            populate(state, missing)
