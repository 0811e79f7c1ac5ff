"""What ``python -m benchmarks instructions`` counts of many rows: one commit of each size, on the sync front-end.

The counter stops as it does for :mod:`one_row`: here before and after each of the commits.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .commits import Commits
from .library import PLAIN, load
from .stages import SyncStage

if TYPE_CHECKING:
    from types import TracebackType

_UNCOUNTED_ROWS = 10
_UNCOUNTED = 10
"""Commits that compile statements, resolve listeners and warm the interpreter up."""


class _Stops:
    """Lets the counter stop where a commit begins and where it ends."""

    def __enter__(self) -> None:
        os.getpriority(os.PRIO_PROCESS, 0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.getpriority(os.PRIO_PROCESS, 0)


def main(arguments: list[str]) -> None:
    """Commit once for each size.

    Args:
        arguments: Variant, operation, then how many rows each of the commits has.
    """
    variant, operation, *sizes = arguments
    stage = SyncStage(load("ours", "sync", 0).sync_classes)
    # A plain session first, whatever is counted: the interpreter numbers classes as they are used, and where the
    # numbers fall badly, two attributes of SQLAlchemy's push each other out of its cache with every row.
    for warmed in (PLAIN, variant):
        Commits(stage, operation, _UNCOUNTED_ROWS, "10").round([warmed], expire=False, repeats=_UNCOUNTED)
    for rows in sizes:
        Commits(stage, operation, int(rows), "10").commit(variant, expire=False, observer=_Stops())
    stage.close()
