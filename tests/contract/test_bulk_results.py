"""Rule B2: a bulk statement with events returns what it does without, and is sent to no other database."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import CursorResult, Executable, ForeignKey, create_engine, delete, insert, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from fastapi_toolsets.errors import BulkWriteError

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .bulk_models import PARCELS, Base, Parcel, three_parcels
from .event_models import LOCAL, created, deleted, table_of, updated


class ResultBase(DeclarativeBase):
    type_annotation_map = TYPES
    __bulk_events__ = True


class Crate(ResultBase):
    __tablename__ = "result_crates"
    id: Mapped[int] = mapped_column(primary_key=True)
    weight: Mapped[int]
    bottles: Mapped[list[Bottle]] = relationship()


class Bottle(ResultBase):
    __tablename__ = "result_bottles"
    id: Mapped[int] = mapped_column(primary_key=True)
    crate_id: Mapped[int] = mapped_column(ForeignKey("result_crates.id"))


@scenario(ResultBase.metadata, databases=("sqlite", "postgresql"))
async def test_how_returned_objects_are_loaded(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: an UPDATE may say how to load what its objects refer to, which its rows are read without."""
    await front.add(Crate(id=1, weight=1, bottles=[Bottle(id=1), Bottle(id=2)]))
    await front.commit()
    await front.close()
    recorder.listen(Crate)
    statement = update(Crate).values(weight=2).returning(Crate).options(selectinload(Crate.bottles))

    def write(session: Session) -> list[tuple[int, list[int]]]:
        return [(crate.id, [bottle.id for bottle in crate.bottles]) for crate in session.scalars(statement)]

    assert await front.run_sync(write) == [(1, [1, 2])]
    await front.commit()
    assert recorder.take() == [updated(Crate, 1, weight=(1, 2))]


