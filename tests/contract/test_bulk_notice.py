"""Rule B1: a bulk write on a model with listeners is noticed, and can be refused before it runs."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Column, Integer, create_engine, delete, insert, select, text, update
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, configure_mappers, mapped_column

from fastapi_toolsets.errors import BulkEventsError, BulkWriteError, BulkWriteWarning, SessionOptionError
from fastapi_toolsets.models import ModelEvent, SyncEventSession

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .bulk_models import Base as OptedIn
from .bulk_models import Parcel, Quiet, three_parcels
from .event_models import LOCAL, created, declaring, deleted, table_of, updated


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Letter(Base):
    __tablename__ = "notice_letters"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class Card(Base):
    __tablename__ = "notice_cards"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


@contextmanager
def bulk_warnings() -> Generator[list[str]]:
    """Collect the warnings that a block gives, of this kind; any other is an error as everywhere."""
    collected: list[str] = []
    with warnings.catch_warnings(record=True, action="always", category=BulkWriteWarning) as caught:
        yield collected
    collected += [str(item.message) for item in caught]


def warning_of(model: type[object], kind: str) -> str:
    name = model.__name__
    return (
        f"{name} has listeners, and a bulk {kind} passes them by: set __bulk_events__ = True on {name}, "
        "give the statement execution_options(events=True), or events=False to say that nobody needs to hear of it"
    )


@scenario(Base.metadata)
async def test_each_model_and_kind_of_statement_warns_once(front: FrontEnd, recorder: EventRecorder) -> None:
    """B1: one warning names the model, the kind of statement and the ways out; the statement runs, untold."""
    recorder.listen(Letter)
    recorder.listen(Card)

    async def write(model: type[Letter | Card]) -> None:
        await front.execute(insert(model), [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}])
        await front.execute(update(model).where(model.id == 1).values(text="c"))
        await front.execute(update(table_of(model)).values(text="d"))
        await front.execute(delete(model).where(model.id == 2))

    if front.database.name == "sqlite" and front.is_async:  # Letter's only warnings in this process
        with bulk_warnings() as given:
            await write(Letter)
        assert given == [warning_of(Letter, kind) for kind in ("insert", "update", "delete")]
    with bulk_warnings():
        await write(Card)
    with bulk_warnings() as given:
        await front.rollback()
        await write(Card)
    assert given == []
    await front.commit()
    assert recorder.take() == []
    assert await front.committed_rows(select(Card.id, Card.text)) == [(1, "d")]


def _statements() -> list[tuple[str, Callable[[FrontEnd], Awaitable[object]]]]:
    table = table_of(Letter)
    row = {"id": 5, "text": "x"}

    def by_session(name: str, *arguments: Any) -> Callable[[FrontEnd], Awaitable[object]]:  # noqa: ANN401 - theirs
        def write(session: Session) -> object:
            return getattr(session, name)(*arguments)

        return lambda front: front.run_sync(write)

    def update_by_query(session: Session) -> object:
        return session.query(Letter).update({"text": "x"})

    def delete_by_query(session: Session) -> object:
        return session.query(Letter).delete()

    return [
        ("insert", lambda front: front.execute(insert(Letter), [row])),
        ("insert", lambda front: front.execute(insert(Letter).values(row))),
        ("insert", lambda front: front.execute(table.insert(), [row])),
        ("insert", by_session("bulk_insert_mappings", Letter, [row])),
        ("insert", by_session("bulk_save_objects", [Letter(**row)])),
        ("update", lambda front: front.execute(update(Letter).values(text="x"))),
        ("update", lambda front: front.execute(update(Letter), [{"id": 1, "text": "x"}])),
        ("update", lambda front: front.execute(table.update().values(text="x"))),
        ("update", by_session("bulk_update_mappings", Letter, [{"id": 1, "text": "x"}])),
        ("update", lambda front: front.run_sync(update_by_query)),
        ("delete", lambda front: front.execute(delete(Letter))),
        ("delete", lambda front: front.execute(table.delete())),
        ("delete", lambda front: front.run_sync(delete_by_query)),
    ]


@scenario(Base.metadata, on_bulk_write="raise")
async def test_the_strict_setting_raises_before_the_statement_runs(front: FrontEnd, recorder: EventRecorder) -> None:
    """B1: every door through which a bulk write can come; nothing reaches the database."""
    recorder.listen(Letter)
    await front.add(Letter(id=1, text="a"))
    await front.commit()
    with front.statements() as statements:
        for kind, write in _statements():
            with pytest.raises(BulkWriteError) as raised:
                await write(front)
            assert str(raised.value) == warning_of(Letter, kind)
    assert statements == []
    await front.rollback()
    assert recorder.take() == [created(Letter, 1)]


@scenario(Base.metadata, on_bulk_write="ignore")
async def test_a_session_can_ignore_them(front: FrontEnd, recorder: EventRecorder) -> None:
    """B1: the session's option says that nobody cares."""
    recorder.listen(Letter)
    await front.execute(insert(Letter), [{"id": 1, "text": "a"}])
    await front.execute(update(Letter).values(text="b"))
    await front.commit()
    assert recorder.take() == []


