"""Rule B2: criteria that look at other tables find the rows that they find without events.

SQLAlchemy adds criteria for a class, and lets subqueries refer to what is around them, otherwise in a SELECT than in an
UPDATE or DELETE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import ForeignKey, column, delete, exists, func, insert, literal_column, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, foreign, mapped_column, relationship, with_loader_criteria

from fastapi_toolsets.errors import BulkWriteError

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .bulk_models import row_count, store
from .event_models import created, deleted, table_of, updated

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Executable, Update


class CriteriaBase(DeclarativeBase):
    type_annotation_map = TYPES
    __bulk_events__ = True


class Place(CriteriaBase):
    __tablename__ = "criteria_places"
    floor: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    room: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    pet_id: Mapped[int]
    value: Mapped[int] = mapped_column(default=1)


class Pet(CriteriaBase):
    __tablename__ = "criteria_pets"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    name: Mapped[str]
    age: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "pet"}  # noqa: RUF012 - SQLAlchemy reads it

    places: Mapped[list[Place]] = relationship(
        primaryjoin=lambda: Pet.id == foreign(Place.pet_id), viewonly=True, order_by=lambda: Place.room
    )


class Cat(Pet):
    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012 - SQLAlchemy reads it


class Hound(Pet):
    """A table of its own."""

    __tablename__ = "criteria_hounds"
    hound_id: Mapped[int] = mapped_column(ForeignKey("criteria_pets.id"), primary_key=True, autoincrement=False)
    hunts: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {"polymorphic_identity": "hound"}  # noqa: RUF012 - SQLAlchemy reads it


class Setter(Hound):
    """In the table of its base class, whose rows have a part in the base's."""

    __mapper_args__ = {"polymorphic_identity": "setter"}  # noqa: RUF012 - SQLAlchemy reads it


class Boat(CriteriaBase):
    """Loaded with its subclasses."""

    __tablename__ = "criteria_boats"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    age: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {  # noqa: RUF012 - SQLAlchemy reads it
        "polymorphic_on": "kind",
        "polymorphic_identity": "boat",
        "with_polymorphic": "*",
    }


class Ferry(Boat):
    __tablename__ = "criteria_ferries"
    id: Mapped[int] = mapped_column(ForeignKey("criteria_boats.id"), primary_key=True, autoincrement=False)
    cars: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {"polymorphic_identity": "ferry"}  # noqa: RUF012 - SQLAlchemy reads it


PLACES = select(Place.floor, Place.room, Place.value).order_by(Place.floor, Place.room)
HOUNDS = select(table_of(Hound).c.hound_id, Hound.hunts).order_by(table_of(Hound).c.hound_id)


async def pets_and_places(front: FrontEnd, recorder: EventRecorder) -> None:
    """Commit pets of each class, places of three of them, and of one that there is not; then begin to listen."""
    await store(front, Pet(id=1, name="a"), Cat(id=2, name="tom"), Hound(id=3, name="rex"), Hound(id=4, name="bo"))
    await store(front, *(Place(floor=1, room=key, pet_id=key) for key in (1, 2, 3, 9)))
    recorder.listen(CriteriaBase)


async def as_without_events(
    front: FrontEnd,
    statement: Any,  # noqa: ANN401 - UPDATE or DELETE
    rows: Any,  # noqa: ANN401 - SELECT
) -> int:
    """Check that a statement leaves the rows that it leaves on a plain session, and return how many it writes.

    Not synchronized: on MariaDB SQLAlchemy would select the rows as well, and not find those that it writes.
    """
    statement = statement.execution_options(synchronize_session=False)
    plain = front.plain_session()
    written = row_count(await plain.execute(statement))
    left = [tuple(row) for row in (await plain.execute(rows)).all()]
    await plain.rollback()
    assert row_count(await front.execute(statement)) == written
    await front.commit()
    assert await front.committed_rows(rows) == left
    return written


CAT = aliased(Cat)


