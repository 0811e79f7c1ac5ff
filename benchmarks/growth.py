"""How the cost grows: with rows changed, listeners elsewhere, objects loaded, savepoints, transactions of one session.

On the sync front-end and SQLite in memory, where there is the least else to measure, and in processor time: nothing
waits there, and what other processes take of a processor is no growth.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .bars import MEMORY_LIMIT, judge
from .comparison import EVENTS, OURS, PLAIN, commits_per_round
from .matrix import OPERATIONS
from .processes import WorkerProcess
from .results import GrowthRow, GrowthTable, Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .results import Verdict

VARIANTS = (PLAIN, EVENTS)
GROWTH_LIMIT = 1.5
"""What the overhead of one piece may grow by over a whole table before it counts as growth; the rest is noise."""

SLOWDOWN_LIMIT = 1.1
"""The same for the ratio of whole commits, which differs less."""

PASSED_BY_LIMIT = 1.02
"""What a bulk statement that makes no events may take, compared with a plain session's."""

LEFT_BEHIND = 50
"""Python objects that a session may hold more after all its transactions than after the first two blocks of them."""


@dataclass(frozen=True)
class Sizes:
    """How far the tables go."""

    rows: tuple[int, ...]
    memory_rows: tuple[int, ...]
    listeners: tuple[int, ...]
    clean_objects: tuple[int, ...]
    savepoints: tuple[int, ...]
    bulk: tuple[int, ...]
    transactions: int
    blocks: int = 10
    turns: int = 20
    savepoints_per_round: int = 500


FULL = Sizes(
    (1, 10, 100, 1_000, 10_000, 100_000),
    (1_000, 100_000),
    (1, 10_000),
    (1, 100_000),
    (10, 100, 1_000),
    (1_000, 100_000),
    100_000,
)
QUICK = Sizes((1, 100, 10_000), (1_000, 10_000), (1, 10_000), (1, 20_000), (10, 1_000), (1_000, 20_000), 5_000)
SMALLEST = Sizes((1, 2), (1, 2), (1, 2), (1, 2), (1, 2), (1, 2), 4, 2, 2, 2)

TABLES = ("rows", "memory", "listeners", "clean", "savepoints", "transactions", "bulk")


def measure_growth(
    names: Sequence[str], sizes: Sizes, rounds: int, advance: Callable[[], None]
) -> Iterator[GrowthTable]:
    """Measure the tables of these names, telling ``advance`` after each."""
    measures: dict[str, Callable[[Sizes, int], Iterator[GrowthTable]]] = {
        "rows": _rows,
        "memory": _memory,
        "listeners": _listeners,
        "clean": _clean_objects,
        "savepoints": _savepoints,
        "transactions": _transactions,
        "bulk": _bulk,
    }
    for name in names:
        yield from measures[name](sizes, rounds)
        advance()


def _row(size: int, pairs: Sequence[tuple[float, float]], pieces: int = 1, **more: float) -> GrowthRow:
    """Summarize rounds, each with the nanoseconds of the plain session and of ours for ``pieces`` pieces."""
    plain = statistics.median(pair[0] for pair in pairs) / pieces / 1_000
    ours = statistics.median(pair[1] for pair in pairs) / pieces / 1_000
    extra = Spread.of([(pair[1] - pair[0]) / pieces / 1_000 for pair in pairs])
    return GrowthRow(size, plain, ours, extra, Spread.of([pair[1] / pair[0] for pair in pairs]), more)


def judge_growth(bar: str, first: GrowthRow, last: GrowthRow) -> Verdict:
    """Hold what our overhead has grown by against the limit; the noise is how far quartiles are from the medians."""
    before, after = first.extra_microseconds, last.extra_microseconds
    growth = max(after.median, 0.0) / max(before.median, 0.001)
    least = max(after.low, 0.0) / max(before.high, 0.001)
    return judge(bar, growth, GROWTH_LIMIT, max(growth - least, 0.0))


def judge_slowdown(bar: str, first: Spread, last: Spread) -> Verdict:
    """Hold what the ratio to a plain session has grown by against the limit; the noise is as above."""
    slowdown = last.median / first.median
    return judge(bar, slowdown, SLOWDOWN_LIMIT, slowdown - last.low / first.high)


