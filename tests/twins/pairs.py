"""Two twins, and the verdict on a program that both have run."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from tests.databases import Database
from tests.front_ends import run_without_loop
from tests.model.worlds import logged_errors

from .comparing import differences, untruths
from .programs import Program, shrink
from .twin import Run, Twin

KINDS = (
    "): raised",
    "): sent",
    ": read ",
    " lacks ",
    ": session is",
    "not told",
    "Told(",
    "was told",
    "logged",
    "steps,",
)
"""What the descriptions of problems are told apart by."""


class Pair:
    """A plain session and one with events, each on a database of its own."""

    def __init__(self, databases: list[Database], *, asynchronous: bool) -> None:
        self.is_local = databases[0].name == "sqlite"
        self._plain, self._events = (
            Twin(database, asynchronous=asynchronous, has_events=has_events)
            for database, has_events in zip(databases, (False, True), strict=True)
        )

    @contextmanager
    def open(self) -> Generator[Pair]:
        """Create the tables and start the loop; undo all of it in the end."""
        with asyncio.Runner() as self._runner, logged_errors() as self._logged, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("sqlalchemy.pool").disabled = True
            try:
                for twin in (self._plain, self._events):
                    twin.create_tables()
                yield self
            finally:
                for twin in (self._plain, self._events):
                    if isinstance(twin.engine, AsyncEngine):
                        self._runner.run(twin.engine.dispose())
                    else:
                        twin.engine.dispose()
                    twin.drop_tables()
                    twin.close()

    def _run(self, twin: Twin, program: Program) -> Run:
        run = twin.run(program)
        return self._runner.run(run) if twin.asynchronous else run_without_loop(run)

    def problems(self, program: Program) -> list[str]:
        """Run a program on both, and say what is wrong with the one with events.

        SQLAlchemy itself does not always write two changes in the same order (``session.dirty`` is a set): only what
        differs from several runs is a difference. Events that are not true once are not true.
        """
        different: list[str] = []
        for _ in range(3):
            self._logged.messages.clear()
            events = self._run(self._events, program)
            false = untruths(events) + [f"logged {message}" for message in self._logged.messages]
            if false:
                return false
            for _ in range(3):
                different = differences(self._run(self._plain, program), events)
                if not different:
                    return []
        return different

    def report(self, program: Program) -> str:
        """Shrink a program that fails, and write down what it does."""
        kinds = self._kinds(program)
        smallest = shrink(program, lambda smaller: not kinds.isdisjoint(self._kinds(smaller)))
        events = self._run(self._events, smallest)
        lines = ["", repr(smallest), *(self.problems(smallest) or ["agrees when it runs again"]), "", "The steps:"]
        for step in events.steps:
            raised = f"  -> {step.error}" if step.error else ""
            lines.append(f"  {'; '.join(step.said)}{raised}")
            lines += [f"      {statement} {parameters}" for statement, parameters in step.sent]
        return "\n".join(lines)

    def _kinds(self, program: Program) -> set[str]:
        """Say what sort of problems there are, so that shrinking does not end at another one."""
        problems = " ".join(self.problems(program))
        return {kind for kind in KINDS if kind in problems}
