"""Dispatches that somebody watches. Nobody else pays for it: where nobody does, there are the plain ones."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..crossing.crossing import find_crossing, times_cancelled, was_cancelled, was_given_up
from ..crossing.outliving import raised_meanwhile
from ..muting import is_muted, muted_callbacks
from ..observation import CallbackOutcome, ObservedCallback, ObservedDispatch, Observers
from ..types import Phase
from .before_commit import Round
from .delivery import is_only_recorded, listeners_of, subject_of, unfolded
from .dispatch import Dispatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.orm import InstanceState, Session

    from ..crossing.crossing import Crossing
    from ..observation import Ending
    from ..records import Batch, Record
    from ..registry import Listener
    from ..types import SessionOptions
    from .delivery import Delivery
    from .host import Host


class ObservingDispatch(Dispatch):
    """Tells observers of the whole dispatch and of each callback, where these run."""

    def __init__(self, host: Host, session: Session, states: list[InstanceState[Any]], observers: Observers) -> None:
        """Begin with nothing to tell."""
        super().__init__(host, session, states)
        self._observers = observers
        self._begun: tuple[Delivery | None, Listener | None] = (None, None)

    def _add(self, batch: Batch, found: list[Delivery]) -> None:
        """Queue what a transaction has to tell, each row by itself; see :meth:`Queue.add`."""
        found = [*unfolded(found)]
        super()._add(batch, found)
        if batch.generation > self._options.cascade_limit:
            calls = ((delivery, listener) for delivery in found for listener in listeners_of(delivery))
            self._tell_not_called(calls, "callbacks have committed too many times in a row")

    def run(self, phase: Phase) -> None:
        """Call everything that waits, and what it leads to; see :meth:`Dispatch.run`."""
        deliveries = sum(not is_only_recorded(delivery) for delivery in self._waiting)
        if not deliveries:
            super().run(phase)
            return
        waiting = ObservedDispatch(phase=phase, deliveries=deliveries)
        ending = self._observers.begin_dispatch(waiting)
        _run(lambda: super(ObservingDispatch, self).run(phase), ending, lambda: self._crossing)

    def _call(self, listener: Listener) -> object:
        """Call the callback; return an awaitable if it is async, and wait here for what a sync one has returned."""
        self._begun = self._delivery, listener
        call = observed(self._delivery, listener)
        if listener.is_async:
            function = lambda: super(ObservingDispatch, self)._call(listener)  # noqa: E731 - too short for a name
            return _awaited(function, self._observers, call, was_given_up)

        def run() -> bool:
            result = super(ObservingDispatch, self)._call(listener)
            return self._wait(result) if inspect.isawaitable(result) else True

        _run(run, self._observers.begin_callback(call), lambda: self._crossing)
        return None

    def _take_rest(self, reason: str) -> list[tuple[Delivery, Listener]]:
        """Forget what is not called any more, and tell so; the callback that is due was perhaps not begun either."""
        due = [item for item in self._current() if item != self._begun]
        rest = super()._take_rest(reason)
        self._tell_not_called((*due, *rest), reason)
        return rest

    def _tell_not_called(self, items: Iterable[tuple[Delivery, Listener]], reason: str) -> None:
        calls = [observed(delivery, listener) for delivery, listener in items]
        if calls:
            self._observers.callbacks_not_called(calls, reason)


class ObservingRound(Round):
    """Tells observers of the whole round and of each callback, where these run."""

    def __init__(self, session: Session, found: list[Delivery], options: SessionOptions, observers: Observers) -> None:
        """Prepare to call everybody who listens."""
        super().__init__(session, found, options)
        self._observers = observers

    def run(self, *, is_last: bool) -> None:
        """Call the callbacks in order; see :meth:`Round.run`."""
        waiting = ObservedDispatch(phase=Phase.BEFORE_COMMIT, deliveries=len(self._records))
        ending = self._observers.begin_dispatch(waiting)
        _run(lambda: super(ObservingRound, self).run(is_last=is_last), ending, self._find_crossing)

    def _call(self, record: Record, listener: Listener) -> object:
        """Call the callback; return an awaitable if it is async, and wait here for what a sync one has returned."""
        if is_muted(listener, muted_callbacks()):
            return None
        call = observed(record, listener)
        if listener.is_async:
            function = lambda: super(ObservingRound, self)._call(record, listener)  # noqa: E731 - as above
            before = times_cancelled()
            return _awaited(function, self._observers, call, lambda error: was_cancelled(error, before))

        def run() -> None:
            result = super(ObservingRound, self)._call(record, listener)
            if inspect.isawaitable(result):
                self._wait_for(result)

        _run(run, self._observers.begin_callback(call), self._find_crossing)
        return None

    def _find_crossing(self) -> Crossing:
        return find_crossing(self._options.callback_backend)


def _run(function: Callable[[], bool | None], ending: Ending, crossing: Callable[[], Crossing]) -> None:
    """Run sync code, and tell how it ended; ``False`` says that its time was over, which raises nothing in a thread."""
    before = times_cancelled()
    try:
        in_time = function()
    except BaseException as error:
        cancelled = crossing().in_bridge and was_cancelled(error, before)  # elsewhere there is no task to be cancelled
        ending(CallbackOutcome.CANCELLED if cancelled else CallbackOutcome.ERROR, error)
        raise
    ending(CallbackOutcome.CANCELLED if in_time is False else CallbackOutcome.SUCCESS, None)


async def _awaited(
    function: Callable[[], object],
    observers: Observers,
    call: ObservedCallback,
    is_cut_short: Callable[[BaseException], bool],
) -> None:
    """Call and await an async callback in the task, and so in the context, in which its observers are told."""
    ending = observers.begin_callback(call)
    try:
        result = function()
        if inspect.isawaitable(result):
            await result
    except BaseException as error:
        ending(CallbackOutcome.CANCELLED if is_cut_short(error) else CallbackOutcome.ERROR, raised_meanwhile(error))
        raise
    ending(CallbackOutcome.SUCCESS, None)


def observed(delivery: Delivery | None, listener: Listener) -> ObservedCallback:
    """Say what is called, and what for."""
    model, event_type = subject_of(delivery)
    return ObservedCallback(
        callback=listener.name, model=model, event_type=event_type, phase=listener.phase, is_async=listener.is_async
    )
