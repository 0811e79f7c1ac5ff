"""Rules P1 and P3 where a commit ends inside its ``BEFORE_COMMIT`` callbacks, or nobody would have called them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import sessionmaker

from fastapi_toolsets.errors import BulkWriteError, CommitAbortedError, PlainSessionWarning
from fastapi_toolsets.models import Changes, ModelEvent, Phase, SyncEventSession, listens_for

from ..databases import Database, tables
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, created
from .transaction_models import ORDERS, Base, Order

OTHER_PHASES = (Phase.BEFORE_COMMIT, Phase.AFTER_ROLLBACK)


@scenario(Base.metadata, front_ends=["async"])
async def test_cancelled_before_anything_is_decided(front: FrontEnd, recorder: EventRecorder) -> None:
    """P1, C5: a commit that is cancelled while such a callback waits is none: nothing is kept, nobody else hears."""
    recorder.listen(Order)
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)
    waiting = asyncio.Event()

    async def wait(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        waiting.set()
        if order.id == 1:
            await anyio.sleep_forever()

    listens_for(Order, phase=Phase.BEFORE_COMMIT)(wait)
    await front.add(Order(id=1))
    task = asyncio.create_task(front.commit())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (front.in_transaction(), recorder.take(), await front.committed_rows(ORDERS)) == (False, [], [])
    await front.add(Order(id=2))
    await front.commit()
    assert recorder.take() == [created(Order, 2)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_cancelled_host_of_a_worker_thread(database: Database, recorder: EventRecorder, backend: str) -> None:
    """P1, C2, C5: the thread's commit is aborted once the grace is over, with an error of its own."""
    engine = database.create_engine()
    factory = sessionmaker(engine, class_=SyncEventSession, callback_grace=0.0)
    raised: list[BaseException] = []
    recorder.listen(Order)

    def work() -> None:
        with factory() as session:
            session.add(Order(id=1))
            try:
                session.commit()
            except CommitAbortedError as error:
                raised.append(error)
            assert not session.in_transaction()

    async def application() -> None:
        waiting = anyio.Event()

        async def wait(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            waiting.set()
            await anyio.sleep_forever()

        listens_for(Order, phase=Phase.BEFORE_COMMIT)(wait)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, work)
            await waiting.wait()
            group.cancel_scope.cancel()

    with tables(database, Base.metadata):
        anyio.run(application, backend=backend)
        with engine.connect() as connection:
            assert connection.execute(ORDERS).all() == []
    engine.dispose()
    assert [type(error) for error in raised] == [CommitAbortedError]
    assert recorder.take() == []


@scenario(Base.metadata)
async def test_swallowed_flush_error(front: FrontEnd, recorder: EventRecorder) -> None:
    """P1, T4: a callback that hides that everything was rolled back does not make a commit of it."""
    recorder.listen(Order)
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)
    await front.add(Order(id=1))
    await front.commit()
    recorder.take()
    front.session.expunge_all()

    async def hide(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await front.add(Order(id=1))
        with suppress(IntegrityError):
            await front.flush()

    listens_for(Order, phase=Phase.BEFORE_COMMIT)(hide)
    await front.add(Order(id=2))
    with pytest.raises(CommitAbortedError, match="has caught an error that had rolled the transaction back"):
        await front.commit()
    assert (front.in_transaction(), recorder.take()) == (False, [])
    assert await front.committed_rows(ORDERS) == [(1, "new")]


@scenario(Base.metadata, databases=["mariadb"], twophase=True)
async def test_told_at_the_first_of_two_phases(front: FrontEnd, recorder: EventRecorder) -> None:
    """P1, P2, T6: at ``prepare()``, once; a prepared transaction that is rolled back is told as such."""
    recorder.listen(Order, phase=Phase.BEFORE_COMMIT)
    await front.add(Order(id=1))
    await front.prepare()
    assert recorder.take() == [created(Order, 1)]
    await front.commit()
    assert recorder.take() == []
    after = EventRecorder()
    after.listen(Order, phase=Phase.AFTER_ROLLBACK)
    await front.add(Order(id=2))
    await front.prepare()
    await front.rollback()
    assert (recorder.take(), after.take()) == ([created(Order, 2)], [created(Order, 2)])
    assert await front.committed_rows(ORDERS) == [(1, "new")]


# Whoever listens in another phase only is passed by like anybody else.


@pytest.mark.parametrize("phase", OTHER_PHASES)
@scenario(Base.metadata)
async def test_plain_session(front: FrontEnd, recorder: EventRecorder, phase: Phase) -> None:
    """P2, T8: it calls nobody in any phase, and says so."""
    recorder.listen(Order, phase=phase)
    plain = front.plain_session()
    await plain.add(Order(id=1))
    with pytest.warns(PlainSessionWarning, match="Order has listeners"):
        await plain.commit()
    assert recorder.take() == []


@pytest.mark.parametrize("phase", OTHER_PHASES)
@scenario(Base.metadata)
async def test_bulk_statement(front: FrontEnd, recorder: EventRecorder, phase: Phase) -> None:
    """P2, B1: it is refused for listeners of any phase; those of other kinds of event it concerns not."""
    recorder.listen(Order, [ModelEvent.UPDATE], phase=phase)
    strict = front.new_session(on_bulk_write="raise")
    with pytest.raises(BulkWriteError, match="a bulk update passes them by"):
        await strict.execute(update(Order).values(quantity=2))
    await strict.execute(delete(Order))  # of which nobody wants to hear
    await strict.close()
    await front.rollback()
    assert recorder.take() == []
