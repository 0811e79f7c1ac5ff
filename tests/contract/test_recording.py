"""``capture_events``: what is delivered, written down without anybody noticing."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from contextvars import ContextVar, copy_context
from dataclasses import FrozenInstanceError, fields
from functools import partial
from typing import Any, cast
from unittest.mock import ANY
from uuid import uuid4

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import ForeignKey, delete, insert, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from fastapi_toolsets.errors import ExpectedChangeError, ListenerError, PlainSessionWarning
from fastapi_toolsets.events import (
    Changes,
    Event,
    EventRecorder,
    ModelEvent,
    Phase,
    RecordedEvent,
    SyncEventSession,
    capture_events,
    created,
    deleted,
    listener_scope,
    listens_for,
    muted,
    updated,
)
from fastapi_toolsets.events.differences import difference

from ..calls import library_calls
from ..databases import TYPES
from ..front_ends import FrontEnd, scenario


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Named:
    """A mixin."""

    name: Mapped[str | None]


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(default="new")
    note: Mapped[str | None] = mapped_column(deferred=True)


class Item(Named, Base):
    __tablename__ = "items"
    __watched_fields__ = ("name", "parts")
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    quantity: Mapped[int] = mapped_column(default=1)
    parts: Mapped[list[Part]] = relationship(back_populates="item", lazy="selectin")


class Part(Base):
    __tablename__ = "parts"
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    item: Mapped[Item] = relationship(back_populates="parts")

    def __repr__(self) -> str:
        return f"Part({self.number})"


class Parcel(Base):
    __tablename__ = "recorded_parcels"
    __bulk_events__ = True
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(default="new")


LOCAL = ("sqlite",)


async def write_everything(front: FrontEnd) -> None:
    """Create, update and delete rows of three models; roll some of it back."""
    order, item = Order(id=1), Item(id=2, name="desk")
    await front.add_all([order, item])
    await front.commit()
    order.status = "paid"
    part = Part(item=item, number=1)
    await front.add(part)
    async with front.begin_nested():
        item.name = "chair"
    savepoint = await front.begin_nested()
    await front.add(Order(id=3))
    await savepoint.rollback()
    await front.commit()
    await front.add(Order(id=4))
    await front.rollback()
    item.quantity = 5  # not watched
    await front.commit()
    await front.delete(part)
    await front.delete(order)
    await front.commit()


EVERYTHING = [
    created(Order, 1),
    created(Item, 2),
    updated(Order, 1, status=("new", "paid")),
    updated(Item, 2, name=("desk", "chair"), parts=([], ANY)),
    created(Part, 2, 1),
    deleted(Order, 1),
    deleted(Part, 2, 1),
]


@scenario(Base.metadata)
async def test_everything_delivered_is_recorded_though_nobody_listens(front: FrontEnd) -> None:
    """E1, E9, T3: net events of all models, in order, and none of what was rolled back."""
    with capture_events() as events:
        await write_everything(front)
    assert events == EVERYTHING
    await front.add(Order(id=5))
    await front.commit()
    assert events == EVERYTHING


@scenario(Base.metadata, databases=LOCAL, expire_on_commit=True)
async def test_chosen_models_bases_and_mixins(front: FrontEnd) -> None:
    """N4: as for listeners, a base or a mixin stands for its subclasses."""
    with (
        capture_events(Order) as orders,
        capture_events(Base) as all_of_base,
        capture_events(Named, Order) as both,
    ):
        await write_everything(front)
    assert orders == [event for event in EVERYTHING if event.model is Order]
    assert all_of_base == EVERYTHING
    assert both == [event for event in EVERYTHING if event.model is not Part]


@scenario(Base.metadata)
async def test_old_and_new_values_are_true(front: FrontEnd) -> None:
    """E3, N1: also those that were never loaded, and outside of ``changes`` the row before and after."""
    await front.add(Order(id=1, note="first"))
    await front.commit()
    await front.expunge_all()
    order = await front.get_one(Order, 1)
    with capture_events() as events:
        order.note = "second"
        await front.commit()
        await front.delete(order)
        await front.commit()
    assert events == [updated(Order, 1, note=("first", "second")), deleted(Order, 1)]
    update, delete = events
    assert update.before == {"id": 1, "status": "new", "note": "first"}
    assert update.after == {"id": 1, "status": "new", "note": "second"}
    assert (delete.before, delete.after) == (update.after, None)
    assert update.transaction_id != delete.transaction_id is not None


Told = list[tuple[object, ...]]


def listen(told: Told, *models: type[Base], with_event: bool) -> None:
    """Register callbacks of both kinds that write down all that they are told, and leave a mark in their context."""

    def tell(name: str, obj: Base, event_type: ModelEvent, changes: Changes | None) -> None:
        assert isinstance(obj, (Order, Item))
        told.append((name, type(obj).__name__, obj.id, event_type.value, repr(changes), previous.get()))
        previous.set(f"{name} {event_type.value}")

    def plain(obj: Base, event_type: ModelEvent, changes: Changes | None) -> None:
        tell("plain", obj, event_type, changes)

    async def asynchronous(obj: Base, event_type: ModelEvent, changes: Changes | None) -> None:
        tell("async", obj, event_type, changes)

    def curious(obj: Base, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        told.append((event.position, event.before, event.after))

    for model in models:
        listens_for(model, ModelEvent.UPDATE)(asynchronous)
        listens_for(model, [ModelEvent.UPDATE, ModelEvent.DELETE])(plain)
        if with_event:
            listens_for(model)(curious)


previous: ContextVar[str] = ContextVar("previous", default="nothing")


@pytest.mark.parametrize("with_event", [False, True])
@pytest.mark.parametrize("models", [(Order,), (Item,), (Item, Order)], ids=len)
@scenario(Base.metadata, databases=LOCAL)
async def test_callbacks_are_told_the_same(
    front: FrontEnd, models: tuple[type[Base], ...], *, with_event: bool
) -> None:
    """N1, E9: the order, the changes, the event, its position and the context, with a recorder and without."""
    told: Told = []
    listen(told, *models, with_event=with_event)
    runs: list[Told] = []
    for recording in (False, True):
        previous.set("nothing")
        with capture_events() if recording else nullcontext():
            await write_everything(front)
        runs.append(list(told))
        await front.expunge_all()
        await front.delete(await front.get_one(Item, 2))
        await front.commit()
        told.clear()
    assert runs[0] == runs[1]
    assert len(runs[0]) >= 2


@pytest.mark.parametrize(
    "phases",
    [(Phase.BEFORE_COMMIT,), (Phase.AFTER_ROLLBACK,), tuple(Phase)],
    ids=["before_commit", "after_rollback", "all"],
)
@scenario(Base.metadata, databases=LOCAL)
async def test_only_what_was_committed_is_recorded(front: FrontEnd, phases: tuple[Phase, ...]) -> None:
    """P1, P2, N1: listeners of every phase are told the same as ever, and what they hear of is recorded only once."""
    told: list[object] = []

    def curious(phase: Phase, order: Order, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        told.append((phase, order.id, event_type, repr(changes), event.position, event.before, event.after))
        if phase is Phase.BEFORE_COMMIT and order.status == "refused":
            raise ZeroDivisionError

    for phase in phases:
        listens_for(Order, phase=phase)(partial(curious, phase))
    runs: list[list[object]] = []
    recorder = EventRecorder()
    for recording in (False, True):
        with capture_events() if recording else nullcontext(recorder) as recorder:
            await front.add_all([Item(id=1), Order(id=1), Item(id=2), Order(id=2), Order(id=3)])
            await front.flush()
            await front.rollback()
            item, order = Item(id=1, name="desk"), Order(id=1)
            await front.add_all([item, order, Item(id=2), Order(id=2)])
            await front.commit()
            order.status = "refused"
            if Phase.BEFORE_COMMIT in phases:
                with pytest.raises(ZeroDivisionError):
                    await front.commit()
            else:
                await front.commit()
            for row in (item, order, await front.get_one(Item, 2), await front.get_one(Order, 2)):
                await front.delete(row)
            await front.commit()
        runs.append([*told])
        told.clear()
    assert runs[0] == runs[1]
    assert len(runs[0]) >= 3
    kept = [] if Phase.BEFORE_COMMIT in phases else [updated(Order, 1, status=("new", "refused"))]
    both = [created(Item, 1), created(Item, 2), created(Order, 1), created(Order, 2)]
    gone = [deleted(Item, 1), deleted(Item, 2), deleted(Order, 1), deleted(Order, 2)]
    assert sorted(recorder, key=repr) == sorted([*both, *kept, *gone], key=repr)


@scenario(Base.metadata, databases=LOCAL)
async def test_many_alike_are_recorded_one_by_one(front: FrontEnd) -> None:
    """C6: each before its callback, however many wait that have the same one."""
    seen: list[tuple[int, list[RecordedEvent]]] = []
    with capture_events() as events:

        @listens_for(Order)
        def take(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            seen.append((order.id, events.take()))

        await front.add_all([Order(id=number) for number in range(1, 8)])
        await front.commit()
        assert seen == [(number, [created(Order, number)]) for number in range(1, 8)]


@scenario(Base.metadata, databases=LOCAL)
async def test_recorder_that_begins_among_many_alike(front: FrontEnd) -> None:
    """C6: a callback may begin to record, and to cease, while others of the same kind wait."""
    heard: list[int] = []
    recorders: list[EventRecorder] = []
    blocks = ExitStack()

    @listens_for(Order)
    def record_in_the_middle(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        heard.append(order.id)
        if order.id == 2:
            recorders.append(blocks.enter_context(capture_events()))
        if order.id == 4:
            blocks.close()

    await front.add_all([Order(id=number) for number in range(1, 6)])
    await front.commit()
    assert (heard, list(recorders[0])) == ([1, 2, 3, 4, 5], [created(Order, 3), created(Order, 4)])


@scenario(Base.metadata, databases=LOCAL)
async def test_who_begins_to_listen_after_the_flush_hears_nothing_of_it(front: FrontEnd) -> None:
    """N1: with a recorder as without."""
    heard: list[int] = []

    def hear(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        heard.append(order.id)

    for number in (0, 1):
        with listener_scope(), ExitStack() as recording:
            events = recording.enter_context(capture_events()) if number else EventRecorder()
            await front.add(Order(id=number))
            await front.flush()
            listens_for(Order)(hear)
            await front.commit()
            assert (heard, list(events)) == ([], [created(Order, 1)] * number)


@scenario(Base.metadata, databases=LOCAL)
async def test_an_event_is_recorded_before_its_callbacks_run(front: FrontEnd) -> None:
    """C6: so what a callback commits comes after it, through its own session or through another one."""
    other = front.new_session()

    @listens_for(Order, ModelEvent.CREATE)
    async def follow(order: Order, event_type: ModelEvent, changes: object) -> None:
        if order.id == 1:
            await other.add(Order(id=11))
            await other.commit()
            await front.add(Order(id=12))
            await front.commit()

    with capture_events() as events:
        await front.add_all([Order(id=1), Order(id=2)])
        await front.commit()
    assert events == [created(Order, 1), created(Order, 11), created(Order, 2), created(Order, 12)]


@scenario(Base.metadata, databases=LOCAL, cascade_limit=1)
async def test_recording_makes_no_chain_longer(front: FrontEnd) -> None:
    """C6: beyond the bound, a commit that only a recorder hears of is no reason for an error."""

    @listens_for(Order, ModelEvent.CREATE)
    async def follow(order: Order, event_type: ModelEvent, changes: object) -> None:
        if order.id == 1:
            await front.add(Order(id=2))
        else:
            await front.add(Item(id=3))
        await front.commit()

    with capture_events() as events:
        await front.add(Order(id=1))
        await front.commit()
    assert events == [created(Order, 1), created(Order, 2)]


@scenario(Base.metadata, databases=LOCAL)
async def test_what_is_not_delivered_any_more_is_not_recorded(front: FrontEnd) -> None:
    """C4: an interrupt in a callback ends the delivery; the next commit is recorded again."""
    for number, asynchronous in enumerate((False, True)):
        with listener_scope(), capture_events() as events:
            listens_for(Order)(interrupt_later if asynchronous else interrupt)
            await front.add_all([Order(id=number * 10 + 1), Order(id=number * 10 + 2)])
            with pytest.raises(KeyboardInterrupt):
                await front.commit()
            await front.add(Item(id=number))
            await front.commit()
        assert events == [created(Order, number * 10 + 1), created(Item, number)]


def interrupt(order: Order, event_type: ModelEvent, changes: object) -> None:
    raise KeyboardInterrupt


async def interrupt_later(order: Order, event_type: ModelEvent, changes: object) -> None:
    raise KeyboardInterrupt


@scenario(Base.metadata, databases=LOCAL)
async def test_blocks_are_nested(front: FrontEnd) -> None:
    """Each recorder has what was delivered in its own block, and scopes of listeners do not end it."""
    with capture_events() as outer:
        with listener_scope(inherit=False):
            await front.add(Order(id=1))
            await front.commit()
        with capture_events(Order) as inner:
            await front.add(Order(id=2))
            await front.commit()
        await front.add(Order(id=3))
        await front.commit()
    assert inner == [created(Order, 2)]
    assert outer == [created(Order, number) for number in (1, 2, 3)]


@scenario(Base.metadata, databases=LOCAL)
async def test_muting(front: FrontEnd) -> None:
    """N5: muting everything mutes recorders too; muting one callback does not; a recorder can mute others alone."""
    told: list[int] = []

    @listens_for(Order)
    def tell(order: Order, event_type: ModelEvent, changes: object) -> None:
        told.append(order.id)

    async def add(key: int) -> None:
        await front.add(Order(id=key))
        front.session.on_commit(told.append, key * 10)
        await front.commit()

    with capture_events() as events:
        with muted():
            await add(1)
        with muted(tell):
            await add(2)
        with events.muted():
            await add(3)
        with events.muted(tell):
            await add(4)
        with events.paused(), events.paused():
            await add(5)
        with muted(), events.muted():
            await add(6)
        with events.muted(), muted():
            await add(7)
        await add(8)
    with capture_events(run_callbacks=False) as silent:
        await add(9)
    await add(10)
    assert events == [created(Order, number) for number in (2, 3, 4, 8)]
    assert silent == [created(Order, 9)]
    assert told == [20, 40, 5, 50, 8, 80, 10, 100]


@scenario(Base.metadata, databases=LOCAL)
async def test_clearing_and_taking(front: FrontEnd) -> None:
    with capture_events() as events:
        await front.add(Order(id=1))
        await front.commit()
        events.clear()
        assert events == []
        await front.add(Order(id=2))
        await front.commit()
        assert events.take() == [created(Order, 2)]
        assert (len(events), list(events)) == (0, [])


@scenario(Base.metadata, databases=LOCAL)
async def test_every_thread_is_recorded_or_only_ones_own(front: FrontEnd) -> None:
    """A recorder is the process's; with ``own_context`` it is of the task or thread and what that starts."""
    committed = threading.Event()

    def commit_elsewhere() -> None:
        with capture_events(own_context=True) as theirs:
            engine = front.database.create_engine()
            with SyncEventSession(engine) as session:
                session.add(Order(id=100))
                session.commit()
            engine.dispose()
        heard_there.extend(theirs)
        committed.set()

    heard_there: list[RecordedEvent] = []
    with capture_events() as everywhere, capture_events(own_context=True) as own:
        thread = threading.Thread(target=commit_elsewhere)
        thread.start()
        thread.join()
        await front.add(Order(id=1))
        await front.commit()
    assert committed.is_set()
    assert heard_there == [created(Order, 100)]
    assert own == [created(Order, 1)]
    assert everywhere == [created(Order, 100), created(Order, 1)]


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"])
async def test_tasks_that_record_at_the_same_time(front: FrontEnd) -> None:
    """With ``own_context`` no task sees another's events, and each those of the tasks that it starts."""
    recorded: dict[int, list[RecordedEvent]] = {}
    arrived = anyio.Event()

    async def add(key: int) -> None:
        session = front.new_session()
        await session.add(Order(id=key))
        await session.commit()

    async def record(key: int) -> None:
        with capture_events(own_context=True) as events:
            if len(recorded) == 0:
                recorded[key] = []
                await arrived.wait()
            else:
                arrived.set()
            await add(key)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(add, key + 1)
            recorded[key] = list(events)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(record, 10)
        tasks.start_soon(record, 20)
    assert recorded == {10: [created(Order, 10), created(Order, 11)], 20: [created(Order, 20), created(Order, 21)]}


