"""Rules T1, T2 and C2 where many tasks or threads commit at once: each has its own events, and no other's."""

from __future__ import annotations

import asyncio
import contextvars
import threading

from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..front_ends import FrontEnd, RecordedEvent, run_without_loop, scenario
from .event_models import created, deleted, updated
from .transaction_models import ORDERS, Base, Order

WORKER = contextvars.ContextVar("WORKER", default=-1)
Told = dict[int, list[RecordedEvent]]


def listen() -> Told:
    """Register an async and a sync callback that write down who was told what; return what they write."""
    told: Told = {}

    @listens_for(Order)
    async def note_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await asyncio.sleep(0)
        told.setdefault(WORKER.get(), []).append((event_type.value, "Order", order.id, changes))

    @listens_for(Order)
    def note(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        told.setdefault(WORKER.get(), []).append((event_type.value, "Order", order.id, changes))

    return told


async def work(front: FrontEnd, number: int) -> None:
    """Create two orders, change one, roll something back, and delete the other, in five transactions."""
    WORKER.set(number)
    session = front.new_session()
    kept, gone = Order(id=10 * number), Order(id=10 * number + 1)
    await session.add_all([kept, gone])
    await session.commit()
    async with session.begin():
        kept.status = f"worker {number}"
        savepoint = await session.begin_nested()
        await session.add(Order(id=10 * number + 2))
        await session.flush()
        await savepoint.rollback()
    await session.delete(kept)
    await session.flush()
    await session.rollback()
    await session.delete(gone)
    await session.commit()
    await session.close()


def expected(workers: range) -> Told:
    """What each worker is told, each event twice: by the async and by the sync callback."""
    return {
        number: [
            event
            for event in (
                created(Order, 10 * number),
                created(Order, 10 * number + 1),
                updated(Order, 10 * number, status=("new", f"worker {number}")),
                deleted(Order, 10 * number + 1),
            )
            for _ in range(2)
        ]
        for number in workers
    }


@scenario(Base.metadata, databases=["postgresql", "mariadb"], front_ends=["async"])
async def test_fifty_tasks(front: FrontEnd) -> None:
    """T1, T2: 50 tasks share an engine; each is told its own transactions, in its own context."""
    told, workers = listen(), range(1, 51)
    async with asyncio.TaskGroup() as group:
        for number in workers:
            group.create_task(work(front, number))
    assert told == expected(workers)
    assert await front.committed_rows(ORDERS) == [(10 * number, f"worker {number}") for number in workers]


@scenario(Base.metadata, databases=["postgresql", "mariadb"], front_ends=["sync"])
async def test_eight_threads(front: FrontEnd) -> None:
    """T1, T2, C2: 8 threads share an engine; each is told its own transactions, on its own loop."""
    told, workers = listen(), range(1, 9)

    def run(number: int) -> None:
        contextvars.Context().run(run_without_loop, work(front, number))

    threads = [threading.Thread(target=run, args=(number,)) for number in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == expected(workers)
    assert await front.committed_rows(ORDERS) == [(10 * number, f"worker {number}") for number in workers]
