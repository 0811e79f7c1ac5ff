"""Observers of callbacks, and a block in which they observe."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from fastapi_toolsets.events import (
    CallbackOutcome,
    DispatchObserver,
    Ending,
    ObservedCallback,
    ObservedDispatch,
    add_observer,
    remove_observer,
)


class Silent:
    """An observer that has nothing to say."""

    def begin_dispatch(self, dispatch: ObservedDispatch) -> Ending:
        return self._end

    def begin_callback(self, call: ObservedCallback) -> Ending:
        return self._end

    def callbacks_not_called(self, calls: Sequence[ObservedCallback], reason: str) -> None: ...

    def _end(self, outcome: CallbackOutcome, error: BaseException | None) -> None: ...


class Outcomes(Silent):
    """An observer that writes down how callbacks ended."""

    def __init__(self) -> None:
        self.found: list[CallbackOutcome] = []

    def begin_callback(self, call: ObservedCallback) -> Ending:
        return lambda outcome, error: self.found.append(outcome)


@contextmanager
def observing(*observers: DispatchObserver) -> Generator[None]:
    """Let observers observe for the length of a block."""
    for observer in observers:
        add_observer(observer)
    try:
        yield
    finally:
        for observer in observers:
            remove_observer(observer)
