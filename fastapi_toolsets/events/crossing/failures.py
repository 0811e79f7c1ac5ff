"""What callbacks raised: logged, handed to the session's function, or kept to be raised together."""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, NoReturn, cast

from ...errors import CascadeLimitError
from ..logs import logger
from ..types import Phase

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..types import CallbackFailure, ModelEvent, SessionOptions


class Failures:
    """What the callbacks of one dispatch raised, dealt with as the session's policy says."""

    __slots__ = ("_kept", "_options")

    def __init__(self, options: SessionOptions) -> None:
        """Follow the policy in ``options``."""
        self._options = options
        self._kept: list[tuple[CallbackFailure, Phase]] = []

    def take(self, failure: CallbackFailure, phase: Phase) -> Awaitable[None] | None:
        """Deal with one; return what has to be awaited for it."""
        policy = self._options.on_callback_error
        if policy == "raise":
            self._kept.append((failure, phase))
        elif policy == "log":
            _log(failure, phase)
        else:
            handled = policy(failure)
            return handled if isawaitable(handled) else None
        return None

    def log_kept(self) -> None:
        """Log what was kept to be raised, since something else is raised instead, or nobody can be told."""
        for failure, phase in self._kept:
            _log(failure, phase)
        self._kept.clear()  # see raise_again

    def end(self, left_out: str, fields: list[dict[str, object]], *, raises: bool) -> None:
        """Raise or log what there is to say in the end.

        Args:
            left_out: The names of what was not told, since callbacks kept committing; empty where all was told.
            fields: The same, as a field of the log record.
            raises: Whether the caller can be told by an exception.

        Raises:
            CascadeLimitError: Something was left out, and nothing else has failed.
            BaseExceptionGroup: Failures were kept.
        """
        limit = None
        if left_out:
            limit = CascadeLimitError(
                f"callbacks have committed {self._options.cascade_limit} times in a row, each time calling callbacks "
                f"again; not called any more: {left_out}. Let a callback commit only what ends the "
                "chain, or raise cascade_limit on the session factory"
            )
            logger.error("%s", limit, extra={"not_called": fields})
        if not raises:
            self.log_kept()
        elif self._kept:
            names = ", ".join(str(failure) for failure, _ in self._kept)
            errors = [failure.error for failure, _ in self._kept]
            self._kept.clear()  # see raise_again
            message = f"the commit stands and is not to be repeated, but callbacks raised: {names}"
            raise BaseExceptionGroup(message, errors if limit is None else [*errors, limit])
        elif limit is not None:
            raise limit


def raise_again(kept: list[BaseException]) -> NoReturn:
    """Raise the only error that was kept, as it was raised, and keep it no longer.

    Its traceback leads to whoever keeps it. Kept on, both would live until the garbage collector runs, and with them
    the session and its objects.
    """
    error = kept.pop()
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context  # not what the caller may be handling
        del error, context


def is_interrupt(error: BaseException) -> bool:
    """Whether this ends the program, as Ctrl-C and ``sys.exit()`` do; a task group wraps them with what else it has."""
    interrupts = (KeyboardInterrupt, SystemExit)
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).subgroup(interrupts) is not None
    return isinstance(error, interrupts)


def _log(failure: CallbackFailure, phase: Phase) -> None:
    ended = "rollback" if phase is Phase.AFTER_ROLLBACK else "commit"
    message = "%s raised; the %s stands and the other callbacks run"
    fields = log_fields(failure.callback, failure.model, failure.event_type)
    logger.error(message, failure, ended, exc_info=failure.error, extra=fields)


def log_fields(callback: str, model: str | None, event_type: ModelEvent | None) -> dict[str, object]:
    """Return what a log record says of a callback in fields of its own: names, no field values."""
    return {"callback": callback, "model": model, "event_type": None if event_type is None else event_type.value}