@pytest.mark.parametrize(
    "statement",
    [
        update(Place).where(Place.pet_id == Cat.id),
        update(Place).where(Place.pet_id == CAT.id),
        update(Place).where(Place.pet_id == Pet.id).options(with_loader_criteria(Pet, Pet.age > 1)),
    ],
    ids=["subclass", "alias", "loader criteria"],
)
@scenario(CriteriaBase.metadata)
async def test_classes_that_an_update_joins(front: FrontEnd, recorder: EventRecorder, statement: Update) -> None:
    """B2: SQLAlchemy adds no criteria for the other classes of an UPDATE, and its rows are read without any."""
    await pets_and_places(front, recorder)
    assert await as_without_events(front, statement.values(value=2), PLACES) == 3
    assert recorder.take() == [updated(Place, (1, key), value=(1, 2)) for key in (1, 2, 3)]


@scenario(CriteriaBase.metadata)
async def test_classes_in_subqueries_keep_their_criteria(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: in a subquery it adds them, in both; and those of the statement's own class."""
    await pets_and_places(front, recorder)
    statement = update(Place).where(exists(select(Cat.id).where(Place.pet_id == Cat.id))).values(value=2)
    assert await as_without_events(front, statement, PLACES) == 1
    assert recorder.take() == [updated(Place, (1, 2), value=(1, 2))]
    own = update(Cat).where(Cat.id.in_(select(Place.pet_id))).values(age=5)
    assert await as_without_events(front, own, select(Pet.id, Pet.age).order_by(Pet.id)) == 1
    assert recorder.take() == [updated(Cat, 2, age=(1, 5))]
    statement = update(Place).where(Place.pet_id.in_(select(Pet.id))).values(value=3)
    statement = statement.options(with_loader_criteria(Pet, Pet.age > 1))
    assert await as_without_events(front, statement, PLACES) == 1
    assert recorder.take() == [updated(Place, (1, 2), value=(2, 3))]
    gone = delete(Place).where(Place.pet_id.in_(select(Pet.id)))
    gone = gone.options(with_loader_criteria(Pet, Pet.age > 1), with_loader_criteria(Place, Place.value > 2))
    assert await as_without_events(front, gone, PLACES) == 1
    assert recorder.take() == [deleted(Place, (1, 2))]


@pytest.mark.parametrize("target", ["class", "table"])
@scenario(CriteriaBase.metadata)
async def test_subquery_on_the_table_of_the_base(front: FrontEnd, recorder: EventRecorder, target: str) -> None:
    """B2: of a joined subclass an UPDATE writes the one table, and a subquery on the base's is one by itself."""
    await pets_and_places(front, recorder)
    written: Any = Hound if target == "class" else table_of(Hound)
    statement = update(written).where(exists().where(Pet.id == Place.pet_id, Pet.name == "rex")).values(hunts=2)
    assert await as_without_events(front, statement, HOUNDS) == 2
    assert recorder.take() == [updated(Hound, key, hunts=(1, 2)) for key in (3, 4)]
    statement = update(written).where(exists().where(Pet.id == Hound.hunts, Pet.name == "rex")).values(hunts=3)
    assert await as_without_events(front, statement, HOUNDS) == 0
    assert recorder.take() == []
    statement = update(written).where(exists().where(Pet.id == table_of(Hound).c.hound_id, Pet.name == "rex"))
    assert await as_without_events(front, statement.values(hunts=4), HOUNDS) == 1
    assert recorder.take() == [updated(Hound, 3, hunts=(2, 4))]


@pytest.mark.parametrize(
    ("criterion", "keys"),
    [
        (Hound.places.any(Place.room == 2), [3, 4]),
        (exists().where(Pet.id == Place.pet_id, Pet.name == "tom").correlate(Pet), [3, 4]),
        (exists().where(Pet.id == Place.pet_id, Pet.name == "tom").correlate_except(Place), [3, 4]),
        (table_of(Hound).c.hound_id.in_(select(Pet.id).where(Pet.id > 3).correlate(Pet)), [4]),
        (table_of(Hound).c.hound_id.in_(select(func.count()).where(Pet.id == Place.pet_id).correlate(Pet)), [3]),
    ],
    ids=["any", "correlate", "correlate_except", "in", "count"],
)
@scenario(CriteriaBase.metadata)
async def test_subquery_that_asks_to_refer_to_the_table_of_the_base(
    front: FrontEnd, recorder: EventRecorder, criterion: ColumnElement[bool], keys: list[int]
) -> None:
    """B2: what a subquery is told to refer to is not around it in the statement, and not where its rows are read."""
    await pets_and_places(front, recorder)
    assert await as_without_events(front, update(Hound).where(criterion).values(hunts=2), HOUNDS) == len(keys)
    assert recorder.take() == [updated(Hound, key, hunts=(1, 2)) for key in keys]


@scenario(CriteriaBase.metadata, databases=("postgresql", "mariadb"))
async def test_rows_that_others_have_added_meanwhile(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: what is read by itself is read as the statement reads it: also what is newer than the transaction."""
    await pets_and_places(front, recorder)
    assert [tuple(row) for row in (await front.execute(PLACES)).all()] == [(1, key, 1) for key in (1, 2, 3, 9)]
    other = front.plain_session()
    await other.execute(insert(Place), [{"floor": 2, "room": 2, "pet_id": 2}])
    await other.execute(update(Place).where(Place.room == 9).values(pet_id=2))
    await other.commit()
    statement = update(Place).where(Place.pet_id.in_(select(Cat.id))).values(value=2)
    assert row_count(await front.execute(statement)) == 3
    await front.commit()
    assert recorder.take() == [updated(Place, key, value=(1, 2)) for key in ((1, 2), (1, 9), (2, 2))]
    assert await front.committed_rows(PLACES) == [(1, 1, 1), (1, 2, 2), (1, 3, 1), (1, 9, 2), (2, 2, 2)]


@pytest.mark.parametrize(
    "words", [text("id > 1"), literal_column("id") > 1, column("id") > 1], ids=["text", "literal", "bare"]
)
@scenario(CriteriaBase.metadata)
async def test_names_that_several_tables_of_a_row_have(
    front: FrontEnd, recorder: EventRecorder, words: ColumnElement[bool]
) -> None:
    """B2: a name that stands alone means the statement's own table, also where the rows are read from several."""
    await store(front, Boat(id=1), Boat(id=2), Ferry(id=3), Ferry(id=4))
    recorder.listen(Boat)
    boats = select(table_of(Boat).c.id, table_of(Boat).c.age).order_by(table_of(Boat).c.id)
    assert await as_without_events(front, update(Boat).where(words).values(age=2), boats) == 3
    changed = [updated(Boat, 2, age=(1, 2)), updated(Ferry, 3, age=(1, 2)), updated(Ferry, 4, age=(1, 2))]
    assert recorder.take() == changed
    ferries = select(table_of(Ferry).c.id, Ferry.cars).order_by(table_of(Ferry).c.id)
    assert await as_without_events(front, update(Ferry).where(words).values(cars=2), ferries) == 2
    assert recorder.take() == [updated(Ferry, 3, cars=(1, 2)), updated(Ferry, 4, cars=(1, 2))]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (update(Setter).values(hunts=2), "SQLAlchemy tells its rows by a column of another table, 'criteria_pets'"),
        (delete(Setter), "leaves their other part in 'criteria_pets'"),
        (insert(Setter).values(hound_id=1), "it makes a part of the row only"),
        (delete(Hound), "leaves their other part in 'criteria_pets'"),
    ],
    ids=["update", "delete", "insert", "delete of the base class"],
)
@scenario(CriteriaBase.metadata)
async def test_class_that_shares_a_part_of_its_rows(
    front: FrontEnd, recorder: EventRecorder, statement: Executable, reason: str
) -> None:
    """B2: of which class a row is stands in another table, which SQLAlchemy names and does not join."""
    await store(front, Pet(id=1, name="a"), Hound(id=3, name="rex"), Setter(id=4, name="bo"))
    recorder.listen(Pet)
    with pytest.raises(BulkWriteError, match=reason):
        await front.execute(statement, execution_options={"synchronize_session": False})
    await front.execute(update(Setter), [{"id": 4, "hound_id": 4, "hunts": 2}])
    await front.execute(insert(Setter), [{"id": 5, "name": "new"}])
    await front.commit()
    assert recorder.take() == [updated(Setter, 4, hunts=(1, 2)), created(Setter, 5)]
    assert await front.committed_rows(HOUNDS) == [(3, 1), (4, 2), (5, 1)]
