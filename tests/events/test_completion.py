"""What is read inside the transaction for callbacks: rows that other statements changed, rows that went away."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import JSON, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, undefer

from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..contract.event_models import LOCAL, Base, Order, updated
from ..front_ends import EventRecorder, FrontEnd, scenario


class DocumentBase(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012 - declared as SQLAlchemy's own documentation does


class Document(DocumentBase):
    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str]
    body: Mapped[dict[str, Any]]


@scenario(DocumentBase.metadata, databases=LOCAL)
async def test_values_read_again_are_copies(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5, E11: a statement changed the row later; a callback that edits the object reaches no other callback."""
    document = Document(id=1, title="draft", body={"text": "old"})
    await front.add(document)
    await front.commit()

    def spoil(row: Document, event_type: ModelEvent, changes: Changes | None) -> None:
        assert row.body == {"text": "by statement"}
        row.body["text"] = "spoiled"

    listens_for(Document)(spoil)
    recorder.listen(Document)
    document.title = "final"
    document.body = {"text": "by the unit of work"}
    await front.flush()
    await front.execute(text("""UPDATE documents SET title = 'other', body = '{"text": "by statement"}'"""))
    await front.commit()
    assert recorder.take() == [
        updated(Document, 1, title=("draft", "other"), body=({"text": "old"}, {"text": "by statement"}))
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_a_row_that_a_statement_deleted(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2: an updated row that is not there when the transaction commits is not told."""
    order: Any = Order(id=1, status="new", quantity=1)
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    order.status = "paid"
    order.quantity = Order.quantity + 1
    await front.flush()
    await front.execute(text("DELETE FROM orders"))
    await front.commit()
    assert recorder.take() == []


@pytest.mark.parametrize("unloaded", [False, True], ids=["loaded", "unloaded"])
@scenario(Base.metadata, databases=LOCAL)
async def test_an_object_that_was_changed_and_expunged(front: FrontEnd, *, unloaded: bool) -> None:
    """E11, E12: callbacks get the row as committed, for at most one SELECT; the object keeps what was assigned."""
    await front.add(Order(id=1, status="new", quantity=1, note="a", memo="b"))
    await front.commit()
    session = front.new_session()
    shown: list[object] = []

    @listens_for(Order)
    def show(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((order.id, order.status, order.quantity, order.note, order.memo, changes))

    order = await session.get_one(Order, 1, options=[undefer(Order.memo)])
    order.status = "paid"
    await session.flush()
    order.quantity = 7
    if unloaded:
        await session.expire(order, ["note", "memo"])
    await session.expunge(order)
    with front.statements() as sent:
        await session.commit()
    assert [statement.split()[0] for statement in sent] == ["SELECT"] * unloaded
    assert shown == [(1, "paid", 1, "a", "b", {"status": {"old": "new", "new": "paid"}})]
    assert order.quantity == 7


@scenario(Base.metadata, databases=LOCAL)
async def test_an_object_that_was_changed_and_expunged_and_written(front: FrontEnd) -> None:
    """E11: where a statement has written its row, callbacks get that."""
    order = Order(id=1, status="new", quantity=1)
    await front.add(order)
    await front.commit()
    shown: list[object] = []

    @listens_for(Order)
    def show(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((order.id, order.status, order.quantity, order.note, changes))

    order.status = "paid"
    await front.flush()
    order.quantity = 7
    await front.expunge(order)
    await front.execute(text("UPDATE orders SET status = 'sent', note = 'raw'"))
    await front.commit()
    assert shown == [(1, "sent", 1, "raw", {"status": {"old": "new", "new": "sent"}})]


@scenario(Base.metadata, databases=LOCAL)
async def test_an_object_that_was_changed_and_expunged_and_deleted(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2: where a statement has deleted its row, nothing is told."""
    order = Order(id=1, status="new", quantity=1)
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    order.status = "paid"
    await front.flush()
    await front.expire(order, ["note"])
    order.quantity = 7
    await front.expunge(order)
    await front.execute(text("DELETE FROM orders"))
    await front.commit()
    assert recorder.take() == []
