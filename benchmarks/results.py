"""What was measured, in the form in which it is written to JSON."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = 1
"""Changes when a field changes its meaning."""


@dataclass(frozen=True)
class Spread:
    """Ratios of all rounds: their median, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Spread:
        """Summarize the ratios of at least one round."""
        if len(ratios) == 1:
            return cls(ratios[0], ratios[0], ratios[0])
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(statistics.median(ratios), low, high)


@dataclass(frozen=True)
class Costs:
    """What one commit costs beside time.

    Attributes:
        statements: Statements that ``commit()`` sends to the database; ``executemany`` is one.
        after_commit: How many of them it sends after COMMIT.
        held: Bytes held when the commit begins, the objects included.
        peak: Bytes held at most while it runs.
    """

    statements: int
    after_commit: int
    held: int
    peak: int


@dataclass(frozen=True)
class Comparison:
    """An event session beside the plain session of the same process.

    Attributes:
        wall: Time on the wall, as a ratio to the plain session.
        processor: Processor time, as a ratio; what a busy machine disturbs least.
        to_untouched: Time on the wall as a ratio to a plain session in a process without any event library.
        plain_to_untouched: What the plain session of the same process takes, as a ratio to that one.
        microseconds_per_row: By how much the commit takes longer, by the row.
        passes: Passes of the garbage collector over its oldest generation, in all rounds.
        plain_passes: The plain session's.
        costs: The event session's.
        plain_costs: The plain session's.
    """

    wall: Spread
    processor: Spread
    to_untouched: Spread
    plain_to_untouched: Spread
    microseconds_per_row: float
    passes: int
    plain_passes: int
    costs: Costs
    plain_costs: Costs

    @property
    def peak_ratio(self) -> float:
        """The peak of memory as a ratio to the plain session's."""
        return self.costs.peak / self.plain_costs.peak


@dataclass(frozen=True)
class Verdict:
    """One bar, held against what was measured.

    Attributes:
        bar: What is asked.
        limit: The most that is allowed.
        value: What was measured.
        outcome: ``"met"``, ``"within noise"`` (over the limit by less than the cell's noise) or ``"not met"``.
    """

    bar: str
    limit: float
    value: float
    outcome: str


@dataclass(frozen=True)
class Cell:
    """One cell of the comparison.

    Attributes:
        plain_milliseconds: The commit of a plain session in a process without any event library, median of all.
        again: A second plain session beside that one: what it differs from 1 is noise.
        noise: By how much a round of the second plain session is off, in the median.
        ours: Our library.
        published: The published one, ``None`` where it has no such front-end or was left out.
    """

    name: str
    database: str
    operation: str
    rows: int
    table: str
    expire_on_commit: bool
    listeners: str
    rounds: int
    commits_per_round: int
    plain_milliseconds: float
    again: Spread
    noise: float
    ours: Comparison
    published: Comparison | None
    verdicts: list[Verdict] = field(default_factory=list)


@dataclass(frozen=True)
class GrowthRow:
    """One line of a growth table.

    Attributes:
        size: How much there was of what grows.
        plain_microseconds: What a plain session took for one of ``per``.
        ours_microseconds: What an event session took.
        extra_microseconds: By how much longer it took, round by round.
        ratio: Of the two, round by round.
        more: What else the table shows.
    """

    size: int
    plain_microseconds: float
    ours_microseconds: float
    extra_microseconds: Spread
    ratio: Spread
    more: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GrowthTable:
    """How the cost grows with one thing."""

    name: str
    title: str
    size: str
    per: str
    rows: list[GrowthRow]
    verdicts: list[Verdict]


@dataclass(frozen=True)
class FloorRow:
    """What one commit of one row costs at least.

    Attributes:
        name: The commit, as cells are named, without their listeners.
        plain_microseconds: What a plain session took, median of all rounds.
        again: A second plain session, as a ratio to it.
        hooks: A session with SQLAlchemy's events and listeners that do nothing.
        task: The same, which runs a coroutine that does nothing after COMMIT.
    """

    name: str
    plain_microseconds: float
    again: Spread
    hooks: Spread
    task: Spread


@dataclass(frozen=True)
class Results:
    """Everything of one run.

    Attributes:
        machine: Versions, processor count, load when it began and ended.
        finished: Whether it ran to its end.
        notes: What was left out, and why.
    """

    machine: dict[str, Any]
    cells: list[Cell] = field(default_factory=list)
    growth: list[GrowthTable] = field(default_factory=list)
    floor: list[FloorRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    finished: bool = False

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts on all cells and tables."""
        found = [verdict for cell in self.cells for verdict in cell.verdicts]
        return found + [verdict for table in self.growth for verdict in table.verdicts]

    def as_json(self) -> dict[str, Any]:
        """Return it for :func:`json.dump`."""
        return {"format": FORMAT, **asdict(self)}
