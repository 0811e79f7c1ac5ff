"""Rules N4, E3, E4, E11 and B2 for mappings off the beaten track."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ForeignKey, Integer, Table, case, delete, insert, literal_column, update
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    column_property,
    mapped_column,
)

from fastapi_toolsets.models import Changes, Event, ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, created, deleted, updated

Shown = list[tuple[str, dict[str, Any] | None, dict[str, Any] | None]]


def show_rows(target: type[object]) -> Shown:
    """Register a callback that keeps each event's values before and after."""
    shown: Shown = []

    @listens_for(target)
    async def keep(obj: object, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        before = None if event.before is None else dict(event.before)
        shown.append((event_type.value, before, None if event.after is None else dict(event.after)))

    return shown


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Renamed(Base):
    """No attribute is called as its column is."""

    __tablename__ = "renamed"
    key: Mapped[int] = mapped_column("id", primary_key=True, autoincrement=False)
    label: Mapped[str | None] = mapped_column("l_a_b_e_l")


first_table = Table("first", Base.metadata, Column("id", Integer, primary_key=True), Column("a", Integer))
second_table = Table(
    "second", Base.metadata, Column("first_id", Integer, ForeignKey("first.id"), primary_key=True), Column("b", Integer)
)


class Joined(Base):
    """Mapped to a join of two tables."""

    __table__ = first_table.join(second_table)
    id = column_property(first_table.c.id, second_table.c.first_id)
    a: Mapped[int | None]
    b: Mapped[int | None]


class Calculated(Base):
    """Has attributes that are SQL expressions over the row, one of them in words."""

    __tablename__ = "calculated"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    a: Mapped[int | None] = mapped_column()
    b: Mapped[int | None] = mapped_column()
    total: Mapped[int | None] = column_property(a + b)
    tens: Mapped[int | None] = column_property(literal_column("calculated.a * 10"))


class Guarded(Base):
    """Has columns that refuse to be loaded lazily, are loaded in a group, or keep their history."""

    __tablename__ = "guarded"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    plain: Mapped[str | None]
    refusing: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)
    grouped: Mapped[str | None] = mapped_column(deferred=True, deferred_group="large")
    historic: Mapped[str | None] = mapped_column(active_history=True)


