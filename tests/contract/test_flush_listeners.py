"""Rules T1, T3, E8, E9 and B2 where listeners of SQLAlchemy's own flush events end transactions, or write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
from sqlalchemy import JSON, ForeignKey, event, insert, inspect, select, update
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.orm import Mapped, Session, mapped_column, object_session, relationship
from sqlalchemy.orm.unitofwork import UOWTransaction
from sqlalchemy.orm.util import identity_key

from fastapi_toolsets.models import Changes, Event, ModelEvent, Phase, SyncEventSession, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from .bulk_models import Base, Parcel, Seat, Stamp
from .event_models import LOCAL, created, deleted, listening_to, updated
from .transaction_models import ExpectedError

HOOKS = ("after_flush", "after_flush_postexec")


def doubled(context: DefaultExecutionContext) -> int:
    """Twice the value that the same statement writes to the row."""
    parameters: Mapping[str, Any] = context.get_current_parameters()  # type: ignore[no-untyped-call]
    value: int = parameters["value"]
    return value * 2


class Visit(Base):
    """Each row of an UPDATE gets a value of its own."""

    __tablename__ = "bulk_visits"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int]
    touched: Mapped[int] = mapped_column(default=0, onupdate=doubled)


class Basket(Base):
    """What is expired with it is whatever lies in it."""

    __tablename__ = "bulk_baskets"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    note: Mapped[str | None]
    items: Mapped[list[Item]] = relationship(cascade="all, delete-orphan", back_populates="basket")


class Item(Base):
    __tablename__ = "bulk_items"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    basket_id: Mapped[int] = mapped_column(ForeignKey("bulk_baskets.id"))
    name: Mapped[str]
    basket: Mapped[Basket] = relationship(back_populates="items")


class Note(Base):
    __tablename__ = "bulk_notes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str | None]
    text: Mapped[str | None]
    words: Mapped[list[str]] = mapped_column(JSON, default=list)


Identities = list[tuple[str, tuple[object, ...], int]]


def at_each_flush(front: FrontEnd, hook: str, write: Callable[[Session], object]) -> None:
    """Do something in each flush of the session."""

    def listener(session: Session, flush_context: UOWTransaction) -> None:
        write(session)

    event.listen(front.sync_session, hook, listener)


def note_identities() -> Identities:
    """Register a callback that writes down the identity and position of each event of a stamp."""
    noted: Identities = []

    @listens_for(Stamp)
    def note(stamp: Stamp, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        noted.append((event_type.value, event.identity, event.position))

    return noted


def release_a_savepoint(session: Session) -> None:
    """Write something that may fail."""
    session.info["seats"] = session.info.get("seats", 0) + 1
    with session.begin_nested():
        session.execute(insert(Seat), {"row": 1, "number": session.info["seats"]})


def roll_a_savepoint_back(session: Session) -> None:
    savepoint = session.begin_nested()
    session.execute(insert(Seat), {"row": 1, "number": 1})
    savepoint.rollback()


def leave_a_savepoint_open(session: Session) -> None:
    if not session.in_nested_transaction():
        session.begin_nested()


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("act", [release_a_savepoint, leave_a_savepoint_open])
@scenario(Base.metadata, databases=LOCAL)
async def test_savepoints_in_a_flush(
    front: FrontEnd, recorder: EventRecorder, hook: str, act: Callable[[Session], None]
) -> None:
    """T1, T3, E9: a savepoint that a listener of the flush opens takes nothing of the flush with it."""
    recorder.listen(Stamp)
    noted = note_identities()
    at_each_flush(front, hook, act)
    stamps = [Stamp(id=key, value=key) for key in (1, 2, 3)]
    await front.add_all(stamps)
    await front.commit()
    stamps[0].value = 10
    stamps[1].id = 20
    await front.flush()
    stamps[1].value = 2000
    await front.delete(stamps[2])
    await front.commit()
    assert recorder.take() == [
        created(Stamp, 1),
        created(Stamp, 2),
        created(Stamp, 3),
        updated(Stamp, 1, value=(1, 10), touched=(0, 7)),
        updated(Stamp, 20, id=(2, 20), value=(2, 2000), touched=(0, 7)),
        deleted(Stamp, 3),
    ]
    assert noted == [
        ("create", (1,), 0),
        ("create", (2,), 1),
        ("create", (3,), 2),
        ("update", (1,), 0),
        ("update", (20,), 1),
        ("delete", (3,), 2),
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_savepoint_that_is_rolled_back_in_a_flush(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: it takes its own part with it, and nothing of the flush or of the savepoint that this belongs to."""
    recorder.listen(Stamp)
    at_each_flush(front, "after_flush_postexec", roll_a_savepoint_back)
    await front.add(Stamp(id=1, value=1))
    async with front.begin_nested():
        await front.add(Stamp(id=2, value=2))
    await front.commit()
    assert recorder.take() == [created(Stamp, 1), created(Stamp, 2)]


