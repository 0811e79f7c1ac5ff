"""Rule N5: listeners come and go while the process runs: registered late, removed, muted, scoped."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import event

from fastapi_toolsets.errors import ListenerError
from fastapi_toolsets.events import registered_listeners
from fastapi_toolsets.events.capture import at_hand, capture
from fastapi_toolsets.models import (
    Changes,
    ModelEvent,
    listener_scope,
    listens_for,
    muted,
    remove_listener,
)

from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, Base, Order, created, deleted, updated

Heard = list[str]


def hearing(heard: Heard, name: str) -> Callable[[Base, ModelEvent, Changes | None], None]:
    """Make a callback that writes its name down."""

    def callback(order: Base, event_type: ModelEvent, changes: Changes | None) -> None:
        assert isinstance(order, Order)
        heard.append(f"{name} {event_type.value} {order.id}")

    return callback


async def add(front: FrontEnd, key: int) -> Order:
    """Commit a new order."""
    order = Order(id=key, status="new")
    await front.add(order)
    await front.commit()
    return order


@scenario(Base.metadata)
async def test_a_listener_registered_after_events_were_dispatched(front: FrontEnd) -> None:
    """N5: takes effect on the next commit, on a model with listeners and on one without, for each kind of event."""
    heard: Heard = []
    order = await add(front, 1)
    listens_for(Order, ModelEvent.UPDATE)(hearing(heard, "a"))
    order.status = "paid"
    await front.commit()
    listens_for(Order, ModelEvent.UPDATE)(hearing(heard, "b"))
    order.status = "sent"
    await front.commit()
    listens_for(Base, ModelEvent.DELETE)(hearing(heard, "c"))
    await front.delete(order)
    await front.commit()
    assert heard == ["a update 1", "a update 1", "b update 1", "c delete 1"]


@scenario(Base.metadata, databases=LOCAL)
async def test_a_listener_registered_between_flush_and_commit(front: FrontEnd) -> None:
    """N5: the next commit is the one that is under way."""
    heard: Heard = []
    listens_for(Order)(hearing(heard, "a"))
    await front.add(Order(id=1, status="new"))
    await front.flush()
    listens_for(Order)(hearing(heard, "b"))
    await front.commit()
    assert heard == ["a create 1", "b create 1"]


@contextmanager
def listening_from_the_update_on(front: FrontEnd, recorder: EventRecorder) -> Generator[None]:
    """Register the recorder as a flush sends an UPDATE, as another thread might."""

    def register(*call: Any) -> None:  # noqa: ANN401 - connection, cursor, statement and more
        if call[2].startswith("UPDATE"):
            recorder.listen(Order)

    event.listen(front.sync_engine, "before_cursor_execute", register)
    try:
        yield
    finally:
        event.remove(front.sync_engine, "before_cursor_execute", register)


def listening_until_a_flush_begins(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Register a listener and remove it as a flush begins, as another thread might; return what it hears."""
    heard: Heard = []
    first = hearing(heard, "a")
    listens_for(Order, ModelEvent.UPDATE)(first)

    def look(*given: Any) -> bool:  # noqa: ANN401 - whatever it takes
        is_at_hand = at_hand.olds_are_at_hand(*given)
        remove_listener(Order, first)
        return is_at_hand

    monkeypatch.setattr(capture, "olds_are_at_hand", look)
    return heard


@pytest.mark.parametrize("before", [ModelEvent.CREATE, ModelEvent.UPDATE, None])
@scenario(Base.metadata, databases=LOCAL)
async def test_a_listener_registered_during_a_flush(
    front: FrontEnd, recorder: EventRecorder, before: ModelEvent | None
) -> None:
    """N5, E3: as by another thread: where nobody has listened to updates, old values are known from the next one on."""
    order = await add(front, 1)
    heard: Heard = []
    if before is not None:
        listens_for(Order, before)(hearing(heard, "a"))

    await front.expire(order)
    order.status = "paid"
    with listening_from_the_update_on(front, recorder):
        await front.commit()
    told_of_the_first = [updated(Order, 1, status=("new", "paid"))] if before is ModelEvent.UPDATE else []
    assert recorder.take() == told_of_the_first
    await front.expire(order)
    order.status = "sent"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("paid", "sent"))]
    assert heard == ["a update 1"] * (2 if before is ModelEvent.UPDATE else 0)


