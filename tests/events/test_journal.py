"""The journal's algebra, without a session or a database: frames, nets, keys that move."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.attributes import instance_state

from fastapi_toolsets.events.journal import Frame, Journal
from fastapi_toolsets.events.plan import Plan
from fastapi_toolsets.events.records import PENDING, Change, Kind, Members, Record, merge_changes


class Base(DeclarativeBase): ...


class Row(Base):
    __tablename__ = "rows"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    b: Mapped[int | None]


PLAN = Plan(inspect(Row), ())

Told: TypeAlias = tuple[str, int, dict[str, tuple[object, object]]]
"""What a frame amounts to for one row: what happened, to which key, and what changed."""


def record(journal: Journal, kind: Kind, key: int, *changes: Change, now: int | None = None) -> Record:
    """Make the record of one write; ``now`` is the row's key after it."""
    row = Row(id=key)
    written = (instance_state(row), row, (key,), changes)
    return Record(kind, (key if now is None else now,), PLAN, written, journal.take_positions(1))


def write(journal: Journal, savepoint: object, *records: Record) -> None:
    """Enter what one flush wrote."""
    journal.frame(savepoint).absorb(records)


def create(journal: Journal, key: int, savepoint: object = None) -> None:
    write(journal, savepoint, record(journal, Kind.CREATED, key))


def update(journal: Journal, key: int, *changes: Change, savepoint: object = None) -> None:
    write(journal, savepoint, record(journal, Kind.UPDATED, key, *changes))


def delete(journal: Journal, key: int, savepoint: object = None) -> None:
    write(journal, savepoint, record(journal, Kind.DELETED, key))


def move(journal: Journal, key: int, now: int, savepoint: object = None) -> None:
    write(journal, savepoint, record(journal, Kind.UPDATED, key, ("id", key, now), now=now))


def told(frame: Frame) -> list[Told]:
    """What a frame tells, in order."""
    found: list[tuple[int, Told]] = []

    def tell(position: int, name: str, row: Record, changes: tuple[Change, ...] = ()) -> None:
        found.append((position, (name, row.key[0], {key: (old, new) for key, old, new in changes})))

    for row in frame.rows.values():
        if row.kind is Kind.CREATED:
            tell(row.position, "create", row)
        elif row.changes:
            tell(row.position, "update", row, row.changes)
    for row in frame.gone.values():
        tell(row.position, "delete", row)
    return [each for _, each in sorted(found, key=lambda entry: entry[0])]


# One row


def test_create_then_anything() -> None:
    """E1: create+update = CREATE, create+delete = nothing."""
    journal = Journal()
    create(journal, 1)
    update(journal, 1, ("a", None, 1))
    assert told(journal.root) == [("create", 1, {})]
    delete(journal, 1)
    assert (told(journal.root), bool(journal)) == ([], False)


def test_updates_merge() -> None:
    """E1, E2: first old to last new, without what ended where it began."""
    journal = Journal()
    update(journal, 1, ("a", 1, 2), ("b", 5, 6))
    update(journal, 1, ("a", 2, 3), ("b", 6, 5))
    assert told(journal.root) == [("update", 1, {"a": (1, 3)})]
    update(journal, 1, ("a", 3, 1))
    assert told(journal.root) == []


def test_delete_keeps_what_was_updated_before() -> None:
    """E1, N1: update+delete = DELETE, which still knows the first old values."""
    journal = Journal()
    update(journal, 1, ("a", 1, 2))
    delete(journal, 1)
    assert told(journal.root) == [("delete", 1, {})]
    assert next(iter(journal.root.gone.values())).changes == (("a", 1, 2),)


def test_delete_then_create_are_two_events_in_order() -> None:
    """E8, E9: and the row between does not count."""
    journal = Journal()
    update(journal, 1, ("a", 1, 2))
    delete(journal, 1)
    create(journal, 2)
    create(journal, 1)
    update(journal, 1, ("a", 8, 9))
    assert told(journal.root) == [("delete", 1, {}), ("create", 2, {}), ("create", 1, {})]
    delete(journal, 1)
    assert told(journal.root) == [("delete", 1, {}), ("create", 2, {})]
    create(journal, 1)
    assert told(journal.root) == [("delete", 1, {}), ("create", 2, {}), ("create", 1, {})]


# Savepoints


