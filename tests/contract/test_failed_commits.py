"""Rule T4: a COMMIT that fails, or that the server answers with ROLLBACK, delivers nothing; a retry delivers once."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, ForeignKey, create_engine, event, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fastapi_toolsets.db import enable_sqlite_savepoints
from fastapi_toolsets.errors import RolledBackCommitWarning
from fastapi_toolsets.models import Phase

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, SessionAdapter, entered, resolve, scenario
from ..versions import SQLALCHEMY
from .event_models import created, listening_to, updated
from .transaction_models import ORDERS, Base, ExpectedError, Order

BAD = text("SELECT no_such_column FROM orders")


class DeferredBase(DeclarativeBase):
    type_annotation_map = TYPES


class Shelf(DeferredBase):
    __tablename__ = "shelves"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Book(DeferredBase):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shelf_id: Mapped[int] = mapped_column(ForeignKey("shelves.id", deferrable=True, initially="DEFERRED"))


async def fails_silently(session: SessionAdapter) -> None:
    """Let a statement fail and swallow the error, as code that only tries something does."""
    with pytest.raises(DBAPIError):
        await session.execute(BAD)


@asynccontextmanager
async def every_driver(front: FrontEnd) -> AsyncGenerator[list[SessionAdapter]]:
    """Open a session for each driver of the database that the front-end has."""
    sessions = [front]
    if not (front.is_async and front.database.name == "postgresql"):
        yield [*sessions]
        return
    engine = create_async_engine(front.database.url.set(drivername="postgresql+psycopg"))
    try:
        yield [*sessions, front.new_session(bind=engine)]
    finally:
        await front.close_all()
        await engine.dispose()


@scenario(DeferredBase.metadata, databases=["sqlite", "postgresql"])
async def test_deferred_constraint(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: the database's own exception is raised, nothing is delivered, and the repaired retry is told once."""
    recorder.listen(Shelf)
    recorder.listen(Book)
    async with every_driver(front) as sessions:
        for number, session in enumerate(sessions):
            book = Book(id=number, shelf_id=number)
            await session.add(book)
            with pytest.raises(IntegrityError):
                await session.commit()
            assert recorder.take() == []
            await session.rollback()
            assert recorder.take() == []
            await session.add(Shelf(id=number))
            await session.add(book)
            await session.commit()
            assert sorted(recorder.take()) == [created(Book, number), created(Shelf, number)]
    assert await front.committed_rows(select(Book.id)) == [(number,) for number in range(len(sessions))]


