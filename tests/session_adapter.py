"""A session of either kind behind one set of coroutine methods."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, Self, TypeVar, cast

from sqlalchemy import Connection, Executable, Result, ScalarResult
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, AsyncSessionTransaction
from sqlalchemy.orm import Session, SessionTransaction

T = TypeVar("T")

AnySession = AsyncSession | Session


async def resolve(value: Awaitable[T] | T) -> T:
    """Await what an async session returned; give back what a sync session returned."""
    if isinstance(value, Awaitable):
        return await cast("Awaitable[T]", value)
    return value


@asynccontextmanager
async def entered(manager: AbstractAsyncContextManager[T] | AbstractContextManager[T]) -> AsyncGenerator[T]:
    """Enter a context manager of either kind, such as ``factory.begin()``."""
    if isinstance(manager, AbstractAsyncContextManager):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


class Transaction:
    """What ``begin()`` and ``begin_nested()`` give: a block (``async with``), or an object to commit (``await``)."""

    def __init__(self, start: Callable[[], AsyncSessionTransaction | SessionTransaction]) -> None:
        self._start = start

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._begin().__await__()

    async def _begin(self) -> Self:
        self.transaction = self._start()
        if isinstance(self.transaction, AsyncSessionTransaction):
            await self.transaction
        return self

    async def __aenter__(self) -> Self:
        self.transaction = self._start()
        if isinstance(self.transaction, AsyncSessionTransaction):
            await self.transaction.__aenter__()
        else:
            self.transaction.__enter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        if isinstance(self.transaction, AsyncSessionTransaction):
            await self.transaction.__aexit__(*raised)
        else:
            self.transaction.__exit__(*raised)

    @property
    def is_active(self) -> bool:
        return self.transaction.is_active

    async def commit(self) -> None:
        await resolve(cast("Any", self.transaction.commit()))

    async def rollback(self) -> None:
        await resolve(cast("Any", self.transaction.rollback()))


class SessionAdapter:
    """A session of either kind behind one set of coroutine methods, named as the session's own."""

    def __init__(self, session: AnySession) -> None:
        self.session: Any = session

    @property
    def sync_session(self) -> Session:
        """The session that does the work: the one inside an async session, or the sync session itself."""
        return cast("Session", self.session.sync_session if isinstance(self.session, AsyncSession) else self.session)

    async def add(self, instance: object) -> None:
        self.session.add(instance)

    async def add_all(self, instances: Iterable[object]) -> None:
        self.session.add_all(instances)

    async def delete(self, instance: object) -> None:
        await resolve(self.session.delete(instance))

    async def expire(self, instance: object, attributes: Iterable[str] | None = None) -> None:
        self.session.expire(instance, attributes)

    async def expire_all(self) -> None:
        self.session.expire_all()

    async def expunge(self, instance: object) -> None:
        self.session.expunge(instance)

    async def expunge_all(self) -> None:
        self.session.expunge_all()

    async def refresh(self, instance: object, attributes: Iterable[str] | None = None, **options: object) -> None:
        await resolve(self.session.refresh(instance, attributes, **options))

    async def merge(self, instance: T, **options: object) -> T:
        return cast("T", await resolve(self.session.merge(instance, **options)))

    async def get(self, model: type[T], identity: object, **options: object) -> T | None:
        return cast("T | None", await resolve(self.session.get(model, identity, **options)))

    async def get_one(self, model: type[T], identity: object, **options: object) -> T:
        return cast("T", await resolve(self.session.get_one(model, identity, **options)))

    async def execute(self, statement: Executable, *arguments: object, **options: object) -> Result[Any]:
        return cast("Result[Any]", await resolve(self.session.execute(statement, *arguments, **options)))

    async def scalar(self, statement: Executable, *arguments: object, **options: object) -> Any:  # noqa: ANN401 - what the statement selects
        return await resolve(self.session.scalar(statement, *arguments, **options))

    async def scalars(self, statement: Executable, *arguments: object, **options: object) -> ScalarResult[Any]:
        return cast("ScalarResult[Any]", await resolve(self.session.scalars(statement, *arguments, **options)))

    async def flush(self) -> None:
        await resolve(self.session.flush())

    async def commit(self) -> None:
        await resolve(self.session.commit())

    async def rollback(self) -> None:
        await resolve(self.session.rollback())

    async def close(self) -> None:
        await resolve(self.session.close())

    async def reset(self) -> None:
        await resolve(self.session.reset())

    async def invalidate(self) -> None:
        await resolve(self.session.invalidate())

    async def prepare(self) -> None:
        """Prepare a two-phase transaction; ``AsyncSession`` leaves this to the session inside it."""
        await self.run_sync(Session.prepare)

    async def connection(self, **options: object) -> AsyncConnection | Connection:
        return cast("AsyncConnection | Connection", await resolve(self.session.connection(**options)))

    async def run_sync(self, function: Callable[..., T], *arguments: object, **options: object) -> T:
        """Call ``function(session, ...)`` with the sync session, where it may do I/O on either front-end."""
        if isinstance(self.session, AsyncSession):
            return await self.session.run_sync(function, *arguments, **options)
        return function(self.session, *arguments, **options)

    def begin(self) -> Transaction:
        return Transaction(self.session.begin)

    def begin_nested(self) -> Transaction:
        return Transaction(self.session.begin_nested)

    def in_transaction(self) -> bool:
        return bool(self.session.in_transaction())
