"""Rules T7, T8 and E12: with listeners a session writes what a plain one writes, and leaves objects as that does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

import pytest
from sqlalchemy import JSON, ForeignKey, Table, func, insert, select, text, update
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, make_transient, mapped_column, relationship

from fastapi_toolsets.models import Changes, ModelEvent, Phase, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from ..session_adapter import SessionAdapter
from .bulk_models import store
from .event_models import LOCAL, created, listening_to, updated


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Parent(Base):
    __tablename__ = "twin_parents"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    code: Mapped[str | None]
    children: Mapped[list[Child]] = relationship(back_populates="parent", lazy="raise")
    coded: Mapped[list[Coded]] = relationship(
        primaryjoin="Parent.code == foreign(Coded.code)", lazy="raise_on_sql", viewonly=False
    )


class Child(Base):
    __tablename__ = "twin_children"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("twin_parents.id"))
    touched: Mapped[int] = mapped_column(default=0, onupdate=text("touched + 1"))
    version: Mapped[int] = mapped_column()
    parent: Mapped[Parent | None] = relationship(back_populates="children")
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy reads it


class Coded(Base):
    __tablename__ = "twin_coded"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    code: Mapped[str | None]


class Paper(Base):
    __tablename__ = "twin_papers"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]
    note: Mapped[str | None]
    data: Mapped[dict[str, Any] | None] = mapped_column(JSON)


Step: TypeAlias = Callable[[SessionAdapter], Awaitable[None]]


def written(statements: list[str]) -> list[str]:
    """What was sent but for SELECTs, of which a session with listeners may send more."""
    return [statement for statement in statements if not statement.startswith("SELECT")]


async def as_plain(
    front: FrontEnd, recorder: EventRecorder, *rows: object, step: Step, model: type[Child | Coded]
) -> None:
    """Take a step in a plain session, then in one with events, and see that both have sent and written the same."""
    table = cast("Table", model.__table__)
    columns = [column for column in table.columns if column.key != "id"]
    statement = select(*columns).order_by(table.c.id)
    found: list[object] = []
    for session in (front.plain_session(expire_on_commit=True), front.new_session(expire_on_commit=True)):
        for other in reversed(Base.metadata.sorted_tables):
            await front.execute(other.delete())
        await front.commit()
        await store(front, *rows)
        for row in rows:
            make_transient(row)
        if found:
            recorder.listen(model)
        with front.statements() as sent:
            await step(session)
            await session.commit()
        found.append((written(sent), await front.committed_rows(statement)))
    assert found[0] == found[1]


@pytest.mark.parametrize("parent", [None, 1])
@scenario(Base.metadata)
async def test_relationship_that_is_set_to_what_the_row_has(
    front: FrontEnd, recorder: EventRecorder, parent: int | None
) -> None:
    """E12: a foreign key that was not loaded is written, and sets the version and what an UPDATE sets with it."""

    async def step(session: SessionAdapter) -> None:
        child = await session.get_one(Child, 1)
        given = None if parent is None else await session.get_one(Parent, parent)
        await session.expire(child)
        child.parent = given

    rows = Parent(id=1), Child(id=1, parent_id=parent)
    await as_plain(front, recorder, *rows, step=step, model=Child)
    assert recorder.take() == [updated(Child, 1, touched=(0, 1), version=(1, 2))]


@scenario(Base.metadata)
async def test_members_whose_relationship_refuses_to_load(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6: deleting their parent loads them all the same, as the flush does."""

    async def step(session: SessionAdapter) -> None:
        await session.delete(await session.get_one(Parent, 1))

    rows = Parent(id=1, code="a"), Child(id=1, parent_id=1), Coded(id=1, code="a")
    await as_plain(front, recorder, *rows, step=step, model=Child)
    assert recorder.take() == [updated(Child, 1, parent_id=(1, None), touched=(0, 1), version=(1, 2))]


