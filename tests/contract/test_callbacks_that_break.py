"""Rule C4: a callback that leaves its session broken does not break the next callback or the caller."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine
from contextlib import suppress

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import DBAPIError

from fastapi_toolsets.errors import UncommittedChangesWarning
from fastapi_toolsets.models import Changes, ModelEvent, listener_scope, listens_for

from ..front_ends import EventRecorder, FrontEnd, SessionAdapter, resolve, scenario
from .event_models import created, updated
from .transaction_models import ORDERS, Base, ExpectedError, Order

BAD = text("SELECT no_such_column FROM orders")

Breaker = Callable[[SessionAdapter, Order], Coroutine[None, None, None]]


async def swallowed_statement_error(front: SessionAdapter, order: Order) -> None:
    with suppress(DBAPIError):
        await front.execute(BAD)


async def statement_error(front: SessionAdapter, order: Order) -> None:
    await front.execute(BAD)


async def swallowed_flush_error(front: SessionAdapter, order: Order) -> None:
    await front.add(Order(id=1))
    with suppress(DBAPIError):
        await front.flush()


async def failed_commit(front: SessionAdapter, order: Order) -> None:
    await front.add(Order(id=1))
    await front.commit()


async def close(front: SessionAdapter, order: Order) -> None:
    await front.close()


async def reset(front: SessionAdapter, order: Order) -> None:
    await front.execute(select(Order.id))
    await front.reset()


async def invalidate(front: SessionAdapter, order: Order) -> None:
    await front.execute(select(Order.id))
    await front.invalidate()


async def rollback(front: SessionAdapter, order: Order) -> None:
    await front.execute(select(Order.id))
    await front.rollback()


async def begin_and_leave(front: SessionAdapter, order: Order) -> None:
    await front.begin()


async def begin_block_left_open(front: SessionAdapter, order: Order) -> None:
    await front.begin().__aenter__()


async def begin_block_that_raises(front: SessionAdapter, order: Order) -> None:
    async with front.begin():
        order.status = "dropped"
        await front.flush()
        raise ExpectedError


async def savepoints_left_open(front: SessionAdapter, order: Order) -> None:
    await front.begin_nested()
    await front.begin_nested()
    await front.execute(select(Order.id))


async def statement_error_in_savepoint(front: SessionAdapter, order: Order) -> None:
    await front.begin_nested()
    await front.execute(BAD)


async def expire_all(front: SessionAdapter, order: Order) -> None:
    await front.expire_all()


async def expire(front: SessionAdapter, order: Order) -> None:
    await front.expire(order)


async def expunge_all(front: SessionAdapter, order: Order) -> None:
    await front.expunge_all()


async def uncommitted_update(front: SessionAdapter, order: Order) -> None:
    order.status = "dropped"


async def uncommitted_flush(front: SessionAdapter, order: Order) -> None:
    order.status = "dropped"
    await front.add(Order(id=99))
    await front.flush()


async def uncommitted_delete(front: SessionAdapter, order: Order) -> None:
    await front.delete(order)


async def uncommitted_core_write(front: SessionAdapter, order: Order) -> None:
    await front.execute(text("UPDATE orders SET status = 'dropped'"))


async def error_on_the_connection(front: SessionAdapter, order: Order) -> None:
    """Break the transaction below SQLAlchemy's session."""
    await resolve((await front.connection()).execute(BAD))


BREAKERS: tuple[Breaker, ...] = (
    invalidate,  # the first: a SQLite connection is not quite closed while a logged traceback holds one of its cursors
    swallowed_statement_error,
    statement_error,
    swallowed_flush_error,
    failed_commit,
    close,
    reset,
    rollback,
    begin_and_leave,
    begin_block_left_open,
    begin_block_that_raises,
    savepoints_left_open,
    statement_error_in_savepoint,
    expire_all,
    expire,
    expunge_all,
    uncommitted_update,
    uncommitted_flush,
    uncommitted_delete,
    uncommitted_core_write,
    error_on_the_connection,
)
DETACHING = {close, reset, invalidate, expunge_all}


def run_directly(breaker: Breaker, session: SessionAdapter, order: Order) -> None:
    """Run a breaker from a sync callback, where the sync session's methods wait for nothing."""
    with suppress(StopIteration):
        breaker(session, order).send(None)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@scenario(Base.metadata)
async def test_broken_session_breaks_nobody_else(
    front: FrontEnd, recorder: EventRecorder, *, asynchronous: bool
) -> None:
    """C4: the next callbacks see the event and its object as committed, and query; the caller changes and commits.

    What the breaker left uncommitted is nowhere, and the session is in no transaction when ``commit()`` returns.
    """
    await front.add(Order(id=1))
    await front.commit()
    outcomes: dict[str, dict[str, object]] = {}
    expected: dict[str, dict[str, object]] = {}
    for number, breaker in enumerate(BREAKERS):
        first, second = 10 + 2 * number, 11 + 2 * number
        with listener_scope(), warnings.catch_warnings(action="ignore", category=UncommittedChangesWarning):
            outcomes[breaker.__name__] = await outcome(front, recorder, breaker, first, second, asynchronous)
        expected[breaker.__name__] = {
            "seen": [(each, "kept", 0, ["kept"]) for each in (first, first, second, second)],
            "told": [created(Order, first), created(Order, second)],
            "in transaction": False,
            "detached": breaker in DETACHING,
            "told later": [updated(Order, first, status=("kept", "changed"))],
            "rows": [(first, "changed"), (second, "kept")],
        }
    assert outcomes == expected


async def outcome(  # noqa: PLR0917 - one call, with one row of the table
    front: FrontEnd,
    recorder: EventRecorder,
    breaker: Breaker,
    first: int,
    second: int,
    asynchronous: bool,  # noqa: FBT001
) -> dict[str, object]:
    """Commit two orders whose listeners are the breaker and two that look, then use the session further."""
    seen: list[tuple[object, ...]] = []
    status_of = select(Order.status)

    def break_session(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        run_directly(breaker, SessionAdapter(front.sync_session), order)

    async def break_session_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await breaker(front, order)

    def look(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        loaded = vars(order).copy()
        statuses = front.sync_session.scalars(status_of.filter_by(id=order.id)).all()
        seen.append((loaded.get("id"), loaded.get("status"), loaded.get("quantity"), statuses))

    async def look_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        loaded = vars(order).copy()
        statuses = (await front.scalars(status_of.filter_by(id=loaded.get("id")))).all()
        seen.append((loaded.get("id"), loaded.get("status"), loaded.get("quantity"), statuses))

    for listener in (break_session_later if asynchronous else break_session, look, look_later):
        listens_for(Order, ModelEvent.CREATE)(listener)
    recorder.listen(Order)
    order = Order(id=first, status="kept")
    await front.add_all([order, Order(id=second, status="kept")])
    await front.commit()
    found: dict[str, object] = {"seen": seen, "told": recorder.take(), "in transaction": front.in_transaction()}
    found["detached"] = inspect(order).detached
    (await front.get_one(Order, first)).status = "changed"
    await front.commit()
    found["told later"] = recorder.take()
    found["rows"] = await front.committed_rows(ORDERS.where(Order.id.in_([first, second, 99])))
    return found
