"""Rule E2: a value that ends where it began is no change, and the column type says what is equal."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import JSON, Dialect, PickleType, String, TypeDecorator, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.attributes import flag_modified

from fastapi_toolsets.models import ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, Base, Order, table_of, updated


async def stored(front: FrontEnd, recorder: EventRecorder, **values: object) -> Order:
    """Commit an order that was there before, and begin to listen."""
    order = Order(**{"id": 1, "status": "new", **values})
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    return order


@scenario(Base.metadata)
async def test_a_value_that_ends_where_it_began_is_no_change(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2: in one flush and across flushes; without a change left there is no UPDATE."""
    order = await stored(front, recorder)
    order.status = "paid"
    order.status = "new"
    await front.commit()
    assert recorder.take() == []
    order.status = "paid"
    await front.flush()
    order.status = "new"
    await front.commit()
    assert recorder.take() == []
    order.status, order.note = "paid", "kept"
    await front.flush()
    order.status = "sent"
    await front.flush()
    order.status = "new"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, note=(None, "kept"))]


@scenario(Base.metadata)
async def test_assigning_the_value_that_is_there_is_no_change(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2, E3: also when it is flagged as modified, expired, deferred or NULL."""
    order = await stored(front, recorder, memo="m")
    order.status = "new"
    order.note = None
    flag_modified(order, "quantity")
    await front.commit()
    assert recorder.take() == []
    await front.expire(order)
    order.status, order.note, order.memo, order.quantity = "new", None, "m", 1
    await front.commit()
    assert recorder.take() == []


@scenario(Base.metadata, databases=LOCAL)
async def test_back_by_another_object_is_no_change(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2, E10: the object that took the change back is another than the one that made it."""
    order = await stored(front, recorder)
    order.status = "paid"
    await front.flush()
    await front.expunge(order)
    again = await front.get_one(Order, 1)
    again.status = "new"
    await front.commit()
    assert recorder.take() == []


class CaseInsensitive(TypeDecorator[str]):
    """Text that its type takes for equal whatever the case."""

    impl = String(50)
    cache_ok = True

    def compare_values(self, x: object, y: object) -> bool:
        return bool(x.lower() == y.lower() if isinstance(x, str) and isinstance(y, str) else x is y)


class Opaque:
    """A value whose own ``==`` refuses to answer, as those of arrays do."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value is ambiguous")

    __hash__ = object.__hash__


class OpaqueType(TypeDecorator[Opaque]):
    """Stores :class:`Opaque` and knows how to compare what has no ``==``."""

    impl = String(50)
    cache_ok = True

    def process_bind_param(self, value: Opaque | None, dialect: Dialect) -> str | None:
        return None if value is None else value.text

    def process_result_value(self, value: str | None, dialect: Dialect) -> Opaque | None:
        return None if value is None else Opaque(value)

    def compare_values(self, x: object, y: object) -> bool:
        return x.text == y.text if isinstance(x, Opaque) and isinstance(y, Opaque) else x is y


class TypesBase(DeclarativeBase):
    type_annotation_map = TYPES


class Sample(TypesBase):
    __tablename__ = "samples"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str | None] = mapped_column(CaseInsensitive)
    opaque: Mapped[Opaque | None] = mapped_column(OpaqueType)
    price: Mapped[Decimal | None]
    document: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    other: Mapped[str | None]


async def stored_sample(front: FrontEnd, recorder: EventRecorder, **values: object) -> Sample:
    sample = Sample(id=1, **values)
    await front.add(sample)
    await front.commit()
    recorder.listen(Sample)
    return sample


@scenario(TypesBase.metadata)
async def test_equality_is_the_column_types_own(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2: ``compare_values`` decides, in one flush, across flushes and for values that were expired."""
    sample = await stored_sample(front, recorder, label="Red")
    sample.label = "RED"
    sample.other = "a"
    await front.commit()
    assert recorder.take() == [updated(Sample, 1, other=(None, "a"))]
    sample.label = "blue"
    await front.flush()
    sample.label = "red"
    await front.commit()
    assert recorder.take() == []
    await front.expire(sample)
    sample.label = "rED"
    await front.commit()
    assert recorder.take() == []
    sample.label = None
    await front.commit()
    assert [event[3] is not None and list(event[3]) for event in recorder.take()] == [["label"]]


@scenario(TypesBase.metadata, databases=LOCAL)
async def test_values_without_an_equality_of_their_own(front: FrontEnd) -> None:
    """E2: only the type is asked, never the values; they arrive as they are."""
    seen: list[tuple[str | None, str | None]] = []

    @listens_for(Sample, ModelEvent.UPDATE)
    def on_update(sample: Sample, event_type: ModelEvent, changes: dict[str, Any]) -> None:
        change = changes["opaque"]
        seen.append(tuple(value and value.text for value in (change["old"], change["new"])))

    sample = Sample(id=1, opaque=Opaque("a"))
    await front.add(sample)
    await front.commit()
    sample.opaque = Opaque("a")
    await front.commit()
    assert seen == []
    sample.opaque = Opaque("b")
    await front.flush()
    sample.opaque = Opaque("c")
    await front.commit()
    assert seen == [("a", "c")]
    await front.expire(sample)
    sample.opaque = Opaque("c")
    await front.commit()
    sample.opaque = Opaque("d")
    await front.flush()
    sample.opaque = Opaque("c")
    await front.commit()
    assert seen == [("a", "c")]
    sample.opaque = None
    await front.commit()
    assert seen == [("a", "c"), ("c", None)]


class Points(list[int]):
    """Values that can be compared only where there are as many of them, as arrays."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Points) and len(self) != len(other):
            raise ValueError("the shapes do not match")
        return super().__eq__(other)

    __hash__ = None


class Track(TypesBase):
    __tablename__ = "tracks"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    points: Mapped[Points | None] = mapped_column(PickleType)


@scenario(TypesBase.metadata, databases=LOCAL)
async def test_values_that_refuse_to_be_compared(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2, E3: they have changed, where a plain session has nothing to compare what is assigned with."""
    track = Track(id=1, points=Points([1]))
    await front.add(track)
    await front.commit()
    recorder.listen(Track)
    await front.expire(track)
    track.points = Points([1, 2])
    await front.commit()
    track.points = None
    await front.flush()
    async with front.begin_nested():
        track.points = Points([3])
    await front.expire(track)
    track.points = None
    await front.flush()
    track.points = Points([1, 2])
    await front.commit()
    assert recorder.take() == [updated(Track, 1, points=([1], [1, 2]))]
    assert await front.committed_rows(select(Track.points)) == [([1, 2],)]


@scenario(TypesBase.metadata)
async def test_equal_numbers_and_documents(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2: values that are equal without being the same object are no change."""
    sample = await stored_sample(front, recorder, price=Decimal("1.50"), document={"a": [1, 2]})
    sample.price = Decimal("1.5")
    sample.document = {"a": [1, 2]}
    await front.commit()
    assert recorder.take() == []
    sample.document = {"a": [1]}
    await front.flush()
    sample.document = {"a": [1, 2]}
    await front.commit()
    assert recorder.take() == []
    sample.document = {"a": []}
    await front.commit()
    assert recorder.take() == [updated(Sample, 1, document=({"a": [1, 2]}, {"a": []}))]


@pytest.mark.parametrize(
    ("before", "after", "is_change"),
    [
        (None, "", True),
        ("", None, True),
        ("a", "a", False),
        ("a", "a ", True),
        ("0", "", True),
    ],
)
@scenario(Base.metadata, databases=LOCAL)
async def test_empty_is_not_null(
    front: FrontEnd, recorder: EventRecorder, before: str | None, after: str | None, is_change: object
) -> None:
    """E2: only equal values are no change; falsy ones are not all the same."""
    order = await stored(front, recorder, note=before)
    order.note = after
    await front.commit()
    assert recorder.take() == ([updated(Order, 1, note=(before, after))] if is_change else [])


class NumbersBase(DeclarativeBase): ...


class Reading(NumbersBase):
    __tablename__ = "readings"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[float | None]
    flag: Mapped[bool] = mapped_column(default=False)


@scenario(NumbersBase.metadata, databases=LOCAL)
async def test_zero_and_false_are_values(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2: ``0``, ``0.0`` and ``False`` against ``None`` and each other."""
    reading = Reading(id=1, value=None)
    await front.add(reading)
    await front.commit()
    recorder.listen(Reading)
    reading.value = 0.0
    await front.commit()
    reading.value, reading.flag = 0, False
    await front.commit()
    reading.value, reading.flag = math.pi, True
    await front.commit()
    assert recorder.take() == [
        updated(Reading, 1, value=(None, 0.0)),
        updated(Reading, 1, value=(0.0, math.pi), flag=(False, True)),
    ]


@scenario(Base.metadata)
async def test_a_change_that_a_statement_takes_back(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2, E11: the row as committed counts, also where a Core statement wrote the last value."""
    order = await stored(front, recorder)
    order.status = "paid"
    await front.flush()
    statement = table_of(Order).update().values(status="new").execution_options(events=False)
    await front.execute(statement)
    await front.commit()
    assert recorder.take() == []
    assert order.status == "new"
