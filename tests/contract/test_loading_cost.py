"""Rule E12: how much SQL it costs that callbacks can read the object, and that none comes after COMMIT."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import CHAR, ForeignKey, String, func, insert, inspect, select, text, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
)

from fastapi_toolsets.events.bulk.statements import may_undo, may_write
from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, Base, Order, created, deleted, table_of, updated

Shown = list[tuple[str, dict[str, Any]]]


def columns_of(obj: object) -> dict[str, Any]:
    """Read every column as a callback does: through the attribute."""
    return {attribute.key: getattr(obj, attribute.key) for attribute in inspect(obj).mapper.column_attrs}


def show_columns(target: type[object], shown: Shown, *, asynchronous: bool = True) -> None:
    """Register a callback that reads every column; async by default, where a lazy load could not do its I/O."""

    async def read(obj: object, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((event_type.value, columns_of(obj)))

    def read_directly(obj: object, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((event_type.value, columns_of(obj)))

    listens_for(target)(read if asynchronous else read_directly)


def row(**values: object) -> dict[str, Any]:
    """All columns of an order."""
    return {"id": 1, "status": "new", "quantity": 1, "note": None, "memo": None, **values}


def note_of(_: Session, order: Order) -> str | None:
    """Read a column where I/O is possible on either front-end."""
    return order.note


def verbs(sent: list[str]) -> list[str]:
    """The first word of each statement."""
    return [statement.split()[0] for statement in sent]


class FamilyBase(DeclarativeBase):
    type_annotation_map = TYPES


class Parent(FamilyBase):
    __tablename__ = "parents"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]
    stamp: Mapped[str | None] = mapped_column(String(20), server_default="db")
    children: Mapped[list[Child]] = relationship(back_populates="parent", order_by="Child.id")


class Child(FamilyBase):
    __tablename__ = "children"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("parents.id"))
    name: Mapped[str | None]
    stamp: Mapped[str | None] = mapped_column(String(20), server_default="db", onupdate=func.lower("UP"))
    parent: Mapped[Parent | None] = relationship(back_populates="children")


@scenario(Base.metadata)
async def test_no_sql_when_everything_is_loaded(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: exactly the statements that a plain session sends."""
    recorder.listen(Order)
    show_columns(Order, [])
    order, second = Order(id=1, status="new", memo="m"), Order(id=2, status="new", note="n", memo="m")
    await front.add_all([order, second])
    with front.statements(boundaries=True) as sent:
        await front.commit()
    assert (verbs(sent)[-1], "SELECT" in verbs(sent)) == ("COMMIT", False)
    await front.refresh(order, ["memo"])
    order.status = "paid"
    with front.statements(boundaries=True) as sent:
        await front.commit()
    assert verbs(sent) == ["UPDATE", "COMMIT"]
    await front.delete(order)
    with front.statements(boundaries=True) as sent:
        await front.commit()
    assert verbs(sent) == ["DELETE", "COMMIT"]
    assert [event[0] for event in recorder.take()] == ["create", "create", "update", "delete"]


