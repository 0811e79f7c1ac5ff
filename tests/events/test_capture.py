"""What flushes are read as, where the contract's scenarios do not reach: values made row by row, changed in place."""

from __future__ import annotations

import gc
import itertools
import warnings
from typing import Any

import pytest
from sqlalchemy import JSON, ForeignKey, create_engine, delete, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from fastapi_toolsets.errors import PlainSessionWarning
from fastapi_toolsets.models import Changes, ModelEvent, SyncEventSession, listens_for

from ..contract.event_models import LOCAL, Base, Order, deleted, updated
from ..front_ends import EventRecorder, FrontEnd, scenario

revisions = itertools.count(1)


class DocumentBase(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012 - declared as SQLAlchemy's own documentation does


class Document(DocumentBase):
    """Each row of an UPDATE gets a revision of its own, and a stamp that can be changed in place."""

    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str]
    revision: Mapped[int] = mapped_column(default=0, onupdate=lambda: next(revisions))
    stamp: Mapped[dict[str, Any]] = mapped_column(default=lambda: {"at": 0}, onupdate=lambda: {"at": next(revisions)})


class Page(DocumentBase):
    """As a document, in another table; its last revision comes again."""

    __tablename__ = "pages"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str]
    revision: Mapped[int] = mapped_column(default=0, onupdate=lambda: next(revisions) * 0)
    turn: Mapped[int] = mapped_column(default=0, onupdate=lambda: next(revisions))


class Shelf(DocumentBase):
    __tablename__ = "shelves"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str]
    made: Mapped[str] = mapped_column(server_default="", onupdate=func.lower("BY THE DATABASE"))
    books: Mapped[list[Book]] = relationship(cascade="all, delete-orphan")
    __mapper_args__ = {"eager_defaults": False}  # noqa: RUF012 - declared as SQLAlchemy's own documentation does


class Book(DocumentBase):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shelf_id: Mapped[int] = mapped_column(ForeignKey("shelves.id"))
    title: Mapped[str]
    pages: Mapped[int]


@scenario(DocumentBase.metadata, databases=LOCAL)
async def test_rows_of_one_update_get_their_own_values(front: FrontEnd) -> None:
    """E4, E11: what ``onupdate`` made for each row is in its event and on its object, in one batch, too."""
    models: tuple[type[Any], ...] = (Document, Page)
    told: list[tuple[object, ...]] = []

    def tell(row: Document | Page, event_type: ModelEvent, changes: Changes | None) -> None:
        last: object = row.stamp["at"] if isinstance(row, Document) else row.turn
        told.append((type(row), row.id, changes, row.revision, last))

    rows = [model(id=number, title="draft") for model in models for number in (1, 2, 3)]
    await front.add_all(rows)
    await front.commit()
    for model in models:
        listens_for(model, ModelEvent.UPDATE)(tell)
    for row in rows:
        row.title = "final"
    await front.commit()
    documents = await front.committed_rows(
        Document.__table__.select().with_only_columns(Document.id, Document.revision, Document.stamp).order_by("id")
    )
    pages = await front.committed_rows(Page.__table__.select().with_only_columns(Page.id, Page.turn).order_by("id"))
    title = {"old": "draft", "new": "final"}
    assert len({revision for _, revision, _ in documents} | {stamp["at"] for *_, stamp in documents}) == 6
    assert told == [
        (
            Document,
            number,
            {
                "title": title,
                "revision": {"old": 0, "new": revision},
                "stamp": {"old": {"at": 0}, "new": stamp},
            },
            revision,
            stamp["at"],
        )
        for number, revision, stamp in documents
    ] + [(Page, number, {"title": title, "turn": {"old": 0, "new": turn}}, 0, turn) for number, turn in pages]