@scenario(Base.metadata)
async def test_members_of_a_parent_whose_key_was_assigned_to(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6: those of the row that is deleted are looked for, not those of the key that was never written."""

    async def step(session: SessionAdapter) -> None:
        parent = await session.get_one(Parent, 1)
        parent.code = "b"
        await session.delete(parent)

    rows = Parent(id=1, code="a"), Coded(id=1, code="a"), Coded(id=2, code="b")
    await as_plain(front, recorder, *rows, step=step, model=Coded)
    assert recorder.take() == [updated(Coded, 1, code=("a", None))]


@scenario(Base.metadata)
async def test_merge_of_an_object_with_attributes_left_out(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E12: what the INSERT left out is nothing that a later merge writes, whatever others have written since."""
    recorder.listen(Paper)
    paper = Paper(id=1, name="new")
    await front.add(paper)
    await front.commit()
    other = front.plain_session()
    await other.execute(update(Paper).values(note="by others", data={"by": "others"}))
    await other.commit()
    another = front.new_session()
    await another.merge(paper)
    await another.commit()
    assert recorder.take() == [created(Paper, 1)]
    row = ("new", "by others", {"by": "others"})
    assert await front.committed_rows(select(Paper.name, Paper.note, Paper.data)) == [row]


@scenario(Base.metadata)
async def test_object_with_attributes_left_out_that_is_added_again(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: JSON's own ``null`` is what was set to ``None``, SQL's what was not."""
    recorder.listen(Paper)
    paper = Paper(id=1, name="new")
    await front.add(paper)
    await front.commit()
    await front.expunge(paper)
    make_transient(paper)
    paper.id = 2
    await front.add(paper)
    await front.commit()
    nulls = select(func.count()).where(text("data IS NULL")).select_from(Paper)
    assert (await front.committed_rows(nulls), recorder.take()) == ([(2,)], [created(Paper, 1), created(Paper, 2)])


@scenario(Base.metadata)
async def test_flush_that_is_refused_inside_a_flush(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E4: it forgets nothing of the one around it."""
    await store(front, Child(id=1))
    recorder.listen(Child)
    child: Any = await front.get_one(Child, 1)
    await front.commit()
    child.touched = Child.touched + 5
    refused: list[bool] = []

    def flush(session: Session, _transaction: object, _connection: object) -> None:
        refused.append(True)
        with pytest.raises(InvalidRequestError, match="already flushing"):
            session.flush()

    with listening_to(front.sync_session, "after_begin", flush):
        await front.commit()
    assert (refused, recorder.take()) == ([True], [updated(Child, 1, touched=(0, 5), version=(1, 2))])


@scenario(Base.metadata, databases=LOCAL, expire_on_commit=True)
async def test_what_a_listener_adds_for_the_next_transaction(front: FrontEnd) -> None:
    """C6, T7: the callbacks of the one that has ended do not take it for a leftover of theirs."""
    await store(front, Parent(id=1))
    told: list[int] = []

    @listens_for(Parent)
    def tell(parent: Parent, event_type: ModelEvent, changes: Changes | None, *, session: object) -> None:
        told.append(parent.id)

    parent = await front.get_one(Parent, 1)
    await front.delete(parent)

    def add(session: Session, _parent: Parent) -> None:
        session.add(Paper(id=1, name="deleted"))

    with listening_to(front.sync_session, "deleted_to_detached", add):
        await front.commit()
    assert told == [1]
    await front.commit()
    assert await front.committed_rows(select(Paper.name)) == [("deleted",)]


@pytest.mark.parametrize("is_clean", [True, False])
@pytest.mark.parametrize("phase", ["listened", "with a vote"])
@scenario(Base.metadata)
async def test_what_a_later_before_commit_listener_writes(
    front: FrontEnd, recorder: EventRecorder, *, is_clean: bool, phase: str
) -> None:
    """B2, E11, P1: it is told as if it had been written before, though the commit was prepared already."""
    await store(front, Paper(id=1, name="old"), Paper(id=2, name="old"))
    shown: list[object] = []

    @listens_for(Paper)
    def show(paper: Paper, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((event_type.value, paper.id, paper.name, paper.note, changes))

    if phase == "with a vote":
        recorder.listen(Paper, phase=Phase.BEFORE_COMMIT)
    (await front.get_one(Paper, 1)).name = "new"
    if is_clean:
        await front.flush()

    def write(session: Session) -> None:
        session.execute(update(Paper).values(note="noted"), execution_options={"events": True})
        session.execute(text("UPDATE twin_papers SET name = 'raw' WHERE id = 1"))

    with listening_to(front.sync_session, "before_commit", write):
        await front.commit()
    note = {"old": None, "new": "noted"}
    assert shown == [
        ("update", 1, "raw", "noted", {"name": {"old": "old", "new": "raw"}, "note": note}),
        ("update", 2, "old", "noted", {"note": note}),
    ]


@scenario(Base.metadata)
async def test_bulk_statement_in_a_flush_listener(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: it flushes nothing, as SQLAlchemy's own would not there."""
    await store(front, Paper(id=1, name="old"))
    recorder.listen(Paper)
    (await front.get_one(Paper, 1)).name = "new"

    def insert_more(session: Session, _context: object, _instances: object) -> None:
        rows = [{"id": 2, "name": "second"}, {"id": 3, "name": "third"}]
        session.execute(insert(Paper), rows, execution_options={"events": True})

    with listening_to(front.sync_session, "before_flush", insert_more):
        await front.commit()
    assert recorder.take() == [created(Paper, 2), created(Paper, 3), updated(Paper, 1, name=("old", "new"))]
