"""The library's log, which no error in the application's own logging comes out of: nothing that runs is lost by it."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOGGER = logging.getLogger("fastapi_toolsets.events")
_CALLER = 3
"""How many frames up the place is that logs, for the record."""


class GuardedLog:
    """Logs as the logger does. A filter, a handler or a record factory that raises is dealt with as logging does."""

    def error(
        self,
        message: str,
        *args: object,
        exc_info: BaseException | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Log an error."""
        _log(logging.ERROR, message, args, exc_info, extra)

    def warning(
        self,
        message: str,
        *args: object,
        exc_info: BaseException | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Log a warning."""
        _log(logging.WARNING, message, args, exc_info, extra)


def _log(
    level: int,
    message: str,
    args: tuple[object, ...],
    error: BaseException | None,
    extra: Mapping[str, object] | None,
) -> None:
    try:
        _LOGGER.log(level, message, *args, exc_info=error, extra=extra, stacklevel=_CALLER)
    except Exception:  # noqa: BLE001 - whatever the application's logging raises, the other callbacks run
        _write_to_stderr(level, message % args, error)


def _write_to_stderr(level: int, message: str, error: BaseException | None) -> None:
    """Write what could not be logged, as for want of a handler, and the error that is being handled, as handlers do."""
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord(_LOGGER.name, level, __file__, 0, message, (), exc_info)
    if logging.lastResort is not None:
        logging.lastResort.handle(record)
    if logging.raiseExceptions and sys.stderr is not None:
        logging.Handler().handleError(record)


logger: GuardedLog = GuardedLog()
