"""What a flush is about to overwrite or throw away: kept, or read from the database, while it can still be had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy.orm import PassiveFlag
from sqlalchemy.orm.attributes import instance_dict

from .. import compatibility
from ..journal import Doubt
from ..plan import ATOMS, NO_VALUE, is_expression, state_of
from ..plans import plans
from ..records import Kind
from .loading import populate, read_rows, unloaded_columns
from .related import LOADED_AND_PENDING, is_unknown, old_related

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from sqlalchemy.orm import InstanceState, Mapper, Session

    from ..journal import Journal
    from ..plan import Plan
    from ..plans import Reach, Routes
    from ..records import IdentityKey
    from .at_hand import States

_UPDATED = Kind.UPDATED
NO_VALUES: Mapping[str, Any] = {}

# As ``UOWTransaction.get_attribute_history`` asks for the members of what is deleted: by the key that the row has, and
# whatever its relationship's ``lazy`` says.
_AS_THE_FLUSH_ASKS = PassiveFlag.PASSIVE_OFF | PassiveFlag.LOAD_AGAINST_COMMITTED | PassiveFlag.NO_RAISE

ToLoad: TypeAlias = "dict[Mapper[Any], dict[InstanceState[Any], set[str]]]"


class OldValues:
    """The old values that only this module knows during one flush of one session.

    Attributes:
        is_used: Whether there is any.
        of: By the state of the object and the key of the attribute. Most old values are not here but in
            ``InstanceState.committed_state``, until the flush is over.
        reread: The states of deleted objects that may not show their rows: they do after the flush, as they were read.
        unshown: The foreign keys that were read of objects that had not loaded them. They are given to them after the
            flush, which writes what it sets without its having been loaded, whatever it was.
        held: Objects that only the flush would hold otherwise, which loads them anew where they have gone meanwhile.
        absent: The states of objects that are deleted once more, whose rows are still gone.
        routes: Those that the flush began with. Who listens since then hears of the next one.
    """

    __slots__ = (
        "_journal",
        "_related_unknown",
        "_synchronized",
        "absent",
        "held",
        "is_used",
        "of",
        "reread",
        "routes",
        "unshown",
    )

    def __init__(self, journal: Journal) -> None:
        """Know what ``journal`` says of earlier flushes."""
        self._journal = journal
        self.is_used: bool = False
        self.of: dict[InstanceState[Any], dict[str, Any]] = {}
        self.held: list[object] = []
        self.unshown: list[tuple[InstanceState[Any], dict[str, Any]]] = []
        self._synchronized: dict[InstanceState[Any], frozenset[str]] = {}
        self._related_unknown: list[tuple[InstanceState[Any], str]] = []
        self.reread: set[InstanceState[Any]] = set()
        self.absent: set[InstanceState[Any]] = set()
        self.routes: Routes = plans.routes

    def clear(self) -> None:
        """Forget all of it."""
        self.of.clear()
        self.held.clear()
        self.reread.clear()
        self.absent.clear()
        self.unshown.clear()
        self._synchronized.clear()
        self.is_used = False

    def show(self) -> None:
        """Give the objects what was read of them, as far as the flush has left it as it was."""
        for state, values in self.unshown:
            known = state.committed_state.keys() | state.dict.keys()
            populate(state, {key: value for key, value in values.items() if key not in known})
        self.unshown.clear()

    def read(
        self, session: Session, modified: States, deleted: States, new: States, assigning: Collection[Mapper[Any]]
    ) -> None:
        """Keep or load the old values that will be gone after the flush that begins.

        Args:
            session: The session.
            modified: The persistent states with changes that the flush writes.
            deleted: Those that it deletes.
            new: Those that it inserts.
            assigning: The mappers whose ``before_update`` listeners may assign more.
        """
        self.is_used = True
        to_load: ToLoad = {}
        self._read_modified([*modified], to_load, assigning)  # loading may change who is modified
        for state in [*new]:
            reach = self.routes[state.manager.mapper][1]
            if reach:
                self._reach(state, reach, to_load, is_delete=False)
        if deleted:
            self._note_deletions(deleted)
            self._read_deleted([*deleted], to_load)
        if to_load or self._related_unknown:
            self._load_all(session, to_load, {*deleted}, assigning)

    def _note_deletions(self, deleted: States) -> None:
        """Note the tables that the database changes by itself: rows of them may have been written before."""
        for mapper in {state.manager.mapper for state in deleted}:
            self._journal.deleted_by_database |= plans.deleted_by_database[mapper]

    def _read_modified(
        self, states: list[InstanceState[Any]], to_load: ToLoad, assigning: Collection[Mapper[Any]]
    ) -> None:
        manager: object = None
        plan: Plan | None = None
        reach: tuple[Reach, ...] = ()
        has_orphans = False
        for state in states:
            if state.manager is not manager:
                manager = state.manager
                plan, reach, has_orphans, _ = self.routes[state.manager.mapper]
            is_orphan = has_orphans and compatibility.is_orphan(state)
            if plan is not None:
                if plan.follows_updates:
                    self._read_updated(state, plan, to_load, is_assigned=plan.mapper in assigning)
                if is_orphan:
                    _want_last_row(state, plan, to_load)
            if reach:
                self._reach(state, reach, to_load, is_delete=is_orphan)

    def _read_updated(self, state: InstanceState[Any], plan: Plan, to_load: ToLoad, *, is_assigned: bool) -> None:
        if self._needs_more(state, plan):
            unknown = self._keep(state, plan)
            if unknown:
                to_load.setdefault(plan.mapper, {})[state] = unknown
        if is_assigned:
            self._keep_everything(state, plan, to_load)

    def _read_deleted(self, states: list[InstanceState[Any]], to_load: ToLoad) -> None:
        manager: object = None
        plan: Plan | None = None
        reach: tuple[Reach, ...] = ()
        for state in states:
            if state.manager is not manager:
                manager = state.manager
                plan, reach, _, _ = self.routes[state.manager.mapper]
            if plan is not None and Doubt.PAST_FLUSH in self._journal.doubts:
                # Somebody else may have written the row.
                self.reread.add(state)
                to_load.setdefault(plan.mapper, {}).setdefault(state, set()).update(plan.columns)
            elif plan is not None and (
                state.committed_state or state.expired_attributes or state.callables or plan.fetched
            ):
                _want_last_row(state, plan, to_load)
            if plan is not None and state.was_deleted:  # is there anything to delete again?
                to_load.setdefault(plan.mapper, {}).setdefault(state, set()).add(plan.primary_key[0])
            if reach:
                self._reach(state, reach, to_load, is_delete=True)

    def _reach(self, state: InstanceState[Any], reach: tuple[Reach, ...], to_load: ToLoad, *, is_delete: bool) -> None:
        """Load what the unit of work is about to change in the members of a collection: keys, orphans."""
        for relation in reach:
            reaches_all = is_delete or not relation.referred.isdisjoint(state.committed_state)
            if not reaches_all and relation.key not in state.committed_state:
                continue
            # Of a deleted object SQLAlchemy is about to load the members anyway.
            loads = is_delete and relation.loads_on_delete
            history = state.get_history(relation.key, _AS_THE_FLUSH_ASKS if loads else LOADED_AND_PENDING)
            for member in (*history.added, *history.deleted, *(history.unchanged if reaches_all else ())):
                child = state_of(member) if member is not None else None
                plan = (
                    self.routes.by_mapper[child.manager.mapper] if child is not None and child.key is not None else None
                )
                if child is None or plan is None:
                    continue
                self.held.append(member)
                if relation.orphans and not is_delete and compatibility.is_orphan(child):
                    self._reach(child, self.routes[child.manager.mapper][1], to_load, is_delete=True)
                missing = self._reach_member(child, plan, relation)
                if missing:
                    to_load.setdefault(plan.mapper, {}).setdefault(child, set()).update(missing)

    def _reach_member(self, child: InstanceState[Any], plan: Plan, relation: Reach) -> set[str]:
        """Keep what an UPDATE of a member's foreign key sets by itself; return what of the row is not known."""
        names = relation.foreign_keys(child.manager.mapper)
        missing = {name for name in names if name not in child.dict}
        if missing:
            self._synchronized[child] = self._synchronized.get(child, frozenset()).union(names)
        for name in plan.volatile:
            old = child.committed_state.get(name, child.dict.get(name, NO_VALUE))
            if old is NO_VALUE:
                missing.add(name)
            else:
                self.of.setdefault(child, {}).setdefault(name, plan.copied(name, old))
        if relation.orphans or missing:
            missing.update(unloaded_columns(child, plan))
        return missing

    def _needs_more(self, state: InstanceState[Any], plan: Plan) -> bool:
        """Keep what an UPDATE sets by itself, where all of it is loaded; return whether there is more to look at.

        There is where old values are not known, or the flush would throw them away: those of SQL expressions.
        """
        instance = state.obj()
        if instance is None:
            return False
        committed, loaded = state.committed_state, instance_dict(instance)
        for key, old in committed.items():
            if old is NO_VALUE or key not in loaded or type(loaded[key]) not in ATOMS:
                return True
        if not plan.keeps_more:
            return False
        if plan.foreign_keys and not plan.foreign_keys.keys().isdisjoint(committed):
            return True
        copies = not plan.compares_only
        kept: dict[str, Any] = {}
        for key in plan.volatile:
            old = committed[key] if key in committed else loaded.get(key, NO_VALUE)
            if old is NO_VALUE:
                return True
            kept[key] = plan.copied(key, old) if copies else old
        if kept:
            self.of[state] = kept
        return False

    def _keep_everything(self, state: InstanceState[Any], plan: Plan, to_load: ToLoad) -> None:
        """Keep or load all that is watched, since a ``before_update`` listener may assign it when it is too late."""
        loaded, committed = state.dict, state.committed_state
        kept = self.of.setdefault(state, {})
        for key in plan.watched_columns:
            if key in loaded and key not in committed:
                kept.setdefault(key, plan.copied(key, loaded[key]))
        unknown = set(unloaded_columns(state, plan)) & plan.watched_columns.keys() - committed.keys()
        if unknown:
            to_load.setdefault(plan.mapper, {}).setdefault(state, set()).update(unknown)

    def _keep(self, state: InstanceState[Any], plan: Plan) -> set[str] | None:
        """Keep the old values that the flush would lose; return the keys of those that only the database knows."""
        loaded, columns = state.dict, plan.watched_columns
        kept: dict[str, Any] | None = None
        unknown: set[str] | None = None
        for key, old in state.committed_state.items():
            if key in columns:
                if old is NO_VALUE:
                    unknown = unknown or set()
                    unknown.add(key)
                elif type(new := loaded.get(key)) not in ATOMS and is_expression(new):
                    kept = kept or {}
                    kept[key] = plan.copied(key, old)
        if plan.keeps_more:
            kept, unknown = kept or {}, unknown or set()
            self._keep_more(state, plan, kept, unknown)
        if unknown:
            kept = self._forget_recorded(state, unknown, kept)
        if kept:
            self.of[state] = kept
        return unknown

    def _keep_more(self, state: InstanceState[Any], plan: Plan, kept: dict[str, Any], unknown: set[str]) -> None:
        """Keep what an UPDATE sets by itself, what watched relationships were, and find foreign keys not loaded."""
        committed, loaded = state.committed_state, state.dict
        for key in plan.volatile:
            # Assigned what it has already, it is set all the same, and the flush forgets what was committed.
            old = committed[key] if key in committed else loaded.get(key, NO_VALUE)
            if old is NO_VALUE:
                unknown.add(key)
            else:
                kept[key] = plan.copied(key, old)
        for key, names in plan.foreign_keys.items():
            if key in committed:
                wanted = names if key in plan.relationships else plan.watched_columns.keys() & names
                lost = {name for name in wanted if committed.get(name) is NO_VALUE}
                unknown.update(lost, (name for name in wanted if name not in loaded))
                # Of a foreign key that was assigned without having been loaded SQLAlchemy takes it that it was NULL.
                if key in plan.relationships and (lost or is_unknown(committed[key])):
                    self._related_unknown.append((state, key))

    def _forget_recorded(
        self, state: InstanceState[Any], unknown: set[str], kept: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """Leave out what an earlier flush of the transaction recorded: the first old value is the one that counts."""
        for key in unknown:
            if is_expression(state.dict.get(key)):  # what it gives is a change, whatever it is relative to
                kept = kept or {}
                kept[key] = NO_VALUE
        for frame in self._journal.frames():
            record = None if state.key is None else frame.rows.get(state.key)
            if record is None:
                continue
            if record.kind is not _UPDATED:
                if record.plan.follows_rollback:  # who wants to know each flush, also where its listener reads the row
                    kept = {**dict.fromkeys(unknown, NO_VALUE), **(kept or {})}
                unknown.clear()
            for key, _, _ in record.changes:
                if key in unknown:
                    unknown.remove(key)
                    kept = kept or {}
                    kept.setdefault(key, NO_VALUE)  # what it becomes is a change again, to be put behind that one
        return kept

    def _load_all(
        self,
        session: Session,
        to_load: ToLoad,
        deleted: Collection[InstanceState[Any]],
        assigning: Collection[Mapper[Any]],
    ) -> None:
        for mapper, wanted in to_load.items():
            for state, values in self._load(session, mapper, wanted):
                if state in deleted:
                    populate(state, values)  # or the flush would load them one by one
                elif mapper not in assigning or compatibility.is_orphan(state):
                    # Others would assign to what a plain session has not loaded; of orphans they do not hear.
                    self._give(state, values)
        if self._related_unknown:
            related, self._related_unknown = self._related_unknown, []
            for state, key, old in old_related(session, related, self.of):
                self.of.setdefault(state, {})[key] = old

    def _give(self, state: InstanceState[Any], values: dict[str, Any]) -> None:
        """Give an object what it had not loaded, but for what the unit of work may set itself."""
        plan = self.routes.by_mapper[state.manager.mapper]
        later = self._synchronized.get(state, frozenset())
        if plan is not None:
            later = later.union(*(plan.foreign_keys[key] for key in plan.foreign_keys.keys() & state.committed_state))
        populate(state, {key: value for key, value in values.items() if key not in later})
        if not later.isdisjoint(values):
            self.unshown.append((state, {key: value for key, value in values.items() if key in later}))

    def _load(
        self, session: Session, mapper: Mapper[Any], wanted: dict[InstanceState[Any], set[str]]
    ) -> Iterator[tuple[InstanceState[Any], dict[str, Any]]]:
        """Read the rows as they are before the flush; return of each object what it had not loaded."""
        plan = self.routes.by_mapper[mapper]
        if plan is None:
            return
        for state, keys in wanted.items():
            keys.update(unloaded_columns(state, plan))
        keys_of_all = {key for keys in wanted.values() for key in keys}
        keys_moved = any(frame.moved for frame in self._journal.frames())
        identities = {
            state: _key_of_row(state, plan) if keys_moved else state.key for state in wanted if state.key is not None
        }
        rows = read_rows(session, mapper, identities.values(), sorted(keys_of_all))
        for state, keys in wanted.items():
            row = rows.get(identities.get(state, ()))
            if row is None:
                if state.was_deleted:
                    self.absent.add(state)
                continue
            committed, loaded = state.committed_state, state.dict
            self.of.setdefault(state, {}).update((key, row[key]) for key in keys)
            if state in self.reread:
                continue  # a version that others have written must not become the one that the DELETE asks for
            yield state, {key: row[key] for key in keys if key not in loaded and key not in committed}


def _key_of_row(state: InstanceState[Any], plan: Plan) -> IdentityKey:
    """Return the key by which the flush writes the row of an object that a bulk statement may have given another.

    SQLAlchemy lets the object show it, and goes on to know the object by the one that the row had.
    """
    key: IdentityKey = state.key or ()
    shown = [state.committed_state.get(name, state.dict.get(name, NO_VALUE)) for name in plan.primary_key]
    return key if any(value is NO_VALUE for value in shown) else (key[0], tuple(shown), *key[2:])


def _want_last_row(state: InstanceState[Any], plan: Plan, to_load: ToLoad) -> None:
    """Load what callbacks will read of a row that is about to be deleted."""
    unknown = set(unloaded_columns(state, plan))
    unknown.update(key for key, old in state.committed_state.items() if old is NO_VALUE and key in plan.columns)
    if unknown:
        to_load.setdefault(plan.mapper, {}).setdefault(state, set()).update(unknown)
