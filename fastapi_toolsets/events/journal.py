"""What each transaction has done so far, a frame for each: recorded, released into the parent or dropped, and netted.

Nothing here knows a session or a database. A row is known by its identity key; what happened to it inside one frame is
one record, relative to the state in which the frame found the row, so that a savepoint can be dropped by forgetting
its frame. As long as a frame has seen one flush only, there is nothing to net, and it keeps what that flush wrote.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import TYPE_CHECKING, Any

from .records import Kind, merge_changes

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator

    from sqlalchemy.orm import InstanceState

    from .plan import Plan
    from .records import IdentityKey, OnCommit, Record, Writes

# Looking a member up in its enumeration takes longer than comparing with it.
_CREATED, _UPDATED, _DELETED = Kind.CREATED, Kind.UPDATED, Kind.DELETED


class Frame:
    """What one transaction or savepoint has done so far.

    Attributes:
        writes: What the only flush so far has written; empty once it is in ``rows`` and ``gone``.
        on_commit: What ``session.on_commit`` was given.
        moved: The keys that bulk statements have given rows, by the key that each had. SQLAlchemy gives an object that
            has such a row the new one, and leaves its identity key as it was.
        unknown: What may have written rows of which the frame does not know, yet or because it was interrupted: as long
            as there is any of it, it cannot be committed.
    """

    __slots__ = ("_gone", "_nothing", "_rows", "moved", "on_commit", "unknown", "writes")

    def __init__(self) -> None:
        """Begin empty."""
        self.writes: list[Writes] = []
        self._rows: dict[IdentityKey, Record] = {}
        self._gone: dict[IdentityKey, Record] = {}
        self._nothing: set[IdentityKey] = set()  # rows that were made here and deleted again
        self.moved: dict[IdentityKey, IdentityKey] = {}
        self.on_commit: list[OnCommit] = []
        self.unknown: list[str] = []

    def __bool__(self) -> bool:
        """Whether anything would be lost with the frame."""
        return bool(self.writes or self._rows or self._gone or self.on_commit or self.unknown)

    @property
    def has_undone(self) -> bool:
        """Whether it has made rows and deleted them again: nothing to tell, but to be known."""
        return bool(self._nothing)

    @property
    def rows(self) -> dict[IdentityKey, Record]:
        """The rows that are there and were created or updated, by the key that each has now."""
        if self.writes:
            self._unfold()
        return self._rows

    @property
    def gone(self) -> dict[IdentityKey, Record]:
        """The rows that were there when the frame began and are deleted, by the key that each had then.

        They stand apart: another row may have taken their key.
        """
        if self.writes:
            self._unfold()
        return self._gone

    def states(self) -> Iterator[InstanceState[Any]]:
        """Iterate over the states of the objects by which flushes have written its rows that are there."""
        for writes in self.writes:
            yield from writes.states
        for record in self._rows.values():
            if not record.is_bulk:
                yield record.state

    def plans(self) -> set[Plan]:
        """Return the plans of its rows that are there."""
        of_writes = {writes.plan for writes in self.writes if writes.kind is not _DELETED}
        return of_writes.union(record.plan for record in self._rows.values())

    def write(self, written: list[Writes]) -> None:
        """Add what one flush wrote."""
        if self.writes or self._rows or self._gone or self._nothing or (len(written) > 1 and _has_undone(written)):
            self.absorb([record for writes in written for record in writes.records()])
        else:
            self.writes = written

    def _unfold(self) -> None:
        """Make a record of each row."""
        rows: dict[IdentityKey, Record] = {}
        gone: dict[IdentityKey, Record] = {}
        for writes in self.writes:
            records = writes.records()
            if writes.kind is _DELETED:
                gone.update((record.origin, record) for record in records)
            else:
                rows.update((record.key, record) for record in records)
        self._rows, self._gone, self.writes = rows, gone, []  # all at once: no interrupt comes in between

    def absorb(self, records: Collection[Record]) -> None:
        """Add the records of one flush, or one statement."""
        self.unknown.append("a flush")
        self._add(records)
        self.unknown.pop()

    def _add(self, records: Collection[Record]) -> None:
        if self.moved or any(record.key != record.origin for record in records):
            self._enter_all(self._without_undone(records))
            return
        rows = self.rows
        for record in records:
            if record.kind is _DELETED:
                self._enter(record, rows.pop(record.origin, None) if rows else None)
            elif rows.setdefault(record.key, record) is not record:
                self._enter(record, rows[record.key])

    def _without_undone(self, records: Collection[Record]) -> Collection[Record]:
        """Return the records of one flush without those of rows that it has made and deleted again."""
        made = {record.key for record in records if record.kind is _CREATED}
        undone = made.intersection(record.origin for record in records if record.kind is _DELETED)
        if not undone:
            return records
        self._nothing |= undone
        return [record for record in records if record.kind is _UPDATED or record.origin not in undone]

    def without(self, keys: Collection[IdentityKey]) -> Frame:
        """Return a frame with the rows that are there and have none of these keys."""
        others = Frame()
        others._rows = {key: record for key, record in self.rows.items() if key not in keys}
        others.moved = self.moved
        return others

    def release(self, savepoint: Frame) -> None:
        """Take over what a released savepoint did."""
        self.unknown += savepoint.unknown
        self.unknown.append("the release of a savepoint")
        if self.writes or self._rows or self._gone or self._nothing:
            self._enter_all([*savepoint.gone.values(), *savepoint.rows.values()])
        else:  # as it is, however many levels it comes up
            self.writes, self._rows, self._gone = savepoint.writes, savepoint._rows, savepoint._gone
        self.moved.update(savepoint.moved)
        self._nothing |= savepoint._nothing
        self.on_commit += savepoint.on_commit
        self.unknown.pop()

    def _enter_all(self, records: Collection[Record]) -> None:
        """Take each row from the key it had and put it under the one it has, all at once: two may exchange theirs."""
        if self.writes:
            self._unfold()
        firsts = [None if record.kind is _CREATED else self._take(record) for record in records]
        self.moved.update(
            (record.origin, record.key) for record in records if record.is_bulk and record.key != record.origin
        )
        for record, first in zip(records, firsts, strict=True):
            self._enter(record, first)

    def _take(self, record: Record) -> Record | None:
        """Take out what the frame did to the row of a record, which may be an object's that has another key by now."""
        rows = self.rows
        if self.moved:
            keys = self._moved_keys(record.origin)
            for key in keys:
                if _has_key(record, key):
                    return rows.pop(key, None)  # it may be a frame around this one that knows it
            if record.origin not in rows:
                return next((rows.pop(key) for key in keys if key in rows), None)
        return rows.pop(record.origin, None)

    def _moved_keys(self, origin: IdentityKey) -> list[IdentityKey]:
        """Return the keys that bulk statements have given a row, one after the other, which had another one before."""
        keys: list[IdentityKey] = []
        key = self.moved.get(origin)
        while key is not None and len(keys) < len(self.moved):  # two rows may have exchanged their keys
            keys.append(key)
            key = self.moved.get(key)
        return keys

    def _enter(self, record: Record, first: Record | None) -> None:
        """Add a record, relative to what the frame did to the row before."""
        deleted = record.kind is _DELETED
        if first is not None and record.kind is not _CREATED:
            record.position = first.position
            if first.kind is _CREATED:
                if deleted:
                    self._nothing.add(record.origin)
                    return
                record.kind, record.origin, record.changes = _CREATED, record.key, ()
            else:
                record.origin = first.origin
                record.changes = merge_changes(record.plan, first.changes, record.changes)
        if not deleted:
            self._rows[record.key] = record
        elif first is not None or record.origin not in self._nothing:
            # SQLAlchemy lets an object be deleted whose row the transaction has deleted already: that is one event.
            self._gone.setdefault(record.origin, record)


