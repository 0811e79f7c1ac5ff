"""Rules B2 and E4: of a row that a bulk UPDATE writes, only fields are compared that it can have changed."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    Computed,
    FetchedValue,
    Float,
    Integer,
    MetaData,
    Numeric,
    PickleType,
    cast,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column, synonym

from fastapi_toolsets.models import Changes, Event, ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .bulk_models import Base as BulkBase
from .bulk_models import store, upsert
from .event_models import deleted, table_of, updated


class Sheet(BulkBase):
    """A value that can be changed in place, and does not tell it."""

    __tablename__ = "bulk_sheets"
    id: Mapped[int] = mapped_column(primary_key=True)
    cells: Mapped[dict[str, Any]] = mapped_column(JSON)


class Shape:
    """Two of them are never equal."""

    def __init__(self, corners: int) -> None:
        self.corners = corners


class FieldBase(DeclarativeBase):
    type_annotation_map = TYPES
    __bulk_events__ = True


class Drawing(BulkBase):
    """Each field has an attribute, a column and a key that are called differently."""

    __tablename__ = "field_drawings"
    number: Mapped[int] = mapped_column("id", primary_key=True, autoincrement=False)
    price: Mapped[int] = mapped_column("col_price", key="key_price")
    shape: Mapped[object] = mapped_column("col_shape", PickleType(), key="key_shape")
    cost = synonym("price")


class Shouting(FieldBase):
    """Triggers set two of its columns; one says so."""

    __tablename__ = "field_shouting"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str]
    declared: Mapped[str | None] = mapped_column(server_onupdate=FetchedValue())
    undeclared: Mapped[str | None]


class Line(FieldBase):
    __tablename__ = "field_lines"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sum_id: Mapped[int] = mapped_column()
    amount: Mapped[int]


class Sum(FieldBase):
    """Expressions over the row, over another table and over other rows."""

    __tablename__ = "field_sums"
    number: Mapped[int] = mapped_column("id", primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column()
    twice: Mapped[int] = column_property(value * 2)
    rank: Mapped[int] = column_property(func.row_number().over(order_by=number))
    total: Mapped[int | None] = column_property(
        select(cast(func.sum(Line.amount) + value, Integer)).where(Line.sum_id == number).scalar_subquery()
    )


class LocalBase(DeclarativeBase):
    """For PostgreSQL only."""

    metadata = MetaData()
    __bulk_events__ = True


class Reading(LocalBase):
    __tablename__ = "field_readings"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    price: Mapped[int]
    ratio: Mapped[float]
    numbers: Mapped[list[int]] = mapped_column(ARRAY(Integer))


class Quotient(LocalBase):
    """Two of its columns are NaN, whatever is written."""

    __tablename__ = "field_quotients"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    price: Mapped[int]
    ratio: Mapped[float] = mapped_column(Float, Computed("price * 'NaN'::float8", persisted=True))
    exact: Mapped[Decimal] = mapped_column(Numeric, Computed("price * 'NaN'::numeric", persisted=True))


WAYS: dict[str, Callable[[FrontEnd, int], Any]] = {
    "attribute": lambda _, price: update(Drawing).values({Drawing.price: price}),
    "name": lambda _, price: update(Drawing).values(price=price),
    "synonym": lambda _, price: update(Drawing).values({Drawing.cost: price}),
    "ordered": lambda _, price: update(Drawing).ordered_values((Drawing.price, price)),
    "table": lambda _, price: update(table_of(Drawing)).values(key_price=price),
    "table's column": lambda _, price: update(table_of(Drawing)).values({table_of(Drawing).c.key_price: price}),
    "upsert": lambda front, price: upsert(
        front, Drawing, "id", [{"id": 1, "key_price": price, "key_shape": Shape(5)}], "key_price"
    ),
}


@pytest.mark.parametrize("way", WAYS)
@scenario(BulkBase.metadata)
async def test_field_that_the_statement_does_not_set(front: FrontEnd, recorder: EventRecorder, way: str) -> None:
    """B2, E2: an object that is equal to no other is no change where the statement has not set it."""
    await store(front, Drawing(number=1, price=1, shape=Shape(3)))
    recorder.listen(Drawing)
    await front.execute(WAYS[way](front, 2))
    await front.commit()
    assert recorder.take() == [updated(Drawing, 1, price=(1, 2))]
    await front.execute(WAYS[way](front, 2))
    await front.commit()
    assert recorder.take() == []


@scenario(BulkBase.metadata)
async def test_field_that_rows_or_parameters_do_not_set(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E2: the same for lists of rows, and for values that are parameters."""
    await store(front, Drawing(number=1, price=1, shape=Shape(3)))
    recorder.listen(Drawing)
    await front.execute(update(Drawing), [{"number": 1, "price": 2}])
    await front.commit()
    await front.execute(update(Drawing), {"key_price": 3})
    await front.commit()
    await front.execute(update(table_of(Drawing)), {"key_price": 4})
    await front.commit()

    def write(session: Session) -> None:
        session.bulk_update_mappings(Drawing, [{"number": 1, "price": 5}])

    await front.run_sync(write)
    await front.commit()
    assert recorder.take() == [updated(Drawing, 1, price=(price, price + 1)) for price in (1, 2, 3, 4)]


