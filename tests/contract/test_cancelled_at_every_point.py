"""Rules C5 and T2: cancelled at every await of a commit, or of any other end, in turn: nothing lost, no phantom."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import URL, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import NullPool

from fastapi_toolsets.db import enable_sqlite_savepoints
from fastapi_toolsets.models import Changes, EventSession, ModelEvent, Phase, listens_for

from ..databases import DATABASES, Database, TestRunDatabases, tables
from ..interrupts import CancelledAt, threads_of_drivers_ended
from .transaction_models import Base, ExpectedError, Order

Attempts = TypeVar("Attempts")
Steps = Callable[[async_sessionmaker[EventSession], Order, Callable[[], None]], Coroutine[Any, Any, None]]

# Cancelled while a connection goes back, the driver leaves SQLite's own connection to the garbage collector (so it does
# with a plain session), and Python 3.13 says so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ENOUGH = 60.0  # seconds; a grace that no test uses up


def run(attempts: Coroutine[Any, Any, Attempts]) -> Attempts:
    """Run them in a loop of their own, which ends after what the last cancellation has left to a driver's thread."""

    async def main() -> Attempts:
        async with threads_of_drivers_ended():
            return await attempts

    return asyncio.run(main())


@dataclass
class Attempt:
    """What came of one commit."""

    identity: int
    called: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    async def run(self, factory: async_sessionmaker[EventSession], steps: Steps, *, late: bool) -> bool:
        """Return whether the steps came to their end before the point at which they are cancelled."""

        def note_commit() -> None:
            self.called.append("note_commit")

        async def drive() -> None:
            await CancelledAt(steps(factory, Order(id=self.identity), note_commit), self.identity, late=late)

        before = asyncio.all_tasks()
        task = asyncio.create_task(drive())
        await asyncio.wait({task})
        if left := asyncio.all_tasks() - before:
            await asyncio.wait(left)
        if not task.cancelled():
            task.result()
        return not task.cancelled()

    def problems(self, *, committed: bool) -> list[str]:
        found: list[str] = []
        for name in ("asynchronous", "synchronous", "uses_the_session", "note_commit"):
            calls = self.called.count(name)
            reported = any(f".{name}" in message for message in self.messages)
            if calls > 1:
                found.append(f"{name} called {calls} times")
            if calls and not committed:
                found.append(f"{name} called without a commit")
            if committed and not calls and not reported:
                found.append(f"{name} lost")
        return found


# What is cancelled; the session is an EventSession, given what on_commit is to call.


async def commit(factory: async_sessionmaker[EventSession], order: Order, note: Callable[[], None]) -> None:
    session = factory()
    session.add(order)
    session.on_commit(note)
    try:
        await session.commit()
    finally:
        await asyncio.shield(session.close())


async def begin_block(factory: async_sessionmaker[EventSession], order: Order, note: Callable[[], None]) -> None:
    async with factory.begin() as session:
        session.on_commit(note)
        session.add(order)


async def commit_in_block(factory: async_sessionmaker[EventSession], order: Order, note: Callable[[], None]) -> None:
    async with factory() as session, session.begin():
        session.on_commit(note)
        session.add(order)
        async with session.begin_nested():
            order.quantity = 1
        await session.commit()


@pytest.mark.parametrize("driver", ["sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg", "mysql+asyncmy"])
@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("steps", [commit, begin_block, commit_in_block], ids=lambda steps: steps.__name__)
def test_cancelled_at_every_point(
    test_run_databases: TestRunDatabases,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    steps: Steps,
    late: bool,
    driver: str,
) -> None:
    """C5: what is in the database was told, or named in the log; what is not was not told; nothing was told twice."""
    name = next(name for name in DATABASES if driver.startswith("mysql" if name == "mariadb" else name))
    database = test_run_databases.provide(name, tmp_path)
    with tables(database, Base.metadata):
        attempts = run(cancel_at_every_point(database, driver, steps, caplog, late=late))
        engine = database.create_engine()
        with engine.connect() as connection:
            rows = set(connection.scalars(select(Order.id)))
        engine.dispose()
    gc.collect()  # here, where the warning is expected
    problems = {attempt.identity: attempt.problems(committed=attempt.identity in rows) for attempt in attempts}
    assert {point: found for point, found in problems.items() if found} == {}
    assert attempts[-1].identity in rows
    told = {attempt.identity for attempt in attempts if attempt.called}
    if steps is commit:  # the others go on in a task of SQLAlchemy's own
        assert 1 not in rows
        assert len(told) > 1  # some were cancelled while their callbacks ran


