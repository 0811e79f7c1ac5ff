"""What happened to rows: all those that one flush wrote alike, or what became of a single one."""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias
from uuid import UUID, uuid4

from sqlalchemy import inspect

from .plan import NO_VALUE
from .types import ModelEvent, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy.orm import InstanceState

    from .plan import Plan
    from .types import Changes

Change: TypeAlias = tuple[str, Any, Any]
"""``(key, old, new)``. A tuple of atoms costs the garbage collector nothing, a dict for each would."""

IdentityKey: TypeAlias = tuple[Any, ...]
"""SQLAlchemy's key of a row: base class, primary key values, token."""

Row: TypeAlias = "tuple[InstanceState[Any], object, IdentityKey | None, tuple[Change, ...]]"
"""One row that a flush wrote: the state, its object, the key that the row had (none if it is new), what changed."""

OnCommit: TypeAlias = tuple["Callable[..., object]", tuple[object, ...]]


class Pending(Enum):
    """Stands for a value that only the database knows yet."""

    PENDING = auto()


PENDING = Pending.PENDING


class Kind(IntEnum):
    """What a frame did to a row, as a whole. An ``IntEnum``, whose members are quick to look up by."""

    CREATED = auto()
    UPDATED = auto()
    DELETED = auto()


EVENT_TYPES = {
    Kind.CREATED: ModelEvent.CREATE,
    Kind.UPDATED: ModelEvent.UPDATE,
    Kind.DELETED: ModelEvent.DELETE,
}

# Looking a member up in its enumeration takes longer than comparing with it.
_UPDATED, _DELETED = Kind.UPDATED, Kind.DELETED


class Members:
    """What left and what joined a watched collection; ``changes`` show it as ``old`` and ``new``."""

    __slots__ = ("added", "removed")

    def __init__(self, removed: list[object], added: list[object]) -> None:
        """Keep both, in the order in which it happened."""
        self.removed: list[object] = removed
        self.added: list[object] = added

    def then(self, later: Members) -> Members:
        """Return the net of this and what came after: who left and came back did neither."""
        removed = _without(self.removed, later.added) + _without(later.removed, self.added)
        added = _without(self.added, later.removed) + _without(later.added, self.removed)
        return Members(removed, added)

    def net(self) -> Members:
        """Return it without those whose row another object has taken over, once that has its key."""
        return Members(_without(self.removed, self.added), _without(self.added, self.removed))

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return bool(self.removed or self.added)


def _without(members: list[object], others: list[object]) -> list[object]:
    if not members or not others:  # as in a collection that only grows, whose members so far nobody need go through
        return members
    gone = {row_of(other) for other in others}
    return [member for member in members if row_of(member) not in gone]


def row_of(related: object) -> object:
    """Return what tells a related object's row from others: its identity key, or the object where it has none yet."""
    state: InstanceState[Any] | None = inspect(related, raiseerr=False)
    return id(related) if state is None or state.key is None else state.key


class Batch:
    """What one transaction has to tell in one phase.

    Attributes:
        generation: How many commits of callbacks in a row have led to this one.
        phase: The phase.
        position: The place of the event that is being told.
        muted: What was muted where the transaction ended.
    """

    __slots__ = ("_before", "_identifier", "generation", "muted", "phase", "position")

    def __init__(
        self,
        generation: int,
        phase: Phase = Phase.AFTER_COMMIT,
        before: Batch | None = None,
        muted: tuple[object, ...] = (),
    ) -> None:
        """Begin a batch, with the id of an earlier batch of the same transaction where there was one."""
        self.generation: int = generation
        self.phase: Phase = phase
        self.position: int = -1
        self.muted: tuple[object, ...] = muted
        self._before: Batch | None = before
        self._identifier: UUID | None = None

    @property
    def identifier(self) -> UUID:
        """The transaction's id, made when the first callback asks for it."""
        if self._before is not None:
            return self._before.identifier
        if self._identifier is None:
            self._identifier = uuid4()
        return self._identifier


