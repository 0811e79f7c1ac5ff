"""Rule T4 where the connection goes at COMMIT: the error is the caller's, the log names who was not called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from fastapi_toolsets.models import Changes, ModelEvent, SyncEventSession, listener_scope, listens_for

from ..front_ends import EventRecorder, FrontEnd, RecordedEvent, SessionAdapter, scenario
from .drivers import drivers_of, front_on
from .models import ORDERS, Base, Order, created, library_log, updated
from .proxy import Cut, commit_proxy

SERVERS = ("postgresql", "mariadb")

Door = Callable[[SessionAdapter], Awaitable[None]]


def shipped() -> None:
    """Be the ad-hoc callback of a transaction."""


async def place_order(session: SessionAdapter) -> None:
    await session.add(Order(id=1, status="first"))
    if isinstance(session.sync_session, SyncEventSession):
        session.session.on_commit(shipped)


async def commit_and_roll_back(session: SessionAdapter) -> None:
    try:
        await place_order(session)
        await session.commit()
    except DBAPIError:
        await session.rollback()
        raise


async def commit_and_close(session: SessionAdapter) -> None:
    try:
        await place_order(session)
        await session.commit()
    finally:
        await session.close()


async def begin_block(session: SessionAdapter) -> None:
    async with session.begin(), session.begin_nested():
        await place_order(session)


DOORS: tuple[Door, ...] = (commit_and_roll_back, commit_and_close, begin_block)


@dataclass
class Attempt:
    """What the caller got, and what everybody else heard of it."""

    error: str | None
    told: list[RecordedEvent]
    logged: list[tuple[str, str]]


async def attempt(door: Door, session: SessionAdapter, recorder: EventRecorder) -> Attempt:
    """Commit by a door, and see what comes of it."""
    error: str | None = None
    with library_log() as logged:
        try:
            await door(session)
        except DBAPIError as raised:
            error = described(raised)
    return Attempt(error, recorder.take(), logged)


def described(error: DBAPIError) -> str:
    return f"{type(error).__name__} from {type(error.orig).__name__}: {error}"


async def error_of_a_plain_session(door: Door, front: FrontEnd) -> str:
    with pytest.raises(DBAPIError) as raised:
        await door(front.plain_session())
    return described(raised.value)


async def retry(session: SessionAdapter) -> None:
    """Do it again, as a caller must who does not know whether it was done."""
    order = await session.get(Order, 1)
    if order is None:
        await session.add(Order(id=1, status="second"))
    else:
        order.status = "second"
    await session.commit()


NAMES = (
    "callback tests.front_ends.EventRecorder.record for create of Order, "
    "callback tests.front_ends.EventRecorder.record_asynchronously for create of Order, "
    f"on_commit callback {__name__}.shipped"
)
ADVICE = "Read what the database holds before you repeat the transaction"
NOT_CALLED = ("WARNING", f"COMMIT did not succeed, or its outcome is unknown; not called: {NAMES}. {ADVICE}")


def listen(recorder: EventRecorder) -> None:
    recorder.listen(Order)
    recorder.listen(Order, asynchronous=True)


def twice(event: RecordedEvent) -> list[RecordedEvent]:
    """Say what the two callbacks of the recorder write down for one event."""
    return [event, event]


async def empty(front: FrontEnd) -> None:
    await front.execute(text("DELETE FROM orders"))
    await front.commit()


@pytest.mark.parametrize("cut", [Cut.REQUEST, Cut.ANSWER], ids=lambda cut: cut.name)
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@scenario(Base.metadata, databases=SERVERS)
async def test_connection_cut_at_commit(front: FrontEnd, recorder: EventRecorder, door: Door, cut: Cut) -> None:
    """T4: whether the server got the COMMIT or not, the client cannot know: nothing is delivered, the log says what.

    The error is the one that a plain session raises. A retry on a new session is told once.
    """
    committed = cut is Cut.ANSWER
    for driver in drivers_of(front):
        with commit_proxy(front.database.url.set(drivername=driver)) as (proxy, url), listener_scope():
            async with front_on(front, url) as proxied:
                proxy.arm(cut)
                error = await error_of_a_plain_session(door, proxied)
                await empty(front)
                listen(recorder)
                proxy.arm(cut)
                assert await attempt(door, proxied, recorder) == Attempt(error, [], [NOT_CALLED])
                assert proxy.cuts == [cut, cut]
                assert await front.committed_rows(ORDERS) == ([(1, "first")] if committed else [])
                await retry(proxied.new_session())
                assert recorder.take() == twice(updated(1, "first", "second") if committed else created(1))
                assert await front.committed_rows(ORDERS) == [(1, "second")]
        await empty(front)


@scenario(Base.metadata, databases=SERVERS)
async def test_connection_cut_after_the_answer(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: a connection that goes once the client knows of the COMMIT takes no event with it."""
    for driver in drivers_of(front):
        with commit_proxy(front.database.url.set(drivername=driver)) as (proxy, url), listener_scope():
            listen(recorder)
            for door in DOORS:
                async with front_on(front, url) as proxied:
                    proxy.arm(Cut.ANSWERED)
                    assert await attempt(door, proxied, recorder) == Attempt(None, twice(created(1)), [])
                    assert await front.committed_rows(ORDERS) == [(1, "first")]
                await empty(front)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@scenario(Base.metadata, databases=SERVERS)
