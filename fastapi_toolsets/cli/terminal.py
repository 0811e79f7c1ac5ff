"""What the command writes: results on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

_PLAIN_WIDTH = 240
_LARGE = 50
"""From how many files on a progress bar is worth its lines."""


class _Output(Console):
    """Leaves it to the command what happens when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """Pass on what rich would make an exit of."""
        raise BrokenPipeError


def output() -> Console:
    """Return a console on standard output: in colour on a terminal, and as wide as need be elsewhere."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # a letter that the terminal's encoding lacks must not end the command
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    return _Output(width=width, highlight=False, markup=False, soft_wrap=True)


def say(message: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(f"{message}\n")


def fail(message: str) -> int:
    """Write to standard error, in one line, why the command ends, and return the exit code for it."""
    say(f"fastapi-toolsets: {' '.join(message.split())}")
    return 2


@contextmanager
def progress() -> Generator[Callable[[str, int, int], None]]:
    """Show a progress bar for the length of a block, on a terminal and for large projects only.

    Yields:
        A function that is told what is being done, how much of it is done, and how much there is.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("files"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(what: str, done: int, total: int) -> None:
            if total >= _LARGE:
                if what not in tasks:
                    tasks[what] = bar.add_task(what, total=total)
                bar.update(tasks[what], completed=done)

        yield advance
