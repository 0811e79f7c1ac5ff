"""What one session knows about its current transaction, and what happens to it when that transaction ends."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any

from sqlalchemy import TextClause

from ..errors import JoinedTransactionWarning, RolledBackCommitWarning, UncommittedChangesWarning
from . import compatibility, observation, outcome
from .capture import Capture
from .completion import complete
from .delivery import counted_log_fields, deliveries, listeners_of, names_of
from .dispatch import Dispatch
from .journal import Batch, Journal
from .observing import ObservingDispatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import InstanceState, ORMExecuteState, Session, SessionTransaction
    from sqlalchemy.orm.unitofwork import UOWTransaction

    from .types import SessionOptions

logger: logging.Logger = logging.getLogger("fastapi_toolsets.events")


class Tracker:
    """Follows one session through its transactions. Every method runs where the session's own work runs.

    A root transaction that ends after its COMMIT succeeded hands its frame to a dispatch; one that ends in any other
    way forgets it.

    Attributes:
        options: What the session factory was told.
        wrote: Whether anything was written in the current transaction, listened to or not.
    """

    def __init__(self, options: SessionOptions) -> None:
        """Follow a session, which hands itself over each time: kept here it would live until a garbage collection."""
        self.options = options
        self._journal = Journal()
        self._capture = Capture(self._journal)
        self._dispatch: Dispatch | None = None
        self._warned_joined = False
        self._begin_again()

    def _begin_again(self) -> None:
        """Forget the transaction that has ended; its frames are the journal's to forget."""
        self._released: SessionTransaction | None = None
        self._announced: SessionTransaction | None = None
        self._outer_commit = False
        self._committing = False
        self._committed = False
        self._prepared = False
        self._connections: set[Connection] | None = None
        self._lost = False
        self._expires = False
        self.wrote: bool = False
        self._wrote_past_flush = False

    def on_commit(self, session: Session, callback: Callable[..., object], arguments: tuple[object, ...]) -> None:
        """Call ``callback`` after the events of the transaction's commit, unless its savepoint is rolled back."""
        if not session.in_transaction():
            if self._dispatch is not None:
                self._dispatch.add_hook(callback, arguments)
                return
            session.begin()  # as adding an object would: what ends it ends the callback's hope, too
        self._journal.frame(session.get_nested_transaction()).on_commit.append((callback, arguments))

    # What the session's events call.

    def before_flush(self, session: Session) -> None:
        """Keep old values."""
        self._capture.before_flush(session)

    def after_flush(self, flush_context: UOWTransaction) -> None:
        """Read what was written."""
        self._capture.after_flush(flush_context)

    def after_flush_postexec(self, session: Session) -> None:
        """Write it into the journal."""
        self._capture.after_finalized(session, session.get_nested_transaction())
        self.wrote = True
        if self._committing:
            self._prepare(session)

    def do_orm_execute(self, execution: ORMExecuteState) -> None:
        """Note a statement that may write rows past the unit of work."""
        if not execution.is_select and _may_write(execution.statement):
            self.wrote = self._wrote_past_flush = True

    def before_commit(self, session: Session) -> None:
        """Complete, inside the transaction, what callbacks will read after it."""
        nested = session.get_nested_transaction()
        if nested is not None:
            # This fires for a savepoint's release too, and names no transaction. Twice for the same savepoint: the
            # first time it was for an enclosing transaction, whose commit() releases what is open before its own.
            self._outer_commit = self._outer_commit or self._announced is nested
            self._announced = nested
            return
        self._outer_commit = False
        self._committing = True
        if compatibility.is_clean(session):
            self._prepare(session)
        # Otherwise SQLAlchemy flushes next, after the other before_commit listeners: they find what is pending, as on a
        # plain session, and the flush prepares.

    def after_commit(self, session: Session) -> None:
        """Take note that a savepoint was released, or the root transaction really committed."""
        journal = self._journal
        if not (journal.root.rows or journal):
            return
        nested = session.get_nested_transaction()
        if nested is not None:
            self._released = nested
            return
        root = session.get_transaction()
        if root is None or self._lost or not self._counts(root):
            self._journal.clear()
            return
        self._committed = True
        if session.expire_on_commit:
            # What callbacks may read stays loaded until they have run; SQLAlchemy would expire it right now.
            session.expire_on_commit = False
            self._expires = True
        compatibility.after_close(root, lambda: self.after_transaction_end(session, root))

    def before_use(self) -> None:
        """Keep what is being told and what waits: a callback begins to use the session, and may roll back or expire."""
        if self._dispatch is not None:
            self._dispatch.take_snapshots()

    def after_transaction_end(self, session: Session, transaction: SessionTransaction) -> None:
        """Release or drop a savepoint's part; after the root transaction tell what it committed, or forget it."""
        if transaction.nested:
            self._end_savepoint(session, transaction)
        elif transaction.parent is None:
            if self._committed:
                self._deliver(session, transaction)
            else:
                if self._prepared and self._journal and not self._lost:
                    self._report_unfinished()
                self._journal.clear()
                self._capture.clear()
                self._begin_again()

    # How transactions end.

    def _end_savepoint(self, session: Session, savepoint: SessionTransaction) -> None:
        if self._released is not savepoint:
            self._journal.drop(savepoint)
            return
        self._released = None
        parent = session.get_nested_transaction()
        self._journal.release(savepoint, parent)
        if self._announced is not savepoint:
            self._outer_commit = False  # it was this savepoint's own commit() that released another one first
        elif parent is None and self._outer_commit:
            self._committing = True
            self._prepare(session)

    def _prepare(self, session: Session) -> None:
        """Complete what callbacks will read, now that everything is flushed and the transaction still open."""
        root = session.get_transaction()
        if not self._journal or root is None:
            return
        self._connections = compatibility.transaction_connections(root)
        self._lost = outcome.is_lost(self._connections)
        if self._lost:
            warnings.warn(
                "an error inside this transaction has made the server roll it back, although nobody called "
                "rollback(): its COMMIT commits nothing, and no event is delivered. Call session.rollback() after an "
                "error, or run the statement inside session.begin_nested()",
                RolledBackCommitWarning,
                stacklevel=2,
            )
        else:
            complete(session, self._journal, reload=self._wrote_past_flush)
            self._prepared = True

    def _counts(self, root: SessionTransaction) -> bool:
        """Whether the session's commit was the real one."""
        if self.options.dispatch_on_joined_commit:
            return True
        connections = self._connections or compatibility.transaction_connections(root)
        if not any(connection.in_transaction() for connection in connections):
            return True
        if not self._warned_joined:
            self._warned_joined = True
            warnings.warn(
                "this session is bound to a connection on which somebody else began the transaction, so its commit() "
                "has committed nothing yet and delivers no event. A test suite that rolls back everything at the end "
                "wants dispatch_on_joined_commit=True on the session factory",
                JoinedTransactionWarning,
                stacklevel=2,
            )
        return False

    def _report_unfinished(self) -> None:
        found = deliveries(Batch(0), self._journal.take())
        items = [(item, listener) for item in found for listener in listeners_of(item)]
        message = "COMMIT did not succeed, or its outcome is unknown; not called: %s"
        logger.warning(message, names_of(items), extra={"not_called": counted_log_fields(items)})

    def _deliver(self, session: Session, root: SessionTransaction) -> None:
        frame, expires = self._journal.take(), self._expires
        self._begin_again()
        states: set[InstanceState[Any]] = set()
        if expires:
            session.expire_on_commit = True
            states = compatibility.expirable_states(session, root)
        dispatch = self._dispatch
        if dispatch is not None:
            # A callback has committed: its events come after those that wait.
            dispatch.states |= states
            batch = dispatch.new_batch()
            dispatch.add(batch, deliveries(batch, frame))
            return
        host, observers = _Host(self, session), observation.current
        if observers is None:
            dispatch = Dispatch(self.options, host, states)
        else:
            dispatch = ObservingDispatch(self.options, host, states, observers)
        self._dispatch = dispatch
        try:
            batch = dispatch.new_batch()
            dispatch.add(batch, deliveries(batch, frame))
            with compatibility.usable_in_begin_block(session):
                dispatch.run()
        finally:
            self._dispatch = None
            compatibility.expire(session, dispatch.states)


