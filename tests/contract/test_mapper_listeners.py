"""Rules T2, E11, E12 and B1 for what the listener of a mapper's event sends on the connection that it is given."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    event,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, Session, joinedload, mapped_column, relationship

from fastapi_toolsets.errors import BulkWriteError
from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import created, declaring, deleted, table_of, updated
from .test_bulk_notice import bulk_warnings


class Base(DeclarativeBase):
    type_annotation_map = TYPES


tagged = Table(
    "row_tagged",
    Base.metadata,
    Column("line_id", Integer, ForeignKey("row_lines.id"), primary_key=True),
    Column("tag_id", Integer, ForeignKey("row_tags.id"), primary_key=True),
)


class Stock(Base):
    __tablename__ = "row_stocks"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    amount: Mapped[int]
    note: Mapped[str | None]


class Tag(Base):
    __tablename__ = "row_tags"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Line(Base):
    """Has no listeners of the library's: only SQLAlchemy's."""

    __tablename__ = "row_lines"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column()
    text: Mapped[str]
    tags: Mapped[list[Tag]] = relationship(secondary=tagged)
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - as SQLAlchemy documents it


class Whole(Base):
    __tablename__ = "row_wholes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str | None]
    parts: Mapped[list[Part]] = relationship()
    pieces: Mapped[list[Piece]] = relationship(cascade="all, delete-orphan")


class Part(Base):
    """Its foreign key is set to NULL where its whole is deleted."""

    __tablename__ = "row_parts"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    whole_id: Mapped[int | None] = mapped_column(ForeignKey("row_wholes.id"))


class Piece(Base):
    """It is deleted when its whole lets go of it."""

    __tablename__ = "row_pieces"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str | None]
    whole_id: Mapped[int] = mapped_column(ForeignKey("row_wholes.id"))


STOCKS = table_of(Stock)
UNHEARD = {"events": False}
EVENTS = [f"{time}_{what}" for what in ("insert", "update", "delete") for time in ("before", "after")]


@contextmanager
def heard(model: type[Base], name: str, send: Callable[[Connection], object]) -> Generator[None]:
    """Let a listener of the mapper's event send something."""

    def listener(_: Mapper[Any], connection: Connection, target: object) -> None:
        send(connection)

    event.listen(model, name, listener)
    try:
        yield
    finally:
        event.remove(model, name, listener)


async def flush_line(front: FrontEnd, name: str) -> None:
    """Have the flush of a line fire an event."""
    if name.endswith("insert"):
        await front.add(Line(id=2, text="new"))
    else:
        line = await front.get(Line, 1)
        assert line is not None
        if name.endswith("update"):
            line.text = "changed"
        else:
            await front.delete(line)
    await front.flush()


async def given_rows(front: FrontEnd, recorder: EventRecorder) -> list[Stock]:
    """Commit two stocks and a line, and listen to what becomes of the stocks."""
    stocks = [Stock(id=number, amount=5) for number in (1, 2)]
    await front.add_all([*stocks, Line(id=1, text="new")])
    await front.commit()
    recorder.listen(Stock)
    return stocks