@scenario(Base.metadata, databases=LOCAL)
async def test_a_listener_replaced_during_a_flush(
    front: FrontEnd, recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N5, E3: as by another thread: old values are read to the end although nobody listens for a moment."""
    order = await add(front, 1)
    heard = listening_until_a_flush_begins(monkeypatch)
    await front.expire(order)
    order.status = "paid"
    with listening_from_the_update_on(front, recorder):
        await front.commit()
    assert (recorder.take(), heard) == ([updated(Order, 1, status=("new", "paid"))], [])


@scenario(Base.metadata, databases=LOCAL)
async def test_a_listener_replaced_before_a_flush_expires(
    front: FrontEnd, recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N5, E3: what a listener of the row expires is kept, too, although nobody listens for a moment."""
    order = await add(front, 1)
    heard = listening_until_a_flush_begins(monkeypatch)

    def expire(mapper: object, connection: object, written: Order) -> None:
        front.sync_session.expire(written)
        recorder.listen(Order)

    await front.refresh(order)
    order.status = "paid"
    event.listen(Order, "after_update", expire)
    await front.commit()
    event.remove(Order, "after_update", expire)
    assert (recorder.take(), heard) == ([updated(Order, 1, status=("new", "paid"))], [])


@scenario(Base.metadata, databases=LOCAL)
async def test_another_session_hears_of_it_too(front: FrontEnd) -> None:
    """N5: nothing resolved is kept by a session."""
    heard: Heard = []
    second = front.new_session()
    await second.add(Order(id=1, status="new"))
    await second.commit()
    first = hearing(heard, "a")
    listens_for(Order)(first)
    await second.add(Order(id=2, status="new"))
    await second.commit()
    remove_listener(Order, first)
    await second.add(Order(id=3, status="new"))
    await second.commit()
    assert heard == ["a create 2"]


@scenario(Base.metadata, databases=LOCAL)
async def test_registering_and_removing_inside_a_callback(front: FrontEnd) -> None:
    """N5: what a callback registers or removes holds from the next commit, at the latest."""
    heard: Heard = []
    late = hearing(heard, "late")

    @listens_for(Order, ModelEvent.CREATE)
    def once(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        heard.append("once")
        remove_listener(Order, once)
        listens_for(Order, ModelEvent.UPDATE)(late)

    order = await add(front, 1)
    order.status = "paid"
    await front.commit()
    await add(front, 2)
    assert heard == ["once", "late update 1"]


@scenario(Base.metadata)
async def test_removing_a_listener(front: FrontEnd) -> None:
    """N5: it is not called again, the others are; added again it is called again, behind them."""
    heard: Heard = []
    first, second = hearing(heard, "a"), hearing(heard, "b")
    listens_for(Order)(first)
    listens_for(Order)(second)
    await add(front, 1)
    remove_listener(Order, first)
    await add(front, 2)
    listens_for(Order)(first)
    await add(front, 3)
    assert heard == ["a create 1", "b create 1", "b create 2", "b create 3", "a create 3"]


@scenario(Base.metadata, databases=LOCAL)
async def test_removing_between_flush_and_commit(front: FrontEnd) -> None:
    """N5: a removed listener hears nothing of what waits."""
    heard: Heard = []
    first, second = hearing(heard, "a"), hearing(heard, "b")
    listens_for(Order)(first)
    listens_for(Order)(second)
    await front.add(Order(id=1, status="new"))
    await front.flush()
    remove_listener(Order, first)
    await front.commit()
    assert heard == ["b create 1"]


@scenario(Base.metadata, databases=LOCAL)
async def test_removing_from_one_of_two_targets(front: FrontEnd) -> None:
    """N4, N5: it still hears through the other."""
    heard: Heard = []
    callback = hearing(heard, "a")
    listens_for(Order)(callback)
    listens_for(Base)(callback)
    remove_listener(Order, callback)
    await add(front, 1)
    remove_listener(Base, callback)
    await add(front, 2)
    assert heard == ["a create 1"]


def test_removing_what_does_not_listen() -> None:
    """N5: an error that names both, not silence."""
    callback = hearing([], "a")
    listens_for(Base)(callback)
    with pytest.raises(ListenerError, match=r"callback.*Order"):
        remove_listener(Order, callback)
    remove_listener(Base, callback)
    with pytest.raises(ListenerError):
        remove_listener(Base, callback)


@pytest.mark.parametrize(
    ("target", "given"),
    [("Order", "'Order'"), (Order(id=1, status="secret"), "an object of type Order"), (int, "<class 'int'>")],
    ids=["name", "row", "built-in"],
)
def test_removing_from_what_is_no_target(target: Any, given: str) -> None:  # noqa: ANN401 - what is not allowed
    """N5: says what was given, no field values among it, and what to give."""
    with pytest.raises(ListenerError) as raised:
        remove_listener(target, hearing([], "a"))
    assert str(raised.value) == (
        f"remove_listener() was given {given}, which is no model: give it a mapped class, an abstract base or a mixin"
    )


@scenario(Base.metadata, databases=LOCAL)
async def test_removing_methods_and_unhashable_callbacks(front: FrontEnd, recorder: EventRecorder) -> None:
    """N5, C1: a method is removed by getting it again; a callback need not be hashable to be called or muted."""

    @dataclass
    class Unhashable:
        heard: list[object]

        def __call__(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            self.heard.append(order.id)

    callback = Unhashable([])
    with pytest.raises(TypeError):
        hash(callback)
    listens_for(Order)(callback)
    recorder.listen(Order)
    await add(front, 1)
    with muted(recorder.record):
        await add(front, 2)
    with muted(callback, recorder.record):
        await add(front, 4)
    remove_listener(Order, recorder.record)
    await add(front, 3)
    assert (callback.heard, recorder.take()) == ([1, 2, 3], [created(Order, 1)])


@scenario(Base.metadata, databases=LOCAL)
async def test_removing_and_muting_static_methods(front: FrontEnd) -> None:
    """N5, C1: decorated in a class's body, where they are objects of their own, and named by the class afterwards."""
    heard: list[object] = []

    class Callbacks:
        @listens_for(Order)
        @staticmethod
        def synchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            heard.append(("sync", order.id))

        @listens_for(Order)
        @staticmethod
        async def asynchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            heard.append(("async", order.id))

    listens_for(Order)(Callbacks.synchronous)  # the same
    await add(front, 1)
    with muted(Callbacks.synchronous, Callbacks.asynchronous):
        await add(front, 2)
    remove_listener(Order, Callbacks.synchronous)
    await add(front, 3)
    kinds = [listener.is_async for listener in registered_listeners() if listener.target is Order]
    assert (heard, kinds) == ([("sync", 1), ("async", 1), ("async", 3)], [True])


@dataclass
class Webhook:
    """Equal to another for the same address, as a dataclass is."""

    url: str
    heard: list[int] = field(default_factory=list, compare=False)

    def __call__(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        self.heard.append(order.id)


@dataclass(unsafe_hash=True)
class HashableWebhook(Webhook):
    """The same, for who puts callbacks into a set."""


@pytest.mark.parametrize("make", [Webhook, HashableWebhook])
@scenario(Base.metadata, databases=LOCAL)
async def test_callbacks_that_are_equal_are_not_the_same(front: FrontEnd, make: Callable[[str], Webhook]) -> None:
    """N5, C1: each object is a callback of its own: called, muted and removed by itself, whatever it is equal to."""
    first, second = make("https://example.org"), make("https://example.org")
    assert first == second
    listens_for(Order)(first)
    listens_for(Order)(second)
    await add(front, 1)
    with muted(first):
        await add(front, 2)
    remove_listener(Order, second)
    await add(front, 3)
    assert (first.heard, second.heard) == ([1, 3], [1, 2])
    with pytest.raises(ListenerError, match="does not listen to Order"):
        remove_listener(Order, second)


class EqualToAll:
    """As ``unittest.mock.ANY`` is."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1

    def __call__(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        self.heard.append(order.id)


@scenario(Base.metadata, databases=LOCAL)
async def test_muting_an_object_that_is_equal_to_all(front: FrontEnd) -> None:
    """N5: mutes that one only."""
    heard: Heard = []
    callback = EqualToAll()
    listens_for(Order)(callback)
    listens_for(Order)(hearing(heard, "a"))
    with muted(callback):
        await add(front, 1)
    await add(front, 2)
    assert (callback.heard, heard) == ([2], ["a create 1", "a create 2"])


# Muting


@scenario(Base.metadata)
async def test_muting_everything_for_a_block(front: FrontEnd, recorder: EventRecorder) -> None:
    """N5: nothing committed in the block is told, then or later."""
    recorder.listen(Order)
    recorder.listen(Base, ModelEvent.DELETE, asynchronous=True)
    with muted():
        order = await add(front, 1)
        order.status = "paid"
        await front.commit()
    assert recorder.take() == []
    order.status = "sent"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("paid", "sent"))]


@scenario(Base.metadata)
async def test_muting_some_callbacks(front: FrontEnd) -> None:
    """N5: only those named; blocks nest and end with their own part."""
    heard: Heard = []
    first, second, third = (hearing(heard, name) for name in "abc")
    for callback in (first, second, third):
        listens_for(Order)(callback)
    with muted(first):
        await add(front, 1)
        with muted(second):
            await add(front, 2)
        await add(front, 3)
        with muted():
            await add(front, 4)
        await add(front, 5)
    await add(front, 6)
    assert heard == [
        "b create 1",
        "c create 1",
        "c create 2",
        "b create 3",
        "c create 3",
        "b create 5",
        "c create 5",
        "a create 6",
        "b create 6",
        "c create 6",
    ]


@pytest.mark.parametrize(("given", "name"), [(Order, "the class Order"), ("report", "an object of type str")])
def test_muting_what_is_no_callback(given: Any, name: str) -> None:  # noqa: ANN401 - what type checkers refuse
    """N5: is refused, since it would mute nobody."""
    message = rf"^muted\(\) was given {name}, which is no callback: give it the functions that listens_for decorated"
    with pytest.raises(ListenerError, match=message), muted(given):
        pytest.fail("the block must not run")


@scenario(Base.metadata, databases=LOCAL)
async def test_a_muted_block_that_raises(front: FrontEnd) -> None:
    """N5: the block ends however it is left."""
    heard: Heard = []
    listens_for(Order)(hearing(heard, "a"))
    with pytest.raises(ZeroDivisionError), muted():
        raise ZeroDivisionError
    await add(front, 1)
    assert heard == ["a create 1"]


@scenario(Base.metadata, databases=LOCAL)
async def test_muted_when_committed_counts(front: FrontEnd) -> None:
    """N5: a change flushed in a muted block and committed after it is told; the reverse is not."""
    heard: Heard = []
    listens_for(Order)(hearing(heard, "a"))
    with muted():
        await front.add(Order(id=1, status="new"))
        await front.flush()
    await front.commit()
    await front.add(Order(id=2, status="new"))
    await front.flush()
    with muted():
        await front.commit()
    assert heard == ["a create 1"]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@scenario(Base.metadata, databases=LOCAL)
async def test_muting_around_a_commit_inside_a_callback(front: FrontEnd, *, asynchronous: bool) -> None:
    """N5, C6: what was muted where the callback committed counts, although that is told when the block has ended."""
    heard: Heard = []
    muting, other = hearing(heard, "muted"), hearing(heard, "other")

    @listens_for(Order, ModelEvent.CREATE)
    def commits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id < 10:
            session = front.sync_session
            with muted(muting):
                session.add(Order(id=10, status="new"))
                session.commit()
            with muted():
                session.add(Order(id=11, status="new"))
                session.commit()
            session.add(Order(id=12, status="new"))
            session.commit()

    @listens_for(Order, ModelEvent.CREATE)
    async def commits_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id < 10:
            with muted(muting):
                await add(front, 10)
            with muted():
                await add(front, 11)
            await add(front, 12)

    remove_listener(Order, commits if asynchronous else commits_later)
    listens_for(Order)(muting)
    listens_for(Order)(other)
    await add(front, 1)
    assert heard == ["muted create 1", "other create 1", "other create 10", "muted create 12", "other create 12"]


@scenario(Base.metadata, databases=LOCAL)
async def test_a_muted_block_that_ends_in_another_context(front: FrontEnd) -> None:
    """N5: as that of a sync dependency with ``yield`` in FastAPI does, which is no error and mutes nobody for good."""
    heard: Heard = []
    listens_for(Order)(hearing(heard, "a"))
    block = muted()
    contextvars.copy_context().run(block.__enter__)
    contextvars.copy_context().run(block.__exit__, None, None, None)
    await add(front, 1)
    assert heard == ["a create 1"]


@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_muting_holds_for_this_thread_only(front: FrontEnd) -> None:
    """N5: a thread that was not started by the block goes on hearing."""
    heard: Heard = []
    listens_for(Order)(hearing(heard, "a"))
    go, done = threading.Event(), threading.Event()
    factory = front.factory()

    def commit_elsewhere() -> None:
        go.wait(10)
        with factory.begin() as session:
            session.add(Order(id=1, status="new"))
        done.set()

    thread = threading.Thread(target=commit_elsewhere)
    thread.start()
    with muted():
        go.set()
        assert done.wait(10)
    thread.join()
    assert heard == ["a create 1"]


# Scopes


@scenario(Base.metadata, databases=LOCAL)
async def test_a_scope_of_listeners_of_ones_own(front: FrontEnd) -> None:
    """N5: what is registered inside ends with it; what was removed inside is back after it."""
    heard: Heard = []
    outer, inner = hearing(heard, "outer"), hearing(heard, "inner")
    listens_for(Order)(outer)
    with listener_scope():
        listens_for(Order)(inner)
        await add(front, 1)
        remove_listener(Order, outer)
        await add(front, 2)
    await add(front, 3)
    assert heard == ["outer create 1", "inner create 1", "inner create 2", "outer create 3"]


@scenario(Base.metadata, databases=LOCAL)
async def test_a_scope_that_begins_empty(front: FrontEnd) -> None:
    """N5: with ``inherit=False`` only what is registered inside is called; scopes nest."""
    heard: Heard = []
    listens_for(Order)(hearing(heard, "outer"))
    listens_for(Base)(hearing(heard, "base"))
    with listener_scope(inherit=False):
        await add(front, 1)
        listens_for(Order)(hearing(heard, "middle"))
        with listener_scope():
            listens_for(Order)(hearing(heard, "inner"))
            await add(front, 2)
        await add(front, 3)
    await add(front, 4)
    assert heard == [
        "middle create 2",
        "inner create 2",
        "middle create 3",
        "outer create 4",
        "base create 4",
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_a_scope_that_ends_by_an_error(front: FrontEnd) -> None:
    """N5: its listeners end with it all the same."""
    heard: Heard = []

    def fail() -> None:
        with listener_scope():
            listens_for(Order)(hearing(heard, "inner"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    order = await add(front, 1)
    await front.delete(order)
    await front.commit()
    assert heard == []


@scenario(Base.metadata, databases=LOCAL)
async def test_classes_that_are_gone_do_not_stay_registered(front: FrontEnd, recorder: EventRecorder) -> None:
    """N5, T9: a mixin that is garbage takes its listeners with it, and disturbs nobody's."""
    recorder.listen(Order)
    mixin: Any = type("Mixin", (), {})
    recorder.listen(mixin)
    del mixin
    order = await add(front, 1)
    await front.delete(order)
    await front.commit()
    assert recorder.take() == [created(Order, 1), deleted(Order, 1)]
