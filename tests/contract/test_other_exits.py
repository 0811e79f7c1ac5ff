"""Rule T2: whatever leaves a transaction without a commit delivers nothing, then or later."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ..front_ends import EventRecorder, FrontEnd, SessionAdapter, entered, scenario
from .clauses import Clauses
from .event_models import created, updated
from .transaction_models import ORDERS, Base, ExpectedError, Order

Exit = Callable[[FrontEnd, SessionAdapter], Awaitable[None]]

clause = Clauses(Base.metadata)


async def rollback(front: FrontEnd, session: SessionAdapter) -> None:
    await work(session)
    await session.rollback()


async def close(front: FrontEnd, session: SessionAdapter) -> None:
    await work(session)
    await session.close()


async def reset(front: FrontEnd, session: SessionAdapter) -> None:
    await work(session)
    await session.reset()


async def invalidate(front: FrontEnd, session: SessionAdapter) -> None:
    await work(session)
    await session.invalidate()


async def transaction_rollback(front: FrontEnd, session: SessionAdapter) -> None:
    transaction = await session.begin()
    await work(session)
    await transaction.rollback()


def close_transaction(sync_session: Session) -> None:
    transaction = sync_session.get_transaction()
    assert transaction is not None
    transaction.close()
    sync_session.expunge_all()  # closing the transaction alone leaves what was pending in the session


async def transaction_close(front: FrontEnd, session: SessionAdapter) -> None:
    await session.begin()
    await work(session)
    await session.run_sync(close_transaction)


async def begin_block_that_raises(front: FrontEnd, session: SessionAdapter) -> None:
    with suppress(ExpectedError):
        async with session.begin():
            await work(session)
            raise ExpectedError


async def rollback_inside_begin_block(front: FrontEnd, session: SessionAdapter) -> None:
    async with session.begin():
        await work(session)
        await session.rollback()


async def session_block_left(front: FrontEnd, session: SessionAdapter) -> None:
    async with entered(session.session):
        await work(session)


async def session_block_that_raises(front: FrontEnd, session: SessionAdapter) -> None:
    with suppress(ExpectedError):
        async with entered(session.session):
            await work(session)
            raise ExpectedError


async def rollback_inside_run_sync(front: FrontEnd, session: SessionAdapter) -> None:
    await work(session)
    await session.run_sync(Session.rollback)


async def rollback_with_open_savepoints(front: FrontEnd, session: SessionAdapter) -> None:
    await session.begin_nested()
    await work(session)
    await session.begin_nested()
    await session.rollback()


async def close_with_open_savepoints(front: FrontEnd, session: SessionAdapter) -> None:
    await session.begin_nested()
    await work(session)
    await session.begin_nested()
    await session.close()


async def transaction_close_with_open_savepoints(front: FrontEnd, session: SessionAdapter) -> None:
    """Afterwards SQLAlchemy still takes the inner savepoint for the current one."""
    await session.begin_nested()
    await work(session)
    await session.begin_nested()
    await session.run_sync(close_transaction)


async def rollback_after_released_savepoints(front: FrontEnd, session: SessionAdapter) -> None:
    async with session.begin_nested(), session.begin_nested():
        await work(session)
    await session.rollback()


async def rollback_after_outer_savepoint_was_committed(front: FrontEnd, session: SessionAdapter) -> None:
    outer = await session.begin_nested()
    await session.begin_nested()
    await work(session)
    await outer.commit()
    await session.rollback()


async def rollback_after_failed_flush(front: FrontEnd, session: SessionAdapter) -> None:
    await work(session)
    await session.add(Order(id=3))
    with pytest.raises(IntegrityError):
        await session.commit()
    await session.rollback()


EXITS: tuple[Exit, ...] = (
    rollback,
    close,
    reset,
    invalidate,
    transaction_rollback,
    transaction_close,
    begin_block_that_raises,
    rollback_inside_begin_block,
    session_block_left,
    session_block_that_raises,
    rollback_inside_run_sync,
    rollback_with_open_savepoints,
    close_with_open_savepoints,
    transaction_close_with_open_savepoints,
    rollback_after_released_savepoints,
    rollback_after_outer_savepoint_was_committed,
    rollback_after_failed_flush,
)


async def work(session: SessionAdapter) -> None:
    """Create, update and delete, flushed, and then update what is pending or loaded without a flush."""
    session.sync_session.add(Order(id=10))
    updated_order = await session.get_one(Order, 1)
    updated_order.status = "dropped"
    await session.delete(await session.get_one(Order, 2))
    session.sync_session.add(Order(id=11))
    await session.flush()
    updated_order.quantity = 5
    session.sync_session.add(Order(id=12))


@scenario(Base.metadata)
async def test_every_other_exit_delivers_nothing_then_or_later(
    front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """T2: neither at once nor with the next commit of the same session, which tells its own old values and no other.

    Nothing is logged either: to leave without a commit is no failure.
    """
    caplog.set_level(logging.INFO, "fastapi_toolsets")
    seen: dict[str, list[object]] = {}
    expected: dict[str, list[object]] = {}
    await front.add_all([Order(id=1, status="0"), Order(id=2), Order(id=3)])
    await front.commit()
    recorder.listen(Order)
    for number, leave in enumerate(EXITS):
        session = front.new_session()
        await leave(front, session)
        first = recorder.take()
        order = await session.get_one(Order, 1)
        order.status = str(number + 1)
        await session.commit()
        seen[leave.__name__] = [first, recorder.take(), caplog.messages.copy()]
        expected[leave.__name__] = [[], [updated(Order, 1, status=(str(number), str(number + 1)))], []]
        caplog.clear()
    assert seen == expected
    assert await front.committed_rows(ORDERS) == [(1, str(len(EXITS))), (2, "new"), (3, "new")]


@clause
async def test_objects_thrown_out_before_the_flush_are_not_told(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2: a pending object that is expunged was never written."""
    recorder.listen(Order)
    order = Order(id=1)
    await front.add_all([order, Order(id=2)])
    await front.expunge(order)
    await front.commit()
    assert recorder.take() == [created(Order, 2)]
    await front.add(Order(id=3))
    await front.expunge_all()
    await front.commit()
    assert recorder.take() == []