@scenario(Base.metadata, databases=LOCAL, on_bulk_write="raise")
async def test_what_nobody_listens_to_is_nobodys_concern(front: FrontEnd, recorder: EventRecorder) -> None:
    """B1: other models, kinds that nobody hears of, SELECTs, text, statements that say so, and plain sessions."""
    recorder.listen(Letter, [ModelEvent.DELETE])
    await front.execute(insert(Card), [{"id": 1, "text": "a"}])
    await front.execute(insert(Letter), [{"id": 1, "text": "a"}])
    await front.execute(update(Letter).values(text="b"))
    await front.execute(delete(Letter).execution_options(events=False))
    await front.execute(delete(Letter), execution_options={"events": False})
    await front.execute(text("DELETE FROM notice_letters"))
    assert (await front.scalars(select(Letter))).all() == []
    await front.commit()
    await front.plain_session().execute(delete(Letter))
    assert recorder.take() == []


@scenario(Base.metadata)
async def test_one_statement_can_opt_in(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: ``execution_options(events=True)``, on the statement or for its execution, on a model that has not."""
    recorder.listen(Letter)
    asked = {"events": True}
    await front.execute(insert(Letter).execution_options(events=True), [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}])
    await front.commit()
    assert recorder.take() == [created(Letter, 1), created(Letter, 2)]
    await front.execute(update(Letter).where(Letter.id == 1).values(text="c"), execution_options=asked)
    await front.execute(delete(Letter).where(Letter.id == 2), execution_options=asked)
    await front.commit()
    assert recorder.take() == [updated(Letter, 1, text=("a", "c")), deleted(Letter, 2)]


@scenario(OptedIn.metadata, on_bulk_write="raise")
async def test_one_statement_and_one_class_can_opt_out(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: ``events=False`` silences one statement of a model that has opted in; a subclass may undo its base's word."""
    await three_parcels(front, recorder)
    await front.execute(update(Parcel).values(status="x").execution_options(events=False))
    await front.execute(update(Parcel).where(Parcel.id == 1).values(note="told"))
    await front.commit()
    assert recorder.take() == [updated(Parcel, 1, note=(None, "told"))]
    recorder.listen(Quiet)
    with pytest.raises(BulkWriteError, match="Quiet has listeners, and a bulk update passes them by"):
        await front.execute(update(Quiet).values(status="x"))


@scenario(Base.metadata, databases=LOCAL)
async def test_what_the_options_take(front: FrontEnd, recorder: EventRecorder) -> None:
    """B1, B2: a wrong option says what it was given, and text cannot be asked for events."""
    recorder.listen(Letter)
    with pytest.raises(BulkEventsError, match="execution option events was given 'yes': give it True or False"):
        await front.execute(update(Letter).values(text="x"), execution_options={"events": "yes"})
    with pytest.raises(BulkWriteError, match=r"a text\(\) statement cannot make events"):
        await front.execute(text("DELETE FROM notice_letters"), execution_options={"events": True})
    with pytest.raises(
        SessionOptionError, match="on_bulk_write was given 'never': give it 'warn', 'raise' or 'ignore'"
    ):
        front.factory(on_bulk_write="never")()


def test_bulk_events_is_checked_when_the_mapper_is_configured() -> None:
    """B2: ``__bulk_events__`` that is neither true nor false is found at start-up, by name."""

    class Local(DeclarativeBase):
        type_annotation_map = TYPES

    with declaring(Local):
        key = Column(Integer, primary_key=True)
        wrong = type("Wrong", (Local,), {"__tablename__": "wrong", "__bulk_events__": "yes", "id": key})
        with pytest.raises(BulkEventsError, match=r"Wrong.__bulk_events__ is 'yes': make it True or False"):
            configure_mappers()
        assert wrong.__name__ == "Wrong"  # it has to live until then


def test_a_session_that_was_never_listened_to_warns_of_nothing() -> None:
    """T8: the methods that an event session overrides do what SQLAlchemy's do."""
    session = SyncEventSession()
    session.bulk_save_objects([])
    session.close()


def test_class_whose_mapping_waits_for_its_subclasses() -> None:
    """B1: it is no reason for a statement on a table to fail."""

    class LocalBase(DeclarativeBase):
        type_annotation_map = TYPES

    class Waiting(AbstractConcreteBase, LocalBase):
        """Mapped when its subclasses are configured."""

    class Waited(Waiting):
        __tablename__ = "things_that_wait"
        id: Mapped[int] = mapped_column(primary_key=True)
        __mapper_args__ = {"polymorphic_identity": "waited", "concrete": True}  # noqa: RUF012 - as documented

    class Thing(LocalBase):
        __tablename__ = "things_beside_one_that_waits"
        id: Mapped[int] = mapped_column(primary_key=True)

    recorder = EventRecorder()
    recorder.listen(LocalBase)
    engine = create_engine("sqlite://")
    LocalBase.metadata.create_all(engine)
    with SyncEventSession(engine) as session, pytest.warns(BulkWriteWarning, match="Thing has listeners"):
        session.execute(insert(table_of(Thing)).values(id=1))
    engine.dispose()
    assert issubclass(Waited, LocalBase)
