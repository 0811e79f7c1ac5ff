"""The scenario table itself: every scenario meets a real session of each kind on each database."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import ForeignKey, create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from fastapi_toolsets.models import EventSession, SyncEventSession, listener_scope, listens_for

from .databases import TYPES
from .front_ends import EventRecorder, FrontEnd, run_without_loop, scenario


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Shelf(Base):
    __tablename__ = "shelves"
    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str]


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(ForeignKey("shelves.id"))


SHELVES = select(Shelf.id, Shelf.label).order_by(Shelf.id)


@scenario(Base.metadata)
async def test_each_front_end_has_its_own_sessions(front: FrontEnd) -> None:
    event_class, plain_class = (EventSession, AsyncSession) if front.is_async else (SyncEventSession, Session)
    assert isinstance(front.session, event_class)
    assert isinstance(front.sync_session, SyncEventSession)
    assert isinstance(front.new_session().session, event_class)
    assert type(front.plain_session().session) is plain_class


@scenario(Base.metadata, front_ends=["sync"])
async def test_sync_front_end_has_no_event_loop_in_its_thread(front: FrontEnd) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


@scenario(Base.metadata, front_ends=["async"])
async def test_async_front_end_runs_on_an_event_loop(front: FrontEnd) -> None:
    assert asyncio.get_running_loop().is_running()


@scenario(Base.metadata)
async def test_savepoints_are_real_on_every_database(front: FrontEnd) -> None:
    async with front.begin():
        await front.add(Shelf(id=1, label="kept"))
        savepoint = await front.begin_nested()
        await front.add(Shelf(id=2, label="dropped"))
        await front.flush()
        await savepoint.rollback()
        async with front.begin_nested():
            await front.add(Shelf(id=3, label="kept too"))
    assert await front.committed_rows(SHELVES) == [(1, "kept"), (3, "kept too")]


@scenario(Base.metadata)
async def test_savepoint_of_a_transaction_that_rolls_back_is_gone(front: FrontEnd) -> None:
    transaction = await front.begin()
    async with front.begin_nested():
        await front.add(Shelf(id=1, label="dropped"))
    await transaction.rollback()
    assert await front.committed_rows(SHELVES) == []


@scenario(Base.metadata)
async def test_every_database_checks_foreign_keys(front: FrontEnd) -> None:
    await front.add(Book(id=1, shelf_id=404))
    with pytest.raises(IntegrityError):
        await front.commit()


@scenario(Base.metadata, expire_on_commit=True)
async def test_statements_are_counted(front: FrontEnd) -> None:
    shelf = Shelf(id=1, label="top")
    await front.add(shelf)
    with front.statements(boundaries=True) as sent:
        await front.commit()
        await front.refresh(shelf)
        await front.rollback()
    assert [statement.split()[0] for statement in sent] == ["INSERT", "COMMIT", "SELECT", "ROLLBACK"]


@pytest.mark.parametrize("left_behind", ["rows", "rows and a column", "nothing"])
@scenario(Base.metadata)
async def test_each_scenario_finds_tables_as_declared_and_empty(front: FrontEnd, left_behind: str) -> None:
    """Although those of a server stand from one to the next."""

    def columns(session: Session) -> list[str]:
        return [column["name"] for column in inspect(session.connection()).get_columns("shelves")]

    assert await front.run_sync(columns) == ["id", "label"]
    await front.rollback()
    if left_behind == "nothing":
        return
    shelf = Shelf(label="left behind")
    await front.add(shelf)
    await front.flush()
    await front.add(Book(shelf_id=shelf.id))
    await front.commit()
    assert await front.committed_rows(SHELVES) == [(1, "left behind")]
    if left_behind == "rows and a column":
        await front.execute(text("ALTER TABLE shelves ADD COLUMN more INTEGER"))
        await front.commit()


def test_a_scenario_that_waits_for_a_loop_is_refused() -> None:
    async def wait_for_a_loop() -> None:
        future: asyncio.Future[None] = asyncio.Future(loop=loop)
        await future

    loop = asyncio.new_event_loop()
    with pytest.raises(RuntimeError, match="waited for an event loop"):
        run_without_loop(wait_for_a_loop())
    loop.close()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["called", "awaited"])
@scenario(Base.metadata)
async def test_events_are_recorded(front: FrontEnd, recorder: EventRecorder, *, asynchronous: bool) -> None:
    recorder.listen(Shelf, asynchronous=asynchronous)
    shelf = Shelf(id=1, label="top")
    await front.add(shelf)
    await front.commit()
    assert recorder.take() == [("create", "Shelf", 1, None)]
    shelf.label = "bottom"
    await front.commit()
    assert recorder.take() == [("update", "Shelf", 1, {"label": {"old": "top", "new": "bottom"}})]
    await front.delete(shelf)
    await front.commit()
    assert recorder.take() == [("delete", "Shelf", 1, None)]
    await front.commit()
    assert recorder.take() == []


def test_listeners_of_another_test_are_gone() -> None:
    """The recorders above listened to ``Shelf`` in other tests; this one starts with none of them."""
    recorded: list[str] = []

    def record_inside(*_: object) -> None:
        recorded.append("inside")

    with listener_scope():
        listens_for(Shelf)(record_inside)
        deliver_a_shelf()
    deliver_a_shelf()
    assert recorded == ["inside"]


def deliver_a_shelf() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with SyncEventSession(engine) as session:
        session.add(Shelf(id=1, label="top"))
        session.commit()
    engine.dispose()
