"""What is looked at while a commit runs: its time, its memory, its statements; one at a time, so that none disturbs."""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import event

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy import Engine

_OLDEST = 2
"""The index of the garbage collector's oldest generation."""


class Observer(Protocol):
    """Watches a ``with`` block around one commit."""

    def __enter__(self) -> object:
        """Begin to watch."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Stop watching."""
        ...


def oldest_passes() -> int:
    """Return how often the garbage collector has gone through its oldest generation in this process."""
    return int(gc.get_stats()[_OLDEST]["collections"])


class Stopwatch:
    """Times commits, on the wall and in processor time of all the process's threads, and counts collector passes.

    Attributes:
        wall: Nanoseconds of each commit.
        processor: Nanoseconds of each commit, without what other processes took or the database server needed.
        passes: Passes of the garbage collector over its oldest generation, in all of them.
    """

    def __init__(self) -> None:
        self.wall: list[int] = []
        self.processor: list[int] = []
        self.passes = 0

    def __enter__(self) -> None:
        self._passes = oldest_passes()
        self._processor = time.process_time_ns()
        self._wall = time.perf_counter_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        wall = time.perf_counter_ns()
        processor = time.process_time_ns()
        self.wall.append(wall - self._wall)
        self.processor.append(processor - self._processor)
        self.passes += oldest_passes() - self._passes


class MemoryPeak:
    """Takes the peak of traced memory during a commit, everything held before it included. Bytes."""

    def __init__(self) -> None:
        self.held = 0
        self.peak = 0

    def __enter__(self) -> None:
        self.held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.peak = tracemalloc.get_traced_memory()[1]


class StatementCount:
    """Counts what an engine sends to the database during commits, and how much of it after the first COMMIT.

    ``executemany`` counts as one statement.
    """

    def __init__(self, engine: Engine) -> None:
        self.statements = 0
        self.after_commit = 0
        self._watching = False
        self._committed = False
        event.listen(engine, "before_cursor_execute", self._count)
        event.listen(engine, "commit", self._commit)

    def __enter__(self) -> None:
        self._watching = True
        self._committed = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watching = False

    def _count(self, *_arguments: object) -> None:
        if self._watching:
            self.statements += 1
            self.after_commit += self._committed

    def _commit(self, *_arguments: object) -> None:
        self._committed = True