@scenario(Base.metadata, databases=LOCAL)
async def test_block_of_its_own_context_that_ends_in_another(front: FrontEnd) -> None:
    """N5: as that of a sync dependency with ``yield`` in FastAPI does, which is no error, and records nothing more."""
    blocks = [capture_events(own_context=True, run_callbacks=run_callbacks) for run_callbacks in (True, False)]
    first, second = (copy_context().run(block.__enter__) for block in blocks)
    for block in blocks:
        copy_context().run(block.__exit__, None, None, None)
    with capture_events(own_context=True) as events:
        await front.add(Order(id=1))
        await front.commit()
    assert [[*first], [*second], [*events]] == [[], [], [created(Order, 1)]]


@scenario(Base.metadata, databases=LOCAL)
async def test_block_that_ends_in_another_context_leaves_the_others(front: FrontEnd) -> None:
    """N5: whoever records around it goes on, and so does what was begun since where it ends."""
    with capture_events(own_context=True) as around:
        block = capture_events(own_context=True)
        inner = copy_context().run(block.__enter__)
        with capture_events(own_context=True) as since:
            block.__exit__(None, None, None)
            await front.add(Order(id=1))
            await front.commit()
    assert [[*around], [*since], [*inner]] == [[created(Order, 1)], [created(Order, 1)], []]


