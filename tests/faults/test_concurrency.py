"""Rules C2, C4 and C5 with many committers at once, some of which fail: nobody notices anybody else."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import AsyncAdaptedQueuePool

from fastapi_toolsets.models import Changes, Event, ModelEvent, listens_for

from ..front_ends import FrontEnd, SessionAdapter, run_without_loop, scenario
from .failures import OwnBaseException
from .models import ORDERS, Base, Order, library_log

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

TASKS, THREADS = 50, 8
WORKER = contextvars.ContextVar("WORKER", default=-1)

Told = tuple[int, str, int, int, bool]
"""The worker in whose context a callback ran, what it was told of which order, the event's position, and whether the
session it was given is the worker's own."""


class Storm:
    """Workers that commit at once on one engine; each of five kinds meets a fault of its own, or none."""

    def __init__(self, front: FrontEnd) -> None:
        self.front = front
        self.told: list[Told] = []
        self.transactions: dict[int, list[object]] = {}
        self.sessions: dict[int, object] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        listens_for(Order)(self.note)
        listens_for(Order)(self.fail)
        listens_for(Order)(self.note_later)

    def note(
        self, order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object, event: Event
    ) -> None:
        worker = WORKER.get()
        own = self.sessions[worker] is session
        self.told.append((worker, f"{event_type} {order.status}", order.id, event.position, own))
        self.transactions.setdefault(worker, []).append(event.transaction_id)

    async def note_later(
        self, order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object, event: Event
    ) -> None:
        await asyncio.sleep(0)
        if order.status == "cancelled" and event.position == 0:
            self.tasks[WORKER.get()].cancel()
            await asyncio.sleep(0)
        self.note(order, event_type, changes, session=session, event=event)

    async def fail(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.status == "failing":
            raise OwnBaseException

    async def work(self, number: int, kind: str) -> None:
        """Commit two orders and change the second, unless something comes between."""
        WORKER.set(number)
        session = self.front.new_session()
        self.sessions[number] = session.session
        first, second = Order(id=10 * number, status=kind), Order(id=10 * number + 1, status=kind)
        await session.add_all([first, second])
        if kind == "rolled back":
            await session.flush()
            await session.rollback()
            return
        await session.commit()
        second.status = f"{kind} again"
        if kind == "refused":
            await self.lose(session, second)
            return
        await session.commit()

    async def lose(self, session: SessionAdapter, order: Order) -> None:
        """Let the second commit fail on a row that is there already, after the change was flushed."""
        await session.flush()
        await session.expunge_all()
        await session.add(Order(id=order.id - 1))
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.close()

    def expected(self, kinds: dict[int, str]) -> dict[int, list[Told]]:
        told: dict[int, list[Told]] = {}
        for number, kind in kinds.items():
            events: list[Told] = []
            if kind != "rolled back":
                events = [(number, f"create {kind}", 10 * number + index, index, True) for index in (0, 1)]
            if kind in ("plain", "failing"):
                events.append((number, f"update {kind} again", 10 * number + 1, 0, True))
            told[number] = [event for event in events for _ in range(2)]
        return told

    def by_worker(self, kinds: dict[int, str]) -> dict[int, list[Told]]:
        return {number: [told for told in self.told if told[0] == number] for number in kinds}

    def transactions_of(self, kinds: dict[int, str]) -> list[int]:
        """How many different transactions each worker was told of; no two workers share one."""
        told = [set(self.transactions.get(number, [])) for number in kinds]
        assert len({identifier for identifiers in told for identifier in identifiers}) == sum(map(len, told))
        return [len(identifiers) for identifiers in told]


KINDS = ("plain", "rolled back", "failing", "refused", "cancelled")
TRANSACTIONS = {"plain": 2, "rolled back": 0, "failing": 2, "refused": 1, "cancelled": 1}


@scenario(Base.metadata, front_ends=["async"])
async def test_tasks(front: FrontEnd) -> None:
    """C4, C5, T2: 50 tasks commit, roll back, fail, are refused and cancelled at once; each is told its own."""
    storm = Storm(front)
    kinds = {number: KINDS[number % len(KINDS)] for number in range(TASKS)}
    with library_log() as logged:
        for number, kind in kinds.items():
            storm.tasks[number] = asyncio.create_task(storm.work(number, kind))
        ended = await asyncio.gather(*storm.tasks.values(), return_exceptions=True)
    cancelled = [number for number, error in enumerate(ended) if isinstance(error, asyncio.CancelledError)]
    assert cancelled == [number for number, kind in kinds.items() if kind == "cancelled"]
    assert [error for error in ended if error is not None and not isinstance(error, asyncio.CancelledError)] == []
    assert storm.by_worker(kinds) == storm.expected(kinds)
    assert storm.transactions_of(kinds) == [TRANSACTIONS[kind] for kind in kinds.values()]
    assert [level for level, message in logged if "Storm.fail" in message] == ["ERROR"] * 20


@scenario(Base.metadata, front_ends=["sync"])
async def test_threads(front: FrontEnd) -> None:
    """C4, C2, T2: the same in 8 threads, each with async callbacks on a loop of its own."""
    storm = Storm(front)
    kinds = {number: KINDS[number % 4] for number in range(THREADS)}
    together = threading.Barrier(THREADS)

    def work(number: int) -> None:
        together.wait()
        contextvars.Context().run(run_without_loop, storm.work(number, kinds[number]))

    with library_log() as logged, ThreadPoolExecutor(THREADS) as pool:
        works = [pool.submit(work, number) for number in kinds]
    assert [work.result() for work in works] == [None] * THREADS
    assert storm.by_worker(kinds) == storm.expected(kinds)
    assert storm.transactions_of(kinds) == [TRANSACTIONS[kind] for kind in kinds.values()]
    assert [level for level, message in logged if "Storm.fail" in message] == ["ERROR"] * 4


@scenario(
    Base.metadata,
    databases=["sqlite"],
    front_ends=["async"],
    engine_options={"poolclass": AsyncAdaptedQueuePool, "pool_size": 2, "max_overflow": 0},
)
async def test_callbacks_hold_no_connection(front: FrontEnd) -> None:
    """T7: 50 commits wait for each other in their callbacks, with two connections among them."""
    together = asyncio.Barrier(TASKS)
    passed: list[int] = []

    @listens_for(Order)
    async def meet(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await together.wait()
        passed.append(order.id)

    async def commit(number: int) -> None:
        session = front.new_session()
        await session.add(Order(id=number))
        await session.commit()

    async with asyncio.TaskGroup() as group:
        for number in range(TASKS):
            group.create_task(commit(number))
    assert sorted(passed) == list(range(TASKS))


@contextmanager
def nothing_left_open() -> Generator[None]:
    """Fail where something was collected that had not been closed, in whichever thread."""
    found: list[str] = []

    def note(problem: UnraisableHookArgs) -> None:
        found.append(f"{problem.exc_value!r}")

    hook, sys.unraisablehook = sys.unraisablehook, note
    gc.collect()
    found.clear()
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert found == []


@scenario(Base.metadata, databases=["sqlite"], front_ends=["sync"])
async def test_loops_end_with_their_threads(front: FrontEnd) -> None:
    """C2: 8 threads wait for each other in their async callbacks; once joined, nothing of their loops is left open.

    That also holds where the error of a callback is kept: its traceback leads to the loop.
    """
    together = threading.Barrier(THREADS)
    loops: list[asyncio.AbstractEventLoop] = []
    kept: list[object] = []

    @listens_for(Order)
    async def meet(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        together.wait()
        raise OwnBaseException

    def commit(number: int) -> None:
        session = front.factory(on_callback_error=kept.append)()
        session.add(Order(id=number))
        session.commit()
        session.close()

    threads_before = set(threading.enumerate())
    with nothing_left_open():
        threads = [threading.Thread(target=commit, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [loop.is_closed() for loop in loops] == [True] * THREADS
        assert len({id(loop) for loop in loops}) == THREADS
        assert len(kept) == THREADS
        kept.clear()
    assert set(threading.enumerate()) <= threads_before  # an idle one of trio may have ended meanwhile
    assert await front.committed_rows(ORDERS) == [(number, "new") for number in range(THREADS)]