def end_it(session: Session) -> None:
    """Commit what the flush belongs to: its savepoint, or everything."""
    transaction = session.get_nested_transaction() or session
    transaction.commit()


@pytest.mark.parametrize("hook", HOOKS)
@scenario(Base.metadata, databases=LOCAL)
async def test_commit_in_a_flush(front: FrontEnd, recorder: EventRecorder, hook: str) -> None:
    """T1, T3: what a listener commits right after the flush is told, although SQLAlchemy has no place for that."""
    recorder.listen(Stamp)
    noted = note_identities()
    at_each_flush(front, hook, end_it)
    await front.add_all([Stamp(id=1, value=1), Stamp(id=2, value=2)])
    with pytest.raises(ResourceClosedError):
        await front.flush()
    assert recorder.take() == [created(Stamp, 1), created(Stamp, 2)]
    await front.begin_nested()
    await front.add(Stamp(id=3, value=3))
    with pytest.raises(ResourceClosedError):
        await front.flush()
    await front.commit()
    assert recorder.take() == [created(Stamp, 3)]
    assert noted == [("create", (1,), 0), ("create", (2,), 1), ("create", (3,), 0)]


@pytest.mark.parametrize("hook", HOOKS)
@scenario(Base.metadata, databases=LOCAL)
async def test_bulk_statement_in_a_flush(front: FrontEnd, recorder: EventRecorder, hook: str) -> None:
    """E8, E9, B2: what it does comes after what the flush did, to the same row and to another."""
    recorder.listen(Stamp)
    noted = note_identities()
    stamps = [Stamp(id=key, value=key) for key in (1, 2, 3)]
    await front.add_all(stamps)
    await front.commit()
    for key in (1, 30):
        statement = update(Stamp).where(Stamp.id == key).values(value=Stamp.value + 1)
        at_each_flush(front, hook, partial(Session.execute, statement=statement))
    stamps[1].value, stamps[0].value, stamps[2].id = 20, 10, 30
    await front.commit()
    assert recorder.take()[3:] == [
        updated(Stamp, 1, value=(1, 11), touched=(0, 7)),
        updated(Stamp, 2, value=(2, 20), touched=(0, 7)),
        updated(Stamp, 30, id=(3, 30), value=(3, 4), touched=(0, 7)),
    ]
    assert noted[3:] == [("update", (1,), 0), ("update", (2,), 1), ("update", (30,), 2)]


def by_mappings(session: Session) -> None:
    session.bulk_update_mappings(inspect(Visit), [{"id": 1, "value": 100}])


def by_inserts(session: Session) -> None:
    session.bulk_insert_mappings(inspect(Visit), [{"id": 9, "value": 9}])


def by_objects(session: Session) -> None:
    session.bulk_save_objects([Visit(id=9, value=9)])


@pytest.mark.parametrize("write", [by_mappings, by_inserts, by_objects])
@scenario(Base.metadata, databases=LOCAL)
async def test_bulk_method_in_a_flush(
    front: FrontEnd, recorder: EventRecorder, write: Callable[[Session], None]
) -> None:
    """E4, E9, B2: the same with the session's bulk methods; each row has the value that its own UPDATE has set."""
    recorder.listen(Visit)
    visits = [Visit(id=key, value=key) for key in (1, 2)]
    await front.add_all(visits)
    await front.commit()
    recorder.take()
    at_each_flush(front, "after_flush_postexec", write)
    for visit in visits:
        visit.value *= 10
    await front.commit()
    value = 100 if write is by_mappings else 10
    assert recorder.take() == [
        updated(Visit, 1, value=(1, value), touched=(0, 2 * value)),
        updated(Visit, 2, value=(2, 20), touched=(0, 40)),
        *([] if write is by_mappings else [created(Visit, 9)]),
    ]


