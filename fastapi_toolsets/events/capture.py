"""Turns flushes into journal records: reads true old values before the flush, what was written after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import ClauseElement
from sqlalchemy.orm import LoaderCallableStatus, PassiveFlag

from . import compatibility
from .completion import keep_rows
from .journal import PENDING, Kind, Members, Record, same
from .loading import populate, read_objects, read_rows, unloaded_columns
from .ordering import in_order
from .plan import ATOMS, NO_VALUE, copy_value, plans, state_of
from .registry import registry
from .types import Phase

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from sqlalchemy.orm import InstanceState, Mapper, Session
    from sqlalchemy.orm.unitofwork import UOWTransaction

    from .journal import Change, IdentityKey, Journal
    from .plan import Plan, Reach

ToLoad: TypeAlias = "dict[Mapper[Any], dict[InstanceState[Any], set[str]]]"
_UNKNOWN = (LoaderCallableStatus.NO_VALUE, LoaderCallableStatus.PASSIVE_NO_RESULT, LoaderCallableStatus.NEVER_SET)
# A collection that is not loaded may change from the other side: those changes are pending until somebody loads it.
_HISTORY = PassiveFlag.PASSIVE_NO_INITIALIZE | PassiveFlag.INCLUDE_PENDING_MUTATIONS
_NO_CHANGES: Mapping[str, Any] = {}


class Capture:
    """Follows the flushes of one session. Runs inside them, on the thread or greenlet of whoever flushes."""

    __slots__ = ("_journal", "_olds", "_records", "_related_unknown", "_switched")

    def __init__(self, journal: Journal) -> None:
        """Write to ``journal``."""
        self._journal = journal
        self._olds: dict[InstanceState[Any], dict[str, Any]] = {}
        self._records: list[Record] = []
        self._switched: dict[IdentityKey, dict[str, Any]] = {}
        self._related_unknown: list[tuple[InstanceState[Any], str]] = []

    def clear(self) -> None:
        """Forget what an interrupted flush left behind."""
        self._olds.clear()
        self._records.clear()
        self._switched.clear()
        self._related_unknown.clear()

    # Before the flush: what it is about to overwrite or throw away.

    def before_flush(self, session: Session) -> None:
        """Keep or load the old values that will be gone after the flush."""
        self.clear()
        to_load: ToLoad = {}
        for plan, reach, state in _with_plans(compatibility.modified_states(session)):
            if plan is not None and plan.follows_updates:
                unknown = self._keep_old(state, plan)
                if unknown:
                    to_load.setdefault(plan.mapper, {})[state] = unknown
            _want_orphan(state, plan, to_load)
            if reach:
                _reach(state, reach, to_load, self._olds, is_delete=False)
        for plan, reach, state in _with_plans(compatibility.deleted_states(session)):
            if plan is not None and (state.committed_state or unloaded_columns(state, plan)):
                _want_last_row(state, plan, to_load)
            if reach:
                _reach(state, reach, to_load, self._olds, is_delete=True)
        for mapper, wanted in to_load.items():
            self._load_old(session, mapper, wanted)
        if self._related_unknown:
            self._load_related(session)

    def _keep_old(self, state: InstanceState[Any], plan: Plan) -> set[str] | None:
        """Keep the old values that the flush would lose; return the keys of those that only the database knows."""
        committed, loaded = state.committed_state, state.dict
        columns = plan.watched_columns
        kept: dict[str, Any] | None = None
        unknown: set[str] | None = None
        for key, old in committed.items():
            if key in columns:
                if old is NO_VALUE:
                    unknown = unknown or set()
                    unknown.add(key)
                elif type(loaded.get(key)) not in ATOMS and _is_expression(loaded.get(key)):
                    kept = kept or {}
                    kept[key] = plan.copied(key, old)
        if plan.keeps_more:
            kept, unknown = kept or {}, unknown or set()
            self._keep_more(state, plan, kept, unknown)
        if unknown:
            kept = self._forget_recorded(state, unknown, kept)
        if kept:
            self._olds[state] = kept
        return unknown

    def _keep_more(self, state: InstanceState[Any], plan: Plan, kept: dict[str, Any], unknown: set[str]) -> None:
        """Keep what an UPDATE sets by itself, what watched relationships were, and find foreign keys not loaded."""
        committed, loaded = state.committed_state, state.dict
        for key in plan.volatile:
            if key in committed:
                continue
            if key in loaded:
                kept[key] = plan.copied(key, loaded[key])
            else:
                unknown.add(key)
        for key in plan.relationships:
            if key in plan.foreign_keys and any(committed.get(key) is value for value in _UNKNOWN):
                self._related_unknown.append((state, key))
        for key, names in plan.foreign_keys.items():
            if key in committed:
                wanted = names if key in plan.relationships else plan.watched_columns.keys() & names
                unknown.update(name for name in wanted if name not in loaded)

    def _forget_recorded(
        self, state: InstanceState[Any], unknown: set[str], kept: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """Leave out what an earlier flush of the transaction recorded: the first old value is the one that counts."""
        for key in unknown:
            if _is_expression(state.dict.get(key)):  # what it gives is a change, whatever it is relative to
                kept = kept or {}
                kept[key] = NO_VALUE
        for frame in self._journal.frames():
            record = None if state.key is None else frame.rows.get(state.key)
            if record is None:
                continue
            if record.kind is not Kind.UPDATED:
                unknown.clear()
            unknown.difference_update(change[0] for change in record.changes)
        return kept

    def _load_old(self, session: Session, mapper: Mapper[Any], wanted: dict[InstanceState[Any], set[str]]) -> None:
        """Read the rows as they are before the flush; give the objects what they had not loaded."""
        plan = plans.get(mapper)
        if plan is None:
            return
        for state, keys in wanted.items():
            keys.update(unloaded_columns(state, plan))
        keys_of_all = {key for keys in wanted.values() for key in keys}
        identities = [state.key[1] for state in wanted if state.key is not None]
        rows = read_rows(session, mapper, identities, sorted(keys_of_all))
        for state, keys in wanted.items():
            row = rows.get(state.key[1]) if state.key is not None else None
            if row is None:
                continue
            committed, loaded = state.committed_state, state.dict
            self._olds.setdefault(state, {}).update((key, row[key]) for key in keys)
            populate(state, {key: row[key] for key in keys if key not in loaded and key not in committed})

    def _load_related(self, session: Session) -> None:
        """Find the objects that watched relationships led to when nobody had loaded them, by the old foreign keys."""
        wanted: dict[Mapper[Any], dict[tuple[Any, ...], list[tuple[InstanceState[Any], str]]]] = {}
        for state, key in self._related_unknown:
            target = state.manager.mapper.relationships[key].mapper
            identity = self._old_reference(state, key)
            if identity is not None:
                wanted.setdefault(target, {}).setdefault(identity, []).append((state, key))
        for target, by_identity in wanted.items():
            objects = read_objects(session, target, by_identity)
            for identity, places in by_identity.items():
                for state, key in places:
                    self._olds.setdefault(state, {})[key] = objects.get(identity)

    def _old_reference(self, state: InstanceState[Any], key: str) -> tuple[Any, ...] | None:
        """Return the identity that a many-to-one relationship's foreign key had before the flush."""
        mapper = state.manager.mapper
        pairs = mapper.relationships[key].local_remote_pairs or []
        local_of = {remote: local for local, remote in pairs}
        values: list[Any] = []
        for column in mapper.relationships[key].mapper.primary_key:
            if column not in local_of:
                return None
            name = mapper.get_property_by_column(local_of[column]).key
            old = state.committed_state.get(name, NO_VALUE)
            if old is NO_VALUE:
                old = self._olds.get(state, _NO_CHANGES).get(name, state.dict.get(name))
            if old is None:
                return None
            values.append(old)
        return tuple(values)

    # After the flush: what it has written.

    def after_flush(self, flush_context: UOWTransaction) -> None:
        """Read what was written while SQLAlchemy still knows the old values."""
        fate = compatibility.flush_fate(flush_context)
        found: list[tuple[Plan, list[Record]]] = []
        for mapper, states in compatibility.flushed_states(flush_context).items():
            plan = plans.get(mapper)
            if plan is not None:
                records = list(self._written(plan, states, fate))
                if records:
                    found.append((plan, records))
        if found:
            self._records = in_order(found)
        if self._olds:
            self._olds.clear()

    def _written(
        self, plan: Plan, states: Iterable[InstanceState[Any]], fate: Mapping[InstanceState[Any], tuple[bool, bool]]
    ) -> Iterator[Record]:
        for state in states:
            is_delete, list_only = fate[state]
            if list_only:
                if is_delete and state.key is not None:
                    self._show_last_row(plan, state)
                    self._switched[state.key] = {key: state.dict[key] for key in plan.columns if key in state.dict}
            elif is_delete:
                self._show_last_row(plan, state)
                record = Record(Kind.DELETED, state.key, plan, state, ())
                record.snapshot = state.dict.copy()  # what no SELECT will bring back
                yield record
            elif state.key is None:
                yield Record(Kind.CREATED, None, plan, state, ())
            elif plan.follows_updates:
                changes = self._changes(plan, state)
                if changes:
                    yield Record(Kind.UPDATED, state.key, plan, state, changes)

    def _show_last_row(self, plan: Plan, state: InstanceState[Any]) -> None:
        """Give a deleted object the values that its row had, not those that were assigned but never written."""
        if not state.committed_state:
            return
        olds = self._olds.get(state, _NO_CHANGES)
        for key, old in state.committed_state.items():
            if key in plan.columns:
                last = olds.get(key, old) if old is NO_VALUE else old
                if last is not NO_VALUE:
                    state.dict[key] = state.committed_state[key] = last

    def _changes(self, plan: Plan, state: InstanceState[Any]) -> tuple[Change, ...]:
        committed, loaded = state.committed_state, state.dict
        olds = self._olds.get(state, _NO_CHANGES) if self._olds else _NO_CHANGES
        columns = plan.watched_columns
        changes: list[Change] = []
        for key, old in committed.items():
            column = columns.get(key)
            if column is not None:
                if old is NO_VALUE:
                    old = olds.get(key, NO_VALUE)  # noqa: PLW2901
                new = loaded.get(key, PENDING)
                if new is PENDING or old is NO_VALUE:
                    self._journal.unsure = True
                if new is PENDING or old is NO_VALUE or not (old is new or column.equal(old, new) is True):
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
        moved: list[Record] = []
        positions = self._journal.positions
        for record in records:
            record.position = next(positions)
            key = record.state.key or record.key
            if not record.key:  # new until now
                record.origin = record.key = key
                if key in switched:
                    self._journal.unsure = True
                    _switch_row(record, switched[key])
                elif record.plan.unset_is_null:
                    _fill_unset(record)
            elif record.key != key and record.kind is Kind.UPDATED:
                record.key = key
                moved.append(record)
        if records:
            _read_again(session, records)
            if Phase.AFTER_ROLLBACK in registry.phases:
                keep_rows(session, [record for record in records if record.plan.follows_rollback])
            frame = self._journal.frame(savepoint)
            if switched:  # one that has changed nothing takes no place in the order
                records = [r for r in records if r.changes or r.kind is not Kind.UPDATED or r.key in frame.rows]
            frame.absorb(records, moved)
            self._records = []
        if switched or self._related_unknown:
            self.clear()


