"""The floor below which no library can go that does its work in SQLAlchemy's events and runs callbacks on asyncio.

Commits of one row on the sync front-end and SQLite in memory, where least else takes time.
"""

from __future__ import annotations

import statistics
from itertools import chain, product
from typing import TYPE_CHECKING

from .comparison import PLAIN, PLAIN_AGAIN, Contestant, take_round
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
    with WorkerProcess(LEAST, "none") as process:
        for group in GROUPS:
            process.ask("open", url="sqlite://", schema=None, operation=group.operation, rows=1, table=group.table)
            contestants = [Contestant(process, pair, {}, []) for pair in PAIRS]
            for contestant in contestants:  # the first commit compiles statements
                process.ask("round", variants=contestant.variants, expire=group.expire, repeats=2)
            for number in range(rounds):
                for contestant in contestants:
                    take_round(group, contestant, backwards=number % 2 == 1)
            process.ask("close")
            plain = statistics.median(chain.from_iterable(contestant.medians(PLAIN) for contestant in contestants))
            again, hooks, task = (Spread.of(contestant.ratios("wall")) for contestant in contestants)
            yield FloorRow(group.name, plain / 1_000, again, hooks, task)
            advance()
