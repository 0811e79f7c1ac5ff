"""``scoped_session`` and ``async_scoped_session``: which session a callback finds in the registry."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from fastapi_toolsets.models import EventSession, ModelEvent, SyncEventSession, listens_for

from ..contract.event_models import created
from ..contract.transaction_models import Base, Order
from ..databases import Database, tables
from ..front_ends import EventRecorder, FrontEnd, resolve, scenario

request_number: contextvars.ContextVar[int] = contextvars.ContextVar("request_number")


def registry_of(front: FrontEnd, scope: Callable[[], object] | None) -> Any:  # noqa: ANN401 - of either kind
    """Make a registry of the front-end's kind."""
    if front.is_async:
        return async_scoped_session(front.factory(), scope or asyncio.current_task)
    return scoped_session(front.factory(), scope)


async def same_sessions(front: FrontEnd, registry: Any) -> dict[str, bool]:  # noqa: ANN401 - as above
    """Whether the registry gives the session that committed, to a sync and an async callback of a commit."""
    found: dict[str, bool] = {}
    opened: list[Any] = []

    @listens_for(Order)
    def look(order: Order, event_type: ModelEvent, changes: None, *, session: object) -> None:
        found["sync"] = registry() is session

    @listens_for(Order)
    async def look_async(order: Order, event_type: ModelEvent, changes: None, *, session: object) -> None:
        found["async"] = registry() is session
        opened.append(registry())

    registry.add(Order(id=1))
    await resolve(registry.commit())
    await resolve(registry.remove())
    for session in opened:
        await resolve(session.close())
    return found


@scenario(Base.metadata)
async def test_scope_that_is_the_thread_or_the_task(front: FrontEnd) -> None:
    """C1, N1: an async callback of an async session has a task of its own; ``session`` is the one that committed."""
    assert await same_sessions(front, registry_of(front, None)) == {"sync": True, "async": not front.is_async}


@scenario(Base.metadata)
async def test_scope_that_is_a_context_variable(front: FrontEnd) -> None:
    """C2: callbacks see the committer's context, so that both kinds find its session."""
    token = request_number.set(7)
    try:
        assert await same_sessions(front, registry_of(front, request_number.get)) == {"sync": True, "async": True}
    finally:
        request_number.reset(token)


@scenario(Base.metadata)
async def test_the_registry_is_a_session_for_events(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1, T2, C6, C7: commits and drops as its session does; what only event sessions have is on ``registry()``."""
    recorder.listen(Order, asynchronous=True)
    registry, called = registry_of(front, None), list[str]()
    registry.add(Order(id=1))
    registry().on_commit(called.append, "first")
    await resolve(registry.commit())
    registry.add(Order(id=2))
    registry().on_commit(called.append, "second")
    await resolve(registry.flush())
    await resolve(registry.remove())
    registry.add(Order(id=3))
    await resolve(registry.commit())
    await resolve(registry.remove())
    assert recorder.take() == [created(Order, 1), created(Order, 3)]
    assert called == ["first"]


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)  # SQLite has one writer at a time
def test_tasks_and_threads_at_the_same_time(database: Database, recorder: EventRecorder) -> None:
    """T1, C2: each has a session of its own, and each commit is told once."""
    recorder.listen(Order, asynchronous=True)
    async_engine = database.create_async_engine(poolclass=NullPool)
    tasks = async_scoped_session(async_sessionmaker(async_engine, class_=EventSession), asyncio.current_task)

    async def add_in_a_task(key: int) -> None:
        tasks.add(Order(id=key))
        await tasks.commit()
        await tasks.remove()

    async def run_tasks() -> None:
        async with anyio.create_task_group() as group:
            for key in range(1, 11):
                group.start_soon(add_in_a_task, key)

    engine = database.create_engine(poolclass=NullPool)
    threads = scoped_session(sessionmaker(engine, class_=SyncEventSession))

    def add_in_a_thread(key: int) -> None:
        threads.add(Order(id=key))
        threads.commit()
        threads.remove()

    with tables(database, Base.metadata):
        anyio.run(run_tasks)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add_in_a_thread, range(11, 21)))
    assert sorted(recorder.take(), key=str) == sorted((created(Order, key) for key in range(1, 21)), key=str)