@scenario(BulkBase.metadata)
async def test_object_that_is_set(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: it is told, in one event with what another statement has set."""
    await store(front, Drawing(number=1, price=1, shape=Shape(3)))
    recorder.listen(Drawing)
    await front.execute(update(Drawing).values(price=2))
    await front.execute(update(Drawing).values(shape=Shape(4)))
    await front.commit()
    ((_, _, _, changes),) = recorder.take()
    assert changes is not None
    assert changes.pop("price") == {"old": 1, "new": 2}
    assert [(key, change["old"].corners, change["new"].corners) for key, change in changes.items()] == [("shape", 3, 4)]


@pytest.mark.parametrize("wants_event", [False, True])
@pytest.mark.parametrize("is_loaded", [False, True])
@scenario(BulkBase.metadata)
async def test_object_that_a_callback_changes_in_place(
    front: FrontEnd, recorder: EventRecorder, *, is_loaded: bool, wants_event: bool
) -> None:
    """B2, E5: the next is told what the statement has set."""
    await store(front, Sheet(id=1, cells={"a": [1]}))

    def change(sheet: Sheet, _event_type: ModelEvent, _changes: Changes | None) -> None:
        sheet.cells["a"].append("changed")

    def tell(sheet: Sheet, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        recorder.record(sheet, event_type, changes)
        assert event.after is not None
        assert event.after["cells"] == {"a": [3]}

    held = await front.get(Sheet, 1) if is_loaded else None
    listens_for(Sheet)(change)
    if wants_event:
        listens_for(Sheet)(tell)
    else:
        recorder.listen(Sheet)
    for number in (2, 3):
        await front.execute(update(Sheet).values(cells={"a": [number]}))
    await front.commit()
    assert recorder.take() == [updated(Sheet, 1, cells=({"a": [1]}, {"a": [3]}))]
    assert held is None or held.cells == {"a": [3, "changed"]}


@scenario(LocalBase.metadata, databases=("postgresql",))
async def test_value_that_does_not_equal_itself(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E2: NaN is no change where the statement has not set it."""
    await store(front, Reading(id=1, price=1, ratio=float("nan"), numbers=[1, 2]))
    recorder.listen(Reading)
    await front.execute(update(Reading).values(price=2))
    await front.commit()
    assert recorder.take() == [updated(Reading, 1, price=(1, 2))]


@scenario(LocalBase.metadata, databases=("postgresql",))
async def test_value_of_the_database_that_does_not_equal_itself(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E2: nor is it one where the database sets it with each UPDATE."""
    await store(front, Quotient(id=1, price=1))
    recorder.listen(Quotient)
    await front.execute(update(Quotient).values(price=2))
    await front.execute(update(Quotient).values(price=3))
    await front.commit()
    assert recorder.take() == [updated(Quotient, 1, price=(1, 3))]


@scenario(LocalBase.metadata, databases=("postgresql",))
async def test_element_of_an_array(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a statement that sets a part of a value sets the value."""
    await store(front, Reading(id=1, price=1, ratio=0.5, numbers=[1, 2]))
    recorder.listen(Reading)
    await front.execute(
        update(Reading).values({Reading.numbers[1]: 7}), execution_options={"synchronize_session": False}
    )
    await front.commit()
    assert recorder.take() == [updated(Reading, 1, numbers=([1, 2], [7, 2]))]


TRIGGERS = {
    "sqlite": [
        """CREATE TRIGGER field_shout AFTER UPDATE OF label ON field_shouting BEGIN UPDATE field_shouting
        SET declared = upper(new.label), undeclared = upper(new.label) WHERE id = new.id; END""",
    ],
    "postgresql": [
        """CREATE OR REPLACE FUNCTION field_shout() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN NEW.declared := upper(NEW.label); NEW.undeclared := NEW.declared; RETURN NEW; END$$""",
        "CREATE TRIGGER field_shout BEFORE UPDATE ON field_shouting FOR EACH ROW EXECUTE FUNCTION field_shout()",
    ],
    "mariadb": [
        """CREATE TRIGGER field_shout BEFORE UPDATE ON field_shouting FOR EACH ROW
        SET NEW.declared = upper(NEW.label), NEW.undeclared = upper(NEW.label)""",
    ],
}


@scenario(FieldBase.metadata)
async def test_what_a_trigger_sets(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E4: a column that a trigger sets is told if it is declared with ``FetchedValue``, as of the unit of work."""
    for statement in TRIGGERS[front.database.name]:
        await front.execute(text(statement))
    await front.commit()
    await store(front, Shouting(id=1, label="a"), Shouting(id=2, label="a"))
    recorder.listen(Shouting)
    await front.execute(update(Shouting).where(Shouting.id == 1).values(label="b"))
    await front.commit()
    (await front.get_one(Shouting, 2)).label = "b"
    await front.commit()
    assert recorder.take() == [updated(Shouting, key, label=("a", "b"), declared=(None, "B")) for key in (1, 2)]


async def two_sums(front: FrontEnd, recorder: EventRecorder) -> None:
    """Commit two rows with expressions, and lines of the second, then begin to listen."""
    await store(
        front, Sum(number=1, value=1), Sum(number=2, value=2), *(Line(id=key, sum_id=2, amount=10) for key in (1, 2))
    )
    recorder.listen(Sum)


@scenario(FieldBase.metadata)
async def test_expressions_of_a_row(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E4: they work as on a plain session, and what becomes of them is told, but not how rows compare."""
    await two_sums(front, recorder)
    await front.execute(update(Sum).values(value=Sum.value + 1))
    joined = update(Sum).where(Sum.number == Line.sum_id, Line.amount == 10).values(value=Sum.value + 1)
    await front.execute(joined, execution_options={"synchronize_session": False})
    await front.commit()
    assert recorder.take() == [
        updated(Sum, 1, value=(1, 2), twice=(2, 4)),
        updated(Sum, 2, value=(2, 4), twice=(4, 8), total=(22, 24)),
    ]
    await front.execute(update(Sum), [{"number": 2, "value": 5}])
    await front.execute(upsert(front, Sum, "id", [{"id": 1, "value": 7}], "value"))
    await front.execute(update(Sum).where(Sum.number == 1).values(number=3))
    await front.commit()
    assert recorder.take() == [
        updated(Sum, 2, value=(4, 5), twice=(8, 10), total=(24, 25)),
        updated(Sum, 3, number=(1, 3), value=(2, 7), twice=(4, 14)),
    ]


@scenario(FieldBase.metadata)
async def test_expressions_of_a_deleted_row(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E11: a deleted object shows them as they were last."""
    await two_sums(front, recorder)
    shown: list[tuple[int, int | None]] = []

    @listens_for(Sum, ModelEvent.DELETE)
    def show(row: Sum, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((row.twice, row.total))

    criteria = Sum.number.in_(select(Line.sum_id))
    await front.execute(delete(Sum).where(criteria), execution_options={"synchronize_session": False})
    await front.commit()
    assert (recorder.take(), shown) == ([deleted(Sum, 2)], [(4, 22)])