def test_a_dropped_savepoint_leaves_what_was_before() -> None:
    """T3: update before it and delete in it; create before and delete in it; change before and change in it."""
    journal = Journal()
    update(journal, 1, ("a", 1, 2))
    create(journal, 2)
    delete(journal, 3)
    for key in (1, 2):
        delete(journal, key, "s")
    create(journal, 3, "s")
    update(journal, 4, ("a", 1, 2), savepoint="s")
    journal.drop("s")
    assert told(journal.root) == [("update", 1, {"a": (1, 2)}), ("create", 2, {}), ("delete", 3, {})]


def test_a_released_savepoint_is_net_with_what_was_before() -> None:
    """T3: each pair of what happened before it and in it."""
    journal = Journal()
    create(journal, 1)
    create(journal, 2)
    update(journal, 3, ("a", 1, 2), ("b", 1, 2))
    update(journal, 4, ("a", 1, 2))
    delete(journal, 5)
    delete(journal, 6)
    update(journal, 1, ("a", 1, 2), savepoint="s")
    delete(journal, 2, "s")
    update(journal, 3, ("a", 2, 1), ("b", 2, 3), savepoint="s")
    delete(journal, 4, "s")
    create(journal, 5, "s")
    create(journal, 7, "s")
    journal.release("s", None)
    assert told(journal.root) == [
        ("create", 1, {}),
        ("update", 3, {"b": (1, 3)}),
        ("delete", 4, {}),
        ("delete", 5, {}),
        ("delete", 6, {}),
        ("create", 5, {}),
        ("create", 7, {}),
    ]


def test_a_row_replaced_inside_a_savepoint() -> None:
    """E8, T3: deleted and created again in it, over each thing that may have happened before it."""
    journal = Journal()
    create(journal, 1)
    update(journal, 2, ("a", 1, 2))
    delete(journal, 3)
    create(journal, 3)
    for key in (1, 2, 3, 4):
        delete(journal, key, "s")
        create(journal, key, "s")
    journal.release("s", None)
    assert sorted(told(journal.root), key=str) == [
        ("create", 1, {}),
        ("create", 2, {}),
        ("create", 3, {}),
        ("create", 4, {}),
        ("delete", 2, {}),
        ("delete", 3, {}),
        ("delete", 4, {}),
    ]


def test_nested_savepoints() -> None:
    """T3: an inner one released into an outer one that is dropped is gone."""
    journal = Journal()
    update(journal, 1, ("a", 1, 2))
    update(journal, 1, ("a", 2, 3), savepoint="outer")
    update(journal, 1, ("a", 3, 4), savepoint="inner")
    create(journal, 2, "inner")
    assert [len(frame.rows) for frame in journal.frames()] == [1, 1, 2]
    journal.release("inner", "outer")
    assert told(journal.frame("outer")) == [("update", 1, {"a": (2, 4)}), ("create", 2, {})]
    journal.drop("outer")
    assert told(journal.root) == [("update", 1, {"a": (1, 2)})]
    assert journal.nested == {}


def test_on_commit_follows_its_savepoint() -> None:
    """C7, T3: kept in order, released or dropped with its savepoint."""
    journal = Journal()

    def callback() -> None: ...

    journal.frame(None).on_commit.append((callback, (1,)))
    journal.frame("kept").on_commit.append((callback, (2,)))
    journal.frame("dropped").on_commit.append((callback, (3,)))
    journal.drop("dropped")
    journal.release("kept", None)
    assert bool(journal)
    assert journal.whole().on_commit == [(callback, (1,)), (callback, (2,))]
    journal.clear()
    assert not journal


def test_clearing_leaves_nothing_behind() -> None:
    """T9: after a commit or a rollback the journal is empty, and what was handed on stays as it was."""
    journal = Journal()
    create(journal, 1)
    journal.set_aside()
    create(journal, 2)
    create(journal, 3, "s")
    whole = journal.whole()
    journal.clear()
    assert told(whole) == [("create", 1, {}), ("create", 2, {})]
    assert (bool(journal), journal.nested, told(journal.root)) == (False, {}, [])
    journal.release("never used", None)
    journal.drop("never used")
    assert not journal


# Keys that move


def test_a_moved_row_takes_its_record_along() -> None:
    """E8: what happened to it before stays with it."""
    journal = Journal()
    update(journal, 1, ("a", 1, 2))
    move(journal, 1, 2)
    create(journal, 1)
    assert told(journal.root) == [("update", 2, {"a": (1, 2), "id": (1, 2)}), ("create", 1, {})]
    move(journal, 2, 3)
    assert told(journal.root)[0] == ("update", 3, {"a": (1, 2), "id": (1, 3)})
    delete(journal, 1)
    move(journal, 3, 1)
    assert told(journal.root) == [("update", 1, {"a": (1, 2)})]


