"""Rule B2 for DELETE: rows that a bulk statement deletes are told with their last values."""

from __future__ import annotations

from typing import Any, cast

import pytest
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import with_loader_criteria

from fastapi_toolsets.errors import BulkWriteError
from fastapi_toolsets.models import Changes, Event, ModelEvent, Phase, listens_for

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
    row_count,
    store,
    three_parcels,
)
from .event_models import LOCAL, created, deleted, table_of


@scenario(Base.metadata)
async def test_rows_that_meet_criteria_are_told(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a DELETE by criteria is one event for each row, whose object shows the last row."""
    await three_parcels(front, recorder)
    shown: list[tuple[int, str, int, str]] = []

    @listens_for(Parcel, ModelEvent.DELETE)
    def show(parcel: Parcel, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((parcel.id, parcel.code, parcel.weight, parcel.printed))

    result = await front.execute(delete(Parcel).where(Parcel.weight >= 2))
    assert row_count(result) == 2
    await front.commit()
    assert recorder.take() == [deleted(Parcel, 2), deleted(Parcel, 3)]
    assert shown == [(2, "p2", 2, "no"), (3, "p3", 3, "no")]
    assert await front.committed_rows(PARCELS) == [(1, "p1", "new", 1, None)]


@pytest.mark.parametrize("synchronize", ["auto", "evaluate", "fetch", False])
@scenario(Base.metadata)
async def test_net_with_the_unit_of_work(
    front: FrontEnd,
    recorder: EventRecorder,
    synchronize: str | bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """B2, E1: what the transaction itself has created is no event, what it has updated is a DELETE."""
    await three_parcels(front, recorder)
    first = await front.get_one(Parcel, 1)
    first.status = "sent"
    await front.add(Parcel(id=4, code="p4"))
    await front.flush()
    statement = delete(Parcel).where(Parcel.id != 3)
    await front.execute(statement, execution_options={"synchronize_session": synchronize})
    await front.commit()
    assert recorder.take() == [deleted(Parcel, 1), deleted(Parcel, 2)]
    assert await front.committed_rows(PARCELS) == [(3, "p3", "new", 3, None)]


@scenario(Base.metadata)
async def test_savepoints(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, T3: a DELETE that is rolled back with its savepoint leaves the update before it an update."""
    await three_parcels(front, recorder)
    first = await front.get_one(Parcel, 1)
    first.status = "sent"
    async with front.begin_nested() as savepoint:
        await front.execute(delete(Parcel))
        await savepoint.rollback()
    await front.execute(delete(Parcel).where(Parcel.id == 2))
    await front.commit()
    taken = recorder.take()
    assert [event[:3] for event in taken] == [("update", "Parcel", 1), ("delete", "Parcel", 2)]


@scenario(Base.metadata)
async def test_delete_and_insert_again(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E8: a primary key that an object takes again arrives as DELETE, CREATE."""
    await three_parcels(front, recorder)
    await front.execute(delete(Parcel).where(Parcel.id == 2))
    await front.add(Parcel(id=2, code="again"))
    await front.commit()
    assert recorder.take() == [deleted(Parcel, 2), created(Parcel, 2)]


@scenario(Base.metadata)
async def test_composite_keys_and_criteria_of_options(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: rows with composite keys; ``with_loader_criteria`` holds for what is told as for what is deleted."""
    await store(front, *(Seat(row=row, number=number) for row in (1, 2) for number in (1, 2)))
    recorder.listen(Seat)
    await front.execute(delete(Seat).where(Seat.row == 1).options(with_loader_criteria(Seat, Seat.number > 1)))
    await front.commit()
    assert recorder.take() == [deleted(Seat, (1, 2))]
    assert await front.committed_rows(select(Seat.row, Seat.number).order_by(Seat.row, Seat.number)) == [
        (1, 1),
        (2, 1),
        (2, 2),
    ]


@scenario(Base.metadata)
async def test_inheritance(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: each row is told with its own class, and shows what its class has in other tables."""
    await store(front, Animal(id=1, name="a"), Dog(id=2, name="b", trick="roll"), Cat(id=3, name="c"))
    await store(front, Employee(id=1, name="a"), Manager(id=2, name="b", budget=5))
    recorder.listen(Animal)
    recorder.listen(Employee)
    shown: list[tuple[object, ...]] = []

    @listens_for(Dog)
    def show_dog(dog: Dog, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((dog.name, dog.trick))

    @listens_for(Manager)
    def show_manager(manager: Manager, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((manager.name, manager.budget))

    await front.execute(delete(Dog))
    await front.execute(delete(Animal))
    await front.execute(delete(Employee))
    await front.commit()
    assert recorder.take() == [
        deleted(Dog, 2),
        deleted(Animal, 1),
        deleted(Cat, 3),
        deleted(Employee, 1),
        deleted(Manager, 2),
    ]
    assert shown == [("b", "roll"), ("b", 5)]
    assert await front.committed_rows(select(Manager.__table__)) == []


@scenario(Base.metadata, databases=LOCAL)
async def test_half_a_row_is_refused(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a DELETE of a joined subclass would leave the base's part of the row: it is refused before it runs."""
    await store(front, Manager(id=2, name="b", budget=5))
    recorder.listen(Employee)
    with pytest.raises(BulkWriteError, match="takes rows from the table 'bulk_managers' only"):
        await front.execute(delete(Manager))
    await front.rollback()
    assert await front.committed_rows(select(Manager.id)) == [(2,)]


@scenario(Base.metadata)
async def test_returning(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: what the statement was asked to return is returned, as without events."""
    await three_parcels(front, recorder)
    statement = delete(Parcel).where(Parcel.id >= 2).returning(Parcel.id, Parcel.code)
    assert sorted((await front.execute(statement)).all()) == [(2, "p2"), (3, "p3")]
    await front.commit()
    assert recorder.take() == [deleted(Parcel, 2), deleted(Parcel, 3)]


@scenario(Base.metadata)
async def test_the_event_has_the_values_before(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, N1: ``event`` has the row as it was at the start of the transaction; after a DELETE there is no other."""
    await three_parcels(front, recorder)
    told: list[tuple[object, ...]] = []

    @listens_for(Parcel)
    def tell(parcel: Parcel, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        before = None if event.before is None else (event.before["status"], event.before["weight"])
        after = None if event.after is None else (event.after["status"], event.after["weight"])
        told.append((event.type, event.identity, event.position, before, after))

    first = await front.get_one(Parcel, 1)
    first.status = "sent"
    await front.flush()
    await front.execute(delete(Parcel).where(Parcel.id == 1))
    await front.execute(table_of(Parcel).update().where(Parcel.id == 2).values(weight=9))
    await front.commit()
    assert told == [
        (ModelEvent.DELETE, (1,), 0, ("new", 1), None),
        (ModelEvent.UPDATE, (2,), 1, ("new", 2), ("new", 9)),
    ]


@scenario(Base.metadata)
async def test_rows_that_a_vote_deletes(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, P1, B2: created by one statement and deleted by the vote on them, they are nothing to tell."""

    @listens_for(Parcel, ModelEvent.CREATE, phase=Phase.BEFORE_COMMIT)
    async def refuse(parcel: Parcel, event_type: ModelEvent, changes: None, *, session: object) -> None:
        if parcel.weight > 2:
            await front.adapt(cast("Any", session)).execute(delete(Parcel).where(Parcel.id == parcel.id))

    recorder.listen(Parcel)
    await front.execute(insert(Parcel), [{"id": key, "code": f"p{key}", "weight": key} for key in (1, 2, 3)])
    await front.commit()
    assert recorder.take() == [created(Parcel, 1), created(Parcel, 2)]
    assert await front.committed_rows(select(Parcel.id).order_by(Parcel.id)) == [(1,), (2,)]
