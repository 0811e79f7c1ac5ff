"""The comparison: rounds in which every library, and no library, makes the same commits in turn."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from .bars import verdicts
from .matrix import LISTENERS, POSTGRESQL, SQLITE, Group
from .processes import WorkerProcess
from .results import Cell, Comparison, Costs, Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

UNTOUCHED, OURS, PUBLISHED = "none", "ours", "published"
PLAIN, PLAIN_AGAIN, EVENTS = "plain", "plain again", "events"

_COMMITS_PER_ROUND = {1: 40, 100: 5, 1_000: 3}
_MOST_ROWS = 100_000
"""How many rows the rounds of a cell write at most, for each variant."""


@dataclass
class Contestant:
    """One measuring process with what it measures in each round."""

    process: WorkerProcess
    variants: tuple[str, str]
    costs: dict[str, Costs]
    rounds: list[dict[str, dict[str, Any]]]

    def ratios(self, clock: str) -> list[float]:
        """Return the second variant's time as a ratio to the first's, round by round."""
        first, second = self.variants
        return [
            statistics.median(taken[second][clock]) / statistics.median(taken[first][clock]) for taken in self.rounds
        ]

    def medians(self, variant: str) -> list[float]:
        """Return the median nanoseconds of a variant, round by round."""
        return [statistics.median(taken[variant]["wall"]) for taken in self.rounds]

    def passes(self, variant: str) -> int:
        """Return the collector's passes of all rounds."""
        return sum(int(taken[variant]["passes"]) for taken in self.rounds)


def commits_per_round(rows: int) -> int:
    """Return how many commits of each variant make a round: a single small one says little."""
    return _COMMITS_PER_ROUND.get(rows, 1)


class Arena:
    """The measuring processes, by library and listeners; each starts when it is first needed."""

    def __init__(self, urls: Mapping[str, str], published_python: str | None) -> None:
        """Describe them.

        Args:
            urls: The URL of each database.
            published_python: The interpreter with the published library, if it takes part.
        """
        self._urls = urls
        self._schemas = count(1)
        self._untouched = WorkerProcess(UNTOUCHED, "none")
        self._ours = {listeners: WorkerProcess(OURS, listeners) for listeners in LISTENERS}
        self._published: dict[str, WorkerProcess] = {}
        if published_python is not None:
            self._published = {
                listeners: WorkerProcess(PUBLISHED, listeners, python=published_python) for listeners in LISTENERS
            }

    def close(self) -> None:
        """End them all."""
        for process in (self._untouched, *self._ours.values(), *self._published.values()):
            process.close()

    def measure(self, group: Group, listeners: Sequence[str], rounds: int, advance: Callable[[], None]) -> list[Cell]:
        """Measure the cells of one group.

        Each process goes through its two variants; a plain session without listeners in the process is not to be had
        where a library is loaded and listened with, since SQLAlchemy hands an event of ``Session`` to all its
        subclasses. So the plain sessions that are the measure stand in the same process, for the ratio, and those of a
        process without any event library beside them, to show what the others leave out.

        Args:
            group: What to commit.
            listeners: Which kinds of listeners to compare.
            rounds: How often.
            advance: Called after each round.
        """
        untouched = Contestant(self._untouched, (PLAIN, PLAIN_AGAIN), {}, [])
        ours = {kind: Contestant(self._ours[kind], (PLAIN, EVENTS), {}, []) for kind in listeners}
        published = {
            kind: Contestant(self._published[kind], (PLAIN, EVENTS), {}, [])
            for kind in listeners
            if kind in self._published and group.database != SQLITE
        }
        contestants = [untouched, *(side[kind] for kind in listeners for side in (ours, published) if kind in side)]
        for contestant in contestants:
            self._warm_up(group, contestant)
        for number in range(rounds):
            start = number % len(contestants)
            for contestant in contestants[start:] + contestants[:start]:
                take_round(group, contestant, backwards=number % 2 == 1)
            advance()
        for contestant in contestants:
            _weigh(group, contestant)
            contestant.process.ask("close")
        again = untouched.ratios("wall")
        noise = statistics.median(abs(ratio - 1) for ratio in again)
        cells: list[Cell] = []
        for kind in listeners:
            our_side = _compare(group, ours[kind], untouched)
            other_side = _compare(group, published[kind], untouched) if kind in published else None
            cells.append(
                Cell(
                    name=group.cell_name(kind),
                    database=group.database,
                    operation=group.operation,
                    rows=group.rows,
                    table=group.table,
                    expire_on_commit=group.expire,
                    listeners=kind,
                    rounds=rounds,
                    commits_per_round=commits_per_round(group.rows),
                    plain_milliseconds=statistics.median(untouched.medians(PLAIN)) / 1e6,
                    again=Spread.of(again),
                    noise=noise,
                    ours=our_side,
                    published=other_side,
                    verdicts=list(verdicts(group, kind, our_side, other_side, noise)),
                )
            )
        return cells

    def _warm_up(self, group: Group, contestant: Contestant) -> None:
        """Make the tables, and commit once untimed: the first commit compiles statements and resolves listeners."""
        schema = f"stage_{next(self._schemas)}" if group.database == POSTGRESQL else None
        contestant.process.ask(
            "open",
            url=self._urls[group.database],
            schema=schema,
            operation=group.operation,
            rows=group.rows,
            table=group.table,
        )
        contestant.process.ask("round", variants=contestant.variants, expire=group.expire, repeats=2)


def take_round(group: Group, contestant: Contestant, *, backwards: bool) -> None:
    """Time one round of a contestant's two variants, the second of them first if it goes backwards."""
    variants = contestant.variants[::-1] if backwards else contestant.variants
    repeats = commits_per_round(group.rows)
    contestant.rounds.append(contestant.process.ask("round", variants=variants, expire=group.expire, repeats=repeats))


def _weigh(group: Group, contestant: Contestant) -> None:
    """Take memory and statements when all times are taken: both slow the process down."""
    for variant in dict.fromkeys(contestant.variants):
        memory = contestant.process.ask("memory", variant=variant, expire=group.expire)
        statements = contestant.process.ask("statements", variant=variant, expire=group.expire)
        contestant.costs[variant] = Costs(**statements, **memory)


def _compare(group: Group, contestant: Contestant, untouched: Contestant) -> Comparison:
    base = untouched.medians(PLAIN)
    plain, events = contestant.medians(PLAIN), contestant.medians(EVENTS)
    extra = statistics.median(event - other for event, other in zip(events, plain, strict=True))
    return Comparison(
        wall=Spread.of(contestant.ratios("wall")),
        processor=Spread.of(contestant.ratios("processor")),
        to_untouched=Spread.of([event / other for event, other in zip(events, base, strict=True)]),
        plain_to_untouched=Spread.of([other / first for other, first in zip(plain, base, strict=True)]),
        microseconds_per_row=extra / 1_000 / group.rows,
        passes=contestant.passes(EVENTS),
        plain_passes=contestant.passes(PLAIN),
        costs=contestant.costs[EVENTS],
        plain_costs=contestant.costs[PLAIN],
    )


def rounds_for(rows: int, rounds: int) -> int:
    """Return how many rounds a commit of so many rows gets: large ones take long, and differ less from each other."""
    return max(min(rounds, _MOST_ROWS // rows), 1)


def total_rounds(groups: Iterable[Group], rounds: int) -> int:
    """Return how many rounds a comparison has in all."""
    return sum(rounds_for(group.rows, rounds) for group in groups)
