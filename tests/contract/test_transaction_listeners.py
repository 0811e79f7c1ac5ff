"""Rules T1, T2, T3 and P2 where listeners of SQLAlchemy's own transaction events write, or begin transactions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.orm.unitofwork import UOWTransaction

from fastapi_toolsets.models import Changes, Event, ModelEvent, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, created, deleted
from .transaction_models import ORDERS, Base, Order

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys

from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import sessionmaker

from fastapi_toolsets.db import enable_sqlite_savepoints
from fastapi_toolsets.models import Phase, SyncEventSession, listens_for
from tests.contract.transaction_models import ORDERS, Base, Order

engine = create_engine("sqlite://")
enable_sqlite_savepoints(engine)
Base.metadata.create_all(engine)
Factory = sessionmaker(engine, class_=SyncEventSession)


@event.listens_for(Factory, "after_transaction_create")
def begun(session, transaction):
    if transaction.parent is None and (identity := session.info.pop("begun", None)):
        session.add(Order(id=identity))
        session.flush()


@event.listens_for(Factory, "after_transaction_end")
def ended(session, transaction):
    if transaction.nested and (identity := session.info.pop("savepoint", None)):
        session.begin_nested()
        session.add(Order(id=identity))
        session.flush()
    if transaction.parent is None and (identity := session.info.pop("flushed", None)):
        session.add(Order(id=identity))
        session.flush()
    if transaction.parent is None and (identity := session.info.pop("changed", None)):
        session.get(Order, identity).status = "changed"


@listens_for(Order)
def told(order, event_type, changes):
    print("told", event_type.value, order.id, changes)


@listens_for(Order, phase=Phase.AFTER_ROLLBACK)
def regretted(order, event_type, changes):
    print("regretted", event_type.value, order.id, changes)


with Factory(info={"flushed": 20}) as session:
    session.add(Order(id=1))
    session.commit()
    session.rollback()
with Factory(info={"flushed": 2}) as session:
    session.add(Order(id=21))
    session.flush()
    session.rollback()
    session.commit()
with Factory(info={"changed": 2}) as session:
    session.add(Order(id=3))
    session.commit()
    session.commit()
with Factory(info={"savepoint": 22}) as session:
    savepoint = session.begin_nested()
    session.add(Order(id=4))
    savepoint.commit()
    session.get_nested_transaction().rollback()
    session.commit()
with Factory(info={"begun": 5}) as session:
    session.add(Order(id=6))
    session.commit()
with engine.connect() as connection:
    print(connection.execute(ORDERS).all())
"""

TOLD = """\
told create 1 None
regretted create 20 None
regretted create 21 None
told create 2 None
told create 3 None
told update 2 {'status': {'old': 'new', 'new': 'changed'}}
told create 4 None
told create 5 None
told create 6 None
[(1, 'new'), (2, 'changed'), (3, 'new'), (4, 'new'), (5, 'new'), (6, 'new')]
"""


def test_listeners_of_the_class_that_were_there_first() -> None:
    """T1, T2, T3, P2: what they write belongs to the transaction that is open then, not to the one that has ended."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert (finished.stdout, finished.stderr) == (TOLD, "")


@pytest.mark.parametrize("act", ["commit", "rollback"])
@scenario(Base.metadata, databases=LOCAL)
async def test_flush_as_a_savepoint_begins(front: FrontEnd, recorder: EventRecorder, act: str) -> None:
    """T3: what a listener of the savepoint's beginning flushes belongs to it, and goes with it."""
    recorder.listen(Order)

    def begun(session: Session, transaction: SessionTransaction) -> None:
        if transaction.nested:
            session.add(Order(id=2))
            session.flush()

    event.listen(front.sync_session, "after_transaction_create", begun)
    await front.add(Order(id=1))
    savepoint = await front.begin_nested()
    await (savepoint.commit() if act == "commit" else savepoint.rollback())
    await front.commit()
    keys = [1, 2] if act == "commit" else [1]
    assert recorder.take() == [created(Order, key) for key in keys]
    assert await front.committed_rows(ORDERS) == [(key, "new") for key in keys]