@scenario(Base.metadata)
async def test_result_without_rows(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: to ask an INSERT for rows that it was not told to return is the mistake that it is on a plain session."""
    recorder.listen(Parcel)
    asked: list[str] = []

    def write(session: Session) -> None:
        for code, way in (("a", "all"), ("b", "fetchall"), ("c", "scalars"), ("d", "keys")):
            result = session.execute(insert(Parcel).values([{"code": code}, {"code": code * 2}]))
            with pytest.raises(ResourceClosedError, match="does not return rows"):
                getattr(result, way)()
            asked.append(way)

    await front.run_sync(write)
    await front.commit()
    assert (asked, len(recorder.take())) == (["all", "fetchall", "scalars", "keys"], 8)


class Vessel(ResultBase):
    """Loaded with its subclasses, whose columns are in tables of their own."""

    __tablename__ = "result_vessels"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    __mapper_args__ = {  # noqa: RUF012 - SQLAlchemy reads it
        "polymorphic_on": "kind",
        "polymorphic_identity": "vessel",
        "with_polymorphic": "*",
    }


class Tanker(Vessel):
    __tablename__ = "result_tankers"
    id: Mapped[int] = mapped_column(ForeignKey("result_vessels.id"), primary_key=True)
    volume: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "tanker"}  # noqa: RUF012 - SQLAlchemy reads it


@pytest.mark.parametrize("model", [Vessel, Tanker])
@scenario(ResultBase.metadata)
async def test_rows_of_a_class_that_is_loaded_with_its_subclasses(
    front: FrontEnd, recorder: EventRecorder, model: type[Vessel]
) -> None:
    """B2: SQLAlchemy itself cannot return what it inserts into a join, which ``with_polymorphic`` makes."""
    recorder.listen(Vessel)
    await front.execute(insert(model), [{"name": "a"}, {"name": "b"}])
    await front.commit()
    assert recorder.take() == [created(model, 1), created(model, 2)]
    assert await front.committed_rows(select(table_of(Vessel).c.name)) == [("a",), ("b",)]


@pytest.mark.parametrize("options", [{"stream_results": True}, {"yield_per": 1}])
@scenario(Base.metadata, databases=("sqlite", "mariadb"))
async def test_returned_rows_that_are_streamed(
    front: FrontEnd, recorder: EventRecorder, options: dict[str, object]
) -> None:
    """B2: MariaDB's drivers do not know how many rows a statement has written whose rows they fetch one by one."""
    await three_parcels(front, recorder)
    statement = delete(Parcel).where(Parcel.id >= 2).returning(Parcel.id)
    assert sorted((await front.execute(statement, execution_options=options)).all()) == [(2,), (3,)]
    await front.commit()
    assert recorder.take() == [deleted(Parcel, 2), deleted(Parcel, 3)]


@pytest.mark.parametrize(
    "statement",
    [
        update(Parcel).values(weight=9),
        delete(Parcel),
        insert(Parcel).values(id=9, code="p9"),
        sqlite.insert(Parcel).values(id=1, code="p1").on_conflict_do_update(index_elements=["id"], set_={"weight": 9}),
        update(table_of(Parcel)).values(weight=9),
    ],
)
@scenario(Base.metadata, databases=LOCAL)
async def test_statement_for_another_database(
    front: FrontEnd, recorder: EventRecorder, statement: Executable, tmp_path: Path
) -> None:
    """B2: what is sent elsewhere than the session writes the model's rows is refused before it runs."""
    await three_parcels(front, recorder)
    other = create_engine(f"sqlite:///{tmp_path / 'other.sqlite'}")
    Base.metadata.create_all(other)
    with other.begin() as connection:
        connection.execute(insert(Parcel).values(id=1, code="p1"))

    def write(session: Session) -> None:
        session.execute(statement, bind_arguments={"bind": other})

    with pytest.raises(BulkWriteError, match="sent to another connection"):
        await front.run_sync(write)
    await front.commit()
    with other.connect() as connection:
        assert [tuple(row) for row in connection.execute(PARCELS)] == [(1, "p1", "new", 1, None)]
    other.dispose()
    assert recorder.take() == []
    assert await front.committed_rows(select(Parcel.id)) == [(1,), (2,), (3,)]


@scenario(Base.metadata, databases=LOCAL)
async def test_what_the_result_of_an_upsert_tells(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: the key of the only row, and how many there were; also of a statement on the table that returns rows."""
    await three_parcels(front, recorder)

    def write(session: Session) -> list[object]:
        told: list[object] = []
        for key in (1, 9):
            one = sqlite.insert(Parcel).values(id=key, code=f"p{key}", weight=5)
            one = one.on_conflict_do_update(index_elements=["id"], set_={"weight": 5}, where=Parcel.weight != 5)
            for _ in range(2):  # the second finds what it would set
                result = cast("CursorResult[Any]", session.execute(one))
                named = cast("Any", result.inserted_primary_key)
                told.append((result.is_insert, result.rowcount, named.id, [tuple(named)]))
                told.append([tuple(row) for row in cast("list[Any]", result.inserted_primary_key_rows)])
        table = table_of(Parcel)
        two = sqlite.insert(table).values([{"id": key, "code": f"p{key}"} for key in (2, 10)])
        two = two.on_conflict_do_update(index_elements=["id"], set_={"weight": 6})
        told.append(tuple(cast("Any", session.execute(two)).inserted_primary_key))
        returned = cast("CursorResult[Any]", session.execute(two.returning(table.c.id)))
        told.append((returned.rowcount, [tuple(row) for row in returned]))
        return told

    assert await front.run_sync(write) == [
        (True, 1, 1, [(1,)]),
        [(1,)],
        (True, 0, 1, [(1,)]),
        [(1,)],
        (True, 1, 9, [(9,)]),
        [(9,)],
        (True, 0, 9, [(9,)]),
        [(9,)],
        (None,),
        (2, [(2,), (10,)]),
    ]
    await front.commit()
    assert recorder.take() == [
        updated(Parcel, 1, weight=(1, 5)),
        created(Parcel, 9),
        updated(Parcel, 2, weight=(2, 6)),
        created(Parcel, 10),
    ]