def _medians(taken: dict[str, list[int]]) -> tuple[float, float]:
    return statistics.median(taken[PLAIN]), statistics.median(taken[EVENTS])


def _commits(process: WorkerProcess, operation: str, rows: int, rounds: int) -> list[tuple[float, float]]:
    """Time commits of so many rows, in rounds, after one that is not counted."""
    process.ask("open", url="sqlite://", schema=None, operation=operation, rows=rows, table="10")
    process.ask("round", variants=VARIANTS, expire=False, repeats=1)
    pairs: list[tuple[float, float]] = []
    for number in range(rounds):
        variants = VARIANTS if number % 2 else VARIANTS[::-1]
        taken = process.ask("round", variants=variants, expire=False, repeats=commits_per_round(rows))
        pairs.append(_medians({variant: watch["processor"] for variant, watch in taken.items()}))
    process.ask("close")
    return pairs


def _rows(sizes: Sizes, rounds: int) -> Iterator[GrowthTable]:
    with WorkerProcess(OURS, "sync") as process:
        for operation in OPERATIONS:
            rows = [
                _row(
                    size, _commits(process, operation, size, rounds if size < sizes.rows[-1] else min(rounds, 7)), size
                )
                for size in sizes.rows
            ]
            verdict = judge_growth("overhead per row, largest to the one before", rows[-2], rows[-1])
            yield GrowthTable(f"rows-{operation}", f"Rows changed ({operation})", "rows", "row", rows, [verdict])


def _memory(sizes: Sizes, rounds: int) -> Iterator[GrowthTable]:
    """Peak memory; in this table the times stand for bytes per row."""
    del rounds  # memory does not vary
    with WorkerProcess(OURS, "sync") as process:
        for operation in OPERATIONS:
            rows: list[GrowthRow] = []
            for size in sizes.memory_rows:
                process.ask("open", url="sqlite://", schema=None, operation=operation, rows=size, table="10")
                process.ask("round", variants=VARIANTS, expire=False, repeats=1)
                plain, ours = (process.ask("memory", variant=variant, expire=False)["peak"] for variant in VARIANTS)
                process.ask("close")
                ratio = Spread.of([ours / plain])
                rows.append(
                    GrowthRow(
                        size,
                        0.0,
                        0.0,
                        Spread.of([0.0]),
                        ratio,
                        {"plain bytes per row": plain / size, "ours": ours / size},
                    )
                )
            verdict = judge("peak memory", rows[-1].ratio.median, MEMORY_LIMIT)
            yield GrowthTable(f"memory-{operation}", f"Peak memory ({operation})", "rows", "row", rows, [verdict])


def _listeners(sizes: Sizes, rounds: int) -> Iterator[GrowthTable]:
    """Commits of one row, listened to, with so many listeners on other models; processes take turns."""
    with ExitStack() as stack:
        processes = [stack.enter_context(WorkerProcess(OURS, "sync", others=others)) for others in sizes.listeners]
        pairs: list[list[tuple[float, float]]] = [[] for _ in processes]
        for _ in range(rounds):
            for process, taken in zip(processes, pairs, strict=True):
                taken.extend(_commits(process, "update", 1, 1))
        rows = [_row(size, found) for size, found in zip(sizes.listeners, pairs, strict=True)]
    verdict = judge_growth("overhead, largest to smallest", rows[0], rows[-1])
    yield GrowthTable(
        "listeners", "Listeners on other models (one row updated)", "listeners", "commit", rows, [verdict]
    )


def _clean_objects(sizes: Sizes, rounds: int) -> Iterator[GrowthTable]:
    with WorkerProcess(OURS, "sync") as process:
        for expire in (False, True):
            rows = [
                _row(size, [_clean_round(process, size, number, expire=expire) for number in range(min(rounds, 5))])
                for size in sizes.clean_objects
            ]
            if expire:
                # The plain session expires every object; what ours adds to that would drown in it.
                verdict = judge("ratio with the most objects", rows[-1].ratio.median, SLOWDOWN_LIMIT)
            else:
                verdict = judge_growth("overhead, largest to smallest", rows[0], rows[-1])
            state = "on" if expire else "off"
            title = f"Objects merely loaded (one row updated, expire_on_commit {state})"
            yield GrowthTable(f"clean-{state}", title, "objects", "commit", rows, [verdict])


