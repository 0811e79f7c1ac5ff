"""Rule T4 where a SQLite file is full or locked: the error is the caller's, and a retry is told once."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import cast

import pytest
from sqlalchemy import Connection, TextClause, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from fastapi_toolsets.errors import RolledBackCommitWarning

from ..front_ends import EventRecorder, FrontEnd, SessionAdapter, entered, resolve, scenario
from .models import ORDERS, Base, Order, created, library_log, updated

LOCAL = ("sqlite",)

LONG = "x" * 100_000
"""A status that needs more pages than the file has."""

# https://www.sqlite.org/lang_transaction.html#response_to_errors_within_a_transaction: with one row to write SQLite
# keeps no way back to before the statement, and undoes the whole transaction; with several it undoes the statement.
LOSES_ALL = text("INSERT INTO orders (id, status) VALUES (2, hex(zeroblob(100000)))")
LOSES_STATEMENT = text(
    "INSERT INTO orders (id, status) SELECT value, hex(zeroblob(100000)) FROM (SELECT 2 AS value UNION SELECT 3)"
)

Door = Callable[[SessionAdapter, Order], Awaitable[None]]


async def commit(session: SessionAdapter, order: Order) -> None:
    try:
        await session.add(order)
        await session.commit()
    finally:
        await session.rollback()


async def flush(session: SessionAdapter, order: Order) -> None:
    try:
        await session.add(order)
        await session.flush()
        await session.commit()
    finally:
        await session.close()


async def begin_block(session: SessionAdapter, order: Order) -> None:
    async with session.begin():
        await session.add(order)


async def savepoint(session: SessionAdapter, order: Order) -> None:
    async with session.begin():
        await session.add(Order(id=order.id + 100))
        async with session.begin_nested():
            await session.add(order)


DOORS: tuple[Door, ...] = (commit, flush, begin_block, savepoint)


@asynccontextmanager
async def full_disk(front: FrontEnd) -> AsyncGenerator[None]:
    """Let the file grow no further, as on a full disk, for every connection that the front-end takes from its pool."""
    pages = (await front.committed_rows(text("PRAGMA page_count")))[0][0]
    limit = {"pages": pages}

    def set_limit(connection: DBAPIConnection, record: object, proxy: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA max_page_count = {limit['pages']}")
        cursor.close()

    event.listen(front.sync_engine, "checkout", set_limit)
    yield
    limit["pages"] = pages + 10_000


@asynccontextmanager
async def locked_file(front: FrontEnd) -> AsyncGenerator[None]:
    """Hold the whole file, by a connection of its own."""
    async with entered(front.engine.connect()) as entered_connection:
        connection = cast("AsyncConnection | Connection", entered_connection)
        await resolve(connection.exec_driver_sql("ROLLBACK"))
        await resolve(connection.exec_driver_sql("BEGIN EXCLUSIVE"))
        yield
        await resolve(connection.rollback())


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@scenario(Base.metadata, databases=LOCAL)
async def test_full_disk(front: FrontEnd, recorder: EventRecorder, door: Door) -> None:
    """T4: the database's own error, nothing told, now or later; with room again the retry is told once."""
    recorder.listen(Order)
    recorder.listen(Order, asynchronous=True)
    order = Order(id=1, status=LONG)
    async with full_disk(front):
        with library_log() as logged, pytest.raises(OperationalError):
            await door(front, order)
        assert (recorder.take(), logged) == ([], [])
        assert await front.committed_rows(ORDERS) == []
    await door(front, Order(id=1, status=LONG))
    expected = [created(101), created(1)] if door is savepoint else [created(1)]
    assert recorder.take() == [told for told in expected for _ in range(2)]
    assert await front.committed_rows(ORDERS) == [(told[2], LONG if told[2] == 1 else "new") for told in expected[::-1]]


