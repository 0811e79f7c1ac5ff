"""The demo's callbacks: two async and one sync, registered once and called by either front-end."""

from dataclasses import dataclass

from anyio.lowlevel import checkpoint

from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from .models import Order


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one callback was told, as a line of the report.

    Attributes:
        event: What happened to the order.
        order: The order's number.
        changes: Each changed field as ``name: old -> new``; empty unless the order was updated.
        callback: The name of the callback that was called, and whether it is sync or async.
    """

    event: ModelEvent
    order: str
    changes: str
    callback: str


_delivered: list[Delivery] = []


def take_deliveries() -> tuple[Delivery, ...]:
    """Return what was delivered since the last call, in that order, and forget it."""
    taken = tuple(_delivered)
    _delivered.clear()
    return taken


@listens_for(Order, [ModelEvent.CREATE])
async def on_order_created(order: Order, event_type: ModelEvent, changes: None) -> None:
    """Tell the customer: a program of yours would await its mail server here."""
    await checkpoint()
    _delivered.append(Delivery(event_type, order.number, "", "on_order_created (async)"))


@listens_for(Order, [ModelEvent.UPDATE])
def on_order_updated(order: Order, event_type: ModelEvent, changes: Changes) -> None:
    """Write down what changed: nothing to wait for, so a plain function does."""
    changed = ", ".join(f"{name}: {change['old']} -> {change['new']}" for name, change in sorted(changes.items()))
    _delivered.append(Delivery(event_type, order.number, changed, "on_order_updated (sync)"))


@listens_for(Order, [ModelEvent.DELETE])
async def on_order_cancelled(order: Order, event_type: ModelEvent, changes: None) -> None:
    """Tell the warehouse, again by something that would be awaited."""
    await checkpoint()
    _delivered.append(Delivery(event_type, order.number, "", "on_order_cancelled (async)"))
