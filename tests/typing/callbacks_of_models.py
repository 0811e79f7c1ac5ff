"""A callback for the wrong model is an error to type checkers; one for the model, or for more than it, is not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, assert_type

from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from fastapi_toolsets.models import (
    Changes,
    Event,
    EventSession,
    ModelEvent,
    Phase,
    UUIDMixin,
    listener_scope,
    listens_for,
)


class Base(DeclarativeBase): ...


class Priced:
    """A plain mixin."""

    price: Mapped[int]

    @declared_attr
    def currency(self) -> Mapped[str]:
        return mapped_column(default="EUR")


class Document(Base):
    """An abstract base."""

    __abstract__ = True
    id: Mapped[int] = mapped_column(primary_key=True)


class Order(Priced, Document):
    __tablename__ = "orders"
    status: Mapped[str]


class Refund(Document):
    __tablename__ = "refunds"


# What may be called: a callback for the model itself, for more than it, or for anything.


@listens_for(Order, ModelEvent.UPDATE)
def for_the_model(order: Order, event_type: ModelEvent, changes: Changes) -> int:
    return order.price


@listens_for(Order)
@listens_for(Refund)
async def for_the_abstract_base(document: Document, event_type: ModelEvent, changes: Changes | None) -> int:
    return document.id


@listens_for(Order)
@listens_for(Priced)
def for_the_mixin(priced: Priced, event_type: ModelEvent, changes: dict[str, Any] | None) -> str:
    return priced.currency


@listens_for(Order, ModelEvent.CREATE)
@listens_for(Refund, ModelEvent.CREATE)
def for_either(document: Order | Refund, event_type: ModelEvent, changes: None) -> None: ...


@listens_for(Base)
@listens_for(UUIDMixin)
def for_anything(row: Any, event_type: Any, changes: Any, further: int = 1, *rest: object) -> None: ...  # noqa: ANN401


@listens_for(Order)
@listens_for(Base)
async def with_keywords(
    row: object, event_type: ModelEvent, changes: Changes | None, *, session: EventSession, event: Event
) -> None: ...


@listens_for(Order)
def not_annotated(order, event_type, changes, *, event):  # type: ignore[no-untyped-def]  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]  # noqa: ANN001, ANN201
    return event  # pyright: ignore[reportUnknownVariableType]


@listens_for(Order)
def whatever_there_is(*arguments: object, **filled_in: object) -> None: ...


RowT = TypeVar("RowT")


class Journal(Generic[RowT]):
    """An object that is a callback, and one with methods that are."""

    def __call__(self, row: RowT, event_type: ModelEvent, changes: Changes | None) -> None: ...

    async def write(self, row: RowT, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> bool:
        return True

    @classmethod
    def count(cls, row: Document, event_type: ModelEvent, changes: Changes | None) -> None: ...

    @staticmethod
    def forget(row: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...


def on_channel(channel: str, order: Order, event_type: ModelEvent, changes: Changes | None) -> str:
    return channel


listens_for(Order)(Journal[Document]())
listens_for(Order)(Journal[Document]().write)
listens_for(Order)(Journal.count)
listens_for(Order)(Journal.forget)
listens_for(Order)(partial(on_channel, "orders"))
listens_for(Order)(print)


@listens_for(Order, phase=Phase.BEFORE_COMMIT)
async def before_the_commit(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...


# What comes back is what was given.

assert_type(for_the_model(Order(id=1, price=2), event_type=ModelEvent.UPDATE, changes={}), int)
assert_type(for_the_mixin(priced=Order(id=1), event_type=ModelEvent.UPDATE, changes={}), str)
assert_type(for_either(Refund(id=1), ModelEvent.CREATE, None), None)
assert_type(for_anything(1, 2, 3, 4, 5), None)
assert_type(for_the_model.__name__, str)
assert_type(listens_for(Order)(Journal.forget)(Order(id=1), ModelEvent.DELETE, changes=None), None)


async def call_back() -> None:
    assert_type(await for_the_abstract_base(Refund(id=1), ModelEvent.DELETE, None), int)
    assert_type(await listens_for(Refund)(for_the_abstract_base)(Order(id=1), ModelEvent.DELETE, None), int)


Callback: TypeAlias = Callable[[Document, ModelEvent, Changes | None], Coroutine[Any, Any, None]]


def register(callback: Callback, anything: Callable[..., None], unknown: Any) -> None:  # noqa: ANN401
    assert_type(listens_for(Order)(callback), Callback)
    assert_type(listens_for(Order)(anything), Callable[..., None])
    listens_for(Order)(unknown)
    listens_for(Base)(callback)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# What may not. Registering cannot tell, since annotations are not looked at when the program runs.


def for_order(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...
async def for_order_async(
    order: Order, event_type: ModelEvent, changes: Changes | None, *, event: Event, session: EventSession
) -> None: ...
def for_document(row: Document, event_type: ModelEvent, changes: Changes | None) -> None: ...
def for_event_of_another_kind(order: Order, event_type: int, changes: Changes | None) -> None: ...


with listener_scope():
    listens_for(Refund)(for_order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    listens_for(Refund)(for_order_async)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    listens_for(Base)(for_order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    listens_for(Document)(for_order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    listens_for(Priced)(for_order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    listens_for(Priced)(for_document)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    listens_for(Refund)(for_the_mixin)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    listens_for(Refund)(Journal[Order]())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    listens_for(Refund)(Journal[Order]().write)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    listens_for(Refund)(Journal.forget)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    listens_for(Refund)(partial(on_channel, "refunds"))  # pyright: ignore[reportArgumentType]
    listens_for(Order)(for_event_of_another_kind)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    @listens_for(Refund)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def on_refund(refund: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    @listens_for(Refund)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    @listens_for(Order)
    def on_order_or_refund(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...
