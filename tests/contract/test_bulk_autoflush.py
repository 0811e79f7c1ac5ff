"""Rule B2: a bulk statement that makes events flushes before it where it does on a plain session, and not elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Executable, insert, inspect, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ..front_ends import EventRecorder, FrontEnd, scenario
from .bulk_models import PARCELS, Base, Parcel, store, upsert
from .event_models import created, table_of, updated

MakeStatement = Callable[[FrontEnd], tuple[Executable, Any]]

STATEMENTS: dict[str, MakeStatement] = {
    "insert": lambda _: (insert(Parcel).values(id=3, code="b"), None),
    "insert-many": lambda _: (insert(Parcel), [{"id": 3, "code": "b"}]),
    "upsert": lambda front: (upsert(front, Parcel, "code", [{"id": 1, "code": "a", "weight": 2}], "weight"), None),
    "update-many": lambda _: (update(Parcel), [{"id": 1, "weight": 2}]),
    "update": lambda _: (update(Parcel).where(Parcel.id == 1).values(weight=2), None),
    "table-insert": lambda _: (table_of(Parcel).insert().values(id=3, code="b"), None),
    "table-insert-many": lambda _: (table_of(Parcel).insert(), [{"id": 3, "code": "b"}]),
}


@pytest.mark.parametrize("name", STATEMENTS)
@pytest.mark.parametrize("options", [{}, {"autoflush": False}], ids=["", "no-autoflush"])
@scenario(Base.metadata)
async def test_when_it_flushes(front: FrontEnd, recorder: EventRecorder, name: str, options: dict[str, bool]) -> None:
    """B2: what waits to be flushed is flushed first, or waits on with the execution option ``autoflush=False``."""
    await store(front, Parcel(id=1, code="a"))
    statement, parameters = STATEMENTS[name](front)
    waits: list[bool] = []
    for session in (front.plain_session(), front.new_session()):
        pending = Parcel(id=2, code="c")
        await session.add(pending)
        await session.execute(statement, parameters, execution_options=options)
        waits.append(inspect(pending).pending)
        if len(waits) == 1:
            await session.rollback()
            recorder.listen(Parcel)
    assert waits[0] is waits[1]
    await session.commit()
    told = updated(Parcel, 1, weight=(1, 2)) if name.startswith("up") else created(Parcel, 3)
    assert recorder.take() == ([told, created(Parcel, 2)] if waits[1] else [created(Parcel, 2), told])


@pytest.mark.parametrize("name", ["insert-many", "upsert", "update-many"])
@scenario(Base.metadata)
async def test_flush_that_fails(front: FrontEnd, recorder: EventRecorder, name: str) -> None:
    """B2: the error of that flush says that it was no flush of the caller's."""
    await store(front, Parcel(id=1, code="a"))
    statement, parameters = STATEMENTS[name](front)
    raised: list[str] = []
    for session in (front.plain_session(), front.new_session()):
        await session.add(Parcel(id=2, code="a"))
        with pytest.raises(IntegrityError) as caught:
            await session.execute(statement, parameters)
        if not raised:
            recorder.listen(Parcel)
        raised.append(str(caught.value))
        await session.rollback()
    assert raised[0] == raised[1]
    assert recorder.take() == []
    assert [row[0] for row in await front.committed_rows(PARCELS)] == [1]


def save_new(session: Session) -> None:
    session.bulk_save_objects(Parcel(id=key, code="b") for key in next_keys(session))


def insert_mappings(session: Session) -> None:
    session.bulk_insert_mappings(Parcel, ({"id": key, "code": "b"} for key in next_keys(session)))


def update_mappings(session: Session) -> None:
    session.bulk_update_mappings(Parcel, ({"id": key - 1, "note": "b"} for key in next_keys(session)))


def next_keys(session: Session) -> Iterator[int]:
    yield len(session.scalars(select(Parcel.id)).all()) + 1


@pytest.mark.parametrize("write", [save_new, insert_mappings, update_mappings])
@scenario(Base.metadata)
async def test_rows_that_are_read_as_they_are_given(
    front: FrontEnd, recorder: EventRecorder, write: Callable[[Session], None]
) -> None:
    """E3, B2: what a bulk method is given may be a generator that asks the database, which flushes what waits."""
    await store(front, Parcel(id=1, code="a"), Parcel(id=2, code="c"))
    recorder.listen(Parcel)
    session = front.new_session()
    loaded = await session.get(Parcel, 1)
    assert loaded is not None
    await session.expire(loaded)
    loaded.weight = 5
    await session.run_sync(write)
    await session.commit()
    told = updated(Parcel, 2, note=(None, "b")) if write is update_mappings else created(Parcel, 3)
    assert recorder.take() == [updated(Parcel, 1, weight=(1, 5)), told]