@scenario(DeferredBase.metadata, databases=["sqlite", "postgresql"])
async def test_begin_block_whose_commit_fails(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: also by the doors that commit implicitly; the next block on the same session tells its own events only."""
    recorder.listen(Shelf)
    recorder.listen(Book)
    block = front.begin()
    await block.__aenter__()
    await front.add(Book(id=1, shelf_id=404))
    with pytest.raises(IntegrityError):
        await block.__aexit__(None, None, None)
    transaction = await front.begin()
    await front.add(Book(id=2, shelf_id=404))
    with pytest.raises(IntegrityError):
        await transaction.commit()
    await transaction.rollback()
    async with front.begin():
        await front.add(Shelf(id=1))
    assert recorder.take() == [created(Shelf, 1)]


@scenario(DeferredBase.metadata, databases=["postgresql"])
async def test_exception_is_that_of_a_plain_session(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: the caller cannot tell from the exception that events are tracked."""
    recorder.listen(Shelf)
    raised: list[tuple[type[BaseException], str]] = []
    recorder.listen(Book)
    with warnings.catch_warnings(action="ignore"):
        for session in (front, front.plain_session()):
            await session.add(Book(id=1, shelf_id=404))
            with pytest.raises(DBAPIError) as error:
                await session.commit()
            raised.append((type(error.value), str(error.value)))
            await session.rollback()
    assert raised[0] == raised[1]


@scenario(Base.metadata, databases=["sqlite"], engine_options={"connect_args": {"timeout": 0}})
async def test_locked_sqlite_file(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: a reader keeps COMMIT from its lock; once the reader is gone the retry is told once."""
    await front.add(Order(id=1, status="a"))
    await front.commit()
    recorder.listen(Order)
    order = await front.get_one(Order, 1)
    await front.rollback()
    async with entered(front.engine.connect()) as reader:
        await resolve(reader.execute(ORDERS))
        order.status = "b"
        await front.add(Order(id=2))
        with pytest.raises(OperationalError, match="database is locked"):
            await front.commit()
        assert recorder.take() == []
        await front.rollback()
    assert recorder.take() == []
    order.status = "c"
    await front.add(Order(id=2))
    await front.commit()
    assert recorder.take() == [created(Order, 2), updated(Order, 1, status=("a", "c"))]


@scenario(Base.metadata)
async def test_engine_listener_that_refuses_the_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: whoever makes COMMIT fail, nothing is delivered until one succeeds."""
    recorder.listen(Order)

    def refuse(connection: Connection) -> None:
        raise ExpectedError

    await front.add(Order(id=1))
    event.listen(front.sync_engine, "commit", refuse)
    with pytest.raises(ExpectedError):
        await front.commit()
    event.remove(front.sync_engine, "commit", refuse)
    await front.rollback()
    assert recorder.take() == []
    await front.add(Order(id=2))
    await front.commit()
    assert recorder.take() == [created(Order, 2)]


@scenario(Base.metadata, databases=["sqlite"])
async def test_session_listener_that_refuses_the_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: raising in ``before_commit`` aborts the commit; the work may be committed by a second attempt."""
    recorder.listen(Order)

    def refuse(session: Session) -> None:
        raise ExpectedError

    await front.add(Order(id=1))
    event.listen(front.sync_session, "before_commit", refuse, once=True)
    with pytest.raises(ExpectedError):
        await front.commit()
    assert recorder.take() == []
    await front.rollback()
    await front.add(Order(id=2))
    await front.commit()
    assert recorder.take() == [created(Order, 2)]


async def commit_order(front: FrontEnd, end: str) -> None:
    """Commit one, and end the transaction in some way if that fails."""
    if end == "block":
        async with front.begin():
            await front.add(Order(id=1))
            await front.flush()
        return
    try:
        await front.add(Order(id=1))
        await front.flush()
        await front.commit()
    finally:
        await getattr(front, end)()


def refuse(_session: Session) -> None:
    raise ExpectedError


def flush_what_fails(session: Session) -> None:
    session.add(Order(id=2, quantity=text("no_such_column")))
    session.flush()


@pytest.mark.parametrize("insert", [False, True], ids=["behind", "before"])
@pytest.mark.parametrize("refusal", [refuse, flush_what_fails])
@pytest.mark.parametrize("end", ["rollback", "close", "block"])
@scenario(Base.metadata)
async def test_refusal_before_the_commit_is_no_failed_commit(
    front: FrontEnd,
    recorder: EventRecorder,
    caplog: pytest.LogCaptureFixture,
    end: str,
    refusal: Callable[[Session], None],
    *,
    insert: bool,
) -> None:
    """T2, P2: nothing was sent, so that nobody is sent to look; where it was sent and failed, the log says so."""
    recorder.listen(Order)
    with (
        listening_to(front.sync_session, "before_commit", refusal, insert=insert),
        pytest.raises((ExpectedError, DBAPIError)),
    ):
        await commit_order(front, end)
    assert (caplog.messages, recorder.take()) == ([], [])

    def refuse_on_connection(_connection: Connection) -> None:
        raise ExpectedError

    with listening_to(front.sync_engine, "commit", refuse_on_connection), pytest.raises(ExpectedError):
        await commit_order(front, end)
    assert [message.partition(",")[0] for message in caplog.messages] == ["COMMIT did not succeed"]
    assert recorder.take() == []


@scenario(Base.metadata, databases=["postgresql"])
async def test_commit_answered_with_rollback(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: after a swallowed statement error PostgreSQL rolls back at COMMIT and reports success: nothing is delivered.

    A warning says so, and the session's next transaction is told as ever.
    """
    recorder.listen(Order)
    async with every_driver(front) as sessions:
        for session in sessions:
            await session.add(Order(id=1))
            await session.flush()
            await fails_silently(session)
            with pytest.warns(RolledBackCommitWarning):
                await session.commit()
            assert recorder.take() == []
            assert await front.committed_rows(ORDERS) == []
            await session.add(Order(id=2))
            await session.commit()
            assert recorder.take() == [created(Order, 2)]
            await session.delete(await session.get_one(Order, 2))
            await session.commit()
            recorder.take()


@scenario(Base.metadata, databases=["postgresql"])
async def test_commit_answered_with_rollback_by_other_doors(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: in a ``begin()`` block, below a released savepoint, with an error that the connection raised."""
    recorder.listen(Order)

    async def block() -> None:
        async with front.begin():
            await front.add(Order(id=1))
            await front.flush()
            await fails_silently(front)

    async def block_with_savepoint() -> None:
        async with front.begin():
            async with front.begin_nested():
                await front.add(Order(id=2))
            connection = await front.connection()
            with pytest.raises(DBAPIError):
                await resolve(connection.execute(BAD))

    for transaction in (block, block_with_savepoint):
        with pytest.warns(RolledBackCommitWarning):
            await transaction()
    assert recorder.take() == []
    assert await front.committed_rows(ORDERS) == []


@scenario(Base.metadata)
async def test_error_inside_a_rolled_back_savepoint_does_no_harm(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: the transaction is whole again, COMMIT commits, and its events are delivered."""
    recorder.listen(Order)
    async with every_driver(front) as sessions:
        for number, session in enumerate(sessions):
            await session.add(Order(id=number))
            savepoint = await session.begin_nested()
            await fails_silently(session)
            await savepoint.rollback()
            await session.commit()
            assert recorder.take() == [created(Order, number)]


@scenario(Base.metadata, databases=["sqlite", "mariadb"])
async def test_swallowed_error_elsewhere_does_no_harm(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: SQLite and MariaDB undo the failed statement only, so the COMMIT commits and is told."""
    recorder.listen(Order)
    await front.add(Order(id=1))
    await front.flush()
    await fails_silently(front)
    await front.commit()
    assert recorder.take() == [created(Order, 1)]
    assert await front.committed_rows(ORDERS) == [(1, "new")]


@pytest.mark.skipif(SQLALCHEMY < (2, 0, 38), reason="aiosqlite's errors came through wrong before")
@scenario(Base.metadata, databases=["sqlite"])
async def test_full_disk(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: SQLite may roll back by itself what fails on a full disk; what is told is what the table holds then."""
    recorder.listen(Order)
    await front.add(Order(id=1))
    await front.commit()
    async with entered(front.engine.connect()) as connection:
        (pages,) = (await resolve(connection.execute(text("PRAGMA page_count")))).one()
    await front.execute(text(f"PRAGMA max_page_count = {pages + 2}"))
    await front.add(Order(id=2))
    await front.flush()
    with pytest.raises(OperationalError, match="full"):
        await front.execute(text("INSERT INTO orders VALUES (3, hex(zeroblob(1000000)), 0)"))
    with warnings.catch_warnings(action="ignore", category=RolledBackCommitWarning):
        await front.commit()
    held = [created(Order, identity) for (identity,) in await front.committed_rows(select(Order.id))]
    assert recorder.take() == held
    with pytest.raises(OperationalError, match="full"):
        await commit_too_much(front)
    await front.rollback()
    await front.add(Order(id=4))
    await front.commit()
    assert recorder.take() == [created(Order, 4)]


async def commit_too_much(front: FrontEnd) -> None:
    await front.add(Order(id=3, status="x" * 1_000_000))
    await front.commit()


@scenario(Base.metadata, databases=["postgresql", "mariadb"])
async def test_connection_killed_before_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: the server ends the connection; the error is raised, and a retry on a new one is told once."""
    recorder.listen(Order)
    identifier = "pg_backend_pid()" if front.database.name == "postgresql" else "CONNECTION_ID()"
    kill = "SELECT pg_terminate_backend({})" if front.database.name == "postgresql" else "KILL {}"
    await front.add(Order(id=1))
    await front.flush()
    number = await front.scalar(text(f"SELECT {identifier}"))
    other = front.plain_session()
    await other.execute(text(kill.format(number)))
    with pytest.raises(DBAPIError):
        await front.commit()
    await front.rollback()
    assert recorder.take() == []
    await front.add(Order(id=1))
    await front.commit()
    assert recorder.take() == [created(Order, 1)]


@scenario(Base.metadata, databases=["mariadb"], front_ends=["async"])
async def test_commit_after_a_deadlock(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: MariaDB rolls the victim's whole transaction back; its COMMIT is told as nothing, the winner's as it is."""
    await front.add_all([Order(id=1, status="a"), Order(id=2, status="a")])
    await front.commit()
    recorder.listen(Order)
    first, second = front.new_session(), front.new_session()
    (await first.get_one(Order, 1)).status = "first"
    await first.flush()
    (await second.get_one(Order, 2)).status = "second"
    await second.flush()

    async def touch(session: SessionAdapter, identity: int) -> bool:
        try:
            await session.execute(text(f"UPDATE orders SET quantity = 1 WHERE id = {identity}"))
        except OperationalError:
            with pytest.warns(RolledBackCommitWarning):
                await session.commit()
            return False
        return True

    won = await asyncio.gather(touch(first, 2), touch(second, 1))
    assert sorted(won) == [False, True]
    assert recorder.take() == []
    winner, identity, status = (first, 1, "first") if won[0] else (second, 2, "second")
    await winner.commit()
    assert recorder.take() == [updated(Order, identity, status=("a", status))]


@pytest.mark.skipif(SQLALCHEMY < (2, 0, 58), reason="a PREPARE that fails breaks older sessions")
@scenario(Base.metadata, databases=["postgresql"], twophase=True)
async def test_prepare_that_fails(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4: where the first phase fails (here because the server allows none) nothing is delivered."""
    allowed = await front.committed_rows(text("SELECT current_setting('max_prepared_transactions')::int"))
    recorder.listen(Order)
    await front.add(Order(id=1))
    if allowed == [(0,)]:
        with pytest.raises(DBAPIError):
            await front.commit()
        await front.rollback()
        assert recorder.take() == []
    else:
        await front.commit()
        assert recorder.take() == [created(Order, 1)]


@scenario(Base.metadata)
async def test_last_flush_that_finds_nothing_to_write(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4, E4: what a commit has to tell is looked at before COMMIT, although somebody empties its last flush."""
    recorder.listen(Order)
    session: Session = front.session.sync_session if front.is_async else front.session

    def drop_drafts(session: Session, *_arguments: object) -> None:
        for draft in session.new:
            session.expunge(draft)

    order = Order(id=1)
    await front.add(order)
    await front.commit()
    order.quantity = Order.quantity + 1
    await front.flush()
    event.listen(session, "before_flush", drop_drafts)
    await front.add(Order(id=2))
    await front.commit()
    assert recorder.take() == [created(Order, 1), updated(Order, 1, quantity=(0, 1))]
    if front.database.name != "postgresql":
        return
    order.quantity = 5
    await front.flush()
    await fails_silently(front)
    await front.add(Order(id=3))
    with pytest.warns(RolledBackCommitWarning):
        await front.commit()
    assert recorder.take() == []


def enforce_foreign_keys(connection: DBAPIConnection, _record: object) -> None:
    connection.cursor().execute("PRAGMA foreign_keys = ON")


@scenario(Base.metadata, databases=("sqlite",), front_ends=("sync",))
async def test_one_of_two_databases_refuses(front: FrontEnd, recorder: EventRecorder, tmp_path: Path) -> None:
    """T4, P2: nobody is told of either, nor of a rollback of what the other has committed by then."""
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    enable_sqlite_savepoints(other)
    DeferredBase.metadata.create_all(other)
    event.listen(other, "connect", enforce_foreign_keys)
    other.dispose()
    regretted = EventRecorder()
    recorder.listen(Order)
    regretted.listen(Order, phase=Phase.AFTER_ROLLBACK)
    committed: list[int] = []
    seen: list[tuple[bool, bool]] = []
    for identity in range(1, 100):  # SQLAlchemy takes from a set which of them is first
        session = front.new_session(bind=None, binds={Base: front.engine, DeferredBase: other})
        await session.add_all([Order(id=identity), Book(id=identity, shelf_id=404)])
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.close()
        if (identity, "new") in await front.committed_rows(ORDERS):
            committed.append(identity)
        seen.append((identity in committed, bool(regretted.take())))
        if len(set(seen)) > 1:
            break
    other.dispose()
    assert set(seen) == {(True, False), (False, True)}
    assert recorder.take() == []
