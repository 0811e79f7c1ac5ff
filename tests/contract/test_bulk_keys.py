"""Rule B2: the rows that a bulk statement writes are those that it would have written without events, whatever the key.

On PostgreSQL a statement is told to write only the rows that were read before it, by their primary keys.
"""

from __future__ import annotations

from typing import Any, cast

import pytest
from sqlalchemy import (
    ARRAY,
    BindParameter,
    Column,
    ColumnElement,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import String, TypeDecorator, UserDefinedType

from fastapi_toolsets.errors import BulkWriteError, CommitAbortedError

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .bulk_models import row_count, store
from .event_models import deleted, table_of, updated


class KeyBase(DeclarativeBase):
    type_annotation_map = TYPES
    __bulk_events__ = True


class Node(KeyBase):
    """Its rows refer to each other."""

    __tablename__ = "key_nodes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    root_id: Mapped[int | None] = mapped_column(ForeignKey("key_nodes.id"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("key_nodes.id"))
    before_id: Mapped[int | None] = mapped_column(ForeignKey("key_nodes.id"))
    after_id: Mapped[int | None] = mapped_column(ForeignKey("key_nodes.id"))
    copied_id: Mapped[int | None] = mapped_column(ForeignKey("key_nodes.id"))
    value: Mapped[int] = mapped_column(default=1)


class Worker(KeyBase):
    __tablename__ = "key_workers"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "type", "polymorphic_identity": "worker"}  # noqa: RUF012 - SQLAlchemy reads it


class Driver(Worker):
    """More foreign keys lead to the key that is inherited, and its own has another name."""

    __tablename__ = "key_drivers"
    chief_id: Mapped[int | None] = mapped_column(ForeignKey("key_workers.id"))
    driver_id: Mapped[int] = mapped_column(ForeignKey("key_workers.id"), primary_key=True, autoincrement=False)
    deputy_id: Mapped[int | None] = mapped_column(ForeignKey("key_workers.id"))
    tours: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {  # noqa: RUF012 - SQLAlchemy reads it
        "polymorphic_identity": "driver",
        "inherit_condition": driver_id == Worker.id,
    }


class Pilot(Driver):
    """One level more; its own table again refers to others' keys."""

    __tablename__ = "key_pilots"
    mentor_id: Mapped[int | None] = mapped_column(ForeignKey("key_drivers.driver_id"))
    pilot_id: Mapped[int] = mapped_column(ForeignKey("key_drivers.driver_id"), primary_key=True, autoincrement=False)
    flights: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {  # noqa: RUF012 - SQLAlchemy reads it
        "polymorphic_identity": "pilot",
        "inherit_condition": pilot_id == Driver.driver_id,
    }


class Shelf(KeyBase):
    """A part of its key may be NULL."""

    __table__ = Table(
        "key_shelves",
        KeyBase.metadata,
        Column("line", Integer, nullable=False),
        Column("place", Integer),
        Column("value", Integer),
    )
    __mapper_args__ = {"primary_key": [__table__.c.line, __table__.c.place]}  # noqa: RUF012 - SQLAlchemy reads it
    line: Mapped[int]
    place: Mapped[int | None]
    value: Mapped[int]


class Shouted(TypeDecorator[str]):
    """SQL is put around each value: small letters in the table, capitals in the program."""

    impl = String(20)
    cache_ok = True

    def bind_expression(self, bindparam: BindParameter[str]) -> ColumnElement[str]:
        return func.lower(bindparam)

    def column_expression(self, column: ColumnElement[str]) -> ColumnElement[str]:
        return func.upper(column)


class Numbered(UserDefinedType[int]):
    """A type of somebody's own: ``P7`` in the table, 7 in the program."""

    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        return "VARCHAR(20)"

    def bind_processor(self, dialect: object) -> Any:  # noqa: ANN401 - as SQLAlchemy has it
        return _as_written

    def result_processor(self, dialect: object, coltype: object) -> Any:  # noqa: ANN401 - the same
        return _as_read


def _as_written(value: int | None) -> str | None:
    return None if value is None else f"P{value}"


def _as_read(value: str | None) -> int | None:
    return None if value is None else int(value[1:])


class Name(KeyBase):
    __tablename__ = "key_names"
    name: Mapped[str] = mapped_column(Shouted, primary_key=True)
    value: Mapped[int]


class Pair(KeyBase):
    """The same as a part of a key."""

    __tablename__ = "key_pairs"
    name: Mapped[str] = mapped_column(Shouted, primary_key=True)
    number: Mapped[int] = mapped_column(Numbered, primary_key=True)
    value: Mapped[int]


class Number(KeyBase):
    __tablename__ = "key_numbers"
    number: Mapped[int] = mapped_column(Numbered, primary_key=True)
    value: Mapped[int]


class PathBase(DeclarativeBase):
    """For PostgreSQL only."""

    metadata = MetaData()
    __bulk_events__ = True


class Path(PathBase):
    __tablename__ = "key_paths"
    path: Mapped[tuple[int, ...]] = mapped_column(ARRAY(Integer, as_tuple=True), primary_key=True)
    value: Mapped[int]