@scenario(Base.metadata)
async def test_nothing_is_selected_after_the_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: what is missing is read inside the transaction, in one SELECT before and one after the flush at most."""
    shown: Shown = []
    await front.add_all([Order(id=key, status="new", memo="m") for key in range(1, 21)])
    await front.commit()
    await front.expunge_all()
    show_columns(Order, shown)
    recorder.listen(Order)
    orders = list(await front.scalars(select(Order)))
    await front.expire_all()
    for order in orders:
        order.status = "paid"
    with front.statements(boundaries=True) as sent:
        await front.commit()
    assert verbs(sent)[-1] == "COMMIT"
    assert verbs(sent).count("SELECT") == 1
    assert sorted(recorder.take(), key=lambda event: int(str(event[2]))) == [
        updated(Order, key, status=("new", "paid")) for key in range(1, 21)
    ]
    assert sorted(columns["id"] for _, columns in shown) == list(range(1, 21))


@pytest.mark.parametrize("rows", [1200])
@scenario(Base.metadata)
async def test_one_select_for_each_500_rows(front: FrontEnd, recorder: EventRecorder, rows: int) -> None:
    """E12: 1,200 rows take three SELECTs of a mapper, for updates, deletes and expressions alike."""
    recorder.listen(Order)
    await front.add_all([Order(id=key, status="new", memo="m") for key in range(1, rows + 1)])
    with front.statements(boundaries=True) as sent:
        await front.commit()
    assert (verbs(sent).count("SELECT"), verbs(sent)[-1]) == (0, "COMMIT")
    assert recorder.take() == [created(Order, key) for key in range(1, rows + 1)]
    orders: list[Any] = list(await front.scalars(select(Order).order_by(Order.id)))
    await front.expire_all()
    for order in orders:
        order.status = "paid"
    with front.statements(boundaries=True) as sent:
        await front.commit()
    assert (verbs(sent).count("SELECT"), verbs(sent)[-1]) == (3, "COMMIT")
    taken = sorted(recorder.take(), key=lambda event: int(str(event[2])))
    assert taken == [updated(Order, key, status=("new", "paid")) for key in range(1, rows + 1)]
    await front.expire_all()
    session = front.sync_session

    def delete_all(_: object) -> None:
        for order in orders:
            session._delete_impl(inspect(order), order, head=True)  # noqa: SLF001 - delete() reads each by itself

    with front.statements(boundaries=True) as sent:
        await front.run_sync(delete_all)
        await front.commit()
    assert (verbs(sent).count("SELECT"), verbs(sent)[-1]) == (3, "COMMIT")
    taken = sorted(recorder.take(), key=lambda event: int(str(event[2])))
    assert taken == [deleted(Order, key) for key in range(1, rows + 1)]


@scenario(Base.metadata, databases=LOCAL)
async def test_exactly_500_rows_take_one_select(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: 500 rows one SELECT, 501 two."""
    recorder.listen(Order)
    await front.add_all([Order(id=key, status="new") for key in range(1, 502)])
    await front.commit()
    orders: list[Order] = list(await front.scalars(select(Order).order_by(Order.id)))
    counts: list[int] = []
    for number in (500, 501):
        await front.expire_all()
        for order in orders[:number]:
            order.note = str(number)
        with front.statements() as sent:
            await front.commit()
        counts.append(verbs(sent).count("SELECT"))
    assert counts == [1, 2]


@scenario(FamilyBase.metadata)
async def test_one_select_for_each_mapper(front: FrontEnd) -> None:
    """E12: several mappers, each with values that only the database knows."""
    shown: Shown = []
    await front.add_all([Parent(id=1), Parent(id=2), Child(id=1), Child(id=2), Child(id=3)])
    await front.commit()
    show_columns(FamilyBase, shown)
    parents, children = list(await front.scalars(select(Parent))), list(await front.scalars(select(Child)))
    await front.expire_all()
    for each in (*parents, *children):
        each.name = "x"
    with front.statements(boundaries=True) as sent:
        await front.commit()
    selects = [statement for statement in sent if statement.startswith("SELECT")]
    assert verbs(sent)[-1] == "COMMIT"
    assert len([statement for statement in selects if "FROM parents" in statement]) == 1
    assert len([statement for statement in selects if "FROM children" in statement]) <= 2  # before and after the flush
    assert len(shown) == 5
    assert {columns["stamp"] for _, columns in shown} == {"db", "up"}


@scenario(FamilyBase.metadata)
async def test_reading_what_the_database_made_at_an_insert(front: FrontEnd) -> None:
    """E12: server defaults that the driver does not return take one SELECT for all rows, before the COMMIT."""
    shown: Shown = []
    show_columns(Parent, shown)
    await front.add_all([Parent(id=key) for key in range(1, 11)])
    with front.statements(boundaries=True) as sent:
        await front.commit()
    assert verbs(sent)[-1] == "COMMIT"
    assert verbs(sent).count("SELECT") <= 1
    assert shown == [("create", {"id": key, "name": None, "stamp": "db"}) for key in range(1, 11)]


