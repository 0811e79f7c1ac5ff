"""The measuring process: reads one JSON request a line from standard input, answers each with a line of JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any, TypeVar

from .commits import Commits
from .library import load
from .sessions import LongSessions
from .stages import AsyncStage, Stage, SyncStage

if TYPE_CHECKING:
    from collections.abc import Callable

    from .library import Library


ResultT = TypeVar("ResultT")


class Worker:
    """Answers requests; what it works on lives from ``open`` to ``close``."""

    def __init__(self, library: Library) -> None:
        """Measure the session classes of ``library``."""
        self._library = library
        self._stage: Stage | None = None
        self._commits: Commits | None = None

    def answer(self, request: dict[str, Any]) -> object:
        """Do what a request asks for; its ``do`` names the method, the rest are arguments."""
        methods: dict[str, Callable[..., object]] = {
            "hello": self.hello,
            "open": self.open,
            "close": self.close,
            "round": self.round,
            "memory": self.memory,
            "statements": self.statements,
            "clean_objects": self.clean_objects,
            "savepoints": self.savepoints,
            "transactions": self.transactions,
            "bulk": self.bulk,
        }
        return methods[request.pop("do")](**request)

    def hello(self) -> dict[str, object]:
        """Say what is measured here."""
        return {"versions": self._library.versions, "variants": self._variants()}

    def _variants(self) -> dict[str, list[str]]:
        return {"sync": list(self._library.sync_classes), "async": list(self._library.async_classes)}

    def open(self, *, url: str, schema: str | None, operation: str, rows: int, table: str) -> None:
        """Make an engine, its table and rows; in place of those that were open before."""
        self.close()
        if url.startswith(("sqlite://", "sqlite+pysqlite")):
            self._stage = SyncStage(self._library.sync_classes)
        else:
            self._stage = AsyncStage(self._library.async_classes, url, schema)
        self._commits = Commits(self._stage, operation, rows, table)

    def close(self) -> None:
        """Give back the engine that is open."""
        if self._stage is not None:
            self._stage.close()
        self._stage = self._commits = None

    def _opened(self) -> Commits:
        if self._commits is None:
            msg = "nothing is open: send 'open' first"
            raise RuntimeError(msg)
        return self._commits

    def round(self, *, variants: list[str], expire: bool, repeats: int) -> dict[str, dict[str, Any]]:
        """Time commits."""
        return self._opened().round(variants, expire=expire, repeats=repeats)

    def memory(self, *, variant: str, expire: bool) -> dict[str, int]:
        """Measure the memory of one commit."""
        return self._opened().memory(variant, expire=expire)

    def statements(self, *, variant: str, expire: bool) -> dict[str, int]:
        """Count the statements of one commit."""
        return self._opened().statements(variant, expire=expire)

    def clean_objects(self, *, variants: list[str], rows: int, expire: bool, repeats: int) -> dict[str, list[int]]:
        """Time commits of one row in a session of so many loaded ones."""
        return self._long(rows, lambda long: long.clean_objects(variants, expire=expire, repeats=repeats))

    def savepoints(self, *, variants: list[str], count: int, repeats: int) -> dict[str, list[int]]:
        """Time transactions of so many savepoints."""
        return self._long(count, lambda long: long.savepoints(variants, count=count, repeats=repeats))

    def transactions(
        self, *, variants: list[str], count: int, blocks: int, turns: int
    ) -> dict[str, dict[str, list[list[int]]]]:
        """Time the transactions of one session."""
        return self._long(1, lambda long: long.transactions(variants, count=count, blocks=blocks, turns=turns))

    def bulk(self, *, ways: list[str], operation: str, rows: int, repeats: int) -> dict[str, list[int]]:
        """Time statements that write all of so many rows, and objects that do."""
        return self._long(rows, lambda long: long.bulk(ways, operation=operation, repeats=repeats))

    def _long(self, rows: int, work: Callable[[LongSessions], ResultT]) -> ResultT:
        long = LongSessions(self._library.sync_classes, rows)
        try:
            return work(long)
        finally:
            long.close()


def main(arguments: list[str]) -> None:
    """Serve until standard input ends.

    Args:
        arguments: Library, listeners, and how many listeners elsewhere.
    """
    library, listeners, others = arguments
    # Whatever prints, prints to standard error; standard output is for answers only.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for whoever asks, who then ends standard input
    worker = Worker(load(library, listeners, int(others)))
    for line in sys.stdin:
        answer: dict[str, object]
        try:
            answer = {"answer": worker.answer(json.loads(line))}
        except Exception:  # noqa: BLE001 - told to the process that asked
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
    worker.close()
