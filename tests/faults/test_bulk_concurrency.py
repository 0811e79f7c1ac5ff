"""B2 while others write: a bulk statement tells of what it wrote, no more and no less."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, delete, event, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_toolsets.errors import BulkWriteError
from fastapi_toolsets.models import Phase

from ..contract.event_models import created, deleted, updated
from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario


class Base(DeclarativeBase):
    type_annotation_map = TYPES
    __bulk_events__ = True


class Ticket(Base):
    __tablename__ = "bulk_tickets"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    code: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str] = mapped_column(default="new")


class Pair(Base):
    __tablename__ = "bulk_pairs"
    a: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    b: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(default="new")


def insert_before(front: FrontEnd, start: str, *rows: dict[str, Any]) -> None:
    """Let somebody else commit rows right before the statement that begins so is sent."""
    engine = front.database.create_engine()
    waiting = [start]

    def write(_connection: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        if waiting and statement.startswith(start):
            waiting.clear()
            with engine.begin() as other:
                for row in rows:
                    other.execute(insert(Ticket if "id" in row else Pair), row)
            engine.dispose()

    event.listen(front.sync_engine, "before_cursor_execute", write)


@scenario(Base.metadata, databases=["postgresql"])
async def test_rows_that_others_add_meanwhile(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: rows that were committed after the statement's rows were read are neither written nor told."""
    recorder.listen(Ticket)
    recorder.listen(Pair)
    await front.add_all([Ticket(id=1, code="a"), Pair(a=1, b=1)])
    await front.commit()
    recorder.take()
    insert_before(front, "UPDATE", {"id": 2, "code": "b"})
    await front.execute(update(Ticket).values(status="sent"))
    insert_before(front, "UPDATE", {"a": 2, "b": 2})
    await front.execute(update(Pair).values(status="sent"))
    insert_before(front, "DELETE", {"id": 3, "code": "c"})
    await front.execute(delete(Ticket).where(Ticket.id != 2))
    await front.commit()
    assert recorder.take() == [deleted(Ticket, 1), updated(Pair, (1, 1), status=("new", "sent"))]
    tickets = await front.committed_rows(select(Ticket.id, Ticket.status).order_by(Ticket.id))
    assert tickets == [(2, "new"), (3, "new")]
    assert await front.committed_rows(select(Pair.a, Pair.status).order_by(Pair.a)) == [(1, "sent"), (2, "new")]


@scenario(Base.metadata, databases=["postgresql"])
async def test_upsert_of_a_row_that_somebody_else_adds_meanwhile(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: what would have been told as a CREATE, and was none, is an error; after a rollback it is an UPDATE."""
    recorder.listen(Ticket)
    statement = postgresql.insert(Ticket).values([{"id": 1, "code": "a", "status": "mine"}])
    statement = statement.on_conflict_do_update(index_elements=["code"], set_={"status": statement.excluded.status})
    insert_before(front, "INSERT", {"id": 9, "code": "a", "status": "theirs"})
    with pytest.raises(BulkWriteError, match="others have added rows with the same keys"):
        await front.execute(statement)
    await front.rollback()
    await front.execute(statement)
    await front.commit()
    assert recorder.take() == [updated(Ticket, 9, status=("theirs", "mine"))]


@scenario(Base.metadata)
async def test_every_phase_hears_of_bulk_statements(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, P1, P2: before the commit, after it, and after a rollback, with old and new."""
    before, rolled_back = EventRecorder(), EventRecorder()
    recorder.listen(Ticket)
    before.listen(Ticket, phase=Phase.BEFORE_COMMIT)
    rolled_back.listen(Ticket, phase=Phase.AFTER_ROLLBACK)
    await front.execute(insert(Ticket), [{"id": key, "code": f"c{key}"} for key in (1, 2)])
    await front.commit()
    expected = [created(Ticket, 1), created(Ticket, 2)]
    assert (before.take(), recorder.take(), rolled_back.take()) == (expected, expected, [])
    await front.execute(update(Ticket).values(status=Ticket.status.concat("!")))
    await front.execute(delete(Ticket).where(Ticket.id == 2))
    await front.execute(insert(Ticket), [{"id": 3, "code": "c3"}])
    expected = [updated(Ticket, 1, status=("new", "new!")), deleted(Ticket, 2), created(Ticket, 3)]
    await front.rollback()
    assert (before.take(), recorder.take(), rolled_back.take()) == ([], [], expected)
    await front.execute(update(Ticket).where(Ticket.id == 1).values(status="sent"))
    await front.commit()
    expected = [updated(Ticket, 1, status=("new", "sent"))]
    assert (before.take(), recorder.take(), rolled_back.take()) == (expected, expected, [])


@scenario(Base.metadata)
async def test_a_statement_that_fails_tells_nothing(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, T3, T4: what a failed statement was about to do is not told, and the rest of the transaction is."""
    await front.add_all([Ticket(id=1, code="a"), Ticket(id=2, code="b")])
    await front.commit()
    recorder.listen(Ticket)
    await front.execute(update(Ticket).where(Ticket.id == 1).values(status="sent"))
    for statement in (update(Ticket).values(code="x"), update(Ticket).values(id=5)):
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
            async with front.begin_nested():
                await front.execute(statement)
    await front.commit()
    assert recorder.take() == [updated(Ticket, 1, status=("new", "sent"))]
