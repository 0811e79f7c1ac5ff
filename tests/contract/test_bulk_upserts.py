"""Rule B2 for upserts: every row that a plain session updates or makes is told, whatever the table and its keys are."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    ForeignKey,
    Index,
    Insert,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_toolsets.errors import BulkWriteError

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .bulk_models import Base, Employee, Manager, Parcel, store, three_parcels, upsert
from .event_models import created, updated


class UpsertBase(DeclarativeBase):
    type_annotation_map = TYPES
    __bulk_events__ = True


class Reading(UpsertBase):
    """In partitions, of which SQLAlchemy makes none."""

    __tablename__ = "upsert_readings"
    day: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sensor: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int]
    __table_args__ = {"postgresql_partition_by": "RANGE (day)"}  # noqa: RUF012 - SQLAlchemy reads it


class Setting(UpsertBase):
    """One value for each name and user, and one for nobody."""

    __tablename__ = "upsert_settings"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    user: Mapped[int | None]
    value: Mapped[int]
    __table_args__ = (UniqueConstraint("name", "user", postgresql_nulls_not_distinct=True),)


class Page(UpsertBase):
    """Unique by the beginning of a text, as MariaDB has it where the whole is too long for an index."""

    __tablename__ = "upsert_pages"
    id: Mapped[int] = mapped_column(primary_key=True)
    site: Mapped[int]
    path: Mapped[str] = mapped_column(Text)
    value: Mapped[int]
    __table_args__ = (Index("upsert_pages_path", "site", "path", unique=True, mysql_length={"path": 4}),)


class Ticket(UpsertBase):
    """With subclasses in its table, and one beside."""

    __tablename__ = "upsert_tickets"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    price: Mapped[int]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "ticket"}  # noqa: RUF012 - SQLAlchemy reads it


class Reduced(Ticket):
    __mapper_args__ = {"polymorphic_identity": "reduced"}  # noqa: RUF012 - SQLAlchemy reads it


class Season(Ticket):
    __tablename__ = "upsert_seasons"
    id: Mapped[int] = mapped_column(ForeignKey("upsert_tickets.id"), primary_key=True)
    days: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "season"}  # noqa: RUF012 - SQLAlchemy reads it


class ExpressionBase(DeclarativeBase):
    type_annotation_map = TYPES
    __bulk_events__ = True


class Word(ExpressionBase):
    """Unique whatever the case is."""

    __tablename__ = "upsert_words"
    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str] = mapped_column()
    value: Mapped[int]
    __table_args__ = (Index("upsert_words_word", func.lower(word), unique=True),)


class OrderBase(DeclarativeBase):
    type_annotation_map = TYPES
    __bulk_events__ = True


class Place(OrderBase):
    """Its unique index is kept in another order."""

    __tablename__ = "upsert_places"
    id: Mapped[int] = mapped_column(primary_key=True)
    rank: Mapped[int] = mapped_column()
    value: Mapped[int]
    __table_args__ = (Index("upsert_places_rank", rank.desc(), unique=True),)


class ViewBase(DeclarativeBase):
    """Of what is no table."""


class Shown(ViewBase):
    __tablename__ = "upsert_shown_parcels"
    __bulk_events__ = True
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str]
    status: Mapped[str]
    weight: Mapped[int]


async def make_partitions(front: FrontEnd) -> None:
    await front.execute(text("CREATE TABLE upsert_readings_1 PARTITION OF upsert_readings FOR VALUES FROM (0) TO (10)"))
    await front.execute(
        text("CREATE TABLE upsert_readings_2 PARTITION OF upsert_readings FOR VALUES FROM (10) TO (20)")
    )
    await front.commit()


async def upsert_three(front: FrontEnd) -> None:
    rows: list[dict[str, object]] = [{"id": key, "type": "employee", "name": f"n{key}"} for key in (1, 2, 3)]
    await front.execute(upsert(front, Employee, "id", rows, "name"))
    await front.commit()


@scenario(Base.metadata)
async def test_row_of_a_joined_subclass(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: an upsert for the base class updates a row of a subclass, which is told with its own class."""
    await store(front, Employee(id=1, name="e1"), Manager(id=2, name="m2", budget=5))
    recorder.listen(Employee)
    await upsert_three(front)
    assert recorder.take() == [
        updated(Employee, 1, name=("e1", "n1")),
        updated(Manager, 2, name=("m2", "n2")),
        created(Employee, 3),
    ]