@scenario(Base.metadata, databases=LOCAL)
async def test_full_disk_that_took_the_transaction_along(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: SQLite undid the transaction, and COMMIT has nothing to commit: a warning, no event, and a clean retry."""
    recorder.listen(Order)
    async with full_disk(front):
        await front.add(Order(id=1))
        await front.flush()
        with pytest.raises(OperationalError, match="disk is full"):
            await front.execute(LOSES_ALL)
        with pytest.warns(RolledBackCommitWarning):
            await front.commit()
        assert recorder.take() == []
        assert await front.committed_rows(ORDERS) == []
        await front.add(Order(id=2))
        await front.commit()
    assert recorder.take() == [created(2)]
    assert await front.committed_rows(ORDERS) == [(2, "new")]


@pytest.mark.parametrize("in_savepoint", [False, True], ids=["plain", "savepoint"])
@scenario(Base.metadata, databases=LOCAL)
async def test_full_disk_that_took_a_statement_along(
    front: FrontEnd, recorder: EventRecorder, *, in_savepoint: bool
) -> None:
    """T4: the transaction is whole, COMMIT commits, and what it committed is told."""
    recorder.listen(Order)

    async def fill() -> None:
        with pytest.raises(OperationalError, match="disk is full"):
            await front.execute(LOSES_STATEMENT)

    async with full_disk(front):
        await front.add(Order(id=1))
        await front.flush()
        if in_savepoint:
            nested = await front.begin_nested()
            await fill()
            await nested.rollback()
        else:
            await fill()
        await front.commit()
    assert recorder.take() == [created(1)]
    assert await front.committed_rows(ORDERS) == [(1, "new")]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@scenario(Base.metadata, databases=LOCAL, engine_options={"connect_args": {"timeout": 0}})
async def test_locked_file(front: FrontEnd, recorder: EventRecorder, door: Door) -> None:
    """T4: somebody else holds the file: nothing is told of the attempt, and the retry is told once."""
    recorder.listen(Order)
    recorder.listen(Order, asynchronous=True)
    async with locked_file(front):
        for session in (front, front.new_session()):
            with library_log() as logged, pytest.raises(OperationalError, match="database is locked"):
                await door(session, Order(id=1))
            assert (recorder.take(), logged) == ([], [])
    await door(front, Order(id=1))
    expected = [created(101), created(1)] if door is savepoint else [created(1)]
    assert recorder.take() == [told for told in expected for _ in range(2)]
    assert await front.committed_rows(ORDERS) == [(told[2], "new") for told in expected[::-1]]


@scenario(Base.metadata, databases=LOCAL, engine_options={"connect_args": {"timeout": 0}})
async def test_swallowed_lock_error(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: a statement found the file locked, its error was swallowed: the transaction goes on, commits, and is told."""
    recorder.listen(Order)
    statement: TextClause = text("INSERT INTO orders (id, status) VALUES (2, 'never')")
    async with locked_file(front):
        with pytest.raises(OperationalError, match="database is locked"):
            await front.execute(statement)
    await front.add(Order(id=1))
    await front.commit()
    assert recorder.take() == [created(1)]
    assert await front.committed_rows(ORDERS) == [(1, "new")]


@scenario(Base.metadata, databases=LOCAL, engine_options={"connect_args": {"timeout": 0}})
async def test_row_changed_by_somebody_else_meanwhile(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4, E3: in WAL mode a write on an outdated snapshot is refused; the retry tells its own start's old value."""
    with closing(sqlite3.connect(front.database.url.database or "")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # which the file keeps
    await front.add(Order(id=1, status="a"))
    await front.commit()
    recorder.listen(Order)
    order = await front.get_one(Order, 1)
    await front.refresh(order)
    other = front.new_session()
    (await other.get_one(Order, 1)).status = "b"
    await other.commit()
    assert recorder.take() == [updated(1, "a", "b")]
    order.status = "c"
    with pytest.raises(OperationalError, match="database is locked"):
        await front.commit()
    await front.rollback()
    assert recorder.take() == []
    order.status = "c"
    await front.commit()
    assert recorder.take() == [updated(1, "b", "c")]
