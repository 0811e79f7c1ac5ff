"""The floor below which no library can go that does its work in SQLAlchemy's events and runs callbacks on asyncio.

Commits of one row on the sync front-end and SQLite in memory, where least else takes time.
"""

from __future__ import annotations

import statistics
from itertools import product
from typing import TYPE_CHECKING

from .comparison import PLAIN, PLAIN_AGAIN, commits_per_round
from .matrix import EXPIRY, OPERATIONS, SQLITE, Group
from .processes import WorkerProcess
from .results import FloorRow, Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEAST = "least"
HOOKS, TASK = "hooks", "task"

PAIRS = ((PLAIN, PLAIN_AGAIN), (PLAIN, HOOKS), (PLAIN, TASK))
GROUPS = [Group(SQLITE, operation, 1, "10", expire) for operation, expire in product(OPERATIONS, EXPIRY)]


def measure_floor(rounds: int, advance: Callable[[], None]) -> Iterator[FloorRow]:
    """Measure each commit of one row in so many rounds, in each of which all pairs of sessions take turns."""
    repeats = commits_per_round(1)
    with WorkerProcess(LEAST, "none") as process:
        for group in GROUPS:
            process.ask("open", url="sqlite://", schema=None, operation=group.operation, rows=1, table=group.table)
            plain: list[float] = []
            ratios: dict[str, list[float]] = {other: [] for _, other in PAIRS}
            for number in range(rounds + 1):
                for pair in PAIRS:
                    variants = pair if number % 2 else pair[::-1]
                    taken = process.ask("round", variants=variants, expire=group.expire, repeats=repeats)
                    first, second = (statistics.median(taken[variant]["wall"]) for variant in pair)
                    if number:  # the first compiles statements
                        plain.append(first / 1_000)
                        ratios[pair[1]].append(second / first)
            process.ask("close")
            spreads = (Spread.of(found) for found in ratios.values())
            yield FloorRow(group.name, statistics.median(plain), *spreads)
            advance()
