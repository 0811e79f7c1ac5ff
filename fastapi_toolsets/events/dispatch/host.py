"""What whoever follows a session and what calls its callbacks know of each other."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import InstanceState, Session

    from ..journal import Frame
    from ..records import Batch
    from ..registry import Listener
    from ..types import Phase, SessionOptions


class Telling(Protocol):
    """What calls callbacks right now, as whoever follows the session sees it.

    Attributes:
        states: The states of the objects to expire once all callbacks have run; always the same list.
    """

    states: list[InstanceState[Any]]

    def take_snapshots(self) -> None:
        """Keep the objects of this and the waiting events as they are: a callback is about to use the session."""
        ...

    def add(self, phase: Phase, before: Batch | None, frame: Frame) -> None:
        """Queue what a transaction that ends now has to tell."""
        ...

    def add_hook(self, callback: Callable[..., object], arguments: tuple[object, ...]) -> None:
        """Queue what a callback has given to ``on_commit`` outside of any transaction of its own."""
        ...

    def report_untold(self) -> None:
        """Log by name what was not told, since an interrupt has ended the telling; nothing where all of it was."""
        ...


class Host(Protocol):
    """Whoever follows the session that has committed.

    Attributes:
        options: What the session factory was told.
        dispatch: What calls callbacks right now.
    """

    options: SessionOptions
    dispatch: Telling | None

    def tidy(self, session: Session, listener: Listener) -> None:
        """End the transaction that a callback left behind, and warn if that discards changes."""
        ...


def caller_of(session: Session) -> object:
    """Return the ``AsyncSession`` whose session this is, or the session itself."""
    # Another thread may be importing it: before it is there, no session has one.
    find_proxy = getattr(sys.modules.get("sqlalchemy.ext.asyncio"), "async_session", None)
    proxy: object | None = None if find_proxy is None else find_proxy(session)
    return session if proxy is None else proxy
