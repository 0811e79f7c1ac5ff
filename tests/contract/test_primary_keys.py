"""Rule E8: one primary key, one row after another, and a row whose primary key changes."""

from __future__ import annotations

import pytest
from sqlalchemy import ForeignKey, delete, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from fastapi_toolsets.models import Changes, Event, ModelEvent, Phase, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, ORDERS, Base, Order, created, deleted, updated


@scenario(Base.metadata)
async def test_deleted_and_created_again(front: FrontEnd, recorder: EventRecorder) -> None:
    """E8: by another object, in two flushes: DELETE, CREATE in that order."""
    seen: list[tuple[str, str, str | None]] = []
    order = Order(id=1, status="first", note="n")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)

    @listens_for(Order)
    def show(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        seen.append((event_type, order.status, order.note))

    await front.delete(order)
    await front.flush()
    await front.add(Order(id=1, status="second"))
    await front.commit()
    assert recorder.take() == [deleted(Order, 1), created(Order, 1)]
    assert seen == [("delete", "first", "n"), ("create", "second", None)]


@scenario(Base.metadata)
async def test_chains_of_deleting_and_creating(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E8: the row before and the row after count, not how often it came and went between."""
    order = Order(id=1, status="first")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    order.status = "changed"
    await front.flush()
    await front.delete(order)
    await front.flush()
    for status in ("second", "third"):
        again = Order(id=1, status=status)
        await front.add(again)
        await front.flush()
        again.note = "x"
        await front.flush()
        await front.delete(again)
        await front.flush()
    await front.add(Order(id=1, status="last"))
    await front.commit()
    assert recorder.take() == [deleted(Order, 1), created(Order, 1)]
    last = await front.get_one(Order, 1)
    await front.delete(last)
    await front.flush()
    again = Order(id=1, status="gone")
    await front.add(again)
    await front.flush()
    await front.delete(again)
    await front.commit()
    assert recorder.take() == [deleted(Order, 1)]
    new = Order(id=1, status="x")
    await front.add(new)
    await front.flush()
    await front.delete(new)
    await front.flush()
    await front.add(Order(id=1, status="y"))
    await front.commit()
    assert recorder.take() == [created(Order, 1)]


@scenario(Base.metadata)
async def test_created_again_in_a_savepoint_that_is_rolled_back(front: FrontEnd, recorder: EventRecorder) -> None:
    """E8, T3: the delete stays, the re-creation is gone; or both."""
    orders = [Order(id=1, status="first"), Order(id=2, status="first")]
    await front.add_all(orders)
    await front.commit()
    recorder.listen(Order)
    await front.delete(orders[0])
    savepoint = await front.begin_nested()
    await front.add(Order(id=1, status="second"))
    await front.flush()
    await savepoint.rollback()
    savepoint = await front.begin_nested()
    await front.delete(orders[1])
    await front.flush()
    await front.add(Order(id=2, status="second"))
    await front.flush()
    await savepoint.rollback()
    await front.commit()
    assert recorder.take() == [deleted(Order, 1)]


@scenario(Base.metadata)
async def test_a_deleted_object_that_is_made_transient_and_added_again(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """E8: a copy of the deleted object takes its key again."""
    order = Order(id=1, status="first", note="n")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    await front.delete(order)
    await front.flush()
    await front.add(Order(id=order.id, status=order.status, note=order.note))
    await front.commit()
    assert recorder.take() == [deleted(Order, 1), created(Order, 1)]


@scenario(Base.metadata)
async def test_a_row_switch_is_one_update(front: FrontEnd, recorder: EventRecorder) -> None:
    """E8: deleted and created again by another object inside one flush: one UPDATE, with what really changed."""
    seen: list[tuple[bool, str, int, str | None]] = []
    order = Order(id=1, status="first", quantity=5, note="n")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    switched = Order(id=1, status="second")

    @listens_for(Order)
    def show(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        seen.append((order is switched, order.status, order.quantity, order.note))

    await front.delete(order)
    await front.add(switched)
    await front.commit()
    rows = await front.committed_rows(ORDERS)
    assert rows == [(1, seen[0][1], seen[0][2], seen[0][3])]
    (_, status, quantity, note) = rows[0]
    expected: dict[str, tuple[object, object]] = {"status": ("first", status)}
    if quantity != 5:
        expected["quantity"] = (5, quantity)
    if note != "n":
        expected["note"] = ("n", note)
    assert recorder.take() == [updated(Order, 1, **expected)]
    assert (seen[0][0], status) == (True, "second")


@scenario(Base.metadata)
async def test_a_row_switch_with_equal_values_is_nothing(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2, E8: the new object writes what the row already has."""
    order = Order(id=1, status="same", quantity=1, note="n", memo="m")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    await front.delete(order)
    await front.add(Order(id=1, status="same", quantity=1, note="n", memo="m"))
    await front.commit()
    assert recorder.take() == []


@scenario(Base.metadata)
async def test_a_row_switch_over_an_expired_object(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E8: the old values are true although the deleted object had none loaded."""
    order = Order(id=1, status="first", note="n", memo="m")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    await front.expire(order)
    await front.delete(order)
    await front.add(Order(id=1, status="second", quantity=1, note="o", memo="m"))
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("first", "second"), note=("n", "o"))]


@scenario(Base.metadata)
async def test_a_row_switch_over_what_an_insert_left_out(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E8: the deleted object has not loaded what its own INSERT left out, and that was NULL."""
    befores: list[object] = []
    order = Order(id=1, status="first", quantity=1, memo="m")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)

    @listens_for(Order)
    def look(order: Order, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        befores.append(event.before and event.before["note"])

    await front.delete(order)
    await front.add(Order(id=1, status="first", quantity=1, note="n", memo="m"))
    await front.commit()
    assert recorder.take() == [updated(Order, 1, note=(None, "n"))]
    assert befores == [None]


@scenario(Base.metadata)
@pytest.mark.parametrize("new_key", [2, 3])
@pytest.mark.parametrize("phase", Phase)
async def test_a_row_switch_over_an_object_whose_row_is_gone(
    front: FrontEnd, recorder: EventRecorder, phase: Phase, new_key: int
) -> None:
    """E1: somebody else has deleted the row: SQLAlchemy inserts that of the new object, and deletes it."""
    await front.add_all([Order(id=key, status="first") for key in (1, 2)])
    await front.commit()
    order, other = await front.get_one(Order, 1), await front.get_one(Order, 2)
    await front.expire_all()
    await front.rollback()
    elsewhere = front.plain_session()
    await elsewhere.execute(delete(Order).where(Order.id == 1))
    await elsewhere.commit()
    recorder.listen(Order, phase=phase)
    await front.refresh(other)  # now, since it flushes
    await front.delete(order)
    await front.add_all([Order(id=1, status="second"), Order(id=4, status="new")])
    other.id = new_key
    await front.flush()
    if phase is Phase.AFTER_ROLLBACK:
        await front.rollback()
    else:
        await front.commit()
        assert await front.committed_rows(select(Order.id)) == [(new_key,), (4,)]
    moved = [updated(Order, 3, id=(2, 3))] if new_key == 3 else []
    assert recorder.take() == [created(Order, 4), *moved]


@scenario(Base.metadata)
async def test_a_row_switch_over_an_object_that_nobody_holds(front: FrontEnd, recorder: EventRecorder) -> None:
    """E8, E10: the deleted object may be garbage by the time of the commit; unset attributes show the row's values."""
    seen: list[tuple[str, int, str | None]] = []
    await front.add(Order(id=1, status="first", quantity=5, note="n"))
    await front.commit()
    await front.expunge_all()
    recorder.listen(Order)

    @listens_for(Order)
    def show(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        seen.append((order.status, order.quantity, order.note))

    await front.delete(await front.get_one(Order, 1))
    await front.add(Order(id=1, status="second", quantity=5))
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("first", "second"))]
    assert seen == [("second", 5, "n")]


@scenario(Base.metadata)
async def test_a_row_switch_after_an_update_of_the_same_transaction(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E8: one UPDATE from the first old to the last new; of a row created before in it, one CREATE."""
    order = Order(id=1, status="first", note="n", memo="m")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    order.status = "changed"
    await front.flush()
    await front.delete(order)
    await front.add(Order(id=1, status="second", quantity=1, note="n", memo="m"))
    new = Order(id=2, status="new")
    await front.add(new)
    await front.flush()
    await front.delete(new)
    await front.add(Order(id=2, status="newer"))
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("first", "second")), created(Order, 2)]


@scenario(Base.metadata)
async def test_a_row_switch_then_a_delete(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E8: switched, then deleted: one DELETE."""
    order = Order(id=1, status="first")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    await front.delete(order)
    switched = Order(id=1, status="second", quantity=1)
    await front.add(switched)
    await front.flush()
    await front.delete(switched)
    await front.commit()
    assert recorder.take() == [deleted(Order, 1)]


# E8: changed primary keys


@scenario(Base.metadata)
async def test_a_changed_primary_key_is_one_update(front: FrontEnd, recorder: EventRecorder) -> None:
    """E8: with the key among the changes; the event has the new identity."""
    identities: list[tuple[object, ...]] = []
    order = Order(id=1, status="new")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)

    @listens_for(Order)
    def show(order: Order, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        identities.append((event.identity, event.before and event.before["id"], event.after and event.after["id"]))

    order.id = 2
    order.status = "moved"
    await front.commit()
    assert recorder.take() == [updated(Order, 2, id=(1, 2), status=("new", "moved"))]
    assert identities == [((2,), 1, 2)]


@scenario(Base.metadata)
async def test_a_primary_key_changed_more_than_once(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E2, E8: over several flushes, with other changes, and back."""
    orders = [Order(id=1, status="a"), Order(id=10, status="b")]
    await front.add_all(orders)
    await front.commit()
    recorder.listen(Order)
    orders[0].status = "c"
    await front.flush()
    orders[0].id = 2
    orders[1].id = 20
    await front.flush()
    orders[0].id = 3
    orders[0].note = "n"
    orders[1].id = 10
    await front.commit()
    assert recorder.take() == [updated(Order, 3, status=("a", "c"), id=(1, 3), note=(None, "n"))]
    orders[0].id = 4
    await front.flush()
    await front.delete(orders[0])
    await front.commit()
    assert [event[0] for event in recorder.take()] == ["delete"]


@scenario(Base.metadata)
async def test_primary_keys_that_change_places(front: FrontEnd, recorder: EventRecorder) -> None:
    """E8: two rows exchange their keys over a third: two UPDATEs, nothing else."""
    first, second = Order(id=1, status="a"), Order(id=2, status="b")
    await front.add_all([first, second])
    await front.commit()
    recorder.listen(Order)
    first.id = 3
    await front.flush()
    second.id = 1
    await front.flush()
    first.id = 2
    await front.commit()
    assert recorder.take() == [updated(Order, 2, id=(1, 2)), updated(Order, 1, id=(2, 1))]
    assert await front.committed_rows(ORDERS) == [(1, "b", 1, None), (2, "a", 1, None)]


@scenario(Base.metadata, databases=LOCAL)
async def test_a_key_that_another_row_takes_in_a_savepoint(front: FrontEnd, recorder: EventRecorder) -> None:
    """E8, T3: what a row was before the savepoint stays with it, whoever has its old key by the release."""
    order = Order(id=1, status="a")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    order.status = "b"
    async with front.begin_nested():
        order.id = 2
        await front.flush()
        await front.add(Order(id=1, status="c"))
        await front.flush()
        order.id = 3
    await front.commit()
    assert recorder.take() == [updated(Order, 3, status=("a", "b"), id=(1, 3)), created(Order, 1)]


@scenario(Base.metadata)
async def test_a_key_that_another_row_takes_over(front: FrontEnd, recorder: EventRecorder) -> None:
    """E8: a row moves away, a new one takes its key; a row is deleted, another moves to its key."""
    first, second = Order(id=1, status="a"), Order(id=2, status="b")
    await front.add_all([first, second])
    await front.commit()
    recorder.listen(Order)
    first.id = 3
    await front.flush()
    await front.add(Order(id=1, status="c"))
    await front.commit()
    assert recorder.take() == [updated(Order, 3, id=(1, 3)), created(Order, 1)]
    await front.delete(second)
    await front.flush()
    first.id = 2
    await front.commit()
    assert recorder.take() == [deleted(Order, 2), updated(Order, 2, id=(3, 2))]


@scenario(Base.metadata)
async def test_a_created_row_whose_key_changes(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E8: one CREATE under the last key; deleted again nothing."""
    recorder.listen(Order)
    orders = [Order(id=1, status="a"), Order(id=2, status="b")]
    await front.add_all(orders)
    await front.flush()
    orders[0].id, orders[1].id = 11, 12
    await front.flush()
    await front.delete(orders[1])
    await front.commit()
    assert recorder.take() == [created(Order, 11)]


@scenario(Base.metadata)
async def test_a_primary_key_changed_inside_a_savepoint(front: FrontEnd, recorder: EventRecorder) -> None:
    """E8, T3: released it is one UPDATE with what was before; rolled back it never happened."""
    order = Order(id=1, status="a")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    order.status = "b"
    async with front.begin_nested():
        order.id = 2
        await front.flush()
    order.note = "n"
    await front.commit()
    assert recorder.take() == [updated(Order, 2, status=("a", "b"), id=(1, 2), note=(None, "n"))]
    order.status = "c"
    savepoint = await front.begin_nested()
    order.id = 3
    order.note = "lost"
    await front.flush()
    await savepoint.rollback()
    await front.refresh(order)
    order.quantity = 7
    await front.commit()
    assert recorder.take() == [updated(Order, 2, status=("b", "c"), quantity=(1, 7))]


@scenario(Base.metadata)
async def test_primary_keys_that_change_places_inside_a_savepoint(front: FrontEnd, recorder: EventRecorder) -> None:
    """E8, T3: exchanged in a savepoint, with changes before it; and exchanged back after it."""
    first, second = Order(id=1, status="a"), Order(id=2, status="b")
    await front.add_all([first, second])
    await front.commit()
    recorder.listen(Order)
    first.status = "A"
    second.note = "n"
    await front.flush()
    async with front.begin_nested():
        first.id = 3
        await front.flush()
        second.id = 1
        await front.flush()
        first.id = 2
        await front.flush()
    await front.commit()
    assert recorder.take() == [
        updated(Order, 2, status=("a", "A"), id=(1, 2)),
        updated(Order, 1, note=(None, "n"), id=(2, 1)),
    ]


class CascadeBase(DeclarativeBase):
    type_annotation_map = TYPES


class Country(CascadeBase):
    __tablename__ = "countries"
    code: Mapped[str] = mapped_column(primary_key=True)
    cities: Mapped[list[City]] = relationship(back_populates="country", passive_updates=False, order_by="City.id")


class City(CascadeBase):
    __tablename__ = "cities"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    country_code: Mapped[str | None] = mapped_column(ForeignKey("countries.code"))
    country: Mapped[Country | None] = relationship(back_populates="cities", passive_updates=False)


@scenario(CascadeBase.metadata, databases=LOCAL)
async def test_a_changed_primary_key_cascades_to_its_children(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6, E8: with ``passive_updates=False`` the unit of work writes the children: UPDATEs with the foreign key."""
    await front.add(Country(code="xx", cities=[City(id=1), City(id=2)]))
    await front.commit()
    await front.expunge_all()
    recorder.listen(CascadeBase)
    await front.execute(text("PRAGMA defer_foreign_keys = ON"))
    country = (await front.scalars(select(Country).options(selectinload(Country.cities)))).one()
    country.code = "yy"
    await front.commit()
    assert sorted(recorder.take(), key=str) == sorted(
        [
            updated(Country, "yy", code=("xx", "yy")),
            updated(City, 1, country_code=("xx", "yy")),
            updated(City, 2, country_code=("xx", "yy")),
        ],
        key=str,
    )


class Branch(CascadeBase):
    """Refers to rows of its own table, so that the unit of work goes object by object, saves first."""

    __tablename__ = "branches"
    code: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str | None]
    stem_code: Mapped[str | None] = mapped_column(ForeignKey("branches.code"))
    stem: Mapped[Branch | None] = relationship(remote_side=[code])


@scenario(CascadeBase.metadata)
@pytest.mark.parametrize("before", ["committed", "flushed"])
async def test_a_row_switch_among_rows_that_refer_to_each_other(
    front: FrontEnd, recorder: EventRecorder, before: str
) -> None:
    """E1, E8: SQLAlchemy (2.0 and 2.1) deletes the row after the new object has taken it over, and so it is told."""
    await front.add_all([Branch(code="a", label="old"), Branch(code="b")])
    await front.commit()
    await front.expunge_all()
    old, other = await front.get_one(Branch, "a"), await front.get_one(Branch, "b")
    recorder.listen(Branch)
    shown: list[tuple[bool, str | None]] = []

    @listens_for(Branch, ModelEvent.DELETE)
    def show(branch: Branch, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((branch is old, branch.label))

    if before == "flushed":
        old.label = "older"
        await front.flush()
    await front.delete(old)
    other.label = "x"
    await front.add_all([Branch(code="a", label="new"), Branch(code="c")])
    await front.commit()
    assert await front.committed_rows(select(Branch.code).order_by(Branch.code)) == [("b",), ("c",)]
    assert sorted(recorder.take(), key=str) == [
        created(Branch, "c"),
        deleted(Branch, "a"),
        updated(Branch, "b", label=(None, "x")),
    ]
    assert shown == [(True, "old" if before == "committed" else "older")]


class CompositeBase(DeclarativeBase):
    type_annotation_map = TYPES


class Seat(CompositeBase):
    """Its key has two columns."""

    __tablename__ = "seats"
    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    letter: Mapped[str] = mapped_column(primary_key=True)
    guest: Mapped[str | None]
    memo: Mapped[str | None] = mapped_column(deferred=True)


@scenario(CompositeBase.metadata)
async def test_composite_primary_keys(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E3, E8, E12: a key of two columns in every kind of event, loaded or not."""
    recorder.listen(Seat)
    seats = [Seat(row=1, letter="a"), Seat(row=1, letter="b"), Seat(row=2, letter="a")]
    await front.add_all(seats)
    await front.commit()
    assert recorder.take() == [created(Seat, (1, "a")), created(Seat, (1, "b")), created(Seat, (2, "a"))]
    await front.expire_all()
    seats[0].guest, seats[1].guest, seats[1].memo = "g", "h", "m"
    await front.delete(seats[2])
    await front.commit()
    assert recorder.take() == [
        updated(Seat, (1, "a"), guest=(None, "g")),
        updated(Seat, (1, "b"), guest=(None, "h"), memo=(None, "m")),
        deleted(Seat, (2, "a")),
    ]
    seats[0].row = 2
    await front.commit()
    assert recorder.take() == [updated(Seat, (2, "a"), row=(1, 2))]
