"""Rule B2 for INSERT: rows are told of in whichever way they are given."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Insert,
    Integer,
    String,
    Table,
    bindparam,
    func,
    insert,
    inspect,
    literal,
    select,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, composite, mapped_column

from fastapi_toolsets.errors import BulkWriteError

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from ..versions import SQLALCHEMY
from .bulk_models import store
from .event_models import created, table_of, updated


class GivenBase(DeclarativeBase):
    type_annotation_map = TYPES
    __bulk_events__ = True


class Good(GivenBase):
    __tablename__ = "given_goods"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    value: Mapped[int] = mapped_column("amount", default=1)


class Cell(GivenBase):
    __tablename__ = "given_cells"
    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(default=1)


@dataclass
class Place:
    line: int
    number: int


class Tile(GivenBase):
    """Its key is a composite, and can be given by a hybrid, too."""

    __tablename__ = "given_tiles"
    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(default=1)
    place: Mapped[Place] = composite(Place, "line", "number")

    if SQLALCHEMY >= (2, 1):

        @hybrid_property
        def words(self) -> str:
            return f"{self.line} {self.number}"

        @words.inplace.bulk_dml
        @classmethod
        def _words_of_a_row(cls, mapping: MutableMapping[str, Any], value: str) -> None:
            mapping["line"], mapping["number"] = map(int, value.split())


class Label(GivenBase):
    """Its rows are known by another key than the table's own."""

    __table__ = Table(
        "given_labels",
        GivenBase.metadata,
        Column("number", Integer, primary_key=True),
        Column("code", String(20), unique=True, nullable=False),
        Column("value", Integer),
    )
    __mapper_args__ = {"primary_key": [__table__.c.code]}  # noqa: RUF012 - SQLAlchemy reads it
    code: Mapped[str]


class Scrap(GivenBase):
    """Its table has no key."""

    __table__ = Table("given_scraps", GivenBase.metadata, Column("code", String(20)), Column("value", Integer))
    __mapper_args__ = {"primary_key": [__table__.c.code]}  # noqa: RUF012 - SQLAlchemy reads it


class Work(GivenBase):
    __tablename__ = "given_works"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "work"}  # noqa: RUF012 - SQLAlchemy reads it


class Book(Work):
    """Its own key has another name."""

    __tablename__ = "given_books"
    book_id: Mapped[int] = mapped_column(ForeignKey("given_works.id"), primary_key=True)
    pages: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "book"}  # noqa: RUF012 - SQLAlchemy reads it


class Novel(Book):
    """And once more."""

    __tablename__ = "given_novels"
    novel_id: Mapped[int] = mapped_column(ForeignKey("given_books.book_id"), primary_key=True)
    tears: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "novel"}  # noqa: RUF012 - SQLAlchemy reads it


class Play(Work):
    """Its own key has the same name."""

    __tablename__ = "given_plays"
    id: Mapped[int] = mapped_column(ForeignKey("given_works.id"), primary_key=True)
    acts: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "play"}  # noqa: RUF012 - SQLAlchemy reads it


class Drama(Play):
    """And once more."""

    __tablename__ = "given_dramas"
    id: Mapped[int] = mapped_column(ForeignKey("given_plays.id"), primary_key=True)
    tears: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "drama"}  # noqa: RUF012 - SQLAlchemy reads it


class Song(Work):
    """Nothing but a key."""

    __tablename__ = "given_songs"
    id: Mapped[int] = mapped_column(ForeignKey("given_works.id"), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "song"}  # noqa: RUF012 - SQLAlchemy reads it


class Ballad(Song):
    """A table behind that."""

    __tablename__ = "given_ballads"
    id: Mapped[int] = mapped_column(ForeignKey("given_songs.id"), primary_key=True)
    tears: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "ballad"}  # noqa: RUF012 - SQLAlchemy reads it


GOODS = select(Good.id, Good.name, Good.value).order_by(Good.id)
CELLS = select(Cell.line, Cell.place, Cell.value).order_by(Cell.line, Cell.place)


def upsert_of_parameters(front: FrontEnd) -> Insert:
    """An upsert of goods by name whose values are parameters with names of their own."""
    given: dict[str, Any] = {"id": bindparam("i"), "name": bindparam("k"), "amount": bindparam("m")}
    if front.database.name == "mariadb":
        statement = mysql.insert(table_of(Good)).values(given)
        return statement.on_duplicate_key_update(amount=statement.inserted.amount)
    if front.database.name == "postgresql":
        found = postgresql.insert(table_of(Good)).values(given)
        return found.on_conflict_do_update(index_elements=["name"], set_={"amount": found.excluded.amount})
    other = sqlite.insert(table_of(Good)).values(given)
    return other.on_conflict_do_update(index_elements=["name"], set_={"amount": other.excluded.amount})


