"""Rule E3: the value that the row had, also where nobody had loaded it."""

from __future__ import annotations

from sqlalchemy import (
    select,
)
from sqlalchemy.orm import (
    defer,
    load_only,
    make_transient_to_detached,
)

from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import ORDERS, Base, Order, updated


async def stored(front: FrontEnd, recorder: EventRecorder, **values: object) -> Order:
    """Commit an order that was there before, and begin to listen."""
    order = Order(**{"id": 1, "status": "new", **values})
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    return order


@scenario(Base.metadata)
async def test_old_of_an_expired_object(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3: ``old`` is true when the whole object was expired before the assignment."""
    order = await stored(front, recorder, note="a")
    await front.expire(order)
    order.status = "paid"
    order.note = None
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "paid"), note=("a", None))]


@scenario(Base.metadata, expire_on_commit=True)
async def test_old_of_an_object_that_a_commit_expired(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3: the same with ``expire_on_commit``, also after other sessions wrote the row."""
    order = await stored(front, recorder)
    order.status = "paid"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "paid"))]
    other = front.new_session()
    (await other.get_one(Order, 1)).status = "sent"
    await other.commit()
    recorder.take()
    order.status = "lost"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("sent", "lost"))]


@scenario(Base.metadata)
async def test_old_of_single_expired_attributes(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3: only some attributes were expired; expired after a change that is then lost."""
    order = await stored(front, recorder)
    await front.expire(order, ["status"])
    order.status, order.quantity = "paid", 5
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "paid"), quantity=(1, 5))]
    order.status = "never written"
    await front.expire(order, ["status"])
    order.quantity = 6
    await front.commit()
    assert recorder.take() == [updated(Order, 1, quantity=(5, 6))]


@scenario(Base.metadata)
async def test_old_of_a_deferred_attribute(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3: a column that is deferred in the mapping and was never loaded."""
    await stored(front, recorder, memo="m")
    session = front.new_session()
    order = await session.get_one(Order, 1)
    order.memo = "n"
    await session.flush()
    order.memo = "o"
    await session.commit()
    assert recorder.take() == [updated(Order, 1, memo=("m", "o"))]


@scenario(Base.metadata)
async def test_old_of_attributes_that_the_query_left_out(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3: ``load_only``, ``defer`` and ``defer(raiseload=True)``."""
    await stored(front, recorder, note="a")
    options = [[load_only(Order.id)], [defer(Order.status), defer(Order.note)], [defer(Order.status, raiseload=True)]]
    status, note = "new", "a"
    for number, option in enumerate(options):
        session = front.new_session()
        order = await session.scalar(select(Order).options(*option))
        order.status, order.note = f"s{number}", f"n{number}"
        await session.commit()
        assert recorder.take() == [updated(Order, 1, status=(status, f"s{number}"), note=(note, f"n{number}"))]
        status, note = f"s{number}", f"n{number}"


@scenario(Base.metadata)
async def test_old_of_an_object_that_was_never_loaded(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3: an object made detached by hand knows nothing of its row."""
    await stored(front, recorder, note="a")
    session = front.new_session()
    order = Order(id=1)
    make_transient_to_detached(order)
    await session.add(order)
    order.status, order.note = "paid", "a"
    await session.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "paid"))]
    assert await front.committed_rows(ORDERS) == [(1, "paid", 1, "a")]


@scenario(Base.metadata)
async def test_old_after_merge_without_load(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3: ``merge`` of a detached object, loaded or not, tells what the row really had."""
    order = await stored(front, recorder)
    await front.close()
    order.status = "paid"
    session = front.new_session()
    await session.merge(order)
    await session.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "paid"))]


@scenario(Base.metadata)
async def test_old_of_a_detached_object_that_was_changed_and_added_again(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """E3: the first old value is the row's, although the change was made outside any session."""
    order = await stored(front, recorder)
    await front.expunge(order)
    order.status = "paid"
    session = front.new_session()
    await session.add(order)
    await session.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "paid"))]


@scenario(Base.metadata)
async def test_old_after_expunging_and_loading_again(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E10: the first old is that of the transaction's start, whichever object saw it."""
    order = await stored(front, recorder, note="a", memo="m")
    order.status = "paid"
    await front.flush()
    await front.expunge(order)
    del order
    again = await front.scalar(select(Order).options(load_only(Order.id)))
    again.status, again.note, again.memo = "sent", "b", "n"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "sent"), note=("a", "b"), memo=("m", "n"))]


@scenario(Base.metadata)
async def test_old_when_expired_between_two_flushes(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3: the first flush's old value counts, not what the row had in the middle of the transaction."""
    order = await stored(front, recorder, note="a")
    order.status = "paid"
    await front.flush()
    await front.expire_all()
    order.status = "sent"
    await front.flush()
    await front.expire(order)
    order.note = "b"
    order.status = "new"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, note=("a", "b"))]


@scenario(Base.metadata)
async def test_old_after_the_rollback_of_a_savepoint(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, T3: a rollback to a savepoint expires what changed in it; later changes still know the truth."""
    order = await stored(front, recorder, note="a")
    order.status = "paid"
    savepoint = await front.begin_nested()
    order.status, order.note = "sent", "lost"
    await front.flush()
    await savepoint.rollback()
    order.note = "b"
    await front.flush()
    order.status = "done"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "done"), note=("a", "b"))]


@scenario(Base.metadata)
async def test_old_after_the_rollback_of_a_savepoint_without_a_change_left(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """E2, E3, T3: what the savepoint wrote is gone; assigning what the row has again is nothing."""
    order = await stored(front, recorder)
    savepoint = await front.begin_nested()
    order.status = "sent"
    await front.flush()
    await savepoint.rollback()
    order.status = "new"
    await front.commit()
    assert recorder.take() == []


@scenario(Base.metadata)
async def test_old_after_refresh_and_after_rollback(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3: a refresh throws an assignment away, a rollback everything; the next change begins at the row's value."""
    order = await stored(front, recorder)
    order.status = "thrown away"
    await front.refresh(order)
    order.status = "paid"
    await front.flush()
    await front.rollback()
    order.status = "sent"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "sent"))]


@scenario(Base.metadata)
async def test_old_of_an_attribute_that_the_insert_left_out(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3: after a create in an earlier transaction an unset attribute was NULL, a defaulted one its default."""
    order = await stored(front, recorder)
    order.note, order.memo, order.quantity = "a", "m", 2
    await front.commit()
    assert recorder.take() == [updated(Order, 1, quantity=(1, 2), note=(None, "a"), memo=(None, "m"))]