def test_two_rows_that_exchange_their_keys_in_one_flush() -> None:
    """E8: neither record is lost."""
    journal = Journal()
    update(journal, 1, ("a", 1, 2))
    update(journal, 2, ("a", 5, 6))
    exchange = [
        record(journal, Kind.UPDATED, 1, ("id", 1, 2), now=2),
        record(journal, Kind.UPDATED, 2, ("id", 2, 1), now=1),
    ]
    write(journal, None, *exchange)
    assert told(journal.root) == [
        ("update", 2, {"a": (1, 2), "id": (1, 2)}),
        ("update", 1, {"a": (5, 6), "id": (2, 1)}),
    ]


def test_a_row_that_moves_to_the_key_of_a_deleted_one() -> None:
    """E8: the delete is not taken for its own."""
    journal = Journal()
    delete(journal, 2)
    move(journal, 1, 2)
    assert told(journal.root) == [("delete", 2, {}), ("update", 2, {"id": (1, 2)})]
    delete(journal, 2)
    assert told(journal.root) == [("delete", 2, {}), ("delete", 2, {})]


def test_a_created_row_that_took_a_deleted_ones_key_and_moved_on() -> None:
    """E8: deleting it under its new key leaves the first delete, under the old one."""
    journal = Journal()
    delete(journal, 2)
    create(journal, 2)
    move(journal, 2, 3)
    assert told(journal.root) == [("delete", 2, {}), ("create", 3, {})]
    delete(journal, 3)
    assert told(journal.root) == [("delete", 2, {})]
    create(journal, 3)
    create(journal, 2)
    assert sorted(told(journal.root), key=str) == [("create", 2, {}), ("create", 3, {}), ("delete", 2, {})]


# Changes


def test_related_objects_are_compared_by_identity() -> None:
    """E7: two equal objects are two objects."""
    first, second = [1], [1]
    merged = merge_changes(PLAN, (("parent", first, second),), (("parent", second, [1]),))
    assert [key for key, _, _ in merged] == ["parent"]
    assert merge_changes(PLAN, (("parent", first, second),), (("parent", second, first),)) == ()


def test_values_that_only_the_database_knows() -> None:
    """E4: they stay open until they are read, whatever the old value was."""
    assert merge_changes(PLAN, (("a", 1, 2),), (("a", 2, PENDING),)) == (("a", 1, PENDING),)
    assert merge_changes(PLAN, (("a", 1, PENDING),), (("a", PENDING, 3),)) == (("a", 1, 3),)
    assert merge_changes(PLAN, (("a", 1, PENDING),), (("a", PENDING, 1),)) == ()


def test_members_of_collections() -> None:
    """E7: who left and came back did neither; order is that of what happened."""
    a, b, c, d = (object() for _ in range(4))
    first = Members([a], [b, c])
    then = first.then(Members([b], [a, d]))
    assert (then.removed, then.added) == ([], [c, d])
    then = then.then(Members([c, d, a], []))
    assert (then.removed, then.added) == ([a], [])
    assert not then.then(Members([], [a]))
    change = merge_changes(PLAN, (("members", None, Members([a], [])),), (("members", None, Members([], [a])),))
    assert change == ()


# Against a model that only knows the rows before and the rows after

Values: TypeAlias = dict[str, int]


@dataclass
class Table:
    """The rows there are: by key, which row it is and what it holds; and the last key of those that are gone."""

    rows: dict[int, tuple[str, Values]] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)


BEFORE = Table({key: (f"before {key}", {"a": key, "b": 0}) for key in (1, 2, 3)})


def expected(table: Table) -> list[Told]:
    """Compare the rows after with the rows before, row by row."""
    found: list[Told] = []
    after = {name: (key, values) for key, (name, values) in table.rows.items()}
    for key, (name, values) in BEFORE.rows.items():
        if name not in after:
            found.append(("delete", table.gone[name], {}))
            continue
        now, new = after[name]
        pairs = {"id": (key, now), **{attribute: (values[attribute], new[attribute]) for attribute in values}}
        changes: dict[str, tuple[object, object]] = {
            attribute: (old, current) for attribute, (old, current) in pairs.items() if old != current
        }
        if changes:
            found.append(("update", now, changes))
    found += [("create", key, {}) for name, (key, _) in after.items() if not name.startswith("before")]
    return sorted(found, key=str)


