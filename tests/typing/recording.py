"""What is recorded has types, and so have the sessions and databases of tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_type
from uuid import UUID

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from fastapi_toolsets.errors import ExpectedChangeError
from fastapi_toolsets.events import created, deleted, updated
from fastapi_toolsets.models import (
    EventRecorder,
    EventSession,
    ModelEvent,
    RecordedEvent,
    SyncEventSession,
    capture_events,
)
from fastapi_toolsets.pytest import (
    create_worker_database,
    rolled_back_session,
    rolled_back_sessionmaker,
    rolled_back_sync_session,
    rolled_back_sync_sessionmaker,
)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


with capture_events(Order, run_callbacks=False, own_context=True) as events:
    assert_type(events, EventRecorder)
    assert_type(events[:1], list[RecordedEvent])
    assert_type(events.take(), list[RecordedEvent])
    events.assert_delivered([])

assert_type(created(Order, 1), RecordedEvent)
assert_type(deleted(Order), RecordedEvent)
assert_type(updated(Order, 1, status=("new", "paid")), RecordedEvent)

for event in events:
    assert_type(event, RecordedEvent)
    assert_type(event.model, type[object])
    assert_type(event.type, ModelEvent)
    assert_type(event.identity, tuple[Any, ...] | None)
    assert_type(event.changes, Mapping[str, Mapping[str, Any]] | None)
    assert_type(event.after, Mapping[str, Any] | None)
    assert_type(event.transaction_id, UUID | None)

try:
    updated(Order, 1, status="paid")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
except ExpectedChangeError as error:
    assert_type(error, ExpectedChangeError)


def add_order(connection: Connection) -> None:
    assert_type(connection.closed, bool)


def in_sync_tests(engine: Engine) -> None:
    with create_worker_database("postgresql+psycopg://localhost/app", Base, prepare=add_order) as url:
        assert_type(url, URL)
    with rolled_back_sync_session(engine, Base.metadata) as session:
        assert_type(session, SyncEventSession)
    with rolled_back_sync_sessionmaker(url) as factory:
        assert_type(factory, sessionmaker[SyncEventSession])


async def in_async_tests(engine: AsyncEngine) -> None:
    async with rolled_back_session(engine, Base) as session:
        assert_type(session, EventSession)
    async with rolled_back_sessionmaker("sqlite+aiosqlite://", Base) as factory:
        assert_type(factory, async_sessionmaker[EventSession])
