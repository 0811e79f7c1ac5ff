"""What is said of callbacks that failed, were interrupted or were not called, and where: raised or logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..crossing.failures import Failures, is_interrupt, raise_again
from ..logs import logger
from ..records import Writes
from ..types import Phase
from .delivery import counted_log_fields, describe, listeners_of, names_of
from .queue import Queue

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..registry import Listener


GRACE_OVER = "the grace after a cancellation was over (callback_grace on the session factory sets it)"


class Reports(Queue):
    """A queue that says what becomes of its callbacks where that is not what they were written for."""

    _failures: Failures | None = None
    _stop: BaseException | None = None
    """What has interrupted the committer, to be raised once there is nothing left to do."""

    def _failed(self, listener: Listener, error: BaseException) -> Awaitable[None] | None:
        """Deal with an error as the session's policy says; return what has to be awaited for it."""
        if self._delivery is None:
            return None
        if self._failures is None:
            self._failures = Failures(self._options)
        return self._failures.take(describe(self._delivery, listener, error), self._delivery.batch.phase)

    def _handler_raised(self, error: BaseException) -> bool:
        """Take what the session's function for errors raised; return whether it ends everything."""
        if is_interrupt(error):
            self._stop = error
            self._report_rest("interrupted")
            return True
        logger.error(
            "The on_callback_error function raised for %s: let it catch its errors",
            names_of(self._current()),
            exc_info=error,
            extra=self._fields(),
        )
        return False

    def _report_unstarted(self) -> None:
        """Log what was not even begun, since no grace was left when it was due."""
        if self._listener is not None:
            self._report_rest(GRACE_OVER, begun=False)

    def report_untold(self) -> None:
        """Log by name what was not told, since an interrupt has ended the telling; nothing where all of it was."""
        self._find_due()
        if self._listener is not None or self._waiting:
            self._report_rest("interrupted")

    def _find_due(self) -> None:
        """Find out who is due where the telling was interrupted on the way to the next event."""
        if self._listener is None and self._delivery is not None:
            if isinstance(self._delivery, Writes) and self._delivery.index < 0:
                self._delivery.tell_next()
            self._listeners = listeners_of(self._delivery)
            self._index, self._listener = 0, next(iter(self._listeners), None)

    def _report_rest(self, reason: str, *, begun: bool = True) -> None:
        """Log by name what was interrupted, where it was begun, and what is not called any more, and forget it."""
        due, fields = [*self._current()], self._fields()
        ended = "Rolled back" if self._batch is not None and self._batch.phase is Phase.AFTER_ROLLBACK else "Committed"
        interrupted = names_of(due if begun else ())
        rest = self._take_rest(reason)
        if not begun:
            rest = [*due, *rest]
        fields["not_called"] = counted_log_fields(rest)
        message = "%s, but %s: interrupted %s; not called: %s"
        logger.error(message, ended, reason, interrupted, names_of(rest), extra=fields)

    def could_not_cross(self, error: Exception) -> None:
        """Log that async callbacks cannot run, and forget them."""
        self._find_due()
        logger.error(
            "Async callbacks could not run, since no event loop could be reached",
            exc_info=error,
            extra=self._fields(),
        )
        self._report_rest("no event loop could be reached", begun=False)

    def log_kept(self) -> None:
        """Log the failures that were kept to be raised, since something else is raised."""
        if self._failures is not None:
            self._failures.log_kept()

    def _report(self, *, raises: bool) -> None:
        """Say what went wrong, once nothing is left to tell: raise it where ``raises``, or log it."""
        failures = self._failures or Failures(self._options)
        if self._stop is not None:
            failures.log_kept()
            stop, self._stop = [self._stop], None
            raise_again(stop)
        left_out = names_of(self.left_out) if self.left_out else ""
        failures.end(left_out, counted_log_fields(self.left_out), raises=raises)
