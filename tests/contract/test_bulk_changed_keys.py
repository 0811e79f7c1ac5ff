"""Rule B2: rows whose primary key a bulk statement changes are told with their new one, however it was given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import bindparam, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fastapi_toolsets.errors import BulkWriteError
from fastapi_toolsets.models import Changes, ModelEvent, Phase, listens_for

from ..databases import TYPES
from ..front_ends import AnySession, EventRecorder, FrontEnd, RecordedEvent, resolve, scenario
from .bulk_models import row_count, store
from .event_models import created, deleted, updated


class ChangedBase(DeclarativeBase):
    type_annotation_map = TYPES
    __bulk_events__ = True


class Ticket(ChangedBase):
    __tablename__ = "changed_tickets"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(default=1)


class Edition(ChangedBase):
    """Each UPDATE makes a row one of the second revision."""

    __tablename__ = "changed_editions"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, onupdate=2)
    value: Mapped[int] = mapped_column(default=1)


class Draft(ChangedBase):
    """The same, and nobody can know before."""

    __tablename__ = "changed_drafts"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, onupdate=lambda: 2)
    value: Mapped[int] = mapped_column(default=1)


class Seat(ChangedBase):
    """The database sets a field with each UPDATE."""

    __tablename__ = "changed_seats"
    name: Mapped[str] = mapped_column(primary_key=True)
    price: Mapped[int] = mapped_column(default=1)
    version: Mapped[int] = mapped_column(default=1, onupdate=text("version + 1"))


TICKETS = select(Ticket.id, Ticket.value).order_by(Ticket.id)


@scenario(ChangedBase.metadata)
async def test_new_key_is_a_parameter(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: the new key is the parameter's own value, one that is given for it, or one that it is called for."""
    await store(front, Ticket(id=1), Ticket(id=2), Ticket(id=3))
    recorder.listen(Ticket)
    statement = update(Ticket).where(Ticket.id == bindparam("old")).values(id=bindparam("new"))
    assert row_count(await front.execute(statement, {"old": 1, "new": 7})) == 1
    statement = update(Ticket).where(Ticket.id == bindparam("old", 2)).values(id=bindparam("new", 5))
    assert row_count(await front.execute(statement, {"new": 8})) == 1
    statement = update(Ticket).where(Ticket.id == 3).values(id=bindparam("new", callable_=lambda: 9), value=4)
    assert row_count(await front.execute(statement)) == 1
    await front.commit()
    assert recorder.take() == [
        updated(Ticket, 7, id=(1, 7)),
        updated(Ticket, 8, id=(2, 8)),
        updated(Ticket, 9, id=(3, 9), value=(1, 4)),
    ]
    assert await front.committed_rows(TICKETS) == [(7, 1), (8, 1), (9, 4)]


