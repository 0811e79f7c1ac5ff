"""Rules T5 and T6: a session inside somebody else's transaction, and commits in two phases."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import select

from fastapi_toolsets.errors import JoinedTransactionWarning
from fastapi_toolsets.models import ModelEvent, Phase, listens_for

from ..front_ends import EventRecorder, FrontEnd, SessionAdapter, entered, resolve, scenario
from .clauses import Clauses
from .event_models import LOCAL, created, deleted, updated
from .transaction_models import ORDERS, Base, Order

JOINED = ("conditional_savepoint", "rollback_only", "create_savepoint")
clause = Clauses(Base.metadata)


@asynccontextmanager
async def outer_transaction(front: FrontEnd) -> AsyncGenerator[Any]:
    """Begin a transaction on a connection, as the fixture of a test suite does, and roll it back at the end."""
    async with entered(front.engine.connect()) as connection:
        transaction = await resolve(connection.begin())
        yield connection
        await resolve(transaction.rollback())


async def commit_orders(session: SessionAdapter, *identities: int) -> list[str]:
    """Commit each order; return the warnings given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for identity in identities:
            await session.add(Order(id=identity))
            await session.commit()
    assert {warning.category for warning in caught} <= {JoinedTransactionWarning}
    return [str(warning.message) for warning in caught]


@clause
async def test_joined_commit_delivers_nothing(front: FrontEnd, recorder: EventRecorder) -> None:
    """T5: in each mode that leaves the outer transaction open; one warning names the option."""
    recorder.listen(Order)
    for mode in JOINED:
        async with outer_transaction(front) as connection:
            session = front.new_session(bind=connection, join_transaction_mode=mode)
            (warning,) = await commit_orders(session, 1, 2)
            await session.close()
        assert "dispatch_on_joined_commit=True" in warning
        assert recorder.take() == []
    assert await front.committed_rows(ORDERS) == []


@clause
async def test_session_goes_on_where_the_warning_is_an_error(front: FrontEnd, recorder: EventRecorder) -> None:
    """T5: as in a test suite that takes every warning for one."""
    recorder.listen(Order)
    async with outer_transaction(front) as connection:
        session = front.new_session(bind=connection)
        await session.add(Order(id=1))
        with warnings.catch_warnings(action="error"), pytest.raises(JoinedTransactionWarning):
            await session.commit()
        await session.add(Order(id=2))
        await session.commit()
        assert list(await session.scalars(select(Order.id).order_by(Order.id))) == [1, 2]
        await session.close()
    assert recorder.take() == []


@clause
async def test_joined_commit_in_a_savepoint_of_the_connection(front: FrontEnd, recorder: EventRecorder) -> None:
    """T5: also where somebody else has begun a savepoint on the connection, whatever the mode."""
    recorder.listen(Order)
    for mode in JOINED:
        async with outer_transaction(front) as connection:
            await resolve(connection.begin_nested())
            session = front.new_session(bind=connection, join_transaction_mode=mode)
            assert len(await commit_orders(session, 1)) == 1
            await session.close()
        assert recorder.take() == []


