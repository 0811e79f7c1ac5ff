"""Rules E11, E12 and P3: what one ``BEFORE_COMMIT`` callback writes leaves nothing for the next one to load."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import JSON, Computed, ForeignKey, select, update
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from fastapi_toolsets.models import Changes, Event, ModelEvent, Phase, listens_for

from ..databases import TYPES
from ..front_ends import AnySession, EventRecorder, FrontEnd, scenario
from ..session_adapter import resolve
from .bulk_models import store
from .event_models import created


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Box(Base):
    __tablename__ = "expired_boxes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    side: Mapped[int] = mapped_column(default=1)
    area: Mapped[int] = mapped_column(Computed("side * side", persisted=True))


async def change_and_query(session: AnySession, box: Box) -> None:
    box.side = 5
    await resolve(session.execute(select(Box.id)))  # flushes, and PostgreSQL alone tells the area at once


async def update_in_bulk(session: AnySession, box: Box) -> None:
    statement = update(Box).where(Box.id == box.id).values(side=5)
    await resolve(session.execute(statement, execution_options={"events": True}))


async def expire(session: AnySession, box: Box) -> None:
    await change_and_query(session, box)
    session.expire_all()


class Case(Base):
    __tablename__ = "expired_cases"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tags: Mapped[dict[str, Any]] = mapped_column(MutableDict.as_mutable(JSON), default=dict)
    boxed: Mapped[list[Boxed]] = relationship(cascade="all")


class Boxed(Base):
    __tablename__ = "expired_boxed"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    case_id: Mapped[int] = mapped_column(ForeignKey("expired_cases.id"))
    name: Mapped[str] = mapped_column(default="lid")


WAYS = {way.__name__: way for way in (change_and_query, update_in_bulk, expire)}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("asynchronous", [False, True])
@scenario(Base.metadata)
async def test_columns_that_another_callback_has_expired(
    front: FrontEnd, recorder: EventRecorder, name: str, *, asynchronous: bool
) -> None:
    """E11, P3: every column can be read without I/O, also by an async callback, and shows what was written."""
    shown: list[tuple[int, int, int]] = []
    counts: list[int] = []
    way = WAYS[name]
    recorder.listen(Box)

    @listens_for(Box, ModelEvent.CREATE, phase=Phase.BEFORE_COMMIT)
    async def write(box: Box, event_type: ModelEvent, changes: Changes | None, *, session: Any) -> None:  # noqa: ANN401 - either kind
        if box.side == 1:
            await way(session, box)

    def read(box: Box, event_type: ModelEvent, changes: Changes | None) -> None:
        before = len(sent)
        shown.append((box.id, box.side, box.area))
        counts.append(len(sent) - before)

    async def read_later(box: Box, event_type: ModelEvent, changes: Changes | None) -> None:
        read(box, event_type, changes)

    listens_for(Box, ModelEvent.CREATE, phase=Phase.BEFORE_COMMIT)(read_later if asynchronous else read)
    await front.add_all([Box(id=1), Box(id=2)])
    with front.statements() as sent:
        await front.commit()
    assert (shown, counts) == ([(1, 5, 25), (2, 5, 25)], [0, 0])
    assert recorder.take() == [created(Box, 1), created(Box, 2)]


@scenario(Base.metadata)
async def test_cost(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: what a callback has expired of all rows is loaded by one SELECT for those that wait, one more at the end."""
    areas: list[int] = []
    starts: list[int] = []

    @listens_for(Box, ModelEvent.CREATE, phase=Phase.BEFORE_COMMIT)
    async def read(box: Box, event_type: ModelEvent, changes: Changes | None, *, session: AnySession) -> None:
        areas.append(box.area)
        if not starts:
            starts.append(len(sent))
            session.expire_all()

    recorder.listen(Box)
    await front.add_all([Box(id=number, side=number) for number in range(1, 5)])
    with front.statements() as sent:
        await front.commit()
    assert areas == [1, 4, 9, 16]
    assert [statement.split()[0] for statement in sent[starts[0] :]] == ["SELECT", "SELECT"]
    assert recorder.take() == [created(Box, number) for number in range(1, 5)]


PHASES = (Phase.BEFORE_COMMIT, Phase.AFTER_COMMIT)


@pytest.mark.parametrize("model", [Boxed, Box])
@pytest.mark.parametrize("wants_event", [False, True])
@scenario(Base.metadata)
async def test_deleted_rows_that_a_callback_expires(front: FrontEnd, model: type[Base], *, wants_event: bool) -> None:
    """E11: they show their last row in each phase, whoever had them expired by a cascade."""
    shown: list[tuple[Phase, int, str]] = []
    await store(front, Case(id=1, boxed=[Boxed(id=1), Boxed(id=2)]), Box(id=1))
    case = await front.get_one(Case, 1, options=[selectinload(Case.boxed)])
    box = await front.get_one(Box, 1)

    def expire(row: Base, event_type: ModelEvent, changes: Changes | None, *, session: AnySession) -> None:
        session.expire(case)

    def expire_again(
        row: Base, event_type: ModelEvent, changes: Changes | None, *, session: AnySession, event: Event
    ) -> None:
        session.expire(case)

    def show(phase: Phase) -> None:
        @listens_for(Boxed, ModelEvent.DELETE, phase=phase)
        def show_row(boxed: Boxed, event_type: ModelEvent, changes: None) -> None:
            shown.append((phase, boxed.id, boxed.name))

    expires = listens_for(model, ModelEvent.DELETE, phase=Phase.BEFORE_COMMIT)
    if wants_event:
        expires(expire_again)
    else:
        expires(expire)
    for phase in PHASES:
        show(phase)
    for boxed in case.boxed:
        await front.delete(boxed)
    await front.flush()
    await front.delete(box)
    await front.commit()
    assert shown == [(phase, number, "lid") for phase in PHASES for number in (1, 2)]


@scenario(Base.metadata)
async def test_deleted_value_that_changes_in_place(front: FrontEnd) -> None:
    """E5, E11: it is told in each phase as the row had it last."""
    shown: list[tuple[Phase, object, object]] = []

    def show(phase: Phase) -> None:
        @listens_for(Case, ModelEvent.DELETE, phase=phase)
        def show_row(case: Case, event_type: ModelEvent, changes: None, *, event: Event) -> None:
            assert event.before is not None
            shown.append((phase, dict(case.tags), event.before["tags"]))

    for phase in PHASES:
        show(phase)
    await store(front, Case(id=1, tags={"a": 1}))
    case = await front.get_one(Case, 1)
    await front.delete(case)
    await front.flush()
    case.tags["a"] = 2
    await front.commit()
    assert shown == [(phase, {"a": 1}, {"a": 1}) for phase in PHASES]
