"""Rules E2, E5 and E7 for values and collections off the beaten track."""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy import ARRAY, Dialect, Enum, ForeignKey, Integer, String, TypeDecorator, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.mutable import MutableComposite, MutableDict, MutableList
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    WriteOnlyMapped,
    attribute_keyed_dict,
    composite,
    mapped_column,
    relationship,
)

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, Lower, created, updated


class Sealed:
    """A value that cannot be copied."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)

    def __deepcopy__(self, memory: object) -> Sealed:
        raise TypeError("a sealed value cannot be copied")


class SealedType(TypeDecorator[Sealed]):
    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: Sealed | None, dialect: Dialect) -> int | None:
        return None if value is None else value.number

    def process_result_value(self, value: int | None, dialect: Dialect) -> Sealed | None:
        return None if value is None else Sealed(value)


@dataclasses.dataclass
class Interval(MutableComposite):
    """A composite that can be changed in place."""

    start: int
    end: int

    def __setattr__(self, key: str, value: object) -> None:
        object.__setattr__(self, key, value)
        self.changed()


class Half:
    """A composite that refuses to be made of half its values."""

    def __init__(self, x: int | None, y: int | None) -> None:
        if x is None or y is None:
            raise ValueError("no half points")
        self.x, self.y = x, y

    def __composite_values__(self) -> tuple[int, int]:
        return self.x, self.y


class ValuesBase(DeclarativeBase):
    type_annotation_map = TYPES


class Sample(ValuesBase):
    __tablename__ = "samples"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[Sealed | None] = mapped_column(SealedType)
    interval: Mapped[Interval] = composite(mapped_column("start", default=0), mapped_column("end_", default=0))


class Point(ValuesBase):
    __tablename__ = "points"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    x: Mapped[int | None]
    y: Mapped[int | None]
    half: Mapped[Any] = composite(Half, "x", "y")


class Account(ValuesBase):
    __tablename__ = "accounts"
    name: Mapped[str] = mapped_column(Lower, primary_key=True)
    visits: Mapped[int] = mapped_column(default=0)


@scenario(ValuesBase.metadata)
async def test_keys_that_are_written_otherwise_than_given(front: FrontEnd, recorder: EventRecorder) -> None:
    """E10, E11: where rows are read again before the commit, one whose key comes back as another value is not gone."""
    recorder.listen(Account)
    await front.add(Account(name="ADA"))
    await front.flush()
    await front.execute(text("UPDATE accounts SET visits = 1"))
    await front.commit()
    assert recorder.take() == [created(Account, "ada")]


@scenario(ValuesBase.metadata, databases=LOCAL)
async def test_values_that_cannot_be_copied(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5: they are told as they are; nobody's flush or commit fails for them."""
    recorder.listen(Sample)
    sample = Sample(id=1, value=Sealed(1), interval=Interval(0, 0))
    await front.add(sample)
    await front.commit()
    sample.value = Sealed(2)
    await front.commit()
    assert recorder.take() == [created(Sample, 1), updated(Sample, 1, value=(Sealed(1), Sealed(2)))]


