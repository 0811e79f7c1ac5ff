"""Counts the processor instructions of a commit of one row: the same on a busy machine as on an idle one."""

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
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .comparison import EVENTS, OURS, PLAIN, UNTOUCHED
from .processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

REFERENCE = Path(__file__).parent / "instructions.json"
TOLERANCE = 0.02
"""By which part a count may exceed the reference: any change moves addresses, and with them hash tables."""

COMMITS = (50, 250)
"""What is counted is the difference between two runs of so many commits in one process."""

_START = "import sys; sys.path.append(sys.argv.pop(1)); from benchmarks.worker.one_row import main; main(sys.argv[1:])"


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


@dataclass(frozen=True)
class Counts:
    """Instructions per commit, and what they were counted with.

    Attributes:
        versions: Counts are comparable only where all of these are the same.
        instructions: Per commit of one row, by program.
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
    for program in PROGRAMS:
        few, many = _count(valgrind, program)
        found[program.name] = round((many - few) / (COMMITS[1] - COMMITS[0]))
        advance()
    ratios = {
        program.name: round(found[program.name] / found[program.plain], 4) for program in PROGRAMS if program.plain
    }
    return Counts(_versions(), found, ratios)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in ("sqlalchemy", "greenlet", "aiosqlite")},
    }


def _count(valgrind: str, program: Program) -> tuple[int, int]:
    """Return how many instructions the two runs of commits take; see :mod:`benchmarks.worker.one_row`."""
    command = [sys.executable, "-P", "-c", _START, str(ROOT)]
    command += [program.front_end, program.library, program.listeners, program.variant, *map(str, COMMITS)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with TemporaryDirectory(prefix="benchmarks-") as folder:
        output = Path(folder, "callgrind")
        stops = ["--dump-before=getpriority", f"--callgrind-out-file={output}"]
        finished = subprocess.run(  # noqa: S603 - this interpreter
            [valgrind, "--tool=callgrind", *stops, *command],
            env={**environment, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        totals = [_total(Path(f"{output}.{stop}")) for stop in range(2, 2 + len(COMMITS))]  # the first is starting up
    few, many = totals
    if finished.returncode or few is None or many is None:
        msg = f"{program.name} failed under valgrind:\n{finished.stderr}"
        raise InstructionsError(msg)
    return few, many


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
