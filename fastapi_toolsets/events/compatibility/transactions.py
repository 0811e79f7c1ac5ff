"""The transactions of sessions and connections: their state, and doors that SQLAlchemy closes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from sqlalchemy.orm import SessionTransaction
from sqlalchemy.orm.session import SessionTransactionState

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from sqlalchemy.engine import Connection, Engine, Transaction
    from sqlalchemy.orm import Session


def connections_of(
    transaction: SessionTransaction,
) -> Mapping[Engine | Connection, tuple[Connection, Transaction, bool, bool]]:
    """Return the connections that a root transaction has acquired, each perhaps twice.

    ``SessionTransaction._connections`` holds ``(connection, transaction, should_commit, autoclose)`` by connection and
    by engine. The last is true where the session has taken the connection from an engine by itself. SQLAlchemy 2.1.7
    brought the public ``connections``, which gives the connections only.
    """
    return transaction._connections  # noqa: SLF001


def method_under_way(transaction: SessionTransaction) -> object:
    """Return which of its methods a transaction is in, if any, as SQLAlchemy notes it (``_StateChange._current_fn``).

    Without it a flush that a commit makes could not be told from any other, nor the rollback of a session's savepoint
    from that of somebody else's.
    """
    return transaction._current_fn  # noqa: SLF001


PREPARES: object = cast("Any", SessionTransaction)._prepare_impl.__wrapped__  # noqa: SLF001
"""The method in which a commit releases the savepoints that are open and flushes, before it commits."""


def owns_connection(transaction: SessionTransaction, connection: Connection) -> bool:
    """Whether a root transaction took a connection from an engine by itself (:func:`connections_of`)."""
    entry = connections_of(transaction).get(connection)
    return entry is not None and entry[3]


def begun_transactions(transaction: SessionTransaction) -> set[Transaction]:
    """Return the database transactions that a root transaction began (:func:`connections_of`), also ended."""
    return {entry[1] for entry in connections_of(transaction).values()}


def may_stay(transaction: SessionTransaction) -> bool:
    """Whether what a root transaction wrote may stay although it has not committed (:func:`connections_of`).

    So it is where each statement commits by itself, and where it has joined somebody's transaction and was only closed.
    """
    return any(
        (not should_commit and joined.is_active) or is_autocommit(connection)
        for connection, joined, should_commit, _ in connections_of(transaction).values()
    )


@contextlib.contextmanager
def usable_in_begin_block(session: Session) -> Generator[None]:
    """Let the session work although the ``begin()`` block that has just committed, or is about to, is not left yet.

    ``Session._trans_context_manager`` names the block that refuses further work. If it were renamed, callbacks could
    not use the session after a ``begin()`` block.
    """
    block = session._trans_context_manager  # noqa: SLF001
    session._trans_context_manager = None  # noqa: SLF001
    try:
        yield
    finally:
        session._trans_context_manager = block  # noqa: SLF001


def begin_block(session: Session) -> object:
    """Return the ``begin()`` block that session work is refused for, if any; see :func:`usable_in_begin_block`."""
    return session._trans_context_manager  # noqa: SLF001


def leave_begin_block(session: Session) -> None:
    """Let a session go on of whose ``begin()`` block nobody has found the end; see :func:`usable_in_begin_block`."""
    session._trans_context_manager = None  # noqa: SLF001


def was_to_commit(transaction: SessionTransaction) -> bool:
    """Whether a transaction is past all that comes before its COMMIT, so that one may have been sent.

    ``SessionTransaction._state``. An interrupt around the COMMIT leaves it so. Without it such a transaction would be
    taken for one that never got that far.
    """
    return transaction._state is SessionTransactionState.PREPARED  # noqa: SLF001


def has_committed(transaction: SessionTransaction) -> bool:
    """Whether the COMMIT of a transaction has succeeded on every connection, while it is not closed yet (the same)."""
    return transaction._state is SessionTransactionState.COMMITTED  # noqa: SLF001


def roll_back_in_commit(root: SessionTransaction) -> None:
    """Roll a root transaction back from within its own ``commit()`` or ``prepare()``, before anything was committed.

    ``SessionTransaction._expect_state`` lets a method that is under way call one that ends the transaction; SQLAlchemy
    does the same when the second of two phases fails. Without it ``rollback()`` refuses to run there.
    """
    with root._expect_state(SessionTransactionState.CLOSED):  # noqa: SLF001
        root.rollback()


class ExpiringTransaction(SessionTransaction):
    """What the transaction of a session with ``expire_on_commit`` becomes once it has committed (``_remove_snapshot``).

    To set ``expire_on_commit`` to false until callbacks have run would do it, too, for all ``after_commit`` listeners
    to see. Would it no longer be called, objects were expired before callbacks read them.
    """

    put_off: ClassVar[Callable[[Session, SessionTransaction], bool]]
    """Called when it is about to expire what it has committed; returns whether that is done later."""

    def _remove_snapshot(self) -> None:
        """Expire as any transaction does, unless callbacks are to read it first."""
        if not ExpiringTransaction.put_off(self.session, self):
            SessionTransaction._remove_snapshot(self)  # noqa: SLF001


class ClosingTransaction(ExpiringTransaction):
    """What the transaction of an event session becomes in the end, to notice an interrupted ``close()``.

    After COMMIT or ROLLBACK a ``SessionTransaction`` calls its own ``close()``, which gives the connection back. A
    driver that awaits there can be cancelled, and then no session event tells that the transaction has ended. Would it
    no longer go through ``close``, committed events were reported as lost, and those of rollbacks not told. Nor does an
    event come before a ROLLBACK, when it can still be seen whether a COMMIT was sent.

    A class of its own and no function put into the object: that would make every later look at its attributes slow.
    """

    settle: ClassVar[Callable[[Session, BaseException], None]]
    """Called when closing was interrupted, after what was begun has been tidied up."""

    give_up: ClassVar[Callable[[Session], None]]
    """Called before it is rolled back or closed, as by a ``begin()`` block whose commit was refused or interrupted."""

    def rollback(self, _capture_exception: bool = False, _to_root: bool = False) -> None:  # noqa: FBT001, FBT002 - as below
        """Roll back as any transaction does, taking note of it."""
        ClosingTransaction.give_up(self.session)
        SessionTransaction.rollback(self, _capture_exception, _to_root)

    def close(self, invalidate: bool = False) -> None:  # noqa: FBT001, FBT002 - SQLAlchemy's own signature
        """Close as any transaction does, and settle what an interruption leaves."""
        ClosingTransaction.give_up(self.session)
        try:
            SessionTransaction.close(self, invalidate)
        except BaseException as interruption:
            ClosingTransaction.settle(self.session, interruption)
            raise


def is_autocommit(connection: Connection) -> bool:
    """Whether every statement commits by itself (``Connection._is_autocommit_isolation``; no public way to ask)."""
    return connection._is_autocommit_isolation()  # noqa: SLF001
