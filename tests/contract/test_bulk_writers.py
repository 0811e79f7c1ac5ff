"""Rule B2 where others write between the SELECT that reads a bulk statement's rows and the statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Executable, create_engine, delete, event, select, text, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_toolsets.models import Phase, listens_for

from ..front_ends import EventRecorder, FrontEnd, RecordedEvent, resolve, scenario
from .bulk_models import PARCELS, Base, Parcel, Stamp, three_parcels, upsert
from .event_models import LOCAL, deleted, updated

_UPSERT = insert(Parcel).values(id=1, code="p1", weight=9)

STATEMENTS: dict[str, tuple[Executable, list[dict[str, int]] | None, list[RecordedEvent], list[int]]] = {
    "update": (
        update(Parcel).where(Parcel.id == 1).values(weight=Parcel.weight + 1),
        None,
        [updated(Parcel, 1, weight=(1, 2))],
        [2, 2, 3],
    ),
    "delete": (delete(Parcel).where(Parcel.weight == 1), None, [deleted(Parcel, 1)], [2, 3]),
    "rows": (update(Parcel), [{"id": 1, "weight": 8}], [updated(Parcel, 1, weight=(1, 8))], [8, 2, 3]),
    "upsert": (
        _UPSERT.on_conflict_do_update(index_elements=["id"], set_={"weight": Parcel.weight + 10}),
        None,
        [updated(Parcel, 1, weight=(1, 11))],
        [11, 2, 3],
    ),
}


class ViewBase(DeclarativeBase):
    """Of what the database shows, and a trigger writes."""


class Shown(ViewBase):
    __tablename__ = "shown_parcels"
    __bulk_events__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    weight: Mapped[int]


@contextmanager
def another_writer(front: FrontEnd, engine: Any) -> Generator[list[str]]:  # noqa: ANN401 - of either kind
    """Let somebody else try to write right after each SELECT of parcels; collect what SQLite says to that."""
    answers: list[str] = []

    def write(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("SELECT"):
            other = sqlite3.connect(str(front.database.url.database), timeout=0)
            try:
                other.execute("UPDATE bulk_parcels SET weight = 50 WHERE id = 1")
                other.commit()
                answers.append("written")
            except sqlite3.OperationalError as error:
                answers.append(str(error))
            finally:
                other.close()

    event.listen(engine, "after_cursor_execute", write)
    try:
        yield answers
    finally:
        event.remove(engine, "after_cursor_execute", write)


@pytest.mark.parametrize("recipe", [True, False])
@pytest.mark.parametrize("name", list(STATEMENTS))
@scenario(Base.metadata, databases=LOCAL)
async def test_sqlite_lets_nobody_else_write_in_between(
    front: FrontEnd,
    recorder: EventRecorder,
    name: str,
    recipe: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """B2, E3: whether or not a transaction begins with the SELECT, others wait as they do for the statement alone."""
    await three_parcels(front, recorder)
    with sqlite3.connect(str(front.database.url.database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # where a SELECT keeps nobody from writing
    connection.close()
    engine: Any = front.engine
    if not recipe:
        url = front.database.async_url if front.is_async else front.database.sync_url
        engine = create_async_engine(url) if front.is_async else create_engine(url)
    try:
        session = front.new_session(bind=engine)
        statement, rows, events, weights = STATEMENTS[name]
        with another_writer(front, engine.sync_engine if front.is_async else engine) as answers:
            await session.execute(statement, rows)
            assert answers == ["database is locked"]
            await session.commit()
        await session.close()
    finally:
        if not recipe:
            await resolve(engine.dispose())
    assert recorder.take() == events
    assert [row[3] for row in await front.committed_rows(PARCELS)] == weights


@scenario(Base.metadata, databases=LOCAL)
async def test_what_takes_the_lock_changes_nothing(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: a column that changes with each UPDATE changes once, with the statement itself."""
    session = front.new_session()
    await session.add(Stamp(id=1, value=1))
    await session.add(Stamp(id=2, value=2))
    await session.commit()
    recorder.listen(Stamp)
    await session.execute(update(Stamp).where(Stamp.id == 1).values(value=5))
    await session.commit()
    assert recorder.take() == [updated(Stamp, 1, value=(1, 5), touched=(0, 7))]
    assert await front.committed_rows(Stamp.__table__.select()) == [(1, 5, 7), (2, 2, 0)]


VIEWED: dict[str, tuple[str, Executable, list[RecordedEvent], list[int]]] = {
    "delete": (
        "DELETE ON shown_parcels BEGIN DELETE FROM bulk_parcels WHERE id = OLD.id; END",
        delete(Shown).where(Shown.id == 1),
        [deleted(Shown, 1)],
        [2, 3],
    ),
    "update": (
        "UPDATE ON shown_parcels BEGIN UPDATE bulk_parcels SET weight = NEW.weight WHERE id = OLD.id; END",
        update(Shown).where(Shown.id == 1).values(weight=9),
        [updated(Shown, 1, weight=(1, 9))],
        [9, 2, 3],
    ),
}


@pytest.mark.parametrize("name", list(VIEWED))
@scenario(Base.metadata, databases=LOCAL)
async def test_view_with_a_trigger_for_one_kind_of_statement(
    front: FrontEnd, recorder: EventRecorder, name: str
) -> None:
    """B2: what takes the lock is of the kind of the statement, since a view may know of no other."""
    trigger, statement, events, weights = VIEWED[name]
    await three_parcels(front, recorder)
    recorder.listen(Shown)
    session = front.new_session()
    await session.execute(text("CREATE VIEW shown_parcels AS SELECT id, weight FROM bulk_parcels"))
    await session.execute(text(f"CREATE TRIGGER written_parcels INSTEAD OF {trigger}"))
    await session.execute(statement)
    await session.commit()
    assert recorder.take() == events
    assert [row[3] for row in await front.committed_rows(PARCELS)] == weights


SAME_WEIGHT: dict[str, Callable[[FrontEnd], tuple[Executable, list[dict[str, int]] | None]]] = {
    "criteria": lambda _front: (update(Parcel).where(Parcel.weight > 4).values(weight=5), None),
    "rows": lambda _front: (update(Parcel), [{"id": 1, "weight": 5}]),
    "upsert": lambda front: (upsert(front, Parcel, "id", [{"id": 1, "code": "p1", "weight": 5}], "weight"), None),
}


@pytest.mark.parametrize("is_told_of_rollback", [False, True])
@pytest.mark.parametrize("name", list(SAME_WEIGHT))
@scenario(Base.metadata, databases=("postgresql", "mariadb"))
async def test_value_that_others_have_set_already(
    front: FrontEnd, recorder: EventRecorder, name: str, *, is_told_of_rollback: bool
) -> None:
    """B2, E2: it is no change, though MariaDB goes on to show the row as it was when the transaction first read."""
    await three_parcels(front, recorder)
    if is_told_of_rollback:
        listens_for(Parcel, phase=Phase.AFTER_ROLLBACK)(recorder.record)
    await front.scalars(select(Parcel.weight))
    other = front.plain_session()
    await other.execute(update(Parcel).where(Parcel.id == 1).values(weight=5))
    await other.commit()
    statement, rows = SAME_WEIGHT[name](front)
    await front.execute(statement, rows)
    await front.commit()
    assert recorder.take() == []
    assert [row[3] for row in await front.committed_rows(PARCELS)] == [5, 2, 3]
