"""Where programs run: a database and an engine of either kind, kept for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from fastapi_toolsets.events import EventSession, SyncEventSession
from tests.databases import Database
from tests.front_ends import SessionAdapter, run_without_loop

from .interpreter import Interpreter, Outcome
from .oracle import Oracle
from .programs import Program
from .recorder import Recorder


def memory_database(name: str) -> Database:
    """Name a SQLite database in memory that every connection of this process shares."""
    query = {"mode": "memory", "cache": "shared", "uri": "true"}
    return Database("sqlite", URL.create("sqlite", database=f"file:{name}", query=query))


class _Errors(logging.Filter):
    """Counts what the library logs as errors, and lets no record pass."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            self.messages.append(record.getMessage())
        return False


@contextmanager
def logged_errors() -> Generator[_Errors]:
    """Take the library's log before any handler does.

    pytest keeps the records of a test, also those of loggers that do not propagate; a record keeps its error, that the
    frames it came through, and those the cursors of a connection, which then holds its locks though it was closed.
    """
    logger = logging.getLogger("fastapi_toolsets.events")
    errors = _Errors()
    logger.addFilter(errors)
    try:
        yield errors
    finally:
        logger.removeFilter(errors)


class Worlds:
    """Both front-ends on databases of their own; the async one with an event loop that outlives the programs."""

    def __init__(self, databases: dict[str, Database]) -> None:
        """Connect; ``databases`` are by front-end, ``async`` and ``sync``."""
        self.recorder = Recorder()
        self._oracles = {name: Oracle(database, asynchronous=name == "async") for name, database in databases.items()}

    @contextmanager
    def open(self) -> Generator[None]:
        """Create the tables, register the callbacks and start the loop; undo all of it in the end."""
        with (
            asyncio.Runner() as self._runner,
            self.recorder.listening(),
            logged_errors() as self._logged,
            ExitStack() as tables,
        ):
            for oracle in {oracle.database: oracle for oracle in self._oracles.values()}.values():
                tables.enter_context(oracle.tables())
            try:
                yield
            finally:
                for oracle in self._oracles.values():
                    if isinstance(oracle.engine, AsyncEngine):
                        self._runner.run(oracle.engine.dispose())
                    else:
                        oracle.engine.dispose()
                tables.close()
                for oracle in self._oracles.values():
                    oracle.close()

    def run(self, program: Program, front_end: str, *, is_plain: bool = False) -> Outcome:
        """Run a program on a front-end, or on a plain session of its kind."""
        oracle = self._oracles[front_end]
        oracle.begin(seeded=program.seeded)
        self.recorder.begin(program, oracle)
        self._logged.messages.clear()
        options: dict[str, Any] = {"expire_on_commit": program.expire_on_commit, "autoflush": program.autoflush}
        session: AsyncSession | Session
        if isinstance(oracle.engine, AsyncEngine):
            class_ = AsyncSession if is_plain else EventSession
            session = async_sessionmaker(oracle.engine, class_=class_, **options)()
        else:
            sync_class = Session if is_plain else SyncEventSession
            session = sessionmaker(oracle.engine, class_=sync_class, **options)()
        adapter = SessionAdapter(session)
        interpreter = Interpreter(program, adapter, oracle, None if is_plain else self.recorder)
        run = self._run(interpreter, adapter)
        outcome = self._runner.run(run) if front_end == "async" else run_without_loop(run)
        if len(self._logged.messages) != self.recorder.errors_expected:
            outcome.problems.append(f"expected {self.recorder.errors_expected} errors, logged {self._logged.messages}")
        return outcome

    async def _run(self, interpreter: Interpreter, adapter: SessionAdapter) -> Outcome:
        with self.recorder.for_program():  # here, since a runner's tasks have a context of their own
            try:
                return await interpreter.run()
            except BaseException:
                await adapter.invalidate()  # the next program needs the connection
                raise

    def disagreements(self, program: Program) -> list[str]:
        """Run a program on both front-ends and on a plain session; say what disagrees.

        SQLAlchemy itself does not always write two changes in the same order (``session.dirty`` is a set), so that now
        and then one of two runs ends in another error: only what differs from several runs is a difference.
        """
        outcomes = {name: self.run(program, name) for name in ("sync", "async")}
        problems = [f"{name}: {problem}" for name, outcome in outcomes.items() for problem in outcome.problems]
        # Callbacks that act on the session have no counterpart on a plain one: then the front-ends compare themselves.
        acts = bool(program.reactions) or program.veto is not None
        other = outcomes["sync"] if acts else self.run(program, "sync", is_plain=True)
        for name, outcome in outcomes.items():
            differences = _differences(name, outcome, other)
            for _ in range(4):
                if not differences:
                    break
                differences = _differences(name, outcome, self.run(program, "sync", is_plain=not acts))
            problems += differences
        return problems


def _differences(name: str, outcome: Outcome, other: Outcome) -> list[str]:
    """Say where a run went another way than it did on another session."""
    if not other.is_comparable:
        return []
    differences = [
        f"{name}: {mine}, but elsewhere {theirs}"
        for mine, theirs in zip(outcome.steps, other.steps, strict=False)
        if mine != theirs
    ][:1]
    if outcome.after_commits != other.after_commits:
        differences.append(f"{name}: after_commit {outcome.after_commits} times, but elsewhere {other.after_commits}")
    return differences
