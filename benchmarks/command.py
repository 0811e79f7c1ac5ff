"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import published
from .bars import NOT_MET
from .comparison import Arena, rounds_for, total_rounds
from .databases import DatabaseError, database_urls
from .floor import GROUPS, measure_floor
from .growth import FULL, QUICK, SMALLEST, TABLES, measure_growth
from .instructions import (
    PROGRAMS,
    ROW_GROWTH_LIMIT,
    ROW_PROGRAMS,
    InstructionsError,
    count_instructions,
    growth_of_rows,
    read_reference,
    regressions,
    write_reference,
)
from .matrix import UnknownCellsError, select_cells
from .picture import draw
from .processes import WorkerError
from .published import PublishedLibraryError
from .report import print_growth_of_rows, print_instructions, print_results, progress
from .results import Results

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "python -m benchmarks"
_ROUNDS, _QUICK_ROUNDS = 15, 3
_INTERRUPTED = 130


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def run(arguments: Sequence[str]) -> int:
    """Run the benchmarks.

    Args:
        arguments: The command line, without the program's name.

    Returns:
        The exit code: 0 when everything was measured, 1 when it could not be or, with ``--check``, a bar was not met,
        130 when it was interrupted.

    Raises:
        SystemExit: For ``--help`` with 0, for arguments that cannot be used with 2.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.part == "instructions":
            return _instructions(options)
        return _measure(options)
    except UnknownCellsError as error:
        parser.error(str(error))
    except (DatabaseError, InstructionsError, PublishedLibraryError, WorkerError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("The benchmarks were interrupted.\n")
        return _INTERRUPTED


def _measure(options: argparse.Namespace) -> int:
    results = Results(machine=_machine(None if options.no_published else options.published))
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    try:
        if options.part in ("all", "cells"):
            _compare(options, rounds, results)
        if options.part in ("all", "growth"):
            sizes = SMALLEST if options.smallest else QUICK if options.quick else FULL
            names = options.tables or TABLES
            with progress("Growth", len(names)) as advance:
                results.growth.extend(measure_growth(names, sizes, rounds, advance))
        if options.part in ("all", "floor"):
            with progress("Floor", len(GROUPS)) as advance:
                results.floor.extend(measure_floor(rounds, advance))
    except (KeyboardInterrupt, WorkerError):
        _finish(options, results, finished=False)
        raise
    _finish(options, results, finished=True)
    missed = any(verdict.outcome == NOT_MET for verdict in results.verdicts())
    return 1 if options.check and missed else 0


def _compare(options: argparse.Namespace, rounds: int, results: Results) -> None:
    cells = select_cells(options.cells, quick=options.quick)
    python = None if options.no_published else published.interpreter(options.published)
    if python is None:
        results.notes.append("The published library was left out.")
    with database_urls(group.database for group in cells) as urls:
        arena = Arena(urls, python)
        try:
            with progress("Rounds", total_rounds(cells, rounds)) as advance:
                for group, listeners in cells.items():
                    results.cells.extend(arena.measure(group, listeners, rounds_for(group.rows, rounds), advance))
        finally:
            arena.close()


def _finish(options: argparse.Namespace, results: Results, *, finished: bool) -> None:
    """Print and write what there is, also of a run that was interrupted."""
    machine = {**results.machine, "load_after": _load()}
    results = Results(machine, results.cells, results.growth, results.floor, results.notes, finished)
    print_results(results)
    if options.json is not None:
        options.json.write_text(json.dumps(results.as_json(), indent=1) + "\n", encoding="utf-8")
    if options.svg is not None:
        options.svg.write_text(draw(results), encoding="utf-8")


def _instructions(options: argparse.Namespace) -> int:
    reference = read_reference()
    with progress("Programs", len(PROGRAMS) + len(ROW_PROGRAMS)) as advance:
        counts = count_instructions(advance)
    worse = {} if reference is None else regressions(reference, counts)
    print_instructions(counts, reference, worse)
    growth = growth_of_rows(counts)
    print_growth_of_rows(growth)
    if options.write or reference is None:
        write_reference(counts)
    return 1 if options.check and (worse or max(growth.values()) > ROW_GROWTH_LIMIT) else 0


def _machine(published_version: str | None) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "sqlalchemy": version("sqlalchemy"),
        "published": published_version,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "load_before": _load(),
        "load_after": None,
    }


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        msg = f"{text!r} is not a whole number of 1 or more"
        raise argparse.ArgumentTypeError(msg)
    return number


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog=PROGRAM,
        description=(
            "Measures commit() on a plain session, a second plain session, an event session of this library and one of "
            "the published library, in rounds in which they take turns. Docs: docs/benchmarks.md."
        ),
    )
    parser.add_argument(
        "part",
        nargs="?",
        default="all",
        choices=("all", "cells", "growth", "floor", "instructions"),
        help=(
            "the comparison, how costs grow, the least that events can cost, all three (the default), or instruction "
            "counts by valgrind"
        ),
    )
    parser.add_argument("--quick", action="store_true", help="a few minutes: fewer cells, smaller growth, fewer rounds")
    parser.add_argument(
        "--cells",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only cells whose name matches, such as 'aiosqlite/update/1000/10/keep/sync' or '*/delete/*'; repeatable",
    )
    parser.add_argument("--tables", action="append", choices=TABLES, help="only this growth table; repeatable")
    parser.add_argument(
        "--smallest", action="store_true", help="growth tables of the smallest sizes: a test of the program"
    )
    parser.add_argument(
        "--rounds",
        type=_positive,
        metavar="N",
        help=f"rounds of each cell (default {_ROUNDS}, {_QUICK_ROUNDS} with --quick)",
    )
    parser.add_argument("--published", default=published.VERSION, metavar="VERSION", help="the version to compare with")
    parser.add_argument("--no-published", action="store_true", help="leave the published library out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to this file")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the picture of the docs into this file")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bar is not met")
    parser.add_argument("--write", action="store_true", help="make the counted instructions the new reference")
    return parser
