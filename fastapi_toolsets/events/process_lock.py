"""A lock that whoever is forked finds free."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager


class ProcessLock:
    """A lock of the process, which lives as long as that: a forked child begins with one of its own.

    A thread may hold the parent's that the child does not have, and never release it there.

    Attributes:
        current: The lock, for ``with lock.current:``. Who forks inside such a block leaves it as he would without.
    """

    __slots__ = ("current",)

    def __init__(self) -> None:
        """Begin with a lock that nobody holds."""
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.current: AbstractContextManager[object] = threading.RLock()
