"""Runs a program on a session of any kind, step by step, and asks after each step whether what was told is true."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import sqlalchemy
from sqlalchemy import Executable, event, insert, inspect, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, PendingRollbackError, SAWarning, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import FlushError, StaleDataError
from sqlalchemy.orm.unitofwork import UOWTransaction

from fastapi_toolsets.errors import PlainSessionWarning, RolledBackCommitWarning, UncommittedChangesWarning
from tests.front_ends import SessionAdapter, Transaction

from .oracle import Oracle
from .programs import Op, Program
from .recorder import DeliberateError, Delivery, Recorder
from .reference import disagreements, expected_events, observable, replay
from .steps import Skip, Steps, detached_with, is_ambiguous
from .tables import Base, markers, trail

MAX_DEPTH = 3


@dataclass
class Outcome:
    """What came of a program, apart from its events.

    Attributes:
        steps: For each step what it ended with, and the state of every object then.
        after_commits: How often SQLAlchemy's own ``after_commit`` was called.
        slips: How often SQLAlchemy raised what is none of its errors.
        is_comparable: Whether another kind of session must come to the same.
        problems: What disagrees with the contract; empty where all is well.
    """

    steps: list[str] = field(default_factory=list)
    after_commits: int = 0
    slips: int = 0
    is_comparable: bool = True
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Opened:
    """A transaction or savepoint that the program has begun and not ended."""

    transaction: Transaction
    is_savepoint: bool
    is_block: bool

    async def end(self, *, well: bool) -> None:
        """Leave the block, or commit or roll back the transaction."""
        if self.is_block:
            error = None if well else DeliberateError()
            await self.transaction.__aexit__(type(error) if error else None, error, None)
        elif well:
            await self.transaction.commit()
        else:
            await self.transaction.rollback()


class Interpreter:
    """One run of one program on one session."""

    def __init__(self, program: Program, adapter: SessionAdapter, oracle: Oracle, recorder: Recorder | None) -> None:
        """Prepare a run; without a recorder the session is a plain one."""
        self._program = program
        self._adapter = adapter
        self._oracle = oracle
        self._recorder = recorder
        self._outcome = Outcome()
        self._open: list[Opened] = []
        self._token = 0
        self._steps = Steps(oracle)
        self._rows = oracle.rows
        self._swallowed = False
        event.listen(adapter.sync_session, "after_flush", _mark_flush)
        event.listen(adapter.sync_session, "after_commit", self._count_commit)

    def _count_commit(self, _session: Session) -> None:
        self._outcome.after_commits += 1

    async def run(self) -> Outcome:
        """Run the program to its end, close the session, and compare the events with the tables once more."""
        with _recorded_warnings() as caught:
            for number, op in enumerate(self._program.ops):
                ended = await self._step(op)
                self._outcome.steps.append(f"{op!r} {ended} {self._steps.states()}")
                self._compare(f"step {number}, {op!r}")
            await self._adapter.close()
            self._compare("close() at the end")
        self._outcome.is_comparable = self._steps.is_comparable and not self._outcome.slips and not self._may_be_lost
        if self._recorder is not None:
            if observable(self._rows) != observable(self._oracle.read_rows()):
                self._outcome.problems.append("the events, replayed, do not give the tables")
            self._check_warnings(self._recorder, caught)
        return self._outcome

    @property
    def _may_be_lost(self) -> bool:
        """Whether an error was swallowed that makes PostgreSQL refuse all that follows."""
        return self._swallowed and self._oracle.database.name == "postgresql"

    async def _step(self, op: Op) -> str:
        try:
            own: Callable[[int, int, int], Awaitable[None]] | None = getattr(self, f"_{op.name}", None)
            if own is not None:
                await own(op.a, op.b, op.c)
            else:
                await self._adapter.run_sync(getattr(self._steps, op.name), op.a, op.b, op.c)
        except Skip:
            return "skipped"
        except SQLAlchemyError as error:
            await self._after_error(error)
            return _name_of(error)
        except (AssertionError, AttributeError, KeyError) as error:  # SQLAlchemy's own slips, as a plain session shows
            self._outcome.slips += 1
            await self._quietly(self._adapter.rollback)
            return type(error).__name__
        except DeliberateError:
            if self._program.veto is None:
                raise
            self._prune()
            if self._adapter.in_transaction():
                self._outcome.problems.append("a refused commit left a transaction behind")
            self._steps.is_comparable = False
            return "refused"
        return "done"

    async def _after_error(self, error: SQLAlchemyError) -> None:
        if isinstance(error, PendingRollbackError | DBAPIError | FlushError | StaleDataError):
            self._prune()
            if self._program.on_error == "innermost" and self._open and self._open[-1].is_savepoint:
                await self._quietly(lambda: self._open.pop().end(well=False))
            elif self._program.on_error != "leave":
                await self._quietly(self._adapter.rollback)
            else:
                self._steps.is_comparable = False  # what is loaded works on, what is not asks for a rollback first
                self._swallowed = True
        elif isinstance(error, InvalidRequestError) and "context manager" in str(error):
            while self._open:
                await self._quietly(lambda: self._open.pop().end(well=True))

    async def _quietly(self, function: Callable[[], Awaitable[None]]) -> None:
        try:
            await function()
        except SQLAlchemyError as error:
            self._outcome.steps.append(f"and then {_name_of(error)}")

    # Transactions.

    def _prune(self) -> None:
        """Forget savepoints that have ended with an outer one; a block stays until it is left."""
        self._open = [opened for opened in self._open if opened.is_block or opened.transaction.is_active]

    async def _flush(self, *_: int) -> None:
        await self._adapter.flush()

    async def _commit(self, a: int, *_: int) -> None:
        outermost = self._open[0] if self._open else None
        if a % 4 == 3 and outermost is not None and not outermost.is_savepoint:
            await outermost.transaction.commit()
        else:
            await self._adapter.commit()

    async def _rollback(self, *_: int) -> None:
        await self._adapter.rollback()

    async def _begin(self, *_: int) -> None:
        self._prune()
        if self._adapter.in_transaction() or self._open:
            raise Skip
        transaction = self._adapter.begin()
        await transaction.__aenter__()
        self._open.append(Opened(transaction, is_savepoint=False, is_block=True))

    async def _leave(self, a: int, *_: int) -> None:
        """Leave the outermost block, whatever is open in it."""
        if not self._open or self._open[0].is_savepoint:
            raise Skip
        opened = self._open[0]
        self._open.clear()
        await opened.end(well=a % 3 != 2)

    async def _savepoint(self, a: int, *_: int) -> None:
        self._prune()
        if sum(opened.is_savepoint for opened in self._open) >= MAX_DEPTH:
            raise Skip
        transaction = self._adapter.begin_nested()
        is_block = a % 3 == 2
        await (transaction.__aenter__() if is_block else transaction)
        self._open.append(Opened(transaction, is_savepoint=True, is_block=is_block))

    def _take_savepoint(self, a: int) -> Opened:
        """Choose the innermost savepoint, or now and then one around it."""
        self._prune()
        places = [place for place, opened in enumerate(self._open) if opened.is_savepoint]
        if not places:
            raise Skip
        place = places[a % len(places)] if a > 5 else places[-1]
        chosen = self._open[place]
        del self._open[place:]
        return chosen

    async def _release(self, a: int, *_: int) -> None:
        await self._take_savepoint(a).end(well=True)

    async def _undo_savepoint(self, a: int, *_: int) -> None:
        await self._take_savepoint(a).end(well=False)

    async def _close(self, *_: int) -> None:
        await self._adapter.close()

    async def _reset(self, *_: int) -> None:
        await self._adapter.reset()

    async def _invalidate(self, *_: int) -> None:
        await self._adapter.invalidate()
        if sqlalchemy.__version__.startswith("2.0."):
            # There cursors of a closed connection live on in circles, and SQLite's transaction lives as long as they.
            gc.collect()

    # The session's own methods on objects.

    async def _refresh(self, a: int, *_: int) -> None:
        await self._adapter.refresh(self._steps.pick(a, Base, persistent=True))

    async def _delete(self, a: int, *_: int) -> None:
        instance = self._steps.pick(a, Base, persistent=True)
        if await self._adapter.run_sync(_cannot_be_deleted, instance):
            raise Skip
        await self._adapter.delete(instance)

    async def _expire(self, a: int, b: int, *_: int) -> None:
        instance = self._steps.pick(a, Base, persistent=True)
        names = sorted(prop.key for prop in inspect(type(instance)).column_attrs)
        await self._adapter.expire(instance, [names[b % len(names)]] if b % 2 else None)

    async def _expire_all(self, *_: int) -> None:
        await self._adapter.expire_all()

    async def _expunge(self, a: int, *_: int) -> None:
        await self._adapter.expunge(self._steps.pick(a, Base, in_session=True))

    async def _expunge_all(self, *_: int) -> None:
        await self._adapter.expunge_all()

    # Past the unit of work.

    async def _broken_statement(self, *_: int) -> None:
        try:
            await self._adapter.execute(text("SELECT * FROM no_such_table"))
        except DBAPIError:
            self._swallowed = True  # as people do

    async def _on_commit(self, a: int, *_: int) -> None:
        """Register an ``on_commit`` callback, and write a row that is committed exactly if it must be called."""
        self._token += 1
        statement = insert(markers).values(token=self._token)
        if a % 2:
            await self._adapter.execute(statement)
        else:
            await self._adapter.run_sync(_execute_past_the_session, statement)
        if self._recorder is not None:
            asynchronous = self._program.async_callbacks
            callback = self._recorder.on_commit_awaited if asynchronous else self._recorder.on_commit
            self._adapter.session.on_commit(callback, self._token)

    # The comparison.

    def _compare(self, where: str) -> None:
        """Compare what was told since the last step with what was committed since then."""
        commits = self._oracle.take_commits()
        if self._recorder is None:
            return
        log = self._recorder.take()
        found = [*self._recorder.problems]
        self._recorder.problems.clear()
        for commit in commits:
            expected = expected_events(commit)
            deliveries: list[Delivery] = []
            while expected and log and isinstance(item := log[0], Delivery):
                if deliveries and deliveries[0].transaction_id != item.transaction_id:
                    break
                deliveries.append(item)
                del log[0]
            told = [delivery.told for delivery in deliveries]
            found += disagreements(expected, told)
            if [delivery.position for delivery in deliveries] != list(range(len(deliveries))):
                found.append("the positions of the events are not 0, 1, 2, …")
            tokens = log[: len(commit.tokens)]
            del log[: len(commit.tokens)]
            if tokens != list(commit.tokens):
                found.append(f"on_commit: expected {commit.tokens}, called {tokens}")
            found += _other_phases(self._recorder, deliveries)
            self._rows = commit.after if found else replay(self._rows, told)
        if log:
            found.append(f"told without a commit: {log}")
        self._outcome.problems += [f"after {where}: {problem}" for problem in found]

    def _check_warnings(self, recorder: Recorder, caught: list[warnings.WarningMessage]) -> None:
        given = [message.category for message in caught]
        uncommitted = given.count(UncommittedChangesWarning)
        if uncommitted != recorder.warnings_expected:
            self._outcome.problems.append(
                f"{uncommitted} warnings of uncommitted changes, expected {recorder.warnings_expected}"
            )
        allowed = {UncommittedChangesWarning, *([RolledBackCommitWarning] if self._may_be_lost else [])}
        self._outcome.problems += [f"a warning: {text.message}" for text in caught if text.category not in allowed]


def _other_phases(recorder: Recorder, deliveries: list[Delivery]) -> list[str]:
    """Say where what was told before the COMMIT, or after a rollback, does not fit what was told after the COMMIT."""
    problems: list[str] = []
    if deliveries:
        transaction = deliveries[0].transaction_id
        if transaction in recorder.regretted:
            problems.append(f"told as rolled back, but committed: {recorder.regretted[transaction]}")
        votes = recorder.voted.get(transaction)
        told = [(item.told.type, item.told.model, item.told.identity, item.told.changes) for item in deliveries]
        # A commit that failed and was tried again has told in two parts what is one thing after it.
        if votes is not None and len(votes) == 1 and next(iter(votes.values())) != told:
            problems.append(f"told before the COMMIT: {votes}, after it: {told}")
        if votes is None and recorder.listens_to_phases:
            problems.append(f"not told before the COMMIT: {told}")
    return problems


def _cannot_be_deleted(session: Session, instance: Base) -> bool:
    return bool(detached_with(instance, "delete")) or is_ambiguous(session, instance, is_new=False)


def _execute_past_the_session(session: Session, statement: Executable) -> None:
    session.connection().execute(statement)


def _name_of(error: SQLAlchemyError) -> str:
    """Name an error; drivers do not agree on the finer names of what the database says."""
    return "DBAPIError" if isinstance(error, DBAPIError) else type(error).__name__


def _mark_flush(session: Session, _flush_context: UOWTransaction) -> None:
    Session.connection(session).execute(_FLUSH_MARK)  # not as an event session does, which would follow what is sent


_FLUSH_MARK = trail.insert().values(op="F")


@contextmanager
def _recorded_warnings() -> Generator[list[warnings.WarningMessage]]:
    """Collect warnings, without SQLAlchemy's own about what programs do and the one that plain sessions give."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", SAWarning)
        warnings.simplefilter("ignore", PlainSessionWarning)
        yield caught
