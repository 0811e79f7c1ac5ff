"""Rules B1 and B2 at the edges: statements inside others, keys and orders that differ, and what has to be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from sqlalchemy import (
    CHAR,
    Alias,
    Column,
    Delete,
    Executable,
    ForeignKeyConstraint,
    Insert,
    Integer,
    Table,
    Update,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.types import String

from fastapi_toolsets.errors import BulkWriteError
from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .bulk_models import PARCELS, Animal, Base, Dog, Parcel, Stamp, row_count, store, three_parcels, upsert
from .event_models import LOCAL, Lower, created, deleted, table_of, updated
from .test_bulk_notice import bulk_warnings


class EdgeBase(DeclarativeBase):
    type_annotation_map = TYPES
    __bulk_events__ = True


class User(EdgeBase):
    __tablename__ = "edge_users"
    email: Mapped[str] = mapped_column(Lower, primary_key=True)
    visits: Mapped[int] = mapped_column(default=0)


class Code(EdgeBase):
    __tablename__ = "edge_codes"
    code: Mapped[str] = mapped_column(CHAR(5), primary_key=True)
    visits: Mapped[int] = mapped_column(default=0)


class Place(EdgeBase):
    """Its key in one order."""

    __tablename__ = "edge_places"
    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "place"}  # noqa: RUF012 - SQLAlchemy reads it


class Box(Place):
    """And in the other."""

    __tablename__ = "edge_boxes"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    price: Mapped[int]
    __table_args__ = (ForeignKeyConstraint(["row", "number"], ["edge_places.row", "edge_places.number"]),)
    __mapper_args__ = {"polymorphic_identity": "box"}  # noqa: RUF012 - SQLAlchemy reads it


class Versioned(EdgeBase):
    __tablename__ = "edge_versioned"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str]
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy reads it


class Visit(EdgeBase):
    """Its rows are told apart by another column than the table's primary key."""

    __table__ = Table(
        "edge_visits",
        EdgeBase.metadata,
        Column("name", String(20), primary_key=True),
        Column("number", Integer, unique=True, nullable=False),
        Column("note", String(20)),
    )
    __mapper_args__ = {"primary_key": [__table__.c.number]}  # noqa: RUF012 - SQLAlchemy reads it
    name: Mapped[str]
    number: Mapped[int]
    note: Mapped[str | None]


class Item(EdgeBase):
    """A single table in which a default makes rows those of the base class."""

    __tablename__ = "edge_items"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(default="item")
    price: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "item"}  # noqa: RUF012 - SQLAlchemy reads it


class Special(Item):
    __mapper_args__ = {"polymorphic_identity": "special"}  # noqa: RUF012 - SQLAlchemy reads it


class Rare(Item):
    __mapper_args__ = {"polymorphic_identity": "rare"}  # noqa: RUF012 - SQLAlchemy reads it


class Silent(Item):
    __bulk_events__ = False
    __mapper_args__ = {"polymorphic_identity": "silent"}  # noqa: RUF012 - SQLAlchemy reads it


def random_parcels() -> Any:  # noqa: ANN401 - of one of two kinds
    chosen = select(Parcel.id).order_by(func.random()).limit(1).subquery()
    return Parcel.id.in_(select(chosen.c.id))


