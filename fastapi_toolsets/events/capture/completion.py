"""Loads, before COMMIT, what callbacks will read and only the database knows; after it nothing is selected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.orm.attributes import instance_dict

from ...errors import CommitAbortedError
from ..journal import Doubt
from ..plan import NO_VALUE, copy_value, state_of
from ..records import EVENT_TYPES, PENDING, Kind, merge_changes, same
from .loading import detached_copy, is_sharded, populate, read_rows, read_values, readable_columns, unloaded_columns
from .rows import RowRecord, complete_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy.orm import InstanceState, Session

    from ..journal import Frame, Journal
    from ..plan import Plan
    from ..records import Change, IdentityKey, Record, Writes

# Looking a member up in its enumeration takes longer than comparing with it.
_DELETED = Kind.DELETED


def complete(session: Session, journal: Journal, told: Frame | None = None) -> None:
    """Load what callbacks will read and the flushes left unloaded, one SELECT for each mapper and 500 rows.

    Where other statements than those of flushes may have written the same rows, everything is read again, and rows that
    are not there any more are forgotten.

    Args:
        session: The session, still in its transaction, with nothing left to flush.
        journal: What the transaction did, everything released into its root frame.
        told: What ``BEFORE_COMMIT`` callbacks were told of, to be completed instead: one of them may have expired it.

    Raises:
        CommitAbortedError: Something was interrupted, or a bulk statement has failed halfway, and nobody knows what it
            has written.
    """
    if journal.nested or journal.root.unknown:
        raise _unknown(journal)
    frame = told or journal.root
    doubts = journal.doubts
    if journal.deleted_by_database and not journal.deleted_by_database.isdisjoint(
        table for plan in frame.plans() for table in plan.mapper.tables
    ):
        doubts.add(Doubt.PAST_FLUSH)  # as if somebody had sent a statement that did it
    written = frame.writes
    if written and not (doubts and (Doubt.PAST_FLUSH in doubts or Doubt.BULK in doubts)):
        incomplete: list[Writes] = []
        for writes in written:
            if (
                writes.kind is not _DELETED
                and (doubts or not _shows_rows(writes))
                and EVENT_TYPES[writes.kind] in writes.plan.shown
            ):
                incomplete.append(writes)  # noqa: PERF401 - a comprehension is one call more in each commit
        if not incomplete or _load_writes(session, incomplete):
            return  # otherwise some row needs a record of its own
    if Doubt.UNDONE in doubts and frame.gone:
        _take_back_deletions(session, frame)
    if told is None:
        for record in _complete_records(session, journal, frame):
            del frame.rows[record.key]
    else:
        _complete_told(session, journal, told)


def _complete_told(session: Session, journal: Journal, told: Frame) -> None:
    """Do it for what was told before: rows may be gone since, and what has become of others is told by later frames.

    What those change again is relative to what was told, not to what the row has now.
    """
    again: dict[IdentityKey, set[str]] = {}
    left: set[IdentityKey] = set()  # by rows that are gone or have another key: another row may have it by now
    for frame in (*journal.told[journal.told.index(told) + 1 :], journal.root):
        left.update(frame.gone)
        for later in frame.rows.values():
            if later.key != later.origin:
                left.add(later.origin)
            again.setdefault(later.origin, set()).update(key for key, _, _ in later.changes)
    read_again = told.without(left) if left else told
    before = [(record, record.changes) for record in read_again.rows.values() if record.key in again]
    _complete_records(session, journal, read_again)
    for record, changes in before:
        read = {change[0]: change for change in record.changes}
        record.changes = tuple(
            change if change[0] in again[record.key] else read[change[0]]
            for change in changes
            if change[0] in again[record.key] or change[0] in read
        )


def _complete_records(session: Session, journal: Journal, frame: Frame) -> list[Record]:
    """Complete each row by itself, in whatever number of flushes it was written; return those that are not there."""
    reload = Doubt.PAST_FLUSH in journal.doubts
    everything = reload or Doubt.UNSURE in journal.doubts
    records: Iterable[Record] = frame.rows.values()
    if Doubt.BULK in journal.doubts:
        complete_rows(session, frame, forgets=frame is journal.root)
        records = [record for record in records if not isinstance(record, RowRecord)]
    unshown = [
        record
        for record in records
        # The object may not show the row as it is: something expired, deferred, made by the database, changed after
        # expunging, or forgotten when it was made transient.
        if (
            everything
            or (state := record.state).modified
            or state.key is None
            or state.expired_attributes
            or state.callables
            or record.plan.fetched
        )
        and _is_told(record)
    ]
    return _complete(session, unshown, reload=reload) if unshown else []


def _take_back_deletions(session: Session, frame: Frame) -> None:
    """Forget deletions whose rows are there: something past the session has taken them back.

    What was changed in a row before it was deleted is an update again.
    """
    gone: dict[Plan, list[Record]] = {}
    for record in [*frame.gone.values()]:
        later = frame.rows.get(record.key)
        if later is None:
            gone.setdefault(record.plan, []).append(record)
        elif later.kind is Kind.UPDATED and later.origin == record.key:  # so it was there again
            del frame.gone[record.origin]
            later.origin, later.position = record.origin, record.position
            later.changes = merge_changes(record.plan, record.changes, later.changes)
    for plan, records in gone.items():
        found = read_rows(session, plan.mapper, [record.key for record in records], plan.primary_key[:1])
        for record in records:
            if record.key in found:
                del frame.gone[record.origin]
                if record.changes:
                    record.kind = Kind.UPDATED
                    frame.rows[record.key] = record


def _unknown(journal: Journal) -> CommitAbortedError:
    described = next(iter(journal.root.unknown), "the release of a savepoint")
    return CommitAbortedError(
        f"{described} was interrupted, or has failed after it had written some of its rows, so that nobody could "
        "be told of them: nothing was committed. Call session.rollback() and begin again. A bulk statement that may "
        "fail belongs inside session.begin_nested(), which rolls back what it has written"
    )


def _shows_rows(writes: Writes) -> bool:
    """Whether all objects show what was written, so that there is nothing to load; see :func:`_complete_records`."""
    if writes.plan.deferred:
        return False
    for state in writes.states:
        if state.modified or state.expired_attributes or state.callables or state.key is None:
            return False
    made = writes.plan.made
    if made:
        for instance in writes.objects:
            if not made <= instance_dict(instance).keys():
                return False  # it was forgotten that they are expired; see unloaded_columns
    return True


def _load_writes(session: Session, written: list[Writes]) -> bool:
    """Load what a flush has left unloaded in objects that are as it has left them; return whether all of them are."""
    by_plan: dict[Plan, list[Writes]] = {}
    for writes in written:
        by_plan.setdefault(writes.plan, []).append(writes)
    return all(_load_alike(session, plan, alike) for plan, alike in by_plan.items())


def _load_alike(session: Session, plan: Plan, written: list[Writes]) -> bool:
    """Do it for rows of one mapper, which are in several parts where rows of others come between them."""
    if plan.deferred or is_sharded(session):
        return False
    made = plan.made
    states = written[0].states if len(written) == 1 else [state for writes in written for state in writes.states]
    expired: set[str] = set()
    # Numbers, and no tuples of what they stand for: those would be one more for each row for the garbage collector.
    missing: dict[tuple[Any, ...], int] = {}
    for index, state in enumerate(states):
        if state.modified or state.callables or state.key is None:
            return False
        if made and made.difference(state.dict, state.expired_attributes):
            return False  # it was forgotten that they are expired; see unloaded_columns
        if state.expired_attributes:
            if state.expired_attributes != expired:  # mostly the same for all of them
                expired |= state.expired_attributes
            missing[state.key[1]] = index
    names = sorted(expired & plan.columns.keys())
    objects = written[0].objects if len(written) == 1 else [obj for writes in written for obj in writes.objects]
    announces = plan.mapper.class_manager.dispatch.refresh
    for identity, values in read_values(session, plan.mapper, missing, names) if names else ():
        found = missing.get(identity)
        if found is None:
            continue
        state = states[found]
        unloaded = state.expired_attributes
        if announces or not unloaded.issuperset(names):
            row = zip(names, values, strict=True)
            populate(state, {key: value for key, value in row if key in unloaded})
        else:
            instance_dict(objects[found]).update(zip(names, values))  # noqa: B905 - to say that they are as many takes long
            unloaded.difference_update(names)
            state.expired = False
    return all(_resolve_writes(writes) for writes in written if writes.ends)


def _resolve_writes(writes: Writes) -> bool:
    """Fill in the new values that were loaded, and leave out what has not changed after all.

    Returns:
        Whether all of them were there. Where reading an attribute has flushed, SQLAlchemy takes what that flush has
        expired for loaded, and loads the rest.
    """
    plan, objects, ends, changes = writes.plan, writes.objects, writes.ends, [*writes.changes]
    comparisons, copies = plan.comparisons, not plan.compares_only
    unchanged: list[int] = []
    row = 0
    for number, new in enumerate(changes[2::3]):
        if new is PENDING:
            at = number * 3
            while at >= ends[row]:
                row += 1
            key, old = changes[at], changes[at + 1]
            known = instance_dict(objects[row]).get(key, PENDING)
            if known is PENDING:
                return False
            if old is known or comparisons[key](old, known) is True:
                unchanged.append(number)
            else:
                changes[at + 2] = plan.copied(key, known) if copies else known
    for number, old in enumerate(changes[1::3]):
        if old is NO_VALUE:
            changes[number * 3 + 1] = None
    writes.changes = changes
    if unchanged:
        writes.leave_out(unchanged)
    return True


def keep_rows(session: Session, records: list[Record], *, early: bool) -> None:
    """Keep the rows that one flush wrote, for those who hear of a rollback: after it nothing can be asked any more.

    Args:
        session: The session.
        records: What the flush wrote.
        early: Whether the flush may not be over yet, so that objects are still marked as changed that show their rows.
    """
    written = [record for record in records if record.kind is not Kind.DELETED]
    _complete(session, written, reload=False, shown=early)
    for record in records:
        readable = readable_columns(record.state, record.plan)
        record.row = {key: copy_value(value) for key, value in readable.items()}


def is_expired(record: Record) -> bool:
    """Whether reading a column of the object would load it: something has expired it since it was completed."""
    if record.kind is Kind.DELETED or (isinstance(record, RowRecord) and not record.has_object):
        return False
    return record.state.key is not None and bool(unloaded_columns(record.state, record.plan))


def load_expired(session: Session, records: Iterable[Record]) -> None:
    """Load what has been expired in the objects of some records, one SELECT for each mapper and 500 rows."""
    expired: dict[Plan, dict[IdentityKey, InstanceState[Any]]] = {}
    for record in records:
        if is_expired(record) and (state := record.state).key is not None:
            expired.setdefault(record.plan, {})[state.key] = state
    for plan, states in expired.items():
        names = sorted({key for state in states.values() for key in unloaded_columns(state, plan)})
        for key, row in read_rows(session, plan.mapper, list(states), names).items():
            state = states[key]
            populate(state, {name: row[name] for name in unloaded_columns(state, plan)})


def _complete(session: Session, told: list[Record], *, reload: bool, shown: bool = False) -> list[Record]:
    """Load what is unloaded, or everything; return those whose rows turn out not to be there.

    Objects that are changed show what was not written yet, unless all that they show is ``shown`` as it was written.
    One that was made transient is the user's: it goes on to show what it did, whatever has become of its row.
    """
    wanted: dict[Plan, list[tuple[Record, list[str]]]] = {}
    changed: dict[Plan, list[Record]] = {}
    missing: list[Record] = []
    for record in told:
        if (record.state.modified and not shown) or (reload and record.state.key is None):
            changed.setdefault(record.plan, []).append(record)
            continue
        if record.state.key is None:  # it has no attributes that are expired any more
            keys = [key for key in record.plan.columns if key not in record.state.dict]
        elif reload:
            keys = list(record.plan.columns)
        else:
            keys = unloaded_columns(record.state, record.plan)
            loaded = record.state.dict
            keys += [  # see _resolve_writes
                key
                for key, _, new in record.changes
                if new is PENDING and key in record.plan.columns and key not in loaded and key not in keys
            ]
        if keys:
            wanted.setdefault(record.plan, []).append((record, keys))
    for plan, pairs in wanted.items():
        missing += _load_new(session, plan, pairs, reload=reload)
    for plan, records in changed.items():
        missing += _show_committed(session, plan, records, reload=reload)
    for record in told:
        if record.changes:
            record.changes = tuple(_resolved(record.plan, record.changes, record.state.dict))
    return missing


def _load_new(session: Session, plan: Plan, pairs: list[tuple[Record, list[str]]], *, reload: bool) -> list[Record]:
    names = sorted({key for _, keys in pairs for key in keys})
    rows = read_rows(session, plan.mapper, [record.key for record, _ in pairs], names)
    for record, keys in pairs:
        row = rows.get(record.key)
        if row is not None:
            populate(record.state, {key: row[key] for key in keys})
            if reload and record.changes:
                record.changes = merge_changes(record.plan, record.changes, tuple(_reread(record, row)))
    missing = [record for record, _ in pairs if record.key not in rows]
    # A key may come back as another value than it was given as, so that a row is there and goes unrecognized.
    return missing if reload and len(rows) + len(missing) == len(pairs) else []


def _show_committed(session: Session, plan: Plan, records: list[Record], *, reload: bool) -> list[Record]:
    """Tell of copies where objects are the user's: made transient, or expunged with changes that were never written.

    Returns:
        The records whose rows turn out not to be there, as far as anybody has looked.
    """
    shown: list[dict[str, Any]] = []
    wanted: set[str] = set(plan.columns) if reload else set()
    for record in records:
        committed, loaded = record.state.committed_state, record.state.dict
        row = {key: committed.get(key, loaded.get(key, NO_VALUE)) for key in plan.columns}
        wanted.update(key for key, value in row.items() if value is NO_VALUE)
        shown.append(row)
    rows: dict[IdentityKey, dict[str, Any]] = {}
    if wanted:
        rows = read_rows(session, plan.mapper, [record.key for record in records], sorted(wanted))
    missing: list[Record] = []
    for record, row in zip(records, shown, strict=True):
        if reload and record.key not in rows:
            missing.append(record)
            continue
        read = rows.get(record.key, {})
        row.update((key, value) for key, value in read.items() if reload or row[key] is NO_VALUE)
        if reload and record.changes:
            record.changes = merge_changes(plan, record.changes, tuple(_reread(record, read)))
        record.obj = detached_copy(plan, {key: value for key, value in row.items() if value is not NO_VALUE})
        record.state = state_of(record.obj)
    return missing


def _is_told(record: Record) -> bool:
    """Whether a callback will read the object of the record, whose row is there, as it is now."""
    return EVENT_TYPES[record.kind] in record.plan.shown and (record.kind is not Kind.UPDATED or bool(record.changes))


def _reread(record: Record, row: Mapping[str, Any]) -> Iterator[Change]:
    for key, _, _ in record.changes:
        if key in row:
            yield key, NO_VALUE, record.plan.copied(key, row[key])


def _resolved(plan: Plan, changes: tuple[Change, ...], loaded: Mapping[str, Any]) -> Iterator[Change]:
    """Fill in the new values that were loaded, and drop what has not changed after all."""
    for key, old, new in changes:
        if new is not PENDING:
            yield key, None if old is NO_VALUE else old, new
        else:
            known = loaded.get(key, PENDING)
            if known is not PENDING and not same(plan, key, old, known):
                yield key, None if old is NO_VALUE else old, plan.copied(key, known)
