"""Turns flushes into journal records: what was written, read while SQLAlchemy still knows the old values."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm.attributes import instance_dict

from .. import compatibility
from ..journal import Doubt
from ..plan import NO_VALUE, copy_value
from ..plans import plans
from ..records import PENDING, Kind, Writes, same
from ..registry import registry
from .at_hand import olds_are_at_hand, rows_are_at_hand, stands_alone
from .completion import keep_rows
from .corrections import key_to_be, leave_out_absent, leave_out_taken_over, read_again, switch_row
from .loading import readable_columns
from .old_values import NO_VALUES, OldValues
from .ordering import in_order, insert_order, sort_by_key
from .related import related_changes
from .snapshots import take_snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator, Mapping

    from sqlalchemy.orm import InstanceState, Session
    from sqlalchemy.orm.unitofwork import UOWTransaction

    from ..journal import Frame, Journal
    from ..plan import Plan
    from ..records import Change, IdentityKey, Record
    from ..transaction import CurrentTransaction
    from .at_hand import States

# Looking a member up in its enumeration takes longer than all else that is done to a record there.
_CREATED, _UPDATED, _DELETED = Kind.CREATED, Kind.UPDATED, Kind.DELETED
_PAST_FLUSH, _UNSURE = Doubt.PAST_FLUSH, Doubt.UNSURE


class Capture:
    """Follows the flushes of one session. Runs inside them, on the thread or greenlet of whoever flushes.

    Attributes:
        olds: The old values that the flush under way would throw away.
        flushes: Whether a flush is under way, or was interrupted and has left something behind.
        written: What a flush has written that is not in the journal yet.
        savepoint: The savepoint that it was written in, if any.
    """

    __slots__ = (
        "_awaited", "_journal", "_loses", "_misread", "_now", "_switched", "_undone", "flushes", "olds", "savepoint",
        "written",
    )  # fmt: skip

    def __init__(self, journal: Journal, now: CurrentTransaction) -> None:
        """Write to ``journal``, and note in what is known of the current transaction that it wrote."""
        self._journal = journal
        self._now = now
        self.olds: OldValues = OldValues(journal)
        self.written: list[Writes] = []
        self.flushes: bool = False
        self._awaited = 0  # how many rows a flush had to write before it looked for more
        self._misread = False  # whether objects may show other rows' values
        self._loses = False  # whether deleted objects may yet lose what their rows had
        self.savepoint: Hashable | None = None
        self._switched: dict[IdentityKey, dict[str, Any]] = {}
        self._undone: set[IdentityKey] = set()  # rows that were taken over, and deleted then

    def clear(self) -> None:
        """Forget what an interrupted flush left behind."""
        self.olds.clear()
        self._misread = self._loses = False
        self.written = []
        self._switched.clear()
        self._undone.clear()
        self.savepoint = None
        self.flushes = False  # last: as long as it is set, somebody clears

    def begin(self, session: Session, modified: States, deleted: States, new: States) -> bool:
        """Begin to follow a flush of these states; return whether it leaves all that callbacks will be told.

        Args:
            session: The session.
            modified: The persistent states with changes.
            deleted: Those to be deleted.
            new: Those to be inserted.
        """
        if self.flushes:
            if self.written:  # it was flushed, but whoever wrote it into the journal was interrupted
                self.after_finalized(session)
            else:
                self.clear()
        self.flushes = True
        self.olds.routes = routes = plans.routes
        self._awaited = len(new) + len(deleted) + len({*modified}.difference(deleted) if deleted else modified)
        return (
            (not modified or olds_are_at_hand(modified, routes))
            and (not deleted or (_PAST_FLUSH not in self._journal.doubts and rows_are_at_hand(deleted, routes)))
            and (not new or stands_alone(new, routes))
        )

    def after_flush(self, flush_context: UOWTransaction) -> None:
        """Read what was written while SQLAlchemy still knows the old values."""
        self._now.wrote = True
        olds = self.olds
        if olds.is_used:
            olds.show()
        found: list[Writes] = []
        fate = compatibility.flush_fate(flush_context)
        by_mapper = olds.routes.by_mapper
        for mapper, states in compatibility.flushed_states(flush_context).items():
            plan = by_mapper[mapper]
            if plan is not None:
                self._read_written(plan, states, fate, flush_context, found)
        if len(fate) != self._awaited and self._now.lent is None:
            self._doubt_unfollowed(flush_context)
        if olds.is_used:
            if olds.absent:
                leave_out_absent(found, olds.absent)
            olds.clear()
        if self._undone:
            leave_out_taken_over(found, self._undone)
            self._undone.clear()
        if found:
            self.written = in_order(found) if len(found) > 1 or found[0].plan.self_references else found
            self.savepoint = compatibility.savepoint_of_flush(flush_context)
            self._now.follows = True
            return
        self.flushes = False
        if self._misread or self._switched:
            self.clear()

    def _doubt_unfollowed(self, flush_context: UOWTransaction) -> None:
        """Doubt what was written, if the flush itself has found rows whose own listeners were given its connection.

        Before it nobody could know of them, so the connection was not followed.
        """
        fate = compatibility.flush_fate(flush_context)
        for mapper, states in compatibility.flushed_states(flush_context).items():
            if compatibility.hears_of_rows(mapper) and not all(fate[state][1] for state in states):
                self._now.follows = True
                self._journal.doubts.add(_PAST_FLUSH)
                return

    def _read_written(  # noqa: C901, PLR0912 - a call for each row would take as long as all that is done for it
        self,
        plan: Plan,
        states: Collection[InstanceState[Any]],
        fate: Mapping[InstanceState[Any], tuple[bool, bool]],
        flush: UOWTransaction,
        found: list[Writes],
    ) -> None:
        """Find out which rows of one mapper were created, updated and deleted."""
        created: list[InstanceState[Any]] = []
        updated: list[InstanceState[Any]] = []
        deleted: list[InstanceState[Any]] = []
        objects: list[object]
        reread = self.olds.reread
        for state in states:
            is_delete, list_only = fate[state]
            if list_only and not (is_delete and self._is_undone(flush, state)):
                if is_delete:
                    self._keep_switched(plan, state)
            elif is_delete:
                deleted.append(state)
                if state.committed_state or (reread and state in reread):
                    self._show_last_row(plan, state)
            elif state.key is None:
                created.append(state)
            else:
                updated.append(state)
        if updated and plan.gives_keys_early:
            _, _, new = compatibility.unflushed_states(flush.session)
            created += [state for state in updated if state in new]
            updated = [state for state in updated if state not in new]
        if created:
            if len(created) == 1:
                objects = [created[0].obj()]
            else:
                created.sort(key=insert_order)
                objects = [state.obj() for state in created]
            found.append(Writes(_CREATED, plan, created, objects))
        if updated and not plan.follows_updates:
            # Nobody hears of them, but the row has to be known again.
            updated = [state for state in updated if not plan.key_names.isdisjoint(state.committed_state)]
        if updated:
            if len(updated) > 1:
                sort_by_key(updated)
            self._read_updated(plan, updated, flush, found)
        if deleted:
            self._loses = self._loses or plan.has_mutable
            if len(deleted) == 1:
                objects = [deleted[0].obj()]
                origins = [deleted[0].key]
            else:
                sort_by_key(deleted)
                objects = [state.obj() for state in deleted]
                origins = [state.key for state in deleted]
            found.append(Writes(_DELETED, plan, deleted, objects, origins))

    def _is_undone(self, flush: UOWTransaction, state: InstanceState[Any]) -> bool:
        """Whether a deleted object's row, which another one has taken over, was deleted all the same."""
        if state.key is None or not compatibility.deletes_what_was_taken_over(flush, state.manager.mapper):
            return False
        self._undone.add(state.key)
        return True

    def _keep_switched(self, plan: Plan, state: InstanceState[Any]) -> None:
        """Keep the last row of a deleted object whose row another one has taken over."""
        if state.key is not None:
            self._show_last_row(plan, state)
            self._switched[state.key] = readable_columns(state, plan)

    def _read_updated(  # noqa: C901, PLR0912 - the same
        self, plan: Plan, states: list[InstanceState[Any]], flush: UOWTransaction, found: list[Writes]
    ) -> None:
        """Find out what an UPDATE has changed, and leave out rows in which that is nothing."""
        if plan.misread:
            self._misread = True
        changed: list[InstanceState[Any]] = []
        objects: list[object] = []
        origins: list[IdentityKey | None] = []
        changes: list[Any] = []
        ends: list[int] = []
        end = 0
        comparisons, volatile, all_olds = plan.comparisons, plan.volatile_keys, self.olds.of
        olds = NO_VALUES
        for state in states:
            instance = state.obj()
            if instance is None:
                continue
            loaded = instance_dict(instance)
            if all_olds:
                olds = all_olds.get(state, NO_VALUES)
            if not plan.compares_only or ((olds or volatile) and not _are(volatile, olds)):
                for change in self._changes(plan, state, loaded, olds, flush):
                    changes += change
            else:
                for key, old in state.committed_state.items():
                    if key in comparisons:
                        new = loaded.get(key, PENDING)
                        if old is NO_VALUE or new is PENDING:
                            old = olds.get(key, old)  # noqa: PLW2901 - it was read before the flush
                            if old is NO_VALUE or new is PENDING:
                                self._journal.doubts.add(_UNSURE)
                            elif comparisons[key](old, new) is True:
                                continue
                        elif old is new or comparisons[key](old, new) is True:
                            continue
                        changes += (key, old, new)
                if olds:
                    self._add_made_by_database(plan, state, loaded, olds, changes)
            if len(changes) != end:
                end = len(changes)
                ends.append(end)
                changed.append(state)
                objects.append(instance)
                origins.append(state.key)
        if changed:
            found.append(Writes(_UPDATED, plan, changed, objects, origins, changes, ends))

    def _show_last_row(self, plan: Plan, state: InstanceState[Any]) -> None:
        """Give a deleted object the values that its row had, not those that were assigned but never written."""
        olds, loaded = self.olds.of.get(state, NO_VALUES), state.dict
        is_read = state in self.olds.reread
        if is_read:
            loaded.update(olds)
        for key, old in state.committed_state.items():
            if key in plan.columns:
                last = olds.get(key, old) if old is NO_VALUE or is_read else old
                if last is not NO_VALUE:
                    loaded[key] = state.committed_state[key] = last

    def _changes(
        self,
        plan: Plan,
        state: InstanceState[Any],
        loaded: Mapping[str, Any],
        olds: Mapping[str, Any],
        flush: UOWTransaction,
    ) -> Iterator[Change]:
        columns = plan.watched_columns
        for key, old in state.committed_state.items():
            column = columns.get(key)
            if column is not None:
                new = loaded.get(key, PENDING)
                if old is NO_VALUE:
                    old = olds.get(key, NO_VALUE)  # noqa: PLW2901
                if old is NO_VALUE or new is PENDING:
                    self._journal.doubts.add(_UNSURE)
                elif old is new or column.equal(old, new) is True:
                    continue
                if column.copies:
                    old, new = copy_value(old), copy_value(new) if new is not PENDING else PENDING  # noqa: PLW2901
                yield key, old, new
        if olds or plan.volatile:
            made: list[Any] = []
            self._add_made_by_database(plan, state, loaded, olds, made)
            parts = iter(made)
            yield from zip(parts, parts, parts, strict=True)
        if plan.relationships:
            yield from related_changes(plan, state, olds, flush)

    def _add_made_by_database(
        self,
        plan: Plan,
        state: InstanceState[Any],
        loaded: Mapping[str, Any],
        olds: Mapping[str, Any],
        changes: list[Any],
    ) -> None:
        """Add what nobody assigned, or whose assignment was an SQL expression that the flush has resolved."""
        committed = state.committed_state
        for key in olds if _are(plan.volatile_keys, olds) else {**dict.fromkeys(plan.volatile), **olds}:
            if key in committed or key not in plan.watched_columns:
                continue
            old, new = olds.get(key, NO_VALUE), loaded.get(key, PENDING)
            if new is PENDING:
                changes += (key, old, PENDING)
            elif old is NO_VALUE:
                if key not in olds:
                    continue
                changes += (key, old, plan.copied(key, new))  # an earlier flush has recorded what it was
            elif not same(plan, key, old, new):
                changes += (key, old, plan.copied(key, new))
            else:
                continue
            self._journal.doubts.add(_UNSURE)

    def after_finalized(self, session: Session, *, early: bool = False) -> None:
        """Write the flush into the journal, now that new objects have their identity.

        Args:
            session: The session.
            early: Whether the flush may not be over yet, so that SQLAlchemy has given nobody a new identity.
        """
        written, journal = self.written, self._journal  # kept until they are in there: reading can fail
        for writes in written:
            if early:
                writes.keys = [*map(key_to_be, repeat(writes.plan), writes.states, writes.objects)]
            elif writes.kind is not _DELETED:
                states = writes.states
                writes.keys = [states[0].key] if len(states) == 1 else [state.key for state in states]
        if self._misread or self._switched or self._loses or registry.hears_after_rollback:
            for writes in written:
                writes.position = journal.take_positions(len(writes.states))
            frame = journal.frame(self.savepoint)
            records = self._records(session, frame, written, early=early)
            frame.unknown.append("a flush")
            self.clear()
            frame.absorb(records)
            frame.unknown.pop()
        else:
            journal.write(self.savepoint, written)
            self.written = []
            self.savepoint = None
            self.flushes = False

    def _records(self, session: Session, frame: Frame, written: list[Writes], *, early: bool) -> list[Record]:
        """Make a record of each row, since some of them need more than what the flush says by itself."""
        switched = self._switched
        records = [record for writes in written for record in writes.records()]
        misread: list[Record] = []
        for record in records:
            if record.kind is _CREATED and record.key in switched:
                self._journal.doubts.add(_UNSURE)
                switched[record.key] = switch_row(record, switched[record.key])
            if record.kind is _UPDATED and record.plan.misread:
                misread.append(record)
            elif record.kind is _DELETED and record.plan.has_mutable:
                take_snapshot(record)
        if len(misread) > 1:
            read_again(session, misread)
        if registry.hears_after_rollback:
            keep_rows(session, [record for record in records if record.plan.follows_rollback], early=early)
        if switched:  # one that has changed nothing takes no place in the order
            records = [r for r in records if r.changes or r.kind is not _UPDATED or r.key in frame.rows]
        return records


def _are(keys: frozenset[str], values: Mapping[str, object]) -> bool:
    return len(keys) == len(values) and keys.issuperset(values)