class Program:
    """Carries out the same steps on the journal and on the table."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.table = copy.deepcopy(BEFORE)
        self.stack: list[tuple[str, Table]] = []
        self.count = 0

    @property
    def savepoint(self) -> str | None:
        return self.stack[-1][0] if self.stack else None

    def step(self, verb: str, key: int, other: int) -> None:
        getattr(self, verb)(key, other)

    def create(self, key: int, value: int) -> None:
        if key not in self.table.rows:
            self.count += 1
            self.table.rows[key] = (f"new {self.count}", {"a": value, "b": value})
            create(self.journal, key, self.savepoint)

    def update(self, key: int, value: int) -> None:
        if key in self.table.rows and self.table.rows[key][1]["a"] != value:
            values = self.table.rows[key][1]
            update(self.journal, key, ("a", values["a"], value), savepoint=self.savepoint)
            values["a"] = value

    def delete(self, key: int, _: int) -> None:
        if key in self.table.rows:
            name = self.table.rows.pop(key)[0]
            self.table.gone[name] = key
            delete(self.journal, key, self.savepoint)

    def move(self, key: int, now: int) -> None:
        if key in self.table.rows and now not in self.table.rows:
            self.table.rows[now] = self.table.rows.pop(key)
            move(self.journal, key, now, self.savepoint)

    def exchange(self, key: int, other: int) -> None:
        rows = self.table.rows
        if key != other and key in rows and other in rows:
            rows[key], rows[other] = rows[other], rows[key]
            journal = self.journal
            records = [
                record(journal, Kind.UPDATED, old, ("id", old, new), now=new)
                for old, new in ((key, other), (other, key))
            ]
            write(journal, self.savepoint, *records)

    def begin(self, _: int, __: int) -> None:
        if len(self.stack) < 3:
            self.count += 1
            self.stack.append((f"savepoint {self.count}", copy.deepcopy(self.table)))

    def release(self, _: int, __: int) -> None:
        if self.stack:
            name, _table = self.stack.pop()
            self.journal.release(name, self.savepoint)

    def rollback(self, _: int, __: int) -> None:
        if self.stack:
            name, self.table = self.stack.pop()
            self.journal.drop(name)

    def finish(self) -> None:
        while self.stack:
            self.release(0, 0)


VERBS = ("create", "update", "delete", "move", "exchange", "begin", "release", "rollback")
STEPS = st.lists(st.tuples(st.sampled_from(VERBS), st.integers(1, 4), st.integers(1, 4)), max_size=25)


@settings(max_examples=400, deadline=None)
@given(STEPS)
@example([("delete", 2, 0), ("create", 2, 0), ("move", 2, 4), ("delete", 4, 0)])
@example([("move", 1, 4), ("begin", 0, 0), ("exchange", 2, 4), ("release", 0, 0), ("move", 3, 1)])
@example([("delete", 1, 0), ("begin", 0, 0), ("move", 2, 1), ("create", 2, 0), ("release", 0, 0), ("delete", 1, 0)])
@example([("begin", 0, 0), ("exchange", 1, 2), ("delete", 1, 0), ("create", 1, 1), ("exchange", 1, 2)])
@example([("begin", 0, 0), ("delete", 1, 0), ("create", 1, 0), ("move", 1, 4), ("release", 0, 0), ("delete", 4, 0)])
def test_any_program_tells_the_difference_of_the_rows(steps: list[tuple[str, int, int]]) -> None:
    """E1, E2, E8, T3: whatever happens in whatever savepoints, the events are the rows after less the rows before."""
    program = Program()
    for step in steps:
        program.step(*step)
    program.finish()
    assert sorted(told(program.journal.whole()), key=str) == expected(program.table)


@pytest.mark.parametrize("kinds", [(Kind.CREATED, Kind.UPDATED), (Kind.UPDATED, Kind.DELETED)])
def test_order_is_that_of_the_first_touch(kinds: tuple[Kind, Kind]) -> None:
    """E9: positions are those of the first record of each row, also over a released savepoint."""
    journal = Journal()
    first, then = kinds
    change: tuple[Any, ...] = (("a", 1, 2),) if first is Kind.UPDATED else ()
    write(journal, "s", record(journal, first, 1, *change))
    update(journal, 2, ("a", 1, 2), savepoint="s")
    journal.release("s", None)
    update(journal, 3, ("a", 1, 2))
    write(journal, None, record(journal, then, 1))
    assert [key for _, key, _ in told(journal.root)] == [1, 2, 3]
