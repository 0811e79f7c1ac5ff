"""What a run prints: its tables, with colours where rich is installed and there is a terminal."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .bars import MET, NOT_MET, WITHIN_NOISE, time_limit
from .instructions import ROW_GROWTH_LIMIT, ROWS
from .matrix import Group

RICH = find_spec("rich") is not None
"""It is for looks only, and does not come with the library."""

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from .instructions import Counts
    from .results import Cell, Comparison, GrowthTable, Results, Spread, Verdict

STYLES = {MET: "green", WITHIN_NOISE: "yellow", NOT_MET: "red"}
_NARROWEST = 200
"""Columns that a table gets on a terminal that has fewer: a row that is cut says less than one that wraps."""


@contextmanager
def progress(label: str, total: int) -> Generator[Callable[[], None]]:
    """Show how far a block has got, on a terminal only.

    Yields:
        A function to call after each of the ``total`` pieces of work.
    """
    if not RICH or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415 - see RICH
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; a cell that is the name of an outcome gets its colour."""
    if not rows:
        return
    if RICH and sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 - see RICH
        from rich.table import Table  # noqa: PLC0415

        table = Table(title=title, title_justify="left")
        for heading in headings:
            table.add_column(heading)
        for row in rows:
            table.add_row(*row, style=STYLES.get(row[-1].partition(":")[0], ""))
        Console(width=max(_NARROWEST, Console().width)).print(table)
        return
    widths = [max(len(line[index]) for line in (headings, *rows)) for index in range(len(headings))]
    print(f"\n{title}")
    for line in (headings, ["-" * width for width in widths], *rows):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def print_results(results: Results) -> None:
    """Print everything that was measured, and how the bars stand."""
    print_table(
        "Time of commit() as a ratio to the plain session of the same process, median of rounds [quartiles]",
        (
            *("cell", "plain ms", "plain again", "ours", "bar", "ours, processor", "published", "plain here"),
            *("statements", "after COMMIT", "peak memory", "full GCs", "verdict"),
        ),
        [_cell_row(cell) for cell in results.cells],
    )
    for table in results.growth:
        _print_growth(table)
    print_table(
        "The least that events cost one row on the sync front-end, as a ratio to a plain session [quartiles]",
        ("commit", "plain us", "plain again", "SQLAlchemy's events", "and a task of asyncio's"),
        [
            [row.name, f"{row.plain_microseconds:.1f}", *map(_spread, (row.again, row.hooks, row.task))]
            for row in results.floor
        ],
    )
    _print_summary(results)


def _cell_row(cell: Cell) -> list[str]:
    group = Group(cell.database, cell.operation, cell.rows, cell.table, cell.expire_on_commit)
    limit = time_limit(group, cell.listeners)
    ours, published = cell.ours, cell.published
    sides: list[Comparison] = [ours] if published is None else [ours, published]
    return [
        cell.name,
        f"{cell.plain_milliseconds:.3f}",
        _spread(cell.again),
        _spread(ours.wall),
        "-" if limit == float("inf") else f"{limit:.2f}",
        f"{ours.processor.median:.3f}",
        "-" if published is None else _spread(published.wall),
        f"{ours.plain_to_untouched.median:.3f}",
        "/".join(str(number) for number in (ours.plain_costs.statements, *(side.costs.statements for side in sides))),
        "/".join(str(side.costs.after_commit) for side in sides),
        "/".join(f"{side.peak_ratio:.2f}" for side in sides),
        "/".join(str(number) for number in (ours.plain_passes, *(side.passes for side in sides))),
        outcome_of(cell.verdicts),
    ]


def _spread(spread: Spread, digits: int = 3) -> str:
    return f"{spread.median:.{digits}f} [{spread.low:.2f}-{spread.high:.2f}]"


def outcome_of(verdicts: Sequence[Verdict]) -> str:
    """Return the worst outcome, with the bars that have it."""
    for outcome in (NOT_MET, WITHIN_NOISE):
        bars = [verdict.bar for verdict in verdicts if verdict.outcome == outcome]
        if bars:
            return f"{outcome}: {', '.join(bars)}"
    return MET if verdicts else ""


def _print_growth(table: GrowthTable) -> None:
    more = sorted({name for row in table.rows for name in row.more})
    timed = any(row.plain_microseconds for row in table.rows)
    times = (f"plain us/{table.per}", f"ours us/{table.per}", "extra us") if timed else ()
    rows: list[list[str]] = []
    for row in table.rows:
        figures = (row.plain_microseconds, row.ours_microseconds) if timed else ()
        extra = (_spread(row.extra_microseconds, 2),) if timed else ()
        extras = [f"{row.more[name]:,.0f}" for name in more]
        rows.append([f"{row.size:,}", *(f"{figure:.2f}" for figure in figures), *extra, _spread(row.ratio), *extras])
    print_table(table.title, (table.size, *times, "ratio", *more), rows)
    for verdict in table.verdicts:
        print(f"  {verdict.bar}: {verdict.value:.2f}, at most {verdict.limit:g}: {verdict.outcome}")


def _print_summary(results: Results) -> None:
    counted: Counter[tuple[str, str]] = Counter()
    for verdict in results.verdicts():
        counted[verdict.bar, verdict.outcome] += 1
    bars = list(dict.fromkeys(bar for bar, _ in counted))
    outcomes = (MET, WITHIN_NOISE, NOT_MET)
    print_table(
        "Bars, by how many cells and tables they have",
        ("bar", *outcomes),
        [[bar, *(str(counted[bar, outcome]) for outcome in outcomes)] for bar in bars],
    )
    machine = results.machine
    print(
        f"\nPython {machine['python']}, SQLAlchemy {machine['sqlalchemy']}, {machine['processors']} processors; "
        f"load average {machine['load_before']} before and {machine['load_after']} after"
    )
    for note in results.notes:
        print(note)


def print_instructions(counts: Counts, reference: Counts | None, worse: dict[str, float]) -> None:
    """Print instruction counts beside the reference."""
    rows: list[list[str]] = []
    for name, number in counts.instructions.items():
        before = None if reference is None else reference.instructions.get(name)
        ratio = counts.ratios.get(name)
        rows.append(
            [
                name,
                f"{number:,}",
                "-" if ratio is None else f"{ratio:.3f}",
                "-" if before is None else f"{before:,}",
                "-" if before is None else f"{number / before - 1:+.1%}",
                NOT_MET if name in worse else MET,
            ]
        )
    headings = ("commit", "instructions", "to plain", "reference", "change", "verdict")
    print_table("Instructions per commit, counted by valgrind", headings, rows)
    if reference is not None and reference.versions != counts.versions:
        print(
            f"\nThe reference was counted with {reference.versions}, this with {counts.versions}: ratios are compared."
        )


def print_growth_of_rows(growth: dict[str, float]) -> None:
    """Print by operation whether what events add to a row is the same in a large commit as in a small one."""
    rows = [
        [operation, f"{ratio:.3f}", f"{ROW_GROWTH_LIMIT:.2f}", MET if ratio <= ROW_GROWTH_LIMIT else NOT_MET]
        for operation, ratio in growth.items()
    ]
    few, many = ROWS
    title = f"What events add to a row, in instructions: one of {many:,} compared with one of {few:,}"
    print_table(title, ("operation", "ratio", "at most", "verdict"), rows)
