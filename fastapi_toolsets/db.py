"""Sessions for endpoints, scripts and tasks: opened, committed or rolled back, and closed in one place.

Every function here has an async and a sync form and finds out which is meant from the factory or session it is given.
The module needs neither FastAPI (only :func:`create_db_dependency` does, when called) nor, for the sync form, greenlet.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard, TypeVar, overload

import anyio
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from .errors import SessionClassError, ToolsetsError
from .messages import described
from .sqlite import enable_sqlite_foreign_keys, enable_sqlite_savepoints

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker

    _AnyAsyncSession: TypeAlias = AsyncSession | async_scoped_session[AsyncSession]
    _AnySyncSession: TypeAlias = Session | scoped_session[Session]

__all__ = [
    "MissingExtraError",
    "create_db_context",
    "create_db_dependency",
    "enable_sqlite_foreign_keys",
    "enable_sqlite_savepoints",
    "get_transaction",
]

AsyncSessionT = TypeVar("AsyncSessionT", bound="AsyncSession")
SyncSessionT = TypeVar("SyncSessionT", bound=Session)


class MissingExtraError(ToolsetsError, ImportError):
    """A function was called that needs a package which only an extra of this library brings."""


@overload
def create_db_dependency(
    session_maker: async_sessionmaker[AsyncSessionT],
) -> Callable[..., Coroutine[Any, Any, AsyncSessionT]]: ...
@overload
def create_db_dependency(
    session_maker: sessionmaker[SyncSessionT],
) -> Callable[..., Coroutine[Any, Any, SyncSessionT]]: ...
def create_db_dependency(session_maker: object) -> Callable[..., Coroutine[Any, Any, object]]:
    """Make a FastAPI dependency that gives an endpoint a session and commits what the endpoint did.

    ::

        get_db = create_db_dependency(SessionLocal)

        @app.post("/orders")
        async def create_order(session: Annotated[EventSession, Depends(get_db)]): ...

    The commit (and so every callback) comes after the endpoint has returned, *before* the response is sent and before
    background tasks run: a commit that fails is still an error response. An endpoint that raises, ``HTTPException``
    included, has its session rolled back. An endpoint may commit by itself; what it does after that is committed too.

    Then the session begins no transaction by itself any more: a response that is streamed, a background task, or an
    endpoint that is a generator, gets an ``InvalidRequestError`` from it, since nobody would commit what it writes. It
    opens a session of its own with :func:`create_db_context`.

    A session of an async factory works on the application's event loop. A session of a sync factory is opened,
    committed and closed in AnyIO worker threads, as FastAPI runs ``def`` endpoints.

    Args:
        session_maker: An ``async_sessionmaker`` or a ``sessionmaker``, usually with ``class_=EventSession`` or
            ``class_=SyncEventSession``.

    Returns:
        A callable for ``Depends()``, which needs no ``scope``, and the key for ``app.dependency_overrides``. All who
        depend on it in one request share one session. Called by hand it raises ``SessionClassError``.

    Raises:
        SessionClassError: ``session_maker`` is no session factory, or its session class or engine is of the other kind.
        MissingExtraError: FastAPI is not installed, or is older than 0.121.
    """
    if (sync_maker := _checked_sync_maker(session_maker, "create_db_dependency()")) is not None:
        open_session: Callable[[], object] = _sync_generator(sync_maker, begins_again=False)
    else:
        async_maker = _checked_async_maker(session_maker, "create_db_dependency()")
        open_session = _async_generator(async_maker, begins_again=False)
    try:
        from fastapi import Depends  # noqa: PLC0415 - the rest of this module works without FastAPI
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "create_db_dependency() needs FastAPI, which is not installed: run "
            "`pip install 'fastapi-toolsets[fastapi]'`, or use create_db_context() outside of an application"
        ) from error

    # FastAPI ends a generator after the response, unless whoever depends on it asks for the function's scope. Asking
    # here, one level below what endpoints depend on, frees every endpoint from having to know.
    try:
        session_of_the_call: object = Depends(open_session, scope="function")
    except TypeError as error:
        raise MissingExtraError(
            "create_db_dependency() needs FastAPI 0.121 or later, and the one installed is older: run "
            "`pip install 'fastapi-toolsets[fastapi]'`"
        ) from error

    async def get_db(session: object = session_of_the_call) -> object:
        if session is session_of_the_call:
            raise SessionClassError(
                "the dependency made by create_db_dependency() was called by hand, and only FastAPI gives it a "
                "session: put Depends() around it, or use create_db_context() outside of an endpoint"
            )
        return session

    return get_db


@overload
def create_db_context(
    session_maker: async_sessionmaker[AsyncSessionT],
) -> Callable[[], AbstractAsyncContextManager[AsyncSessionT]]: ...
@overload
def create_db_context(
    session_maker: sessionmaker[SyncSessionT],
) -> Callable[[], AbstractContextManager[SyncSessionT]]: ...
def create_db_context(
    session_maker: object,
) -> Callable[[], AbstractAsyncContextManager[object]] | Callable[[], AbstractContextManager[object]]:
    """Make a function that opens a session for a block of a script, task or command, and commits at its end.

    ::

        db_context = create_db_context(SessionLocal)

        async with db_context() as session:
            session.add(Order(status="new"))

    Leaving the block commits; an exception in it rolls back and goes on. The session is closed either way. Unlike
    ``SessionLocal.begin()`` the block may commit by itself and go on working.

    Args:
        session_maker: An ``async_sessionmaker`` (use ``async with``) or a ``sessionmaker`` (use ``with``).

    Returns:
        A function without arguments; each call gives a context manager with a session of its own, which belongs to the
        thread or task that entered it.

    Raises:
        SessionClassError: ``session_maker`` is no session factory, or its session class or engine is of the other kind.
    """
    if (sync_maker := _checked_sync_maker(session_maker, "create_db_context()")) is not None:
        return contextmanager(_sync_generator(sync_maker))
    return asynccontextmanager(_async_generator(_checked_async_maker(session_maker, "create_db_context()")))


@overload
def get_transaction(session: AsyncSessionT) -> AbstractAsyncContextManager[AsyncSessionT]: ...
@overload
def get_transaction(
    session: async_scoped_session[AsyncSessionT],
) -> AbstractAsyncContextManager[async_scoped_session[AsyncSessionT]]: ...
@overload
def get_transaction(session: SyncSessionT) -> AbstractContextManager[SyncSessionT]: ...
@overload
def get_transaction(
    session: scoped_session[SyncSessionT],
) -> AbstractContextManager[scoped_session[SyncSessionT]]: ...
def get_transaction(session: object) -> AbstractAsyncContextManager[object] | AbstractContextManager[object]:
    """Open a transaction on a session, or a savepoint where the session is in a transaction already.

    ::

        async with get_transaction(session):
            session.add(order)

    The outermost block commits when it ends and rolls back when it raises; a block inside another is a savepoint, which
    an exception rolls back alone. A session that has read anything is in a transaction too (SQLAlchemy begins one by
    itself): there the block is a savepoint and the commit is still the caller's to make.

    Args:
        session: A session (or scoped session), async for ``async with``, sync for ``with``.

    Returns:
        A context manager whose value is ``session``.

    Raises:
        SessionClassError: ``session`` is no session.
    """
    if _is_sync_session(session):
        return _sync_transaction(session)
    if _is_async_session(session):
        return _async_transaction(session)
    raise SessionClassError(
        f"get_transaction() was given {described(session)}, which is no session: give it an EventSession or "
        "AsyncSession for `async with`, or a SyncEventSession or Session for `with`"
    )


def _checked_sync_maker(session_maker: object, caller: str) -> sessionmaker[Session] | None:
    if not _is_sync_maker(session_maker):
        return None
    _refuse_other_kind(session_maker.class_, session_maker.kw.get("bind"), caller, _SYNC)
    return session_maker


def _checked_async_maker(session_maker: object, caller: str) -> async_sessionmaker[AsyncSession]:
    if not _is_async_maker(session_maker):
        raise SessionClassError(
            f"{caller} was given {described(session_maker)}, which is no session factory: give it an "
            "async_sessionmaker(engine, class_=EventSession) or a sessionmaker(engine, class_=SyncEventSession)"
        )
    _refuse_other_kind(session_maker.class_, session_maker.kw.get("bind"), caller, _ASYNC)
    return session_maker


def _async_generator(
    session_maker: async_sessionmaker[AsyncSessionT], *, begins_again: bool = True
) -> Callable[[], AsyncGenerator[AsyncSessionT]]:
    async def open_session() -> AsyncGenerator[AsyncSessionT]:
        async with session_maker() as session:
            try:
                yield session
            except BaseException:
                with anyio.CancelScope(shield=True):  # a cancelled caller is rolled back as any other that raised
                    await session.rollback()
                raise
            if session.in_transaction():
                await session.commit()
            if not begins_again:
                session.sync_session.autobegin = False

    return open_session


def _sync_generator(
    session_maker: sessionmaker[SyncSessionT], *, begins_again: bool = True
) -> Callable[[], Generator[SyncSessionT]]:
    def open_session() -> Generator[SyncSessionT]:
        with session_maker() as session:
            try:
                yield session
            except BaseException:
                session.rollback()
                raise
            if session.in_transaction():
                session.commit()
            if not begins_again:
                session.autobegin = False

    return open_session


@asynccontextmanager
async def _async_transaction(given: _AnyAsyncSession) -> AsyncGenerator[_AnyAsyncSession]:
    from sqlalchemy.ext.asyncio import AsyncSession  # noqa: PLC0415 - it needs greenlet, which the sync form does not

    session = given if isinstance(given, AsyncSession) else given.registry()
    async with session.begin_nested() if session.in_transaction() else session.begin():
        yield given


@contextmanager
def _sync_transaction(given: _AnySyncSession) -> Generator[_AnySyncSession]:
    session = given.registry() if isinstance(given, scoped_session) else given
    with session.begin_nested() if session.in_transaction() else session.begin():
        yield given


class _Kind(NamedTuple):
    """What belongs together on one side of the async/sync divide, as messages name it."""

    name: str
    factory: str
    session_class: str
    engine: str


_ASYNC = _Kind("async", "an async_sessionmaker", "EventSession", "create_async_engine()")
_SYNC = _Kind("sync", "a sessionmaker", "SyncEventSession", "create_engine()")


def _refuse_other_kind(session_class: type[object], bind: object, caller: str, kind: _Kind) -> None:
    """Refuse a factory that would fail, later and less clearly, when it opens a session or that session sends SQL."""
    other = _SYNC if kind is _ASYNC else _ASYNC
    if issubclass(session_class, Session) is (kind is _ASYNC):
        raise SessionClassError(
            f"{caller} was given {kind.factory} whose session class {session_class.__name__} is {other.name}: give "
            f"the factory class_={kind.session_class} or a subclass of it, or make it with {other.factory}"
        )
    if bind is not None and hasattr(bind, "sync_engine") is not (kind is _ASYNC):
        raise SessionClassError(
            f"{caller} was given {kind.factory} that is bound to {described(bind)}, which is {other.name}: bind "
            f"it to an engine made with {kind.engine}"
        )


def _is_sync_maker(candidate: object) -> TypeGuard[sessionmaker[Session]]:
    return isinstance(candidate, sessionmaker)


def _is_async_maker(candidate: object) -> TypeGuard[async_sessionmaker[AsyncSession]]:
    classes = _classes_of_asyncio()
    return classes is not None and isinstance(candidate, classes.async_sessionmaker)


def _is_sync_session(candidate: object) -> TypeGuard[_AnySyncSession]:
    return isinstance(candidate, (Session, scoped_session))


def _is_async_session(candidate: object) -> TypeGuard[_AnyAsyncSession]:
    classes = _classes_of_asyncio()
    return classes is not None and isinstance(candidate, (classes.AsyncSession, classes.async_scoped_session))


def _classes_of_asyncio() -> ModuleType | None:
    """Give SQLAlchemy's asyncio module, or nothing without greenlet: nobody can have made an object of it then."""
    try:
        return importlib.import_module("sqlalchemy.ext.asyncio")
    except ImportError:
        return None