@clause
async def test_nothing_is_made_up_for_when_the_outer_transaction_commits(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """T5: neither then nor with a later commit of the same session, which tells its own events only."""
    recorder.listen(Order)
    async with entered(front.engine.connect()) as connection:
        outer = await resolve(connection.begin())
        session = front.new_session(bind=connection)
        await commit_orders(session, 1)
        await resolve(outer.commit())
        assert recorder.take() == []
        assert await commit_orders(session, 2) == []
        assert recorder.take() == [created(Order, 2)]
        await session.close()
    assert await front.committed_rows(ORDERS) == [(1, "new"), (2, "new")]


@clause
async def test_session_in_full_control_really_commits(front: FrontEnd, recorder: EventRecorder) -> None:
    """T5: ``control_fully`` commits the outer transaction itself, so its events are delivered."""
    recorder.listen(Order)
    async with entered(front.engine.connect()) as connection:
        await resolve(connection.begin())
        session = front.new_session(bind=connection, join_transaction_mode="control_fully")
        assert await commit_orders(session, 1) == []
        assert recorder.take() == [created(Order, 1)]
        await session.close()
    assert await front.committed_rows(ORDERS) == [(1, "new")]


@clause
async def test_connection_without_a_transaction_is_not_joined(front: FrontEnd, recorder: EventRecorder) -> None:
    """T5: a session that begins on its connection by itself commits for real."""
    recorder.listen(Order)
    async with entered(front.engine.connect()) as connection:
        session = front.new_session(bind=connection)
        assert await commit_orders(session, 1, 2) == []
        assert recorder.take() == [created(Order, 1), created(Order, 2)]
        await session.close()


@clause
async def test_joined_commit_with_nothing_to_tell_does_not_warn(front: FrontEnd, recorder: EventRecorder) -> None:
    """T5: the warning is about events that are not delivered; without one there is none."""
    async with outer_transaction(front) as connection:
        session = front.new_session(bind=connection)
        assert await commit_orders(session, 1) == []
        recorder.listen(Order)
        await session.execute(ORDERS)
        with warnings.catch_warnings(action="error"):
            await session.commit()
        await session.close()
    assert recorder.take() == []


@clause
async def test_option_makes_the_own_commit_count(front: FrontEnd, recorder: EventRecorder) -> None:
    """T5: with ``dispatch_on_joined_commit=True`` a test suite that rolls back at the end sees its events."""
    recorder.listen(Order)
    told: dict[str, object] = {}
    expected: dict[str, object] = {}
    for mode in JOINED:
        async with outer_transaction(front) as connection:
            session = front.new_session(
                bind=connection, join_transaction_mode=mode, dispatch_on_joined_commit=True, expire_on_commit=True
            )
            assert await commit_orders(session, 1) == []
            order = await session.get_one(Order, 1)
            async with session.begin_nested():
                order.status = "b"
            savepoint = await session.begin_nested()
            order.status = "c"
            await savepoint.rollback()
            await session.commit()
            await session.delete(order)
            await session.commit()
            await session.close()
        told[mode] = recorder.take()
        expected[mode] = [created(Order, 1), updated(Order, 1, status=("new", "b")), deleted(Order, 1)]
    assert told == expected
    assert await front.committed_rows(ORDERS) == []


@clause
async def test_option_does_not_make_a_rollback_count(front: FrontEnd, recorder: EventRecorder) -> None:
    """T5 with T2: what the session itself rolls back is not delivered, and not with its next commit either."""
    recorder.listen(Order)
    async with outer_transaction(front) as connection:
        session = front.new_session(
            bind=connection, join_transaction_mode="create_savepoint", dispatch_on_joined_commit=True
        )
        await session.add(Order(id=1))
        await session.flush()
        await session.rollback()
        await session.add(Order(id=2))
        await session.commit()
        await session.close()
    assert recorder.take() == [created(Order, 2)]


@clause
async def test_callbacks_of_a_joined_commit_may_use_the_session(front: FrontEnd, recorder: EventRecorder) -> None:
    """T5 with C6: under the option a callback reads, writes and commits inside the outer transaction."""
    recorder.listen(Order)

    @listens_for(Order, ModelEvent.CREATE)
    async def add_another(order: Order, event_type: ModelEvent, changes: object) -> None:
        (session,) = sessions
        if len((await session.execute(ORDERS)).all()) == 1:
            await session.add(Order(id=2))
            await session.commit()

    sessions: list[SessionAdapter] = []

    async with outer_transaction(front) as connection:
        session = front.new_session(
            bind=connection, join_transaction_mode="create_savepoint", dispatch_on_joined_commit=True
        )
        sessions.append(session)
        await commit_orders(session, 1)
        await session.close()
    assert recorder.take() == [created(Order, 1), created(Order, 2)]
    assert await front.committed_rows(ORDERS) == []


test_every_clause_on_servers = clause.on_servers()
test_every_clause_on_expiring_sessions = clause.on_expiring_sessions()


# T6


@scenario(Base.metadata, databases=["mariadb"], twophase=True)
async def test_two_phases_deliver_at_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """T6: nothing at ``prepare()``, once at ``commit()``."""
    recorder.listen(Order)
    await front.add(Order(id=1))
    await front.prepare()
    assert recorder.take() == []
    await front.commit()
    assert recorder.take() == [created(Order, 1)]
    await front.commit()
    assert recorder.take() == []


@scenario(Base.metadata, databases=["mariadb"], twophase=True)
async def test_commit_that_prepares_by_itself(front: FrontEnd, recorder: EventRecorder) -> None:
    """T6: both phases in one ``commit()``, also by the other doors and with savepoints, are told once."""
    recorder.listen(Order)
    order = Order(id=1, status="a")
    await front.add(order)
    await front.commit()
    async with front.begin():
        order.status = "b"
        async with front.begin_nested():
            await front.add(Order(id=2))
        savepoint = await front.begin_nested()
        await front.add(Order(id=3))
        await savepoint.rollback()
    transaction = await front.begin()
    await front.delete(order)
    await transaction.commit()
    assert recorder.take() == [
        created(Order, 1),
        updated(Order, 1, status=("a", "b")),
        created(Order, 2),
        deleted(Order, 1),
    ]


@scenario(Base.metadata, databases=["mariadb"], twophase=True)
async def test_prepared_and_rolled_back(front: FrontEnd, recorder: EventRecorder) -> None:
    """T6: a prepared transaction that is rolled back is not told; the next one is."""
    recorder.listen(Order)
    await front.add(Order(id=1))
    await front.prepare()
    await front.rollback()
    assert recorder.take() == []
    await front.add(Order(id=2))
    await front.prepare()
    await front.commit()
    assert recorder.take() == [created(Order, 2)]
    assert await front.committed_rows(ORDERS) == [(2, "new")]


@scenario(Base.metadata, databases=["mariadb"], twophase=True)
async def test_prepare_inside_a_begin_block(front: FrontEnd, recorder: EventRecorder) -> None:
    """T6: the commit inside the block is the one that counts."""
    recorder.listen(Order)
    async with front.begin():
        await front.add(Order(id=1))
        await front.prepare()
        assert recorder.take() == []
        await front.commit()
        assert recorder.take() == [created(Order, 1)]
    assert await front.committed_rows(ORDERS) == [(1, "new")]


@pytest.mark.parametrize("mode", ["rollback_only", "conditional_savepoint"])
@pytest.mark.parametrize("act", ["close", "rollback"])
@scenario(Base.metadata, databases=LOCAL)
async def test_joined_session_that_is_closed(front: FrontEnd, recorder: EventRecorder, mode: str, act: str) -> None:
    """P2: closing leaves the outer transaction as it is, so nothing was rolled back; a rollback rolls that back."""
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)
    async with entered(front.engine.connect()) as connection:
        outer = await resolve(connection.begin())
        session = front.new_session(bind=connection, join_transaction_mode=mode)
        await session.add(Order(id=1))
        await session.flush()
        await (session.close() if act == "close" else session.rollback())
        if act == "close":
            await resolve(outer.commit())
    rows = await front.committed_rows(ORDERS)
    assert (rows, recorder.take()) == (([(1, "new")], []) if act == "close" else ([], [created(Order, 1)]))


@scenario(Base.metadata, databases=LOCAL)
async def test_rollback_where_every_statement_commits(front: FrontEnd, recorder: EventRecorder) -> None:
    """P2: it rolls nothing back, so nobody is told of that."""
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)
    engine: Any = front.engine.execution_options(isolation_level="AUTOCOMMIT")
    session = front.new_session(bind=engine)
    await session.add(Order(id=1))
    await session.flush()
    await session.rollback()
    await session.close()
    assert (await front.committed_rows(ORDERS), recorder.take()) == ([(1, "new")], [])
