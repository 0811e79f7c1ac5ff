"""Turns flushes into journal records: what was written, read while SQLAlchemy still knows the old values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import PassiveFlag
from sqlalchemy.orm.attributes import instance_dict

from . import compatibility
from .completion import keep_rows
from .journal import PENDING, Kind, Members, Record, same
from .loading import populate, read_rows
from .old_values import NO_VALUES, OldValues
from .ordering import in_order
from .plan import NO_VALUE, copy_value, plans
from .registry import registry
from .types import Phase

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from sqlalchemy.orm import InstanceState, Session
    from sqlalchemy.orm.unitofwork import UOWTransaction

    from .journal import Change, IdentityKey, Journal
    from .ordering import Written
    from .plan import Plan

# Looking a member up in its enumeration takes longer than all else that is done to a record there.
_CREATED, _UPDATED, _DELETED = Kind.CREATED, Kind.UPDATED, Kind.DELETED
_AFTER_ROLLBACK = Phase.AFTER_ROLLBACK
# A collection that is not loaded may change from the other side: those changes are pending until somebody loads it.
_HISTORY = PassiveFlag.PASSIVE_NO_INITIALIZE | PassiveFlag.INCLUDE_PENDING_MUTATIONS


class Capture:
    """Follows the flushes of one session. Runs inside them, on the thread or greenlet of whoever flushes."""

    __slots__ = ("_journal", "_olds", "_records", "_switched")

    def __init__(self, journal: Journal) -> None:
        """Write to ``journal``."""
        self._journal = journal
        self._olds = OldValues(journal)
        self._records: list[Record] = []
        self._switched: dict[IdentityKey, dict[str, Any]] = {}

    def clear(self) -> None:
        """Forget what an interrupted flush left behind."""
        self._olds.clear()
        if self._records:
            self._records = []
        if self._switched:
            self._switched.clear()

    def before_flush(self, session: Session) -> None:
        """Keep or load the old values that will be gone after the flush."""
        if self._records or self._switched or self._olds:
            self.clear()  # an interrupted flush has left something behind
        self._olds.read(session)

    def after_flush(self, flush_context: UOWTransaction) -> None:
        """Read what was written while SQLAlchemy still knows the old values."""
        fate = compatibility.flush_fate(flush_context)
        found: list[Written] = []
        for mapper, states in compatibility.flushed_states(flush_context).items():
            plan = plans.get(mapper)
            if plan is not None:
                self._read_written(plan, states, fate, found)
        if found:
            self._records = in_order(found)
        if self._olds.of:
            self._olds.of.clear()

    def _read_written(
        self,
        plan: Plan,
        states: Iterable[InstanceState[Any]],
        fate: Mapping[InstanceState[Any], tuple[bool, bool]],
        found: list[Written],
    ) -> None:
        created: list[Record] = []
        updated: list[Record] = []
        deleted: list[Record] = []
        follows_updates = plan.follows_updates
        for state in states:
            is_delete, list_only = fate[state]
            if list_only:
                if is_delete and state.key is not None:
                    self._show_last_row(plan, state)
                    loaded = state.dict
                    self._switched[state.key] = {key: loaded[key] for key in plan.columns if key in loaded}
            elif is_delete:
                if state.committed_state:
                    self._show_last_row(plan, state)
                record = Record(_DELETED, state.key, plan, state, ())
                record.snapshot = instance_dict(record.obj).copy()  # what no SELECT will bring back
                deleted.append(record)
            elif state.key is None:
                created.append(Record(_CREATED, None, plan, state, ()))
            elif follows_updates and (instance := state.obj()) is not None:
                changes = self._changes(plan, state, instance_dict(instance))
                if changes:
                    updated.append(Record(_UPDATED, state.key, plan, state, changes))
        if created or updated or deleted:
            found.append((plan, created, updated, deleted))

    def _show_last_row(self, plan: Plan, state: InstanceState[Any]) -> None:
        """Give a deleted object the values that its row had, not those that were assigned but never written."""
        olds, loaded = self._olds.of.get(state, NO_VALUES), state.dict
        for key, old in state.committed_state.items():
            if key in plan.columns:
                last = olds.get(key, old) if old is NO_VALUE else old
                if last is not NO_VALUE:
                    loaded[key] = state.committed_state[key] = last

    def _changes(self, plan: Plan, state: InstanceState[Any], loaded: Mapping[str, Any]) -> tuple[Change, ...]:
        olds = self._olds.of.get(state, NO_VALUES) if self._olds.of else NO_VALUES
        columns = plan.watched_columns
        changes: list[Change] = []
        for key, old in state.committed_state.items():
            column = columns.get(key)
            if column is not None:
                new = loaded.get(key, PENDING)
                if old is NO_VALUE:
                    old = olds.get(key, NO_VALUE)  # noqa: PLW2901
                if old is NO_VALUE or new is PENDING:
                    self._journal.unsure = True
                elif old is new or column.equal(old, new) is True:
                    continue
                if column.copies:
                    old, new = copy_value(old), copy_value(new) if new is not PENDING else PENDING  # noqa: PLW2901
                changes.append((key, old, new))
        if olds or plan.volatile:
            made = list(self._made_by_database(plan, state, olds))
            if made:
                self._journal.unsure = True
                changes += made
        if plan.relationships:
            changes.extend(self._related(plan, state, olds))
        return tuple(changes)

    def _made_by_database(self, plan: Plan, state: InstanceState[Any], olds: Mapping[str, Any]) -> Iterator[Change]:
        """Changes that nobody assigned, or whose assignment was an SQL expression that the flush has resolved."""
        committed, loaded = state.committed_state, state.dict
        for key in {**dict.fromkeys(plan.volatile), **olds}:
            if key in committed or key not in plan.watched_columns:
                continue
            old, new = olds.get(key, NO_VALUE), loaded.get(key, PENDING)
            if new is PENDING or (old is not NO_VALUE and not same(plan, key, old, new)):
                yield key, old, plan.copied(key, new) if new is not PENDING else PENDING

    def _related(self, plan: Plan, state: InstanceState[Any], olds: Mapping[str, Any]) -> Iterator[Change]:
        for key, is_collection in plan.relationships.items():
            history = state.get_history(key, _HISTORY)
            if is_collection:
                members = Members(list(history.deleted), list(history.added))
                if members:
                    yield key, None, members
            elif history.added or history.deleted:
                old = olds[key] if key in olds else (history.deleted[0] if history.deleted else None)
                new = history.added[0] if history.added else None
                if old is not new:
                    yield key, old, new

    def after_finalized(self, session: Session, savepoint: Hashable | None) -> None:
        """Write the flush into the journal, now that new objects have their identity."""
        records = self._records
        switched = self._switched
        if records:
            self._records = []
            moved, misread = self._identify(records)
            if len(misread) > 1:
                _read_again(session, misread)
            if _AFTER_ROLLBACK in registry.phases:
                keep_rows(session, [record for record in records if record.plan.follows_rollback])
            frame = self._journal.frame(savepoint)
            if switched:  # one that has changed nothing takes no place in the order
                records = [r for r in records if r.changes or r.kind is not _UPDATED or r.key in frame.rows]
            frame.absorb(records, moved)
        if switched or self._olds.related_unknown:
            self.clear()

    def _identify(self, records: list[Record]) -> tuple[list[Record], list[Record]]:
        """Give each record its position and the key that its row has now.

        Returns:
            The records whose row had another key, and those that may show another row's values.
        """
        switched = self._switched
        moved: list[Record] = []
        misread: list[Record] = []
        for record, position in zip(records, self._journal.positions, strict=False):
            record.position = position
            kind = record.kind
            if kind is _UPDATED:
                key = record.state.key or record.key
                if record.key != key:
                    record.key = key
                    moved.append(record)
                if record.plan.misread:
                    misread.append(record)
            elif kind is _CREATED:  # new until now
                state = record.state
                key = record.origin = record.key = state.key or ()
                if switched and key in switched:
                    self._journal.unsure = True
                    _switch_row(record, switched[key])
                    if record.plan.misread:
                        misread.append(record)
                elif record.plan.unset_is_null:
                    _fill_unset(record)
        return moved, misread


def _read_again(session: Session, records: list[Record]) -> None:
    """Correct ``onupdate`` values: after a batched UPDATE SQLAlchemy shows each object that of the first row."""
    by_plan: dict[Plan, list[Record]] = {}
    for record in records:
        by_plan.setdefault(record.plan, []).append(record)
    for plan, group in by_plan.items():
        rows = read_rows(session, plan.mapper, [record.key[1] for record in group], plan.misread)
        for record in group:
            row = rows.get(record.key[1], {})
            populate(record.state, row)
            changes = [(key, old, plan.copied(key, row.get(key, new))) for key, old, new in record.changes]
            record.changes = tuple(change for change in changes if not same(plan, *change))


def _fill_unset(record: Record) -> None:
    """Show what an INSERT left out as the NULL that it became, so that a later change knows its old value."""
    loaded = instance_dict(record.obj)
    unset = record.plan.unset_is_null.difference(loaded)
    if unset:
        loaded.update(dict.fromkeys(unset - record.state.expired_attributes))


def _switch_row(record: Record, before: Mapping[str, Any]) -> None:
    """Turn a new object that took over a deleted object's row into the UPDATE that was written."""
    plan, state = record.plan, record.state
    record.kind = _UPDATED
    changes: list[Change] = []
    for key in plan.columns:
        old = before.get(key, NO_VALUE)
        if key in state.dict:
            new = state.dict[key]
            if key in plan.watched_columns and old is not NO_VALUE and not same(plan, key, old, new):
                changes.append((key, plan.copied(key, old), plan.copied(key, new)))
        elif key in state.expired_attributes:
            if key in plan.watched_columns:
                changes.append((key, plan.copied(key, old), PENDING))
        elif old is not NO_VALUE:
            populate(state, {key: old})
    record.changes = tuple(changes)