@scenario(Base.metadata, databases=LOCAL)
async def test_changes_that_nobody_hears_of_cost_nothing(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12, T7: nobody listens, or not to this kind of event: the same SQL as on a plain session."""
    await front.add_all([Order(id=key, status="new") for key in (1, 2)])
    await front.commit()
    sent_by: list[list[str]] = []
    for session, listening in ((front.plain_session(), False), (front, False), (front, True)):
        if listening:
            recorder.listen(Order, ModelEvent.CREATE)
        await session.expunge_all()
        order, second = await session.get_one(Order, 1), await session.get_one(Order, 2)
        await session.expire_all()
        order.status = second.status = f"changed {len(sent_by)}"
        with front.statements(boundaries=True) as sent:
            await session.commit()
        sent_by.append(sent)
    assert sent_by == [sent_by[0]] * 3
    assert recorder.take() == []


class Log(FamilyBase):
    __tablename__ = "logs"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


LOGS = table_of(Log)


async def insert_of_model(front: FrontEnd) -> None:
    await front.execute(insert(Log), [{"id": 1}, {"id": 2}])


async def insert_into_table(front: FrontEnd) -> None:
    await front.execute(LOGS.insert(), [{"id": 1}])


async def insert_or_nothing(front: FrontEnd) -> None:
    await front.execute(sqlite_insert(Log).values(id=1).on_conflict_do_nothing())


async def bulk_insert(front: FrontEnd) -> None:
    def write(session: Session) -> None:
        session.bulk_insert_mappings(inspect(Log), [{"id": 1}])

    await front.run_sync(write)


async def bulk_save(front: FrontEnd) -> None:
    def write(session: Session) -> None:
        session.bulk_save_objects([Log(id=1)])

    await front.run_sync(write)


async def insert_on_connection(front: FrontEnd) -> None:
    def write(session: Session) -> None:
        session.connection().execute(insert(Log), [{"id": 1}])

    await front.run_sync(write)


async def commit_after(
    write: Callable[[FrontEnd], Awaitable[None]], front: FrontEnd, recorder: EventRecorder
) -> list[str]:
    """Flush rows, write others, and return what the commit sends that tells of the first."""
    recorder.listen(Parent)
    await front.add_all([Parent(id=key, name="a", stamp="s") for key in (1, 2)])
    await front.flush()
    await write(front)
    with front.statements() as sent:
        await front.commit()
    assert recorder.take() == [created(Parent, 1), created(Parent, 2)]
    return sent


ELSEWHERE = [insert_of_model, insert_into_table, insert_or_nothing, bulk_insert, bulk_save, insert_on_connection]


@pytest.mark.parametrize("write", ELSEWHERE)
@scenario(FamilyBase.metadata, databases=LOCAL)
async def test_an_insert_that_nobody_hears_of_is_no_reason_to_read(
    front: FrontEnd, recorder: EventRecorder, write: Callable[[FrontEnd], Awaitable[None]]
) -> None:
    """E12: rows that a statement adds to another table change none that the flushes have written."""
    sent = await commit_after(write, front, recorder)
    assert sent == []


async def insert_of_parent(front: FrontEnd) -> None:
    await front.execute(insert(Parent).execution_options(events=False), [{"id": 3, "name": "b"}])


async def upsert(front: FrontEnd) -> None:
    await front.execute(sqlite_insert(Log).values(id=1).on_conflict_do_update(index_elements=["id"], set_={"id": 2}))


async def replace(front: FrontEnd) -> None:
    await front.execute(insert(Log).prefix_with("OR REPLACE").values(id=1))


@pytest.mark.parametrize("write", [insert_of_parent, upsert, replace])
@scenario(FamilyBase.metadata, databases=LOCAL)
async def test_an_insert_that_may_change_a_row_is_a_reason_to_read(
    front: FrontEnd, recorder: EventRecorder, write: Callable[[FrontEnd], Awaitable[None]]
) -> None:
    """E11: one into the same table, and one in place of another row, which rows of other tables may follow."""
    sent = await commit_after(write, front, recorder)
    assert verbs(sent) == ["SELECT"]


WORDS = [
    ("/* route=/orders */ SELECT 1", False),
    ("-- name: first\n/**/ (\n-- another\nSELECT 1) /* UPDATE", False),
    ("WITH x AS (SELECT 1) SELECT * FROM x", False),
    ("SAVEPOINT here", False),
    ("RELEASE SAVEPOINT here", False),
    ("/* */ UPDATE orders SET status = 'x'", True),
    ("/* a /* b */ SELECT */ UPDATE orders SET status = 'x'", True),
    ("/*! UPDATE orders SET status = 'x' */ SELECT 1", True),
    ("/*M! UPDATE orders SET status = 'x' */ SELECT 1", True),
    ("-- SELECT", True),
    ("/* SELECT", True),
    ("WITH x AS (UPDATE orders SET status = 'x' RETURNING id) SELECT * FROM x", True),
    ("with x as (select 1) insert into orders select * from x", True),
]


@pytest.mark.parametrize(("words", "writes"), WORDS)
def test_which_words_may_write(words: str, *, writes: bool) -> None:
    """E12: comments come before the words of many programs, and reading is no reason to read again."""
    assert (may_write(text(words)), may_write(words)) == (writes, writes)


@pytest.mark.parametrize("words", ["/* x */ ROLLBACK TO here", "rollback to here", "-- x\n (ROLLBACK"])
def test_which_words_may_take_back(words: str) -> None:
    """T2: also behind a comment."""
    assert (may_undo(text(words)), may_write(text(words))) == (True, True)


class Node(FamilyBase):
    """One table for several classes, whose rows refer to each other."""

    __tablename__ = "nodes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    name: Mapped[str | None]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id"))
    stamp: Mapped[str | None] = mapped_column(String(20), onupdate=func.lower("UP"))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "node"}  # noqa: RUF012 - SQLAlchemy reads it


class Folder(Node):
    __mapper_args__ = {"polymorphic_identity": "folder"}  # noqa: RUF012 - SQLAlchemy reads it


class File(Node):
    __mapper_args__ = {"polymorphic_identity": "file"}  # noqa: RUF012 - SQLAlchemy reads it


@scenario(FamilyBase.metadata, databases=LOCAL)
async def test_one_select_for_each_mapper_of_a_tree(front: FrontEnd, recorder: EventRecorder) -> None:
    """E9, E12: where rows of several classes come by turns, those of one are still read together."""
    shown: Shown = []
    await front.add_all([(Folder, File)[key % 2](id=key, parent_id=key - 1 or None) for key in range(1, 21)])
    await front.commit()
    nodes = list(await front.scalars(select(Node).order_by(Node.id)))
    show_columns(Node, shown)
    recorder.listen(Node)
    for node in nodes:
        node.name = "x"
    with front.statements() as sent:
        await front.commit()
    assert sorted(verbs(sent)) == ["SELECT", "SELECT", "UPDATE"]
    assert recorder.take() == [
        updated((Folder, File)[key % 2], key, name=(None, "x"), stamp=(None, "up")) for key in range(1, 21)
    ]
    assert [(columns["id"], columns["stamp"]) for _, columns in shown] == [(key, "up") for key in range(1, 21)]


@scenario(FamilyBase.metadata, databases=LOCAL)
async def test_one_select_for_all_that_were_expunged_and_changed(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: objects that were changed after they were expunged are told of by copies, read together."""
    await front.add_all([Child(id=key, name="a") for key in range(1, 21)])
    await front.commit()
    children = list(await front.scalars(select(Child).order_by(Child.id)))
    shown: Shown = []
    show_columns(Child, shown)
    for child in children:
        child.name = "b"
    await front.flush()
    await front.expunge_all()
    for child in children:
        child.name = "mine"
    with front.statements() as sent:
        await front.commit()
    assert verbs(sent) == ["SELECT"]
    assert shown == [("update", {"id": key, "parent_id": None, "name": "b", "stamp": "up"}) for key in range(1, 21)]
    assert {child.name for child in children} == {"mine"}


class Code(FamilyBase):
    """The database writes its keys otherwise than they are given: padded, or as texts."""

    __tablename__ = "codes"
    __bulk_events__ = True
    id: Mapped[Any] = mapped_column(CHAR(8), primary_key=True)
    name: Mapped[str | None]


@scenario(FamilyBase.metadata, databases=("sqlite", "postgresql"))
async def test_keys_that_the_database_writes_otherwise_are_not_read_one_by_one(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """E12: another SELECT says which row is whose, for all of them."""
    keys: list[Any] = [number if front.database.name == "sqlite" else f"k{number}" for number in range(12, 32)]
    recorder.listen(Code)
    await front.add_all([Code(id=key, name="a") for key in keys])
    await front.flush()
    await front.execute(text("UPDATE codes SET name = 'b'"))
    with front.statements() as sent:
        await front.commit()
    assert verbs(sent) == ["SELECT", "SELECT"]
    assert recorder.take() == [created(Code, str(key).ljust(8 * (front.database.name != "sqlite"))) for key in keys]
    await front.expunge_all()
    with front.statements() as sent:
        await front.execute(update(Code), [{"id": key, "name": "c"} for key in reversed(keys)])
    assert [verb for verb in verbs(sent) if verb == "SELECT"] == ["SELECT", "SELECT"]
    await front.commit()
    assert [event[3] for event in recorder.take()] == [{"name": {"old": "b", "new": "c"}}] * len(keys)


@scenario(FamilyBase.metadata)
async def test_reassigning_what_is_loaded_reads_nothing(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: neither what the row refers to nor what its UPDATE sets by itself, where the object knows both."""
    parents = [Parent(id=1), Parent(id=2)]
    child = Child(id=1, parent=parents[0])
    await front.add_all([*parents, child])
    await front.commit()
    await front.refresh(child)
    await front.refresh(child, ["parent"])
    recorder.listen(Child)
    child.parent = parents[1]
    with front.statements() as sent:
        await front.flush()
    assert verbs(sent) == ["UPDATE"]
    await front.commit()
    assert recorder.take() == [updated(Child, 1, parent_id=(1, 2), stamp=("db", "up"))]


@scenario(FamilyBase.metadata)
async def test_what_was_loaded_after_each_flush_is_not_read_again(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: a row that was written twice has its new values, once its object was refreshed."""
    child = Child(id=1, name="a")
    await front.add(child)
    await front.commit()
    await front.refresh(child)
    recorder.listen(Child)
    for name in ("b", "c"):
        child.name = name
        await front.flush()
        await front.refresh(child)
    with front.statements() as sent:
        await front.commit()
    assert sent == []
    assert recorder.take() == [updated(Child, 1, name=("a", "c"), stamp=("db", "up"))]


@pytest.mark.filterwarnings("ignore:DELETE statement on table:sqlalchemy.exc.SAWarning")
@scenario(FamilyBase.metadata, databases=LOCAL)
async def test_unheard_row_that_is_deleted_twice(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1: SQLAlchemy warns; others of the same flush are told."""
    child, parent = Child(id=1, name="a"), Parent(id=1)
    await front.add_all([child, parent])
    await front.commit()
    await front.refresh(child)
    recorder.listen(Child)
    await front.delete(parent)
    await front.flush()
    await front.delete(parent)
    child.name = "b"
    await front.commit()
    assert recorder.take() == [updated(Child, 1, name=("a", "b"), stamp=("db", "up"))]