class Misread(TypeDecorator[str]):
    """What is read is not what is in the table, and nothing makes it so again."""

    impl = String(20)
    cache_ok = True

    def column_expression(self, column: ColumnElement[str]) -> ColumnElement[str]:
        return func.upper(column)


class Odd(PathBase):
    __tablename__ = "key_odd"
    name: Mapped[str] = mapped_column(Misread, primary_key=True)
    value: Mapped[int]


class Part(PathBase):
    __tablename__ = "key_parts"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "type", "polymorphic_identity": "part"}  # noqa: RUF012 - SQLAlchemy reads it


class Wheel(Part):
    """How its rows belong to those of the base is an expression."""

    __tablename__ = "key_wheels"
    part_id: Mapped[int] = mapped_column(ForeignKey("key_parts.id"), primary_key=True, autoincrement=False)
    spokes: Mapped[int]
    __mapper_args__ = {  # noqa: RUF012 - SQLAlchemy reads it
        "polymorphic_identity": "wheel",
        "inherit_condition": part_id == func.abs(Part.id),
    }


@scenario(KeyBase.metadata)
async def test_table_that_refers_to_itself(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: foreign keys to the key of the same table do not take its place."""
    await store(front, Node(id=1), Node(id=2))
    await store(front, Node(id=3, root_id=1, parent_id=2))
    recorder.listen(Node)
    assert row_count(await front.execute(update(Node).values(value=2))) == 3
    await front.commit()
    assert recorder.take() == [updated(Node, key, value=(1, 2)) for key in (1, 2, 3)]
    assert await front.committed_rows(select(Node.value)) == [(2,)] * 3
    assert row_count(await front.execute(delete(Node).where(Node.parent_id == 2))) == 1
    await front.commit()
    assert recorder.take() == [deleted(Node, 3)]
    assert await front.committed_rows(select(Node.id).order_by(Node.id)) == [(1,), (2,)]


@scenario(KeyBase.metadata)
async def test_subclasses_with_more_foreign_keys_to_the_key(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: of joined inheritance the column counts that the tables are joined by, whatever it is called."""
    await store(front, Worker(id=1))
    await store(front, Driver(id=2, chief_id=1), Driver(id=3, deputy_id=1))
    await store(front, Pilot(id=4, mentor_id=2), Pilot(id=5, chief_id=1))
    recorder.listen(Worker)
    assert row_count(await front.execute(update(Driver).values(tours=2))) == 4
    assert row_count(await front.execute(update(Pilot).values(flights=3))) == 2
    await front.commit()
    assert recorder.take() == [
        updated(Driver, 2, tours=(1, 2)),
        updated(Driver, 3, tours=(1, 2)),
        updated(Pilot, 4, tours=(1, 2), flights=(1, 3)),
        updated(Pilot, 5, tours=(1, 2), flights=(1, 3)),
    ]
    assert await front.committed_rows(select(Driver.tours)) == [(2,)] * 4
    assert await front.committed_rows(select(Pilot.flights)) == [(3,)] * 2


@scenario(KeyBase.metadata)
async def test_key_of_which_a_part_is_null(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: NULL equals nothing, and its row is written and told all the same."""
    rows = [{"line": 1, "place": 1, "value": 1}, {"line": 2, "place": None, "value": 1}]
    await front.execute(insert(table_of(Shelf)), rows, execution_options={"events": False})
    await front.commit()
    recorder.listen(Shelf)
    assert row_count(await front.execute(update(Shelf).values(value=7))) == 2
    await front.execute(update(Shelf).where(Shelf.line == 2).values(value=Shelf.value + 1))
    await front.commit()
    assert sorted(recorder.take(), key=str) == [
        updated(Shelf, (1, 1), value=(1, 7)),
        updated(Shelf, (2, None), value=(1, 8)),
    ]
    assert row_count(await front.execute(delete(Shelf))) == 2
    await front.commit()
    assert sorted(recorder.take(), key=str) == [deleted(Shelf, (1, 1)), deleted(Shelf, (2, None))]
    assert await front.committed_rows(select(Shelf.line)) == []


@pytest.mark.parametrize("model", [Name, Number])
@scenario(KeyBase.metadata)
async def test_key_of_a_type_of_ones_own(front: FrontEnd, recorder: EventRecorder, model: type[Name | Number]) -> None:
    """B2: a key is compared as its type does it, with SQL around it or in other words."""
    keys: tuple[Any, ...] = ("A", "B") if model is Name else (1, 2)
    name = "name" if model is Name else "number"
    await store(front, *(model(**{name: key}, value=1) for key in keys))
    recorder.listen(model)
    assert row_count(await front.execute(update(model).values(value=2))) == 2
    await front.commit()
    assert recorder.take() == [updated(model, key, value=(1, 2)) for key in keys]
    assert row_count(await front.execute(delete(model))) == 2
    await front.commit()
    assert recorder.take() == [deleted(model, key) for key in keys]
    assert await front.committed_rows(select(model.value)) == []


@scenario(KeyBase.metadata, databases=("postgresql",))
async def test_many_keys_of_such_a_type(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: they are one list, and not a criterion for each: SQLAlchemy would take minutes for thousands of rows."""
    await store(front, *(Name(name=name, value=1) for name in "ABC"))
    recorder.listen(Name)
    with front.statements() as statements:
        await front.execute(update(Name).values(value=2), execution_options={"synchronize_session": False})
    assert [words.count(" OR ") for words in statements if words.startswith("UPDATE")] == [0]
    await front.commit()
    assert recorder.take() == [updated(Name, name, value=(1, 2)) for name in "ABC"]


@scenario(KeyBase.metadata)
async def test_composite_key_with_sql_around_a_part(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: the same for a part of a key."""
    rows = [{"name": "A", "number": 1, "value": 1}, {"name": "A", "number": 2, "value": 1}]
    await front.execute(insert(Pair), rows, execution_options={"events": False})
    await front.commit()
    recorder.listen(Pair)
    assert row_count(await front.execute(delete(Pair))) == 2
    await front.commit()
    assert recorder.take() == [deleted(Pair, ("A", 1)), deleted(Pair, ("A", 2))]
    assert await front.committed_rows(select(Pair.value)) == []


@scenario(PathBase.metadata, databases=("postgresql",))
async def test_key_that_is_an_array(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: an array of arrays would be one list of their elements."""
    await store(front, Path(path=(1, 2), value=1), Path(path=(3,), value=1))
    recorder.listen(Path)
    assert row_count(await front.execute(update(Path).values(value=2))) == 2
    await front.commit()
    assert [(event[1], event[3]) for event in recorder.take()] == [
        ("Path", {"value": {"old": 1, "new": 2}}),
        ("Path", {"value": {"old": 1, "new": 2}}),
    ]
    assert await front.committed_rows(select(Path.value)) == [(2,), (2,)]


KEEPS_TWO = (
    """CREATE OR REPLACE FUNCTION keep_two() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN IF OLD.id = 2 THEN RETURN NULL; ELSIF TG_OP = 'DELETE' THEN RETURN OLD; ELSE RETURN NEW; END IF; END$$""",
    "CREATE TRIGGER keep_two BEFORE UPDATE OR DELETE ON key_nodes FOR EACH ROW EXECUTE FUNCTION keep_two()",
)


@scenario(KeyBase.metadata, databases=("postgresql",))
async def test_rows_that_a_trigger_keeps(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a statement may write fewer rows than meet its criteria, and tells of those that it has written."""
    await store(front, Node(id=1), Node(id=2), Node(id=3))
    for words in KEEPS_TWO:
        await front.execute(text(words))
    await front.commit()
    recorder.listen(Node)
    assert row_count(await front.execute(update(Node).values(value=2))) == 2
    await front.commit()
    assert recorder.take() == [updated(Node, 1, value=(1, 2)), updated(Node, 3, value=(1, 2))]
    assert row_count(await front.execute(delete(Node))) == 2
    await front.commit()
    assert recorder.take() == [deleted(Node, 1), deleted(Node, 3)]


@pytest.mark.parametrize("returning", [False, True])
@pytest.mark.parametrize("name", ["update", "delete"])
@scenario(PathBase.metadata, databases=("postgresql",))
async def test_row_that_is_not_found_by_its_key_is_not_passed_over(
    front: FrontEnd,
    recorder: EventRecorder,
    name: str,
    returning: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """B2: a key that compares otherwise than it is read is an error, and nothing is lost silently."""
    await front.execute(text("INSERT INTO key_odd VALUES ('a', 1), ('B', 1)"))
    await front.commit()
    recorder.listen(Odd)
    statement = update(Odd).values(value=2) if name == "update" else delete(Odd)
    reason = (
        rf"{name}\(Odd\) has written 1 rows of 'key_odd', and 2 were read .* such as \('A',\)\. Roll back, .*events"
    )
    with pytest.raises(BulkWriteError, match=reason):
        await front.execute(cast("Any", statement).returning(Odd) if returning else statement)
    with pytest.raises(CommitAbortedError):
        await front.commit()
    await front.rollback()
    assert recorder.take() == []
    await front.execute(statement, execution_options={"events": False})
    await front.commit()
    assert await front.committed_rows(select(Odd.value)) == ([(2,), (2,)] if name == "update" else [])


@scenario(PathBase.metadata, databases=("postgresql",))
async def test_inherited_key_that_no_column_is_known_to_have(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: where the inherit_condition is no equality of columns, the statement does not run."""
    await front.execute(text("INSERT INTO key_parts VALUES (1, 'wheel')"))
    await front.execute(text("INSERT INTO key_wheels VALUES (1, 8)"))
    await front.commit()
    recorder.listen(Part)
    with pytest.raises(BulkWriteError, match="which columns of 'key_wheels' hold its key"):
        await front.execute(update(Wheel).values(spokes=9))
    await front.commit()
    assert recorder.take() == []
    assert await front.committed_rows(text("SELECT spokes FROM key_wheels")) == [(8,)]