@scenario(Base.metadata, databases=LOCAL)
async def test_savepoint_that_the_flush_of_a_commit_leaves_open(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1, T3: COMMIT releases it as well, so what was flushed in it is told."""
    recorder.listen(Order)

    def begin(session: Session, _context: UOWTransaction, _objects: object) -> None:
        for _ in range(session.info.pop("savepoints", 0)):
            session.begin_nested()

    event.listen(front.sync_session, "before_flush", begin)
    for key, savepoints in ((1, 1), (2, 2), (3, 0)):
        front.sync_session.info["savepoints"] = savepoints
        await front.add(Order(id=key))
        await front.commit()
    assert recorder.take() == [created(Order, key) for key in (1, 2, 3)]
    assert await front.committed_rows(ORDERS) == [(key, "new") for key in (1, 2, 3)]


@pytest.mark.parametrize("expire_on_commit", [False, True])
@pytest.mark.parametrize("everything", [False, True])
@scenario(Base.metadata, databases=LOCAL)
async def test_expired_after_the_commit(
    front: FrontEnd, recorder: EventRecorder, *, everything: bool, expire_on_commit: bool
) -> None:
    """E11: what an ``after_commit`` listener expires, callbacks read as it was committed, and ask nobody for it."""
    heard: list[tuple[object, ...]] = []

    @listens_for(Order)
    def read(order: Order, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        heard.append((event_type.value, order.id, order.status, order.quantity, event.after))

    def expire(session: Session) -> None:
        if everything:
            session.expire_all()
        else:
            session.expire(order)

    session = front.new_session(expire_on_commit=expire_on_commit)
    order = Order(id=1)
    await session.add(order)
    event.listen(session.sync_session, "after_commit", expire)
    with front.statements() as statements:
        await session.commit()
    assert len(statements) == 1
    await session.refresh(order)
    order.status = "paid"
    await session.commit()
    await session.close()
    assert heard == [
        ("create", 1, "new", 0, {"id": 1, "status": "new", "quantity": 0}),
        ("update", 1, "paid", 0, {"id": 1, "status": "paid", "quantity": 0}),
    ]


@pytest.mark.parametrize("block", [False, True])
@scenario(Base.metadata, databases=LOCAL)
async def test_adding_when_what_was_deleted_is_detached(
    front: FrontEnd, recorder: EventRecorder, *, block: bool
) -> None:
    """T1, T7 and E11: the commit detaches, and lets listeners see ``expire_on_commit``, as on a plain session."""
    recorder.listen(Order)
    await front.add(Order(id=1))
    await front.commit()
    session = front.new_session(expire_on_commit=True)
    seen: list[bool] = []

    def copy(found: Session, gone: Order) -> None:
        if gone.id == 1:
            found.add(Order(id=2))

    def look(found: Session) -> None:
        seen.append(found.expire_on_commit)

    event.listen(session.sync_session, "deleted_to_detached", copy)
    event.listen(session.sync_session, "after_commit", look)
    if block:
        async with session.begin():
            order = await session.get(Order, 1)
            await session.delete(order)
    else:
        order = await session.get(Order, 1)
        await session.delete(order)
        await session.commit()
    assert not session.in_transaction()
    await session.commit()
    assert recorder.take() == [created(Order, 1), deleted(Order, 1), created(Order, 2)]
    assert seen == [True, True]
    await session.close()


@scenario(Base.metadata, databases=("sqlite",))
async def test_on_commit_without_autobegin(front: FrontEnd) -> None:
    """C7: as adding an object does, it says that there is no transaction, and begins none."""
    called: list[str] = []
    session = front.new_session(autobegin=False)
    with pytest.raises(InvalidRequestError, match=r"call session.begin\(\) first"):
        session.session.on_commit(called.append, "too early")
    async with session.begin():
        session.session.on_commit(called.append, "in time")
    await session.close()
    assert called == ["in time"]
