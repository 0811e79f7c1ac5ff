"""Rule E7: the names under which columns, synonyms and composites appear in ``changes``."""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    composite,
    mapped_column,
    synonym,
)

from fastapi_toolsets.models import ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, updated


@dataclasses.dataclass(eq=True)
class Point:
    x: int | None
    y: int | None


class NamesBase(DeclarativeBase):
    type_annotation_map = TYPES


class Shape(NamesBase):
    __tablename__ = "shapes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str | None] = mapped_column("db_status")
    state: Mapped[str | None] = synonym("status")
    x: Mapped[int | None]
    y: Mapped[int | None]
    corner: Mapped[Point | None] = composite(Point, "x", "y")

    @hybrid_property
    def shouted(self) -> str:
        return str(self.status).upper()


class WatchingShape(NamesBase):
    """Watches a synonym and a composite."""

    __tablename__ = "watching_shapes"
    __watched_fields__ = ("state", "corner")
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str | None] = mapped_column("db_status")
    state: Mapped[str | None] = synonym("status")
    x: Mapped[int | None]
    y: Mapped[int | None]
    note: Mapped[str | None]
    corner: Mapped[Point | None] = composite(Point, "x", "y")


class Money:
    """A composite class without ``==``: only its columns can be compared."""

    def __init__(self, amount: int | None, currency: str | None) -> None:
        self.amount = amount
        self.currency = currency

    def __composite_values__(self) -> tuple[int | None, str | None]:
        return self.amount, self.currency


class Bill(NamesBase):
    __tablename__ = "bills"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    amount: Mapped[int | None]
    currency: Mapped[str | None]
    total: Mapped[Money] = composite(Money, "amount", "currency")


@scenario(NamesBase.metadata)
async def test_keys_are_attribute_names_as_mapped(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7: the attribute, not the column; a synonym does not appear twice, by whichever name it was assigned."""
    recorder.listen(Shape)
    shape = Shape(id=1, status="a")
    await front.add(shape)
    await front.commit()
    recorder.take()
    shape.status = "b"
    await front.commit()
    assert recorder.take() == [updated(Shape, 1, status=("a", "b"))]
    shape.state = "c"
    await front.commit()
    assert recorder.take() == [updated(Shape, 1, status=("b", "c"))]
    await front.expire(shape)
    shape.state = "d"
    shape.status = "e"
    await front.commit()
    assert recorder.take() == [updated(Shape, 1, status=("c", "e"))]
    shape.state = "f"
    shape.status = "e"
    await front.commit()
    assert recorder.take() == []


@scenario(NamesBase.metadata)
async def test_a_composite_is_compared_by_value(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7: old and new composites, beside its columns; another object with equal values is no change."""
    recorder.listen(Shape)
    shape = Shape(id=1, corner=Point(1, 2))
    await front.add(shape)
    await front.commit()
    recorder.take()
    shape.corner = Point(1, 2)
    await front.commit()
    assert recorder.take() == []
    shape.corner = Point(3, 2)
    await front.commit()
    assert recorder.take() == [updated(Shape, 1, x=(1, 3), corner=(Point(1, 2), Point(3, 2)))]
    shape.corner = Point(4, 5)
    await front.flush()
    shape.corner = Point(3, 2)
    await front.commit()
    assert recorder.take() == []
    shape.y = 9
    await front.commit()
    assert recorder.take() == [updated(Shape, 1, y=(2, 9), corner=(Point(3, 2), Point(3, 9)))]
    await front.expire(shape)
    shape.corner = Point(3, 10)
    await front.commit()
    assert recorder.take() == [updated(Shape, 1, y=(9, 10), corner=(Point(3, 9), Point(3, 10)))]


@scenario(NamesBase.metadata, databases=LOCAL)
async def test_a_composite_that_was_or_becomes_none(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7: ``None`` where all of its columns are."""
    recorder.listen(Shape)
    shape = Shape(id=1)
    await front.add(shape)
    await front.commit()
    shape.corner = Point(1, 2)
    await front.commit()
    shape.corner = None
    await front.commit()
    assert recorder.take()[1:] == [
        updated(Shape, 1, x=(None, 1), y=(None, 2), corner=(None, Point(1, 2))),
        updated(Shape, 1, x=(1, None), y=(2, None), corner=(Point(1, 2), None)),
    ]


@scenario(NamesBase.metadata, databases=LOCAL)
async def test_a_composite_without_an_equality_of_its_own(front: FrontEnd) -> None:
    """E7: it changed if one of its columns did."""
    heard: list[dict[str, tuple[object, object]]] = []

    @listens_for(Bill, ModelEvent.UPDATE)
    def on_update(bill: Bill, event_type: ModelEvent, changes: dict[str, Any]) -> None:
        total = changes.pop("total")
        shown = {"total": (total["old"].__composite_values__(), total["new"].__composite_values__())}
        heard.append({**shown, **{key: (change["old"], change["new"]) for key, change in changes.items()}})

    bill = Bill(id=1, total=Money(1, "EUR"))
    await front.add(bill)
    await front.commit()
    bill.total = Money(1, "EUR")
    await front.commit()
    assert heard == []
    bill.total = Money(2, "EUR")
    await front.commit()
    assert heard == [{"total": ((1, "EUR"), (2, "EUR")), "amount": (1, 2)}]


@scenario(NamesBase.metadata)
async def test_a_watched_synonym_and_a_watched_composite(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7, N7: a synonym is reported under the attribute that it stands for, a composite without its columns."""
    recorder.listen(WatchingShape)
    shape = WatchingShape(id=1, status="a", corner=Point(1, 2))
    await front.add(shape)
    await front.commit()
    recorder.take()
    shape.note = "unwatched"
    await front.commit()
    assert recorder.take() == []
    shape.status = "b"
    shape.x = 5
    shape.note = "still"
    await front.commit()
    assert recorder.take() == [updated(WatchingShape, 1, status=("a", "b"), corner=(Point(1, 2), Point(5, 2)))]
    await front.expire(shape)
    shape.corner = Point(5, 2)
    shape.state = "b"
    await front.commit()
    assert recorder.take() == []
