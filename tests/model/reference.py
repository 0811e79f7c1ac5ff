"""The naive reference: from the rows before and after a commit, and the trail between, what must have been told.

It knows no session, no flush and no savepoint. A row is followed from its key before to its key after by the trail
that the database's own triggers wrote; what was told must be exactly the difference between both ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from .tables import Account, Line, Node, Note, Order, Reminder

Key: TypeAlias = tuple[str, str]
"""The table of a row (the base table of a hierarchy) and its primary key as text."""

Values: TypeAlias = dict[str, Any]

BASE_TABLES = {"reminders": "notes"}
WATCHED: dict[str, tuple[str, ...]] = {
    Note.__name__: Note.__watched_fields__,
    Reminder.__name__: Reminder.__watched_fields__,
}
WATCHED_COLUMNS = {"notes": Note.__watched_fields__, "reminders": ("due",)}
PARENTS = {
    Order.__name__: ("account_id", Account.__name__),
    Line.__name__: ("order_id", Order.__name__),
    Node.__name__: ("parent_id", Node.__name__),
}


@dataclass(frozen=True)
class Row:
    """A row of the database: the class that maps it, and its values by attribute name."""

    model: str
    values: Values


Rows: TypeAlias = dict[Key, Row]


@dataclass(frozen=True)
class Entry:
    """One line of the trail."""

    op: str
    place: str | None
    old_key: str | None
    new_key: str | None
    old_row: str | None
    new_row: str | None

    def differs(self, names: Iterable[str] | None) -> bool:
        """Whether an UPDATE changed one of the values, or any."""
        old, new = _values(self.old_row), _values(self.new_row)
        return any(old[name] != new[name] for name in (old if names is None else names))


def _values(row: str | None) -> Values:
    assert row is not None
    values: Values = json.loads(row)
    return values


@dataclass(frozen=True)
class Commit:
    """What a COMMIT did: the rows before it and after it, the trail between, and the ``on_commit`` markers it wrote."""

    before: Rows
    after: Rows
    trail: tuple[Entry, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Told:
    """An event as a callback was told it, or as it must be told."""

    type: str
    model: str
    identity: tuple[Any, ...]
    changes: Mapping[str, Mapping[str, Any]] | None
    row: Values | None
    """What the attributes of ``obj`` read as."""
    before: Values | None
    after: Values | None

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.model, repr(self.identity), self.type)


@dataclass
class Course:
    """The course of one row through a transaction.

    Attributes:
        began: Its key before, ``None`` for a row that is new.
        now: Its key, ``None`` once it is gone.
        seen: Which flushes changed it so that anybody is told of it.
        flushes: Which flushes changed it, or wrote rows of the same key that came and went in this transaction.
        written: Which flushes and statements wrote it, if only the values that it had.
        last_row: What it was when it was deleted.
    """

    began: Key | None
    now: Key | None
    seen: set[int] = field(default_factory=set)
    flushes: set[int] = field(default_factory=set)
    written: set[int] = field(default_factory=set)
    last_row: Values = field(default_factory=dict)

    def touch(self, flush: int, entry: Entry) -> None:
        """Take note of a change by a flush."""
        self.written.add(flush)
        if entry.op != "U" or entry.differs(WATCHED_COLUMNS.get(entry.place or "")):
            self.seen.add(flush)
        if entry.op != "U" or entry.differs(None):
            self.flushes.add(flush)


@dataclass(frozen=True)
class Expected:
    """An event that must be told, and when.

    Attributes:
        told: The event.
        places: The flush that first changed the row. This may be read in two ways for a row that was created, deleted
            and created again, and for one that was changed first where nobody watches. A bulk statement counts where
            it wrote the row, since nobody looks whether that has changed anything before all is written.
        only_flush: The flush that wrote the row, where it was only one.
    """

    told: Told
    places: tuple[int, ...]
    only_flush: int | None


def courses_of(before: Rows, trail: Iterable[Entry]) -> list[Course]:
    """Follow each row by the trail."""
    courses = [Course(key, key) for key in before]
    living: dict[Key, Course] = {course.began: course for course in courses if course.began is not None}
    vanished: dict[Key, set[int]] = {}
    flush = 0
    for entry in trail:
        if entry.place is None:
            flush += 1
            continue
        base = BASE_TABLES.get(entry.place, entry.place)
        in_base = base == entry.place
        if entry.op == "I" and in_base:
            assert entry.new_key is not None
            key = (base, entry.new_key)
            course = Course(None, key, {flush}, {flush} | vanished.get(key, set()))
            courses.append(course)
            living[key] = course
            continue
        old_key = entry.new_key if entry.op == "I" else entry.old_key
        assert old_key is not None
        key = (base, old_key)
        course = living[key]
        course.touch(flush, entry)
        if entry.op == "D":
            course.last_row.update(_values(entry.old_row))
            if in_base:
                course.now = None
                del living[key]
                if course.began is None:
                    vanished.setdefault(key, set()).update(course.flushes)
        elif entry.op == "U" and in_base and entry.new_key != old_key:
            assert entry.new_key is not None
            del living[key]
            course.now = (base, entry.new_key)
            living[course.now] = course
    return courses


def expected_events(commit: Commit) -> list[Expected]:
    """Return what must be told of a commit, in no particular order."""
    courses = courses_of(commit.before, commit.trail)
    assert {course.now for course in courses if course.now is not None} == commit.after.keys(), "the trail is wrong"
    expected: list[Expected] = []
    for course in courses:
        before = commit.before[course.began] if course.began is not None else None
        after = commit.after[course.now] if course.now is not None else None
        told = _net(before, after, course.last_row)
        if told is not None:
            only = next(iter(course.flushes)) if len(course.flushes) == 1 else None
            places = {min(course.seen), min(course.flushes), min(course.flushes | course.written)}
            expected.append(Expected(told, tuple(sorted(places)), only))
    return expected


def _net(before: Row | None, after: Row | None, last_row: Values) -> Told | None:
    if before is None and after is None:
        return None
    if after is None:
        assert before is not None
        return Told("delete", before.model, _identity(before.values), None, last_row, before.values, None)
    if before is None:
        return Told("create", after.model, _identity(after.values), None, after.values, None, after.values)
    names = WATCHED.get(after.model, tuple(after.values))
    changes = {
        name: {"old": before.values[name], "new": after.values[name]}
        for name in names
        if before.values[name] != after.values[name]
    }
    if not changes:
        return None
    identity = _identity(after.values)
    return Told("update", after.model, identity, changes, after.values, before.values, after.values)


def _identity(values: Values) -> tuple[Any, ...]:
    return (values["code"] if "code" in values else values["id"],)


def disagreements(expected: Sequence[Expected], told: Sequence[Told]) -> list[str]:
    """Say how what was told of a commit differs from what must have been told; empty where it does not."""
    problems: list[str] = []
    wanted = sorted((item.told for item in expected), key=lambda item: item.key)
    given = sorted(told, key=lambda item: item.key)
    if [item.key for item in wanted] != [item.key for item in given]:
        problems.append(f"events: expected {[item.key for item in wanted]}, told {[item.key for item in given]}")
        return problems
    for want, have in zip(wanted, given, strict=True):
        compared = want if have.row is not None else replace(want, row=None)
        problems += [
            f"{name} of {want.key}: expected {getattr(compared, name)}, told {getattr(have, name)}"
            for name in ("changes", "row", "before", "after")
            if getattr(compared, name) != getattr(have, name)
        ]
    return problems + _misplaced(expected, told)


def _misplaced(expected: Sequence[Expected], told: Sequence[Told]) -> list[str]:
    """Say which events came in the wrong order."""
    by_key = {item.told.key: item for item in expected}
    order = [by_key[item.key] for item in told]
    problems: list[str] = []
    reached = 0
    for item in order:
        place = next((place for place in item.places if place >= reached), None)
        if place is None:
            problems.append(f"order: {item.told.key} was first written in flush {item.places}, told after {reached}")
        reached = place or reached
    rows = {(item.told.model, item.told.identity): item for item in order if item.told.type != "delete"}
    gone = {  # a child's last row refers to its parent's
        (item.told.model, _identity(item.told.row or {})): item for item in order if item.told.type == "delete"
    }
    for position, child in enumerate(order):
        parent = _parent(child, gone if child.told.type == "delete" else rows)
        if parent is not None and order.index(parent) > position:
            problems.append(f"order: {child.told.key} was told before its parent {parent.told.key}")
    return problems


def _parent(child: Expected, others: Mapping[tuple[str, tuple[Any, ...]], Expected]) -> Expected | None:
    """Return the event of the row that this row refers to, where one flush, and no other, wrote both."""
    if child.told.model not in PARENTS or child.told.row is None or child.only_flush is None:
        return None
    parent = _referred(child, others)
    if parent is None or parent.only_flush != child.only_flush:
        return None
    # A circle has no parents first.
    seen = {child.told.key}
    above: Expected | None = parent
    while above is not None:
        if above.told.key in seen:
            return None
        seen.add(above.told.key)
        above = _referred(above, others)
    return parent


def _referred(child: Expected, others: Mapping[tuple[str, tuple[Any, ...]], Expected]) -> Expected | None:
    if child.told.model not in PARENTS or child.told.row is None:
        return None
    column, model = PARENTS[child.told.model]
    return others.get((model, (child.told.row[column],)))


def replay(rows: Rows, told: Iterable[Told]) -> Rows:
    """Apply the events of one commit to the rows, knowing nothing but what the events say."""
    gone: set[Key] = set()
    arrived: Rows = {}
    for item in told:
        if item.type == "create":
            assert item.after is not None
            arrived[_key(item.model, item.after)] = Row(item.model, item.after)
        elif item.type == "delete":
            assert item.before is not None
            gone.add(_key(item.model, item.before))
        else:
            assert item.changes is not None
            now = dict(zip(_primary_key(item.model), item.identity, strict=True))
            was = now | {name: change["old"] for name, change in item.changes.items() if name in now}
            gone.add(_key(item.model, was))
            values = rows[_key(item.model, was)].values
            new_values = {name: change["new"] for name, change in item.changes.items()}
            arrived[_key(item.model, now)] = Row(item.model, values | new_values)
    return {key: row for key, row in rows.items() if key not in gone} | arrived


def _primary_key(model: str) -> tuple[str, ...]:
    return ("code",) if model == "Tag" else ("id",)


_TABLES = {"Account": "accounts", "Order": "orders", "Line": "order_lines", "Node": "nodes", "Tag": "tags"}


def _key(model: str, values: Values) -> Key:
    return (_TABLES.get(model, "notes"), str(_identity(values)[0]))


def observable(rows: Rows) -> Rows:
    """Return rows with only those values of whose changes events tell, which is what a replay can know."""
    return {
        key: Row(
            row.model, {name: value for name, value in row.values.items() if name in WATCHED.get(row.model, (name,))}
        )
        for key, row in rows.items()
    }