@pytest.mark.parametrize("name", EVENTS)
@scenario(Base.metadata)
async def test_rows_written(front: FrontEnd, recorder: EventRecorder, name: str) -> None:
    """E11: callbacks read rows as they were committed, whoever has written them in the end."""
    shown: list[tuple[object, ...]] = []
    first, _ = await given_rows(front, recorder)

    @listens_for(Stock)
    def read(stock: Stock, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((stock.id, stock.amount, stock.note))

    def send(connection: Connection) -> None:
        connection.execute(update(Stock).values(amount=Stock.amount - 1, note="sold"), execution_options=UNHEARD)

    first.amount = 8
    await front.flush()
    with heard(Line, name, send):
        await flush_line(front, name)
        await front.commit()
    assert shown == [(1, 7, "sold")]
    assert recorder.take() == [updated(Stock, 1, amount=(5, 7))]


@scenario(Base.metadata)
async def test_own_row_written(front: FrontEnd, recorder: EventRecorder) -> None:
    """E11: the listener that completes the row that was just inserted, as SQLAlchemy's documentation shows it."""
    shown: list[tuple[object, ...]] = []
    recorder.listen(Stock)

    @listens_for(Stock)
    def read(stock: Stock, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((stock.id, stock.amount, stock.note))

    def send(connection: Connection) -> None:
        connection.execute(STOCKS.update().values(note="complete"), execution_options=UNHEARD)

    with heard(Stock, "after_insert", send):
        await front.add(Stock(id=1, amount=5))
        await front.commit()
    assert shown == [(1, 5, "complete")]
    assert recorder.take() == [created(Stock, 1)]


@pytest.mark.parametrize(
    "statement",
    [delete(Stock), STOCKS.delete(), text(f"DELETE FROM {STOCKS.name}"), f"DELETE FROM {STOCKS.name}"],
    ids=["orm", "core", "text", "driver"],
)
@scenario(Base.metadata)
async def test_rows_deleted(front: FrontEnd, recorder: EventRecorder, statement: Any) -> None:  # noqa: ANN401 - of any kind
    """T2: rows that are not there any more are not told of."""
    first, _ = await given_rows(front, recorder)

    def send(connection: Connection) -> None:
        if isinstance(statement, str):
            connection.exec_driver_sql(statement)
        else:
            connection.execute(statement, execution_options=UNHEARD)

    first.amount = 8
    await front.add(Stock(id=3, amount=5))
    with heard(Line, "after_insert", send):
        await front.flush()
        await flush_line(front, "after_insert")
        await front.add(Stock(id=4, amount=5))
        await front.commit()
    assert recorder.take() == [created(Stock, 4)]


@scenario(Base.metadata)
async def test_each_kind_of_statement_warns_once(front: FrontEnd, recorder: EventRecorder) -> None:
    """B1: what the listener writes passes the model's listeners by, and they are not called."""
    await given_rows(front, recorder)

    def send(connection: Connection) -> None:
        connection.execute(STOCKS.update().values(note="sold"))

    with heard(Line, "before_update", send), bulk_warnings() as given:
        await flush_line(front, "before_update")
        await front.commit()
    if front.database.name == "sqlite" and front.is_async:  # the only ones of this process
        (warning,) = given
        assert warning == (
            "Stock has listeners, and an update on a connection passes them by: give it to the session's execute(), "
            "or execution_options(events=False) to say that nobody needs to hear of it"
        )
    assert recorder.take() == []


@scenario(Base.metadata, on_bulk_write="raise")
async def test_the_strict_setting_raises(front: FrontEnd, recorder: EventRecorder) -> None:
    """B1: before the statement runs; the flush fails with it."""
    await given_rows(front, recorder)

    def send(connection: Connection) -> None:
        connection.execute(STOCKS.delete())

    with heard(Line, "after_delete", send), pytest.raises(BulkWriteError, match=r"Stock has listeners, and a delete"):
        await flush_line(front, "after_delete")
    await front.rollback()
    assert recorder.take() == []
    assert await front.committed_rows(select(Stock.id)) == [(1,), (2,)]


@scenario(Base.metadata, on_bulk_write="raise")
async def test_what_a_flush_sends_itself(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12, B1: where listeners only look on, nothing is read again, nor taken for what passes listeners by."""
    seen: list[object] = []
    recorder.listen(Stock)
    recorder.listen(Tag)
    stock = Stock(id=1, amount=5)
    line = Line(id=1, text="new", tags=[Tag(id=1), Tag(id=2)])

    def look(connection: Connection) -> None:
        seen.append(connection.execute(select(1)).scalar())

    async def steps() -> list[str]:
        with front.statements() as statements:
            await front.add_all([stock, line])
            await front.commit()
            stock.amount = 6
            line.text = "changed"
            line.tags = line.tags[1:]
            await front.commit()
            await front.delete(stock)
            await front.delete(line)
            await front.commit()
        return statements

    with heard(Line, "after_insert", look), heard(Line, "before_update", look), heard(Line, "before_delete", look):
        statements = await steps()
    assert seen == [1, 1, 1]
    assert recorder.take() == [
        created(Stock, 1),
        created(Tag, 1),
        created(Tag, 2),
        updated(Stock, 1, amount=(5, 6)),
        deleted(Stock, 1),
    ]
    looks = [statement for statement in statements if statement.startswith("SELECT")]
    assert looks == ["SELECT 1"] * 3


@scenario(Base.metadata, databases=("sqlite",))
async def test_mapper_elsewhere_that_cannot_be_configured(front: FrontEnd, recorder: EventRecorder) -> None:
    """T8: what a listener writes makes nobody look into mappers that have not been used."""
    recorder.listen(Tag)
    unmapped = Table(STOCKS.name, MetaData(), Column("note", String))

    class Elsewhere(DeclarativeBase): ...

    class Broken(Elsewhere):
        __tablename__ = "row_broken"
        id: Mapped[int] = mapped_column(primary_key=True)
        nobody: Mapped[object] = relationship("Nobody")

    def send(connection: Connection) -> None:
        connection.execute(unmapped.update().values(note="sold"))

    with heard(Line, "after_insert", send), declaring(Elsewhere):
        await front.add(Line(id=1, text="new", tags=[Tag(id=1)]))
        await front.commit()
        assert not inspect(Broken).configured
    assert recorder.take() == [created(Tag, 1)]


@scenario(Base.metadata, databases=("sqlite",))
async def test_session_that_reads_first(front: FrontEnd, recorder: EventRecorder) -> None:
    """T9: a listener of the mapper's is looked for at each flush, also one that comes late, or goes again."""
    first, second = await given_rows(front, recorder)
    await front.scalars(select(Line).options(joinedload(Line.tags)))

    def send(connection: Connection) -> None:
        connection.execute(STOCKS.delete().where(STOCKS.c.id == 1), execution_options=UNHEARD)

    first.amount = second.amount = 6
    await front.flush()
    with heard(Line, "after_update", send):
        await flush_line(front, "after_update")
    await front.commit()
    assert recorder.take() == [updated(Stock, 2, amount=(5, 6))]
    second.amount = 7
    await flush_line(front, "after_insert")
    await front.commit()
    assert recorder.take() == [updated(Stock, 2, amount=(6, 7))]


@pytest.mark.parametrize("name", ["before_update", "after_update"])
@pytest.mark.parametrize("by_listener", [False, True])
@scenario(Base.metadata)
async def test_rows_that_only_the_flush_finds(
    front: FrontEnd, recorder: EventRecorder, name: str, *, by_listener: bool
) -> None:
    """T2, E11: the listener of a row that the flush itself has found, or another listener of it, writes, too."""
    first, second = await given_rows(front, recorder)
    await front.add(Whole(id=1, parts=[Part(id=1)]))
    await front.commit()
    first.amount = second.amount = 8
    await front.flush()

    def send(connection: Connection) -> None:
        connection.execute(STOCKS.delete().where(STOCKS.c.id == 1), execution_options=UNHEARD)

    def touch(session: Session, _context: object, _objects: object) -> None:
        session.get_one(Part, 1).whole_id = None

    with heard(Part, name, send):
        if by_listener:
            event.listen(front.sync_session, "before_flush", touch)
            await front.add(Tag(id=1))
        else:
            whole = (await front.scalars(select(Whole))).one()
            whole.text = "changed"  # in the session as changed and as deleted
            await front.delete(whole)
        await front.commit()
    assert recorder.take() == [updated(Stock, 2, amount=(5, 8))]


@pytest.mark.parametrize("name", ["before_delete", "after_delete"])
@pytest.mark.parametrize("changed", [False, True])
@scenario(Base.metadata)
async def test_orphans_that_are_deleted(front: FrontEnd, recorder: EventRecorder, name: str, *, changed: bool) -> None:
    """T2, E11: as above where the row is to be changed, or not written at all, before the flush looks for orphans."""
    first, second = await given_rows(front, recorder)
    whole, piece = Whole(id=1), Piece(id=1)
    whole.pieces.append(piece)
    await front.add(whole)
    await front.commit()
    first.amount = second.amount = 8
    await front.flush()

    def send(connection: Connection) -> None:
        connection.execute(STOCKS.delete().where(STOCKS.c.id == 1), execution_options=UNHEARD)

    with heard(Piece, name, send):
        whole.pieces.remove(piece)
        if changed:
            piece.text = "changed"
        await front.commit()
    assert recorder.take() == [updated(Stock, 2, amount=(5, 8))]


@scenario(Base.metadata, databases=("sqlite",))
async def test_session_bound_by_model(front: FrontEnd, recorder: EventRecorder) -> None:
    """T9, E11: the connection that the listener of a row is given is the one of that row's model."""
    await given_rows(front, recorder)
    session = front.new_session(bind=None, binds={Line: front.engine, Stock: front.engine})

    def send(connection: Connection) -> None:
        connection.execute(STOCKS.delete().where(STOCKS.c.id == 1), execution_options=UNHEARD)

    for stock in (await session.scalars(select(Stock))).all():
        stock.amount = 6
    await session.flush()
    with heard(Line, "after_insert", send):
        await session.add(Line(id=2, text="new"))
        await session.commit()
    await session.close()
    assert recorder.take() == [updated(Stock, 2, amount=(5, 6))]
