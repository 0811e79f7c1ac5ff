"""Rule T4 where a statement's error was swallowed: what the server has left of the transaction decides what is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import TextClause, event, insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from fastapi_toolsets.errors import RolledBackCommitWarning
from fastapi_toolsets.models import listener_scope

from ..front_ends import EventRecorder, FrontEnd, SessionAdapter, run_without_loop, scenario
from .drivers import drivers_of, front_on
from .models import ORDERS, Base, Order, created, updated

SERVERS = ("postgresql", "mariadb")

LOCK_WAIT = {"postgresql": "SET LOCAL lock_timeout = '1ms'", "mariadb": "SET SESSION innodb_lock_wait_timeout = 0"}
SNAPSHOT = {
    "postgresql": "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "mariadb": "SET SESSION innodb_snapshot_isolation = ON",
}


@asynccontextmanager
async def two_orders(front: FrontEnd, driver: str, recorder: EventRecorder) -> AsyncGenerator[FrontEnd]:
    """Give a front-end on one of the drivers, with two orders in the table and everything recorded from then on."""
    async with front_on(front, front.database.url.set(drivername=driver)) as other:
        await other.add_all([Order(id=1), Order(id=2)])
        await other.commit()
        with listener_scope():
            recorder.listen(Order)
            yield other
        await other.rollback()
        await other.execute(text("DELETE FROM orders"))
        await other.commit()


def set_status(identity: int, status: str) -> TextClause:
    return text(f"UPDATE orders SET status = '{status}' WHERE id = {identity}")


async def at_once(front: FrontEnd, one: Coroutine[Any, Any, bool], two: Coroutine[Any, Any, bool]) -> list[bool]:
    """Run both at the same time: on the loop, or in two threads."""
    if front.is_async:
        return list(await asyncio.gather(one, two))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run_without_loop, one)
        second = await two
        return [future.result(), second]


def roll_back_savepoint(session: Session) -> None:
    if (savepoint := session.get_nested_transaction()) is not None:
        savepoint.rollback()


async def collide(front: FrontEnd, one: SessionAdapter, two: SessionAdapter) -> tuple[int, int]:
    """Change order 1 in one session and order 2 in the other, then reach for the other's order: a deadlock.

    Both swallow what they get. Return the number of the session that won, and of the one that lost.
    """
    sessions = {1: one, 2: two}
    for number, session in sessions.items():
        if front.database.name == "postgresql":
            await session.execute(text("SET LOCAL deadlock_timeout = '10ms'"))
        (await session.get_one(Order, number)).status = f"by {number}"
        await session.flush()

    async def reach_over(number: int) -> bool:
        try:
            await sessions[number].execute(set_status(3 - number, f"by {number}"))
        except DBAPIError:
            await sessions[number].run_sync(roll_back_savepoint)
            return False
        return True

    won = await at_once(front, reach_over(1), reach_over(2))
    assert sorted(won) == [False, True]
    return (1, 2) if won[0] else (2, 1)


@scenario(Base.metadata, databases=SERVERS)
async def test_deadlock(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: the victim's transaction is lost, and its COMMIT told as nothing; the winner and the retry are told once."""
    for driver in drivers_of(front):
        async with two_orders(front, driver, recorder) as other:
            sessions = {1: other.new_session(), 2: other.new_session()}
            winner, loser = await collide(other, sessions[1], sessions[2])
            with pytest.warns(RolledBackCommitWarning):
                await sessions[loser].commit()
            assert recorder.take() == []
            await sessions[winner].commit()
            assert recorder.take() == [updated(winner, "new", f"by {winner}")]
            order = await sessions[loser].get_one(Order, loser)
            await sessions[loser].refresh(order)
            order.status = "again"
            await sessions[loser].commit()
            # The winner's own statement went past the unit of work.
            assert recorder.take() == [updated(loser, f"by {winner}", "again")]


