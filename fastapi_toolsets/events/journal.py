"""What happened to each row, a frame per transaction: recorded, released into the parent or dropped, and netted.

Nothing here knows a session or a database. A row is known by its identity key; what happened to it inside one frame is
one :class:`Record`, relative to the state in which the frame found the row, so that a savepoint can be dropped by
forgetting its frame.
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID, uuid4

from .types import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterator

    from sqlalchemy.orm import InstanceState

    from .plan import Plan

Change: TypeAlias = tuple[str, Any, Any]
"""``(key, old, new)``. A tuple of atoms costs the garbage collector nothing, a dict for each would."""

IdentityKey: TypeAlias = tuple[Any, ...]
"""SQLAlchemy's key of a row: base class, primary key values, token."""

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


# Looking a member up in its enumeration takes longer than comparing with it.
_CREATED, _DELETED = Kind.CREATED, Kind.DELETED


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

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return bool(self.removed or self.added)


def _without(members: list[object], others: list[object]) -> list[object]:
    gone = {id(other) for other in others}
    return [member for member in members if id(member) not in gone]


class Batch:
    """What one transaction has to tell in one phase.

    Attributes:
        generation: How many commits of callbacks in a row have led to this one.
        phase: The phase.
        position: The place of the event that is being told.
    """

    __slots__ = ("_before", "_identifier", "generation", "phase", "position")

    def __init__(self, generation: int, phase: Phase = Phase.AFTER_COMMIT, before: Batch | None = None) -> None:
        """Begin a batch, with the id of an earlier batch of the same transaction where there was one."""
        self.generation: int = generation
        self.phase: Phase = phase
        self.position: int = -1
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
        snapshot: Once committed, the object's values, kept while another callback uses the session.
    """

    __slots__ = (
        "batch", "changes", "key", "kind", "obj", "origin", "plan", "position", "row", "snapshot",
        "state",
    )  # fmt: skip

    batch: Batch
    row: dict[str, Any]

    def __init__(
        self, kind: Kind, key: IdentityKey | None, plan: Plan, state: InstanceState[Any], changes: tuple[Change, ...]
    ) -> None:
        """Record one write; it gets its position when it enters a frame."""
        self.kind: Kind = kind
        self.key: IdentityKey = key or ()
        self.origin: IdentityKey = self.key
        self.plan: Plan = plan
        self.state: InstanceState[Any] = state
        self.obj: object = state.obj()
        self.changes: tuple[Change, ...] = changes
        self.position: int = 0
        self.snapshot: dict[str, Any] | None = None


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
    """Whether two values of an attribute are equal to its column's type; related objects are compared by identity."""
    column = plan.columns.get(key)
    if column is None:
        return old is new
    return old is new or column.equal(old, new) is True


class Frame:
    """What one transaction or savepoint has done so far.

    Attributes:
        rows: The rows that are there and were created or updated, by the key that each has now.
        gone: The rows that were there when the frame began and are deleted. They stand apart: another row may have
            taken their key.
        on_commit: What ``session.on_commit`` was given.
    """

    __slots__ = ("gone", "on_commit", "rows")

    def __init__(self) -> None:
        """Begin empty."""
        self.rows: dict[IdentityKey, Record] = {}
        self.gone: list[Record] = []
        self.on_commit: list[OnCommit] = []

    def __bool__(self) -> bool:
        """Whether anything would be lost with the frame."""
        return bool(self.rows or self.gone or self.on_commit)

    def absorb(self, records: Collection[Record], moved: list[Record]) -> None:
        """Add the records of one flush.

        Args:
            records: What it wrote.
            moved: Those of them whose row has another key than before.
        """
        if moved:
            self._enter_all(records)
            return
        rows = self.rows
        for record in records:
            if record.kind is _DELETED:
                first = rows.pop(record.origin, None) if rows else None
                if first is None:
                    self.gone.append(record)
                else:
                    self._enter(record, first)
            elif rows.setdefault(record.key, record) is not record:
                self._enter(record, rows[record.key])

    def release(self, savepoint: Frame) -> None:
        """Take over what a released savepoint did."""
        self._enter_all([*savepoint.gone, *savepoint.rows.values()])
        self.on_commit += savepoint.on_commit

    def _enter_all(self, records: Collection[Record]) -> None:
        """Take each row from the key it had and put it under the one it has, all at once: two may exchange theirs."""
        firsts = [None if record.kind is _CREATED else self.rows.pop(record.origin, None) for record in records]
        for record, first in zip(records, firsts, strict=True):
            self._enter(record, first)

    def _enter(self, record: Record, first: Record | None) -> None:
        """Add a record, relative to what the frame did to the row before."""
        deleted = record.kind is _DELETED
        if first is not None and record.kind is not _CREATED:
            record.position = first.position
            if first.kind is _CREATED:
                if deleted:
                    return
                record.kind, record.origin, record.changes = _CREATED, record.key, ()
            else:
                record.origin = first.origin
                record.changes = merge_changes(record.plan, first.changes, record.changes)
        if deleted:
            self.gone.append(record)
        else:
            self.rows[record.key] = record


class Journal:
    """The frames of one session: the root transaction's, and one for each savepoint in which something happened."""

    __slots__ = ("bulk", "nested", "positions", "root", "told", "unsure")

    def __init__(self) -> None:
        """Begin empty."""
        self.root: Frame = Frame()
        self.told: list[Frame] = []
        """What ``BEFORE_COMMIT`` callbacks have been told: one frame for each time that something new came up."""
        self.nested: dict[Hashable, Frame] = {}
        self.positions: count[int] = count()
        self.unsure: bool = False  # whether a change has a value that only the database knows
        self.bulk: bool = False  # whether a bulk statement wrote any of the rows

    def __bool__(self) -> bool:
        """Whether anything was recorded in the current transaction."""
        return bool(self.root or self.nested or self.told)

    def frame(self, savepoint: Hashable | None) -> Frame:
        """Return the frame of a savepoint, made on first use; the root's for ``None``."""
        if savepoint is None:
            return self.root
        frame = self.nested.get(savepoint)
        if frame is None:
            frame = self.nested[savepoint] = Frame()
        return frame

    def release(self, savepoint: Hashable, parent: Hashable | None) -> None:
        """Hand what a savepoint did to the enclosing level."""
        frame = self.nested.pop(savepoint, None)
        if frame:
            self.frame(parent).release(frame)

    def drop(self, savepoint: Hashable) -> None:
        """Forget what a savepoint did."""
        self.nested.pop(savepoint, None)

    def set_aside(self) -> None:
        """Put aside what the root holds, so that what comes next is seen relative to it."""
        if self.root:
            self.told.append(self.root)
            self.root = Frame()

    def take_back(self) -> None:
        """Make the root whole again."""
        if self.told:
            first, *others = self.told
            for frame in (*others, self.root):
                first.release(frame)
            self.root, self.told = first, []

    def take(self) -> Frame:
        """Return the root's frame and begin again empty."""
        self.take_back()
        frame = self.root
        self.root = Frame()
        if self.nested:
            self.nested.clear()
        self.unsure = self.bulk = False
        return frame

    def clear(self) -> None:
        """Forget everything."""
        if self.root:
            self.root = Frame()
        if self.told:
            self.told = []
        self.nested.clear()
        self.unsure = self.bulk = False

    def frames(self) -> Iterator[Frame]:
        """Iterate over all frames, outermost first."""
        yield self.root
        yield from self.nested.values()
