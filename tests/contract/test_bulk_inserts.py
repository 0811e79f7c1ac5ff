"""Rule B2 for INSERT: rows that a bulk statement makes are CREATE, rows that it finds are UPDATE."""

from __future__ import annotations

from typing import Any, cast

import pytest
from sqlalchemy import CursorResult, func, insert, inspect, literal, select, text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session

from fastapi_toolsets.errors import BulkWriteError
from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from .bulk_models import (
    PARCELS,
    Animal,
    Base,
    Dog,
    Employee,
    Manager,
    Parcel,
    Seat,
    row_count,
    store,
    upsert,
)
from .event_models import LOCAL, created, deleted, table_of, updated


@scenario(Base.metadata)
async def test_rows_of_a_list(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a list of parameters is a CREATE for each row, in order; the object shows what the database made."""
    shown: list[tuple[int, str, str, int, str]] = []
    recorder.listen(Parcel)

    @listens_for(Parcel)
    def show(parcel: Parcel, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((parcel.id, parcel.code, parcel.status, parcel.weight, parcel.printed))

    await front.execute(insert(Parcel), [{"code": "b"}, {"code": "a", "weight": 5}, {"code": "c", "printed": "yes"}])
    assert recorder.take() == []
    await front.commit()
    assert recorder.take() == [created(Parcel, 1), created(Parcel, 2), created(Parcel, 3)]
    assert shown == [(1, "b", "new", 1, "no"), (2, "a", "new", 5, "no"), (3, "c", "new", 1, "yes")]


@scenario(Base.metadata)
async def test_every_way_to_give_rows(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: one row, one dictionary, many VALUES, a SELECT, the table, and the session's ``bulk_insert_mappings``."""
    recorder.listen(Parcel)
    one = await front.execute(insert(Parcel).values(code="a"))
    assert tuple(cast("CursorResult[Any]", one).inserted_primary_key or ()) == (1,)
    await front.execute(insert(Parcel), {"code": "b"})
    many = await front.execute(insert(Parcel).values([{"code": "c"}, {"code": "d"}]))
    assert row_count(many) == 2
    chosen = select(Parcel.code.concat("2")).where(Parcel.code.in_(["a", "b"])).order_by(Parcel.code)
    await front.execute(insert(Parcel).from_select(["code"], chosen, include_defaults=True))
    await front.execute(table_of(Parcel).insert(), [{"code": "e"}, {"code": "f"}])
    mappings: list[dict[str, Any]] = [{"code": "g"}, {"code": "h"}]

    def write(session: Session) -> None:
        session.bulk_insert_mappings(Parcel, mappings)
        session.bulk_insert_mappings(Parcel, asked, return_defaults=True)

    asked: list[dict[str, Any]] = [{"code": "i"}]
    await front.run_sync(write)
    assert mappings == [{"code": "g"}, {"code": "h"}]
    assert [sorted(row) for row in asked] == [["code", "id"]]
    await front.commit()
    rows = await front.committed_rows(select(Parcel.id, Parcel.code).order_by(Parcel.id))
    assert sorted(str(row[1]) for row in rows) == ["a", "a2", "b", "b2", "c", "d", "e", "f", "g", "h", "i"]
    assert sorted(recorder.take(), key=lambda event: int(str(event[2]))) == [created(Parcel, row[0]) for row in rows]


@scenario(Base.metadata)
async def test_returning(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: what the statement was asked to return is returned, as without events."""
    recorder.listen(Parcel)
    rows = await front.execute(insert(Parcel).returning(Parcel.code, Parcel.id), [{"code": "a"}, {"code": "b"}])
    assert sorted(tuple(row) for row in rows) == [("a", 1), ("b", 2)]
    assert list(rows.keys()) == ["code", "id"]
    objects: list[Parcel] = [*await front.scalars(insert(Parcel).returning(Parcel), [{"code": "c"}, {"code": "d"}])]
    assert sorted((type(parcel).__name__, parcel.id, parcel.code) for parcel in objects) == [
        ("Parcel", 3, "c"),
        ("Parcel", 4, "d"),
    ]
    assert await front.scalar(insert(Parcel).values(code="e").returning(Parcel.code)) == "e"
    await front.commit()
    assert recorder.take() == [created(Parcel, key) for key in (1, 2, 3, 4, 5)]


@scenario(Base.metadata)
async def test_net_with_the_unit_of_work(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E1, T3: created by a statement and updated or deleted by an object; dropped with its savepoint."""
    recorder.listen(Parcel)
    await front.execute(insert(Parcel), [{"id": 1, "code": "a"}, {"id": 2, "code": "b"}, {"id": 3, "code": "c"}])
    first, second = await front.get_one(Parcel, 1), await front.get_one(Parcel, 2)
    first.status = "sent"
    await front.delete(second)
    async with front.begin_nested() as savepoint:
        await front.execute(insert(Parcel), [{"id": 4, "code": "d"}])
        await savepoint.rollback()
    await front.commit()
    assert recorder.take() == [created(Parcel, 1), created(Parcel, 3)]
    await front.delete(first)
    await front.flush()
    await front.execute(insert(Parcel), [{"id": 1, "code": "again"}])
    await front.commit()
    assert recorder.take() == [deleted(Parcel, 1), created(Parcel, 1)]


@scenario(Base.metadata)
async def test_upserts(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: rows that exist are UPDATE with old and new, others CREATE; one that changes nothing is no event."""
    await store(front, Parcel(code="a", weight=1), Parcel(code="b", weight=2))
    recorder.listen(Parcel)
    rows: list[dict[str, object]] = [
        {"code": "c", "weight": 30},
        {"code": "a", "weight": 10},
        {"code": "b", "weight": 2},
    ]
    await front.execute(upsert(front, Parcel, "code", rows, "weight"))
    await front.commit()
    identities = {row[1]: row[0] for row in await front.committed_rows(PARCELS)}
    taken = recorder.take()
    assert sorted(taken, key=lambda event: str(event[0])) == [
        created(Parcel, identities["c"]),
        updated(Parcel, identities["a"], weight=(1, 10)),
    ]
    weights = select(Parcel.code, Parcel.weight).order_by(Parcel.code)
    assert await front.committed_rows(weights) == [("a", 10), ("b", 2), ("c", 30)]


@scenario(Base.metadata)
async def test_upserts_by_primary_key_with_parameters(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E1: the rows as parameters, a composite key, and a row that this transaction has created itself."""
    await store(front, Seat(row=1, number=1, taken="ann"))
    recorder.listen(Seat)
    await front.add(Seat(row=1, number=2, taken="bob"))
    rows = [{"row": 1, "number": number, "taken": "new"} for number in (1, 2, 3)]
    if front.database.name == "mariadb":
        mariadb = mysql.insert(Seat)
        statement: Any = mariadb.on_duplicate_key_update(taken=mariadb.inserted.taken)
    else:
        dialect: Any = postgresql if front.database.name == "postgresql" else sqlite
        statement = dialect.insert(Seat)
        statement = statement.on_conflict_do_update(
            index_elements=[Seat.row, Seat.number], set_={"taken": statement.excluded.taken}
        )
    await front.execute(statement, rows)
    await front.commit()
    assert recorder.take() == [
        created(Seat, (1, 2)),
        updated(Seat, (1, 1), taken=("ann", "new")),
        created(Seat, (1, 3)),
    ]


@scenario(Base.metadata, databases=("sqlite", "postgresql"))
async def test_rows_that_are_skipped_are_not_told(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: ``ON CONFLICT DO NOTHING`` tells of the rows that were made."""
    await store(front, Parcel(id=5, code="a"))
    recorder.listen(Parcel)
    dialect: Any = postgresql if front.database.name == "postgresql" else sqlite
    statement = dialect.insert(Parcel).values([{"id": 6, "code": "a"}, {"id": 7, "code": "b"}])
    result = await front.execute(statement.on_conflict_do_nothing())
    assert row_count(result) == 1
    await front.commit()
    assert recorder.take() == [created(Parcel, 7)]


@scenario(Base.metadata, databases=("sqlite", "postgresql"))
async def test_upsert_with_criteria_and_returning(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: rows that exist and do not meet the WHERE of the upsert are left alone, and not told."""
    await store(front, Parcel(id=1, code="a", weight=1), Parcel(id=2, code="b", weight=2))
    recorder.listen(Parcel)
    dialect: Any = postgresql if front.database.name == "postgresql" else sqlite
    statement = dialect.insert(Parcel).values([{"id": 8, "code": "a"}, {"id": 9, "code": "b"}, {"id": 7, "code": "c"}])
    statement = statement.on_conflict_do_update(index_elements=["code"], set_={"note": "x"}, where=Parcel.weight > 1)
    returned = await front.execute(statement.returning(Parcel.code, Parcel.note))
    assert sorted(tuple(row) for row in returned) == [("b", "x"), ("c", None)]
    await front.commit()
    assert sorted(recorder.take(), key=str) == [created(Parcel, 7), updated(Parcel, 2, note=(None, "x"))]


@scenario(Base.metadata)
async def test_inheritance(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: rows of subclasses, in one table and in several."""
    recorder.listen(Animal)
    recorder.listen(Employee)
    await front.execute(insert(Dog), [{"name": "a", "trick": "roll"}, {"name": "b", "trick": None}])
    await front.execute(insert(Animal), [{"name": "c"}])
    await front.execute(insert(Manager), [{"name": "d", "budget": 4}, {"name": "e", "budget": 5}])
    await front.commit()
    assert recorder.take() == [
        created(Dog, 1),
        created(Dog, 2),
        created(Animal, 3),
        created(Manager, 1),
        created(Manager, 2),
    ]


@scenario(Base.metadata)
async def test_saved_objects(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: ``bulk_save_objects`` inserts new objects and updates those of another session."""
    await store(front, Parcel(code="a"))
    recorder.listen(Parcel)
    other = front.new_session()
    known = await other.get_one(Parcel, 1)
    await other.expunge(known)
    await other.rollback()
    known.status = "sent"

    def write(session: Session) -> None:
        session.bulk_save_objects([Parcel(code="b"), known, Parcel(code="c")])

    await front.run_sync(write)
    await front.commit()
    assert recorder.take() == [created(Parcel, 2), created(Parcel, 3), updated(Parcel, 1, status=("new", "sent"))]


@scenario(Base.metadata, databases=LOCAL)
async def test_what_cannot_be_told_is_refused(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: the statement is not run, and the error says why."""
    recorder.listen(Parcel)
    recorder.listen(Employee)
    conflicting = sqlite.insert(Parcel).values([{"code": func.lower("A")}])
    from_select = sqlite.insert(Parcel).from_select(["code"], select(literal("a")).where(literal(1) == 1))
    upserts = [
        conflicting.on_conflict_do_update(index_elements=["code"], set_={"note": "x"}),
        from_select.on_conflict_do_update(index_elements=["code"], set_={"note": "x"}),
        sqlite.insert(Parcel).values(code="a").on_conflict_do_update(index_elements=["code"], set_={"id": 3}),
    ]
    reasons = [
        "'code' is given as an expression",
        "an INSERT from a SELECT",
        "sets the primary key of rows that exist",
        "has a prefix such as IGNORE or REPLACE",
        "makes a part of the row only",
    ]
    statements = [*upserts, insert(Parcel).prefix_with("OR REPLACE").values(code="a"), insert(Manager).values(budget=1)]
    for statement, reason in zip(statements, reasons, strict=True):
        with pytest.raises(BulkWriteError, match=reason):
            await front.execute(statement)
    await front.commit()
    assert recorder.take() == []
    assert await front.committed_rows(PARCELS) == []


@pytest.mark.parametrize("heard", [False, True])
@scenario(Base.metadata, databases=LOCAL)
async def test_nulls_that_are_rendered(front: FrontEnd, recorder: EventRecorder, *, heard: bool) -> None:
    """B2: SQLAlchemy's own options arrive: with ``render_nulls`` rows with and without NULL are one statement."""
    if heard:
        recorder.listen(Seat)
    rows: list[dict[str, object]] = [{"row": 1, "number": 1, "taken": None}, {"row": 1, "number": 2, "taken": "x"}]

    def write(session: Session) -> None:
        session.bulk_insert_mappings(inspect(Seat), rows, render_nulls=True)

    with front.statements() as sent:
        await front.run_sync(write)
    await front.commit()
    assert [statement.split()[0] for statement in sent if not statement.startswith("SELECT")] == ["INSERT"]
    assert recorder.take() == ([created(Seat, (1, 1)), created(Seat, (1, 2))] if heard else [])


KEEPS_LIGHT = (
    """CREATE OR REPLACE FUNCTION keep_light() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN IF NEW.weight = 0 THEN RETURN NULL; ELSE RETURN NEW; END IF; END$$""",
    "CREATE TRIGGER keep_light BEFORE INSERT ON bulk_parcels FOR EACH ROW EXECUTE FUNCTION keep_light()",
)


@scenario(Base.metadata, databases=("postgresql",))
async def test_rows_that_a_trigger_does_not_let_in(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: they are not told, whether the database makes their keys or not, and the commit goes on."""
    for words in KEEPS_LIGHT:
        await front.execute(text(words))
    await front.commit()
    recorder.listen(Parcel)
    await front.execute(insert(Parcel).values(code="a", weight=0))
    await front.execute(insert(Parcel).values(id=7, code="b", weight=0))
    await front.execute(insert(Parcel).values(id=8, code="c", weight=1))
    await front.commit()
    assert recorder.take() == [created(Parcel, 8)]
    assert [row[0] for row in await front.committed_rows(PARCELS)] == [8]
