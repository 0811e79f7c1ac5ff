"""The bars: how much slower than a plain session each cell may be, and whether it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .matrix import SQLITE
from .results import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .matrix import Group
    from .results import Comparison

MET, WITHIN_NOISE, NOT_MET = "met", "within noise", "not met"
WITH_LISTENER = ("sync", "async")
MANY = 100
"""From how many rows on a commit counts as one of many."""

LESS_OVERHEAD = 3
"""How many times less overhead than the published library is asked for, where somebody listens to many rows."""

MEMORY_ROWS = 100_000
MEMORY_LIMIT = 1.15


@dataclass(frozen=True)
class TimeBar:
    """The most that a commit may take, as a ratio to a plain session's; ``None`` stands for any."""

    limit: float
    listeners: tuple[str, ...]
    database: str | None = None
    operation: str | None = None
    table: str | None = None
    expire: bool | None = None
    one_row: bool | None = None

    def covers(self, group: Group, listeners: str) -> bool:
        """Whether it is the bar of a cell."""
        return (
            listeners in self.listeners
            and self.database in (None, group.database)
            and self.operation in (None, group.operation)
            and self.table in (None, group.table)
            and self.expire in (None, group.expire)
            and self.one_row in (None, group.rows == 1)
        )


# The first that covers a cell is its bar. An UPDATE of one row whose database sets a column has none: it needs a SELECT
# that a plain session only makes when the column is read.
TIME_BARS = (
    TimeBar(1.02, ("none",)),
    TimeBar(1.05, ("elsewhere",), database=SQLITE, one_row=True),
    TimeBar(1.03, ("elsewhere",)),
    TimeBar(float("inf"), WITH_LISTENER, table="onupdate", one_row=True),
    TimeBar(1.6, WITH_LISTENER, table="onupdate"),
    TimeBar(1.12, WITH_LISTENER, database=SQLITE, one_row=True),
    TimeBar(1.08, WITH_LISTENER, one_row=True),
    TimeBar(1.05, WITH_LISTENER, operation="create"),
    TimeBar(1.12, WITH_LISTENER, operation="delete"),
    TimeBar(1.05, WITH_LISTENER, operation="update", expire=True),
    TimeBar(1.18, WITH_LISTENER, operation="update", expire=False),
)


def time_limit(group: Group, listeners: str) -> float:
    """Return the bar of a cell; infinity where it has none."""
    return next((bar.limit for bar in TIME_BARS if bar.covers(group, listeners)), float("inf"))


def judge(bar: str, value: float, limit: float, noise: float = 0.0) -> Verdict:
    """Hold a value against the most that is allowed."""
    outcome = MET if value <= limit else WITHIN_NOISE if value <= limit + noise else NOT_MET
    return Verdict(bar, limit, value, outcome)


def verdicts(
    group: Group, listeners: str, ours: Comparison, published: Comparison | None, noise: float
) -> Iterator[Verdict]:
    """Hold a cell against every bar that it has."""
    ratio = ours.wall.median
    limit = time_limit(group, listeners)
    if limit != float("inf"):
        yield judge("time", ratio, limit, noise)
    if group.table != "onupdate" or listeners not in WITH_LISTENER:
        yield judge("other number of statements", abs(ours.costs.statements - ours.plain_costs.statements), 0)
    yield judge("statements after COMMIT", ours.costs.after_commit, 0)
    if published is None:
        return
    other = published.wall.median
    yield judge("no slower than the published library", ratio, other, noise)
    if listeners in WITH_LISTENER and group.rows >= MANY:
        yield judge(
            f"{LESS_OVERHEAD} times less overhead than it", max(ratio - 1, 0.0) * LESS_OVERHEAD, other - 1, noise
        )
