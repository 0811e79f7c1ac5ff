"""Who watches dispatches: metrics, traces and the like, told of each callback before and after it ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias, TypeVar

from ..errors import ObserverError
from .logs import logger
from .process_lock import ProcessLock
from .types import ModelEvent, Phase

ObservedT = TypeVar("ObservedT")


class CallbackOutcome(StrEnum):
    """How a callback, or a whole dispatch, came to its end.

    ``SUCCESS`` is one that returned, ``ERROR`` one that raised, ``CANCELLED`` one that was cut short because its time
    was over after the committer had been cancelled.
    """

    SUCCESS = "success"
    ERROR = "error"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedDispatch:
    """What one transaction has to tell in one phase, as the first callback is due.

    Attributes:
        phase: The phase.
        deliveries: How many events and ``session.on_commit`` callbacks wait; those that callbacks add are not counted.
    """

    phase: Phase
    deliveries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedCallback:
    """One call of one callback. It names what is called and what for, and holds no field value.

    Attributes:
        callback: The callback's qualified name, module included.
        model: The name of the event's model; ``None`` for a ``session.on_commit`` callback.
        event_type: What had happened to the row; ``None`` for a ``session.on_commit`` callback.
        phase: When it is called, in the life of the transaction.
        is_async: Whether the callback is awaited.
    """

    callback: str
    model: str | None
    event_type: ModelEvent | None
    phase: Phase
    is_async: bool


Ending: TypeAlias = Callable[[CallbackOutcome, BaseException | None], object]
"""What an observer wants called when what it was told of is over: with how it ended, and what it raised, if it did."""


class DispatchObserver(Protocol):
    """Watches the callbacks of every event session of the process.

    Its methods are called where the callback runs: on that thread, and for an async callback in the task that awaits
    it, before and after the call. So a context variable that one sets is what the callback sees. They must not wait.
    What they raise is logged, and changes nothing for the callback.
    """

    def begin_dispatch(self, dispatch: ObservedDispatch) -> Ending:
        """Take note that a commit or a rollback has events to tell, where it was called.

        Args:
            dispatch: What there is to tell.

        Returns:
            What to call once all callbacks have run; after a commit or a rollback those of transactions that callbacks
            ended on that session included.
        """
        ...

    def begin_callback(self, call: ObservedCallback) -> Ending:
        """Take note that a callback is about to be called.

        Args:
            call: What is called, and what for.

        Returns:
            What to call when the callback has returned, or its awaitable is done.
        """
        ...

    def callbacks_not_called(self, calls: Sequence[ObservedCallback], reason: str) -> None:
        """Take note that callbacks are not called, now or later, although the transaction has ended as they hear of.

        Args:
            calls: Which; one that was interrupted is not among them.
            reason: Why, in a few words for people.
        """
        ...


class Observers:
    """The observers of a dispatch, seen as one that never raises."""

    def __init__(self, observers: tuple[DispatchObserver, ...]) -> None:
        """Keep the observers that there are now."""
        self.all: tuple[DispatchObserver, ...] = observers

    def begin_dispatch(self, dispatch: ObservedDispatch) -> Ending:
        """Tell all observers; return what tells them in reverse order that it is over."""
        return _ending([_begun(observer.begin_dispatch, dispatch) for observer in self.all])

    def begin_callback(self, call: ObservedCallback) -> Ending:
        """Tell all observers; return what tells them in reverse order that it is over."""
        return _ending([_begun(observer.begin_callback, call) for observer in self.all])

    def callbacks_not_called(self, calls: Sequence[ObservedCallback], reason: str) -> None:
        """Tell all observers."""
        for observer in self.all:
            try:
                observer.callbacks_not_called(calls, reason)
            except Exception as error:  # noqa: BLE001 - an observer must not disturb what it observes
                _report(observer.callbacks_not_called, error)


def _begun(begin: Callable[[ObservedT], Ending], observed: ObservedT) -> Ending | None:
    try:
        return begin(observed)
    except Exception as error:  # noqa: BLE001 - as above
        _report(begin, error)
        return None


def _ending(endings: Sequence[Ending | None]) -> Ending:
    def end(outcome: CallbackOutcome, error: BaseException | None) -> None:
        for ending in reversed(endings):  # as the begun are nested
            if ending is not None:
                try:
                    ending(outcome, error)
                except Exception as ending_error:  # noqa: BLE001 - as above
                    _report(ending, ending_error)

    return end


def _report(function: object, error: Exception) -> None:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    logger.error("The dispatch observer's %s raised; callbacks are not affected", name, exc_info=error)


current: Observers | None = None
"""Who observes the dispatches that begin now; ``None``, which is quick to see, where nobody does."""

_changing = ProcessLock()


def add_observer(observer: DispatchObserver) -> None:
    """Let an observer watch the dispatches of all event sessions, from the next commit on.

    Args:
        observer: It is told before and after each callback, after the observers that were added before it.

    Raises:
        ObserverError: It, or one that is equal to it, observes already.
    """
    with _changing.current:
        observers = () if current is None else current.all
        if observer in observers:
            msg = f"{observer!r} observes already, and would be told everything twice: add an observer once"
            raise ObserverError(msg)
        _set((*observers, observer))


def remove_observer(observer: DispatchObserver) -> None:
    """Let an observer watch no longer; a dispatch that has begun tells it to the end.

    Args:
        observer: What :func:`add_observer` was given.

    Raises:
        ObserverError: It does not observe.
    """
    with _changing.current:
        observers = () if current is None else current.all
        kept = tuple(known for known in observers if known != observer)
        if len(kept) == len(observers):
            msg = f"{observer!r} does not observe: give remove_observer the object that add_observer was given"
            raise ObserverError(msg)
        _set(kept)


def _set(observers: tuple[DispatchObserver, ...]) -> None:
    global current  # noqa: PLW0603 - a setting of the process, read once for each dispatch
    current = Observers(observers) if observers else None
