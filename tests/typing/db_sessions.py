"""The functions of ``fastapi_toolsets.db`` and ``fastapi_toolsets.pytest`` give back the kind that they were given."""

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, assert_type

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Session, scoped_session, sessionmaker

from fastapi_toolsets.db import create_db_context, create_db_dependency, get_transaction
from fastapi_toolsets.models import EventSession, SyncEventSession
from fastapi_toolsets.pytest import create_db_session, create_sync_db_session


class Base(DeclarativeBase):
    pass


class OwnSession(EventSession):
    pass


async_factory = async_sessionmaker(class_=EventSession)
own_factory = async_sessionmaker(class_=OwnSession)
sync_factory = sessionmaker(class_=SyncEventSession)
plain_factory = sessionmaker()

assert_type(create_db_dependency(async_factory), Callable[..., Coroutine[Any, Any, EventSession]])
assert_type(create_db_dependency(own_factory), Callable[..., Coroutine[Any, Any, OwnSession]])
assert_type(create_db_dependency(sync_factory), Callable[..., Coroutine[Any, Any, SyncEventSession]])

assert_type(create_db_context(async_factory), Callable[[], AbstractAsyncContextManager[EventSession]])
assert_type(create_db_context(sync_factory), Callable[[], AbstractContextManager[SyncEventSession]])
assert_type(create_db_context(plain_factory), Callable[[], AbstractContextManager[Session]])


async def transactions() -> None:
    """Enter each kind of transaction."""
    async with get_transaction(async_factory()) as session:
        assert_type(session, EventSession)
    async with get_transaction(AsyncSession()) as plain:
        assert_type(plain, AsyncSession)
    with get_transaction(sync_factory()) as sync:
        assert_type(sync, SyncEventSession)
    with get_transaction(scoped_session(plain_factory)) as scoped:
        assert_type(scoped, scoped_session[Session])


async def sessions_of_tests() -> None:
    """Enter each kind of session for a test."""
    async with create_db_session("sqlite+aiosqlite://", Base) as session:
        assert_type(session, EventSession)
    with create_sync_db_session("sqlite://", Base.metadata) as sync:
        assert_type(sync, SyncEventSession)


def refused() -> None:
    """Give the functions what they refuse at run time too."""
    create_db_context(EventSession)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    get_transaction(async_factory)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
