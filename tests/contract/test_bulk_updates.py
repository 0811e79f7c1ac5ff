"""Rule B2 for UPDATE: what a bulk statement changes is told as if the unit of work had changed it."""

from __future__ import annotations

import pytest
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session, with_loader_criteria

from fastapi_toolsets.errors import BulkWriteError
from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from .bulk_models import (
    PARCELS,
    Animal,
    Base,
    Cat,
    Dog,
    Employee,
    Manager,
    Parcel,
    Seat,
    Stamp,
    row_count,
    store,
    three_parcels,
)
from .event_models import LOCAL, created, deleted, table_of, updated

SYNCHRONIZED = ("auto", "evaluate", "fetch", False)


@scenario(Base.metadata)
async def test_rows_that_meet_criteria_are_told_old_and_new(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: an UPDATE by criteria is one event for each row that it changes, and for no other."""
    await three_parcels(front, recorder)
    result = await front.execute(update(Parcel).where(Parcel.weight >= 2).values(status="sent", note="bulk"))
    assert row_count(result) == 2
    assert recorder.take() == []
    await front.commit()
    assert recorder.take() == [
        updated(Parcel, 2, status=("new", "sent"), note=(None, "bulk")),
        updated(Parcel, 3, status=("new", "sent"), note=(None, "bulk")),
    ]


@scenario(Base.metadata)
async def test_rows_that_keep_their_values_are_not_told(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E2: a row that an UPDATE gives the value that it has is no event."""
    await three_parcels(front, recorder)
    await front.execute(update(Parcel).values(weight=2))
    await front.commit()
    assert recorder.take() == [updated(Parcel, 1, weight=(1, 2)), updated(Parcel, 3, weight=(3, 2))]


@scenario(Base.metadata)
async def test_expressions_have_the_value_that_the_database_gave(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E4: an SQL expression, and what ``onupdate`` sets, appear with their values."""
    await three_parcels(front, recorder)
    await store(front, Stamp(id=1, value=10))
    recorder.listen(Stamp)
    await front.execute(update(Parcel).values(weight=Parcel.weight * 10, note=func.upper(Parcel.code)))
    await front.execute(update(Stamp).values(value=Stamp.value + 1))
    await front.commit()
    assert recorder.take() == [
        updated(Parcel, 1, weight=(1, 10), note=(None, "P1")),
        updated(Parcel, 2, weight=(2, 20), note=(None, "P2")),
        updated(Parcel, 3, weight=(3, 30), note=(None, "P3")),
        updated(Stamp, 1, value=(10, 11), touched=(0, 7)),
    ]


@scenario(Base.metadata)
async def test_several_statements_are_one_event(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E1: the first old with the last new, over several statements."""
    await three_parcels(front, recorder)
    await front.execute(update(Parcel).where(Parcel.id == 1).values(status="sent"))
    await front.execute(update(Parcel).where(Parcel.id <= 2).values(status="lost"))
    await front.execute(update(Parcel).where(Parcel.id == 2).values(status="new"))
    await front.commit()
    assert recorder.take() == [updated(Parcel, 1, status=("new", "lost"))]


@pytest.mark.parametrize("synchronize", SYNCHRONIZED)
@scenario(Base.metadata)
async def test_net_with_the_unit_of_work(
    front: FrontEnd,
    recorder: EventRecorder,
    synchronize: str | bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """B2, E1: objects and statements change the same rows in turn, however the session is synchronized."""
    await three_parcels(front, recorder)
    first, second = await front.get_one(Parcel, 1), await front.get_one(Parcel, 2)
    await front.add(Parcel(id=4, code="p4"))
    first.status = "packed"
    second.note = "object"
    await front.flush()
    statement = update(Parcel).where(Parcel.id != 3).values(status="sent")
    await front.execute(statement, execution_options={"synchronize_session": synchronize})
    await front.refresh(second)
    second.weight = 20
    await front.commit()
    assert recorder.take() == [
        created(Parcel, 4),
        updated(Parcel, 1, status=("new", "sent")),
        updated(Parcel, 2, status=("new", "sent"), note=(None, "object"), weight=(2, 20)),
    ]
    assert await front.committed_rows(PARCELS) == [
        (1, "p1", "sent", 1, None),
        (2, "p2", "sent", 20, "object"),
        (3, "p3", "new", 3, None),
        (4, "p4", "sent", 1, None),
    ]


@pytest.mark.parametrize("expire", [True, False])
@pytest.mark.parametrize("synchronize", SYNCHRONIZED)
@scenario(Base.metadata, databases=LOCAL)
async def test_the_object_shows_the_committed_row(
    front: FrontEnd,
    recorder: EventRecorder,
    synchronize: str | bool,  # noqa: FBT001 - a parameter of the test
    expire: bool,  # noqa: FBT001 - the same
) -> None:
    """B2, E11: the session's own object where it has one, otherwise a copy; every column is readable in both."""
    await three_parcels(front, recorder)
    shown: list[tuple[bool, int, str, str, str, int, str | None]] = []
    session = front.new_session(expire_on_commit=expire)
    known = await session.get_one(Parcel, 2)

    @listens_for(Parcel)
    def show(parcel: Parcel, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append(
            (parcel is known, parcel.id, parcel.code, parcel.status, parcel.printed, parcel.weight, parcel.note)
        )

    statement = update(Parcel).where(Parcel.id != 3).values(weight=Parcel.weight + 1)
    with front.statements(boundaries=True) as statements:
        options = {"synchronize_session": synchronize} if synchronize != "evaluate" else {}
        await session.execute(statement, execution_options=options)
        await session.commit()
    assert shown == [(False, 1, "p1", "new", "no", 2, None), (True, 2, "p2", "new", "no", 3, None)]
    assert statements[-1] == "COMMIT"


@scenario(Base.metadata)
async def test_savepoints(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, T3: a rolled back savepoint takes its own statements with it, and nothing else."""
    await three_parcels(front, recorder)
    await front.execute(update(Parcel).where(Parcel.id == 1).values(status="packed"))
    async with front.begin_nested() as savepoint:
        await front.execute(update(Parcel).values(status="lost"))
        await savepoint.rollback()
    async with front.begin_nested():
        await front.execute(update(Parcel).where(Parcel.id <= 2).values(status="sent"))
    await front.commit()
    assert recorder.take() == [
        updated(Parcel, 1, status=("new", "sent")),
        updated(Parcel, 2, status=("new", "sent")),
    ]
    await front.execute(update(Parcel).values(status="lost"))
    await front.rollback()
    await front.commit()
    assert recorder.take() == []


@scenario(Base.metadata)
async def test_by_primary_key(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a list of parameters, as one statement for all rows and as the session's ``bulk_update_mappings``."""
    await three_parcels(front, recorder)
    await front.execute(update(Parcel), [{"id": 3, "status": "sent"}, {"id": 1, "status": "new"}])
    await front.commit()
    assert recorder.take() == [updated(Parcel, 3, status=("new", "sent"))]

    def write(session: Session) -> None:
        session.bulk_update_mappings(Parcel, [{"id": 2, "weight": 7}, {"id": 3, "note": "again"}])

    await front.run_sync(write)
    await front.commit()
    assert recorder.take() == [updated(Parcel, 2, weight=(2, 7)), updated(Parcel, 3, note=(None, "again"))]


@scenario(Base.metadata)
async def test_legacy_query(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: ``Query.update`` and ``Query.delete``."""
    await three_parcels(front, recorder)

    def write(session: Session) -> tuple[int, int]:
        return (
            session.query(Parcel).filter(Parcel.id <= 2).update({"status": "sent"}),
            session.query(Parcel).filter(Parcel.id == 3).delete(),
        )

    assert await front.run_sync(write) == (2, 1)
    await front.commit()
    assert recorder.take() == [
        updated(Parcel, 1, status=("new", "sent")),
        updated(Parcel, 2, status=("new", "sent")),
        deleted(Parcel, 3),
    ]


@scenario(Base.metadata)
async def test_a_table_of_a_model(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a statement on the model's table, not on the model, is told too."""
    await three_parcels(front, recorder)
    table = table_of(Parcel)
    await front.execute(table.update().where(table.c.id == 1).values(status="sent"))
    await front.execute(update(table).where(Parcel.id == 2).values(status="sent"))
    await front.execute(table.delete().where(table.c.id == 3))
    await front.commit()
    assert recorder.take() == [
        updated(Parcel, 1, status=("new", "sent")),
        updated(Parcel, 2, status=("new", "sent")),
        deleted(Parcel, 3),
    ]


@scenario(Base.metadata)
async def test_parameters_of_the_criteria(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: criteria and values that the statement gets as parameters."""
    await three_parcels(front, recorder)
    statement = update(Parcel).where(Parcel.id == bindparam("number"))
    await front.execute(statement, {"number": 2, "status": "sent"})
    await front.commit()
    assert recorder.take() == [updated(Parcel, 2, status=("new", "sent"))]


@scenario(Base.metadata)
async def test_returning(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: what the statement was asked to return is returned, as without events."""
    if front.database.name == "mariadb":
        return  # it has no UPDATE with RETURNING
    await three_parcels(front, recorder)
    statement = (
        update(Parcel).where(Parcel.id <= 2).values(weight=Parcel.weight + 5).returning(Parcel.id, Parcel.weight)
    )
    assert sorted((await front.execute(statement)).all()) == [(1, 6), (2, 7)]
    objects = (await front.scalars(update(Parcel).where(Parcel.id == 3).values(note="x").returning(Parcel))).all()
    assert [(parcel.id, parcel.note) for parcel in objects] == [(3, "x")]
    await front.commit()
    assert recorder.take() == [
        updated(Parcel, 1, weight=(1, 6)),
        updated(Parcel, 2, weight=(2, 7)),
        updated(Parcel, 3, note=(None, "x")),
    ]


@scenario(Base.metadata)
async def test_changed_primary_keys(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E8: a changed primary key is one UPDATE, whether it is set to a value or to an expression."""
    await three_parcels(front, recorder)
    await store(front, Seat(row=1, number=1), Seat(row=1, number=2))
    recorder.listen(Seat)
    await front.execute(update(Parcel).where(Parcel.id == 1).values(id=11))
    await front.execute(update(Parcel).where(Parcel.id == 3).values(id=Parcel.id + 30))
    await front.execute(update(Seat).values(row=Seat.row + 1, taken="x"))
    await front.execute(update(Parcel).where(Parcel.id == 33).values(status="sent"))
    await front.commit()
    assert recorder.take() == [
        updated(Parcel, 11, id=(1, 11)),
        updated(Parcel, 33, id=(3, 33), status=("new", "sent")),
        updated(Seat, (2, 1), row=(1, 2), taken=(None, "x")),
        updated(Seat, (2, 2), row=(1, 2), taken=(None, "x")),
    ]


@scenario(Base.metadata)
async def test_loader_criteria(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: criteria of ``with_loader_criteria`` hold for what is told as for what is written."""
    await three_parcels(front, recorder)
    option = with_loader_criteria(Parcel, Parcel.weight < 3)
    await front.execute(update(Parcel).where(Parcel.id > 1).values(status="sent").options(option))
    await front.commit()
    assert recorder.take() == [updated(Parcel, 2, status=("new", "sent"))]
    assert await front.scalar(select(func.count()).where(Parcel.status == "sent")) == 1


@scenario(Base.metadata)
async def test_another_table_in_the_criteria(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a row that meets the criteria together with several rows of another table is one event."""
    await three_parcels(front, recorder)
    await store(front, Seat(row=1, number=1), Seat(row=1, number=2), Seat(row=2, number=1))
    statement = update(Parcel).where(Parcel.id == Seat.row).values(status="sent")
    await front.execute(statement, execution_options={"synchronize_session": False})
    await front.commit()
    assert recorder.take() == [
        updated(Parcel, 1, status=("new", "sent")),
        updated(Parcel, 2, status=("new", "sent")),
    ]


@scenario(Base.metadata)
async def test_composite_keys(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: rows with composite keys, by criteria and by primary key."""
    await store(front, *(Seat(row=row, number=number) for row in (1, 2) for number in (1, 2)))
    recorder.listen(Seat)
    await front.execute(update(Seat).where(Seat.row == 1).values(taken="ann"))
    await front.execute(update(Seat), [{"row": 2, "number": 1, "taken": "bob"}])
    await front.commit()
    assert recorder.take() == [
        updated(Seat, (1, 1), taken=(None, "ann")),
        updated(Seat, (1, 2), taken=(None, "ann")),
        updated(Seat, (2, 1), taken=(None, "bob")),
    ]


@scenario(Base.metadata)
async def test_single_table_inheritance(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: each row is told with its own class; a statement for a subclass tells of its rows only."""
    await store(front, Animal(id=1, name="a"), Dog(id=2, name="b"), Cat(id=3, name="c"))
    recorder.listen(Animal)
    await front.execute(update(Animal).values(name="x"))
    await front.commit()
    assert recorder.take() == [
        updated(Animal, 1, name=("a", "x")),
        updated(Dog, 2, name=("b", "x")),
        updated(Cat, 3, name=("c", "x")),
    ]
    await front.execute(update(Dog).values(trick="roll"))
    await front.commit()
    assert recorder.take() == [updated(Dog, 2, trick=(None, "roll"))]


@scenario(Base.metadata)
async def test_only_the_subclass_is_listened_to(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a statement for the base class writes all rows, and tells of those that somebody listens to."""
    await store(front, Animal(id=1, name="a"), Dog(id=2, name="b"), Cat(id=3, name="c"))
    recorder.listen(Cat)
    result = await front.execute(update(Animal).values(name="x"))
    assert row_count(result) == 3
    await front.commit()
    assert recorder.take() == [updated(Cat, 3, name=("c", "x"))]
    assert await front.committed_rows(select(Animal.name)) == [("x",), ("x",), ("x",)]


@scenario(Base.metadata)
async def test_joined_inheritance(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: statements for either table of a hierarchy, and by primary key for both at once."""
    await store(front, Employee(id=1, name="a"), Manager(id=2, name="b", budget=1), Manager(id=3, name="c", budget=2))
    recorder.listen(Employee)
    await front.execute(update(Employee).where(Employee.id <= 2).values(name="x"))
    await front.execute(update(Manager).where(Manager.budget == 2).values(budget=Manager.budget + 1))
    await front.commit()
    assert recorder.take() == [
        updated(Employee, 1, name=("a", "x")),
        updated(Manager, 2, name=("b", "x")),
        updated(Manager, 3, budget=(2, 3)),
    ]
    await front.execute(update(Manager), [{"id": 2, "name": "y", "budget": 9}])
    await front.commit()
    assert recorder.take() == [updated(Manager, 2, name=("x", "y"), budget=(1, 9))]


@scenario(Base.metadata, databases=LOCAL)
async def test_the_statement_is_not_run_where_it_cannot_be_told(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: criteria on the other table of a joined subclass, and a list of parameters for criteria, are refused."""
    await store(front, Manager(id=2, name="b", budget=1))
    recorder.listen(Employee)
    with pytest.raises(BulkWriteError, match="'bulk_employees', another table of the same rows"):
        await front.execute(update(Manager).where(Employee.name == "b").values(budget=3))
    table = table_of(Employee)
    with pytest.raises(BulkWriteError, match="once for each of a list of parameters"):
        await front.execute(table.update().where(table.c.id == bindparam("b")), [{"b": 2, "name": "x"}])
    await front.commit()
    assert recorder.take() == []
    assert await front.committed_rows(select(Manager.name, Manager.budget)) == [("b", 1)]