REFUSED: list[tuple[Callable[[], Executable], object, dict[str, Any], str]] = [
    (lambda: update(Parcel).where(random_parcels()).values(weight=9), None, {}, r"its criteria call random\(\)"),
    (lambda: delete(Parcel).where(random_parcels()), None, {}, r"its criteria call random\(\)"),
    (lambda: update(Parcel).values(id=func.random()), None, {}, r"a primary key that random\(\) makes"),
    (lambda: update(Parcel).prefix_with("OR REPLACE").values(code="p1"), None, {}, "it has a prefix"),
    (lambda: delete(Parcel).prefix_with("IGNORE"), None, {}, "it has a prefix"),
    (lambda: update(Parcel).values(weight=9), None, {"schema_translate_map": {None: "x"}}, "a schema_translate_map"),
    (lambda: delete(Parcel), None, {"schema_translate_map": {None: "x"}}, "a schema_translate_map"),
    (lambda: insert(Parcel).values(code="x"), None, {"schema_translate_map": {None: "x"}}, "a schema_translate_map"),
    (lambda: update(cast("Alias[Any]", table_of(Parcel).alias())).values(weight=9), None, {}, "it was given an alias"),
    (
        lambda: update(Parcel).where(Parcel.code == bindparam("given")).values(weight=9),
        [{"given": "p1"}],
        {"dml_strategy": "core_only"},
        "once for each of a list",
    ),
    (
        lambda: update(Parcel).where(Parcel.id.in_(select(delete(Stamp).returning(Stamp.id).cte().c.id))),
        None,
        {},
        "a statement inside it that writes",
    ),
    (
        lambda: select(Parcel).from_statement(update(Parcel).values(weight=9).returning(Parcel)),
        None,
        {"events": True},
        "it is inside another statement",
    ),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
@scenario(Base.metadata, databases=LOCAL)
async def test_what_cannot_be_told_is_refused(front: FrontEnd, recorder: EventRecorder, number: int) -> None:
    """B2: a statement whose rows nobody can know beforehand does not run."""
    await three_parcels(front, recorder)
    statement, parameters, options, reason = REFUSED[number]
    arguments = [] if parameters is None else [parameters]
    with pytest.raises(BulkWriteError, match=reason):
        await front.execute(statement(), *arguments, execution_options=options)
    await front.rollback()
    assert recorder.take() == []
    assert [row[:4] for row in await front.committed_rows(PARCELS)] == [
        (key, f"p{key}", "new", key) for key in (1, 2, 3)
    ]


def inside(kind: str, statement: Insert | Update | Delete) -> Executable:
    """Put a statement on parcels into another one."""
    returning = statement.returning(Parcel.id).cte("written")
    made: dict[str, Callable[[], Executable]] = {
        "from_statement": lambda: select(Parcel).from_statement(statement.returning(Parcel)),
        "cte": lambda: select(returning),
        "column of a cte": lambda: select(returning.c.id),
        "joined cte": lambda: select(Stamp.id).select_from(returning).join(Stamp, Stamp.id == returning.c.id),
        "add_cte to a select": lambda: select(Stamp.id).add_cte(statement.cte("written")),
        "add_cte": lambda: update(Stamp).values(value=1).add_cte(statement.cte("written")),
        "from_select": lambda: insert(Stamp).from_select(["id"], select(returning.c.id)),
    }
    return made[kind]()


def weights_and_notes() -> list[tuple[int, str | None]]:
    """Write down what callbacks find in parcels."""
    shown: list[tuple[int, str | None]] = []

    @listens_for(Parcel)
    def show(parcel: Parcel, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((parcel.weight, parcel.note))

    return shown


INSIDE = "Parcel has listeners, and an update inside another statement passes them by"

KINDS = (
    "from_statement",
    "cte",
    "column of a cte",
    "joined cte",
    "add_cte to a select",
)


@pytest.mark.parametrize("kind", KINDS)
@scenario(Base.metadata, databases=("postgresql",))
async def test_inner_statement_warns_once(front: FrontEnd, recorder: EventRecorder, kind: str) -> None:
    """B1, E11: it is noticed, once for each model and kind; callbacks read what it wrote."""
    await three_parcels(front, recorder)
    parcel = await front.get_one(Parcel, 1)
    parcel.note = "seen"
    await front.flush()
    statement = update(Parcel).where(Parcel.id == 1).values(weight=9)
    with bulk_warnings() as warned:
        for _ in range(2):
            await front.execute(inside(kind, statement))
    # Once in this process, by whichever of these tests comes first.
    assert [warning.split(":", 1)[0] for warning in warned] == [INSIDE][: len(warned)]
    shown = weights_and_notes()
    await front.commit()
    assert recorder.take() == [updated(Parcel, 1, note=(None, "seen"))]
    assert shown == [(9, "seen")]


@pytest.mark.parametrize("kind", [*KINDS, "add_cte", "from_select"])
@scenario(Base.metadata, databases=("postgresql",))
async def test_strict_setting_raises_for_a_statement_inside_another(
    front: FrontEnd, recorder: EventRecorder, kind: str
) -> None:
    """B1: before it runs."""
    await three_parcels(front, recorder)
    session = front.new_session(on_bulk_write="raise")
    with pytest.raises(BulkWriteError, match="a delete inside another statement passes them by"):
        await session.execute(inside(kind, delete(Parcel).where(Parcel.id == 1)))
    await session.rollback()
    assert len(await front.committed_rows(PARCELS)) == 3


@scenario(Base.metadata, databases=LOCAL)
async def test_words_that_return_rows_may_have_written_them(front: FrontEnd, recorder: EventRecorder) -> None:
    """E11: ``text().columns()`` is a SELECT to SQLAlchemy, whatever the words are."""
    await three_parcels(front, recorder)
    parcel = await front.get_one(Parcel, 1)
    parcel.note = "seen"
    await front.flush()
    words = text("UPDATE bulk_parcels SET weight = 9 WHERE id = 1 RETURNING id").columns(Parcel.id)
    (await front.execute(words)).all()
    shown = weights_and_notes()
    await front.commit()
    assert recorder.take() == [updated(Parcel, 1, note=(None, "seen"))]
    assert shown == [(9, "seen")]


@scenario(EdgeBase.metadata)
async def test_key_of_a_subclass_in_another_order(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: the rows that are written are those that were read, whatever the order of the columns in each table."""
    await store(front, Box(row=1, number=2, price=5), Box(row=2, number=1, price=7))
    recorder.listen(Place)
    result = await front.execute(update(Box).where(Box.price == 5).values(price=6))
    assert row_count(result) == 1
    await front.commit()
    assert recorder.take() == [updated(Box, (1, 2), price=(5, 6))]


@scenario(EdgeBase.metadata)
async def test_mapper_with_a_key_of_its_own(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a class that tells its rows apart by other columns than the table's primary key."""
    await store(front, Visit(name="a", number=1), Visit(name="b", number=2))
    recorder.listen(Visit)
    result = await front.execute(update(Visit).where(Visit.name == "a").values(note="c"))
    assert row_count(result) == 1
    await front.commit()
    assert recorder.take() == [updated(Visit, 1, note=(None, "c"))]


@pytest.mark.parametrize("model", [User, Code])
@scenario(EdgeBase.metadata)
async def test_keys_that_the_database_writes_otherwise(
    front: FrontEnd, recorder: EventRecorder, model: type[User | Code]
) -> None:
    """B2, E4: a key may come back in another spelling; its row is known all the same, and nothing is lost."""
    key = "email" if model is User else "code"
    recorder.listen(model)
    await front.execute(insert(model).values(**{key: "A1"}))
    await front.execute(insert(model), [{key: "B1"}, {key: "C1"}])

    def save(session: Session) -> None:
        session.bulk_insert_mappings(model, [{key: "D1"}])
        session.bulk_save_objects([model(**{key: "E1"})])

    await front.run_sync(save)
    await front.commit()
    assert [event[:2] for event in recorder.take()] == [("create", model.__name__)] * 5
    await front.execute(update(model), [{key: "A1", "visits": 7}])
    await front.commit()
    assert [(event[0], event[3]) for event in recorder.take()] == [("update", {"visits": {"old": 0, "new": 7}})]
    session = front.new_session(expire_on_commit=False)
    counted = model(**{key: "G1"}, visits=1)
    await session.add(counted)
    await session.commit()
    counted.visits = model.visits + 1
    await session.commit()
    assert [(event[0], event[3]) for event in recorder.take()] == [
        ("create", None),
        ("update", {"visits": {"old": 1, "new": 2}}),
    ]


@scenario(EdgeBase.metadata)
async def test_key_written_otherwise_beside_a_raw_statement(front: FrontEnd, recorder: EventRecorder) -> None:
    """E10: a raw statement makes everything be read again, and a row whose key looks different is still there."""
    recorder.listen(User)
    await front.add(User(email="A1"))
    await front.flush()
    await front.execute(text("UPDATE edge_users SET visits = 3"))
    await front.commit()
    assert [event[:2] for event in recorder.take()] == [("create", "User")]


@scenario(Base.metadata, databases=("mariadb",))
async def test_delete_that_leaves_what_was_read(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: on MariaDB a DELETE sees what others have committed since the snapshot; what it leaves is not told."""
    await three_parcels(front, recorder)
    await store(front, Stamp(id=1, value=1), Stamp(id=2, value=2))
    session = front.new_session()
    await session.scalar(select(func.count()).select_from(Parcel))  # the snapshot
    other = front.new_session()
    await other.execute(delete(Stamp).where(Stamp.id == 1), execution_options={"events": False})
    await other.commit()
    await session.execute(delete(Parcel).where(Parcel.id.in_(select(Stamp.id))))
    await session.commit()
    left = [row[0] for row in await front.committed_rows(PARCELS)]
    assert recorder.take() == [deleted(Parcel, key) for key in (1, 2) if key not in left]
    assert left == [1, 3]


@scenario(Base.metadata)
async def test_inline_insert(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: ``inline()`` says that nobody needs the new key; a listener does."""
    recorder.listen(Parcel)
    await front.execute(insert(Parcel).inline().values(code="a"))
    await front.commit()
    assert [event[:2] for event in recorder.take()] == [("create", "Parcel")]


@scenario(Base.metadata)
async def test_rows_of_a_subclass_inserted_by_the_base(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: in a single table the discriminator says whose row it is."""
    recorder.listen(Animal)
    await front.execute(insert(Animal), [{"id": 1, "kind": "dog", "name": "Rex"}, {"id": 2, "name": "Tom"}])
    await front.commit()
    assert recorder.take() == [created(Dog, 1), created(Animal, 2)]


@scenario(EdgeBase.metadata)
async def test_rows_of_the_base_written_by_a_subclass(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a row is told as what it is, also where its key was given to a statement for another class of its table."""
    await store(front, *(Item(id=key, kind=kind) for key, kind in ((1, "item"), (2, "special"), (3, "rare"))))
    recorder.listen(Item)
    await front.execute(update(Special), [{"id": key, "price": 7} for key in (1, 2, 3)])
    await front.commit()
    assert recorder.take() == [updated(model, key, price=(1, 7)) for model, key in ((Item, 1), (Special, 2), (Rare, 3))]

    def write(session: Session) -> None:
        session.bulk_update_mappings(Special, [{"id": 1, "price": 8}])

    await front.run_sync(write)
    await front.execute(upsert(front, Special, "id", [{"id": 3, "kind": "special", "price": 9}], "price"))
    await front.commit()
    assert recorder.take() == [updated(Item, 1, price=(7, 8)), updated(Rare, 3, price=(7, 9))]


@scenario(EdgeBase.metadata)
async def test_rows_of_the_base_made_by_a_subclass(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a row is told as what it is where a default makes it one of the base class."""
    recorder.listen(Item)
    await front.execute(insert(Special).values(id=1, price=2))
    await front.execute(insert(Special).values([{"id": 2, "price": 2}]))
    await front.execute(insert(Special), [{"id": 3, "price": 2}])
    await front.commit()
    kinds = await front.committed_rows(select(table_of(Item).c.kind).order_by(table_of(Item).c.id))
    assert kinds == [("item",), ("item",), ("special",)]
    assert recorder.take() == [created(Item, 1), created(Item, 2), created(Special, 3)]


@scenario(EdgeBase.metadata, databases=LOCAL)
async def test_other_classes_that_have_not_opted_in(front: FrontEnd, recorder: EventRecorder) -> None:
    """B1, B2: the row of another class is not told where that class has opted out."""
    await store(front, Item(id=1, kind="silent"), Item(id=2))
    recorder.listen(Item)
    await front.execute(update(Special), [{"id": 1, "price": 7}, {"id": 2, "price": 7}])
    await front.commit()
    assert recorder.take() == [updated(Item, 2, price=(1, 7))]


@scenario(Base.metadata)
async def test_delete_after_a_raw_update(front: FrontEnd, recorder: EventRecorder) -> None:
    """E11: a deleted object shows its last row, also where a statement past the flush has written it."""
    await three_parcels(front, recorder)
    shown = weights_and_notes()
    parcel = await front.get_one(Parcel, 1)
    await front.execute(text("UPDATE bulk_parcels SET weight = 9 WHERE id = 1"))
    parcel.note = "never written"
    await front.delete(parcel)
    await front.commit()
    assert (recorder.take(), shown) == ([deleted(Parcel, 1)], [(9, None)])


@scenario(EdgeBase.metadata)
async def test_version_that_others_have_written_is_no_version_of_the_session(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """E11: reading the last row of an object does not take away the error that its version is another's."""
    await store(front, Versioned(id=1, text="a"))
    recorder.listen(Versioned)
    versioned = await front.get_one(Versioned, 1)
    await front.execute(text("UPDATE edge_versioned SET version = 5"))
    await front.delete(versioned)
    with pytest.raises(StaleDataError):
        await front.commit()
    await front.rollback()
    assert recorder.take() == []


@scenario(Base.metadata, databases=LOCAL)
async def test_bulk_methods_leave_pending_changes_alone(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: what they write is no flush, so nothing is read for objects that wait for one."""
    await three_parcels(front, recorder)
    session = front.new_session(autoflush=False)
    parcel = await session.get_one(Parcel, 1)
    await session.expire(parcel, ["note"])
    parcel.note = "waits"

    def save(sync_session: Session) -> None:
        sync_session.bulk_save_objects([Stamp(id=1, value=1)])

    with front.statements() as statements:
        await session.run_sync(save)
    assert [statement.split()[0] for statement in statements] == ["INSERT"]
    await session.commit()
    assert recorder.take() == [updated(Parcel, 1, note=(None, "waits"))]
