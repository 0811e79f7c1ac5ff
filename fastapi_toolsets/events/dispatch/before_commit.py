"""Calls ``BEFORE_COMMIT`` callbacks inside the transaction: the first that raises ends it."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ...errors import CascadeLimitError, CommitAbortedError
from .. import compatibility
from ..capture.completion import is_expired, load_expired
from ..capture.snapshots import restore, take_snapshot
from ..crossing.crossing import find_crossing, run_to_end
from ..muting import is_muted, muted_callbacks
from ..records import EVENT_TYPES, Kind, Record
from ..registry import Listener
from .delivery import generation, listeners_of, make_changes, make_event, names_of
from .host import caller_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

    from ..crossing.outliving import AsyncFunction
    from ..types import SessionOptions
    from .delivery import Delivery


_depth: ContextVar[int] = ContextVar("fastapi_toolsets_depth_of_rounds", default=0)
"""In how many rounds, of other sessions, this one stands. What callbacks of other phases commit, the queue counts."""


class Round:
    """The callbacks for what has come up since the last round. Runs on the thread or greenlet of whoever commits."""

    def __init__(self, session: Session, found: Iterable[Delivery], options: SessionOptions) -> None:
        """Prepare to call everybody who listens.

        Args:
            session: The session that commits.
            found: What to tell.
            options: The session's.
        """
        self._session = session
        self._records = [record for record in found if isinstance(record, Record)]
        self._calls: deque[tuple[Record, Listener]] = deque(
            (record, listener) for record in self._records for listener in listeners_of(record)
        )
        self._options = options
        self._generation = generation.get()
        self._depth = _depth.get()
        self._told: Record | None = None

    def run(self, *, is_last: bool) -> None:
        """Call the callbacks in order, sync ones directly, async ones where they can run.

        Args:
            is_last: Whether there have been too many rounds already.

        Raises:
            BaseException: Whatever the first callback that fails raises.
            CascadeLimitError: What callbacks write has called callbacks again and again, in this transaction or in
                those of other sessions.
            CommitAbortedError: The task that waits for this thread was cancelled, and the callback did not end in time.
        """
        if is_last or self._depth > self._options.cascade_limit:
            msg = (
                f"BEFORE_COMMIT callbacks have written {self._options.cascade_limit} times in a row what called "
                "callbacks again, so the commit was aborted and everything rolled back; not called any more: "
                f"{names_of(self._calls)}. Let a callback write only what ends the chain, or raise cascade_limit on "
                "the session factory"
            )
            raise CascadeLimitError(msg)
        # The first callback may assign to what the second hears of. What is kept of deleted rows is kept to the end.
        kept = [record for record in self._records if record.kind is not Kind.DELETED]
        for record in kept:
            if record.plan.wants_event:
                take_snapshot(record)
        try:
            self._enter()
            while self._calls:
                if is_expired(self._calls[0][0]):  # by what a callback before has written
                    load_expired(self._session, [record for record, _ in self._calls])
                if self._calls[0][1].is_async:
                    self._wait(self._run_async)
                else:
                    self._run_sync()
        finally:
            try:
                generation.set(self._generation)
            finally:  # Ctrl-C may come between the two
                _depth.set(self._depth)
            for record in kept:
                record.snapshot = None

    def _enter(self) -> None:
        """Let what callbacks commit, on other sessions, know where it stands."""
        generation.set(self._generation + 1)
        _depth.set(self._depth + 1)

    def _run_sync(self) -> None:
        result = self._call(*self._calls.popleft())
        if inspect.isawaitable(result):
            self._wait_for(result)

    def _wait_for(self, awaitable: Awaitable[object]) -> None:
        async def wait() -> None:
            await awaitable

        self._wait(wait)

    async def _run_async(self) -> None:
        """Await async callbacks until a sync one is due, or something has to be loaded."""
        self._enter()  # a loop's task has a context of its own
        while True:
            result = self._call(*self._calls.popleft())
            if inspect.isawaitable(result):
                await result
            if not self._calls or not self._calls[0][1].is_async or is_expired(self._calls[0][0]):
                return

    def _call(self, record: Record, listener: Listener) -> object:
        if is_muted(listener, muted_callbacks()):
            return None
        if record is not self._told:
            self._told = record
            record.batch.position += 1
        if record.kind is Kind.DELETED:
            restore(record)
        changes = make_changes(record) if record.kind is Kind.UPDATED else None
        keywords: dict[str, object] = {}
        if listener.wants_session:
            keywords["session"] = caller_of(self._session)
        if listener.wants_event:
            keywords["event"] = make_event(record)
        return listener.callback(record.obj, EVENT_TYPES[record.kind], changes, **keywords)

    def _wait(self, function: AsyncFunction) -> None:
        """Run an async function to its end, and raise what it raised."""
        crossing = find_crossing(self._options.callback_backend)
        if crossing.in_bridge:  # in the committer's own task: cancelling it ends the commit, which nothing has decided
            compatibility.await_in_greenlet(function())
            return
        if not run_to_end(crossing, function, self._options.callback_grace):
            msg = (
                "the task that waits for this thread was cancelled while a BEFORE_COMMIT callback ran, so the commit "
                "was aborted and everything rolled back. Begin again, or give the callback more time"
            )
            raise CommitAbortedError(msg)


def check_active(session: Session) -> None:
    """Give the commit up where callbacks have left nothing to commit.

    Raises:
        CommitAbortedError: One has caught the error of a flush, which had rolled everything back.
    """
    if not session.is_active:
        msg = (
            "a BEFORE_COMMIT callback has caught an error that had rolled the transaction back, so there is nothing "
            "left to commit: let the callback raise it, or flush inside session.begin_nested()"
        )
        raise CommitAbortedError(msg)
