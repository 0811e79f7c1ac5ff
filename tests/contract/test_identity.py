"""Rule E10: rows that no object of the session stands for any more."""

from __future__ import annotations

import gc
import weakref

from sqlalchemy import select

from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, Base, Order, created, deleted, updated


@scenario(Base.metadata)
async def test_expunged_objects_have_their_events(front: FrontEnd, recorder: EventRecorder) -> None:
    """E10: flushed, expunged and forgotten before the commit: created, updated and deleted rows."""
    await front.add_all([Order(id=key, status="new") for key in (1, 2, 3)])
    await front.commit()
    await front.expunge_all()
    recorder.listen(Order)

    async def change() -> None:
        await front.add(Order(id=4, status="new"))
        (await front.get_one(Order, 1)).status = "paid"
        await front.delete(await front.get_one(Order, 2))
        await front.flush()
        await front.expunge_all()

    await change()
    gc.collect()
    await front.commit()
    assert sorted(recorder.take(), key=lambda event: str(event[2])) == [
        updated(Order, 1, status=("new", "paid")),
        deleted(Order, 2),
        created(Order, 4),
    ]
    assert await front.committed_rows(select(Order.id, Order.status).order_by(Order.id)) == [
        (1, "paid"),
        (3, "new"),
        (4, "new"),
    ]


@scenario(Base.metadata)
async def test_objects_that_nobody_holds(front: FrontEnd, recorder: EventRecorder) -> None:
    """E10: the identity map is weak: an object may be collected and loaded again as another between two flushes."""
    await front.add(Order(id=1, status="new"))
    await front.commit()
    await front.expunge_all()
    recorder.listen(Order)
    for status in ("paid", "sent", "lost"):
        (await front.get_one(Order, 1)).status = status
        await front.flush()
        gc.collect()
    for key in range(2, 50):
        await front.add(Order(id=key, status="new"))
        await front.flush()
        await front.expunge_all()
        gc.collect(0)
    await front.commit()
    assert recorder.take() == [
        updated(Order, 1, status=("new", "lost")),
        *(created(Order, key) for key in range(2, 50)),
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_the_object_in_the_callback_after_expunging(front: FrontEnd) -> None:
    """E10, E11: it is the object that wrote the row last, with every column readable."""
    heard: list[tuple[object, ...]] = []

    @listens_for(Order)
    def show(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        heard.append((event_type.value, order.id, order.status, order.quantity, order.note, order.memo))

    await front.add(Order(id=1, status="new", note="n"))
    await front.flush()
    await front.expunge_all()
    await front.commit()
    assert heard == [("create", 1, "new", 1, "n", None)]
    (await front.get_one(Order, 1)).status = "paid"
    await front.flush()
    await front.expunge_all()
    await front.commit()
    assert heard[1:] == [("update", 1, "paid", 1, "n", None)]


@scenario(Base.metadata, databases=LOCAL)
async def test_nothing_is_held_after_the_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """E10, T9: the events' objects can be collected once they are told."""
    recorder.listen(Order)
    order = Order(id=1, status="new")
    await front.add(order)
    await front.commit()
    gone = weakref.ref(order)
    await front.expunge_all()
    del order
    gc.collect()
    assert gone() is None
    assert recorder.take() == [created(Order, 1)]
