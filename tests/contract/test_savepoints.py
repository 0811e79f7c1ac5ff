"""Rule T3: a released savepoint hands its events to the enclosing level, a rolled-back one drops exactly its own."""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy.exc import IntegrityError

from ..front_ends import EventRecorder, FrontEnd
from .clauses import Clauses
from .event_models import created, deleted, updated
from .transaction_models import ORDERS, Base, ExpectedError, Order

clause = Clauses(Base.metadata)


async def seeded(front: FrontEnd, recorder: EventRecorder, *statuses: str) -> list[Order]:
    """Commit an order for each status, and only then begin to record."""
    orders = [Order(id=number, status=status) for number, status in enumerate(statuses, start=1)]
    await front.add_all(orders)
    await front.commit()
    recorder.listen(Order)
    return orders


@clause
async def test_release_hands_events_to_the_enclosing_level(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: a create, an update and a delete inside are told with the rest, after the outermost commit."""
    first, second = await seeded(front, recorder, "a", "a")
    async with front.begin():
        async with front.begin_nested():
            first.status = "b"
            await front.flush()
            await front.delete(second)
            await front.flush()
            await front.add(Order(id=3))
        assert recorder.events == []
        await front.add(Order(id=4))
    assert recorder.take() == [
        updated(Order, 1, status=("a", "b")),
        deleted(Order, 2),
        created(Order, 3),
        created(Order, 4),
    ]


@clause
async def test_rollback_drops_exactly_its_own_part(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: what was done before it and after it stays."""
    first, second = await seeded(front, recorder, "a", "a")
    async with front.begin():
        await front.add(Order(id=3))
        savepoint = await front.begin_nested()
        await front.add(Order(id=4))
        first.status = "b"
        await front.delete(second)
        await savepoint.rollback()
        await front.add(Order(id=5))
    assert recorder.take() == [created(Order, 3), created(Order, 5)]
    assert await front.committed_rows(ORDERS) == [(1, "a"), (2, "a"), (3, "new"), (5, "new")]


@clause
async def test_change_before_a_rolled_back_savepoint_keeps_its_value(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: a→b before it and b→c inside it, rolled back, is a→b."""
    (order,) = await seeded(front, recorder, "a")
    order.status = "b"
    savepoint = await front.begin_nested()
    order.status = "c"
    await front.flush()
    await savepoint.rollback()
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("a", "b"))]


@clause
async def test_change_only_inside_a_rolled_back_savepoint_is_none(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: nothing is told of a row that only the savepoint changed; a later change has the row's own old value."""
    (order,) = await seeded(front, recorder, "a")
    async with front.begin():
        savepoint = await front.begin_nested()
        order.status = "b"
        await front.flush()
        await savepoint.rollback()
    assert recorder.take() == []
    async with front.begin():
        savepoint = await front.begin_nested()
        order.status = "c"
        await savepoint.rollback()
        order.status = "d"
    assert recorder.take() == [updated(Order, 1, status=("a", "d"))]


@clause
async def test_different_fields_before_and_inside(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: of two changed fields the one inside goes with the savepoint, and comes with it when it is released."""
    (order,) = await seeded(front, recorder, "a")
    for quantity, release in ((1, False), (2, True)):
        order.status += "b"
        savepoint = await front.begin_nested()
        order.quantity = quantity
        await (savepoint.commit() if release else savepoint.rollback())
        await front.commit()
    assert recorder.take() == [
        updated(Order, 1, status=("a", "ab")),
        updated(Order, 1, status=("ab", "abb"), quantity=(0, 2)),
    ]


@clause
async def test_delete_rolled_back_leaves_the_pending_update(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: an update pending before a rolled-back delete is still an update."""
    (order,) = await seeded(front, recorder, "a")
    order.status = "b"
    savepoint = await front.begin_nested()
    await front.delete(order)
    await front.flush()
    await savepoint.rollback()
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("a", "b"))]


@clause
async def test_delete_rolled_back_alone_is_nothing(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: the row is as it was; a delete outside afterwards is one DELETE."""
    (order,) = await seeded(front, recorder, "a")
    async with front.begin():
        savepoint = await front.begin_nested()
        await front.delete(order)
        await savepoint.rollback()
    assert recorder.take() == []
    async with front.begin():
        savepoint = await front.begin_nested()
        await front.delete(order)
        await savepoint.rollback()
        await front.delete(order)
    assert recorder.take() == [deleted(Order, 1)]


@clause
async def test_created_outside_and_deleted_in_a_rolled_back_savepoint(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: it is a CREATE, with the state that was committed."""
    await seeded(front, recorder)
    order = Order(id=1, status="a")
    await front.add(order)
    savepoint = await front.begin_nested()
    order.status = "b"
    await front.flush()
    await front.delete(order)
    await front.flush()
    await savepoint.rollback()
    await front.commit()
    assert recorder.take() == [created(Order, 1)]
    assert await front.committed_rows(ORDERS) == [(1, "a")]


@clause
async def test_inner_released_into_outer_rolled_back(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: what the outer savepoint took over goes with it, also where the inner ones ended both ways."""
    (order,) = await seeded(front, recorder, "a")
    async with front.begin():
        outer = await front.begin_nested()
        async with front.begin_nested():
            order.status = "b"
            await front.add(Order(id=2))
        dropped = await front.begin_nested()
        await front.add(Order(id=3))
        await dropped.rollback()
        async with front.begin_nested(), front.begin_nested():
            await front.delete(order)
        await outer.rollback()
        await front.add(Order(id=4))
    assert recorder.take() == [created(Order, 4)]


@clause
async def test_creation_rolled_back_and_added_again(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: one CREATE, whether the same object is added again or another one, outside or in a further savepoint."""
    await seeded(front, recorder)
    async with front.begin():
        savepoint = await front.begin_nested()
        same, other, inside = Order(id=1), Order(id=2, status="a"), Order(id=3)
        await front.add_all([same, other, inside])
        await front.flush()
        await savepoint.rollback()
        await front.add_all([same, Order(id=2, status="b")])
        async with front.begin_nested():
            await front.add(inside)
    assert recorder.take() == [created(Order, 1), created(Order, 2), created(Order, 3)]


@clause
async def test_creation_rolled_back_and_never_added_again(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: it is nothing, although the object is still there and is changed."""
    await seeded(front, recorder)
    order = Order(id=1)
    async with front.begin():
        with suppress(ExpectedError):
            async with front.begin_nested():
                await front.add(order)
                await front.flush()
                raise ExpectedError
        order.status = "changed"
    assert recorder.take() == []


@clause
async def test_release_then_more_changes_are_one_event(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: events of the inner and the outer level are one per row, and what ends where it began is none."""
    first, second = await seeded(front, recorder, "a", "a")
    async with front.begin():
        async with front.begin_nested():
            await front.add(third := Order(id=3))
            await front.add(fourth := Order(id=4))
            first.status = second.status = "b"
        third.status = "later"
        await front.flush()
        await front.delete(fourth)
        first.status = "a"
        second.status = "c"
    assert recorder.take() == [created(Order, 3), updated(Order, 2, status=("a", "c"))]


@clause
async def test_failed_statement_inside_a_savepoint(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: a flush that fails takes its savepoint with it and nothing else."""
    (order,) = await seeded(front, recorder, "a")
    other = front.new_session()
    await other.add(Order(id=9))
    await other.commit()
    recorder.take()
    async with front.begin():
        order.status = "b"
        savepoint = await front.begin_nested()
        order.status = "c"
        await front.add(Order(id=9))
        with pytest.raises(IntegrityError):
            await savepoint.commit()
        await savepoint.rollback()
        await front.add(Order(id=2))
    assert recorder.take() == [updated(Order, 1, status=("a", "b")), created(Order, 2)]


@clause
async def test_session_rollback_inside_a_savepoint_rolls_back_everything(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """T3: ``session.rollback()`` means the outermost transaction, whatever is open."""
    await seeded(front, recorder)
    await front.add(Order(id=1))
    async with front.begin_nested():
        await front.add(Order(id=2))
    await front.begin_nested()
    await front.add(Order(id=3))
    await front.rollback()
    await front.add(Order(id=4))
    await front.commit()
    assert recorder.take() == [created(Order, 4)]


@clause
async def test_many_savepoints_one_after_another(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: a batch that gives each row a savepoint and drops every third."""
    await seeded(front, recorder)
    async with front.begin():
        for number in range(1, 13):
            with suppress(ExpectedError):
                async with front.begin_nested():
                    await front.add(Order(id=number))
                    if number % 3 == 0:
                        raise ExpectedError
    assert recorder.take() == [created(Order, number) for number in range(1, 13) if number % 3]


test_every_clause_on_servers = clause.on_servers()
test_every_clause_on_expiring_sessions = clause.on_expiring_sessions()