def _with_plans(
    states: Iterable[InstanceState[Any]],
) -> Iterator[tuple[Plan | None, tuple[Reach, ...], InstanceState[Any]]]:
    """Give each state its mapper's plan and reach, looked up once where many of one mapper follow each other."""
    mapper: Mapper[Any] | None = None
    plan: Plan | None = None
    reach: tuple[Reach, ...] = ()
    for state in list(states):
        if state.manager.mapper is not mapper:
            mapper = state.manager.mapper
            plan, reach = plans.get(mapper), plans.reach(mapper)
        if plan is not None or reach:
            yield plan, reach, state


def _reach(
    state: InstanceState[Any],
    reach: tuple[Reach, ...],
    to_load: ToLoad,
    olds: dict[InstanceState[Any], dict[str, Any]],
    *,
    is_delete: bool,
) -> None:
    """Load what the unit of work is about to change in the members of a changed collection: keys, orphans."""
    for relation in reach:
        if not is_delete and relation.key not in state.committed_state:
            continue
        # Of a deleted object SQLAlchemy is about to load the members anyway.
        loads = is_delete and relation.loads_on_delete
        passive = PassiveFlag.PASSIVE_OFF if loads else PassiveFlag.PASSIVE_NO_INITIALIZE
        history = state.get_history(relation.key, passive)
        for member in (*history.added, *history.deleted, *(history.unchanged if is_delete else ())):
            child = state_of(member) if member is not None else None
            plan = plans.get(child.manager.mapper) if child is not None and child.key is not None else None
            if child is None or plan is None:
                continue
            missing = {name for name in relation.foreign_keys(child.manager.mapper) if name not in child.dict}
            for name in plan.volatile:  # an UPDATE of the foreign key sets them, too
                if name not in child.dict:
                    missing.add(name)
                elif name not in child.committed_state:
                    olds.setdefault(child, {}).setdefault(name, plan.copied(name, child.dict[name]))
            if relation.orphans or missing:
                missing.update(unloaded_columns(child, plan))
            if missing:
                to_load.setdefault(plan.mapper, {}).setdefault(child, set()).update(missing)


