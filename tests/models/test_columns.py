"""What the column mixins put into rows and onto objects, on every database and both front-ends."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, inspect, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column

from fastapi_toolsets.models import CreatedAtMixin, TimestampMixin, UpdatedAtMixin, UUIDMixin, UUIDv7Mixin

from ..databases import TYPES
from ..front_ends import FrontEnd, scenario

LONG_AGO = datetime(2001, 2, 3, 4, 5, 6, 123457, tzinfo=UTC)
LATER = datetime(2002, 3, 4, 5, 6, 7, 654321, tzinfo=UTC)
KEY = uuid.UUID("12345678-1234-4234-8234-123456789abc")


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Order(UUIDMixin, TimestampMixin, Base):
    __tablename__ = "mixin_orders"
    number: Mapped[int]


class Entry(UUIDv7Mixin, CreatedAtMixin, Base):
    __tablename__ = "mixin_entries"
    number: Mapped[int]


class Note(UUIDMixin, UpdatedAtMixin, Base):
    __tablename__ = "mixin_notes"
    number: Mapped[int]


class Line(TimestampMixin, Base):
    """Has a key of its own, as rows of ``INSERT ... FROM SELECT`` need."""

    __tablename__ = "mixin_lines"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


LINES, ORDERS, ENTRIES = (Base.metadata.tables[name] for name in ("mixin_lines", "mixin_orders", "mixin_entries"))


class DataclassBase(MappedAsDataclass, DeclarativeBase):
    type_annotation_map = TYPES


class Parcel(UUIDv7Mixin, TimestampMixin, DataclassBase):
    __tablename__ = "mixin_parcels"
    number: Mapped[int]


def values_on(instance: object) -> dict[str, Any]:
    """Give what the object holds by itself: nothing here can be loaded on the way."""
    state = inspect(instance)
    assert state is not None
    return {key: value for key, value in state.dict.items() if key != "_sa_instance_state"}


@scenario(Base.metadata)
async def test_values_are_on_the_object_after_flush(front: FrontEnd) -> None:
    order, entry, note = Order(number=1), Entry(number=2), Note(number=3)
    before = datetime.now(UTC)
    with front.statements() as statements:
        await front.add_all([order, entry, note])
        await front.flush()
        # Read here: an attribute that had to be loaded would be one statement more, or fail on an async session.
        found = [
            (order.id.version, order.created_at.tzinfo, order.updated_at.tzinfo),
            (entry.id.version, entry.created_at.tzinfo),
            (note.id.version, note.updated_at.tzinfo),
        ]
    after = datetime.now(UTC)
    assert found == [(4, UTC, UTC), (7, UTC), (4, UTC)]
    assert sorted(statement.split("(")[0].strip() for statement in statements) == [
        "INSERT INTO mixin_entries",
        "INSERT INTO mixin_notes",
        "INSERT INTO mixin_orders",
    ]
    assert values_on(order) == {
        "id": order.id,
        "number": 1,
        "created_at": order.created_at,
        "updated_at": order.created_at,
    }
    assert values_on(entry) == {"id": entry.id, "number": 2, "created_at": entry.created_at}
    assert values_on(note) == {"id": note.id, "number": 3, "updated_at": note.updated_at}
    for moment in (order.created_at, entry.created_at, note.updated_at):
        assert before <= moment <= after


@scenario(Base.metadata)
async def test_rows_hold_what_the_objects_hold(front: FrontEnd) -> None:
    order, entry = Order(number=1), Entry(number=2)
    await front.add_all([order, entry])
    await front.commit()
    assert await front.committed_rows(select(Order.id, Order.created_at, Order.updated_at)) == [
        (order.id, order.created_at, order.updated_at)
    ]
    assert await front.committed_rows(select(Entry.id, Entry.created_at)) == [(entry.id, entry.created_at)]
    again = await front.new_session().get_one(Order, order.id)
    assert values_on(again) == values_on(order)
    assert (again.created_at.tzinfo, again.updated_at.tzinfo) == (UTC, UTC)


@scenario(Base.metadata)
async def test_objects_of_one_flush_share_one_insert(front: FrontEnd) -> None:
    orders = [Order(number=number) for number in range(20)]
    with front.statements() as statements:
        await front.add_all(orders)
        await front.flush()
    assert len(statements) == 1
    rows = await front.execute(select(Order.number, Order.id, Order.created_at, Order.updated_at))
    assert sorted(tuple(row) for row in rows) == [
        (order.number, order.id, order.created_at, order.created_at) for order in orders
    ]
    assert len({order.id for order in orders}) == 20


@scenario(Base.metadata)
async def test_update_of_the_unit_of_work_moves_updated_at_alone(front: FrontEnd) -> None:
    order = Order(number=1, created_at=LONG_AGO)
    note = Note(number=1, updated_at=LONG_AGO)
    await front.add_all([order, note])
    await front.commit()
    assert order.updated_at == LONG_AGO
    before = datetime.now(UTC)
    order.number, note.number = 2, 2
    with front.statements() as statements:
        await front.flush()
        moved = [order.updated_at, note.updated_at]
    after = datetime.now(UTC)
    assert sorted(statement.split(" SET ")[0] for statement in statements) == [
        "UPDATE mixin_notes",
        "UPDATE mixin_orders",
    ]
    assert [moment.tzinfo for moment in moved] == [UTC, UTC]
    for moment in moved:
        assert before <= moment <= after
    await front.commit()
    assert await front.committed_rows(select(Order.number, Order.created_at, Order.updated_at)) == [
        (2, LONG_AGO, order.updated_at)
    ]
    assert await front.committed_rows(select(Note.number, Note.updated_at)) == [(2, note.updated_at)]


@scenario(Base.metadata)
async def test_objects_updated_by_one_statement_show_what_their_rows_hold(front: FrontEnd) -> None:
    orders = [Order(number=number, created_at=LONG_AGO) for number in range(20)]
    await front.add_all(orders)
    await front.commit()
    for order in orders:
        order.number += 100
    with front.statements() as statements:
        await front.commit()
    assert [statement.split(" SET ")[0] for statement in statements] == ["UPDATE mixin_orders"]
    rows = await front.committed_rows(select(Order.number, Order.updated_at).order_by(Order.number))
    assert rows == [(order.number, order.updated_at) for order in orders]
    assert LONG_AGO not in {order.updated_at for order in orders}


@scenario(Base.metadata)
async def test_flush_without_a_change_leaves_updated_at(front: FrontEnd) -> None:
    order = Order(number=1, created_at=LONG_AGO)
    await front.add(order)
    await front.commit()
    order.number = 1
    await front.commit()
    assert await front.committed_rows(select(Order.updated_at)) == [(LONG_AGO,)]


@scenario(Base.metadata)
async def test_update_statement_moves_updated_at_of_rows_and_objects(front: FrontEnd) -> None:
    order, untouched = Order(number=1, created_at=LONG_AGO), Order(number=7, created_at=LONG_AGO)
    await front.add_all([order, untouched])
    await front.commit()
    before = datetime.now(UTC)
    await front.execute(update(Order).where(Order.number == 1).values(number=2))
    after = datetime.now(UTC)
    assert before <= order.updated_at <= after
    await front.commit()
    assert await front.committed_rows(
        select(Order.number, Order.created_at, Order.updated_at).order_by(Order.number)
    ) == [(2, LONG_AGO, order.updated_at), (7, LONG_AGO, LONG_AGO)]


@scenario(Base.metadata)
async def test_core_update_moves_updated_at(front: FrontEnd) -> None:
    await front.add(Order(number=1, created_at=LONG_AGO))
    await front.commit()
    before = datetime.now(UTC)
    await front.execute(update(ORDERS).values(number=2))
    await front.commit()
    after = datetime.now(UTC)
    ((created_at, updated_at),) = await front.committed_rows(select(Order.created_at, Order.updated_at))
    assert created_at == LONG_AGO
    assert before <= updated_at <= after


@scenario(Base.metadata, databases=["sqlite", "postgresql"])
async def test_upsert_moves_updated_at_only_where_it_says_so(front: FrontEnd) -> None:
    """SQLAlchemy leaves ``onupdate`` out of ``DO UPDATE``; the row that was proposed has the time to take."""
    await front.add(Order(id=KEY, number=1, created_at=LONG_AGO))
    await front.commit()
    insert_order: Callable[[type[Order]], sqlite.Insert | postgresql.Insert]
    insert_order = sqlite.insert if front.database.name == "sqlite" else postgresql.insert
    proposed = insert_order(Order).values(id=KEY, number=2, created_at=LATER)
    await front.execute(proposed.on_conflict_do_update(index_elements=["id"], set_={"number": 2}))
    await front.commit()
    rows = select(Order.number, Order.created_at, Order.updated_at)
    assert await front.committed_rows(rows) == [(2, LONG_AGO, LONG_AGO)]
    await front.execute(
        proposed.on_conflict_do_update(index_elements=["id"], set_={"updated_at": proposed.excluded.updated_at})
    )
    await front.commit()
    assert await front.committed_rows(rows) == [(2, LONG_AGO, LATER)]


@scenario(Base.metadata)
async def test_update_by_primary_key_moves_updated_at(front: FrontEnd) -> None:
    orders = [Order(number=number, created_at=LONG_AGO) for number in range(2)]
    await front.add_all(orders)
    await front.commit()
    await front.execute(update(Order), [{"id": order.id, "number": order.number + 10} for order in orders])
    await front.commit()
    rows = await front.committed_rows(select(Order.number, Order.created_at, Order.updated_at > LONG_AGO))
    assert sorted(rows) == [(10, LONG_AGO, True), (11, LONG_AGO, True)]


@scenario(Base.metadata)
async def test_given_values_win(front: FrontEnd) -> None:
    await front.add(Order(id=KEY, number=1, created_at=LONG_AGO, updated_at=LATER))
    await front.add(Entry(id=KEY, number=1, created_at=LONG_AGO))
    await front.commit()
    assert await front.committed_rows(select(Order.id, Order.created_at, Order.updated_at)) == [(KEY, LONG_AGO, LATER)]
    assert await front.committed_rows(select(Entry.id, Entry.created_at)) == [(KEY, LONG_AGO)]

    order = await front.get_one(Order, KEY)
    order.number, order.updated_at = 2, LONG_AGO
    await front.commit()
    assert await front.committed_rows(select(Order.number, Order.updated_at)) == [(2, LONG_AGO)]

    await front.execute(update(Order).values(number=3, updated_at=LATER))
    await front.commit()
    assert await front.committed_rows(select(Order.number, Order.updated_at)) == [(3, LATER)]


def by_objects(session: Session) -> None:
    session.add_all([Line(number=1), Line(number=2, created_at=LONG_AGO), Line(number=3, created_at=None)])


def by_orm_values(session: Session) -> None:
    session.execute(insert(Line).values([{"number": 1}, {"number": 3}, {"number": 4}]))


def by_orm_values_with_created_at(session: Session) -> None:
    session.execute(
        insert(Line).values([{"number": 2, "created_at": LONG_AGO}, {"number": 12, "created_at": LONG_AGO}])
    )


def by_orm_rows(session: Session) -> None:
    session.execute(insert(Line), [{"number": 1}, {"number": 3}])
    session.execute(insert(Line), [{"number": 2, "created_at": LONG_AGO}])


def by_core_values(session: Session) -> None:
    session.execute(insert(LINES).values([{"number": 1}, {"number": 3}]))
    session.execute(insert(LINES).values([{"number": 2, "created_at": LONG_AGO}]))


def by_core_rows(session: Session) -> None:
    session.execute(insert(LINES), [{"number": 1}, {"number": 3}])
    session.execute(insert(LINES).values(number=2, created_at=LONG_AGO))


def by_bulk_methods(session: Session) -> None:
    session.bulk_save_objects([Line(number=1), Line(number=2, created_at=LONG_AGO)])
    session.bulk_insert_mappings(inspect(Line), [{"number": 3}])


def from_a_query(session: Session) -> None:
    session.execute(insert(Line).from_select(["number"], select(literal(1))))


WAYS_TO_INSERT = (
    by_objects,
    by_orm_values,
    by_orm_values_with_created_at,
    by_orm_rows,
    by_core_values,
    by_core_rows,
    by_bulk_methods,
    from_a_query,
)


@pytest.mark.parametrize("insert_lines", WAYS_TO_INSERT, ids=lambda way: way.__name__)
@scenario(Base.metadata)
async def test_every_insert_gives_a_row_two_equal_times(
    front: FrontEnd, insert_lines: Callable[[Session], None]
) -> None:
    before = datetime.now(UTC)
    await front.run_sync(insert_lines)
    await front.commit()
    after = datetime.now(UTC)
    rows = await front.committed_rows(select(Line.number, Line.created_at, Line.updated_at))
    assert rows != []
    for number, created_at, updated_at in rows:
        assert created_at == updated_at
        if number in (2, 12):
            assert created_at == LONG_AGO
        else:
            assert before <= created_at <= after


@scenario(Base.metadata)
async def test_created_at_made_by_the_database_leaves_updated_at_to_python(front: FrontEnd) -> None:
    before = datetime.now(UTC)
    await front.execute(insert(Line).values(number=1, created_at=func.coalesce(LONG_AGO, LONG_AGO)))
    after = datetime.now(UTC)
    await front.commit()
    ((created_at, updated_at),) = await front.committed_rows(select(Line.created_at, Line.updated_at))
    assert created_at == LONG_AGO
    assert before <= updated_at <= after


@scenario(Base.metadata)
async def test_raw_core_insert_makes_keys(front: FrontEnd) -> None:
    def insert_rows(session: Session) -> None:
        connection: Connection = session.connection()
        for table in (ORDERS, ENTRIES):
            connection.execute(table.insert(), [{"number": 1}, {"number": 2}])
            connection.execute(table.insert().values([{"number": 3}, {"number": 4}]))

    await front.run_sync(insert_rows)
    await front.commit()
    for model, version in ((Order, 4), (Entry, 7)):
        rows = await front.committed_rows(select(model.number, model.id))
        assert sorted((number, key.version) for number, key in rows) == [(number, version) for number in range(1, 5)]
        assert len({key for _, key in rows}) == 4


@scenario(Base.metadata)
async def test_order_by_version_7_key_is_the_order_of_insertion(front: FrontEnd) -> None:
    for flush in range(10):
        await front.add_all([Entry(number=10 * flush + number) for number in range(10)])
        await front.flush()
    await front.commit()
    await front.execute(insert(Entry), [{"number": number} for number in range(100, 120)])
    await front.commit()
    assert await front.committed_rows(select(Entry.number).order_by(Entry.id)) == [(number,) for number in range(120)]


@scenario(Base.metadata)
async def test_rows_are_found_by_key_and_by_time(front: FrontEnd) -> None:
    await front.add(Order(id=KEY, number=1, created_at=LONG_AGO, updated_at=LATER))
    await front.add(Order(number=2))
    await front.commit()
    conditions = (
        Order.id == KEY,
        Order.id.in_([KEY, uuid.uuid4()]),
        Order.created_at == LONG_AGO,
        Order.created_at < LATER,
        Order.updated_at.between(LATER - timedelta(microseconds=1), LATER),
    )
    for condition in conditions:
        assert await front.committed_rows(select(Order.number).where(condition)) == [(1,)]


@scenario(DataclassBase.metadata)
async def test_dataclass_model_gets_its_values_at_the_flush(front: FrontEnd) -> None:
    parcel, given = Parcel(number=1), Parcel(number=2)
    given.id, given.created_at = KEY, LONG_AGO
    await front.add_all([parcel, given])
    await front.flush()
    assert (parcel.id.version, parcel.created_at) == (7, parcel.updated_at)
    assert values_on(given) == {"id": KEY, "number": 2, "created_at": LONG_AGO, "updated_at": LONG_AGO}
    parcel.number = 3
    given.number = 4
    await front.commit()
    rows = await front.committed_rows(select(Parcel.number, Parcel.updated_at).order_by(Parcel.number))
    assert rows == [(3, parcel.updated_at), (4, given.updated_at)]
    assert given.updated_at > LONG_AGO
