"""Rows that a bulk statement wrote: a tuple of values each, and no object until a callback is about to get one."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ..plan import NO_VALUE, state_of
from ..records import EVENT_TYPES, PENDING, Kind, Members, Record, same
from .loading import detached_copy, populate, read_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import InstanceState, Session

    from ..journal import Frame
    from ..plan import Plan
    from ..records import Change, IdentityKey


class RowRecord(Record):
    """What a bulk statement did to one row. A million of them must not be a million objects.

    Attributes:
        keys: The attributes that ``before`` has; all records of a statement and a mapper share them.
        before: The row's values before an UPDATE.
        stored: The row's values in the order of ``plan.columns``: as committed, once completed; the last of a deleted
            row.
    """

    is_bulk: ClassVar[bool] = True

    __slots__ = ("_changes", "_object", "before", "keys", "stored")

    def __init__(
        self,
        kind: Kind,
        key: IdentityKey,
        plan: Plan,
        *,
        keys: tuple[str, ...] = (),
        before: tuple[Any, ...] = (),
        stored: tuple[Any, ...] | None = None,
    ) -> None:
        """Record one row; unlike any other record it knows no state."""
        self.kind = kind
        self.key: IdentityKey = key
        self.origin: IdentityKey = key
        self.plan = plan
        self.position = 0
        self.snapshot: dict[str, Any] | None = None
        self.keys: tuple[str, ...] = keys
        self.before: tuple[Any, ...] = before
        self.stored: tuple[Any, ...] | None = stored
        self._changes: tuple[Change, ...] | None = None
        self._object: object = None

    @property
    def changes(self) -> tuple[Change, ...]:
        """What changed; until the new values are read, everything that may have."""
        if self._changes is None:
            return tuple((key, old, PENDING) for key, old in zip(self.keys, self.before, strict=True))
        return self._changes

    @changes.setter
    def changes(  # pyright: ignore[reportIncompatibleVariableOverride] - the same, made when asked for
        self, changes: tuple[Change, ...]
    ) -> None:
        self._changes = changes
        self.keys = self.before = ()

    @property
    def obj(self) -> object:  # type: ignore[override]
        """The session's object, or a copy of the row in no session, made when first asked for."""
        if self._object is None:
            self._object = detached_copy(self.plan, self.shown())
        return self._object

    @property
    def state(  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride] - nobody sets it
        self,
    ) -> InstanceState[Any]:
        """The state of that object."""
        return state_of(self.obj)

    @property
    def has_object(self) -> bool:
        """Whether there is an object: the session's, or the copy once somebody has asked for it."""
        return self._object is not None

    def attach(self, instance: object | None) -> None:
        """Tell of an object that the session has, or again of a copy."""
        self._object = instance

    def values(self) -> dict[str, Any]:
        """Return the values by attribute."""
        return {} if self.stored is None else dict(zip(self.plan.columns, self.stored, strict=True))

    def shown(self) -> dict[str, Any]:
        """Return the values for an object: what a callback changes in place in it, the next is not told."""
        values, plan = self.values(), self.plan
        if plan.copied_keys:
            told = values if plan.wants_event else [key for key, _, _ in self.changes]
            values.update({key: plan.copied(key, values[key]) for key in plan.copied_keys.intersection(told, values)})
        return values

    def resolve(self, row: tuple[Any, ...]) -> None:
        """Take the row's values as they will be committed."""
        self.stored = row
        self._object = None
        if self.kind is Kind.UPDATED:
            self._changes = tuple(self._resolved(self.values()))
            self.keys = self.before = ()

    def _resolved(self, values: dict[str, Any]) -> Iterator[Change]:
        if self._changes is None:
            columns = self.plan.columns
            for key, old in zip(self.keys, self.before, strict=True):
                new = values[key]
                if old is not new and columns[key].equal(old, new) is not True and not self._stays_nan(key, old, new):
                    yield key, None if old is NO_VALUE else old, new
            return
        for change in self._changes:
            key, old, new = change
            if key not in values or isinstance(new, Members):
                yield change
            elif not (same(self.plan, key, old, values[key]) or self._stays_nan(key, old, values[key])):
                yield key, None if old is NO_VALUE else old, values[key]

    def _stays_nan(self, key: str, old: object, new: object) -> bool:
        """Whether what the database sets by itself was NaN, which equals nothing, and is NaN again."""
        return key in self.plan.volatile_keys and _is_nan(old) and _is_nan(new)


def complete_rows(session: Session, frame: Frame, *, forgets: bool) -> None:
    """Read what callbacks will be told of the rows that bulk statements wrote, 500 rows a SELECT.

    Args:
        session: The session, still in its transaction, with nothing left to flush.
        frame: What the transaction did.
        forgets: Whether to forget a row that is there no more: a cascade or a trigger of the database took it. Not in
            a frame that others follow, which may know who took it.
    """
    rows = frame.rows
    by_plan: dict[Plan, dict[tuple[Any, ...], RowRecord]] = {}
    for record in rows.values():
        if isinstance(record, RowRecord) and EVENT_TYPES[record.kind] in record.plan.shown:
            by_plan.setdefault(record.plan, {})[record.key[1]] = record
    for plan, records in by_plan.items():
        for identity, row in _read(session, plan, records):
            record = records.pop(identity)
            record.resolve(row)
            # The session's object for a key that another row had before may still be that row's.
            if (record.changes or record.kind is Kind.CREATED) and record.key not in frame.moved:
                _attach(session, record)
        if forgets:
            for record in records.values():
                del rows[record.key]


def keep_new_rows(session: Session, records: list[RowRecord]) -> None:
    """Read what a statement has just written, for those who hear of a rollback: after it nothing can be asked."""
    by_plan: dict[Plan, dict[tuple[Any, ...], RowRecord]] = {}
    for record in records:
        if record.plan.follows_rollback and record.kind is not Kind.DELETED:
            by_plan.setdefault(record.plan, {})[record.key[1]] = record
    for plan, found in by_plan.items():
        for identity, row in _read(session, plan, found):
            found[identity].resolve(row)


def _read(
    session: Session, plan: Plan, records: dict[tuple[Any, ...], RowRecord]
) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Read rows as the old values of those that were updated were read: locked, and past the snapshot."""
    was_read = any(record.kind is Kind.UPDATED for record in records.values())
    return read_values(session, plan.mapper, list(records), plan.columns, past_snapshot=was_read)


def _is_nan(value: object) -> bool:
    return isinstance(value, (float, Decimal)) and math.isnan(value)


def _attach(session: Session, record: RowRecord) -> None:
    """Tell of the object that the session has, unless it has changes that no flush has written."""
    instance = cast("object | None", session.identity_map.get(record.key))
    if instance is not None:
        state = state_of(instance)
        if not state.modified and state.manager.mapper is record.plan.mapper:
            populate(state, record.shown())
            record.attach(instance)
