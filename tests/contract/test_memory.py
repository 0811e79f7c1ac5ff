"""Rule T9: every way out of a transaction lets go of what was kept for it."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, event, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.schema import CreateTable

from fastapi_toolsets.errors import JoinedTransactionWarning, PlainSessionWarning
from fastapi_toolsets.events import listener_scope
from fastapi_toolsets.events.lent_connections import FollowedConnection
from fastapi_toolsets.models import CallbackFailure, ModelEvent, Phase, SyncEventSession, listens_for

from ..front_ends import EventRecorder, FrontEnd, SessionAdapter, entered, resolve, scenario
from .event_models import created, updated
from .transaction_models import Base, ExpectedError, Order, do_not_wait_for_the_disk


async def committed(front: FrontEnd, session: SessionAdapter) -> None:
    await session.commit()


async def committed_by_block(front: FrontEnd, session: SessionAdapter) -> None:
    async with session.begin_nested():
        pass
    await session.commit()


async def rollback(front: FrontEnd, session: SessionAdapter) -> None:
    await session.rollback()


async def close(front: FrontEnd, session: SessionAdapter) -> None:
    await session.close()


async def reset(front: FrontEnd, session: SessionAdapter) -> None:
    await session.reset()


async def invalidate(front: FrontEnd, session: SessionAdapter) -> None:
    await session.invalidate()


async def refused(front: FrontEnd, session: SessionAdapter) -> None:
    def refuse(sync_session: Session) -> None:
        raise ExpectedError

    event.listen(session.sync_session, "before_commit", refuse, once=True)
    with pytest.raises(ExpectedError):
        await session.commit()
    await session.rollback()


async def callback_raises(front: FrontEnd, session: SessionAdapter) -> None:
    @listens_for(Order)
    async def fail(order: Order, event_type: ModelEvent, changes: object) -> None:
        raise ExpectedError

    await session.commit()


async def savepoint_rolled_back(front: FrontEnd, session: SessionAdapter) -> None:
    with suppress(ExpectedError):
        async with session.begin_nested():
            await session.add(Order(id=2))
            raise ExpectedError
    await session.commit()


def forget(failure: CallbackFailure) -> None:
    """Take note of nothing."""


ENDS = (
    committed,
    committed_by_block,
    rollback,
    close,
    reset,
    invalidate,
    refused,
    callback_raises,
    savepoint_rolled_back,
)


@scenario(Base.metadata, databases=["sqlite"])
async def test_every_way_out_lets_go_of_the_objects(front: FrontEnd, recorder: EventRecorder) -> None:
    """T9: whatever ended the transaction, the session holds no object that it held for its events."""
    recorder.listen(Order)
    kept: list[str] = []
    session = front.new_session(on_callback_error=forget)  # pytest keeps what is logged, tracebacks too
    for number, end in enumerate(ENDS, start=10):
        order = Order(id=number)
        await session.add(order)
        await session.flush()
        await session.expunge(order)
        reference = weakref.ref(order)
        del order
        await end(front, session)
        recorder.take()
        gc.collect()
        if reference() is not None:
            kept.append(end.__name__)
    assert kept == []


@scenario(Base.metadata, databases=["sqlite"])
async def test_flush_lets_go_of_what_it_held(front: FrontEnd, recorder: EventRecorder) -> None:
    """T9: an object that is expunged while it is flushed is held for that flush, not by the session that goes on."""
    recorder.listen(Order)
    order = Order(id=1)
    await front.add(order)
    await front.commit()
    reference = weakref.ref(order)

    def expunge(mapper: object, connection: object, written: Order) -> None:
        front.sync_session.expunge(written)

    event.listen(Order, "after_update", expunge)
    try:
        order.status = "paid"
        del order
        await front.commit()
    finally:
        event.remove(Order, "after_update", expunge)
    assert recorder.take() == [created(Order, 1), updated(Order, 1, status=("new", "paid"))]
    gc.collect()
    assert reference() is None


@scenario(Base.metadata, databases=["sqlite"])
async def test_joined_commit_lets_go_of_the_objects(front: FrontEnd, recorder: EventRecorder) -> None:
    """T9: also where nothing may be delivered."""
    recorder.listen(Order)
    async with entered(front.engine.connect()) as connection:
        await resolve(connection.begin())
        session = front.new_session(bind=connection)
        order = Order(id=1)
        await session.add(order)
        with pytest.warns(JoinedTransactionWarning):
            await session.commit()
        await session.expunge(order)
        reference = weakref.ref(order)
        del order
        gc.collect()
        assert reference() is None
        await session.close()


@scenario(Base.metadata, databases=["sqlite"], front_ends=["sync"])
async def test_session_is_freed_as_a_plain_one_is(front: FrontEnd, recorder: EventRecorder) -> None:
    """T9: between transactions its reference count is enough; sessions do not pile up until gc runs."""
    recorder.listen(Order, asynchronous=True)
    freed: dict[str, bool] = {}
    for class_ in (Session, SyncEventSession):
        session = class_(front.engine)
        with warnings.catch_warnings(action="ignore", category=PlainSessionWarning):
            session.add(Order(id=len(freed)))
            session.commit()
        reference = weakref.ref(session)
        gc.disable()
        del session
        freed[class_.__name__] = reference() is None
        gc.enable()
    assert freed == {"Session": True, "SyncEventSession": True}


@pytest.mark.parametrize("end", [committed, rollback, close])
@scenario(Base.metadata, databases=["sqlite"])
async def test_savepoints_are_let_go_of_with_their_transaction(
    front: FrontEnd, recorder: EventRecorder, end: Callable[[FrontEnd, SessionAdapter], Awaitable[None]]
) -> None:
    """T9: however that ended, and whether anything else is flushed later or not."""
    recorder.listen(Order)
    references: list[weakref.ref[Any]] = []
    async with front.begin_nested():
        await front.add(Order(id=1))
        await front.flush()
        session = front.sync_session
        parts: list[Any] = [session.get_nested_transaction(), session.get_transaction()]
        references += map(weakref.ref, parts)
        parts.clear()
    await end(front, front)
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@scenario(Base.metadata, databases=["sqlite"])
async def test_long_lived_session_does_not_grow(front: FrontEnd, recorder: EventRecorder) -> None:
    """T9: 1,000 transactions that end in every way leave no more objects behind than 100 do."""
    recorder.listen(Order, asynchronous=True)
    event.listen(front.sync_engine, "connect", do_not_wait_for_the_disk)
    order = Order(id=1)
    await front.add(order)
    await front.commit()

    async def transactions(first: int, last: int) -> int:
        for number in range(first, last):
            order.quantity = number
            await front.add(Order(id=10 + number))
            if number % 5 == 0:
                savepoint = await front.begin_nested()
                order.quantity = -number
                await savepoint.rollback()
            if number % 7 == 0:
                await front.rollback()
            else:
                await front.commit()
        recorder.take()
        gc.collect()
        return len(gc.get_objects())

    before = await transactions(0, 100)
    after = await transactions(100, 1100)
    assert max(after - before, 100) == 100


def alive(references: Sequence[weakref.ref[object]]) -> list[bool]:
    """Whether each of them is still there."""
    gc.collect()
    return [reference() is not None for reference in references]


@scenario(Base.metadata, databases=["sqlite"], front_ends=["sync"])
async def test_tables_are_let_go(front: FrontEnd, recorder: EventRecorder) -> None:
    """T9: a temporary table that a statement has written is free as soon as nobody else has it."""
    recorder.listen(Order)
    references: list[weakref.ref[Any]] = []
    session = SyncEventSession(front.sync_engine.execution_options(compiled_cache=None))
    for number in range(10):
        table = Table(f"temporary_{number}", MetaData(), Column("id", Integer), prefixes=["TEMPORARY"])
        session.execute(CreateTable(table))
        session.execute(insert(table), [{"id": 1}])
        session.connection().execute(insert(table), [{"id": 2}])
        session.commit()
        references.append(weakref.ref(table))
        del table
    session.close()
    assert alive(references) == [False] * 10


def flushed_class(engine: Engine, session_class: type[Session]) -> weakref.ref[object]:
    """Map a class, flush an object of it, and let go of both."""

    class LocalBase(DeclarativeBase): ...

    class Local(LocalBase):
        __tablename__ = "made_at_run_time"
        id: Mapped[int] = mapped_column(primary_key=True)

    LocalBase.metadata.create_all(engine)
    with session_class(engine) as session:
        session.add(Local())
        session.commit()
    return weakref.ref(Local)


@pytest.mark.parametrize("session_class", [Session, SyncEventSession])
@scenario(Base.metadata, databases=["sqlite"], front_ends=["sync"])
async def test_classes_are_let_go(front: FrontEnd, recorder: EventRecorder, session_class: type[Session]) -> None:
    """T8, T9: a class that is mapped at run time is free once it is dropped and another one is mapped."""
    recorder.listen(Order)
    engine = front.sync_engine.execution_options(compiled_cache=None)
    references = [flushed_class(engine, session_class) for _ in range(10)]
    assert alive(references[:-1]) == [False] * 9


@scenario(Base.metadata, databases=["sqlite"], front_ends=["sync"])
async def test_callbacks_that_were_removed_are_let_go(front: FrontEnd) -> None:
    """T8, T9: also where a plain session has passed them by, which a warning says once."""
    references: list[weakref.ref[Any]] = []
    for number in range(10):
        with listener_scope():

            def callback(order: Order, event_type: ModelEvent, changes: object) -> None: ...

            listens_for(Order)(callback)
            with Session(front.sync_engine) as session:
                session.add(Order(id=number))
                with pytest.warns(PlainSessionWarning):
                    session.flush()
            references.append(weakref.ref(callback))
            del callback
    assert alive(references) == [False] * 10


@scenario(Base.metadata, databases=["sqlite"], front_ends=["sync"])
async def test_shared_connection_lets_go_of_sessions(front: FrontEnd) -> None:
    """T9: of those that were dropped without ``close()`` it knows one at most, and no statement goes through more."""
    with front.sync_engine.connect() as connection, connection.begin():
        for _ in range(10):
            session = SyncEventSession(connection)
            assert session.connection() is connection
            reference: weakref.ref[object] = weakref.ref(session)
            del session
            assert alive([reference]) == [False]
        assert isinstance(connection, FollowedConnection)
        assert len(connection.lent_by) == 1


def fails(order: Order, event_type: ModelEvent, changes: object) -> None:
    raise ExpectedError


async def fails_at_once(order: Order, event_type: ModelEvent, changes: object) -> None:
    raise ExpectedError


async def fails_later(order: Order, event_type: ModelEvent, changes: object) -> None:
    await asyncio.sleep(0)
    raise ExpectedError


def returns_what_fails(order: Order, event_type: ModelEvent, changes: object) -> Awaitable[None]:
    return fails_later(order, event_type, changes)


def interrupts(order: Order, event_type: ModelEvent, changes: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.name)
@pytest.mark.parametrize("policy", ["raise", forget], ids=["raised", "handed on"])
@pytest.mark.parametrize("callback", [fails, fails_at_once, fails_later, returns_what_fails, interrupts])
@scenario(Base.metadata, databases=["sqlite"])
async def test_session_whose_callback_raised_is_freed(
    front: FrontEnd,
    caplog: pytest.LogCaptureFixture,
    callback: Callable[[Order, ModelEvent, object], object],
    policy: object,
    phase: Phase,
) -> None:
    """T9: what a callback raised is kept by nobody whom its traceback knows, so that nothing waits for gc."""
    caplog.set_level(logging.CRITICAL, logger="fastapi_toolsets.events")  # pytest keeps what is logged, tracebacks too
    listens_for(Order, phase=phase)(callback)
    session, order = SessionAdapter(front.factory(on_callback_error=policy)()), Order(id=1)
    await session.add(order)
    await session.flush()
    gc.collect()
    gc.disable()
    try:
        with suppress(ExpectedError, ExceptionGroup, KeyboardInterrupt):
            await (session.rollback() if phase is Phase.AFTER_ROLLBACK else session.commit())
        await session.close()
        references = weakref.ref(session.sync_session), weakref.ref(order)
        del session, order
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()