class Record:
    """What one frame did to one row.

    Attributes:
        kind: The net of it.
        origin: The identity key under which the frame found the row.
        key: The identity key that the row has now.
        plan: The plan of the row's mapper.
        state: The state of the object that has the row now, or had it last.
        obj: That object, held so that it outlives being expunged.
        changes: What was updated, oldest old and newest new; empty for a row that is new.
        position: When the transaction first touched the row, for the order of events.
        batch: The batch that it is told with.
        row: The row's values as last flushed, where somebody hears of a rollback.
        snapshot: The object's values, kept where something is about to change or expire them.
        is_bulk: Whether a bulk statement has written the row, so that there may be no object.
    """

    is_bulk: ClassVar[bool] = False

    __slots__ = (
        "batch", "changes", "key", "kind", "obj", "origin", "plan", "position", "row", "snapshot",
        "state",
    )  # fmt: skip

    batch: Batch
    row: dict[str, Any]

    def __init__(self, kind: Kind, key: IdentityKey, plan: Plan, row: Row, position: int = 0) -> None:
        """Record one write."""
        self.kind: Kind = kind
        state, instance, origin, changes = row
        self.key: IdentityKey = key
        self.origin: IdentityKey = key if origin is None else origin
        self.plan: Plan = plan
        self.state: InstanceState[Any] = state
        self.obj: object = instance
        self.changes: tuple[Change, ...] = changes
        self.position: int = position
        self.snapshot: dict[str, Any] | None = None


class Writes:
    """What one flush did in one way to rows of one mapper. Most are told as they are, and no row needs a record.

    The rows stand in lists side by side: an object for each would be one more for the garbage collector to go through.

    Attributes:
        kind: What was done.
        plan: The plan of the mapper.
        states: The states of the rows' objects, in the order of their events.
        objects: Those objects.
        origins: The identity keys that the rows had before the flush; of new rows none.
        keys: The identity keys that they have after it; of deleted rows none.
        changes: What was updated, row after row: key, old, new and again.
        ends: Where in ``changes`` each row's part ends; empty where no row was updated.
        position: When the transaction first touched the first of them; the others follow.
        batch: The batch that they are told with.
        index: The row that is being told, one before the first where none was yet.
        start: The place of the first row's event in the batch.
    """

    __slots__ = (
        "batch", "changes", "ends", "index", "keys", "kind", "objects", "origins", "plan", "position", "start",
        "states",
    )  # fmt: skip

    batch: Batch
    start: int

    def __init__(  # noqa: PLR0917 - keywords take long, and this is made in each commit
        self,
        kind: Kind,
        plan: Plan,
        states: list[InstanceState[Any]],
        objects: list[object],
        origins: Sequence[IdentityKey | None] = (),
        changes: Sequence[Any] = (),
        ends: Sequence[int] = (),
    ) -> None:
        """Keep the rows; they have no keys nor positions yet."""
        self.kind: Kind = kind
        self.plan: Plan = plan
        self.states: list[InstanceState[Any]] = states
        self.objects: list[object] = objects
        self.origins: Sequence[IdentityKey | None] = origins
        self.keys: Sequence[IdentityKey | None] = ()
        self.changes: Sequence[Any] = changes
        self.ends: Sequence[int] = ends
        self.position: int = 0
        self.index: int = -1

    def tell_next(self) -> None:
        """Move on to the next row, which has the batch's current place."""
        self.start = self.batch.position - self.index - 1
        self.index += 1

    def all_told(self) -> bool:
        """Bring the batch's place up to the current row; return whether that is the last one."""
        self.batch.position = self.start + self.index
        return self.index + 1 == len(self.states)

    def told(self) -> Iterable[tuple[int, object, Changes | None]]:
        """Return index, object and changes to tell of the current row and of each that follows, or of all.

        A deleted object shows its last row from then on. Whoever tells the rows sets ``index``; the batch's place is
        left behind, and :meth:`all_told` brings it up again.
        """
        first, count = self.index, len(self.objects)
        if first < 0:  # noqa: PLR1730 - to call max() takes longer
            first = 0
        if count == 1:  # as in most commits: to iterate over nothing else takes longer than all that is told
            return ((0, self.objects[0], self._tell_only()),)
        if self.kind is _UPDATED:
            return self._told_updates(first, count)
        if self.kind is _DELETED:
            return self._told_deletes(first, count)
        return zip(range(first, count), islice(self.objects, first, None), repeat(None))

    def _tell_only(self) -> Changes | None:
        """Return the changes to tell of the only row."""
        if self.kind is _UPDATED:
            return self._changes_to_tell(0, len(self.changes))
        if self.kind is _DELETED and self.states[0].committed_state:
            show_last_row(self.plan, self.states[0])
        return None

    def _told_updates(self, first: int, count: int) -> Iterator[tuple[int, object, Changes]]:
        begin = self.ends[first - 1] if first else 0
        for index in range(first, count):
            end = self.ends[index]
            yield index, self.objects[index], self._changes_to_tell(begin, end)
            begin = end

    def _changes_to_tell(self, at: int, end: int) -> Changes:
        """Return one row's part of the changes as its callback gets them: nobody else's."""
        changes = self.changes
        told: Changes = {}
        while at < end:
            told[changes[at]] = {"old": changes[at + 1], "new": changes[at + 2]}
            at += 3
        return told

    def _told_deletes(self, first: int, count: int) -> Iterator[tuple[int, object, None]]:
        for index in range(first, count):
            state = self.states[index]
            if state.committed_state:
                show_last_row(self.plan, state)
            yield index, self.objects[index], None

    def changes_of(self, index: int) -> tuple[Change, ...]:
        """Return what was updated in one row."""
        if not self.ends:
            return ()
        parts = iter(self.changes[self.ends[index - 1] if index else 0 : self.ends[index]])
        return tuple(zip(parts, parts, parts, strict=True))

    def record(self, index: int) -> Record:
        """Make the record of one row."""
        origin = self.origins[index] if self.origins else None
        key = (self.keys[index] if self.keys else origin) or ()
        row = self.states[index], self.objects[index], origin, self.changes_of(index)
        return Record(self.kind, key, self.plan, row, self.position + index)

    def records(self) -> list[Record]:
        """Make the records of the rows that were not told yet."""
        return [self.record(index) for index in range(self.index + 1, len(self.states))]

    def told_records(self) -> list[Record]:
        """Make the records of the rows that were not told yet, to be told with the batch."""
        records = self.records()
        for record in records:
            record.batch = self.batch
        return records

    def part(self, places: Iterable[int]) -> Writes:
        """Return some of the rows, in the order of these places."""
        chosen = [*places]
        part = Writes(self.kind, self.plan, [self.states[at] for at in chosen], [self.objects[at] for at in chosen])
        if self.origins:
            part.origins = [self.origins[at] for at in chosen]
        if self.ends:
            part.set_changes(self.changes_of(at) for at in chosen)
        return part

    def keep(self, places: list[int]) -> None:
        """Forget all rows but those, with whom the rows keep their places in the order."""
        part = self.part(places)
        self.states, self.objects, self.changes, self.ends = part.states, part.objects, part.changes, part.ends
        self.origins = part.origins
        self.keys = [self.keys[at] for at in places]

    def leave_out(self, numbers: Sequence[int]) -> None:
        """Forget some changes, numbered through all rows in ascending order, and the rows that are left with none."""
        changes: list[Any] = []
        begin = 0
        for number in numbers:
            changes += self.changes[begin : number * 3]
            begin = number * 3 + 3
        changes += self.changes[begin:]
        ends: list[int] = []
        gone = 0
        for end in self.ends:
            while gone < len(numbers) and numbers[gone] * 3 < end:
                gone += 1
            ends.append(end - gone * 3)
        self.changes, self.ends = changes, ends
        places = [at for at, end in enumerate(ends) if end != (ends[at - 1] if at else 0)]
        if len(places) < len(ends):
            self.keep(places)

    def set_changes(self, changes: Iterable[tuple[Change, ...]]) -> None:
        """Take what was updated in each of the rows."""
        flat: list[Any] = []
        ends: list[int] = []
        for row in changes:
            for change in row:
                flat += change
            ends.append(len(flat))
        self.changes, self.ends = flat, ends


