"""What is known of one transaction, from its beginning until its callbacks are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import InstanceState, Session, SessionTransaction

    from .records import Batch


class Lent(Protocol):
    """The connections that were handed out in a transaction; see ``lent_connections``."""

    def lend(self, root: SessionTransaction, connection: Connection) -> None:
        """Follow one of the transaction from now on."""
        ...

    def take_back(self) -> None:
        """Follow none of them any more."""
        ...


class CurrentTransaction:
    """What is known of the root transaction that is under way; SQLAlchemy's own is a ``SessionTransaction``.

    Attributes:
        released: The savepoint that was released and has not ended yet.
        committing: Whether its own commit has begun, and the library's ``before_commit`` listener was told of it.
        prepared: The transaction itself, once all that callbacks will read is there.
        joined: Whether its COMMIT was none, since it has joined somebody's transaction.
        awaits: Whether its driver is an async one, so that whoever commits stands inside the greenlet bridge.
        borrows: Whether any connection is not the session's own, so that it may have joined somebody's transaction.
        lost: Whether the server has rolled it back although nobody asked it to.
        committed: The transaction itself, once its COMMIT has succeeded.
        expiring: The states of the objects to expire once all callbacks have run.
        told: The batch of its ``BEFORE_COMMIT`` callbacks.
        telling: Whether they are being called.
        wrote: Whether anything was written, listened to or not.
        follows: Whether anything was done in it that somebody may have to be told of: until then its flushes, its
            commit and its end are passed by.
        lent: The connections that were handed out, once any was.
    """

    __slots__ = (
        "awaits", "borrows", "committed", "committing", "expiring", "follows", "joined", "lent", "lost", "prepared",
        "released", "telling", "told", "wrote",
    )  # fmt: skip

    def __init__(self) -> None:
        """Know nothing yet."""
        self.lent: Lent | None = None
        self.begin_again()

    def begin_again(self) -> None:
        """Forget the transaction: the next one is another. To make an object for each takes three times as long."""
        if self.lent is not None:
            self.lent.take_back()
            self.lent = None
        self.released: SessionTransaction | None = None
        self.prepared: SessionTransaction | None = None
        self.told: Batch | None = None
        self.committing: bool = False
        self.lost: bool = False
        self.joined: bool = False
        self.awaits: bool = True  # until somebody has looked, as below
        self.borrows: bool = True
        self.expiring: list[InstanceState[Any]] = []
        self.telling: bool = False
        self.wrote: bool = False
        self.follows: bool = False
        self.committed: SessionTransaction | None = None  # last: until then it has not begun again


def open_savepoint(session: Session) -> SessionTransaction | None:
    """Return the innermost open savepoint of the session's transaction, if there is one.

    Where a root transaction was ended by its own ``close()``, SQLAlchemy goes on to take a savepoint that was open in
    it for the current one: ``SessionTransaction.close`` leaves those inside it as they are. Each commit asks thrice; so
    it asks first whether there is any savepoint at all, ``session.get_nested_transaction() and open_savepoint(...)``.
    """
    savepoint = session.get_nested_transaction()
    if savepoint is None:
        return None
    root = savepoint
    while root.parent is not None:
        root = root.parent
    return savepoint if root is session.get_transaction() else None