@scenario(DocumentBase.metadata, databases=LOCAL)
async def test_values_made_by_the_database_are_copies(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5: nobody who holds the value that an UPDATE replaces or brings reaches the event by changing it in place."""
    document = Document(id=1, title="draft")
    await front.add(document)
    await front.commit()

    def spoil(row: Document, event_type: ModelEvent, changes: Changes | None) -> None:
        row.stamp["at"] = "changed by another callback"

    listens_for(Document)(spoil)
    recorder.listen(Document)
    for assigned in (None, func.json_object("at", 99)):
        held = document.stamp
        before = dict(held)
        document.title += "!"
        if assigned is not None:
            document.stamp = assigned
        await front.flush()
        held["at"] = "changed by its holder"
        if assigned is None:
            document.stamp["at"] = "changed after the flush"
        await front.commit()
        (told,) = recorder.take()
        changes: Any = told[3]
        assert changes["stamp"]["old"] == before
        [stored] = await front.committed_rows(Document.__table__.select().with_only_columns(Document.stamp))
        assert changes["stamp"]["new"] == stored[0]
        await front.refresh(document)


@scenario(Base.metadata, databases=LOCAL)
async def test_an_old_value_is_read_once(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E12: a later flush of the same transaction does not ask again for what the first one has replaced."""
    order = Order(id=1, status="new", quantity=1)
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    for status in ("paid", "sent"):
        await front.expire(order, ["status"])
        order.status = status
        with front.statements() as sent:
            await front.flush()
        assert [statement.split()[0] for statement in sent] == (
            ["SELECT", "UPDATE"] if status == "paid" else ["UPDATE"]
        )
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "sent"))]


