"""Programs of random steps, some of which are interrupted; and the rows that their events tell of."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio
import sqlalchemy
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import fastapi_toolsets.events
from fastapi_toolsets.errors import CommitAbortedError
from fastapi_toolsets.models import Event, ModelEvent

from ..databases import TYPES
from ..front_ends import SessionAdapter, Transaction
from ..interrupts import CancelledAt, InterruptAtCall


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Order(Base):
    __tablename__ = "interrupted_orders"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    quantity: Mapped[int] = mapped_column(default=0)


class Audit(Base):
    """What callbacks write."""

    __tablename__ = "interrupted_audits"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    reason: Mapped[str]


Rows = dict[tuple[type[object], tuple[Any, ...]], dict[str, Any]]
Interrupt = Callable[[random.Random, Coroutine[Any, Any, None]], Awaitable[BaseException | None]]

EVENTS = {"events": True}


class DeliberateError(Exception):
    """What blocks of the programs raise."""


EXPECTED: tuple[type[Exception], ...] = (
    SQLAlchemyError,
    CommitAbortedError,  # where it is not known what an interrupted step has written
    DeliberateError,
    ExceptionGroup,  # of what callbacks raise
    KeyError,  # SQLAlchemy's, for an attribute whose assignment was interrupted
    AssertionError,  # SQLAlchemy's, where a savepoint has ended with another one
)


class Program:
    """So many random steps of one session, which goes on to be used whatever becomes of a step.

    Attributes:
        history: Each step, and what came of it.
    """

    def __init__(self, seed: int, session: SessionAdapter, interrupt: Interrupt) -> None:
        """Prepare a run.

        Args:
            seed: Which program.
            session: The session, closed in the end.
            interrupt: Runs a step and interrupts it; returns what came out of it.
        """
        self.history: list[str] = []
        self._random = random.Random(seed)  # noqa: S311 - to repeat it
        self._session = session
        self._interrupt = interrupt
        self._savepoints: list[Transaction] = []
        self._last = 0

    async def run(self) -> None:
        """Run all steps, and commit in the end what is left."""
        steps = [name for name, step in vars(Program).items() if not name.startswith("_") and name != "run" and step]
        often = ["add", "change", "change", "load", "flush", "commit", "commit", "savepoint", "release", "block"]
        often += ["bulk_insert", "bulk_update_rows"]
        for _ in range(self._random.randrange(6, 18)):
            await self._step(self._random.choice([*steps, *often, *often]), interrupted=self._random.random() < 0.4)
        await self._step("commit", interrupted=False)
        await self._step("close", interrupted=False)

    async def _step(self, name: str, *, interrupted: bool) -> None:
        step: Coroutine[Any, Any, None] = getattr(self, name)()
        error: BaseException | None = None
        if interrupted:
            error = await self._interrupt(self._random, step)
        else:
            try:
                await step
            except EXPECTED as raised:
                error = raised
        self.history.append(f"{name}: {error!r}")
        if error is None:
            return
        chance = self._random.random()
        if chance < 0.5:
            await self._step("rollback", interrupted=False)
        elif chance < 0.7 or not await self._is_usable():
            await self._step("close", interrupted=False)

    async def _is_usable(self) -> bool:
        """Whether the session does anything but be closed: not where an interrupt came right after a COMMIT.

        Nor where it came inside SQLAlchemy's own ``add`` (``Session._save_impl``), which no flush can sort then.
        """
        if any(sqlalchemy.inspect(obj).insert_order is None for obj in self._session.sync_session.new):
            return False
        try:
            await self._session.execute(text("SELECT 1"))
        except InvalidRequestError:
            return False
        except EXPECTED:  # as in a transaction of PostgreSQL's that has failed, and may be committed all the same
            pass
        return True

    def _pick(self) -> Order | None:
        known = [obj for obj in self._session.sync_session.identity_map.values() if isinstance(obj, Order)]
        known.sort(key=lambda order: sqlalchemy.inspect(order).identity or ())
        return self._random.choice(known) if known else None

    async def add(self) -> None:
        self._last += 1
        await self._session.add(Order(id=self._last, quantity=self._random.randrange(9)))

    async def change(self) -> None:
        order = self._pick()
        if order is not None:
            order.quantity = self._random.randrange(100)

    async def load(self) -> None:
        (await self._session.scalars(select(Order))).all()

    async def remove(self) -> None:
        orders = (await self._session.scalars(select(Order).order_by(Order.id))).all()
        if orders:
            await self._session.delete(self._random.choice(orders))

    async def expire(self) -> None:
        await self._session.expire_all()

    async def flush(self) -> None:
        await self._session.flush()

    async def commit(self) -> None:
        await self._session.commit()

    async def rollback(self) -> None:
        await self._session.rollback()

    async def close(self) -> None:
        await self._session.close()

    async def invalidate(self) -> None:
        await self._session.invalidate()

    async def transaction_commit(self) -> None:
        await self._session.run_sync(_end_transaction, "commit")

    async def transaction_rollback(self) -> None:
        await self._session.run_sync(_end_transaction, "rollback")

    async def transaction_close(self) -> None:
        await self._session.run_sync(_end_transaction, "close")

    async def savepoint(self) -> None:
        self._savepoints.append(await self._session.begin_nested())

    async def release(self) -> None:
        if self._savepoints:
            await self._savepoints.pop().commit()

    async def undo(self) -> None:
        if self._savepoints:
            await self._savepoints.pop().rollback()

    async def block(self) -> None:
        """Write in a block with another one in it; either may raise."""
        await self._session.rollback()
        async with self._session.begin():
            await self.add()
            with suppress(DeliberateError):
                async with self._session.begin_nested():
                    await self.add()
                    await self.change()
                    if self._random.random() < 0.3:
                        raise DeliberateError
            await self.change()
            if self._random.random() < 0.2:
                raise DeliberateError

    async def bulk_update(self) -> None:
        await self._session.execute(update(Order).values(quantity=Order.quantity + 1), execution_options=EVENTS)

    async def bulk_delete(self) -> None:
        one = self._random.randrange(1, 9)
        await self._session.execute(delete(Order).where(Order.id == one), execution_options=EVENTS)

    async def bulk_insert(self) -> None:
        """Insert three rows one by one; the last may be there already."""
        rows = [{"id": self._last + number, "quantity": number} for number in (1, 2, 3)]
        self._last += 3
        if self._random.random() < 0.4:
            rows[2]["id"] = self._random.randrange(1, self._last)
        options = {**EVENTS, "insertmanyvalues_page_size": 1}
        await self._session.execute(insert(Order), rows, execution_options=options)

    async def bulk_update_rows(self) -> None:
        """Update two rows by their keys, of which one need not be there."""
        keys = sorted(self._random.sample(range(1, self._last + 3), 2))
        rows = [{"id": key, "quantity": self._random.randrange(100)} for key in keys]
        await self._session.execute(update(Order), rows, execution_options=EVENTS)

    async def duplicate(self) -> None:
        """Fail in a flush, where the first order is there."""
        await self._session.add(Order(id=1))
        await self._session.flush()


def _end_transaction(session: Session, method: str) -> None:
    transaction = session.get_transaction()
    if transaction is None:
        return
    try:
        getattr(transaction, method)()
    finally:
        if method == "close":
            # Also when interrupted: what it has written is no row any more, and a plain session would delete it.
            session.expunge_all()


async def cancel(chance: random.Random, step: Coroutine[Any, Any, None]) -> BaseException | None:
    """Cancel the task of a step at some await: once, twice in a row, or by a scope that does not cease to cancel."""
    way = chance.choice(("once", "twice", "scope"))
    again = chance.randrange(1, 6)
    scope = anyio.CancelScope()

    def cancel_task() -> None:
        task.cancel()
        if way == "twice":
            cancel_later(again)

    def cancel_later(turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(cancel_later, turns - 1)
        else:
            task.cancel()

    interrupted = CancelledAt(
        step,
        chance.randrange(1, 14),
        late=chance.random() < 0.5,
        cancel=scope.cancel if way == "scope" else cancel_task,
    )

    async def drive() -> None:
        with scope:
            await interrupted

    before = asyncio.all_tasks()
    task = asyncio.create_task(drive())
    await asyncio.wait({task})
    # A block of SQLAlchemy's is left in a task of its own; one that closes a connection of aiosqlite's may never end.
    if left := {other for other in asyncio.all_tasks() - before if "_terminate" not in repr(other.get_coro())}:
        await asyncio.wait(left)
    if task.cancelled():
        return asyncio.CancelledError()
    error = task.exception()
    if error is not None and not isinstance(error, EXPECTED):
        raise error
    return error


FILES = tuple(
    str(package.__path__[0]) + folder
    for package, folder in (
        (fastapi_toolsets.events, ""),
        (sqlalchemy, "/orm/session.py"),
        (sqlalchemy, "/engine/base"),
    )
)
"""Whose calls Ctrl-C interrupts: the library's, and those of SQLAlchemy's sessions and connections."""


async def press_ctrl_c(chance: random.Random, step: Coroutine[Any, Any, None]) -> BaseException | None:
    """Interrupt a step, which never waits, at some call in the library or in SQLAlchemy."""
    interrupt = InterruptAtCall(FILES, 1 + int(chance.random() ** 2 * 1000))
    try:
        with interrupt.armed():
            await step
    except KeyboardInterrupt as error:
        return error
    except EXPECTED as error:
        return error
    return None


def replay(events: list[Event]) -> tuple[Rows, list[str]]:
    """Return the rows that are there after all of these events, and which of them cannot have happened."""
    rows: Rows = {}
    problems: list[str] = []
    for event in events:
        key = event.model, event.identity
        before = rows.pop(key, None)
        if (before is None) is not (event.type is ModelEvent.CREATE):
            problems.append(f"{event.type.value} of {key}, which was {before}")
        if before is not None and event.changes is not None:
            olds = {name: change["old"] for name, change in event.changes.items()}
            if olds != {name: before[name] for name in olds}:
                problems.append(f"update of {key} from {olds}, which was {before}")
        if event.after is not None:
            rows[key] = dict(event.after)
    return rows, problems
