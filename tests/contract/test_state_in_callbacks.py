"""Rule E11: what callbacks read of the object."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Executable, ForeignKey, String, delete, func, inspect, select, text, update
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    load_only,
    make_transient,
    mapped_column,
    relationship,
    selectinload,
)

from fastapi_toolsets.models import Changes, EventSession, ModelEvent, Phase, SyncEventSession, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from ..session_adapter import resolve
from . import bulk_models, transaction_models
from .event_models import Base, Order, created, table_of, updated

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


@scenario(Base.metadata)
async def test_every_column_is_readable(front: FrontEnd) -> None:
    """E11: without I/O, as committed: created, updated and deleted objects, deferred columns too."""
    shown: Shown = []
    show_columns(Order, shown)
    order = Order(id=1, status="new", memo="m")
    await front.add(order)
    await front.commit()
    order.status = "paid"
    await front.commit()
    await front.delete(order)
    await front.commit()
    assert shown == [
        ("create", row(memo="m")),
        ("update", row(memo="m", status="paid")),
        ("delete", row(memo="m", status="paid")),
    ]


@scenario(Base.metadata, expire_on_commit=True)
async def test_every_column_is_readable_with_expire_on_commit(front: FrontEnd) -> None:
    """E11: the same, and after the callbacks the objects are expired as on a plain session."""
    shown: Shown = []
    show_columns(Order, shown)
    order, bystander = Order(id=1, status="new", memo="m"), Order(id=2, status="old")
    await front.add_all([order, bystander])
    await front.commit()
    assert [set(vars(each)) for each in (order, bystander)] == [{"_sa_instance_state"}, {"_sa_instance_state"}]
    assert shown == [("create", row(memo="m")), ("create", row(id=2, status="old"))]
    await front.refresh(order)
    await front.refresh(bystander)
    order.status = "paid"
    await front.commit()
    assert shown[2:] == [("update", row(memo="m", status="paid"))]
    assert [inspect(each).unloaded >= {"id", "status", "note"} for each in (order, bystander)] == [True, True]
    await front.delete(order)
    await front.commit()
    assert shown[3:] == [("delete", row(memo="m", status="paid"))]


@scenario(Base.metadata)
async def test_columns_that_were_not_loaded(front: FrontEnd) -> None:
    """E11: expired before or after the flush, deferred, left out of the query, or only half loaded."""
    shown: Shown = []
    await front.add(Order(id=1, status="new", note="n", memo="m"))
    await front.commit()
    await front.expunge_all()
    show_columns(Order, shown)
    order = await front.scalar(select(Order).options(load_only(Order.id)))
    order.quantity = 2
    await front.commit()
    order.quantity = 3
    await front.flush()
    await front.expire(order)
    await front.commit()
    await front.expire(order)
    order.quantity = 4
    await front.flush()
    await front.expire(order, ["note", "quantity"])
    await front.commit()
    full = {"note": "n", "memo": "m"}
    assert shown == [("update", row(quantity=quantity, **full)) for quantity in (2, 3, 4)]


@scenario(Base.metadata)
async def test_a_deleted_object_shows_its_last_row(front: FrontEnd) -> None:
    """E11: also if it was expired or never loaded, or changed without a flush, when ``delete()`` was called."""
    shown: Shown = []
    await front.add_all([Order(id=key, status="new", note="n", memo="m") for key in (1, 2, 3, 4, 5)])
    await front.commit()
    await front.expunge_all()
    show_columns(Order, shown)
    expired = await front.get_one(Order, 1)
    await front.expire(expired)
    await front.delete(expired)
    await front.commit()
    partly = (await front.scalars(select(Order).where(Order.id == 2).options(load_only(Order.id)))).one()
    await front.delete(partly)
    await front.commit()
    changed = await front.get_one(Order, 3)
    changed.status, changed.memo = "never written", "never written"
    await front.delete(changed)
    await front.commit()
    expired_and_changed = await front.get_one(Order, 4)
    await front.expire(expired_and_changed)
    expired_and_changed.status = "never written"
    await front.delete(expired_and_changed)
    await front.commit()
    flushed = await front.get_one(Order, 5)
    flushed.status = "written"
    await front.flush()
    await front.delete(flushed)
    await front.flush()
    await front.commit()
    last = {"note": "n", "memo": "m"}
    assert shown == [
        *(("delete", row(id=key, **last)) for key in (1, 2, 3, 4)),
        ("delete", row(id=5, status="written", **last)),
    ]


@scenario(Base.metadata, expire_on_commit=True)
async def test_a_deleted_object_keeps_its_last_row_afterwards(front: FrontEnd) -> None:
    """E11: after the callbacks it is detached, as on a plain session."""
    shown: Shown = []
    order = Order(id=1, status="new")
    await front.add(order)
    await front.commit()
    show_columns(Order, shown)
    await front.delete(order)
    await front.commit()
    assert shown == [("delete", row())]
    assert (inspect(order).detached, order in front.session) == (True, False)


@scenario(Base.metadata)
async def test_what_a_core_statement_wrote_after_the_flush(front: FrontEnd, recorder: EventRecorder) -> None:
    """E11: the committed state, also where a statement wrote the row behind the object's back."""
    shown: Shown = []
    order, other = Order(id=1, status="new"), Order(id=2, status="new")
    await front.add_all([order, other])
    await front.commit()
    show_columns(Order, shown)
    recorder.listen(Order)
    order.status = "paid"
    await front.flush()
    statement = table_of(Order).update().values(note="raw", quantity=9)
    await front.execute(statement, execution_options={"events": False})
    await front.commit()
    assert shown == [("update", row(status="paid", note="raw", quantity=9))]
    assert [(event[0], event[2]) for event in recorder.take()] == [("update", 1)]
    await front.add(Order(id=3, status="new"))
    await front.flush()
    connection: Any = await front.connection()
    statement = table_of(Order).update().where(Order.id == 3).values(note="raw")
    await front.execute(statement, execution_options={"events": False})
    await front.commit()
    assert shown[1:] == [("create", row(id=3, note="raw"))]
    assert connection is not None


