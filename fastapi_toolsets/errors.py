"""Every error and warning the library raises, under one root each."""

from __future__ import annotations


class ToolsetsError(Exception):
    """Root of every error that this library raises of its own accord."""


class ListenerError(ToolsetsError, TypeError):
    """A listener was registered with a target, an event type or a callback that cannot work."""


class WatchedFieldsError(ToolsetsError, TypeError):
    """``__watched_fields__`` is not a tuple of names of the model's mapped attributes."""


class SessionClassError(ToolsetsError, TypeError):
    """What was given as a session, a factory or an engine is none, or it is async beside something sync."""


class SessionOptionError(ToolsetsError, ValueError):
    """An option of the session factory has a value that it cannot have."""


class BulkEventsError(ToolsetsError, TypeError):
    """``__bulk_events__``, or the execution option ``events``, is neither ``True`` nor ``False``."""


class BulkWriteError(ToolsetsError, RuntimeError):
    """A bulk statement was refused: nobody would hear of it, or what it does cannot be told as it is."""


class ObserverError(ToolsetsError, ValueError):
    """A dispatch observer was added twice, removed while it does not observe, or given what it cannot report to."""


class ExpectedChangeError(ToolsetsError, TypeError):
    """A test expects a change that is no pair of an old and a new value."""


class CascadeLimitError(ToolsetsError, RuntimeError):
    """Callbacks kept committing changes that called callbacks again, beyond the session's bound."""


class CommitAbortedError(ToolsetsError, RuntimeError):
    """The commit was given up: a ``BEFORE_COMMIT`` callback was cut short or hid an error, or nobody knows all rows."""


class ToolsetsWarning(UserWarning):
    """Root of every warning that this library gives."""


class PlainSessionWarning(ToolsetsWarning):
    """A model with listeners was flushed by a session that delivers no events."""


class BulkWriteWarning(ToolsetsWarning):
    """A bulk statement wrote a model with listeners, and none of them was told."""


class JoinedTransactionWarning(ToolsetsWarning):
    """A session committed inside somebody else's transaction, so nothing was delivered."""


class UncommittedChangesWarning(ToolsetsWarning):
    """A callback returned with changes in its session that it did not commit."""


class RolledBackCommitWarning(ToolsetsWarning):
    """The server answered COMMIT with ROLLBACK, so nothing was committed or delivered."""