def _has_key(record: Record, key: IdentityKey) -> bool:
    """Whether a record is of an object that showed a key before the change, whatever its identity key is."""
    if record.is_bulk:
        return False
    shown = {**record.state.dict, **{name: old for name, old, _ in record.changes}}
    known: bool = key[1] == tuple(shown.get(name) for name in record.plan.primary_key)
    return known


def _has_undone(written: list[Writes]) -> bool:
    """Whether a flush has deleted rows that it had just made: it inserts first, and deletes then.

    SQLAlchemy does that where it finds that an object which is to be deleted had lost its row already, and another
    object has its key: an object that is there yet would have had its row taken over.
    """
    kinds = {writes.kind for writes in written}
    if _CREATED not in kinds or _DELETED not in kinds:
        return False
    made = {key for writes in written if writes.kind is _CREATED for key in writes.keys}
    return not all(made.isdisjoint(writes.origins) for writes in written if writes.kind is _DELETED)


class Doubt(IntEnum):
    """Why what flushes have written is not all that there is to know of the rows. An ``IntEnum``, as ``Kind`` is."""

    UNSURE = auto()
    """A change has a value that only the database knows."""
    BULK = auto()
    """A bulk statement wrote any of the rows."""
    PAST_FLUSH = auto()
    """A statement was sent that no flush has made, and may have written."""
    UNDONE = auto()
    """Such a statement may have taken back what was written before."""


