"""Rules T7 and T8: what the library adds to a commit, and what it leaves alone."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from sqlalchemy import ForeignKey, event, insert, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from fastapi_toolsets.errors import PlainSessionWarning
from fastapi_toolsets.events.registry import ALL_EVENTS, Listener, Registry, listener_scope
from fastapi_toolsets.models import ModelEvent, SyncEventSession, listens_for

from ..calls import library_calls
from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, SessionAdapter, scenario
from .clauses import Clauses
from .event_models import created, new_base, table_of
from .transaction_models import ORDERS, Base, Customer, Order, ShopBase

Program = Callable[[SessionAdapter], Awaitable[None]]

clause = Clauses(Base.metadata)


# T7


async def nothing(session: SessionAdapter) -> None:
    await session.commit()


async def read_only(session: SessionAdapter) -> None:
    await session.execute(ORDERS)
    await session.commit()


async def read_in_block(session: SessionAdapter) -> None:
    async with session.begin(), session.begin_nested():
        await session.get(Order, 1)


async def no_net_change(session: SessionAdapter) -> None:
    order = await session.get_one(Order, 1)
    order.status = "other"
    order.status = "new"
    await session.commit()


async def assigned_the_value_it_has(session: SessionAdapter) -> None:
    order = await session.get_one(Order, 1)
    order.status = "new"
    await session.commit()


async def updated_without_listener(session: SessionAdapter) -> None:
    order = await session.get_one(Order, 1)
    order.quantity += 1
    await session.commit()
    order.quantity += 1
    await session.flush()
    await session.commit()


async def created_and_deleted(session: SessionAdapter) -> None:
    order = Order(id=9)
    await session.add(order)
    await session.flush()
    await session.delete(order)
    await session.commit()


async def rolled_back(session: SessionAdapter) -> None:
    await session.add(Order(id=9))
    await session.flush()
    savepoint = await session.begin_nested()
    await session.add(Order(id=8))
    await savepoint.rollback()
    await session.rollback()


async def core_update(session: SessionAdapter) -> None:
    await session.execute(update(Order).values(quantity=7).execution_options(events=False))
    await session.commit()


async def created_inside_everything(session: SessionAdapter) -> None:
    async with session.begin():
        async with session.begin_nested(), session.begin_nested():
            await session.add(Order(id=9))
        await session.flush()
        (await session.get_one(Order, 9)).status = "changed"
    await session.delete(await session.get_one(Order, 9))
    await session.commit()


QUIET: tuple[Program, ...] = (
    nothing,
    read_only,
    read_in_block,
    no_net_change,
    assigned_the_value_it_has,
    updated_without_listener,
    created_and_deleted,
    rolled_back,
    core_update,
)


@clause
async def test_commit_with_nothing_to_tell_costs_no_sql(front: FrontEnd, recorder: EventRecorder) -> None:
    """T7: exactly the statements of a plain session, with nothing after the COMMIT."""
    await front.add(Order(id=1))
    await front.commit()
    recorder.listen(Order, [ModelEvent.CREATE, ModelEvent.DELETE])
    sent: dict[str, dict[str, list[str]]] = {"plain": {}, "event": {}}
    with warnings.catch_warnings(action="ignore", category=PlainSessionWarning):
        for program in QUIET:
            for kind, session in (("plain", front.plain_session()), ("event", front.new_session())):
                with front.statements(boundaries=True) as statements:
                    await program(session)
                    sent[kind][program.__name__] = statements.copy()
                    statements.clear()
                    await session.close()
    assert sent["event"] == sent["plain"]
    assert sent["event"]["nothing"] == []
    assert recorder.take() == []


@clause
async def test_session_listeners_fire_as_on_a_plain_session(front: FrontEnd, recorder: EventRecorder) -> None:
    """T7: ``after_commit`` and every other event of SQLAlchemy's session as often."""
    await front.add(Order(id=1))
    await front.commit()
    recorder.listen(Order, asynchronous=True)
    fired: dict[str, dict[str, list[str]]] = {"plain": {}, "event": {}}
    with warnings.catch_warnings(action="ignore", category=PlainSessionWarning):
        for program in (*QUIET, created_inside_everything):
            for kind, session in (("plain", front.plain_session()), ("event", front.new_session())):
                names = fired[kind][program.__name__] = []
                trace(session.sync_session, names)
                await program(session)
                await session.close()
    counts = {kind: {name: Counter(names) for name, names in programs.items()} for kind, programs in fired.items()}
    assert counts["event"] == counts["plain"]
    assert counts["event"]["created_inside_everything"]["after_commit"] == 4  # two savepoints, two transactions


def append(names: list[str], name: str, *arguments: object) -> None:
    names.append(name)