def _want_last_row(state: InstanceState[Any], plan: Plan, to_load: ToLoad) -> None:
    """Load what callbacks will read of a row that is about to be deleted."""
    unknown = set(unloaded_columns(state, plan))
    unknown.update(key for key, old in state.committed_state.items() if old is NO_VALUE and key in plan.columns)
    if unknown:
        to_load.setdefault(plan.mapper, {}).setdefault(state, set()).update(unknown)


def _want_orphan(state: InstanceState[Any], plan: Plan | None, to_load: ToLoad) -> None:
    if plan is not None and compatibility.is_orphan(state):
        _want_last_row(state, plan, to_load)


def _read_again(session: Session, records: list[Record]) -> None:
    """Correct ``onupdate`` values: after a batched UPDATE SQLAlchemy shows each object that of the first row."""
    misread = [record for record in records if record.plan.misread and record.kind is Kind.UPDATED]
    if len(misread) < 2:  # noqa: PLR2004 - one row has its own value
        return
    by_plan: dict[Plan, list[Record]] = {}
    for record in misread:
        by_plan.setdefault(record.plan, []).append(record)
    for plan, group in by_plan.items():
        rows = read_rows(session, plan.mapper, [record.key[1] for record in group], plan.misread)
        for record in group:
            row = rows.get(record.key[1], {})
            populate(record.state, row)
            changes = [(key, old, plan.copied(key, row.get(key, new))) for key, old, new in record.changes]
            record.changes = tuple(change for change in changes if not same(plan, *change))


def _is_expression(value: object) -> bool:
    return isinstance(value, ClauseElement) or hasattr(value, "__clause_element__")


def _fill_unset(record: Record) -> None:
    """Show what an INSERT left out as the NULL that it became, so that a later change knows its old value."""
    loaded, expired = record.state.dict, record.state.expired_attributes
    for key in record.plan.unset_is_null.difference(loaded):
        if key not in expired:
            loaded[key] = None


def _switch_row(record: Record, before: Mapping[str, Any]) -> None:
    """Turn a new object that took over a deleted object's row into the UPDATE that was written."""
    plan, state = record.plan, record.state
    record.kind = Kind.UPDATED
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
