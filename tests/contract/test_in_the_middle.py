"""Rules C4, C6, C7, E9, E11 and N5 where a callback does something while rows of the same flush still wait.

What one flush wrote is told in another way to a callback that asks for ``event``: both must hear the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, cast

import pytest
from sqlalchemy import inspect, select
from sqlalchemy.orm import Session, make_transient

from fastapi_toolsets.errors import CascadeLimitError
from fastapi_toolsets.events import EventRecorder, capture_events
from fastapi_toolsets.models import Changes, Event, ModelEvent, SyncEventSession, listens_for, remove_listener

from ..front_ends import FrontEnd, scenario
from .event_models import LOCAL
from .transaction_models import Base, ExpectedError, Order

Act = Callable[[Session, list[Order]], object]
Heard = tuple[str, dict[str, Any], Changes | None]


def commit(session: Session, orders: list[Order]) -> None:
    session.scalars(select(Order)).all()
    session.commit()


def delete_the_others(session: Session, orders: list[Order]) -> None:
    for order in orders:
        if order in session:
            session.delete(order)
    session.commit()


def rollback(session: Session, orders: list[Order]) -> None:
    session.scalars(select(Order)).all()
    session.rollback()


def leave_changes(session: Session, orders: list[Order]) -> None:
    for order in orders:
        order.quantity = 99


def expire(session: Session, orders: list[Order]) -> None:
    for order in orders:
        if order in session:
            session.expire(order)


def expire_all(session: Session, orders: list[Order]) -> None:
    session.expire_all()


def roll_a_savepoint_back(session: Session, orders: list[Order]) -> None:
    savepoint = session.begin_nested()
    session.add(Order(id=50))
    session.flush()
    savepoint.rollback()


def close(session: Session, orders: list[Order]) -> None:
    session.close()


def make_the_others_transient(session: Session, orders: list[Order]) -> None:
    for order in orders:
        if order in session:
            make_transient(order)


def fail(session: Session, orders: list[Order]) -> None:
    session.add(Order(id=50))
    session.flush()
    raise ExpectedError


ACTS: list[Act] = [
    commit,
    delete_the_others,
    rollback,
    leave_changes,
    expire,
    expire_all,
    roll_a_savepoint_back,
    close,
    make_the_others_transient,
    fail,
]


def nothing(session: Session, orders: list[Order]) -> None: ...


def expire_after_the_flush(session: Session, orders: list[Order]) -> None:
    """Expire what is there and what was deleted, so that it is loaded or kept before the COMMIT."""
    session.flush()
    expire(session, orders)


def assign_to_deleted(session: Session, orders: list[Order]) -> None:
    session.flush()
    for order in orders:
        if order not in session:
            order.quantity = 99


class Hearer:
    """Writes down the events and their positions, and acts with the fifth, an update before others."""

    def __init__(self, front: FrontEnd, act: Act, orders: list[Order]) -> None:
        self.heard: list[Heard] = []
        self.positions: list[int] = []
        self._front = front
        self._act = act
        self._orders = orders

    def note(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> bool:
        """Write an event down; return whether to act."""
        loaded = inspect(order).dict
        self.heard.append((event_type.value, {key: loaded.get(key) for key in ("id", "status", "quantity")}, changes))
        return len(self.heard) == 5

    def sync(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if self.note(order, event_type, changes):
            self._act(self._front.sync_session, self._orders)

    def sync_with_event(self, order: Order, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        self.positions.append(event.position)
        self.sync(order, event_type, changes)

    async def asynchronous(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if self.note(order, event_type, changes):
            await self._front.run_sync(self._act, self._orders)

    async def asynchronous_with_event(
        self, order: Order, event_type: ModelEvent, changes: Changes | None, *, event: Event
    ) -> None:
        self.positions.append(event.position)
        await self.asynchronous(order, event_type, changes)


WAYS = ("sync", "sync_with_event", "asynchronous", "asynchronous_with_event")


def row(key: int, quantity: int = 0) -> dict[str, Any]:
    return {"id": key, "status": "new", "quantity": quantity}


QUANTITY: Changes = {"quantity": {"old": 0, "new": 7}}
TEN: list[Heard] = [
    *(("create", row(key), None) for key in (10, 11, 12)),
    *(("update", row(key, 7), QUANTITY) for key in (1, 2, 3, 4)),
    *(("delete", row(key), None) for key in (5, 6, 7)),
]
AFTERWARDS: dict[Act, list[Heard]] = {
    delete_the_others: [("delete", row(key, 7 if key < 10 else 0), None) for key in (1, 2, 3, 4, 10, 11, 12)],
}
"""What follows from what the callback commits."""


async def prepare(front: FrontEnd) -> list[Order]:
    """Create, update and delete orders, one flush to be."""
    orders = [Order(id=key) for key in range(1, 8)]
    await front.add_all(orders)
    await front.commit()
    for order in orders:
        await front.refresh(order)
    for order in orders[:4]:
        order.quantity = 7
    for order in orders[4:]:
        await front.delete(order)
    new = [Order(id=key) for key in (10, 11, 12)]
    await front.add_all(new)
    return orders + new


async def listen(front: FrontEnd, way: str, act: Act, before: Act = nothing) -> Hearer:
    """Leave ten changes to commit, for a callback that acts in the middle."""
    orders = await prepare(front)
    hearer = Hearer(front, act, orders)
    listens_for(Order)(getattr(hearer, way))
    await front.run_sync(before, orders)
    return hearer


async def commit_in_silence(front: FrontEnd) -> None:
    """Commit without the warnings about what the callback leaves behind."""
    with warnings.catch_warnings(record=True):
        await front.commit()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("act", ACTS)
@scenario(Base.metadata, databases=LOCAL)
async def test_what_waits(front: FrontEnd, way: str, act: Act) -> None:
    """C4, E9, E11: rows that wait are shown as they were committed, whatever a callback does to their objects."""
    hearer = await listen(front, way, act)
    await commit_in_silence(front)
    afterwards = AFTERWARDS.get(act, [])
    assert hearer.heard == TEN + afterwards
    assert hearer.positions == ([*range(10), *range(len(afterwards))] if "event" in way else [])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("act", [rollback, leave_changes])
@pytest.mark.parametrize("before", [expire_after_the_flush, assign_to_deleted])
@scenario(Base.metadata, databases=LOCAL)
async def test_what_waits_and_was_touched_before(front: FrontEnd, way: str, before: Act, act: Act) -> None:
    """C4, E9, E11: also where something was expired, or assigned to what was deleted, before the COMMIT."""
    hearer = await listen(front, way, act, before)
    await commit_in_silence(front)
    assert hearer.heard == TEN


@pytest.mark.parametrize("way", ["sync", "asynchronous"])
@pytest.mark.parametrize("act", ACTS)
@scenario(Base.metadata, databases=LOCAL, expire_on_commit=True)
async def test_what_waits_with_expire_on_commit(front: FrontEnd, way: str, act: Act) -> None:
    """C4, E9, E11: the same where objects are expired in the end."""
    hearer = await listen(front, way, act, expire_after_the_flush)
    await commit_in_silence(front)
    assert hearer.heard == TEN + AFTERWARDS.get(act, [])


@pytest.mark.parametrize("way", WAYS)
@scenario(Base.metadata, databases=LOCAL, on_callback_error="raise")
async def test_errors_in_the_middle(front: FrontEnd, way: str) -> None:
    """C4: what one call raises is raised in the end, when the other rows have been told."""
    hearer = await listen(front, way, fail)
    with pytest.raises(ExceptionGroup) as raised:
        await commit_in_silence(front)
    assert [type(error) for error in raised.value.exceptions] == [ExpectedError]
    assert hearer.heard == TEN


@pytest.mark.parametrize("way", WAYS)
@scenario(Base.metadata, databases=LOCAL)
async def test_listeners_that_come_in_the_middle(front: FrontEnd, way: str) -> None:
    """N5: one that is registered meanwhile hears of the rows that are told after that."""
    later: list[int] = []

    def register(session: Session, orders: list[Order]) -> None:
        @listens_for(Order)
        def note(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            later.append(order.id)

    hearer = await listen(front, way, register)
    await front.commit()
    assert (hearer.heard, later) == (TEN, [3, 4, 5, 6, 7])


@pytest.mark.parametrize("way", WAYS)
@scenario(Base.metadata, databases=LOCAL)
async def test_listeners_that_go_in_the_middle(front: FrontEnd, way: str) -> None:
    """N5: one that is removed by its own call is not called again."""
    hearers: list[Hearer] = []

    def remove(session: Session, orders: list[Order]) -> None:
        remove_listener(Order, getattr(hearers[0], way))

    hearers.append(await listen(front, way, remove))
    await front.commit()
    assert hearers[0].heard == TEN[:5]


@pytest.mark.parametrize("way", WAYS)
@scenario(Base.metadata, databases=LOCAL)
async def test_recording_that_begins_in_the_middle(front: FrontEnd, way: str) -> None:
    """N5: a recorder hears of the rows that are told while it records."""
    with ExitStack() as stack:
        recorded: list[EventRecorder] = []

        def record(session: Session, orders: list[Order]) -> None:
            recorded.append(stack.enter_context(capture_events()))

        hearer = await listen(front, way, record)
        await front.commit()
    assert hearer.heard == TEN
    assert [(event.type.value, event.identity) for event in recorded[0]] == [
        (kind, (shown["id"],)) for kind, shown, _ in TEN[5:]
    ]


@pytest.mark.parametrize("way", WAYS)
@scenario(Base.metadata, databases=LOCAL)
async def test_recording_what_is_interrupted(front: FrontEnd, way: str) -> None:
    """C4: a recorder hears of the rows whose turn has come, and not of those that nobody is told of any more."""

    def interrupt(session: Session, orders: list[Order]) -> None:
        raise KeyboardInterrupt

    hearer = await listen(front, way, interrupt)
    with capture_events() as recorded, pytest.raises(KeyboardInterrupt):
        await front.commit()
    assert hearer.heard == TEN[:5]
    assert [(event.type.value, event.identity) for event in recorded] == [
        (kind, (shown["id"],)) for kind, shown, _ in TEN[:5]
    ]


@pytest.mark.parametrize("way", WAYS)
@scenario(Base.metadata, databases=LOCAL)
async def test_hooks_in_the_middle(front: FrontEnd, way: str) -> None:
    """C6, C7: ``on_commit`` of a callback comes when everything that waits was told, before what a callback commits."""
    told: list[object] = []

    def hook(session: SyncEventSession, orders: list[Order]) -> None:
        session.on_commit(told.append, "hook")
        session.add(Order(id=50))
        session.on_commit(told.append, "second hook")
        session.commit()

    hearer = await listen(front, way, cast("Act", hook))

    @listens_for(Order)
    async def tell(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        told.append(order.id)

    await front.commit()
    assert hearer.heard == [*TEN, ("create", row(50), None)]
    assert told == [10, 11, 12, 1, 2, 3, 4, 5, 6, 7, "hook", 50, "second hook"]


@pytest.mark.parametrize("way", WAYS)
@scenario(Base.metadata, databases=LOCAL, cascade_limit=2)
async def test_cascades_in_the_middle(front: FrontEnd, way: str) -> None:
    """C6: each row of a commit may be followed by a commit; only how many follow each other is limited."""
    told: list[int] = []

    async def follow(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        told.append(order.id)
        await front.add(Order(id=order.id + 100))
        await front.commit()

    await listen(front, way, nothing)
    listens_for(Order)(follow)
    with pytest.raises(CascadeLimitError):
        await front.commit()
    first = [10, 11, 12, 1, 2, 3, 4, 5, 6, 7]
    assert told == [key + cascade for cascade in (0, 100, 200) for key in first]
