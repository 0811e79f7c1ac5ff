"""A dispatch that somebody watches. Nobody else pays for it: where nobody does, there is a plain one."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from .crossing import was_cancelled
from .delivery import listeners_of, subject_of
from .dispatch import Dispatch, Host
from .observation import CallbackOutcome, ObservedCallback, ObservedDispatch, Observers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.orm import InstanceState

    from .delivery import Delivery
    from .journal import Batch
    from .observation import Ending
    from .registry import Listener
    from .types import SessionOptions


class ObservingDispatch(Dispatch):
    """Tells observers of the whole dispatch and of each callback, where these run."""

    def __init__(
        self, options: SessionOptions, host: Host, states: set[InstanceState[Any]], observers: Observers
    ) -> None:
        """Begin with nothing to tell."""
        super().__init__(options, host, states)
        self._observers = observers
        self._begun: tuple[Delivery | None, Listener | None] = (None, None)

    def add(self, batch: Batch, found: list[Delivery]) -> None:
        """Queue what a commit has to tell; see :meth:`Dispatch.add`."""
        super().add(batch, found)
        if found and batch.generation > self._options.cascade_limit:
            calls = ((delivery, listener) for delivery in found for listener in listeners_of(delivery))
            self._tell_not_called(calls, "callbacks have committed too many times in a row")

    def run(self) -> None:
        """Call everything that waits, and what it leads to; see :meth:`Dispatch.run`."""
        if not self._waiting:
            super().run()
            return
        ending = self._observers.begin_dispatch(ObservedDispatch(deliveries=len(self._waiting)))
        self._tell(super().run, ending)

    def _call(self, listener: Listener) -> object:
        """Call the callback; return an awaitable if it is async, and wait here for what a sync one has returned."""
        if listener.is_async:
            return self._await_observed(listener)

        def call() -> None:
            result = super(ObservingDispatch, self)._call(listener)
            if inspect.isawaitable(result):
                self._wait(result)

        self._tell(call, self._begin(listener))
        return None

    async def _await_observed(self, listener: Listener) -> None:
        """Await an async callback in the task, and so in the context, in which its observers were told."""
        ending = self._begin(listener)
        try:
            result = super()._call(listener)
            if inspect.isawaitable(result):
                await result
        except BaseException as error:
            ending(CallbackOutcome.CANCELLED if was_cancelled(error) else CallbackOutcome.ERROR, error)
            raise
        ending(CallbackOutcome.SUCCESS, None)

    def _begin(self, listener: Listener) -> Ending:
        self._begun = self._delivery, listener
        return self._observers.begin_callback(observed(self._delivery, listener))

    def _tell(self, function: Callable[[], None], ending: Ending) -> None:
        """Run sync code, and tell how it ended."""
        try:
            function()
        except BaseException as error:
            cancelled = self._crossing.in_bridge and was_cancelled(error)  # elsewhere there is no task to be cancelled
            ending(CallbackOutcome.CANCELLED if cancelled else CallbackOutcome.ERROR, error)
            raise
        ending(CallbackOutcome.SUCCESS, None)

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


def observed(delivery: Delivery | None, listener: Listener) -> ObservedCallback:
    """Say what is called, and what for."""
    model, event_type = subject_of(delivery)
    return ObservedCallback(callback=listener.name, model=model, event_type=event_type, is_async=listener.is_async)