@scenario(GivenBase.metadata)
async def test_upsert_of_parameters(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a row conflicts with what its parameters say, whatever these are called."""
    await store(front, Good(id=1, name="x", value=1))
    recorder.listen(Good)
    rows: list[dict[str, Any]] = [{"i": 50, "k": "x", "m": 5}, {"i": 51, "k": "y", "m": 6}]
    await front.execute(upsert_of_parameters(front), rows)
    await front.execute(upsert_of_parameters(front), {"i": 52, "k": "z", "m": 7})
    await front.commit()
    assert recorder.take() == [updated(Good, 1, value=(1, 5)), created(Good, 51), created(Good, 52)]
    assert await front.committed_rows(GOODS) == [(1, "x", 5), (51, "y", 6), (52, "z", 7)]


@scenario(GivenBase.metadata)
async def test_rows_by_position(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: rows that are tuples have their values in the order of the table's columns."""
    recorder.listen(Good)
    await front.execute(insert(Good).values([(11, "a", 1), (12, "b", 2)]))
    await front.execute(insert(Good).values((13, "c", 3)))
    await front.execute(insert(table_of(Good)).values([(14, "d", 4), (15, "e", 5)]))
    await front.commit()
    assert recorder.take() == [created(Good, key) for key in (11, 12, 13, 14, 15)]
    rows = [(11, "a", 1), (12, "b", 2), (13, "c", 3), (14, "d", 4), (15, "e", 5)]
    assert await front.committed_rows(GOODS) == rows


@scenario(GivenBase.metadata)
async def test_parameters_in_many_values(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: what stands in many VALUES is looked up among the parameters of all of them."""
    recorder.listen(Good)
    values: list[dict[str, Any]] = [{"id": bindparam("a"), "name": "a"}, {"id": bindparam("b"), "name": "b"}]
    await front.execute(insert(table_of(Good)).values(values), {"a": 5, "b": 6})
    await front.commit()
    assert recorder.take() == [created(Good, 5), created(Good, 6)]
    assert await front.committed_rows(GOODS) == [(5, "a", 1), (6, "b", 1)]


@scenario(GivenBase.metadata)
async def test_subclass_whose_key_has_another_name(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: of a list of rows without keys the database makes them, and they are returned from the class's own table."""
    recorder.listen(Work)
    await front.execute(insert(Book), [{"pages": 10}, {"pages": 20}])
    rows = await front.execute(insert(Book).returning(Book.pages, Book.book_id), [{"pages": 30}, {"pages": 40}])
    assert [tuple(row) for row in rows] == [(30, 3), (40, 4)]
    await front.commit()
    assert recorder.take() == [created(Book, key) for key in (1, 2, 3, 4)]
    books = await front.committed_rows(select(table_of(Book).c.book_id, Book.pages).order_by(table_of(Book).c.book_id))
    assert books == [(key, key * 10) for key in (1, 2, 3, 4)]


@pytest.mark.parametrize(("model", "field"), [(Novel, "pages"), (Drama, "acts")])
@scenario(GivenBase.metadata)
async def test_tables_in_between(
    front: FrontEnd, recorder: EventRecorder, model: type[Novel | Drama], field: str
) -> None:
    """B2: the keys of three tables' rows are returned, for which SQLAlchemy needs more of the one in between."""
    recorder.listen(Work)
    await front.execute(insert(model), [{field: 10, "tears": 1}, {field: 20, "tears": 2}])
    returned = await front.execute(insert(model).returning(model.tears), [{field: 30, "tears": 3}])
    assert [tuple(row) for row in returned] == [(3,)]
    await front.execute(insert(model), [{"id": 9, field: 40, "tears": 4}, {"id": 8, field: 50, "tears": 5}])
    await front.commit()
    assert recorder.take() == [created(model, key) for key in (1, 2, 3, 9, 8)]
    assert await front.committed_rows(select(model.tears).order_by(model.tears)) == [(key,) for key in (1, 2, 3, 4, 5)]


@scenario(GivenBase.metadata)
async def test_table_in_between_with_nothing_but_a_key(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: past it SQLAlchemy returns no keys: rows without are refused."""
    recorder.listen(Work)
    with pytest.raises(BulkWriteError, match="'given_songs', which has nothing else: give every row its own"):
        await front.execute(insert(Ballad), [{"tears": 1}, {"tears": 2}])
    await front.execute(insert(Ballad), [{"id": 5, "tears": 1}, {"id": 4, "tears": 2}])
    await front.commit()
    assert recorder.take() == [created(Ballad, 5), created(Ballad, 4)]
    assert await front.committed_rows(select(Ballad.tears).order_by(Ballad.tears)) == [(1,), (2,)]


def upsert_of_tiles(front: FrontEnd) -> Insert:
    """An upsert of a list of tiles by their key."""
    if front.database.name == "mariadb":
        statement = mysql.insert(Tile)
        return statement.on_duplicate_key_update(value=statement.inserted.value)
    if front.database.name == "postgresql":
        found = postgresql.insert(Tile)
        return found.on_conflict_do_update(index_elements=["line", "number"], set_={"value": found.excluded.value})
    other = sqlite.insert(Tile)
    return other.on_conflict_do_update(index_elements=["line", "number"], set_={"value": other.excluded.value})


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("place", [Place(1, 2), Place(3, 4)]),
        pytest.param("words", ["1 2", "3 4"], marks=pytest.mark.skipif(SQLALCHEMY < (2, 1), reason="new in 2.1")),
    ],
)
@scenario(GivenBase.metadata)
async def test_keys_that_stand_for_columns(
    front: FrontEnd, recorder: EventRecorder, name: str, keys: list[object]
) -> None:
    """B2: rows of a list whose keys are composites or hybrids are known by the columns behind them."""
    await store(front, Tile(line=1, number=2))
    recorder.listen(Tile)
    rows: list[dict[str, object]] = [{name: key, "value": 5} for key in keys]
    await front.execute(upsert_of_tiles(front), rows)
    await front.commit()
    assert recorder.take() == [updated(Tile, (1, 2), value=(1, 5)), created(Tile, (3, 4))]

    def update_one(session: Session) -> None:
        session.bulk_update_mappings(inspect(Tile), [{name: keys[0], "value": 6}])

    await front.run_sync(update_one)
    await front.commit()
    assert recorder.take() == [updated(Tile, (1, 2), value=(5, 6))]
    assert rows == [{name: key, "value": 5} for key in keys]


@pytest.mark.parametrize("returning", [False, True])
@pytest.mark.parametrize("target", [Cell, table_of(Cell)], ids=["class", "table"])
@pytest.mark.parametrize("kind", ["parameter", "expression", "both", "plain"])
@scenario(GivenBase.metadata)
async def test_keys_of_many_rows_that_are_parameters_or_expressions(
    front: FrontEnd,
    recorder: EventRecorder,
    kind: str,
    target: Any,  # noqa: ANN401 - what an INSERT takes
    returning: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """B2: a part of the key is given to all rows by ``values()``, each with its own parameters."""
    recorder.listen(Cell)
    ways: dict[str, dict[str, Any]] = {
        "parameter": {"line": bindparam("number")},
        "expression": {"line": func.abs(literal(-3))},
        "both": {"line": bindparam("number") + 1},
        "plain": {"line": 3},
    }
    statement: Any = insert(target).values(ways[kind])
    rows: list[dict[str, Any]] = [{"place": key, "value": key} for key in (9, 2, 4)]
    if kind in ("parameter", "both"):
        rows = [{"number": key, **row} for key, row in zip((3, 1, 2), rows, strict=True)]
    if returning:
        result = await front.execute(statement.returning(Cell.value), rows)
        assert sorted(tuple(row) for row in result) == [(2,), (4,), (9,)]
    else:
        await front.execute(statement, rows)
    await front.commit()
    lines = {"parameter": (3, 1, 2), "expression": (3, 3, 3), "both": (4, 2, 3), "plain": (3, 3, 3)}[kind]
    assert recorder.take() == [created(Cell, key) for key in zip(lines, (9, 2, 4), strict=True)]
    expected = sorted((line, place, place) for line, place in zip(lines, (9, 2, 4), strict=True))
    assert await front.committed_rows(CELLS) == expected


@pytest.mark.parametrize("model", [Label, Scrap])
@scenario(GivenBase.metadata)
async def test_rows_that_are_known_by_another_key_than_the_table_has(
    front: FrontEnd, recorder: EventRecorder, model: type[GivenBase]
) -> None:
    """B2: SQLAlchemy tells the table's key of a row that it has made, or none."""
    recorder.listen(model)
    await front.execute(insert(model).values(code="a", value=1))
    await front.execute(insert(table_of(model)).values(code="b", value=1))
    await front.execute(insert(model), {"code": "c", "value": 1})
    await front.execute(insert(model).values(code=literal("d").concat("e"), value=1))
    await front.execute(insert(model).values([{"code": "f"}, {"code": "g"}]))
    await front.commit()
    assert recorder.take() == [created(model, code) for code in ("a", "b", "c", "de", "f", "g")]
