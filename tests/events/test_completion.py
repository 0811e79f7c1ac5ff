"""What is read inside the transaction for callbacks: rows that other statements changed, rows that went away."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

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
    """E4: of an updated row that nobody can read any more, what is known is told, and nothing is made up."""
    order: Any = Order(id=1, status="new", quantity=1)
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    order.status = "paid"
    order.quantity = Order.quantity + 1
    await front.flush()
    await front.execute(text("DELETE FROM orders"))
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "paid"))]
