"""Rule T1: every door of a commit delivers what it committed, after the COMMIT."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from fastapi_toolsets.models import EventSession, ModelEvent, SyncEventSession, listens_for

from ..front_ends import EventRecorder, FrontEnd, RecordedEvent, entered, resolve, scenario
from ..versions import SQLALCHEMY
from .clauses import Clauses
from .event_models import created, deleted, updated
from .transaction_models import ORDERS, Base, Order

Door = Callable[[FrontEnd, Order], Awaitable[None]]


clause = Clauses(Base.metadata)


class CustomSyncSession(SyncEventSession):
    """A user's own session."""


class CustomSession(EventSession):
    sync_session_class = CustomSyncSession


# T1: the doors


async def commit(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    await session.add(order)
    await session.commit()


async def commit_after_flush(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    await session.add(order)
    await session.flush()
    await session.commit()


async def begin_block(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    async with session.begin():
        await session.add(order)


async def begin_block_without_autobegin(front: FrontEnd, order: Order) -> None:
    session = front.new_session(autobegin=False)
    async with session.begin():
        await session.add(order)


async def begin_block_in_session_block(front: FrontEnd, order: Order) -> None:
    async with entered(front.factory()()) as session, entered(session.begin()):
        session.add(order)


async def factory_begin(front: FrontEnd, order: Order) -> None:
    async with entered(front.factory().begin()) as session:
        session.add(order)


async def transaction_commit(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    transaction = await session.begin()
    await session.add(order)
    await transaction.commit()


async def autobegun_transaction_commit(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    await session.add(order)
    if SQLALCHEMY < (2, 0, 40):  # AsyncSession.get_transaction() raises NotImplementedError there
        transaction = session.sync_session.get_transaction()
        assert transaction is not None

        def commit(_session: object) -> None:
            transaction.commit()

        await session.run_sync(commit)
    else:
        await resolve(session.session.get_transaction().commit())


async def commit_inside_begin_block(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    async with session.begin():
        await session.add(order)
        await session.commit()


async def transaction_commit_inside_begin_block(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    async with session.begin() as transaction:
        await session.add(order)
        await transaction.commit()


async def commit_inside_run_sync(front: FrontEnd, order: Order) -> None:
    def work(session: Session) -> None:
        session.add(order)
        session.commit()

    await front.new_session().run_sync(work)


async def begin_block_inside_run_sync(front: FrontEnd, order: Order) -> None:
    def work(session: Session) -> None:
        with session.begin():
            session.add(order)

    await front.new_session().run_sync(work)


async def transaction_commit_inside_run_sync(front: FrontEnd, order: Order) -> None:
    def work(session: Session) -> None:
        transaction = session.begin()
        session.add(order)
        transaction.commit()

    await front.new_session().run_sync(work)


async def commit_with_open_savepoints(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    await session.begin_nested()
    await session.add(order)
    await session.begin_nested()
    await session.commit()


async def transaction_commit_with_open_savepoints(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    transaction = await session.begin()
    await session.begin_nested()
    await session.begin_nested()
    await session.add(order)
    await transaction.commit()


async def savepoint_block_in_begin_block(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    async with session.begin(), session.begin_nested():
        await session.add(order)


async def scoped(front: FrontEnd, order: Order) -> None:
    factory = front.factory()
    registry: Any = async_scoped_session(factory, asyncio.current_task) if front.is_async else scoped_session(factory)
    registry.add(order)
    await resolve(registry.commit())
    await resolve(registry.remove())


async def scoped_begin_block(front: FrontEnd, order: Order) -> None:
    factory = front.factory()
    registry: Any = async_scoped_session(factory, asyncio.current_task) if front.is_async else scoped_session(factory)
    async with entered(registry.begin()):
        registry.add(order)
    await resolve(registry.remove())


async def subclass(front: FrontEnd, order: Order) -> None:
    session = front.new_session(class_=CustomSession if front.is_async else CustomSyncSession)
    assert isinstance(session.sync_session, CustomSyncSession)
    await session.add(order)
    await session.commit()


async def sync_session_class(front: FrontEnd, order: Order) -> None:
    options: dict[str, object] = {"class_": CustomSyncSession}
    if front.is_async:
        options = {"class_": EventSession, "sync_session_class": CustomSyncSession}
    session = front.new_session(**options)
    assert isinstance(session.sync_session, CustomSyncSession)
    await session.add(order)
    await session.commit()


async def sync_session_class_of_plain_async_session(front: FrontEnd, order: Order) -> None:
    options = {"class_": AsyncSession, "sync_session_class": SyncEventSession} if front.is_async else {}
    session = front.new_session(**options)
    await session.add(order)
    await session.commit()


async def binds(front: FrontEnd, order: Order) -> None:
    session = front.new_session(bind=None, binds={Order: front.engine})
    await session.add(order)
    await session.commit()


async def merged(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    await session.merge(order)
    await session.commit()


async def second_commit(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    await session.commit()
    await session.add(order)
    await session.commit()
    await session.commit()


async def commit_after_rollback(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    await session.add(order)
    await session.flush()
    await session.rollback()
    await session.add(order)
    await session.commit()


async def commit_after_close(front: FrontEnd, order: Order) -> None:
    session = front.new_session()
    await session.add(order)
    await session.flush()
    await session.close()
    await session.add(Order(id=order.id))
    await session.commit()


DOORS: tuple[Door, ...] = (
    commit,
    commit_after_flush,
    begin_block,
    begin_block_without_autobegin,
    begin_block_in_session_block,
    factory_begin,
    transaction_commit,
    autobegun_transaction_commit,
    commit_inside_begin_block,
    transaction_commit_inside_begin_block,
    commit_inside_run_sync,
    begin_block_inside_run_sync,
    transaction_commit_inside_run_sync,
    commit_with_open_savepoints,
    transaction_commit_with_open_savepoints,
    savepoint_block_in_begin_block,
    scoped,
    scoped_begin_block,
    subclass,
    sync_session_class,
    sync_session_class_of_plain_async_session,
    binds,
    merged,
    second_commit,
    commit_after_rollback,
    commit_after_close,
)


@scenario(Base.metadata)
async def test_every_door_delivers_what_it_committed(front: FrontEnd) -> None:
    """T1: once, before the door is left, and with the row there for a connection of the callback's own."""
    visible: list[tuple[int, bool]] = []

    @listens_for(Order, ModelEvent.CREATE)
    async def look(order: Order, event_type: ModelEvent, changes: object) -> None:
        visible.append((order.id, (order.id,) in await front.committed_rows(select(Order.id))))

    seen: dict[str, list[tuple[int, bool]]] = {}
    for identity, door in enumerate(DOORS, start=1):
        await door(front, Order(id=identity))
        seen[door.__name__] = visible.copy()
        visible.clear()
    assert seen == {door.__name__: [(identity, True)] for identity, door in enumerate(DOORS, start=1)}


@clause
async def test_commit_inside_begin_block_delivers_before_the_block_is_left(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """T1: the COMMIT counts, not the end of the block."""
    recorder.listen(Order, asynchronous=True)
    async with front.begin():
        await front.add(Order(id=1))
        assert recorder.take() == []
        await front.commit()
        assert recorder.take() == [created(Order, 1)]
    assert recorder.take() == []


@clause
async def test_nothing_is_delivered_before_the_outermost_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1: neither a flush nor the release of a savepoint delivers."""
    recorder.listen(Order)
    transaction = await front.begin()
    await front.add(Order(id=1))
    await front.flush()
    async with front.begin_nested():
        await front.add(Order(id=2))
    await front.execute(ORDERS)
    assert recorder.take() == []
    await transaction.commit()
    assert recorder.take() == [created(Order, 1), created(Order, 2)]


@clause
async def test_each_commit_delivers_its_own_part(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1: one session, many transactions, each told once."""
    recorder.listen(Order)
    order = Order(id=1, status="a")
    told: list[list[RecordedEvent]] = []
    await front.add(order)
    for status in ("a", "b", "b", "c"):
        order.status = status
        await front.commit()
        told.append(recorder.take())
    await front.delete(order)
    await front.commit()
    told.append(recorder.take())
    assert told == [
        [created(Order, 1)],
        [updated(Order, 1, status=("a", "b"))],
        [],
        [updated(Order, 1, status=("b", "c"))],
        [deleted(Order, 1)],
    ]


@clause
async def test_sessions_do_not_tell_each_others_events(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1: a commit tells what its own session did, although another session has work under way."""
    recorder.listen(Order)
    other = front.new_session()
    await other.add(Order(id=2))
    await front.add(Order(id=1))
    await front.commit()
    assert recorder.take() == [created(Order, 1)]
    await other.commit()
    assert recorder.take() == [created(Order, 2)]


@clause
async def test_work_of_before_commit_listeners_is_told(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1: what a listener of SQLAlchemy's own adds in ``before_commit`` is part of the commit."""
    recorder.listen(Order)
    await front.add(Order(id=1))

    def add_another(session: Session) -> None:
        session.add(Order(id=2))

    event.listen(front.sync_session, "before_commit", add_another, once=True)
    await front.commit()
    assert recorder.take() == [created(Order, 1), created(Order, 2)]


@clause
async def test_listener_that_begins_another_transaction_when_one_ends(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1 and T2: one of SQLAlchemy's own that comes before the library's does not make it forget what was committed."""
    recorder.listen(Order)
    begun: list[int] = []

    def begin_another(session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None and not begun:
            begun.append(1)
            session.begin()

    event.listen(Session, "after_transaction_end", begin_another, insert=True)
    try:
        await front.add(Order(id=1))
        await front.commit()
        assert (recorder.take(), begun) == ([created(Order, 1)], [1])
        begun.clear()
        await front.add(Order(id=2))
        await front.flush()
        await front.rollback()
        assert (recorder.take(), begun) == ([], [1])
        await front.add(Order(id=3))
        await front.commit()
    finally:
        event.remove(Session, "after_transaction_end", begin_another)
    assert recorder.take() == [created(Order, 3)]


test_every_clause_on_servers = clause.on_servers()
test_every_clause_on_expiring_sessions = clause.on_expiring_sessions()