@clause
async def test_expunged_after_the_flush_then_rolled_back(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2: ``expunge_all`` does not keep what the rollback takes back."""
    recorder.listen(Order)
    await front.add(Order(id=1))
    await front.flush()
    await front.expunge_all()
    await front.rollback()
    await front.add(Order(id=2))
    await front.commit()
    assert recorder.take() == [created(Order, 2)]


@clause
async def test_rolled_back_object_that_is_added_again_is_told_once(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2: the second attempt is the one that is told, with the state that it committed."""
    recorder.listen(Order)
    order = Order(id=1, status="first")
    await front.add(order)
    await front.flush()
    await front.rollback()
    order.status = "second"
    await front.add(order)
    await front.commit()
    assert recorder.take() == [created(Order, 1)]
    order.status = "third"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("second", "third"))]


test_every_clause_on_servers = clause.on_servers()
test_every_clause_on_expiring_sessions = clause.on_expiring_sessions()


@pytest.mark.parametrize("end", ["rollback", "close", "reset", "invalidate", "commit"])
@scenario(Base.metadata, databases=("sqlite", "postgresql", "mariadb"), front_ends=["sync"])
async def test_end_interrupted_while_the_connection_goes_back(
    front: FrontEnd, recorder: EventRecorder, *, end: str
) -> None:
    """T1, T2 and C4: Ctrl-C goes on, what was committed is told, and nothing else, then or later."""
    recorder.listen(Order)
    session = front.sync_session
    engine = session.get_bind().engine

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    session.add(Order(id=1))
    session.flush()
    happens = "checkin" if end == "invalidate" else "reset"
    event.listen(engine, happens, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            getattr(session, end)()
    finally:
        event.remove(engine, happens, interrupt)
    assert recorder.take() == ([created(Order, 1)] if end == "commit" else [])
    session.add(Order(id=2))
    session.commit()
    assert recorder.take() == [created(Order, 2)]