@scenario(ChangedBase.metadata)
async def test_key_that_changes_by_itself(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: ``onupdate`` makes the new key, unless the statement says another one."""
    rows = [{"id": 1, "revision": 1, "value": 1}, {"id": 2, "revision": 1, "value": 1}]
    await front.execute(insert(Edition), rows, execution_options={"events": False})
    await front.commit()
    recorder.listen(Edition)
    await front.execute(update(Edition).where(Edition.id == 1).values(value=5))
    await front.execute(update(Edition).where(Edition.id == 2).values(value=5, revision=3))
    await front.commit()
    assert recorder.take() == [
        updated(Edition, (1, 2), revision=(1, 2), value=(1, 5)),
        updated(Edition, (2, 3), revision=(1, 3), value=(1, 5)),
    ]
    assert await front.committed_rows(select(Edition.id, Edition.revision).order_by(Edition.id)) == [(1, 2), (2, 3)]


@pytest.mark.parametrize("model", [Edition, Draft])
@scenario(ChangedBase.metadata)
async def test_key_that_changes_by_itself_and_is_not_known(
    front: FrontEnd, recorder: EventRecorder, model: type[Edition | Draft]
) -> None:
    """B2: a function of Python's as ``onupdate`` is refused, and any where rows are given by their keys."""
    rows: list[dict[str, Any]] = [{"id": 1, "revision": 1, "value": 1}]
    await front.execute(insert(model), rows, execution_options={"events": False})
    await front.commit()
    recorder.listen(model)
    changed: list[dict[str, Any]] = [{"id": 1, "revision": 1, "value": 5}]
    with pytest.raises(BulkWriteError, match="the onupdate of a primary key"):
        await front.execute(update(model), changed)

    def write(session: Session) -> None:
        session.bulk_update_mappings(model, changed)

    with pytest.raises(BulkWriteError, match="the onupdate of a primary key"):
        await front.run_sync(write)

    def save(session: Session) -> None:
        loaded: Any = session.scalars(select(model)).one()
        loaded.value = 5
        session.bulk_save_objects([loaded])

    with pytest.raises(BulkWriteError, match="the onupdate of a primary key"):
        await front.run_sync(save)
    await front.rollback()
    if model is Draft:
        with pytest.raises(BulkWriteError, match="the onupdate of a primary key"):
            await front.execute(update(Draft).values(value=5))
    await front.commit()
    assert recorder.take() == []
    assert await front.committed_rows(select(model.revision, model.value)) == [(1, 1)]
    await front.execute(update(Draft).values(value=5, revision=4))
    await front.commit()
    expected = [updated(Draft, (1, 4), revision=(1, 4), value=(1, 5))] if model is Draft else []
    assert recorder.take() == expected


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("price", [1, 5])
@scenario(ChangedBase.metadata)
async def test_object_is_changed_after_its_key(
    front: FrontEnd, recorder: EventRecorder, price: int, *, nested: bool
) -> None:
    """B2, E1: SQLAlchemy gives the session's object the new key and leaves its identity key: it is one row."""
    await store(front, Seat(name="a"), Seat(name="b"))
    recorder.listen(Seat)
    seat = await front.get(Seat, "a")
    await front.execute(update(Seat).where(Seat.name == "a").values(name="c"))
    assert seat is not None
    assert seat.name == "c"
    savepoint = await front.begin_nested() if nested else None
    seat.price = price
    await front.flush()
    if savepoint is not None:
        await savepoint.commit()
    await front.commit()
    versions = 2 if price == 1 else 3
    prices = {} if price == 1 else {"price": (1, price)}
    assert recorder.take() == [updated(Seat, "c", name=("a", "c"), version=(1, versions), **prices)]
    seats = await front.committed_rows(select(Seat.name, Seat.price, Seat.version).order_by(Seat.name))
    assert seats == [("b", 1, 1), ("c", price, versions)]


@scenario(ChangedBase.metadata)
async def test_object_is_deleted_after_its_key_has_changed(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E1: the row is told as deleted, by the key that it had."""
    await store(front, Seat(name="a"), Seat(name="b"))
    recorder.listen(Seat, ModelEvent.DELETE)
    seat = await front.get(Seat, "a")
    await front.execute(update(Seat).where(Seat.name == "a").values(name="c"))
    await front.delete(seat)
    await front.commit()
    assert len(recorder.take()) == 1
    assert await front.committed_rows(select(Seat.name)) == [("b",)]


async def rename(front: FrontEnd, old: str, new: str) -> None:
    await front.execute(update(Seat).where(Seat.name == old).values(name=new))


async def held_and_renamed(front: FrontEnd, old: str, new: str) -> Seat:
    """Return the session's object of a row whose key a bulk statement has changed since."""
    seat = await front.get_one(Seat, old)
    await rename(front, old, new)
    assert seat.name == new
    return seat


async def change_key_again(front: FrontEnd) -> None:
    (await held_and_renamed(front, "a", "c")).name = "d"


async def change_key_back(front: FrontEnd) -> None:
    (await held_and_renamed(front, "a", "c")).name = "a"


async def change_in_savepoint(front: FrontEnd) -> None:
    seat = await held_and_renamed(front, "a", "c")
    async with front.begin_nested():
        seat.name = "d"
        await front.flush()
        await rename(front, "d", "e")


async def create_and_change_in_savepoint(front: FrontEnd) -> None:
    await front.add(seat := Seat(name="n"))
    await front.flush()
    await rename(front, "n", "m")
    async with front.begin_nested():
        await front.execute(update(Seat).where(Seat.name == "m").values(price=2))
        seat.name = "k"


async def change_after_new_row_has_key(front: FrontEnd) -> None:
    seat = await held_and_renamed(front, "a", "c")
    await front.execute(insert(Seat), [{"name": "a", "price": 9}])
    seat.price = 5


async def change_after_other_row_has_key(front: FrontEnd) -> None:
    seat = await held_and_renamed(front, "a", "c")
    await rename(front, "b", "a")
    seat.price = 5


async def change_key_again_after_other_row_has_it(front: FrontEnd) -> None:
    seat = await held_and_renamed(front, "a", "c")
    await rename(front, "b", "a")
    seat.name = "d"


async def create_in_savepoint(front: FrontEnd) -> None:
    await front.add(Seat(name="n"))
    await front.flush()
    await held_and_renamed(front, "a", "c")
    savepoint = await front.begin_nested()
    await front.execute(insert(Seat), [{"name": "m"}])
    await savepoint.commit()


async def create_and_change(front: FrontEnd) -> None:
    await front.add(seat := Seat(name="n"))
    await front.flush()
    await rename(front, "n", "m")
    seat.price = 5


async def create_and_delete(front: FrontEnd) -> None:
    await front.execute(insert(Seat), [{"name": "n"}])
    seat = await held_and_renamed(front, "n", "m")
    async with front.begin_nested():
        await front.delete(seat)


async def change_and_delete(front: FrontEnd) -> None:
    seat = await front.get_one(Seat, "a")
    seat.price = 5
    await front.flush()
    await rename(front, "a", "c")
    await front.delete(seat)


async def delete_after_new_row_has_key(front: FrontEnd) -> None:
    seat = await held_and_renamed(front, "a", "c")
    await front.execute(insert(Seat), [{"name": "a", "price": 9}])
    await front.delete(seat)


async def delete_after_new_rows_have_both_keys(front: FrontEnd) -> None:
    seat = await held_and_renamed(front, "a", "c")
    await rename(front, "c", "d")
    await front.execute(insert(Seat), [{"name": "a"}, {"name": "c"}])
    await front.delete(seat)


async def delete_in_savepoint_after_new_row_has_key(front: FrontEnd) -> None:
    seat = await held_and_renamed(front, "a", "c")
    async with front.begin_nested():
        await rename(front, "c", "d")
        await front.execute(insert(Seat), [{"name": "c"}])
        await front.delete(seat)


async def change_in_savepoint_after_new_row_has_key(front: FrontEnd) -> None:
    seat = await held_and_renamed(front, "a", "c")
    async with front.begin_nested():
        await front.execute(insert(Seat), [{"name": "a", "price": 9}])
        seat.price = 5


OBJECTS: dict[Callable[[FrontEnd], Awaitable[None]], tuple[list[RecordedEvent], list[tuple[str, int]]]] = {
    change_key_again: ([updated(Seat, "d", name=("a", "d"), version=(1, 3))], [("b", 1), ("d", 1)]),
    change_key_back: ([updated(Seat, "a", version=(1, 3))], [("a", 1), ("b", 1)]),
    change_in_savepoint: ([updated(Seat, "e", name=("a", "e"), version=(1, 4))], [("b", 1), ("e", 1)]),
    create_and_change_in_savepoint: ([created(Seat, "k")], [("a", 1), ("b", 1), ("k", 2)]),
    change_after_new_row_has_key: (
        [updated(Seat, "c", name=("a", "c"), price=(1, 5), version=(1, 3)), created(Seat, "a")],
        [("a", 9), ("b", 1), ("c", 5)],
    ),
    change_after_other_row_has_key: (
        [
            updated(Seat, "c", name=("a", "c"), price=(1, 5), version=(1, 3)),
            updated(Seat, "a", name=("b", "a"), version=(1, 2)),
        ],
        [("a", 1), ("c", 5)],
    ),
    change_key_again_after_other_row_has_it: (
        [updated(Seat, "d", name=("a", "d"), version=(1, 3)), updated(Seat, "a", name=("b", "a"), version=(1, 2))],
        [("a", 1), ("d", 1)],
    ),
    create_in_savepoint: (
        [created(Seat, "n"), updated(Seat, "c", name=("a", "c"), version=(1, 2)), created(Seat, "m")],
        [("b", 1), ("c", 1), ("m", 1), ("n", 1)],
    ),
    create_and_change: ([created(Seat, "m")], [("a", 1), ("b", 1), ("m", 5)]),
    create_and_delete: ([], [("a", 1), ("b", 1)]),
    change_and_delete: ([deleted(Seat, "c")], [("b", 1)]),
    delete_after_new_row_has_key: ([deleted(Seat, "c"), created(Seat, "a")], [("a", 9), ("b", 1)]),
    delete_after_new_rows_have_both_keys: (
        [deleted(Seat, "d"), created(Seat, "a"), created(Seat, "c")],
        [("a", 1), ("b", 1), ("c", 1)],
    ),
    delete_in_savepoint_after_new_row_has_key: ([deleted(Seat, "d"), created(Seat, "c")], [("b", 1), ("c", 1)]),
    change_in_savepoint_after_new_row_has_key: (
        [updated(Seat, "c", name=("a", "c"), price=(1, 5), version=(1, 3)), created(Seat, "a")],
        [("a", 9), ("b", 1), ("c", 5)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("write", list(OBJECTS), ids=lambda write: write.__name__)
@scenario(ChangedBase.metadata)
async def test_object_and_its_row_under_another_key(
    front: FrontEnd, recorder: EventRecorder, write: Callable[[FrontEnd], Awaitable[None]]
) -> None:
    """B2, E1: whatever is done to the object is done to the row that it had before the bulk statement."""
    await store(front, Seat(name="a"), Seat(name="b"))
    recorder.listen(Seat)
    events, rows = OBJECTS[write]
    await write(front)
    await front.commit()
    assert recorder.take() == events
    assert await front.committed_rows(select(Seat.name, Seat.price).order_by(Seat.name)) == rows


@scenario(ChangedBase.metadata)
async def test_object_is_not_given_another_row_that_has_its_old_key(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2, E11: a callback gets a copy of the new row."""
    await store(front, Seat(name="a"))
    recorder.listen(Seat)
    session = front.new_session(expire_on_commit=False)
    seat = await session.get_one(Seat, "a")
    await session.execute(update(Seat).where(Seat.name == "a").values(name="c"))
    await session.execute(insert(Seat), [{"name": "a", "price": 9}])
    await session.commit()
    assert recorder.take() == [updated(Seat, "c", name=("a", "c"), version=(1, 2)), created(Seat, "a")]
    assert (seat.name, seat.price) == ("c", 1)


async def give_its_key_to_another(session: AnySession, seat: Seat) -> None:
    await resolve(session.execute(update(Seat).where(Seat.name == seat.name).values(name="c")))


async def put_another_in_its_place(session: AnySession, seat: Seat) -> None:
    await resolve(session.delete(seat))
    await resolve(session.flush())


REPLACED: dict[Callable[[AnySession, Seat], Awaitable[None]], list[tuple[str, str, int]]] = {
    give_its_key_to_another: [("update", "c", 5), ("create", "a", 1)],
    put_another_in_its_place: [("delete", "a", 5), ("create", "a", 1)],
}


@pytest.mark.parametrize("make_room", list(REPLACED), ids=lambda make_room: make_room.__name__)
@scenario(ChangedBase.metadata)
async def test_another_row_gets_the_key_before_the_commit(
    front: FrontEnd, make_room: Callable[[AnySession, Seat], Awaitable[None]]
) -> None:
    """P1, B2: what was told of the first row is not compared with the second, nor does its object show that."""
    await store(front, Seat(name="a"))
    told: list[tuple[str, str, int]] = []
    prices: list[object] = []

    async def replace(seat: Seat, _event_type: ModelEvent, _changes: Changes | None, *, session: AnySession) -> None:
        if (seat.name, seat.price) == ("a", 5):
            await make_room(session, seat)
            await resolve(session.execute(insert(Seat), [{"name": "a"}]))

    def tell(seat: Seat, event_type: ModelEvent, changes: Changes | None) -> None:
        told.append((event_type.value, seat.name, seat.price))
        if changes is not None and "price" in changes:
            prices.extend(changes["price"].values())

    listens_for(Seat, ModelEvent.UPDATE, phase=Phase.BEFORE_COMMIT)(replace)
    listens_for(Seat)(tell)
    seat = await front.get_one(Seat, "a")
    seat.price = 5
    await front.commit()
    assert told == REPLACED[make_room]
    assert prices == ([1, 5] if told[0][0] == "update" else [])