def trace(session: Session, names: list[str]) -> None:
    """Write down the events of a session as they fire."""
    for name in (
        "before_commit",
        "after_commit",
        "after_rollback",
        "after_soft_rollback",
        "after_begin",
        "after_transaction_create",
        "after_transaction_end",
        "before_flush",
        "after_flush",
        "after_flush_postexec",
    ):
        event.listen(session, name, partial(append, names, name))


@clause
async def test_before_commit_listeners_find_what_is_pending(front: FrontEnd, recorder: EventRecorder) -> None:
    """T7: a user's own ``before_commit`` hook sees the session as on a plain one, not flushed already."""
    recorder.listen(Order)
    pending: list[list[int]] = []

    def audit(session: Session) -> None:
        pending.append([instance.id for instance in session.new if isinstance(instance, Order)])

    for number, session in enumerate((front.plain_session(), front.new_session())):
        event.listen(session.sync_session, "before_commit", audit)
        with warnings.catch_warnings(action="ignore", category=PlainSessionWarning):
            await session.add(Order(id=number))
            await session.commit()
    assert pending == [[0], [1]]
    assert recorder.take() == [created(Order, 1)]


@clause
async def test_session_is_in_no_transaction_after_commit(front: FrontEnd) -> None:
    """T7: whatever callbacks did with the session, and by whichever door it was committed."""

    @listens_for(Order)
    async def read(order: Order, event_type: ModelEvent, changes: object) -> None:
        await front.execute(ORDERS)

    @listens_for(Order)
    async def begin(order: Order, event_type: ModelEvent, changes: object) -> None:
        await front.begin()

    @listens_for(Order)
    async def leave_savepoints(order: Order, event_type: ModelEvent, changes: object) -> None:
        await front.begin_nested()
        await front.begin_nested()

    @listens_for(Order)
    def read_directly(order: Order, event_type: ModelEvent, changes: object) -> None:
        front.sync_session.execute(ORDERS)

    await front.add(Order(id=1))
    await front.commit()
    assert not front.in_transaction()
    async with front.begin():
        await front.add(Order(id=2))
        await front.commit()
        assert not front.in_transaction()
    assert not front.in_transaction()
    transaction = await front.begin()
    await front.add(Order(id=3))
    await transaction.commit()
    assert not front.in_transaction()
    async with front.begin():
        await front.add(Order(id=4))
    assert not front.in_transaction()
    assert await front.committed_rows(ORDERS) == [(number, "new") for number in range(1, 5)]


# T8


@scenario(ShopBase.metadata, databases=["sqlite"])
async def test_plain_session_warns_once_for_each_model(front: FrontEnd, recorder: EventRecorder) -> None:
    """T8: the warning names the model and the session class to use; models without listeners are passed over."""
    recorder.listen(Customer)
    plain = front.plain_session()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in (1, 2):
            await plain.add(Customer(id=number, name="somebody"))
            await plain.commit()
            again = front.plain_session()
            (await again.get_one(Customer, number)).name = "somebody else"
            await again.commit()
            recorder.listen(Order)  # a listener of another model is no reason to say it again
    assert [warning.category for warning in caught] == [PlainSessionWarning]
    instead = "async_sessionmaker(..., class_=EventSession)" if front.is_async else "(..., class_=SyncEventSession)"
    assert [name for name in ("Customer", instead) if name not in str(caught[0].message)] == []
    assert recorder.take() == []


@clause
async def test_plain_session_without_listeners_is_silent(front: FrontEnd) -> None:
    """T8: no listener, no warning."""
    plain = front.plain_session()
    await plain.add(Order(id=1))
    await plain.commit()


@scenario(Base.metadata, databases=["sqlite"])
async def test_plain_session_retains_nothing(front: FrontEnd, recorder: EventRecorder) -> None:
    """T8: an object that it flushed and expunged is free before the commit, and nothing is told later."""
    recorder.listen(Order)
    plain = front.plain_session()
    order = Order(id=1)
    await plain.add(order)
    with pytest.warns(PlainSessionWarning):
        await plain.flush()
    await plain.expunge(order)
    reference = weakref.ref(order)
    del order
    gc.collect()
    assert reference() is None
    await plain.commit()
    await front.add(Order(id=2))
    await front.commit()
    assert recorder.take() == [created(Order, 2)]


# What grows


class GrowthBase(DeclarativeBase):
    type_annotation_map = TYPES


class Shelf(GrowthBase):
    __tablename__ = "shelves"
    __watched_fields__ = ("boxes",)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    boxes: Mapped[list[Box]] = relationship(back_populates="shelf")


class Box(GrowthBase):
    __tablename__ = "boxes"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("shelves.id"))
    shelf: Mapped[Shelf | None] = relationship(back_populates="boxes")