def _clean_round(process: WorkerProcess, size: int, number: int, *, expire: bool) -> tuple[float, float]:
    variants = VARIANTS if number % 2 else VARIANTS[::-1]
    return _medians(process.ask("clean_objects", variants=variants, rows=size, expire=expire, repeats=3))


def _savepoints(sizes: Sizes, rounds: int) -> Iterator[GrowthTable]:
    with WorkerProcess(OURS, "sync") as process:
        rows = [
            _row(
                size,
                [
                    _savepoint_round(process, size, max(sizes.savepoints_per_round // size, 1), number)
                    for number in range(rounds)
                ],
                size,
            )
            for size in sizes.savepoints
        ]
    verdict = judge_growth("overhead per savepoint, largest to smallest", rows[0], rows[-1])
    yield GrowthTable(
        "savepoints",
        "Savepoints in one transaction (one row updated in each)",
        "savepoints",
        "savepoint",
        rows,
        [verdict],
    )


def _savepoint_round(process: WorkerProcess, size: int, repeats: int, number: int) -> tuple[float, float]:
    variants = VARIANTS if number % 2 else VARIANTS[::-1]
    return _medians(process.ask("savepoints", variants=variants, count=size, repeats=repeats))


def _transactions(sizes: Sizes, rounds: int) -> Iterator[GrowthTable]:
    """The transactions of one session, in blocks; each line is one block."""
    del rounds  # the turns of each block take their place
    with WorkerProcess(OURS, "sync") as process:
        found = process.ask(
            "transactions", variants=VARIANTS, count=sizes.transactions, blocks=sizes.blocks, turns=sizes.turns
        )
    per_block = sizes.transactions // sizes.blocks
    held = 0
    rows: list[GrowthRow] = []
    for block in range(sizes.blocks):
        pairs = [*zip(found[PLAIN]["processor"][block], found[EVENTS]["processor"][block], strict=True)]
        held += sum(found[EVENTS]["objects"][block]) if block > 1 else 0  # the first blocks fill caches
        more = {"objects held more": float(held)}
        rows.append(_row((block + 1) * per_block, pairs, per_block // sizes.turns, **more))
    verdicts = [
        judge_slowdown("ratio, last block to first", rows[0].ratio, rows[-1].ratio),
        judge("objects held more", held, LEFT_BEHIND),
    ]
    yield GrowthTable(
        "transactions", "Transactions of one session (one row updated)", "transactions", "commit", rows, verdicts
    )


_BULK = (
    ("passed", "no events", "plain", "passed by", PASSED_BY_LIMIT),
    ("told", "events, against the statement alone", "plain", "told", None),
    ("objects", "events, against objects loaded and changed", "objects", "told", 1.0),
)
"""Ways to write the same rows that are compared, and the most that the ratio of the second to the first may be."""


def _bulk(sizes: Sizes, rounds: int) -> Iterator[GrowthTable]:
    """Statements that write all rows: told of, not told of, and beside the same change made by objects."""
    with WorkerProcess(OURS, "sync") as process:
        for operation in ("update", "delete"):
            for name, title, first, second, limit in _BULK:
                ways = (first, second)
                rows = [
                    _row(size, [_bulk_round(process, operation, size, ways, turn) for turn in range(rounds)], size)
                    for size in sizes.bulk
                ]
                ratio = rows[-1].ratio
                noise = ratio.median - ratio.low
                verdicts = [] if limit is None else [judge("ratio with the most rows", ratio.median, limit, noise)]
                full_title = f"Bulk {operation}: {title}"
                yield GrowthTable(f"bulk-{name}-{operation}", full_title, "rows", "row", rows, verdicts)


def _bulk_round(
    process: WorkerProcess, operation: str, size: int, ways: tuple[str, str], number: int
) -> tuple[float, float]:
    first, second = ways
    order = (first, second) if number % 2 else (second, first)
    repeats = max(min(10_000 // size, 10), 1)
    taken = process.ask("bulk", ways=order, operation=operation, rows=size, repeats=repeats)
    return statistics.median(taken[first]), statistics.median(taken[second])