async def test_same_session_after_the_cut(front: FrontEnd, recorder: EventRecorder, door: Door) -> None:
    """T4, T2: the session that lost its connection is told what it commits next, and nothing of what it lost."""
    for driver in drivers_of(front):
        with commit_proxy(front.database.url.set(drivername=driver)) as (proxy, url), listener_scope():
            listen(recorder)
            async with front_on(front, url) as proxied:
                proxy.arm(Cut.REQUEST)
                assert (await attempt(door, proxied, recorder)).told == []
                with library_log() as logged:
                    await retry(proxied)
                assert (recorder.take(), logged) == (twice(created(1)), [])
                assert await front.committed_rows(ORDERS) == [(1, "second")]
        await empty(front)


_IDENTIFIER = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT CONNECTION_ID()"}
_KILL = {"postgresql": "SELECT pg_terminate_backend({})", "mariadb": "KILL CONNECTION {}"}


async def kill_connection_of(session: SessionAdapter, front: FrontEnd) -> None:
    """Have the server end the connection that a session is using, by order of another one."""
    number = await session.scalar(text(_IDENTIFIER[front.database.name]))
    await front.execute(text(_KILL[front.database.name].format(number)))
    await front.rollback()


@scenario(Base.metadata, databases=SERVERS)
async def test_connection_killed_by_the_server(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: killed after the flush, before COMMIT: the driver's error is raised, the log names who is not called."""
    for driver in drivers_of(front):
        async with front_on(front, front.database.url.set(drivername=driver)) as other:

            async def commit_killed(session: SessionAdapter) -> None:
                try:
                    await place_order(session)
                    await session.flush()
                    await kill_connection_of(session, front)
                    await session.commit()
                finally:
                    await session.close()

            with listener_scope():
                listen(recorder)
                found = await attempt(commit_killed, other, recorder)
                # The words depend on whether the driver has heard of the end by itself before it sends COMMIT.
                assert found == Attempt(found.error, [], [NOT_CALLED])
                assert found.error is not None
                assert await front.committed_rows(ORDERS) == []
                await retry(other.new_session())
                assert recorder.take() == twice(created(1))
        await empty(front)


async def error_of_noticed_loss(session: SessionAdapter, front: FrontEnd) -> str:
    """Swallow the error of the statement that met the dead connection; give what COMMIT raises then."""
    await session.add(Order(id=1, status="first"))
    await session.flush()
    await kill_connection_of(session, front)
    with pytest.raises(DBAPIError):
        await session.execute(ORDERS)
    with pytest.raises(SQLAlchemyError) as raised:
        await session.commit()
    await session.rollback()
    return f"{type(raised.value).__name__}: {raised.value}"


@scenario(Base.metadata, databases=SERVERS)
async def test_commit_after_a_noticed_loss(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: a statement's error was swallowed; COMMIT raises what it raises on a plain session, and a retry is told."""
    for driver in drivers_of(front):
        async with front_on(front, front.database.url.set(drivername=driver)) as other:
            error = await error_of_noticed_loss(other.plain_session(), front)
            with listener_scope():
                listen(recorder)
                assert await error_of_noticed_loss(other, front) == error
                assert recorder.take() == []
                await retry(other)
                assert recorder.take() == twice(created(1))
        await empty(front)


def listen_and_lose_connections(session: SessionAdapter, front: FrontEnd, rows: list[object]) -> str:
    """Register callbacks under which their session's connection dies, each followed by one that reads.

    Return the name of the one that does not swallow the error.
    """
    identify, kill = text(_IDENTIFIER[front.database.name]), _KILL[front.database.name]

    async def lose_connection(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await kill_connection_of(session, front)
        await session.execute(ORDERS)

    def lose_connection_directly(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        number = session.sync_session.scalar(identify)
        front.sync_session.execute(text(kill.format(number)))
        front.sync_session.rollback()
        with suppress(DBAPIError):
            session.sync_session.execute(ORDERS)

    async def read(number: int, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        rows.append([tuple(row) for row in await session.execute(ORDERS)])

    listens_for(Order)(lose_connection)
    listens_for(Order)(partial(read, 1))
    listens_for(Order)(lose_connection_directly)
    listens_for(Order)(partial(read, 2))
    return f"callback {__name__}.{lose_connection.__qualname__}"


@scenario(Base.metadata, databases=SERVERS)
async def test_connection_that_dies_under_a_callback(front: FrontEnd, recorder: EventRecorder) -> None:
    """C4: the error is logged; the next callbacks and the caller use the session as if nothing had happened."""
    for driver in drivers_of(front):
        async with front_on(front, front.database.url.set(drivername=driver)) as other:
            rows: list[object] = []
            with listener_scope(), library_log() as logged:
                name = listen_and_lose_connections(other, front, rows)
                listen(recorder)
                await other.add(Order(id=1, status="first"))
                await other.commit()
                await retry(other)
            assert rows == [[(1, "first")]] * 2 + [[(1, "second")]] * 2
            assert recorder.take() == [*twice(created(1)), *twice(updated(1, "first", "second"))]
            assert [(level, message.partition(" raised")[0]) for level, message in logged] == [
                ("ERROR", f"{name} for create of Order"),
                ("ERROR", f"{name} for update of Order"),
            ]
        await empty(front)