@scenario(Base.metadata)
async def test_assigning_to_rows_that_are_read_again(front: FrontEnd, recorder: EventRecorder) -> None:
    """E4: what a listener assigns to the very attribute that an UPDATE of several rows has set is written and told."""
    recorder.listen(Visit)
    visits = [Visit(id=key, value=key) for key in (1, 2)]
    await front.add_all(visits)
    await front.commit()
    recorder.take()
    later = iter((-1, -2))

    def assign(session: Session, flush_context: UOWTransaction) -> None:
        for visit, touched in zip(visits, later, strict=False):
            visit.touched = touched

    event.listen(front.sync_session, "after_flush_postexec", assign)
    for visit in visits:
        visit.value *= 10
    await front.commit()
    assert recorder.take() == [
        updated(Visit, 1, value=(1, 10), touched=(0, -1)),
        updated(Visit, 2, value=(2, 20), touched=(0, -2)),
    ]
    written = select(Visit.id, Visit.touched).order_by(Visit.id)
    assert [tuple(row) for row in await front.execute(written)] == [(1, -1), (2, -2)]


@scenario(Base.metadata, databases=LOCAL)
async def test_assigning_to_a_row_that_another_object_has_taken_over(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2, E8: the flush wrote what the object was before a listener assigned to it."""
    recorder.listen(Parcel)
    first = Parcel(id=1, code="a", status="sent", note="left")
    await front.add(first)
    await front.commit()
    recorder.take()
    second = Parcel(id=1, code="a", status="lost")

    def assign(session: Session, flush_context: UOWTransaction) -> None:
        if second.status == "lost":
            second.status, second.note = "sent", "found"

    event.listen(front.sync_session, "after_flush_postexec", assign)
    await front.delete(first)
    await front.add(second)
    await front.commit()
    assert recorder.take() == [updated(Parcel, 1, note=("left", "found"))]
    assert [tuple(row) for row in await front.execute(select(Parcel.status, Parcel.note))] == [("sent", "found")]


@scenario(Base.metadata)
async def test_flush_whose_rows_cannot_be_read(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1: where the library's SELECT after a flush fails, it raises; what was written is told at the commit."""
    await front.add_all([Visit(id=number, value=number) for number in (1, 2)])
    await front.commit()
    recorder.listen(Visit)

    def fail(*_: object) -> None:
        event.remove(front.sync_engine, "before_cursor_execute", fail)
        raise ExpectedError

    def fail_next(*_: object) -> None:
        event.listen(front.sync_engine, "before_cursor_execute", fail)

    event.listen(front.sync_session, "after_flush_postexec", fail_next)
    for visit in await front.scalars(select(Visit)):
        visit.value += 10
    with pytest.raises(ExpectedError):
        await front.flush()
    event.remove(front.sync_session, "after_flush_postexec", fail_next)
    await front.commit()
    assert recorder.take() == [
        updated(Visit, number, value=(number, number + 10), touched=(0, 2 * number + 20)) for number in (1, 2)
    ]


@scenario(Base.metadata)
async def test_flush_again_after_one_that_failed(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2: what a flush had written that a listener of it has failed is nothing, to the next ``flush()`` neither."""
    recorder.listen(Visit)
    recorder.listen(Visit, phase=Phase.AFTER_ROLLBACK)

    def fail(session: Session, flush_context: UOWTransaction) -> None:
        raise ExpectedError

    event.listen(front.sync_session, "after_flush", fail)
    await front.add(Visit(id=1, value=1))
    with pytest.raises(ExpectedError):
        await front.flush()
    event.remove(front.sync_session, "after_flush", fail)
    await front.flush()
    await front.rollback()
    await front.add(Visit(id=2, value=2))
    await front.commit()
    assert recorder.take() == [created(Visit, 2)]


def expire_the_basket(session: Session) -> None:
    session.expire(session.identity_map[identity_key(Basket, 1)])


def refresh_the_basket(session: Session) -> None:
    session.refresh(session.identity_map[identity_key(Basket, 1)])


def expire_everything(session: Session) -> None:
    session.expire_all()


def rename_all(session: Session) -> None:
    """Change all rows that are there; SQLAlchemy changes the objects of others, too, as long as the flush lasts."""
    session.execute(update(Item).values(name="renamed"), execution_options={"events": True})


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("act", [expire_the_basket, refresh_the_basket, expire_everything, rename_all])
@scenario(Base.metadata, databases=LOCAL)
async def test_expiring_what_the_flush_has_deleted(
    front: FrontEnd, recorder: EventRecorder, hook: str, act: Callable[[Session], None]
) -> None:
    """E11: a deleted object shows its last row, whatever a listener of its flush expires, refreshes or writes."""
    items = [Item(id=key, name=name) for key, name in ((1, "bread"), (2, "salt"), (3, "wine"))]
    basket = Basket(id=1, items=items)  # held, so that listeners find it
    await front.add(basket)
    await front.commit()
    shown: list[tuple[object, ...]] = []

    @listens_for(Item, ModelEvent.DELETE)
    def show(item: Item, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        shown.append((item.id, item.name, event.before and event.before["name"]))

    at_each_flush(front, hook, act)
    await front.delete(items[0])
    await front.flush()
    await front.delete(items[1])
    await front.commit()
    last = "renamed" if act is rename_all else "salt"
    assert shown == [(1, "bread", "bread"), (2, last, "salt")]


def session_of(written: object) -> Session:
    session = object_session(written)
    assert session is not None
    return session


def renew_the_basket(item: Item) -> None:
    """Have the parent of a row loaded anew: its collection, or a sum over that, may be another now."""
    session = session_of(item)
    expire_the_basket(session)


def refresh_from_its_item(item: Item) -> None:
    session = session_of(item)
    refresh_the_basket(session)


def expire_from_its_item(item: Item) -> None:
    session_of(item).expire(item, ["name"])


def expire_all_from_its_item(item: Item) -> None:
    session_of(item).expire_all()


def expire(written: object) -> None:
    session_of(written).expire(written)


def select_anew(item: Item) -> None:
    session_of(item).scalars(select(Item), execution_options={"populate_existing": True}).all()


def get_anew(item: Item) -> None:
    session_of(item).get(Item, item.id, populate_existing=True)


def expunge_item(item: Item) -> None:
    session_of(item).expunge(item)


def expunge_everything(item: Item) -> None:
    session_of(item).expunge_all()


@pytest.mark.parametrize("name", ["before_delete", "after_delete", "after_update"])
@pytest.mark.parametrize(
    "act",
    [
        renew_the_basket,
        refresh_from_its_item,
        expire_from_its_item,
        expire_all_from_its_item,
        select_anew,
        get_anew,
    ],
)
@scenario(Base.metadata, databases=LOCAL)
async def test_expiring_what_the_flush_is_writing(
    front: FrontEnd, recorder: EventRecorder, name: str, act: Callable[[Item], None]
) -> None:
    """E2, E3, E11: what a listener of a row expires had its old values, and what is deleted shows its last row."""
    items = [Item(id=key, name=name) for key, name in enumerate(("bread", "salt", "wine", "oil"), 1)]
    basket = Basket(id=1, items=items)
    await front.add(basket)
    await front.commit()
    shown: list[tuple[object, ...]] = []

    @listens_for(Item)
    def show(item: Item, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        shown.append((event_type.value, item.id, item.name, changes, event.before and event.before["name"]))

    def listener(mapper: object, connection: object, item: Item) -> None:
        act(item)

    with listening_to(Item, name, listener):
        items[2].name = "beer"
        await front.delete(items[0])
        basket.items.remove(items[1])
        await front.commit()
    assert shown == [
        ("update", 3, "beer", {"name": {"old": "wine", "new": "beer"}}, "wine"),
        ("delete", 1, "bread", None, "bread"),
        ("delete", 2, "salt", None, "salt"),
    ]


@pytest.mark.parametrize("act", [expire, expunge_item, expunge_everything])
@scenario(Base.metadata, databases=LOCAL)
async def test_letting_go_of_what_nobody_else_holds(
    front: FrontEnd, recorder: EventRecorder, act: Callable[[Item], None]
) -> None:
    """E10: an object that its row's listener expires or expunges is collected in the flush, and its event comes."""
    recorder.listen(Item)
    await front.add(Basket(id=1, items=[Item(id=1, name="bread"), Item(id=2, name="oil")]))
    await front.commit()
    await front.expunge_all()

    def listener(mapper: object, connection: object, item: Item) -> None:
        act(item)

    async def rename() -> None:
        (await front.get_one(Item, 1)).name = "salt"

    async def delete() -> None:
        await front.delete(await front.get_one(Item, 2))

    with listening_to(Item, "after_update", listener), listening_to(Item, "after_delete", listener):
        await rename()
        await delete()
        await front.commit()
    changed = updated(Item, 1, name=("bread", "salt"))
    assert recorder.take() == [created(Item, 1), created(Item, 2), changed, deleted(Item, 2)]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("act", [expire_the_basket, refresh_the_basket, expire_everything])
@scenario(Base.metadata, databases=LOCAL)
async def test_expiring_in_a_flush_that_may_be_regretted(
    front: FrontEnd, recorder: EventRecorder, hook: str, act: Callable[[Session], None]
) -> None:
    """E11, P2: who hears of rollbacks takes nothing from the objects, and is shown what would have been, too."""
    item = Item(id=1, name="bread")
    basket = Basket(id=1, items=[item, Item(id=2, name="salt")])
    await front.add(basket)
    await front.commit()
    shown: list[tuple[object, ...]] = []

    @listens_for(Item, ModelEvent.UPDATE, phase=Phase.AFTER_ROLLBACK)
    @listens_for(Item, ModelEvent.UPDATE)
    def show(told: Item, event_type: ModelEvent, changes: Changes, *, event: Event) -> None:
        if told.id == 1:
            shown.append((told is item, told.name, changes["name"]["new"], event.after and event.after["name"]))

    at_each_flush(front, hook, act)
    item.name = "wine"
    await front.commit()
    item.name = "oil"
    await front.flush()
    await front.rollback()
    assert shown == [(True, "wine", "wine", "wine"), (False, "oil", "oil", "oil")]


@pytest.mark.parametrize("note", [None, "old"])
@scenario(Base.metadata, databases=LOCAL)
async def test_refreshing_a_row_that_is_new_and_may_be_regretted(
    front: FrontEnd, recorder: EventRecorder, note: str | None
) -> None:
    """P2: of a new row that was changed what would have been is told, also where its first flush left out a column."""
    shown: list[tuple[object, ...]] = []

    @listens_for(Basket, phase=Phase.AFTER_ROLLBACK)
    def show(basket: Basket, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        shown.append((event_type.value, basket.note, event.after and event.after["note"]))

    def refresh(mapper: object, connection: object, basket: Basket) -> None:
        session_of(basket).refresh(basket)

    basket = Basket(id=1) if note is None else Basket(id=1, note=note)
    await front.add(basket)
    await front.flush()
    basket.note = "new"
    with listening_to(Basket, "after_update", refresh):
        await front.flush()
    await front.rollback()
    assert shown == [("create", "new", "new")]


@scenario(Base.metadata, databases=LOCAL)
async def test_expiring_before_the_library_has_seen_the_flush(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2, E3: what such a listener expires has its change told, and the next commit is told its own changes only."""
    note = Note(id=1, title="bread", text="old")
    await front.add(note)
    await front.commit()
    recorder.listen(Note)

    def listener(session: Session, flush_context: UOWTransaction) -> None:
        session.expire(note)

    with listening_to(SyncEventSession, "after_flush", listener, insert=True):
        note.title = "salt"
        await front.commit()
    assert recorder.take() == [updated(Note, 1, title=("bread", "salt"))]
    note.text = "new"
    await front.commit()
    assert recorder.take() == [updated(Note, 1, text=("old", "new"))]


@scenario(Base.metadata, databases=LOCAL)
async def test_expiring_a_value_that_somebody_goes_on_to_change(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E5: the old value is the row's, whatever becomes of the object that held it."""
    note = Note(id=1, words=["bread"])
    await front.add(note)
    await front.commit()
    recorder.listen(Note)
    words = note.words

    def listener(mapper: object, connection: object, written: Note) -> None:
        expire(written)

    with listening_to(Note, "after_update", listener):
        note.words = ["salt"]
        await front.flush()
    words.append("wine")
    await front.commit()
    assert recorder.take() == [updated(Note, 1, words=(["bread"], ["salt"]))]


@scenario(Base.metadata, databases=LOCAL)
async def test_expiring_what_was_not_loaded(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3: the old value was read before the flush, and stays known."""
    note = Note(id=1, title="bread")
    await front.add(note)
    await front.commit()
    recorder.listen(Note)

    def listener(mapper: object, connection: object, written: Note) -> None:
        expire(written)

    await front.expire(note)
    note.title = "salt"
    with listening_to(Note, "after_update", listener):
        await front.commit()
    assert recorder.take() == [updated(Note, 1, title=("bread", "salt"))]


@scenario(Base.metadata, databases=LOCAL)
async def test_expiring_all_while_keys_are_new(front: FrontEnd, recorder: EventRecorder) -> None:
    """E8: each new row has the key that the database gave it, of which SQLAlchemy does not know yet."""
    recorder.listen(Parcel)

    def listener(session: Session, flush_context: UOWTransaction) -> None:
        session.expire_all()

    with listening_to(front.sync_session, "after_flush", listener):
        await front.add_all([Parcel(code="a"), Parcel(code="b")])
        await front.commit()
    assert recorder.take() == [created(Parcel, 1), created(Parcel, 2)]
