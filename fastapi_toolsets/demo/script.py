"""The sync front-end: the same orders in a plain script, without a server or an event loop."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from sqlalchemy import URL, create_engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import sessionmaker

from fastapi_toolsets.db import enable_sqlite_savepoints
from fastapi_toolsets.models import SyncEventSession

from .callbacks import take_deliveries
from .models import Base, Order
from .orders import OrderRecord, Step, batches
from .run import Advance, OrderRow, Run


def run_script(orders: Sequence[OrderRecord], steps: Sequence[Step], database: Path, advance: Advance) -> Run:
    """Import the orders and take the steps, each in a transaction of its own.

    Args:
        orders: What to import.
        steps: What to do then.
        database: Where to put the SQLite file.
        advance: Called after each transaction.

    Returns:
        What was delivered, what is in the table, and the time.
    """
    began = perf_counter()
    engine = create_engine(URL.create("sqlite+pysqlite", database=str(database)))
    enable_sqlite_savepoints(engine)
    session_factory = sessionmaker(engine, expire_on_commit=False, class_=SyncEventSession)
    try:
        Base.metadata.create_all(engine)
        refused_orders = sum(_import(session_factory, batch, advance) for batch in batches(orders))
        refused_changes = sum(not _take(session_factory, step, advance) for step in steps)
        with session_factory() as session:
            rows = tuple(
                OrderRow(order.number, order.customer, order.item, order.quantity, order.status)
                for order in session.scalars(select(Order).order_by(Order.number))
            )
    finally:
        engine.dispose()
    seconds = perf_counter() - began
    return Run("SyncEventSession, plain script", take_deliveries(), rows, refused_orders, refused_changes, seconds)


def _import(session_factory: sessionmaker[SyncEventSession], batch: Sequence[OrderRecord], advance: Advance) -> int:
    refused = 0
    with session_factory.begin() as session:
        for order in batch:
            try:
                with session.begin_nested():
                    session.add(
                        Order(number=order.number, customer=order.customer, item=order.item, quantity=order.quantity)
                    )
            except IntegrityError:  # only this order's savepoint is rolled back
                refused += 1
    advance()
    return refused


def _take(session_factory: sessionmaker[SyncEventSession], step: Step, advance: Advance) -> bool:
    try:
        with session_factory.begin() as session:
            order = session.scalars(select(Order).where(Order.number == step.number)).one()
            if step.changes is None:
                session.delete(order)
            else:
                for field, value in step.changes.items():
                    setattr(order, field, value)
    except IntegrityError:
        return False
    finally:
        advance()
    return True