@scenario(ValuesBase.metadata, databases=LOCAL)
async def test_composites_that_change_in_place(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5, E7: ``MutableComposite``: true old, net over flushes, out of reach of what happens later."""
    sample = Sample(id=1, interval=Interval(1, 2))
    await front.add(sample)
    await front.commit()
    recorder.listen(Sample)
    sample.interval.start = 5
    await front.commit()
    sample.interval.start = 6
    await front.flush()
    sample.interval.start = 5
    await front.commit()
    taken = recorder.take()
    assert len(taken) == 1
    assert taken[0][3] is not None
    assert taken[0][3]["interval"] == {"old": Interval(1, 2), "new": Interval(5, 2)}


@scenario(ValuesBase.metadata, databases=LOCAL)
async def test_composites_that_refuse_their_values(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7, C4: one that cannot be made takes neither its row's nor another row's event with it."""
    points = [Point(id=1), Point(id=2, x=1, y=1)]
    await front.add_all(points)
    await front.commit()
    recorder.listen(Point)
    points[0].x = 3
    points[1].y = 4
    await front.commit()
    taken = sorted(recorder.take(), key=lambda event: str(event[2]))
    for _, _, _, changes in taken:
        if changes is not None:
            changes.pop("half", None)
    assert taken == [updated(Point, 1, x=(None, 3)), updated(Point, 2, y=(1, 4))]


class PostgresBase(DeclarativeBase): ...


class Listing(PostgresBase):
    __tablename__ = "listings"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tags: Mapped[list[str]] = mapped_column(MutableList.as_mutable(ARRAY(String)))
    plain: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    settings: Mapped[dict[str, Any]] = mapped_column(MutableDict.as_mutable(JSONB))
    colour: Mapped[str | None] = mapped_column(Enum("red", "green", name="colour"))


@scenario(PostgresBase.metadata, databases=["postgresql"])
async def test_types_of_postgresql(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2, E5: arrays, JSONB and enumerations, in place, replaced, expired and equal."""
    row = Listing(id=1, tags=["a"], plain=[1], settings={"a": [1]}, colour="red")
    await front.add(row)
    await front.commit()
    recorder.listen(Listing)
    row.tags.append("b")
    row.plain = [1, 2]
    row.settings["b"] = 2
    row.colour = "green"
    await front.commit()
    await front.expire(row)
    row.plain, row.tags, row.settings = [1, 2], ["a", "b"], {"b": 2, "a": [1]}
    await front.commit()
    assert recorder.take() == [
        updated(
            Listing,
            1,
            tags=(["a"], ["a", "b"]),
            plain=([1], [1, 2]),
            settings=({"a": [1]}, {"a": [1], "b": 2}),
            colour=("red", "green"),
        )
    ]


# Collections


class CollectionsBase(DeclarativeBase):
    type_annotation_map = TYPES


class Shelf(CollectionsBase):
    __tablename__ = "shelves"
    __watched_fields__ = ("dynamic", "written", "keyed")
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    dynamic: DynamicMapped[Item] = relationship(foreign_keys="Item.dynamic_id")
    written: WriteOnlyMapped[Item] = relationship(foreign_keys="Item.written_id")
    keyed: Mapped[dict[str, Item]] = relationship(
        foreign_keys="Item.keyed_id", collection_class=attribute_keyed_dict("label")
    )


class Item(CollectionsBase):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str | None]
    dynamic_id: Mapped[int | None] = mapped_column(ForeignKey("shelves.id"))
    written_id: Mapped[int | None] = mapped_column(ForeignKey("shelves.id"))
    keyed_id: Mapped[int | None] = mapped_column(ForeignKey("shelves.id"))


@scenario(CollectionsBase.metadata)
async def test_collections_of_every_kind(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7: dynamic, write-only and dictionary collections, watched by name."""
    shelf, item, other = Shelf(id=1), Item(id=1, label="a"), Item(id=2, label="a")
    await front.add_all([shelf, item, other])
    await front.commit()
    await front.refresh(shelf, ["keyed"])
    recorder.listen(Shelf)
    shelf.dynamic.append(item)
    shelf.written.add(item)
    shelf.keyed["a"] = item
    await front.commit()
    shelf.dynamic.remove(item)
    shelf.written.remove(item)
    shelf.keyed["a"] = other
    await front.commit()
    shelf.dynamic.append(item)
    await front.flush()
    shelf.dynamic.remove(item)
    await front.commit()
    assert recorder.take() == [
        updated(Shelf, 1, dynamic=([], [item]), written=([], [item]), keyed=([], [item])),
        updated(Shelf, 1, dynamic=([item], []), written=([item], []), keyed=([item], [other])),
    ]
