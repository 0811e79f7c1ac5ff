"""Rules C4, T2 and P2: Ctrl-C at every call that a commit makes, the few around the COMMIT among them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress

import pytest
from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError

from fastapi_toolsets.models import Phase, SyncEventSession

from ..front_ends import EventRecorder, FrontEnd, scenario
from ..interrupts import InterruptAtCall
from .interrupted_programs import FILES
from .models import ORDERS, Base, Order, created, library_log
from .test_interrupted_programs import leave_no_locks

# In a generator, Python can only say that it was interrupted.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def commit_then_roll_back(session: SyncEventSession) -> None:
    try:
        session.commit()
    finally:
        session.rollback()


def commit_then_close(session: SyncEventSession) -> None:
    try:
        session.commit()
    finally:
        session.close()


def commit_then_fail_in_a_flush(session: SyncEventSession) -> None:
    """Go on with a session of which nobody knows what it has committed."""
    try:
        session.commit()
    finally:
        fail_in_a_flush(session)


def transaction_commit_then_fail_in_a_flush(session: SyncEventSession) -> None:
    transaction = session.get_transaction() or session.begin()
    try:
        transaction.commit()
    finally:
        fail_in_a_flush(session)


def fail_in_a_flush(session: SyncEventSession) -> None:
    session.expunge_all()
    session.add(Order(id=1))
    with suppress(SQLAlchemyError):
        session.flush()
    session.close()


def block(session: SyncEventSession) -> None:
    with session.get_transaction() or session.begin():
        pass


def transaction_commit(session: SyncEventSession) -> None:
    transaction = session.get_transaction() or session.begin()
    try:
        transaction.commit()
    finally:
        session.close()


@pytest.mark.parametrize(
    "end",
    [
        commit_then_roll_back,
        commit_then_close,
        commit_then_fail_in_a_flush,
        transaction_commit_then_fail_in_a_flush,
        block,
        transaction_commit,
    ],
    ids=lambda end: end.__name__,
)
@scenario(Base.metadata, front_ends=("sync",))
async def test_interrupted_commits(
    front: FrontEnd, recorder: EventRecorder, end: Callable[[SyncEventSession], None]
) -> None:
    """A row that is there is told once, or named in the log, and is nobody's rollback; one that is not is not told."""
    regretted = EventRecorder()
    recorder.listen(Order)
    regretted.listen(Order, phase=Phase.AFTER_ROLLBACK)
    leave_no_locks(front)
    wrong: dict[str, object] = {}
    outcomes: set[tuple[bool, bool, bool, bool]] = set()
    point = 0
    while True:
        point += 1
        interrupt = InterruptAtCall(FILES, point)
        session = front.factory()()
        session.add(Order(id=1))
        with library_log() as log:
            with suppress(KeyboardInterrupt, SQLAlchemyError, AssertionError), interrupt.armed():
                end(session)
            session.close()
        del session  # whose close() was interrupted, it may keep its connection, and locks, for as long as it lives
        gc.collect()
        is_there = bool(await front.committed_rows(ORDERS))
        told, regrets = recorder.take(), regretted.take()
        named = any("not called" in message for _, message in log)
        outcome = is_there, bool(told), bool(regrets), named
        outcomes.add(outcome)
        if (
            told not in ([], [created(1)])
            or (is_there and not told and not named)
            or (bool(told) > is_there)
            or (is_there and regrets)
        ):
            wrong[f"{point}: {interrupt.place}"] = outcome
        with front.sync_engine.begin() as connection:
            connection.execute(delete(Order))
        if interrupt.place is None:
            break
    assert wrong == {}
    assert {(True, True, False, False), (False, False, True, False), (True, False, False, True)} <= outcomes
