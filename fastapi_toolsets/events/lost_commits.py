"""What a session warns of whose commit has committed nothing, or not everything."""

from __future__ import annotations

from ..errors import JoinedTransactionWarning, RolledBackCommitWarning
from .warn import warn


def warn_lost() -> None:
    """Warn that the server has rolled back a transaction which is about to be committed."""
    warn(
        "an error inside this transaction has made the server roll it back, although nobody called rollback(): its "
        "COMMIT commits nothing, and no event is delivered. Call session.rollback() after an error, or run the "
        "statement inside session.begin_nested()",
        RolledBackCommitWarning,
    )


def warn_rolled_back() -> None:
    """Warn that the server has rolled back what was written so far, and goes on with another transaction."""
    warn(
        "an error inside this transaction has made the server roll back what was written before it, although "
        "nobody called rollback(): no event of that is delivered, and what comes after it is another "
        "transaction. Call session.rollback() after such an error, and begin again",
        RolledBackCommitWarning,
    )


def warn_joined() -> None:
    """Warn that the transaction is somebody else's, who has not committed it yet."""
    warn(
        "this session is bound to a connection on which somebody else began the transaction, so its commit() "
        "has committed nothing yet and delivers no event. Bind it to the engine, so that it commits by itself; "
        "a test suite that rolls back everything at the end wants dispatch_on_joined_commit=True on the "
        "session factory",
        JoinedTransactionWarning,
    )
