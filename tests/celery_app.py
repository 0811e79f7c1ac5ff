"""The Celery application that ``test_celery.py`` starts a worker for; only the worker imports it."""

import asyncio
import contextvars
import os
import threading
from typing import TypedDict

from celery import Celery
from celery.signals import worker_init, worker_process_init
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from fastapi_toolsets.db import create_db_context
from fastapi_toolsets.models import Changes, ModelEvent, SyncEventSession, listens_for

from .databases import TYPES

PREFIX = os.environ["TEST_CELERY_PREFIX"]
KEYS = {"global_keyprefix": PREFIX}

app = Celery(
    "tests",
    broker=os.environ["TEST_CELERY_BROKER"],
    backend=os.environ["TEST_CELERY_BROKER"],
    broker_transport_options=KEYS,
    result_backend_transport_options=KEYS,
    task_default_queue=PREFIX,
    worker_hijack_root_logger=False,
)


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]


class Call(TypedDict):
    """What a callback was told, and where it ran."""

    event: str
    order_id: int
    changes: Changes | None
    task: str
    process: int
    in_the_task_thread: bool
    loop: int


engine = create_engine(os.environ["TEST_CELERY_DATABASE_URL"])
db_context = create_db_context(sessionmaker(engine, class_=SyncEventSession))
calls: list[Call] = []
calls_before_fork: list[Call] = []
loops: list[asyncio.AbstractEventLoop] = []  # kept, so that no later loop can look like an earlier one
running_task: contextvars.ContextVar[str] = contextvars.ContextVar("running_task", default="none")
task_thread: contextvars.ContextVar[int] = contextvars.ContextVar("task_thread", default=0)


@listens_for(Order)
async def on_order(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    if loop not in loops:
        loops.append(loop)
    calls.append(
        Call(
            event=event_type.value,
            order_id=order.id,
            changes=changes,
            task=running_task.get(),
            process=os.getpid(),
            in_the_task_thread=threading.get_ident() == task_thread.get(),
            loop=loops.index(loop),
        )
    )


def take_calls() -> list[Call]:
    """Give the calls of this process since the last time."""
    taken, calls[:] = list(calls), []
    return taken


@worker_init.connect
def create_first_order(**_: object) -> None:
    """Commit in the parent before it forks: what its callbacks left behind must not disturb the children."""
    Base.metadata.create_all(engine)
    running_task.set("parent")
    task_thread.set(threading.get_ident())
    with db_context() as session:
        session.add(Order(id=1, status="new"))


@worker_process_init.connect
def leave_what_is_the_parents(**_: object) -> None:
    engine.dispose(close=False)
    calls_before_fork.extend(take_calls())


@app.task(name="tell_calls_before_fork")
def tell_calls_before_fork() -> list[Call]:
    return calls_before_fork


@app.task(name="create_order")
def create_order(order_id: int) -> list[Call]:
    running_task.set(f"create {order_id}")
    task_thread.set(threading.get_ident())
    with db_context() as session:
        session.add(Order(id=order_id, status="new"))
    return take_calls()


@app.task(name="pay_order")
def pay_order(order_id: int) -> list[Call]:
    running_task.set(f"pay {order_id}")
    task_thread.set(threading.get_ident())
    with db_context() as session:
        session.get_one(Order, order_id).status = "paid"
        session.commit()
        session.get_one(Order, order_id).status = "shipped"
    return take_calls()


@app.task(name="fail")
def fail(order_id: int) -> None:
    with db_context() as session:
        session.add(Order(id=order_id, status="never"))
        session.flush()
        raise ZeroDivisionError
