"""Both sessions keep their kind through SQLAlchemy's factories, and say what their options may be."""

from __future__ import annotations

from typing import assert_type

from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, AsyncSessionTransaction, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction, sessionmaker

from fastapi_toolsets.errors import SessionOptionError
from fastapi_toolsets.models import CallbackFailure, EventSession, SyncEventSession, listener_scope


def async_factory(engine: AsyncEngine) -> async_sessionmaker[EventSession]:
    """The guide's own line."""
    factory = async_sessionmaker(engine, expire_on_commit=False, class_=EventSession)
    assert_type(factory, async_sessionmaker[EventSession])
    assert_type(factory(), EventSession)
    return factory


async def with_async_session(factory: async_sessionmaker[EventSession]) -> None:
    async with factory() as session:
        assert_type(session, EventSession)
        plain: AsyncSession = session
        assert_type(plain.begin(), AsyncSessionTransaction)
        assert_type(session.on_commit(print, "done"), None)
    async with factory.begin() as session:
        assert_type(session, EventSession)


async def notify(failure: CallbackFailure) -> None:
    assert_type(failure.callback, str)
    assert_type(failure.model, str | None)
    assert_type(failure.error, BaseException)


engine: Engine = create_engine("sqlite://")
sync_factory = sessionmaker(engine, class_=SyncEventSession)
assert_type(sync_factory, sessionmaker[SyncEventSession])
with sync_factory() as session:
    assert_type(session, SyncEventSession)
    plain: Session = session
    assert_type(plain.begin(), SessionTransaction)
    assert_type(session.on_commit(print, "done"), None)
with sync_factory.begin() as session:
    assert_type(session, SyncEventSession)

assert_type(SyncEventSession(engine, on_callback_error="raise", callback_grace=1.5), SyncEventSession)
assert_type(SyncEventSession(engine, on_bulk_write="raise"), SyncEventSession)
assert_type(SyncEventSession(engine, on_callback_error=notify, cascade_limit=3), SyncEventSession)
assert_type(SyncEventSession(engine, dispatch_on_joined_commit=True, callback_backend="trio"), SyncEventSession)

try:
    SyncEventSession(engine, on_callback_error="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
except SessionOptionError as error:
    assert_type(error, SessionOptionError)

with listener_scope(inherit=False) as nothing:
    assert_type(nothing, None)

engine.dispose()
