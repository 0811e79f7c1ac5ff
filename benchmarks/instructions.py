"""Counts the processor instructions of commits: the same on a busy machine as on an idle one."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .comparison import EVENTS, OURS, PLAIN, UNTOUCHED
from .matrix import OPERATIONS
from .processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REFERENCE = Path(__file__).parent / "instructions.json"
TOLERANCE = 0.02
"""By which part a count may exceed the reference: any change moves addresses, and with them hash tables."""

COMMITS = (50, 250)
"""What is counted is the difference between two runs of so many commits in one process."""

ROWS = (1_000, 10_000)
"""The commits of many rows, of which each row is counted: as many for one of them where the cost is linear."""

ROW_GROWTH_LIMIT = 1.05
"""What events may add to a row of the larger commit, compared with one of the smaller."""

_START = (
    "import sys; from importlib import import_module; sys.path.append(sys.argv.pop(1)); "
    "import_module('benchmarks.worker.' + sys.argv.pop(1)).main(sys.argv[1:])"
)


class InstructionsError(RuntimeError):
    """valgrind is missing, or what it ran has failed."""


@dataclass(frozen=True)
class Program:
    """A commit to count, and the one without events that it is compared with."""

    name: str
    front_end: str
    library: str
    listeners: str
    variant: str
    plain: str


PROGRAMS = (
    Program("sync, plain session", "sync", UNTOUCHED, "none", PLAIN, ""),
    Program("sync, plain session beside a listener", "sync", OURS, "sync", PLAIN, "sync, plain session"),
    Program("sync, no listener", "sync", OURS, "none", EVENTS, "sync, plain session"),
    Program("sync, one sync listener", "sync", OURS, "sync", EVENTS, "sync, plain session"),
    Program("sync, one async listener", "sync", OURS, "async", EVENTS, "sync, plain session"),
    Program("async, plain session", "async", UNTOUCHED, "none", PLAIN, ""),
    Program("async, one sync listener", "async", OURS, "sync", EVENTS, "async, plain session"),
    Program("async, one async listener", "async", OURS, "async", EVENTS, "async, plain session"),
)

ROW_PROGRAMS = tuple(product(OPERATIONS, (PLAIN, EVENTS)))
"""Operation and variant; all on the sync front-end with one sync listener."""


def row_name(operation: str, rows: int, variant: str) -> str:
    """Return what the count of a row is called."""
    session = "plain session" if variant == PLAIN else "one sync listener"
    return f"{operation}, each of {rows:,} rows, {session}"


@dataclass(frozen=True)
class Counts:
    """Instructions per commit, and what they were counted with.

    Attributes:
        versions: Counts are comparable only where all of these are the same.
        instructions: Per commit of one row, by program; per row of those with many.
        ratios: The same as a ratio to the plain session of the same front-end.
    """

    versions: dict[str, str]
    instructions: dict[str, int]
    ratios: dict[str, float]


def count_instructions(advance: Callable[[], None]) -> Counts:
    """Run every program under valgrind, and count.

    Raises:
        InstructionsError: There is no valgrind, or a program failed.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        msg = "instructions are counted by valgrind, which is not installed: install the package of that name"
        raise InstructionsError(msg)
    found: dict[str, int] = {}
    ratios: dict[str, float] = {}
    for program in PROGRAMS:
        arguments = [program.front_end, program.library, program.listeners, program.variant]
        few, many = _count(valgrind, "one_row", [*arguments, *map(str, COMMITS)], (2, 3))
        found[program.name] = round((many - few) / (COMMITS[1] - COMMITS[0]))
        if program.plain:
            ratios[program.name] = round(found[program.name] / found[program.plain], 4)
        advance()
    for operation, variant in ROW_PROGRAMS:
        totals = _count(valgrind, "many_rows", [variant, operation, *map(str, ROWS)], (2, 4))
        for rows, total in zip(ROWS, totals, strict=True):
            name = row_name(operation, rows, variant)
            found[name] = round(total / rows)
            if variant != PLAIN:
                ratios[name] = round(found[name] / found[row_name(operation, rows, PLAIN)], 4)
        advance()
    return Counts(_versions(), found, ratios)


def growth_of_rows(counts: Counts) -> dict[str, float]:
    """Return by operation what events add to a row of the larger commit, as a ratio to one of the smaller."""

    def added(operation: str, rows: int) -> int:
        ours, plain = (counts.instructions[row_name(operation, rows, variant)] for variant in (EVENTS, PLAIN))
        return ours - plain

    return {operation: added(operation, ROWS[1]) / added(operation, ROWS[0]) for operation in OPERATIONS}


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in ("sqlalchemy", "greenlet", "aiosqlite")},
    }


def _count(valgrind: str, program: str, arguments: Sequence[str], stops: Sequence[int]) -> list[int]:
    """Return how many instructions a program of :mod:`benchmarks.worker` takes until some of the counter's stops.

    Args:
        valgrind: Its path.
        program: The module.
        arguments: What to tell it.
        stops: Which stops, the first being 1; each counts from the one before.
    """
    command = [sys.executable, "-P", "-c", _START, str(ROOT), program, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with TemporaryDirectory(prefix="benchmarks-") as folder:
        output = Path(folder, "callgrind")
        options = ["--dump-before=getpriority", f"--callgrind-out-file={output}"]
        finished = subprocess.run(  # noqa: S603 - this interpreter
            [valgrind, "--tool=callgrind", *options, *command],
            env={**environment, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        totals = [_total(Path(f"{output}.{stop}")) for stop in stops]
    known = [total for total in totals if total is not None]
    if finished.returncode or len(known) != len(totals):
        msg = f"{program} {' '.join(arguments)} failed under valgrind:\n{finished.stderr}"
        raise InstructionsError(msg)
    return known


def _total(dump: Path) -> int | None:
    """Return the instructions between the stop before and this one."""
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE) if dump.exists() else None
    return None if found is None else int(found[1])


def read_reference() -> Counts | None:
    """Return the counts kept in the repository."""
    if not REFERENCE.exists():
        return None
    kept = json.loads(REFERENCE.read_text(encoding="utf-8"))
    return Counts(kept["versions"], kept["instructions"], kept["ratios"])


def write_reference(counts: Counts) -> None:
    """Keep these counts in the repository."""
    REFERENCE.write_text(json.dumps(asdict(counts), indent=2) + "\n", encoding="utf-8")


def regressions(reference: Counts, counts: Counts) -> dict[str, float]:
    """Return which programs need more instructions than the reference allows, as ratios to it.

    Where versions differ only the ratios to a plain session are compared: both sides changed with the versions.
    """
    old: dict[str, float] = dict(reference.ratios)
    new: dict[str, float] = dict(counts.ratios)
    if reference.versions == counts.versions:
        old, new = dict(reference.instructions), dict(counts.instructions)
    compared = {name: new[name] / old[name] for name in new if name in old}
    return {name: ratio for name, ratio in compared.items() if ratio > 1 + TOLERANCE}
