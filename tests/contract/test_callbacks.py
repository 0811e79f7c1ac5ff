"""Rules C1 and C3: which callables may listen, what they may do with the session, and in which order they come."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Awaitable, Callable, Generator
from typing import Any, cast
from unittest.mock import AsyncMock, MagicMock

from sqlalchemy import select
from sqlalchemy.orm import Session

from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..front_ends import FrontEnd, scenario
from .event_models import LOCAL
from .transaction_models import ORDERS, Base, Customer, Order, Purchase, ShopBase

Told = tuple[str, int, ModelEvent, Changes | None]
Callback = Callable[[Order, ModelEvent, Changes | None], object]

told: list[Told] = []


def tell(name: str, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    told.append((name, order.id, event_type, changes))


async def tell_later(name: str, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    tell(name, order, event_type, changes)


class Waits:
    """An awaitable that is neither a coroutine nor a future."""

    def __init__(self, name: str, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        self.coroutine = tell_later(name, order, event_type, changes)

    def __await__(self) -> Generator[None, None, None]:
        yield from self.coroutine.__await__()


class Methods:
    def sync_method(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        tell("bound method", order, event_type, changes)

    async def async_method(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        tell("async bound method", order, event_type, changes)

    @staticmethod
    def static_method(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        tell("static method", order, event_type, changes)

    @classmethod
    async def class_method(cls, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        tell("async class method", order, event_type, changes)


class Called:
    def __call__(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        tell("object", order, event_type, changes)


class CalledAsynchronously:
    async def __call__(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        tell("async object", order, event_type, changes)


def sync_function(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    tell("function", order, event_type, changes)


async def async_function(order: Order, event_type: ModelEvent, changes: Changes | None, extra: object = None) -> None:
    tell("async function", order, event_type, changes)


def decorated(function: Callable[..., Awaitable[None]]) -> Callback:
    """Wrap an async function in a sync one, as many decorators do."""

    @functools.wraps(function)
    def wrapper(*arguments: object) -> Awaitable[None]:
        return function(*arguments)

    return wrapper


@decorated
async def decorated_function(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    tell("decorated", order, event_type, changes)


def returns_a_value(order: Order, event_type: ModelEvent, changes: Changes | None) -> str:
    tell("returns a value", order, event_type, changes)
    return "nobody wants to know"


def takes_anything(*arguments: Any, **keywords: object) -> None:  # noqa: ANN401 - as a callback for everything has it
    assert keywords == {}
    tell("takes anything", *arguments)


METHODS = Methods()
CALLBACKS: dict[str, Callback] = {
    "function": sync_function,
    "async function": async_function,
    "lambda": lambda order, event_type, changes: tell("lambda", order, event_type, changes),
    "lambda that returns a coroutine": lambda order, event_type, changes: tell_later(
        "lambda that returns a coroutine", order, event_type, changes
    ),
    "lambda that returns an awaitable": lambda order, event_type, changes: Waits(
        "lambda that returns an awaitable", order, event_type, changes
    ),
    "partial": functools.partial(tell, "partial"),
    "async partial": functools.partial(tell_later, "async partial"),
    "partial of a partial": functools.partial(functools.partial(tell_later), "partial of a partial"),
    "bound method": METHODS.sync_method,
    "async bound method": METHODS.async_method,
    "static method": METHODS.static_method,
    "async class method": Methods.class_method,
    "object": Called(),
    "async object": CalledAsynchronously(),
    "decorated": decorated_function,
    "returns a value": returns_a_value,
    "takes anything": takes_anything,
    "mock": MagicMock(side_effect=functools.partial(tell, "mock")),
    "async mock": AsyncMock(side_effect=functools.partial(tell, "async mock")),
}


@scenario(Base.metadata, databases=LOCAL)
async def test_every_kind_of_callable(front: FrontEnd) -> None:
    """C1: on both front-ends each is called once, in order (C3), and awaited before ``commit()`` returns."""
    told.clear()
    for callback in CALLBACKS.values():
        assert listens_for(Order)(callback) is callback
    order = Order(id=1, status="a")
    await front.add(order)
    await front.commit()
    assert told == [(name, 1, ModelEvent.CREATE, None) for name in CALLBACKS]
    told.clear()
    async with front.begin():
        order.status = "b"
    changes = {"status": {"old": "a", "new": "b"}}
    assert told == [(name, 1, ModelEvent.UPDATE, changes) for name in CALLBACKS]
    told.clear()
    await front.delete(order)
    await front.commit()
    assert told == [(name, 1, ModelEvent.DELETE, None) for name in CALLBACKS]


@scenario(Base.metadata, databases=LOCAL)
async def test_each_kind_of_callable_alone(front: FrontEnd) -> None:
    """C1: none of them needs another kind beside it, nor leaves a coroutine that was never awaited."""
    alone: dict[str, list[Told]] = {}
    for number, (name, callback) in enumerate(CALLBACKS.items()):
        told.clear()
        model_listener = listens_for(Order, ModelEvent.CREATE)
        model_listener(callback)
        with warnings.catch_warnings(action="error"):
            await front.add(Order(id=number))
            await front.commit()
        alone[name] = told[-1:]
    assert alone == {name: [(name, number, ModelEvent.CREATE, None)] for number, name in enumerate(CALLBACKS)}


async def seed_shop(front: FrontEnd) -> None:
    await front.add(Customer(id=1, name="Ada"))
    await front.commit()
    await front.expunge_all()


@scenario(ShopBase.metadata)
async def test_sync_callback_lazy_loads(front: FrontEnd) -> None:
    """C1: on an ``EventSession``, too, a sync callback loads what is not loaded."""
    loaded: list[object] = []

    @listens_for(Purchase, ModelEvent.CREATE)
    def load(purchase: Purchase, event_type: ModelEvent, changes: Changes | None) -> None:
        loaded.append((purchase.customer.name, [sibling.id for sibling in purchase.customer.purchases]))

    await seed_shop(front)
    await front.add(Purchase(id=1, customer_id=1))
    await front.commit()
    await front.expunge_all()
    async with front.begin():
        await front.add(Purchase(id=2, customer_id=1))
    assert loaded == [("Ada", [1]), ("Ada", [1, 2])]


@scenario(ShopBase.metadata)
async def test_sync_callback_uses_the_sync_session(front: FrontEnd) -> None:
    """C1: it reads, writes, flushes and commits with the sync API, as SQLAlchemy's own event hooks may."""
    names: list[list[str]] = []

    @listens_for(Purchase, ModelEvent.CREATE)
    def rename(purchase: Purchase, event_type: ModelEvent, changes: Changes | None) -> None:
        session = front.sync_session
        names.append(list(session.scalars(select(Customer.name))))
        session.get_one(Customer, purchase.customer_id).name = "Grace"
        session.flush()
        names.append(list(session.scalars(select(Customer.name))))
        session.commit()

    await seed_shop(front)
    await front.add(Purchase(id=1, customer_id=1))
    await front.commit()
    assert names == [["Ada"], ["Grace"]]
    assert await front.committed_rows(select(Customer.name)) == [("Grace",)]