@scenario(Base.metadata, databases=["sqlite"], front_ends=["sync"])
async def test_rows_that_come_up_through_savepoints(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: each level that is released costs the same, however many rows were written inside."""
    recorder.listen(Order)

    def release(first: int, rows: int) -> int:
        with SyncEventSession(front.sync_engine) as session:
            levels = [session.begin_nested() for _ in range(10)]
            session.add_all([Order(id=first + number) for number in range(rows)])
            session.flush()
            calls = library_calls(lambda: [level.commit() for level in reversed(levels)])
            session.commit()
        assert recorder.take() == [created(Order, first + number) for number in range(rows)]
        return calls

    assert release(100, 20) == release(200, 80)


@scenario(Base.metadata, databases=["sqlite"], front_ends=["sync"])
async def test_refreshing_after_many_deletions(front: FrontEnd, recorder: EventRecorder) -> None:
    """E11: each refresh, which may cascade to deleted rows, looks at those that it has not seen yet."""
    recorder.listen(Order)
    await front.add_all([Order(id=key) for key in range(200)])
    await front.commit()

    def refresh(first: int, rows: int) -> int:
        with SyncEventSession(front.sync_engine) as session:
            kept = session.get_one(Order, 0)
            for key in range(first, first + rows):
                session.delete(session.get_one(Order, key))
            session.flush()
            session.refresh(kept)
            calls = library_calls(partial(session.refresh, kept))
            session.commit()
        return calls

    assert refresh(1, 20) == refresh(21, 80)


@scenario(GrowthBase.metadata, databases=["sqlite"], front_ends=["sync"])
async def test_members_that_come_one_by_one(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7: each flush that adds one to a watched collection costs the same, however many there are."""
    recorder.listen(Shelf)

    def add(count: int) -> int:
        with SyncEventSession(front.sync_engine) as session:
            shelf = Shelf(id=count)
            session.add(shelf)
            session.commit()
            assert shelf.id == count

            def add_boxes() -> None:
                for _ in range(count):
                    session.add(Box(shelf=shelf))
                    session.flush()

            calls = library_calls(add_boxes)
            session.commit()
        assert [len(event[3]["boxes"]["new"]) for event in recorder.take() if event[3]] == [count]
        return calls

    few, many = add(20), add(80)
    assert few <= many <= 4.4 * few


@scenario(Base.metadata, databases=["sqlite"], front_ends=["sync"])
async def test_bulk_statements_that_have_not_opted_in(front: FrontEnd, recorder: EventRecorder) -> None:
    """B1: one on a class with many subclasses costs what one on a class with few does."""
    recorder.listen(Order)

    def write(subclasses: int) -> list[int]:
        class Top(new_base()):  # type: ignore[misc]
            __tablename__ = "tops"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str | None]
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "top"}  # noqa: RUF012

        bottom: type = Top
        for number in range(subclasses):
            bottom = type(f"Below{number}", (bottom,), {"__mapper_args__": {"polymorphic_identity": str(number)}})
        Top.metadata.drop_all(front.sync_engine)
        Top.metadata.create_all(front.sync_engine)
        recorder.listen(Top)
        options = {"events": False}
        table = table_of(Top)
        with SyncEventSession(front.sync_engine) as session:
            ways: list[Callable[[], object]] = [
                lambda: session.execute(update(Top).values(kind="top"), execution_options=options),
                lambda: session.execute(insert(Top), [{"kind": "top"}], execution_options=options),
                lambda: session.execute(table.update().values(kind="top"), execution_options=options),
            ]
            for way in ways:
                way()
            return [library_calls(way) for way in ways]

    assert write(30) == write(3)


def test_many_listeners_that_are_removed() -> None:
    """N5: each removal costs the same, however many there are."""

    def remove(count: int) -> int:
        registry = Registry()
        callbacks = [partial(print, number) for number in range(count)]
        for callback in callbacks:
            registry.add(Order, Listener(callback, ALL_EVENTS, frozenset()))

        def remove_all() -> None:
            for callback in callbacks:
                registry.remove(Order, callback)

        calls = library_calls(remove_all)
        assert registry.targets() == []
        return calls

    few, many = remove(20), remove(80)
    assert few <= many <= 4.4 * few


def test_listening_to_a_base_with_many_ways_to_its_subclasses() -> None:
    """N4, N7: each class is looked at once."""

    def listen(depth: int) -> int:
        class Mixin: ...

        layer: list[type] = [Mixin]
        for number in range(depth):
            layer = [type(f"{side}{number}", tuple(layer), {}) for side in ("Left", "Right")]
        with listener_scope():
            return library_calls(lambda: listens_for(Mixin)(print_nothing))

    few, many = listen(3), listen(12)
    assert few <= many <= 4.4 * few


def print_nothing(obj: object, event_type: ModelEvent, changes: object) -> None: ...


test_every_clause_on_servers = clause.on_servers()
