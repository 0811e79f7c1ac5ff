"""What is known of one transaction, from its beginning until its callbacks are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import SessionTransaction

    from .records import Batch


class Transaction:
    """What is known of one root transaction. Its values are the class's until they are known better.

    Attributes:
        released: The savepoint that was released and has not ended yet.
        announced: The savepoint whose release was announced last.
        outer_commit: Whether that was done by the commit of an enclosing transaction.
        committing: Whether the transaction's own commit is under way.
        connections: Those that it commits on.
        prepared: Whether all that callbacks will read is there.
        lost: Whether the server has rolled it back although nobody asked it to.
        committed: Whether COMMIT has succeeded.
        expires: Whether objects are to be expired once all callbacks have run.
        told: The batch of its ``BEFORE_COMMIT`` callbacks.
        telling: Whether they are being called.
        wrote: Whether anything was written, listened to or not.
        wrote_past_flush: Whether any of it was written by something else than a flush.
        follows: Whether there is anything to do when a flush is over.
    """

    released: SessionTransaction | None = None
    announced: SessionTransaction | None = None
    outer_commit = False
    committing = False
    connections: AbstractSet[Connection] = frozenset()
    prepared = False
    lost = False
    committed = False
    expires = False
    told: Batch | None = None
    telling = False
    wrote = False
    wrote_past_flush = False
    follows = False
