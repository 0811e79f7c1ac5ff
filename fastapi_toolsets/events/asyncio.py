"""``EventSession``: the async front-end. All tracking and dispatch happen on the sync session that it proxies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..errors import SessionClassError
from .session import SyncEventSession

if TYPE_CHECKING:
    from collections.abc import Callable


class EventSession(AsyncSession):
    """An ``AsyncSession`` that calls the listeners of what its commits created, updated and deleted.

    Give it to a factory, ``async_sessionmaker(engine, class_=EventSession)``, and use it like any other session. Async
    callbacks are awaited in ``commit()``, after the COMMIT of the outermost transaction, on the same loop; sync ones
    are called directly. It takes the same options as :class:`SyncEventSession`.

    A session class of your own, or of another library, gets events by deriving from both, this one first:
    ``class ShopSession(EventSession, TheirSession)``. The sync session that theirs proxies gets them too.
    """

    def __init_subclass__(cls, **arguments: Any) -> None:  # noqa: ANN401 - for whichever base takes them
        """Give the class a sync session with events, of the kind that the other classes it is made of proxy."""
        super().__init_subclass__(**arguments)
        if "sync_session_class" not in vars(cls):
            setattr(cls, "sync_session_class", _with_events(_proxied_by(cls)))  # noqa: B010 - as at the end

    def __init__(
        self,
        bind: Any = None,  # noqa: ANN401 - whatever the AsyncSession of the installed SQLAlchemy takes
        *,
        sync_session_class: type[Session] | None = None,
        **options: Any,  # noqa: ANN401 - passed on to the AsyncSession of the installed SQLAlchemy
    ) -> None:
        """Open a session; usually an ``async_sessionmaker`` does, with the options it was given.

        Args:
            bind: The async engine or connection, as for ``AsyncSession``.
            sync_session_class: The session to proxy, a subclass of :class:`SyncEventSession`.
            **options: The options of :class:`SyncEventSession`, and everything else that ``AsyncSession`` takes.

        Raises:
            SessionClassError: ``bind`` or one of ``binds`` belongs to the sync side, or ``sync_session_class`` would
                deliver no events.
            SessionOptionError: An option has a value that it cannot have.
        """
        given: list[object] = [bind, *(options.get("binds") or {}).values()]
        for engine in given:
            if engine is not None and not hasattr(engine, "sync_engine") and hasattr(engine, "dialect"):
                msg = (
                    f"{type(self).__name__} is an async session and was given the {type(engine).__name__} {engine!r}: "
                    "give it an engine of create_async_engine, or use sessionmaker with class_=SyncEventSession"
                )
                raise SessionClassError(msg)
        chosen = sync_session_class or self.sync_session_class
        if not issubclass(chosen, SyncEventSession):
            msg = (
                f"{type(self).__name__} was given {chosen.__qualname__} as sync_session_class, which delivers no "
                "events: derive it from SyncEventSession"
            )
            if chosen is not Session:
                msg += f" too, class Name(SyncEventSession, {chosen.__name__})"
            raise SessionClassError(msg)
        if bind is not None:  # by name: the constructor of a class that this one is mixed into may begin otherwise
            options["bind"] = bind
        super().__init__(sync_session_class=chosen, **options)

    def on_commit(self, callback: Callable[..., object], /, *arguments: object) -> None:
        """Call ``callback(*arguments)`` after the current transaction's commit; see :meth:`SyncEventSession.on_commit`.

        Args:
            callback: A sync or async function.
            *arguments: What to call it with.

        Raises:
            ListenerError: ``callback`` cannot be called. It is a ``TypeError``.
        """
        session = self.sync_session
        if isinstance(session, SyncEventSession):
            session.on_commit(callback, *arguments)


def _proxied_by(session_class: type[AsyncSession]) -> type[Session]:
    """Return the sync session class that ``session_class`` would have if ``EventSession`` named none."""
    bases = (base for base in session_class.__mro__ if base is not EventSession)
    naming = next(base for base in bases if "sync_session_class" in vars(base))
    return cast("type[AsyncSession]", naming).sync_session_class


def _with_events(session_class: type[Session]) -> type[Session]:
    """Return a session class with events: the class itself if it has them, or one made of it."""
    if issubclass(session_class, SyncEventSession):
        return session_class
    if issubclass(SyncEventSession, session_class):
        return SyncEventSession
    return type(f"SyncEvent{session_class.__name__}", (SyncEventSession, session_class), {})


# Declared in the class it would clash, for type checkers, with what a class declares that it is mixed into.
setattr(EventSession, "sync_session_class", SyncEventSession)  # noqa: B010 - an assignment would declare it