class Journal:
    """The frames of one session: the root transaction's, and one for each savepoint in which something happened."""

    __slots__ = (
        "_position", "deleted_by_database", "doubts", "ended", "nested", "root", "told", "touched",
    )  # fmt: skip

    def __init__(self) -> None:
        """Begin empty."""
        self.root: Frame = Frame()
        self.told: list[Frame] = []
        """What ``BEFORE_COMMIT`` callbacks have been told: one frame for each time that something new came up."""
        self.nested: dict[Hashable, Frame] = {}
        self.ended: list[Frame] = []
        """What savepoints did that were ended because everything is rolled back, from the innermost on."""
        self._position = 0
        self.touched: bool = False  # whether any frame was asked for in the current transaction: quick to see
        self.doubts: set[Doubt] = set()
        self.deleted_by_database: set[object] = set()
        """The tables whose rows the database may have changed by itself."""

    def __bool__(self) -> bool:
        """Whether anything was recorded in the current transaction."""
        return self.touched and bool(self.root.writes or self.root or self.nested or self.told or self.ended)

    def take_positions(self, count: int) -> int:
        """Return the first of so many places in the order of events."""
        first = self._position
        self._position = first + count
        return first

    def write(self, savepoint: Hashable | None, written: list[Writes]) -> None:
        """Add what one flush wrote; done twice, it is as if it were done once."""
        position = self._position
        for writes in written:
            writes.position = position
            position += len(writes.states)
        self._position = position
        self.touched = True
        frame = self.root if savepoint is None else self.frame(savepoint)
        if frame.writes is not written:  # it is where whoever has written it there was interrupted
            frame.write(written)

    def frame(self, savepoint: Hashable | None) -> Frame:
        """Return the frame of a savepoint, made on first use; the root's for ``None``."""
        self.touched = True
        if savepoint is None:
            return self.root
        frame = self.nested.get(savepoint)
        if frame is None:
            frame = Frame()
            for outer in self.frames():
                frame.moved.update(outer.moved)
            self.nested[savepoint] = frame
        return frame

    def release(self, savepoint: Hashable, parent: Hashable | None) -> None:
        """Hand what a savepoint did to the enclosing level."""
        frame = self.nested.get(savepoint)
        if frame or (frame is not None and frame.has_undone):
            self.frame(parent).release(frame)
        self.drop(savepoint)  # only now: what is left in here keeps the transaction from being committed

    def drop(self, savepoint: Hashable) -> None:
        """Forget what a savepoint did."""
        self.nested.pop(savepoint, None)

    def end(self, savepoint: Hashable) -> None:
        """Put aside what a savepoint did that ends with everything: it is told as rolled back, or never."""
        frame = self.nested.pop(savepoint, None)
        if frame:
            self.ended.append(frame)

    def set_aside(self) -> None:
        """Put aside what the root holds, so that what comes next is seen relative to it."""
        if self.root:
            before = self.root
            self.told.append(before)
            self.root = Frame()
            self.root.moved.update(before.moved)

    def take_ended(self) -> None:
        """Take what savepoints did that have ended with everything into the root's frame, as rolled back with it."""
        frame = self.whole()
        for savepoint in [*self.nested][::-1]:  # which the root's own ``close()`` leaves open
            self.end(savepoint)
        while self.ended:
            frame.release(self.ended.pop())

    def whole(self) -> Frame:
        """Return the root's frame, with what was put aside back in it."""
        if self.told:
            first, *others = self.told
            for frame in (*others, self.root):
                first.release(frame)
            self.root, self.told = first, []
        return self.root

    def clear(self) -> None:
        """Forget everything."""
        if self.touched:
            root = self.root
            if root.writes and not (root.on_commit or root.unknown or root.moved):
                root.writes = []  # which is all that it holds
            else:
                self.root = Frame()
            if self.told:
                self.told = []
            if self.nested:
                self.nested.clear()
            if self.ended:
                self.ended.clear()
            self.touched = False
        if self.doubts:
            self.doubts.clear()
        if self.deleted_by_database:
            self.deleted_by_database.clear()

    def frames(self) -> Iterator[Frame]:
        """Iterate over all frames, outermost first."""
        yield self.root
        yield from self.nested.values()