class _Host:
    """What a dispatch asks of the session that committed."""

    def __init__(self, tracker: Tracker, session: Session) -> None:
        self.in_transaction = session.in_transaction
        self._tracker = tracker
        self._session = session

    def caller(self) -> object:
        """Return the ``AsyncSession`` whose session this is, or the session itself."""
        module = sys.modules.get("sqlalchemy.ext.asyncio")
        proxy: object | None = None if module is None else module.async_session(self._session)
        return self._session if proxy is None else proxy

    def tidy(self, callback: str) -> None:
        """End the transaction that a callback left behind, and warn if that discards changes."""
        session = self._session
        if self._tracker.wrote or session.new or session.dirty or session.deleted:
            session.rollback()
            warnings.warn(
                f"{callback} returned with changes in its session that it did not commit: they were rolled back. "
                "Commit them in the callback, or make them in the transaction that the callback follows",
                UncommittedChangesWarning,
                stacklevel=2,
            )
            return
        # Closing, unlike a rollback, leaves what is loaded as it is.
        while (transaction := session.get_nested_transaction() or session.get_transaction()) is not None:
            transaction.close()


def _may_write(statement: object) -> bool:
    if isinstance(statement, TextClause):
        return not statement.text.lstrip(" \n\t(").lower().startswith(("select", "show", "explain", "pragma", "values"))
    return True