def show_last_row(plan: Plan, state: InstanceState[Any]) -> None:
    """Give a deleted object the values again that its row had last, where something was assigned to it since."""
    loaded = state.dict
    for key, old in state.committed_state.items():
        if key in plan.columns:
            if old is not NO_VALUE:
                loaded[key] = plan.copied(key, old)
            else:
                loaded.pop(key, None)  # its INSERT had left it out: it reads as None


def merge_changes(plan: Plan, first: tuple[Change, ...], then: tuple[Change, ...]) -> tuple[Change, ...]:
    """Return first olds with last news, without what ended where it began."""
    if not first:
        return then
    merged = {change[0]: change for change in first}
    for change in then:
        key, old, new = change
        earlier = merged.get(key)
        if earlier is None:
            merged[key] = change
        elif isinstance(new, Members):
            members = earlier[2].then(new)
            if members:
                merged[key] = (key, None, members)
            else:
                del merged[key]
        else:
            old = earlier[1]
            if new is not PENDING and same(plan, key, old, new):
                del merged[key]
            else:
                merged[key] = (key, old, new)
    return tuple(merged.values())


def same(plan: Plan, key: str, old: object, new: object) -> bool:
    """Whether two values are equal to an attribute's column type; of related objects, whether they are one row."""
    column = plan.columns.get(key)
    if column is None:
        return old is new or row_of(old) == row_of(new)
    return old is new or column.equal(old, new) is True
