"""What a session knows of its transaction: whether a statement may write, what waits to be expired, what is lost."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..contract.event_models import LOCAL, created, updated
from ..contract.transaction_models import Base, Order
from ..front_ends import EventRecorder, FrontEnd, scenario

READING = {
    "sqlite": ("SELECT 1", " \n\tselect 1", "EXPLAIN SELECT 1", "pragma user_version", "VALUES (1)"),
    "postgresql": ("(SELECT 1)", "SHOW work_mem", "explain SELECT 1", "Values (1)"),
    "mariadb": ("(select 1)", "show tables", "EXPLAIN SELECT 1"),
}


@scenario(Base.metadata)
async def test_statements_that_only_read_cause_no_other(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: after one that may have written, rows are read again; after one that cannot, they are not."""
    order = Order(id=1)
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    for statement in READING[front.database.name]:
        order.quantity += 1
        await front.flush()
        await front.execute(text(statement))
        with front.statements() as sent:
            await front.commit()
        assert (statement, sent) == (statement, [])
    order.quantity += 1
    await front.flush()
    await front.execute(text("UPDATE orders SET status = 'other'"))
    with front.statements() as sent:
        await front.commit()
    assert [sql.split()[0] for sql in sent] == ["SELECT"]
    count = len(READING[front.database.name])
    assert recorder.take() == [updated(Order, 1, quantity=(number, number + 1)) for number in range(count + 1)]


@scenario(Base.metadata, databases=LOCAL, expire_on_commit=True)
async def test_everything_is_expired_after_a_callback_has_committed(front: FrontEnd, recorder: EventRecorder) -> None:
    """E11: what only the first commit touched, and what only the callback's did."""
    orders = [Order(id=1), Order(id=2)]

    @listens_for(Order, ModelEvent.CREATE)
    async def follow(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order is orders[0]:
            await front.expunge(order)
            await front.add(orders[1])
            await front.commit()
            await front.add(order)

    recorder.listen(Order)
    await front.add(orders[0])
    await front.commit()
    assert recorder.take() == [created(Order, 1), created(Order, 2)]
    assert [inspect(order).expired for order in orders] == [True, True]


@scenario(Base.metadata, databases=["postgresql"])
async def test_swallowed_errors_in_a_transaction_with_nothing_to_tell(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4, T7: where no event is lost, nobody is warned."""
    recorder.listen(Order)
    with pytest.raises(DBAPIError):
        await front.execute(text("SELECT no_such_column FROM orders"))
    await front.commit()
    await front.add(Order(id=1))
    await front.commit()
    assert recorder.take() == [created(Order, 1)]


@pytest.mark.parametrize("depth", [1, 2, 3])
@scenario(Base.metadata, databases=LOCAL)
async def test_values_made_inside_savepoints_that_the_commit_releases(
    front: FrontEnd, recorder: EventRecorder, *, depth: int
) -> None:
    """T1, T3, E4: ``commit()`` inside open savepoints delivers what only the database knew, and nothing waits twice."""
    order: Any = Order(id=1)
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    for _ in range(depth):
        await front.begin_nested()
        order.quantity = Order.quantity + 1
        await front.flush()
    await front.commit()
    assert recorder.take() == [updated(Order, 1, quantity=(0, depth))]
    assert not front.in_transaction()


@pytest.mark.parametrize("depth", [1, 2, 3])
@scenario(Base.metadata, databases=LOCAL)
async def test_values_made_inside_savepoints_that_a_block_releases(
    front: FrontEnd, recorder: EventRecorder, *, depth: int
) -> None:
    """T1, T3, E4: as ``commit()`` does, so does the end of a ``begin()`` block inside which savepoints are open."""
    order: Any = Order(id=1)
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    async with front.begin():
        for _ in range(depth):
            await front.begin_nested()
            order.quantity = Order.quantity + 1
            await front.flush()
    assert recorder.take() == [updated(Order, 1, quantity=(0, depth))]
    assert not front.in_transaction()


@scenario(Base.metadata, databases=LOCAL)
async def test_a_savepoint_that_releases_another_commits_nothing(
    front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """T2, T3: its ``commit()`` ends two savepoints, the transaction goes on, and its rollback loses no COMMIT."""
    order: Any = Order(id=1)
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    for end in (front.rollback, front.commit):
        outer = await front.begin_nested()
        await front.begin_nested()
        order.quantity = Order.quantity + 1
        await front.flush()
        with front.statements() as sent:
            await outer.commit()
        assert [statement.split()[0] for statement in sent] == ["RELEASE", "RELEASE"]
        assert front.in_transaction()
        await end()
    assert caplog.messages == []
    assert recorder.take() == [updated(Order, 1, quantity=(0, 1))]
