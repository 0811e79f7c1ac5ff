"""Rule E1: one event per row and transaction, net of everything that happened to the row in it."""

from __future__ import annotations

from sqlalchemy import func, select

from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, ORDERS, Base, Order, created, deleted, updated


async def stored(front: FrontEnd, recorder: EventRecorder, **values: object) -> Order:
    """Commit an order that was there before, and begin to listen."""
    order = Order(**{"id": 1, "status": "new", **values})
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    return order


@scenario(Base.metadata)
async def test_create_and_update_is_one_create_with_the_final_state(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1: create+update = one CREATE with the final state, over several flushes."""
    shown: list[tuple[str, int]] = []
    recorder.listen(Order)

    @listens_for(Order)
    def show(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((order.status, order.quantity))

    order = Order(id=1, status="new")
    await front.add(order)
    await front.flush()
    order.status = "paid"
    await front.flush()
    order.quantity = 3
    await front.commit()
    assert recorder.take() == [created(Order, 1)]
    assert shown == [("paid", 3)]


@scenario(Base.metadata)
async def test_create_and_delete_is_nothing(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1: create+delete = nothing, with an update between or without."""
    recorder.listen(Order)
    orders = [Order(id=key, status="new") for key in (1, 2, 3)]
    await front.add_all(orders)
    await front.flush()
    orders[1].status = "paid"
    await front.flush()
    await front.delete(orders[0])
    await front.delete(orders[1])
    await front.commit()
    assert recorder.take() == [created(Order, 3)]
    assert await front.committed_rows(ORDERS) == [(3, "new", 1, None)]


@scenario(Base.metadata)
async def test_update_and_delete_is_one_delete(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1: update+delete = DELETE."""
    order = await stored(front, recorder)
    order.status = "paid"
    await front.flush()
    await front.delete(order)
    await front.commit()
    assert recorder.take() == [deleted(Order, 1)]


@scenario(Base.metadata, databases=LOCAL)
async def test_an_update_that_was_never_flushed_before_the_delete(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1: update+delete in one flush = DELETE."""
    order = await stored(front, recorder)
    order.status = "paid"
    await front.delete(order)
    await front.commit()
    assert recorder.take() == [deleted(Order, 1)]


@scenario(Base.metadata)
async def test_several_updates_are_one(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1: one UPDATE from the first old to the last new, whichever attribute changed in which flush."""
    order = await stored(front, recorder)
    order.status = "paid"
    await front.flush()
    order.status = "sent"
    order.quantity = 2
    await front.flush()
    order.note = "fragile"
    order.status = "lost"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "lost"), quantity=(1, 2), note=(None, "fragile"))]


@scenario(Base.metadata, databases=LOCAL)
async def test_several_assignments_in_one_flush_are_one_update(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1: what an attribute was between two flushes does not appear."""
    order = await stored(front, recorder)
    order.status = "paid"
    order.status = "sent"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "sent"))]


@scenario(Base.metadata)
async def test_each_row_has_its_own_event(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1: several rows in one transaction do not mix; each transaction tells its own."""
    recorder.listen(Order)
    orders = [Order(id=key, status="new") for key in (1, 2, 3)]
    await front.add_all(orders)
    await front.commit()
    assert recorder.take() == [created(Order, 1), created(Order, 2), created(Order, 3)]
    orders[0].status = "paid"
    await front.delete(orders[1])
    await front.add(Order(id=4, status="new"))
    await front.commit()
    taken = sorted(recorder.take(), key=lambda event: str(event[2]))
    assert taken == [updated(Order, 1, status=("new", "paid")), deleted(Order, 2), created(Order, 4)]
    await front.commit()
    assert recorder.take() == []


@scenario(Base.metadata, databases=LOCAL)
async def test_autoflush_and_merge_count_as_any_flush(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1: the net does not depend on who flushed: autoflush by a query, merge, ``flush()`` or the commit."""
    await stored(front, recorder)
    order = await front.merge(Order(id=1, status="paid", note="merged"))
    assert await front.scalar(select(func.count()).where(Order.status == "paid")) == 1
    order.note = "again"
    await front.merge(Order(id=2, status="new"))
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "paid"), note=(None, "again")), created(Order, 2)]


@scenario(Base.metadata, databases=LOCAL)
async def test_two_objects_that_had_one_row_in_turn(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1: one event per row, although an expunged object wrote the first half and another the second."""
    order = await stored(front, recorder)
    order.status = "paid"
    await front.flush()
    await front.expunge(order)
    again = await front.get_one(Order, 1)
    assert again is not order
    again.status = "sent"
    again.note = "b"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "sent"), note=(None, "b"))]


@scenario(Base.metadata, databases=LOCAL)
async def test_rows_of_different_models_with_one_key(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E10: the same primary key in another session, or at another time, is another event."""
    order = await stored(front, recorder)
    second = front.new_session()
    same = await second.get_one(Order, 1)
    await second.rollback()
    order.status = "paid"
    await front.commit()
    await second.refresh(same)
    same.status = "new"
    await second.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "paid")), updated(Order, 1, status=("paid", "new"))]