@scenario(Base.metadata, databases=LOCAL)
async def test_a_new_row_has_no_old_values_to_read(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E12: what is assigned to an expired object that the transaction created costs no SELECT."""
    recorder.listen(Order)
    order = Order(id=1, status="new", quantity=1)
    await front.add(order)
    await front.flush()
    await front.expire(order, ["status", "quantity"])
    order.status = "paid"
    order.quantity = 2
    with front.statements() as sent:
        await front.flush()
    assert [statement.split()[0] for statement in sent] == ["UPDATE"]
    await front.commit()
    assert [told[:3] for told in recorder.take()] == [("create", "Order", 1)]


@scenario(DocumentBase.metadata, databases=LOCAL)
async def test_a_single_row_is_not_read_again(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: where a statement wrote one row only, what ``onupdate`` made for it is known."""
    page = Page(id=1, title="draft")
    await front.add(page)
    await front.commit()
    recorder.listen(Page)
    page.title = "final"
    with front.statements() as sent:
        await front.commit()
    assert [statement.split()[0] for statement in sent] == ["UPDATE"]
    assert recorder.take() == [updated(Page, 1, title=("draft", "final"), turn=(0, page.turn))]


@scenario(DocumentBase.metadata, databases=LOCAL)
async def test_values_made_by_the_database_that_come_out_the_same(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E4: among many rows each is told what has really changed in it, and one in which nothing has is not told."""
    made = "by the database"
    before = [("a", ""), ("b", made), ("c", made), ("d", made), ("e", "")]
    shelves = [Shelf(id=number, label=label, made=old) for number, (label, old) in enumerate(before, start=1)]
    await front.add_all(shelves)
    await front.commit()
    recorder.listen(Shelf)
    after: list[Any] = ["A", "B", func.lower("C"), func.lower("D!"), func.lower("E")]
    for shelf, label in zip(shelves, after, strict=True):
        shelf.label = label
    await front.commit()
    assert recorder.take() == [
        updated(Shelf, 1, label=("a", "A"), made=("", made)),
        updated(Shelf, 2, label=("b", "B")),
        updated(Shelf, 4, label=("d", "d!")),
        updated(Shelf, 5, made=("", made)),
    ]


@scenario(DocumentBase.metadata, databases=LOCAL)
async def test_a_row_switch_whose_values_were_read_before_the_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """E4, E8: what the database made is in the event, whoever has loaded it since the flush."""
    await front.add(Shelf(id=1, label="old", made="by hand"))
    await front.commit()
    recorder.listen(Shelf)
    await front.delete(await front.get_one(Shelf, 1))
    shelf = Shelf(id=1, label="new")
    await front.add(shelf)
    await front.flush()
    await front.refresh(shelf)
    await front.commit()
    assert recorder.take() == [updated(Shelf, 1, label=("old", "new"), made=("by hand", "by the database"))]


@scenario(DocumentBase.metadata, databases=LOCAL)
async def test_a_new_member_hides_no_orphan(front: FrontEnd) -> None:
    """E6, E11: where one member comes and another goes in one flush, the one that is deleted shows its last row."""
    await front.add(Shelf(id=1, label="a", books=[Book(id=1, title="gone", pages=7)]))
    await front.commit()
    session = front.new_session()
    told: list[tuple[str, int, str, int]] = []

    @listens_for(Book)
    def tell(book: Book, event_type: ModelEvent, changes: Changes | None) -> None:
        told.append((event_type.value, book.id, book.title, book.pages))

    options = selectinload(Shelf.books).load_only(Book.id)
    shelf = (await session.scalars(select(Shelf).options(options))).one()
    shelf.books = [Book(id=2, title="new", pages=1)]
    await session.commit()
    assert told == [("create", 2, "new", 1), ("delete", 1, "gone", 7)]


@pytest.mark.parametrize(
    "expression",
    [Order.id, Order.id + 0, func.abs(-7), text("7"), select(func.max(Order.id)).scalar_subquery()],
    ids=lambda expression: type(expression).__name__,
)
@scenario(Base.metadata, databases=LOCAL)
async def test_every_kind_of_expression(front: FrontEnd, recorder: EventRecorder, *, expression: Any) -> None:  # noqa: ANN401 - what SQLAlchemy takes as a value
    """E4: a mapped attribute, an operator, a function, text, a subquery: its value is told, and what it replaced."""
    order: Any = Order(id=7, status="new", quantity=1)
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    order.quantity = expression
    await front.commit()
    assert recorder.take() == [updated(Order, 7, quantity=(1, 7))]


class Ticket(DocumentBase):
    """Deleting one that is not there any more is no error."""

    __tablename__ = "tickets"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seat: Mapped[str]
    __mapper_args__ = {"confirm_deleted_rows": False}  # noqa: RUF012 - declared as SQLAlchemy's own documentation does


@scenario(DocumentBase.metadata, databases=LOCAL)
async def test_a_row_that_was_gone_before_it_was_deleted(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6, E11: where its last row cannot be read, the DELETE is told with what is known."""
    ticket = Ticket(id=1, seat="A1")
    await front.add(ticket)
    await front.commit()
    recorder.listen(Ticket)
    await front.execute(text("DELETE FROM tickets"))
    await front.expire(ticket, ["seat"])
    ticket.seat = "B2"
    await front.delete(ticket)
    await front.commit()
    assert recorder.take() == [deleted(Ticket, 1)]


@scenario(DocumentBase.metadata, databases=LOCAL)
async def test_a_member_that_stays_is_not_read_as_an_orphan(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: only a member that its parent has lost is about to be deleted; of another the flush reads nothing."""
    await front.add(Shelf(id=1, label="a", books=[Book(id=1, title="old", pages=7)]))
    await front.commit()
    recorder.listen(Book)
    session = front.new_session()
    options = selectinload(Shelf.books).load_only(Book.title)
    shelf = (await session.scalars(select(Shelf).options(options))).one()
    shelf.books[0].title = "new"
    with front.statements() as sent:
        await session.flush()
    assert [statement.split()[0] for statement in sent] == ["UPDATE"]
    await session.commit()
    assert recorder.take() == [updated(Book, 1, title=("old", "new"))]


ROWS = (10, 200)


@pytest.mark.parametrize("change", ["create", "update", "delete"])
def test_what_a_flush_keeps_is_no_object_for_each_row(change: str) -> None:
    """A container for each row would be one more that the garbage collector goes through in every commit."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)

    @listens_for(Order)
    def ignore(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    def containers(session: Session, number: int) -> int:
        """Write so many rows, and count what came up and is left while they wait for the COMMIT.

        What was there before is frozen, and not counted: other tests' objects may go at any time.
        """
        gc.collect()
        gc.freeze()
        orders = [Order(id=key, status="new") for key in range(number)]
        session.add_all(orders)
        if change != "create":
            session.flush()
            session.commit()
        for order in orders if change != "create" else ():
            if change == "update":
                order.status = "paid"
            else:
                session.delete(order)
        session.flush()
        gc.collect()
        kept = len(gc.get_objects())
        session.rollback()
        return kept

    kept: list[int] = []
    for number in ROWS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PlainSessionWarning)
            counted: list[int] = []
            for class_ in (Session, SyncEventSession, Session, SyncEventSession):  # the first two make what stays
                with class_(engine, expire_on_commit=False) as session:
                    counted.append(containers(session, number))
                with engine.begin() as connection:
                    connection.execute(delete(Order))
        kept.append(counted[3] - counted[2])
    engine.dispose()
    assert kept[1] <= kept[0]
