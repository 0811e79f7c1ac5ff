"""What the log says, word by word, where callbacks could not run to their end or the session could not be tidied."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import warnings
from collections.abc import Coroutine
from typing import Any

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.util import await_only

from fastapi_toolsets.errors import UncommittedChangesWarning
from fastapi_toolsets.models import CallbackFailure, Changes, ModelEvent, SyncEventSession, listener_scope, listens_for

from ..contract.event_models import LOCAL, created
from ..contract.transaction_models import ORDERS, Base, ExpectedError, Order
from ..databases import Database, tables
from ..front_ends import EventRecorder, FrontEnd, SessionAdapter, scenario

SHORT = 0.05  # seconds; a grace that a test uses up

GRACE_OVER = "the grace after a cancellation was over (callback_grace on the session factory sets it)"


def named(test: str, *callbacks: str) -> list[str]:
    """How the log names callbacks defined in a test."""
    return [f"callback {__name__}.{test}.<locals>.{name} for create of Order" for name in callbacks]


async def cancelled_commit(session: SessionAdapter, waiting: anyio.Event) -> None:
    """Commit an order in a task that is cancelled once a callback waits."""

    async def commit() -> None:
        await session.add(Order(id=1))
        await session.commit()

    task = asyncio.create_task(commit())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("grace", [0.0, SHORT])
@scenario(Base.metadata, databases=LOCAL, front_ends=["async"])
async def test_a_sync_callback_is_cut_short(front: FrontEnd, caplog: pytest.LogCaptureFixture, *, grace: float) -> None:
    """C5: it is named, and so are those that follow, of either kind: they share one grace."""
    waiting = anyio.Event()

    @listens_for(Order)
    def waits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        waiting.set()
        await_only(asyncio.Event().wait())

    @listens_for(Order)
    async def asynchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    @listens_for(Order)
    def synchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    await cancelled_commit(front.new_session(callback_grace=grace), waiting)
    names = named("test_a_sync_callback_is_cut_short", "waits", "asynchronous", "synchronous")
    assert caplog.messages == [
        f"{names[0]} was cut short: {GRACE_OVER}",
        f"Committed, but {GRACE_OVER}: interrupted nobody; not called: {names[1]}, {names[2]}",
    ]


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=SHORT)
async def test_a_sync_callback_uses_the_grace_up(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C5: one that waits within the grace that another's cancellation began ends with it, and the rest is named."""
    waiting = anyio.Event()

    @listens_for(Order)
    async def first(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        waiting.set()
        await asyncio.sleep(0)

    @listens_for(Order)
    def waits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await_only(asyncio.Event().wait())

    @listens_for(Order)
    async def asynchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    await cancelled_commit(front, waiting)
    names = named("test_a_sync_callback_uses_the_grace_up", "waits", "asynchronous")
    assert caplog.messages == [f"Committed, but {GRACE_OVER}: interrupted {names[0]}; not called: {names[1]}"]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@scenario(Base.metadata, databases=LOCAL)
async def test_tidying_that_fails_is_logged(
    front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture, *, asynchronous: bool
) -> None:
    """C4, C6: with warnings made errors, the one about what a callback left behind stays in the log."""

    async def forgetful(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        order.status = "changed"
        await front.execute(ORDERS)

    def forgets(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        order.status = "changed"
        front.sync_session.execute(ORDERS)

    listens_for(Order, ModelEvent.CREATE)(forgetful if asynchronous else forgets)
    recorder.listen(Order)
    await front.add(Order(id=1))
    with warnings.catch_warnings(action="error", category=UncommittedChangesWarning):
        await front.commit()
    (name,) = named("test_tidying_that_fails_is_logged", "forgetful" if asynchronous else "forgets")
    assert caplog.messages == [
        f"Cleaning up after {name} failed; the other callbacks run. Close the session if it does not work"
    ]
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [UncommittedChangesWarning]
    assert recorder.take() == [created(Order, 1)]
    assert await front.committed_rows(ORDERS) == [(1, "new")]


WITHOUT_TRIO = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="> %(message)s")
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from fastapi_toolsets.models import SyncEventSession, listens_for
from tests.contract.transaction_models import Base, Order

@listens_for(Order)
def before(order, event_type, changes):
    print("> before was called")

@listens_for(Order)
async def first(order, event_type, changes):
    print("> first was called")

@listens_for(Order)
async def second(order, event_type, changes):
    print("> second was called")

engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
with sessionmaker(engine, class_=SyncEventSession, callback_backend="trio").begin() as session:
    session.add(Order(id=1))
    sys.modules["trio"] = None  # how Python marks what is not there
print("> committed")
"""


def test_no_loop_can_be_reached() -> None:
    """C2, C4: where the backend asked for cannot be had, ``commit()`` returns and the log names who missed it, once."""
    process = subprocess.run([sys.executable, "-c", WITHOUT_TRIO], capture_output=True, text=True, check=True)
    names = ("callback __main__.first for create of Order", "callback __main__.second for create of Order")
    assert [line[2:] for line in process.stdout.splitlines() if line.startswith("> ")] == [
        "before was called",
        "Async callbacks could not run, since no event loop could be reached",
        f"Committed, but no event loop could be reached: interrupted nobody; not called: {names[0]}, {names[1]}",
        "committed",
    ]
    assert "LookupError" in process.stdout


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ExpectedError])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@pytest.mark.parametrize("handler", ["sync handler", "async handler"])
@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_the_function_for_errors_raises(
    front: FrontEnd,
    caplog: pytest.LogCaptureFixture,
    *,
    error: type[BaseException],
    asynchronous: bool,
    handler: str,
) -> None:
    """C4: what ends the program goes on and the rest is named; anything else is logged, and stops nothing."""
    called: list[str] = []

    def handle(failure: CallbackFailure) -> None:
        raise error

    async def handle_later(failure: CallbackFailure) -> None:
        raise error

    def fails(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise ExpectedError

    async def fails_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise ExpectedError

    listens_for(Order)(fails_later if asynchronous else fails)

    @listens_for(Order)
    def after(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        called.append("after")

    session = front.new_session(on_callback_error=handle_later if handler == "async handler" else handle)
    await session.add(Order(id=1))
    failing, following = named(
        "test_the_function_for_errors_raises", "fails_later" if asynchronous else "fails", "after"
    )
    if issubclass(error, Exception):
        await session.commit()
        expected: tuple[list[str], list[str]] = (
            ["after"],
            [f"The on_callback_error function raised for {failing}: let it catch its errors"],
        )
    else:
        with pytest.raises(error):
            await session.commit()
        expected = [], [f"Committed, but interrupted: interrupted {failing}; not called: {following}"]
    assert (called, caplog.messages) == expected
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [error if called else None]
    assert not session.in_transaction()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@scenario(Base.metadata, databases=LOCAL)
async def test_what_ends_the_program_names_the_rest(
    front: FrontEnd, caplog: pytest.LogCaptureFixture, *, error: type[BaseException], asynchronous: bool
) -> None:
    """C4: it comes out of ``commit()``, and the log says who was interrupted and who was not called, and how often."""

    def interrupted(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise error

    async def interrupted_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise error

    listens_for(Order)(interrupted_later if asynchronous else interrupted)

    @listens_for(Order)
    def after(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    await front.add_all([Order(id=1), Order(id=2)])
    with pytest.raises(error):
        await front.commit()
    test = "test_what_ends_the_program_names_the_rest"
    first, last = named(test, "interrupted_later" if asynchronous else "interrupted", "after")
    assert caplog.messages == [
        f"Committed, but interrupted: interrupted {first}; not called: {last} (x2), {first}",
    ]
    caplog.clear()
    with listener_scope(inherit=False):
        listens_for(Order)(interrupted_later if asynchronous else interrupted)
        await front.add(Order(id=3))
        with pytest.raises(error):
            await front.commit()
    assert caplog.messages == [f"Committed, but interrupted: interrupted {first}; not called: nobody"]


@scenario(Base.metadata, databases=LOCAL, expire_on_commit=True)
async def test_what_ends_the_program_after_a_change(front: FrontEnd) -> None:
    """C4, E11: an object that the callback has changed is expired as every other, and the change is gone."""

    @listens_for(Order)
    def interrupted(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        order.status = "changed"
        raise KeyboardInterrupt

    order = Order(id=1)
    await front.add(order)
    with pytest.raises(KeyboardInterrupt):
        await front.commit()
    assert (list(front.sync_session.dirty), inspect(order).expired) == ([], True)
    await front.commit()
    assert await front.committed_rows(ORDERS) == [(1, "new")]


@scenario(Base.metadata, databases=LOCAL, cascade_limit=2)
async def test_the_chain_is_counted_through_every_session(front: FrontEnd, recorder: EventRecorder) -> None:
    """C6: by the session that commits first and by others, one commit is one link: two of them are allowed here."""

    def commit(session: Session, number: int) -> None:
        session.add(Order(id=number))
        session.commit()

    @listens_for(Order)
    async def follow(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id < 3:
            await (front if order.id == 1 else front.new_session(cascade_limit=2)).run_sync(commit, order.id + 1)

    recorder.listen(Order)
    await front.add(Order(id=1))
    await front.commit()
    assert recorder.take() == [created(Order, number) for number in (1, 3, 2)]


@pytest.mark.parametrize("database", LOCAL, indirect=True)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_async_callback_of_a_worker_thread_outlives_the_host(
    database: Database, caplog: pytest.LogCaptureFixture, backend: str
) -> None:
    """C5, C2: where the task that waits for the thread is cancelled, the callback has its grace to end."""
    engine = database.create_engine()
    factory = sessionmaker(engine, class_=SyncEventSession)
    ended: list[str] = []

    def work() -> None:
        with factory() as session:
            session.add(Order(id=1))
            session.commit()

    async def application() -> None:
        waiting, released, host = anyio.Event(), anyio.Event(), anyio.CancelScope()

        @listens_for(Order)
        async def waits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            waiting.set()
            await released.wait()
            ended.append("callback")

        async def commit() -> None:
            with host:
                await anyio.to_thread.run_sync(work)
            ended.append("host")

        async with anyio.create_task_group() as group:
            group.start_soon(commit)
            await waiting.wait()
            host.cancel()
            await anyio.wait_all_tasks_blocked()
            released.set()

    with tables(database, Base.metadata):
        anyio.run(application, backend=backend)
    engine.dispose()
    assert ended == ["callback", "host"]
    assert caplog.messages == []


@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_an_awaitable_of_a_sync_callback_is_cut_short(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """C1, C5: in a worker thread whose host was cancelled, without a grace, it is named, too."""
    engine = database.create_engine()
    factory = sessionmaker(engine, class_=SyncEventSession, callback_grace=0.0)

    def work() -> None:
        with factory() as session:
            session.add(Order(id=1))
            session.commit()

    async def application() -> None:
        waiting = anyio.Event()

        async def wait() -> None:
            waiting.set()
            await anyio.sleep_forever()

        @listens_for(Order)
        def gives(order: Order, event_type: ModelEvent, changes: Changes | None) -> Coroutine[Any, Any, None]:
            return wait()

        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, work)
            await waiting.wait()
            group.cancel_scope.cancel()

    with tables(database, Base.metadata):
        anyio.run(application)
    engine.dispose()
    (name,) = named("test_an_awaitable_of_a_sync_callback_is_cut_short.<locals>.application", "gives")
    assert caplog.messages == [f"{name} was cut short: {GRACE_OVER}"]
