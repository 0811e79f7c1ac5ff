"""What a run of the demo on either front-end comes to."""

from collections.abc import Callable
from dataclasses import dataclass

from .callbacks import Delivery

Advance = Callable[[], None]
"""Called after each transaction."""


@dataclass(frozen=True, slots=True)
class OrderRow:
    """A row of the table at the end of a run, as far as it does not depend on time or chance."""

    number: str
    customer: str
    item: str
    quantity: int
    status: str


@dataclass(frozen=True, slots=True)
class Run:
    """One front-end's results.

    Attributes:
        front_end: Its name, for people.
        deliveries: What its callbacks were told, in that order.
        rows: The table at the end, by order number.
        refused_orders: How many imported lines were rolled back to their savepoint.
        refused_changes: How many transactions the database refused.
        seconds: How long it took, in seconds.
    """

    front_end: str
    deliveries: tuple[Delivery, ...]
    rows: tuple[OrderRow, ...]
    refused_orders: int
    refused_changes: int
    seconds: float