def ignore(obj: Base, event_type: ModelEvent, changes: Changes | None) -> None: ...


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"])
async def test_worker_threads_of_a_task_are_followed(front: FrontEnd) -> None:
    """C2: as its context variables are seen there, in a ``def`` endpoint for example."""

    def commit() -> None:
        engine = front.database.create_engine()
        with SyncEventSession(engine) as session:
            session.add(Order(id=1))
            session.commit()
        engine.dispose()

    with capture_events(own_context=True) as events:
        await anyio.to_thread.run_sync(commit)
    assert events == [created(Order, 1)]


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"])
async def test_callbacks_are_not_called_in_worker_threads_and_are_in_others(front: FrontEnd) -> None:
    """N5, C2: a thread of its own has no context variable of who starts it, and so nothing is muted there."""
    heard: list[int] = []

    @listens_for(Order)
    def hear(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        heard.append(order.id)

    def commit(key: int) -> None:
        engine = front.database.create_engine()
        with SyncEventSession(engine) as session:
            session.add(Order(id=key))
            session.commit()
        engine.dispose()

    with capture_events(run_callbacks=False) as events:
        await anyio.to_thread.run_sync(commit, 1)
        thread = threading.Thread(target=commit, args=(2,))
        thread.start()
        thread.join()
    assert events == [created(Order, 1), created(Order, 2)]
    assert heard == [2]


@scenario(Base.metadata, databases=LOCAL)
async def test_plain_sessions_do_not_warn_because_of_a_recorder(front: FrontEnd) -> None:
    """T8: with a listener they do, recorder or not."""
    plain = front.plain_session()
    with capture_events() as events:
        await plain.add(Order(id=1))
        await plain.commit()
        listens_for(Order)(partial(ignore))  # for a callback that it knows it warns only once
        await plain.add(Order(id=2))
        with pytest.warns(PlainSessionWarning, match="Order has listeners"):
            await plain.commit()
    assert events == []


@scenario(Base.metadata, databases=LOCAL)
async def test_recorded_values_are_out_of_reach(front: FrontEnd) -> None:
    """E5: a callback that edits its changes and the object changes nothing for the recorder; records are immutable."""

    @listens_for(Order)
    def spoil(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if changes is not None:
            changes.clear()

    order = Order(id=1)
    await front.add(order)
    await front.commit()
    with capture_events() as events:
        order.status = "paid"
        await front.commit()
        order.status = "sent"
        await front.rollback()
    assert events == [updated(Order, 1, status=("new", "paid"))]
    (event,) = events
    with pytest.raises(FrozenInstanceError):
        event.type = ModelEvent.DELETE  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert event.changes is not None
    assert event.changes == {"status": {"old": "new", "new": "paid"}}
    with pytest.raises(TypeError):
        cast("Any", event.changes)["status"] = None
    with pytest.raises(TypeError):
        cast("Any", event.changes["status"])["new"] = None


@scenario(Base.metadata)
async def test_recorded_events_can_be_pickled_and_copied(front: FrontEnd) -> None:
    """N1: whole, with what is not compared, and as immutable; expectations too."""
    order = Order(id=1)
    with capture_events() as events:
        await front.add(order)
        await front.commit()
        order.status = "paid"
        await front.commit()
        await front.delete(order)
        await front.commit()
    recorded = [*events, created(Order), updated(Order, 1), updated(Order, 1, status=("new", "paid"))]

    def told(event: RecordedEvent) -> list[object]:
        return [getattr(event, field.name) for field in fields(event)]

    for made_again in (pickle.loads(pickle.dumps(recorded)), copy.deepcopy(recorded)):  # noqa: S301 - its own
        assert [told(event) for event in made_again] == [told(event) for event in recorded]
        change: Any = made_again[1]
        for mapping in (change.changes, change.before, change.changes["status"]):
            with pytest.raises(TypeError):
                mapping["status"] = None


def test_what_is_no_model_is_refused() -> None:
    """N3: as ``listens_for`` does, with the name of the function that was called."""
    given: Any = "Order"
    with pytest.raises(ListenerError, match=r"capture_events\(\) was given 'Order'"), capture_events(given):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("expected", [created, updated, deleted])
@pytest.mark.parametrize("given", ["Order", Order(id=1, status="new")])
def test_expectation_of_no_model_is_refused(expected: Callable[..., RecordedEvent], given: object) -> None:
    message = rf"^{expected.__name__}\(\) was given .*, which is no model: give it a mapped class"
    with pytest.raises(ListenerError, match=message) as caught:
        expected(given, 1)
    assert "status" not in str(caught.value)


@pytest.mark.parametrize("change", ["ab", ("new",), ("new", "paid", "sent"), None])
def test_expectation_of_a_change_that_is_no_pair_is_refused(change: Any) -> None:  # noqa: ANN401 - as a test may write
    message = rf"^updated\(\) was given an object of type {type(change).__name__} as the change of status: give it a "
    with pytest.raises(ExpectedChangeError, match=message):
        updated(Order, 1, status=change)


def test_expectations_compare_what_they_say() -> None:
    other = RecordedEvent(Order, ModelEvent.UPDATE, (1,), {"status": {"old": "a", "new": "b"}})
    assert other == updated(Order, 1, status=("a", "b")) == updated(Order, 1) == updated(Order) == other
    assert updated(Order, 1, status=("a", "b")) == updated(Order, ANY, status=("a", ANY))
    different = [
        updated(Order, 2, status=("a", "b")),
        updated(Order, 1, status=("a", "c")),
        updated(Order, 1, status=("a", "b"), note=(None, "x")),
        updated(Item, 1, status=("a", "b")),
        created(Order, 1),
        deleted(Order, 1),
        ("update", Order, 1),
    ]
    assert [each for each in different if each == other] == []
    assert len({other, updated(Order, 1), created(Order, 1), deleted(Order)}) == 3
    assert (created(Order) == created(Order, 1), created(Order, 2) == created(Order, 1)) == (True, False)


def test_records_are_written_as_the_calls_that_make_them() -> None:
    class Broken:
        def __repr__(self) -> str:
            message = "not loaded"
            raise ValueError(message)

    shown = [
        repr(each)
        for each in (created(Order), deleted(Part, 2, 1), updated(Order, "x", status=("a", None), note=(None, 1)))
    ]
    assert shown == ["created(Order)", "deleted(Part, 2, 1)", "updated(Order, 'x', status=('a', None), note=(None, 1))"]
    assert repr(created(Order, Broken())).startswith(
        "created(Order, <tests.contract.test_recording.test_records_are_written"
    )


SOME_EVENTS = [created(Order, 1), created(Order, 2), created(Item, 1), updated(Order, 1, status=("a", "b"))]
SOME_EXPECTED = [
    *SOME_EVENTS,
    created(Order),
    updated(Order, ANY),
    updated(Order, 1, status=("a", "c")),
    ANY,
    "nothing",
]


def recorder_of(*events: RecordedEvent) -> EventRecorder:
    recorder = EventRecorder()
    for event in events:
        identity = event.identity or ()
        recorder.note(
            Event(
                model=event.model,
                identity=identity,
                type=event.type,
                changes=event.changes,
                before=None,
                after=None,
                transaction_id=uuid4(),
                position=0,
            )
        )
    return recorder


def test_recorder_is_a_sequence_that_equals_a_list() -> None:
    recorder = recorder_of(created(Order, 1), deleted(Order, 1))
    assert recorder == [created(Order, 1), deleted(Order, 1)] == recorder
    assert recorder == (created(Order), deleted(Order))
    assert recorder == recorder_of(*recorder)
    assert recorder != [deleted(Order, 1), created(Order, 1)]
    assert recorder != {created(Order, 1), deleted(Order, 1)}
    assert (recorder[0], recorder[-1:], len(recorder)) == (created(Order, 1), [deleted(Order, 1)], 2)
    assert created(Order) in recorder
    assert repr(recorder) == "EventRecorder([created(Order, 1), deleted(Order, 1)])"
    with pytest.raises(TypeError):
        hash(recorder)


def test_what_differs_is_shown_event_by_event() -> None:
    recorder = recorder_of(
        created(Order, 1), updated(Order, 1, status=("new", "paid")), created(Item, 7), deleted(Order, 1)
    )
    recorder.assert_delivered(list(recorder))
    with pytest.raises(AssertionError) as caught:
        recorder.assert_delivered(
            [
                created(Order, 1),
                updated(Order, 1, status=("new", "shipped")),
                created(Item),
                deleted(Order, 1),
                deleted(Item, 7),
            ]
        )
    assert str(caught.value).splitlines() == [
        "what was delivered is not what was expected",
        "  (- expected and not delivered, + delivered and not expected)",
        "    created(Order, 1)",
        "  - updated(Order, 1, status=('new', 'shipped'))",
        "  + updated(Order, 1, status=('new', 'paid'))",
        "    created(Item, 7)",
        "    deleted(Order, 1)",
        "  - deleted(Item, 7)",
    ]


def test_another_order_is_called_that() -> None:
    with pytest.raises(AssertionError) as caught:
        recorder_of(created(Order, 1), created(Order, 2)).assert_delivered([created(Order, 2), created(Order, 1)])
    assert str(caught.value).splitlines()[2:] == [
        "  - created(Order, 2)",
        "    created(Order, 1)",
        "  + created(Order, 2)",
        "  The same events, in another order.",
    ]


def test_many_events_are_not_compared_each_with_each() -> None:
    """What they have in common is found without comparing each with each."""

    def compare(count: int) -> int:
        recorder = recorder_of(*(created(Order, number) for number in range(1, count + 1)))
        expected = [created(Order, number) for number in range(count)]

        def fail() -> None:
            with pytest.raises(AssertionError) as caught:
                recorder.assert_delivered(expected)
            assert str(caught.value).splitlines()[2:] == [
                "  - created(Order, 0)",
                *(f"    created(Order, {number})" for number in range(1, count)),
                f"  + created(Order, {count})",
            ]

        return library_calls(fail)

    few, many = compare(1_000), compare(2_000)
    assert few <= many <= 2.2 * few


@pytest.mark.parametrize("expected", [created(Order, 1), created(Order), created(Order, ANY)], ids=repr)
@pytest.mark.parametrize("count", [300, 1_500])
def test_what_was_delivered_before_is_all_that_is_too_much(expected: RecordedEvent, count: int) -> None:
    """However many there are: nothing that was delivered in order is called missing."""
    before = [created(Item, number) for number in range(count)]
    orders = [created(Order, number) for number in range(count)]
    wanted = orders if expected.identity == (1,) else [expected] * count
    with pytest.raises(AssertionError) as caught:
        recorder_of(*before, *orders).assert_delivered(wanted)
    assert str(caught.value).splitlines()[2:] == [
        *(f"  + created(Item, {number})" for number in range(count)),
        *(f"    created(Order, {number})" for number in range(count)),
    ]
    with pytest.raises(AssertionError) as caught:
        recorder_of(*orders).assert_delivered([*before, *wanted])
    assert str(caught.value).splitlines()[2:] == [
        *(f"  - created(Item, {number})" for number in range(count)),
        *(f"    created(Order, {number})" for number in range(count)),
    ]


@given(st.lists(st.sampled_from(SOME_EVENTS), max_size=9), st.lists(st.sampled_from(SOME_EXPECTED), max_size=9))
def test_as_much_as_can_be_is_in_common(delivered: list[RecordedEvent], expected: list[object]) -> None:
    """Whatever was delivered and expected: as comparing each with each finds it."""

    def most(row: int, column: int) -> int:
        if row == len(delivered) or column == len(expected):
            return 0
        if delivered[row] == expected[column]:
            return 1 + most(row + 1, column + 1)
        return max(most(row + 1, column), most(row, column + 1))

    lines = [line for line in difference(delivered, expected) if line[2] in "+- " and line[3] == " "]
    assert sum(line.startswith("    ") for line in lines) == most(0, 0)
    told = [line[4:] for line in lines if line[:3] in {"  +", "   "}]
    assert told == [repr(event) for event in delivered]


def test_many_events_alike_among_others() -> None:
    """What is expected in whichever way is found: any row, any event, a value without a hash, and what is no event."""
    unhashable = created(Order, [1])
    wanted: list[Any] = [
        created(Item),
        ANY,
        unhashable,
        "nothing",
        updated(Order, ANY, status=("a", ANY)),
        deleted(Item),
    ]
    recorder = recorder_of(
        deleted(Part, 1, 2),
        created(Item, 4),
        created(Item, 5),
        unhashable,
        updated(Order, 1, status=("b", "c")),
        updated(Order, 1, status=("a", "c")),
        deleted(Item, 5),
    )
    with pytest.raises(AssertionError) as caught:
        recorder.assert_delivered(wanted)
    assert str(caught.value).splitlines()[2:] == [
        "  + deleted(Part, 1, 2)",
        "    created(Item, 4)",
        "    created(Item, 5)",
        "    created(Order, [1])",
        "  - 'nothing'",
        "  + updated(Order, 1, status=('b', 'c'))",
        "    updated(Order, 1, status=('a', 'c'))",
        "    deleted(Item, 5)",
    ]


@pytest.mark.parametrize(("delivered", "expected"), [(500, 0), (0, 500), (500, 250), (250, 500)])
def test_many_events_that_are_missing_or_too_many(delivered: int, expected: int) -> None:
    recorder = recorder_of(*(created(Order, number) for number in range(delivered)))
    with pytest.raises(AssertionError) as caught:
        recorder.assert_delivered([created(Order, number) for number in range(expected)])
    common = min(delivered, expected)
    assert str(caught.value).splitlines()[2:] == [
        *(f"    created(Order, {number})" for number in range(common)),
        *(f"  + created(Order, {number})" for number in range(common, delivered)),
        *(f"  - created(Order, {number})" for number in range(common, expected)),
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_recorder_that_comes_late_or_goes_early(front: FrontEnd) -> None:
    """N5: what was flushed before the block is recorded where somebody listened to it; after the block nothing is."""
    listens_for(Item)(ignore)
    await front.add_all([Order(id=1), Item(id=1)])
    await front.flush()
    with capture_events() as events:
        await front.commit()
        await front.add(Order(id=2))
        await front.flush()
    await front.commit()
    assert events == [created(Item, 1)]


def test_session_is_of_the_kind_that_delivers() -> None:
    """Without a listener in the process a plain session stays one: recording begins to listen, too, and ends it."""
    with warnings.catch_warnings(action="error"), capture_events() as events, Session() as session:
        session.commit()
    assert events == []


@scenario(Base.metadata, databases=LOCAL)
@pytest.mark.parametrize("target", [Parcel, Parcel.__table__], ids=["model", "table"])
async def test_bulk_statements_are_recorded_where_the_model_is_opted_in(front: FrontEnd, target: type[Parcel]) -> None:
    """B2, T3: rows of bulk statements are recorded though nobody listens; without an opt-in nothing is."""
    with capture_events() as events:
        await front.execute(insert(target).values([{"id": 1, "status": "new"}, {"id": 2, "status": "sent"}]))
        await front.execute(insert(Order).values(id=1, status="new"))
        await front.commit()
        await front.execute(update(target).values(status="sent"))
        await front.commit()
        await front.execute(update(target).values(status="lost"))
        await front.rollback()
        await front.execute(delete(target).where(Parcel.id == 2))
        await front.commit()
    assert events == [
        created(Parcel, 1),
        created(Parcel, 2),
        updated(Parcel, 1, status=("new", "sent")),
        deleted(Parcel, 2),
    ]
    assert [(event.before, event.after) for event in events] == [
        (None, {"id": 1, "status": "new"}),
        (None, {"id": 2, "status": "sent"}),
        ({"id": 1, "status": "new"}, {"id": 1, "status": "sent"}),
        ({"id": 2, "status": "sent"}, None),
    ]