@scenario(ShopBase.metadata)
async def test_async_callback_uses_the_session(front: FrontEnd) -> None:
    """C1: an async callback awaits the session's own methods; on a sync session it calls them."""
    seen: list[object] = []

    @listens_for(Purchase, ModelEvent.CREATE)
    async def look(purchase: Purchase, event_type: ModelEvent, changes: Changes | None) -> None:
        seen.append((await front.get_one(Customer, purchase.customer_id)).name)

        def lazy_load(session: Session) -> list[Purchase]:
            return purchase.customer.purchases

        seen.append(await front.run_sync(lazy_load) == [purchase])
        await front.refresh(purchase)
        seen.append((await front.scalars(select(Purchase.id))).all())

    await seed_shop(front)
    await front.add(Purchase(id=1, customer_id=1))
    await front.commit()
    assert seen == ["Ada", True, [1]]


# C3


@scenario(Base.metadata, databases=LOCAL)
async def test_order_of_events_and_listeners(front: FrontEnd) -> None:
    """C3: event by event; within one in order of registration, sync and async mixed; base classes' listeners last."""
    calls: list[tuple[str, int]] = []

    def listener(name: str, *, asynchronous: bool) -> Callable[[Base, ModelEvent, Changes | None], object]:
        def call(row: Base, event_type: ModelEvent, changes: Changes | None) -> None:
            calls.append((name, cast("Order", row).id))

        async def call_later(row: Base, event_type: ModelEvent, changes: Changes | None) -> None:
            call(row, event_type, changes)

        return call_later if asynchronous else call

    listens_for(Base)(listener("base 1", asynchronous=True))
    listens_for(Base)(listener("base 2", asynchronous=False))
    for number in range(6):
        listens_for(Order)(listener(f"own {number}", asynchronous=number % 3 == 0))
    listens_for(Base, ModelEvent.CREATE)(listener("base 3", asynchronous=False))
    own = [f"own {number}" for number in range(6)]
    await front.add_all([Order(id=3), Order(id=1), Order(id=2)])
    await front.commit()
    assert calls == [(name, identity) for identity in (3, 1, 2) for name in (*own, "base 1", "base 2", "base 3")]


@scenario(Base.metadata, databases=LOCAL)
async def test_many_callbacks_in_one_commit(front: FrontEnd) -> None:
    """C3: 2,000 events for a sync and an async listener keep their order and need no stack."""
    calls: list[tuple[str, int]] = []

    @listens_for(Order, ModelEvent.CREATE)
    def first(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        calls.append(("first", order.id))

    @listens_for(Order, ModelEvent.CREATE)
    async def second(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        calls.append(("second", order.id))

    await front.add_all([Order(id=number) for number in range(2000)])
    await front.commit()
    assert calls == [(name, number) for number in range(2000) for name in ("first", "second")]
    assert len((await front.execute(ORDERS)).all()) == 2000