async def cancel_at_every_point(
    database: Database, driver: str, steps: Steps, caplog: pytest.LogCaptureFixture, *, late: bool
) -> list[Attempt]:
    """Run the steps again and again, cancelled at one point later each time, until they come to their end."""
    # Without a pool each attempt waits as often as the last: none finds a connection that another has left behind.
    engine = create_async_engine(database.url.set(drivername=driver), poolclass=NullPool)
    enable_sqlite_savepoints(engine)
    async with engine.connect() as connection:  # the first one asks the server what it is
        await connection.execute(select(Order.id))
    factory = async_sessionmaker(engine, class_=EventSession, expire_on_commit=False, callback_grace=ENOUGH)
    attempts: list[Attempt] = []
    listen(attempts)
    done = False
    while not done:
        attempt = Attempt(len(attempts) + 1)
        attempts.append(attempt)
        caplog.clear()
        done = await attempt.run(factory, steps, late=late)
        attempt.messages = caplog.messages.copy()
    await engine.dispose()
    return attempts


def listen(attempts: list[Attempt]) -> None:
    """Register callbacks of each kind, which write into the last attempt."""

    @listens_for(Order)
    async def asynchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await asyncio.sleep(0)
        attempts[-1].called.append("asynchronous")

    @listens_for(Order)
    def synchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        attempts[-1].called.append("synchronous")

    @listens_for(Order)
    async def uses_the_session(
        order: Order, event_type: ModelEvent, changes: Changes | None, *, session: EventSession
    ) -> None:
        await session.scalars(select(Order.id))
        attempts[-1].called.append("uses_the_session")


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("door", ["commit", "transaction"])
@pytest.mark.parametrize("grace", [ENOUGH, 0.0])
def test_cancellation_goes_on_at_every_point(
    test_run_databases: TestRunDatabases,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    grace: float,
    door: str,
    late: bool,
) -> None:
    """C5 with C4: a session that raises what callbacks raise raises the cancellation instead, and logs the callback.

    Without a grace that is over at once, wherever in the commit the cancellation came.
    """
    database = test_run_databases.provide("sqlite", tmp_path)
    attempts: list[CancelledAt] = []

    @listens_for(Order)
    async def fails(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await asyncio.sleep(0)
        if attempts[-1].cancelled and not grace:
            await asyncio.Event().wait()  # for ever
        raise ExpectedError

    with tables(database, Base.metadata):
        outcomes = run(outcomes_at_every_point(database, door, attempts, caplog, grace=grace, late=late))
        engine = database.create_engine()
        with engine.connect() as connection:
            rows = set(connection.scalars(select(Order.id)))
        engine.dispose()
    gc.collect()  # here, where the warning is expected
    wrong = {
        identity: (kind, logged)
        for identity, (kind, logged) in enumerate(outcomes[:-1], start=1)
        if kind is not asyncio.CancelledError or logged is not (identity in rows)
    }
    assert (wrong, outcomes[-1]) == ({}, (ExceptionGroup, False))
    assert rows - {len(outcomes)}  # some were cancelled after their COMMIT


async def outcomes_at_every_point(
    database: Database,
    door: str,
    attempts: list[CancelledAt],
    caplog: pytest.LogCaptureFixture,
    *,
    grace: float,
    late: bool,
) -> list[tuple[type[BaseException], bool]]:
    """Commit again and again, cancelled one point later each time; return what was raised, and if a log names it."""
    engine = create_async_engine(database.url.set(drivername="sqlite+aiosqlite"), poolclass=NullPool)
    factory = async_sessionmaker(engine, class_=EventSession, on_callback_error="raise", callback_grace=grace)

    async def attempt(committing: CancelledAt) -> None:
        await committing

    outcomes: list[tuple[type[BaseException], bool]] = []
    while not attempts or attempts[-1].cancelled:
        caplog.clear()
        session = factory()
        identity = len(attempts) + 1
        session.add(Order(id=identity))
        commit = session.commit() if door == "commit" else session.run_sync(lambda sync: transaction_of(sync).commit())
        attempts.append(CancelledAt(commit, identity, late=late))
        (outcome,) = await asyncio.gather(asyncio.create_task(attempt(attempts[-1])), return_exceptions=True)
        assert isinstance(outcome, BaseException)
        outcomes.append((type(outcome), any(".fails" in message for message in caplog.messages)))
        await session.close()
    await engine.dispose()
    return outcomes


# Each ends a transaction without a COMMIT, and gives its connection back.


async def roll_back(session: EventSession) -> None:
    await session.rollback()


async def close(session: EventSession) -> None:
    await session.close()


async def reset(session: EventSession) -> None:
    await session.reset()


async def invalidate(session: EventSession) -> None:
    await session.invalidate()


async def leave_block(session: EventSession) -> None:
    """As a ``begin()`` block is left with an error, in this very task."""
    await session.run_sync(lambda sync: transaction_of(sync).__exit__(ExpectedError, ExpectedError(), None))


async def close_transaction(session: EventSession) -> None:
    """The one that the library cannot follow at once: by the transaction's own method."""
    await session.run_sync(lambda sync: transaction_of(sync).close())


def transaction_of(session: Session) -> SessionTransaction:
    transaction = session.get_transaction()
    assert transaction is not None
    return transaction


@pytest.mark.parametrize("driver", ["sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg", "mysql+asyncmy"])
@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize(
    "end", [roll_back, close, reset, invalidate, leave_block, close_transaction], ids=lambda end: end.__name__
)
def test_session_used_again_after_an_end_cancelled_at_every_point(
    test_run_databases: TestRunDatabases,
    tmp_path: Path,
    *,
    end: Callable[[EventSession], Coroutine[Any, Any, None]],
    late: bool,
    driver: str,
) -> None:
    """T2, T9 and P2: what was not committed is not told with a later commit, and its rollback is told once."""
    name = next(name for name in DATABASES if driver.startswith("mysql" if name == "mariadb" else name))
    database = test_run_databases.provide(name, tmp_path)
    told: list[tuple[str, int]] = []

    @listens_for(Order)
    def committed(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        told.append(("committed", order.id))

    @listens_for(Order, phase=Phase.AFTER_ROLLBACK)
    def rolled_back(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        told.append(("rolled back", order.id))

    with tables(database, Base.metadata):
        attempts = run(end_at_every_point(database.url.set(drivername=driver), end, told, late=late))
    gc.collect()  # here, where the warning is expected
    last = len(attempts)
    expected = [[("rolled back", -point), ("committed", point)] for point in range(1, last + 1)]
    if end is close_transaction:
        expected = [expected[-1] if point == last else [("committed", point)] for point in range(1, last + 1)]
    assert attempts == expected
    assert last > 1 or (end is invalidate and driver.endswith("psycopg"))  # which waits for nothing then


async def end_at_every_point(
    url: URL,
    end: Callable[[EventSession], Coroutine[Any, Any, None]],
    told: list[tuple[str, int]],
    *,
    late: bool,
) -> list[list[tuple[str, int]]]:
    """End a transaction again and again, cancelled one point later each time, and commit another one after it."""
    engine = create_async_engine(url, poolclass=NullPool)
    factory = async_sessionmaker(engine, class_=EventSession)

    async def attempt(ending: CancelledAt) -> None:
        await ending

    attempts: list[list[tuple[str, int]]] = []
    cancelled = True
    while cancelled:
        point = len(attempts) + 1
        session = factory()
        session.add(Order(id=-point))
        await session.flush()
        ending = CancelledAt(end(session), point, late=late)
        await asyncio.wait({asyncio.create_task(attempt(ending))})
        cancelled = ending.cancelled
        session.add(Order(id=point))
        await session.commit()
        await session.close()
        attempts.append(told.copy())
        told.clear()
    await engine.dispose()
    return attempts


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("end", [roll_back, close, leave_block], ids=lambda end: end.__name__)
def test_rollback_callbacks_have_a_grace(
    test_run_databases: TestRunDatabases,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    end: Callable[[EventSession], Coroutine[Any, Any, None]],
    late: bool,
) -> None:
    """C5, P2: one that waits when its committer was cancelled is not waited for longer than the grace, and is named."""
    attempts: list[CancelledAt] = []

    @listens_for(Order, phase=Phase.AFTER_ROLLBACK)
    async def compensate(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await asyncio.sleep(0)
        if attempts[-1].cancelled:
            await asyncio.Event().wait()  # for ever

    async def attempt(ending: CancelledAt) -> None:
        await ending

    async def cancel_each(url: URL) -> list[tuple[bool, bool]]:
        engine = create_async_engine(url, poolclass=NullPool)
        factory = async_sessionmaker(engine, class_=EventSession, callback_grace=0.0)
        outcomes: list[tuple[bool, bool]] = []
        while not attempts or attempts[-1].cancelled:
            caplog.clear()
            session = factory()
            session.add(Order(id=1))
            await session.flush()
            attempts.append(CancelledAt(end(session), len(attempts) + 1, late=late))
            await asyncio.wait({asyncio.create_task(attempt(attempts[-1]))})
            await session.close()
            outcomes.append((attempts[-1].cancelled, any(".compensate" in message for message in caplog.messages)))
        await engine.dispose()
        return outcomes

    database = test_run_databases.provide("sqlite", tmp_path)
    with tables(database, Base.metadata):
        outcomes = run(cancel_each(database.url.set(drivername="sqlite+aiosqlite")))
    gc.collect()  # here, where the warning is expected
    assert outcomes == [*[(True, True)] * (len(outcomes) - 1), (False, False)]
    assert len(outcomes) > 2