@scenario(Base.metadata)
async def test_attributes_with_other_names_than_their_columns(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E7, E11: also the primary key."""
    shown = show_rows(Renamed)
    recorder.listen(Renamed)
    row = Renamed(key=1, label="a")
    await front.add(row)
    await front.commit()
    await front.expire(row)
    row.label = "b"
    await front.commit()
    row.key = 2
    await front.commit()
    await front.expire(row)
    await front.delete(row)
    await front.commit()
    first, second, third = {"key": 1, "label": "a"}, {"key": 1, "label": "b"}, {"key": 2, "label": "b"}
    assert shown == [
        ("create", None, first),
        ("update", first, second),
        ("update", second, third),
        ("delete", third, None),
    ]
    assert recorder.take() == [
        created(Renamed, 1),
        updated(Renamed, 1, label=("a", "b")),
        updated(Renamed, 2, key=(1, 2)),
        deleted(Renamed, 2),
    ]


@scenario(Base.metadata)
async def test_a_class_mapped_to_a_join(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E3, E11: one row of two tables."""
    shown = show_rows(Joined)
    row = Joined(id=1, a=1, b=2)
    await front.add(row)
    await front.commit()
    await front.expire(row)
    row.a, row.b = 3, 4
    await front.commit()
    await front.expire(row)
    await front.delete(row)
    await front.commit()
    first, second = {"id": 1, "a": 1, "b": 2}, {"id": 1, "a": 3, "b": 4}
    assert shown == [("create", None, first), ("update", first, second), ("delete", second, None)]


@scenario(Base.metadata)
async def test_an_attribute_that_is_an_expression(front: FrontEnd, recorder: EventRecorder) -> None:
    """E4, E11: it is readable, and true before and after."""
    shown = show_rows(Calculated)
    row = Calculated(id=1, a=1, b=2)
    await front.add(row)
    await front.commit()
    row.a = 5
    await front.commit()
    await front.expire(row)
    row.b = 6
    await front.commit()
    rows = [{"id": 1, "a": a, "b": b, "total": a + b, "tens": a * 10} for a, b in ((1, 2), (5, 2), (5, 6))]
    assert shown == [("create", None, rows[0]), ("update", rows[0], rows[1]), ("update", rows[1], rows[2])]


@scenario(Base.metadata, databases=LOCAL)
async def test_columns_that_refuse_to_be_loaded(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E11: ``raiseload``, deferred groups and ``active_history``."""
    seen: list[tuple[object, ...]] = []

    @listens_for(Guarded)
    async def show(row: Guarded, event_type: ModelEvent, changes: Changes | None) -> None:
        seen.append((event_type.value, row.plain, row.refusing, row.grouped, row.historic))

    await front.add(Guarded(id=1, plain="p", refusing="r", grouped="g", historic="h"))
    await front.commit()
    recorder.listen(Guarded)
    for values in ({"plain": "q"}, {"refusing": "s", "historic": "i"}, {"grouped": "f"}):
        await front.expunge_all()
        row = await front.get_one(Guarded, 1)
        for key, value in values.items():
            setattr(row, key, value)
        await front.commit()
    assert recorder.take() == [
        updated(Guarded, 1, plain=("p", "q")),
        updated(Guarded, 1, refusing=("r", "s"), historic=("h", "i")),
        updated(Guarded, 1, grouped=("g", "f")),
    ]
    assert seen == [
        ("create", "p", "r", "g", "h"),
        ("update", "q", "r", "g", "h"),
        ("update", "q", "s", "g", "i"),
        ("update", "q", "s", "f", "i"),
    ]


class Letter(Base):
    """Which class a row is of, an SQL expression says."""

    __table__ = Table(
        "letters", Base.metadata, Column("id", Integer, primary_key=True, autoincrement=False), Column("stamp", Integer)
    )
    __bulk_events__ = True
    id: Mapped[int]
    stamp: Mapped[int | None]
    __mapper_args__ = {  # noqa: RUF012 - SQLAlchemy reads it
        "polymorphic_on": case((__table__.c.stamp > 1, "express"), else_="letter"),
        "polymorphic_identity": "letter",
    }


class Express(Letter):
    __mapper_args__ = {"polymorphic_identity": "express"}  # noqa: RUF012 - SQLAlchemy reads it


@scenario(Base.metadata)
async def test_a_discriminator_that_is_an_expression(front: FrontEnd, recorder: EventRecorder) -> None:
    """N4, E4, B2: no object has an attribute for it, so it is in no row and is no change."""
    recorder.listen(Letter)
    shown = show_rows(Letter)
    letter = Letter(id=1, stamp=0)
    await front.add(letter)
    await front.commit()
    letter.stamp = 1
    await front.commit()
    await front.execute(update(Letter).values(stamp=2))
    await front.commit()
    await front.delete(letter)
    await front.commit()
    rows = [{"id": 1, "stamp": stamp} for stamp in (0, 1, 2)]
    assert shown == [
        ("create", None, rows[0]),
        ("update", rows[0], rows[1]),
        ("update", rows[1], rows[2]),
        ("delete", rows[2], None),
    ]
    assert recorder.take() == [
        created(Letter, 1),
        updated(Letter, 1, stamp=(0, 1)),
        updated(Letter, 1, stamp=(1, 2)),
        deleted(Letter, 1),
    ]


class ConcreteBase(DeclarativeBase):
    type_annotation_map = TYPES


class Animal(AbstractConcreteBase, ConcreteBase):
    """Maps to the union of its subclasses' tables."""

    strict_attrs = True
    name: Mapped[str | None] = mapped_column()


class Cat(Animal):
    __tablename__ = "cats"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    lives: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "cat", "concrete": True}  # noqa: RUF012 - as documented


class Dog(Animal):
    __tablename__ = "dogs"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    __mapper_args__ = {"polymorphic_identity": "dog", "concrete": True}  # noqa: RUF012 - as documented


@scenario(ConcreteBase.metadata)
async def test_an_abstract_concrete_base(front: FrontEnd, recorder: EventRecorder) -> None:
    """N4, E3, E10: a base class mapped to a union of tables."""
    recorder.listen(Animal)
    shown = show_rows(Cat)
    cat, dog = Cat(id=1, name="a", lives=9), Dog(id=1, name="b")
    await front.add_all([cat, dog])
    await front.commit()
    await front.expire_all()
    cat.name, dog.name = "c", "d"
    await front.commit()
    await front.delete(cat)
    await front.commit()
    first = {"id": 1, "name": "a", "lives": 9}
    second = {**first, "name": "c"}
    assert shown == [("create", None, first), ("update", first, second), ("delete", second, None)]
    assert sorted(recorder.take(), key=str) == [
        created(Cat, 1),
        created(Dog, 1),
        deleted(Cat, 1),
        updated(Cat, 1, name=("a", "c")),
        updated(Dog, 1, name=("b", "d")),
    ]


class Copy(Renamed):
    """Its rows are whole in a table of its own, beside those of its base class."""

    __tablename__ = "copies"
    key: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str | None]
    __mapper_args__ = {"concrete": True}  # noqa: RUF012 - as documented


@scenario(Base.metadata)
async def test_bulk_statements_on_a_concrete_subclass(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: an INSERT of one row and a DELETE write whole rows there, as an UPDATE does."""
    options = {"execution_options": {"events": True}}
    recorder.listen(Renamed)
    await front.execute(insert(Copy).values(key=1, label="a"), **options)
    await front.execute(insert(Copy), [{"key": 2, "label": "b"}], **options)
    await front.commit()
    assert recorder.take() == [created(Copy, 1), created(Copy, 2)]
    await front.execute(update(Copy).where(Copy.key == 1).values(label="c"), **options)
    await front.execute(delete(Copy).where(Copy.key == 2), **options)
    await front.commit()
    assert recorder.take() == [updated(Copy, 1, label=("a", "c")), deleted(Copy, 2)]


@scenario(ConcreteBase.metadata)
async def test_bulk_statements_below_an_abstract_concrete_base(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: an INSERT of one row and a DELETE, where the base class is mapped to a union."""
    options = {"execution_options": {"events": True}}
    recorder.listen(Animal)
    await front.execute(insert(Dog).values(id=1, name="a"), **options)
    await front.execute(insert(Dog).values(id=2, name="b"), **options)
    await front.execute(delete(Dog).where(Dog.name == "b"), **options)
    await front.commit()
    await front.execute(delete(Dog), **options)
    await front.commit()
    assert recorder.take() == [created(Dog, 1), deleted(Dog, 1)]