ORDERS = table_of(Order)


@pytest.mark.parametrize(
    "statement",
    [
        text(f"DELETE FROM {ORDERS.name} WHERE id IN (1, 3)"),
        ORDERS.delete().where(ORDERS.c.id.in_([1, 3])),
        delete(Order).where(Order.id.in_([1, 3])),
    ],
    ids=["text", "core", "orm"],
)
@scenario(Base.metadata)
async def test_rows_that_a_statement_has_deleted_again(
    front: FrontEnd, recorder: EventRecorder, statement: Executable
) -> None:
    """T2: what was created or updated before and is not there when the transaction commits is not told."""
    first = Order(id=1, status="new")
    await front.add_all([first, Order(id=2, status="new")])
    await front.commit()
    recorder.listen(Order)
    first.status = "paid"
    await front.add_all([Order(id=3, status="new"), Order(id=4, status="new")])
    await front.flush()
    await front.execute(statement, execution_options={"events": False})
    await front.commit()
    assert recorder.take() == [created(Order, 4)]


@scenario(Base.metadata)
async def test_rows_that_a_rollback_in_words_has_taken(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2: neither are those that a statement nobody understands has taken back."""
    first, other = Order(id=1, status="new"), Order(id=4, status="new")
    await front.add_all([first, other])
    await front.commit()
    recorder.listen(Order)
    await front.add(Order(id=2, status="new"))
    await front.flush()
    await front.execute(text("SAVEPOINT by_hand"))
    first.status = "paid"
    await front.add(Order(id=3, status="new"))
    await front.delete(other)
    await front.flush()
    await front.execute(text("ROLLBACK TO SAVEPOINT by_hand"))
    await front.commit()
    assert recorder.take() == [created(Order, 2)]


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


@pytest.mark.parametrize("expires", [False, True])
@scenario(FamilyBase.metadata)
async def test_relationships_that_were_loaded_stay_loaded(front: FrontEnd, expires: object) -> None:
    """E11: in the callbacks, with ``expire_on_commit`` on or off, and through objects without an event."""
    shown: list[tuple[object, ...]] = []

    async def read_parent(parent: Parent, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((event_type.value, parent.name, [child.id for child in parent.children]))

    async def read_child(child: Child, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((event_type.value, child.name, child.parent and child.parent.id))

    listens_for(Parent)(read_parent)
    listens_for(Child)(read_child)
    session = front.new_session(expire_on_commit=expires)
    await session.add(Parent(id=1, name="p", children=[Child(id=1, name="c"), Child(id=2, name="d")]))
    await session.commit()
    assert shown == [("create", "p", [1, 2]), ("create", "c", 1), ("create", "d", 1)]
    shown.clear()
    await session.expunge_all()
    parent = (await session.scalars(select(Parent).options(selectinload(Parent.children)))).one()
    parent.children[1].name = "e"
    parent.name = "q"
    await session.commit()
    assert shown == [("update", "q", [1, 2]), ("update", "e", 1)]
    assert ("children" in inspect(parent).unloaded) is expires


@scenario(Base.metadata, expire_on_commit=True)
async def test_expiry_holds_after_the_callbacks(front: FrontEnd) -> None:
    """E11: the session's own setting is what it was, and expired objects read fresh values."""
    order = Order(id=1, status="new")
    shown: Shown = []
    show_columns(Order, shown)
    await front.add(order)
    await front.commit()
    assert front.sync_session.expire_on_commit is True
    other = front.plain_session()
    await other.execute(update(Order).values(note="elsewhere"), execution_options={"events": False})
    await other.commit()
    assert await front.run_sync(note_of, order) == "elsewhere"
    await front.commit()
    assert set(vars(order)) == {"_sa_instance_state"}


@scenario(Base.metadata)
async def test_no_expiry_where_it_is_off(front: FrontEnd) -> None:
    """E11: with ``expire_on_commit`` off objects stay loaded after the callbacks, touched or not."""
    shown: Shown = []
    show_columns(Order, shown)
    order, bystander = Order(id=1, status="new"), Order(id=2, status="new")
    await front.add_all([order, bystander])
    await front.commit()
    order.status = "paid"
    await front.commit()
    assert (order.status, bystander.status) == ("paid", "new")
    assert front.sync_session.expire_on_commit is False


@scenario(Base.metadata)
async def test_what_a_callback_commits_does_not_change_waiting_events(front: FrontEnd, recorder: EventRecorder) -> None:
    """E11: ``changes`` of the events that still wait stay those of their own commit, and objects show the rows."""
    orders = [Order(id=key, status="new") for key in (1, 2)]
    await front.add_all(orders)
    await front.commit()
    written: list[object] = []

    @listens_for(Order, ModelEvent.UPDATE)
    async def write(
        order: Order, event_type: ModelEvent, changes: Changes, *, session: EventSession | SyncEventSession
    ) -> None:
        if not written:
            written.append(order.id)
            orders[1].status = "by the callback"
            orders[1].note = "too"
            await resolve(session.commit())

    recorder.listen(Order)
    shown: Shown = []
    show_columns(Order, shown, asynchronous=False)
    for order in orders:
        order.status = "paid"
    await front.commit()
    assert recorder.take() == [
        updated(Order, 1, status=("new", "paid")),
        updated(Order, 2, status=("new", "paid")),
        updated(Order, 2, status=("paid", "by the callback"), note=(None, "too")),
    ]
    by_callback = ("update", row(id=2, status="by the callback", note="too"))
    assert shown == [("update", row(status="paid")), by_callback, by_callback]


@pytest.mark.parametrize("phase", [Phase.BEFORE_COMMIT, Phase.AFTER_COMMIT])
@scenario(Base.metadata)
async def test_deleted_object_that_is_assigned_to(front: FrontEnd, phase: Phase) -> None:
    """E11: what is assigned to it after the flush, or by the callback before, was never written."""
    shown: Shown = []

    @listens_for(Order, ModelEvent.DELETE, phase=phase)
    def read(order: Order, event_type: ModelEvent, changes: None) -> None:
        shown.append((event_type.value, columns_of(order)))
        order.note = "by the first callback"

    @listens_for(Order, ModelEvent.DELETE, phase=phase)
    async def read_again(order: Order, event_type: ModelEvent, changes: None) -> None:
        shown.append((event_type.value, columns_of(order)))

    order = Order(id=1, status="new", memo="m")
    await front.add(order)
    await front.commit()
    await front.delete(order)
    await front.flush()
    order.status = "after the flush"
    await front.commit()
    assert shown == [("delete", row(memo="m"))] * 2


@scenario(transaction_models.Base.metadata)
async def test_objects_that_are_made_transient(front: FrontEnd) -> None:
    """E10, E11: between flush and COMMIT, loaded or expired, which SQLAlchemy then forgets."""
    shown: Shown = []
    show_columns(transaction_models.Order, shown)
    orders = [transaction_models.Order(id=key) for key in (1, 2)]
    await front.add_all(orders)
    await front.flush()
    await front.expire(orders[0])
    for order in orders:
        make_transient(order)
    await front.commit()
    assert shown == [("create", {"id": key, "status": "new", "quantity": 0}) for key in (1, 2)]
    order = await front.get_one(transaction_models.Order, 1)
    order.status = "paid"
    await front.flush()
    await front.expire(order)
    make_transient(order)
    await front.commit()
    assert shown[2:] == [("update", {"id": 1, "status": "paid", "quantity": 0})]


@scenario(transaction_models.Base.metadata)
async def test_transient_object_whose_row_is_written_again(front: FrontEnd) -> None:
    """E10, E11: callbacks are shown the row, and the object that was made transient stays as the user has it."""
    shown: Shown = []
    show_columns(transaction_models.Order, shown)
    order = transaction_models.Order(id=1)
    await front.add(order)
    await front.flush()
    make_transient(order)
    statement = update(transaction_models.Order).values(quantity=5)
    await front.execute(statement, execution_options={"events": False})
    await front.commit()
    assert shown == [("create", {"id": 1, "status": "new", "quantity": 5})]
    assert columns_of(order) == {"id": 1, "status": "new", "quantity": 0}


@scenario(transaction_models.Base.metadata)
async def test_an_object_that_was_expunged_and_changed(front: FrontEnd) -> None:
    """E11: callbacks are shown what was written, although all of it is loaded, and the object stays the user's."""
    order = transaction_models.Order(id=1)
    await front.add(order)
    await front.commit()
    shown: Shown = []
    show_columns(transaction_models.Order, shown)
    order.status = "paid"
    await front.flush()
    await front.expunge(order)
    order.status = "mine"
    await front.commit()
    assert shown == [("update", {"id": 1, "status": "paid", "quantity": 0})]
    assert order.status == "mine"


@scenario(transaction_models.Base.metadata)
async def test_a_deleted_object_of_which_a_part_was_expired(front: FrontEnd) -> None:
    """E11: it shows its last row, of which the flush itself loads its key only."""
    order = transaction_models.Order(id=1)
    await front.add(order)
    await front.commit()
    shown: Shown = []
    show_columns(transaction_models.Order, shown)
    await front.expire(order, ["status"])
    await front.delete(order)
    await front.commit()
    assert shown == [("delete", {"id": 1, "status": "new", "quantity": 0})]


@scenario(bulk_models.Base.metadata)
async def test_a_deleted_object_with_a_value_that_was_never_written(front: FrontEnd) -> None:
    """E11: its last row had none, since the INSERT had left it out, whatever was assigned later."""
    seat = bulk_models.Seat(row=1, number=1)
    await front.add(seat)
    await front.commit()
    shown: Shown = []
    show_columns(bulk_models.Seat, shown)
    seat.taken = "mine"
    await front.delete(seat)
    await front.commit()
    assert shown == [("delete", {"row": 1, "number": 1, "taken": None})]


@scenario(transaction_models.Base.metadata)
async def test_an_expression_that_is_flushed_as_an_attribute_is_read(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2, E11: SQLAlchemy forgets that it has to be loaded, and reads nothing for the attribute from then on."""
    order = transaction_models.Order(id=1)
    await front.add(order)
    await front.commit()
    shown: Shown = []
    show_columns(transaction_models.Order, shown)
    recorder.listen(transaction_models.Order)

    def read(session: Session) -> int:
        order.status = func.upper("paid")
        return order.quantity

    await front.expire(order, ["quantity"])
    assert await front.run_sync(read) == 0
    await front.commit()
    assert recorder.take() == [updated(transaction_models.Order, 1, status=("new", "PAID"))]
    assert shown == [("update", {"id": 1, "status": "PAID", "quantity": 0})]
