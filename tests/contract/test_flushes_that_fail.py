"""Rules T2 and T7: a flush in which old values cannot be read for an event fails as any other flush that fails."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from sqlalchemy import ForeignKey, event, select, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, SessionTransaction, mapped_column, relationship
from sqlalchemy.orm.exc import ObjectDeletedError

from fastapi_toolsets.models import Phase

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from ..session_adapter import SessionAdapter
from .bulk_models import store
from .event_models import created, listening_to


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Shop(Base):
    __tablename__ = "failing_shops"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]
    goods: Mapped[list[Good]] = relationship(back_populates="shop")


class Good(Base):
    __tablename__ = "failing_goods"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shop_id: Mapped[int | None] = mapped_column(ForeignKey("failing_shops.id"))
    shop: Mapped[Shop | None] = relationship(back_populates="goods")


Door: TypeAlias = Callable[[SessionAdapter], Awaitable[object]]

DOORS: dict[str, Door] = {
    "flush": SessionAdapter.flush,
    "autoflush": lambda session: session.execute(select(Good.id)),
    "commit": SessionAdapter.commit,
    "begin_nested": lambda session: session.run_sync(Session.begin_nested),
}


def condition(session: SessionAdapter) -> tuple[object, ...]:
    """Say what a session is like."""
    inner = session.sync_session
    is_in = inner.in_transaction(), inner.in_nested_transaction()
    return inner.is_active, *is_in, len(inner.new), len(inner.dirty), len(inner.deleted)


def noting_ends(session: SessionAdapter) -> list[object]:
    """Write down what SQLAlchemy's own events say of the ends of a session's transactions, and how it is then."""
    ended: list[object] = []

    def note_rollback(session: Session) -> None:
        ended.append(("after_rollback", session.is_active))

    def note_end(session: Session, transaction: SessionTransaction) -> None:
        ended.append((transaction.origin.name, session.is_active))

    event.listen(session.sync_session, "after_rollback", note_rollback)
    event.listen(session.sync_session, "after_soft_rollback", note_end)
    event.listen(session.sync_session, "after_transaction_end", note_end)
    return ended


async def fail(
    session: SessionAdapter, lose: Door, door: Door, error: type[BaseException], *, in_savepoint: bool
) -> list[object]:
    """Let a flush fail, roll back and go on; say what the session was like all the time."""
    ended = noting_ends(session)
    await session.add(Shop(id=8))
    await session.flush()
    begun = await session.begin_nested() if in_savepoint else session
    await lose(session)
    with pytest.raises(error):
        await door(session)
    seen: list[object] = [condition(session)]
    with pytest.raises(PendingRollbackError) as refused:
        await session.execute(select(Shop.id))
    seen += [re.sub("at 0x[0-9a-f]+|: .*", "", str(refused.value)), condition(session)]
    await begun.rollback()
    seen.append(condition(session))
    if not issubclass(error, Exception):  # SQLAlchemy gives up the connection, and with it all of the transaction
        await session.rollback()
    await session.add(Shop(id=9))
    await session.commit()
    return [*seen, ended]


async def begin_again(front: FrontEnd) -> None:
    """Leave a single row in the table."""
    await front.execute(text("DELETE FROM failing_shops"))
    await front.commit()
    await store(front, Shop(id=1))


async def lose_row(session: SessionAdapter) -> None:
    """Delete an expired object whose row is gone."""
    shop = await session.get_one(Shop, 1)
    await session.execute(text("DELETE FROM failing_shops WHERE id = 1"))
    await session.expire(shop)
    await session.delete(shop)


@pytest.mark.parametrize("in_savepoint", [False, True], ids=["alone", "in a savepoint"])
@pytest.mark.parametrize("door", DOORS)
@scenario(Base.metadata)
async def test_expired_object_whose_row_is_gone(
    front: FrontEnd, recorder: EventRecorder, door: str, *, in_savepoint: bool
) -> None:
    """T2, T7: deleting it fails and wants a rollback, as on a plain session; nothing of what it takes along is told."""
    rolled_back, found = EventRecorder(), list[object]()
    for session in (front.plain_session(), front.new_session()):
        await begin_again(front)
        if found:
            recorder.listen(Shop)
            recorder.listen(Good)
            rolled_back.listen(Shop, phase=Phase.AFTER_ROLLBACK)
        seen = await fail(session, lose_row, DOORS[door], ObjectDeletedError, in_savepoint=in_savepoint)
        found.append((seen, await front.committed_rows(select(Shop.id).order_by(Shop.id))))
    assert found[0] == found[1]
    if in_savepoint:
        assert (recorder.take(), rolled_back.take()) == ([created(Shop, 8), created(Shop, 9)], [])
    else:
        assert (recorder.take(), rolled_back.take()) == ([created(Shop, 9)], [created(Shop, 8)])


async def lose_values(session: SessionAdapter) -> None:
    """Change what has not been loaded."""
    shop = await session.get_one(Shop, 1)
    await session.expire(shop)
    shop.name = "new"


@pytest.mark.parametrize("in_savepoint", [False, True], ids=["alone", "in a savepoint"])
@pytest.mark.parametrize("error", [DBAPIError, KeyboardInterrupt, asyncio.CancelledError])
@scenario(Base.metadata)
async def test_select_that_a_plain_session_does_not_send(
    front: FrontEnd, recorder: EventRecorder, error: type[BaseException], *, in_savepoint: bool
) -> None:
    """T2, T7: where it fails, or is interrupted, that is as if the UPDATE for which it reads had been."""
    rolled_back, found, armed = EventRecorder(), list[object](), list[bool]()

    def break_statement(
        _connection: object, _cursor: object, statement: str, parameters: object, *_: object
    ) -> tuple[str, object]:
        if not armed:
            return statement, parameters
        armed.clear()
        if error is not DBAPIError:
            raise error
        return "SELECT no_such_column FROM failing_shops", ()

    async def broken(session: SessionAdapter) -> None:
        armed.append(True)
        await session.flush()

    event.listen(front.sync_engine, "before_cursor_execute", break_statement, retval=True)
    for session in (front.plain_session(), front.new_session()):
        await begin_again(front)
        if found:
            recorder.listen(Shop)
            rolled_back.listen(Shop, phase=Phase.AFTER_ROLLBACK)
        seen = await fail(session, lose_values, broken, error, in_savepoint=in_savepoint)
        found.append((seen, await front.committed_rows(select(Shop.id, Shop.name).order_by(Shop.id))))
    assert found[0] == found[1]
    if in_savepoint and error is DBAPIError:
        assert (recorder.take(), rolled_back.take()) == ([created(Shop, 8), created(Shop, 9)], [])
    else:
        assert (recorder.take(), rolled_back.take()) == ([created(Shop, 9)], [created(Shop, 8)])


@pytest.mark.parametrize("end", ["rollback", "close"])
@scenario(Base.metadata)
async def test_listener_that_rolls_back_what_the_flush_belonged_to(
    front: FrontEnd, recorder: EventRecorder, end: str
) -> None:
    """T2: SQLAlchemy lets it, once the flush has failed."""
    await store(front, Shop(id=1))
    recorder.listen(Good)
    await lose_row(front)

    def roll_back(session: Session, _transaction: SessionTransaction) -> None:
        if session.in_transaction():
            getattr(session, end)()

    with listening_to(front.sync_session, "after_soft_rollback", roll_back), pytest.raises(ObjectDeletedError):
        await front.flush()
    assert condition(front) == (True, False, False, 0, 0, 0)
    await front.add(Good(id=1))
    await front.commit()
    assert recorder.take() == [created(Good, 1)]
