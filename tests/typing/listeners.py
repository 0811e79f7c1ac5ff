"""``listens_for`` returns each callback with the type it had, and refuses those that cannot be called."""

from __future__ import annotations

from typing import Any, assert_type

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_toolsets.errors import ListenerError
from fastapi_toolsets.events import RegisteredListener, registered_listeners
from fastapi_toolsets.models import (
    Changes,
    Event,
    EventSession,
    ModelEvent,
    SyncEventSession,
    listens_for,
    muted,
    remove_listener,
)


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


class Refund(Base):
    __tablename__ = "refunds"
    id: Mapped[int] = mapped_column(primary_key=True)


class Audited: ...


@listens_for(Order, [ModelEvent.UPDATE])
async def on_order_updated(order: Order, event_type: ModelEvent, changes: dict[str, Any]) -> int:
    """The guide's callback: ``changes: dict`` is a fine annotation."""
    return order.id


@listens_for(Order, ModelEvent.CREATE)
def on_order_created(order: Order, event_type: ModelEvent, changes: None) -> str:
    return event_type.value


@listens_for(Order)
@listens_for(Refund, (ModelEvent.CREATE, ModelEvent.DELETE))
def on_either(obj: Order | Refund, event_type: ModelEvent, changes: Changes | None) -> None: ...


@listens_for(Base)
@listens_for(Audited, {ModelEvent.UPDATE})
async def on_anything(
    obj: object,
    event_type: ModelEvent,
    changes: Changes | None,
    *,
    event: Event,
    session: EventSession | SyncEventSession,
) -> None: ...


class Handler:
    def on_order(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> bool:
        return True

    async def __call__(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...


handler = Handler()
assert_type(listens_for(Order)(handler.on_order)(Order(id=1), ModelEvent.DELETE, None), bool)
assert_type(on_order_created(order=Order(id=1), event_type=ModelEvent.CREATE, changes=None), str)
assert_type(on_either(Refund(id=1), ModelEvent.CREATE, None), None)


async def call_back() -> None:
    assert_type(await on_order_updated(Order(id=1), ModelEvent.UPDATE, {}), int)


with muted(on_order_created, handler):
    remove_listener(Order, on_order_created)


assert_type(registered_listeners(), tuple[RegisteredListener, ...])
assert_type(registered_listeners()[0].target, type)
assert_type(registered_listeners()[0].events, frozenset[ModelEvent])


def too_few(order: Order) -> None: ...


try:
    listens_for(Order)(too_few)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
except ListenerError as error:
    assert_type(error, ListenerError)

try:
    listens_for(Order, "update")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
except ListenerError as error:
    assert_type(error, ListenerError)