@scenario(Base.metadata, databases=["postgresql"])
async def test_deadlock_in_a_savepoint(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: with the savepoint rolled back the transaction is whole again, and what it commits is told."""
    for driver in drivers_of(front):
        async with two_orders(front, driver, recorder) as other:
            sessions = {1: other.new_session(), 2: other.new_session()}
            for number, session in sessions.items():
                await session.add(Order(id=number + 10))
                await session.begin_nested()
            winner, loser = await collide(other, sessions[1], sessions[2])
            await sessions[loser].commit()
            assert recorder.take() == [created(loser + 10)]
            await sessions[winner].commit()
            assert recorder.take() == [created(winner + 10), updated(winner, "new", f"by {winner}")]


@scenario(Base.metadata, databases=["mariadb"])
async def test_deadlock_that_took_the_savepoint_along(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: MariaDB forgets the savepoint with the transaction: rolling it back is an error, and nothing is told."""
    for driver in drivers_of(front):
        async with two_orders(front, driver, recorder) as other:
            sessions = {1: other.new_session(), 2: other.new_session()}
            for number, session in sessions.items():
                await session.add(Order(id=number + 10))
                await session.begin_nested()
            with pytest.raises(DBAPIError, match="SAVEPOINT"):
                await collide(other, sessions[1], sessions[2])
            for session in sessions.values():
                await session.rollback()
            assert recorder.take() == []
            await sessions[1].add(Order(id=11))
            await sessions[1].commit()
            assert recorder.take() == [created(11)]


@scenario(Base.metadata, databases=SERVERS)
async def test_lock_that_was_not_waited_for(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: PostgreSQL gives the transaction up with the statement; MariaDB gives up the statement only, and commits."""
    for driver in drivers_of(front):
        async with two_orders(front, driver, recorder) as other:
            holder = other.new_session()
            await holder.execute(set_status(2, "held"))
            await other.execute(text(LOCK_WAIT[front.database.name]))
            (await other.get_one(Order, 1)).status = "changed"
            await other.flush()
            with pytest.raises(DBAPIError):
                await other.execute(set_status(2, "never"))
            if front.database.name == "postgresql":
                with pytest.warns(RolledBackCommitWarning):
                    await other.commit()
                assert recorder.take() == []
            else:
                await other.commit()
                assert recorder.take() == [updated(1, "new", "changed")]
            await holder.rollback()


@scenario(Base.metadata, databases=SERVERS)
async def test_snapshot_conflict(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: a row changed since the snapshot was taken: both servers give the whole transaction up."""
    for driver in drivers_of(front):
        async with two_orders(front, driver, recorder) as other:
            await other.execute(text(SNAPSHOT[front.database.name]))
            first = await other.get_one(Order, 1)
            meanwhile = other.new_session()
            (await meanwhile.get_one(Order, 2)).status = "meanwhile"
            await meanwhile.commit()
            recorder.take()
            first.status = "changed"
            await other.flush()
            with pytest.raises(DBAPIError):
                await other.execute(set_status(2, "never"))
            with pytest.warns(RolledBackCommitWarning):
                await other.commit()
            assert recorder.take() == []
            assert await front.committed_rows(ORDERS) == [(1, "new"), (2, "meanwhile")]
            await other.refresh(first)
            first.status = "again"
            await other.commit()
            assert recorder.take() == [updated(1, "new", "again")]


@scenario(Base.metadata, databases=["postgresql"])
async def test_statement_that_took_too_long(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: cancelled by the server; in a savepoint that is released, not rolled back, the release itself fails."""
    for driver in drivers_of(front):
        async with two_orders(front, driver, recorder) as other:
            await other.add(Order(id=3))
            savepoint = await other.begin_nested()
            await other.execute(text("SET LOCAL statement_timeout = '1ms'"))
            with pytest.raises(DBAPIError, match="statement timeout"):
                await other.execute(text("SELECT pg_sleep(30)"))
            with pytest.raises(DBAPIError, match="current transaction is aborted"):
                await savepoint.commit()
            await other.rollback()
            assert recorder.take() == []
            await other.add(Order(id=3))
            await other.commit()
            assert recorder.take() == [created(3)]


@scenario(Base.metadata, databases=["mariadb"])
async def test_snapshot_conflict_in_a_savepoint(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1, T4: the server forgets what came before it, and commits what comes after: so does the library."""
    for driver in drivers_of(front):
        async with two_orders(front, driver, recorder) as other:
            await other.execute(text(SNAPSHOT["mariadb"]))
            await other.add(Order(id=10))
            second = await other.get_one(Order, 2)
            meanwhile = other.new_session()
            (await meanwhile.get_one(Order, 2)).status = "meanwhile"
            await meanwhile.commit()
            recorder.take()
            with pytest.raises(DBAPIError):
                async with other.begin_nested():
                    second.status = "never"
            await other.add(Order(id=20))
            with pytest.warns(RolledBackCommitWarning, match="what comes after it is another"):
                await other.commit()
            assert recorder.take() == [created(20)]
            assert await front.committed_rows(ORDERS) == [(1, "new"), (2, "meanwhile"), (20, "new")]


@scenario(Base.metadata, databases=["mariadb"])
async def test_what_follows_a_deadlock(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1, T4: it is another transaction, which commits; a bulk statement that makes events follows as a flush does."""
    for driver in drivers_of(front):
        async with two_orders(front, driver, recorder) as other:
            sessions = {1: other.new_session(), 2: other.new_session()}
            winner, loser = await collide(other, sessions[1], sessions[2])
            await sessions[winner].commit()
            assert recorder.take() == [updated(winner, "new", f"by {winner}")]
            with pytest.warns(RolledBackCommitWarning, match="what comes after it is another"):
                await sessions[loser].execute(
                    insert(Order).values(id=20, status="new"), execution_options={"events": True}
                )
            await sessions[loser].add(Order(id=21))
            await sessions[loser].commit()
            assert recorder.take() == [created(20), created(21)]
            by = f"by {winner}"
            assert await front.committed_rows(ORDERS) == [(1, by), (2, by), (20, "new"), (21, "new")]


def divide(session: Session) -> None:
    session.execute(text("SELECT 1/0"))


def divide_on_the_connection(session: Session) -> None:
    session.connection().execute(text("SELECT 1/0"))


def divide_in_a_savepoint(session: Session) -> None:
    with session.begin_nested():
        divide(session)


@pytest.mark.parametrize("act", [divide, divide_on_the_connection, divide_in_a_savepoint])
@scenario(Base.metadata, databases=["postgresql"])
async def test_error_in_a_before_commit_listener(
    front: FrontEnd, recorder: EventRecorder, act: Callable[[Session], None]
) -> None:
    """T4: behind the library's own, it still decides what the COMMIT that follows commits."""

    def swallow(session: Session) -> None:
        with pytest.raises(DBAPIError):
            act(session)

    for driver in drivers_of(front):
        async with two_orders(front, driver, recorder) as other:
            event.listen(other.sync_session, "before_commit", swallow, once=True)
            await other.add(Order(id=3))
            await other.flush()
            if act is divide_in_a_savepoint:
                await other.commit()
                assert recorder.take() == [created(3)]
            else:
                with pytest.warns(RolledBackCommitWarning, match="its COMMIT commits nothing"):
                    await other.commit()
                assert recorder.take() == []
                assert await front.committed_rows(ORDERS) == [(1, "new"), (2, "new")]
            await other.add(Order(id=4))
            await other.commit()
            assert recorder.take() == [created(4)]
