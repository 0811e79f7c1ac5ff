"""What the instrumenting functions return: the way to take the instruments out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from ..events import DispatchObserver, add_observer, remove_observer


class Instrumentation:
    """Instruments that observe the callbacks of all event sessions until they are removed.

    It is also a context manager that removes them when its block ends, for tests.
    """

    def __init__(self, observer: DispatchObserver, removed: Callable[[], object] | None = None) -> None:
        """Begin to observe.

        Args:
            observer: What observes.
            removed: What to call when it does no longer.

        Raises:
            ObserverError: An equal observer observes already.
        """
        add_observer(observer)
        self._observer = observer
        self._removed = removed

    def remove(self) -> None:
        """Observe no longer, from the next commit on.

        Raises:
            ObserverError: It has been removed before.
        """
        remove_observer(self._observer)
        if self._removed is not None:
            self._removed()

    def __enter__(self) -> Self:
        """Do nothing: it observes already."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Remove it."""
        self.remove()