@scenario(Base.metadata)
async def test_only_a_joined_subclass_is_listened_to(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: an upsert for the base class is followed also where only a subclass has listeners."""
    await store(front, Employee(id=1, name="e1"), Manager(id=2, name="m2", budget=5))
    recorder.listen(Manager)
    await upsert_three(front)
    assert recorder.take() == [updated(Manager, 2, name=("m2", "n2"))]


@scenario(UpsertBase.metadata)
async def test_classes_beside_the_one_that_is_named(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: rows of the same table are told with their own class, whether that has a table of its own or not."""
    await store(front, Ticket(id=1, price=1), Reduced(id=2, price=1), Season(id=3, price=1, days=30))
    recorder.listen(Ticket)
    rows: list[dict[str, object]] = [{"id": key, "kind": "reduced", "price": 5} for key in (1, 2, 3, 4)]
    await front.execute(upsert(front, Reduced, "id", rows, "price"))
    await front.commit()
    assert recorder.take() == [
        updated(Ticket, 1, price=(1, 5)),
        updated(Reduced, 2, price=(1, 5)),
        updated(Season, 3, price=(1, 5)),
        created(Reduced, 4),
    ]
    await front.execute(update(Reduced), [{"id": key, "price": 6} for key in (3, 4)])
    await front.commit()
    assert recorder.take() == [updated(Season, 3, price=(5, 6)), updated(Reduced, 4, price=(5, 6))]
    tickets = await front.committed_rows(select(Ticket.id, Ticket.price).order_by(Ticket.id))
    assert tickets == [(1, 5), (2, 5), (3, 6), (4, 6)]


@scenario(UpsertBase.metadata, databases=("postgresql",))
async def test_partitioned_table(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: PostgreSQL's RETURNING has no system columns for rows of partitions, and they are told all the same."""
    await make_partitions(front)
    await store(front, Reading(day=1, sensor=1, value=1), Reading(day=11, sensor=1, value=1))
    recorder.listen(Reading)
    rows = [{"day": day, "sensor": sensor, "value": 5} for day in (1, 11) for sensor in (1, 2)]
    statement = postgresql.insert(Reading).values(rows)
    statement = statement.on_conflict_do_update(
        index_elements=["day", "sensor"], set_={"value": statement.excluded.value}
    )
    returned = (await front.execute(statement.returning(Reading.day, Reading.value))).all()
    assert [tuple(row) for row in returned] == [(1, 5), (1, 5), (11, 5), (11, 5)]
    await front.commit()
    assert recorder.take() == [
        updated(Reading, (1, 1), value=(1, 5)),
        created(Reading, (1, 2)),
        updated(Reading, (11, 1), value=(1, 5)),
        created(Reading, (11, 2)),
    ]


@scenario(UpsertBase.metadata, databases=("postgresql",))
async def test_row_of_a_partition_that_others_add_meanwhile(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: it is not told as a row that the statement has made."""
    await make_partitions(front)
    recorder.listen(Reading)
    others = create_engine(front.database.sync_url)

    def add(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("INSERT"):
            with others.begin() as connection:
                connection.execute(insert(Reading).values(day=1, sensor=2, value=3))

    statement = postgresql.insert(Reading).values([{"day": 1, "sensor": key, "value": 5} for key in (1, 2)])
    event.listen(front.sync_engine, "before_cursor_execute", add)
    try:
        with pytest.raises(BulkWriteError, match="others have added rows with the same keys"):
            await front.execute(statement.on_conflict_do_update(index_elements=["day", "sensor"], set_={"value": 5}))
    finally:
        event.remove(front.sync_engine, "before_cursor_execute", add)
        others.dispose()
    await front.rollback()
    assert recorder.take() == []


@scenario(UpsertBase.metadata, databases=("postgresql",))
async def test_nulls_that_conflict(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a unique key with ``NULLS NOT DISTINCT`` finds rows that have NULL in it."""
    await store(front, Setting(id=1, name="a", value=1), Setting(id=2, name="a", user=7, value=2))
    recorder.listen(Setting)
    rows = [{"id": key, "name": "a", "user": user, "value": 9} for key, user in ((11, None), (12, 7), (13, 8))]
    statement = postgresql.insert(Setting).values(rows)
    statement = statement.on_conflict_do_update(
        index_elements=["name", "user"], set_={"value": statement.excluded.value}
    )
    await front.execute(statement)
    await front.commit()
    assert recorder.take() == [
        updated(Setting, 1, value=(1, 9)),
        updated(Setting, 2, value=(2, 9)),
        created(Setting, 13),
    ]
    assert await front.committed_rows(select(Setting.id, Setting.value).order_by(Setting.id)) == [
        (1, 9),
        (2, 9),
        (13, 9),
    ]


@scenario(Base.metadata, databases=("postgresql",))
async def test_constraint_with_the_name_that_the_database_gives(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a constraint that the model gives no name is found by the one that PostgreSQL gives it."""
    await three_parcels(front, recorder)

    def by_name(name: str, row: dict[str, Any]) -> Insert:
        statement = postgresql.insert(Parcel).values(row)
        return statement.on_conflict_do_update(constraint=name, set_={"weight": statement.excluded.weight})

    await front.execute(by_name("bulk_parcels_pkey", {"id": 1, "code": "p1", "weight": 10}))
    await front.execute(by_name("bulk_parcels_code_key", {"id": 22, "code": "p2", "weight": 20}))
    await front.commit()
    assert recorder.take() == [updated(Parcel, 1, weight=(1, 10)), updated(Parcel, 2, weight=(2, 20))]


@scenario(UpsertBase.metadata, databases=("mariadb",))
async def test_key_of_which_a_part_is_compared(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a row that is there is found by as much of a text as the unique index has."""
    await store(front, Page(id=1, site=1, path="/abc/1", value=1), Page(id=2, site=1, path="/x", value=2))
    recorder.listen(Page)
    rows = [{"site": site, "path": path, "value": 9} for site, path in ((1, "/abc/2"), (1, "/x"), (2, "/abc"))]
    statement = mysql.insert(Page).values(rows)
    await front.execute(statement.on_duplicate_key_update(value=statement.inserted.value))
    await front.commit()
    events = recorder.take()
    assert events[:2] == [updated(Page, 1, value=(1, 9)), updated(Page, 2, value=(2, 9))]
    pages = await front.committed_rows(select(Page.id, Page.site, Page.path, Page.value).order_by(Page.id))
    assert pages[:2] == [(1, 1, "/abc/1", 9), (2, 1, "/x", 9)]
    assert events[2:] == [created(Page, row[0]) for row in pages[2:]]
    assert [row[1:] for row in pages[2:]] == [(2, "/abc", 9)]


@scenario(ExpressionBase.metadata, databases=("sqlite",))
async def test_unique_index_on_an_expression(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: an upsert that may find rows by one is refused, and no other."""
    await store(front, Word(id=1, word="a", value=1))
    recorder.listen(Word)
    statement = sqlite.insert(Word).values(id=2, word="A", value=2)
    with pytest.raises(BulkWriteError, match="conflict on 'upsert_words_word', too, which is on an expression"):
        await front.execute(statement.on_conflict_do_update(set_={"value": 2}))
    statement = sqlite.insert(Word).values(id=1, word="A", value=2)
    await front.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"value": 2}))
    await front.commit()
    assert recorder.take() == [updated(Word, 1, value=(1, 2))]
    assert await front.committed_rows(select(Word.id, Word.word, Word.value)) == [(1, "a", 2)]


@scenario(OrderBase.metadata, databases=("sqlite", "mariadb"))
async def test_unique_index_in_descending_order(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: an upsert finds rows by it as by any other."""
    await store(front, Place(id=1, rank=7, value=1))
    recorder.listen(Place)
    if front.database.name == "mariadb":
        found = mysql.insert(Place).values(id=2, rank=7, value=2)
        await front.execute(found.on_duplicate_key_update(value=2))
    else:
        await front.execute(sqlite.insert(Place).values(id=2, rank=7, value=2).on_conflict_do_update(set_={"value": 2}))
    await front.commit()
    assert recorder.take() == [updated(Place, 1, value=(1, 2))]
    assert await front.committed_rows(select(Place.id, Place.rank, Place.value)) == [(1, 7, 2)]


@scenario(Base.metadata, databases=("postgresql",))
async def test_view(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: PostgreSQL's RETURNING has no system columns of one: an upsert is refused before it runs, and no other."""
    await three_parcels(front, recorder)
    columns = "SELECT id, code, status, weight FROM bulk_parcels"
    await front.execute(text(f"CREATE VIEW upsert_shown_parcels AS {columns}"))
    await front.commit()
    recorder.listen(Shown)
    try:
        with pytest.raises(BulkWriteError, match="of a view PostgreSQL does not say which rows it has made"):
            await front.execute(
                upsert(front, Shown, "id", [{"id": 1, "code": "p", "status": "", "weight": 9}], "weight")
            )
        await front.execute(insert(Shown), [{"id": 4, "code": "p4", "status": "", "weight": 4}])
        await front.execute(update(Shown).where(Shown.id == 1).values(weight=9))
        await front.commit()
        assert recorder.take() == [created(Shown, 4), updated(Shown, 1, weight=(1, 9))]
        shown = await front.committed_rows(select(Shown.id, Shown.weight).order_by(Shown.id))
        assert shown == [(1, 9), (2, 2), (3, 3), (4, 4)]
    finally:
        await front.rollback()
        await front.execute(text("DROP VIEW upsert_shown_parcels"))
        await front.commit()
