"""``fastapi-toolsets migrate v3``: runs the codemod and says what it did."""

from __future__ import annotations

import difflib
import io
import os
import sys
import tokenize
from collections.abc import Iterator, Sequence
from enum import Enum

from rich.text import Text

from ..migrate.problems import MigrationError
from ..migrate.project import Migration, migrate
from ..migrate.writing import Rewritten
from .terminal import fail, output, progress, say

_STYLES = {"+": "green", "-": "red", "@": "cyan"}


class Mode(Enum):
    """What is done with the result."""

    DIFF = "shown as a diff"
    CHECK = "named"
    WRITE = "written"


def run_migration(paths: Sequence[str], mode: Mode) -> int:
    """Run the codemod.

    Args:
        paths: Files and folders.
        mode: What is done with the result.

    Returns:
        The exit code: 0 when nothing is left to do, 1 when something would change or needs a person, 2 after an error.
    """
    try:
        with progress() as advance:
            migration = migrate(paths, advance)
        if mode is Mode.WRITE:
            migration.write()
    except MigrationError as error:
        return fail(str(error))
    _show(migration, mode)
    for task in migration.tasks:
        line = task.line_after if mode is Mode.WRITE else task.line
        say(f"{task.shown}:{line}: needs a person: {task.message}")
    say(_summary(migration, mode))
    return int(bool(migration.tasks) or (bool(migration.changed) and mode is not Mode.WRITE))


def _show(migration: Migration, mode: Mode) -> None:
    console = output()
    for file in migration.changed:
        if mode is not Mode.DIFF:
            console.print(f"{'rewrote' if mode is Mode.WRITE else 'would rewrite'} {file.shown}")
        elif not console.is_terminal:
            sys.stdout.buffer.writelines(_diff(file))  # as it is: rich would change tabs and carriage returns
        else:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(file.before).readline)
            for line in _diff(file):
                text = line.decode(encoding, "replace")
                console.print(Text(text, style=_style(text)), end="")


def _summary(migration: Migration, mode: Mode) -> str:
    changed, left = len(migration.changed), len(migration.tasks)
    verb = "changed" if mode is Mode.WRITE else "would change"
    counts = f"{changed} of {_counted(migration.files, 'file')} {verb}"
    return f"{counts}; {_counted(left, 'place')} {'needs' if left == 1 else 'need'} a person." if left else f"{counts}."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _style(line: str) -> str:
    return "bold" if line.startswith(("+++ ", "--- ")) else _STYLES.get(line[:1], "")


def _diff(file: Rewritten) -> Iterator[bytes]:
    """Yield the lines of a unified diff, as ``git apply`` and ``patch -p1`` take it; only a line feed ends a line."""
    name = os.fsencode(file.shown.lstrip("/"))
    before, after = (io.BytesIO(source).readlines() for source in (file.before, file.after))
    for line in difflib.diff_bytes(difflib.unified_diff, before, after, b"a/" + name, b"b/" + name):
        yield line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"
