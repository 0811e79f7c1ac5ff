"""The orders that the demo starts from, and what is to happen to each after it was imported."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from itertools import count, islice

BATCH_ROWS = 4
"""How many orders are imported in one transaction."""


class Outcome(StrEnum):
    """What becomes of an order after its import."""

    OPEN = "open"
    PAID = "paid"
    SHIPPED = "shipped"
    AMENDED = "amended"
    NOTED = "noted"
    REFUSED = "refused"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """One line of the CSV file."""

    number: str
    customer: str
    item: str
    quantity: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction after the import.

    Attributes:
        number: The order that it is about.
        changes: The new values by field; ``None`` cancels the order.
    """

    number: str
    changes: dict[str, str | int] | None


def read_orders() -> tuple[OrderRecord, ...]:
    """Read the package's own CSV file.

    Returns:
        Its lines, in order. One of them is there twice, as a line sent again by mistake would be.
    """
    lines = files("fastapi_toolsets.demo").joinpath("orders.csv").read_text(encoding="utf-8").splitlines()
    return tuple(
        OrderRecord(row["number"], row["customer"], row["item"], int(row["quantity"]), Outcome(row["outcome"]))
        for row in csv.DictReader(lines)
    )


def repeat_orders(orders: Sequence[OrderRecord], rows: int) -> tuple[OrderRecord, ...]:
    """Return the first ``rows`` orders, starting over with new numbers where the file ends before."""
    return tuple(islice(_endless(orders), rows))


def _endless(orders: Sequence[OrderRecord]) -> Iterator[OrderRecord]:
    yield from orders
    for round_ in count(2):
        for order in orders:
            yield OrderRecord(f"{order.number}-{round_}", order.customer, order.item, order.quantity, order.outcome)


def batches(orders: Sequence[OrderRecord]) -> list[Sequence[OrderRecord]]:
    """Cut the orders into the transactions that import them."""
    return [orders[start : start + BATCH_ROWS] for start in range(0, len(orders), BATCH_ROWS)]


def steps_after_import(orders: Sequence[OrderRecord]) -> list[Step]:
    """List what happens to the orders after their import, one transaction each."""
    return [Step(order.number, changes) for order in orders for changes in _changes(order)]


def _changes(order: OrderRecord) -> list[dict[str, str | int] | None]:
    by_outcome: dict[Outcome, list[dict[str, str | int] | None]] = {
        Outcome.OPEN: [],
        Outcome.PAID: [{"status": "paid"}],
        Outcome.SHIPPED: [{"status": "paid"}, {"status": "shipped"}],
        Outcome.AMENDED: [{"quantity": order.quantity + 1, "status": "paid"}],
        Outcome.NOTED: [{"note": "leave it at the door"}],  # not a watched field: no event
        Outcome.REFUSED: [{"status": "paid", "quantity": 0}],  # the table's constraint says no: no commit, no event
        Outcome.CANCELLED: [None],
    }
    return by_outcome[order.outcome]
