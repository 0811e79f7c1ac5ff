"""What sessions for tests make of URLs and bases: memory databases, and what they refuse."""

from __future__ import annotations

import enum
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

import anyio
import pytest
from sqlalchemy import MetaData, create_engine, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio.exc import AsyncMethodRequired
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import DropTable

from fastapi_toolsets.errors import ToolsetsError
from fastapi_toolsets.models import EventSession, SyncEventSession
from fastapi_toolsets.pytest import (
    DatabaseURLError,
    ModelBaseError,
    create_db_session,
    create_sync_db_session,
    rolled_back_session,
    rolled_back_sync_session,
)

from .front_ends import entered, resolve

CreateSession = Callable[..., AbstractAsyncContextManager[Any] | AbstractContextManager[Any]]


class Base(DeclarativeBase):
    pass


class Team(Base):
    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Colour(enum.Enum):
    """A class that has nothing to do with tables."""


MEMORY_URLS = [
    "sqlite+{driver}://",
    "sqlite+{driver}:///:memory:",
    "sqlite+{driver}:///file::memory:?uri=true",
    "sqlite+{driver}:///file:named?mode=memory&cache=shared&uri=true",
]


@pytest.mark.anyio
@pytest.mark.parametrize("url", MEMORY_URLS)
async def test_memory_database_is_one_for_all_who_use_the_engine(url: str) -> None:
    async with create_db_session(url.format(driver="aiosqlite"), Base) as session:
        session.add(Team(name="seen by both"))
        await session.commit()
        async with EventSession(session.bind) as other:
            assert list(await other.scalars(select(Team.name))) == ["seen by both"]


@pytest.mark.parametrize("url", [*MEMORY_URLS, "sqlite://"])
def test_memory_database_is_one_for_all_who_use_the_engine_from_any_thread(url: str) -> None:
    with create_sync_db_session(url.format(driver="pysqlite"), Base) as session:
        session.add(Team(name="seen by both"))
        session.commit()
        seen: list[str] = []

        async def read() -> None:
            with SyncEventSession(session.get_bind()) as other:
                await anyio.to_thread.run_sync(lambda: seen.extend(other.scalars(select(Team.name))))

        anyio.run(read)
        assert seen == ["seen by both"]


@pytest.mark.parametrize(
    ("create", "url", "message"),
    [
        (
            create_db_session,
            "sqlite:///x.db",
            r"works with an async driver.*write sqlite\+aiosqlite://…, or use create_sync_db_session\(\)$",
        ),
        (rolled_back_session, "sqlite:///x.db", r"^rolled_back_session\(\) .*, or use rolled_back_sync_session\(\)$"),
        (rolled_back_sync_session, "sqlite+aiosqlite://", r"^rolled_back_sync_s.*, or use rolled_back_session\(\)$"),
        (
            create_db_session,
            "mysql+pymysql://u:secret@h/d",
            r"mysql\+pymysql://u:\*\*\*@h/d names a sync one: write mysql",
        ),
        (
            create_sync_db_session,
            "sqlite+aiosqlite://",
            r"names an async one: write sqlite\+pysqlite://…, or use create_db_session\(\)$",
        ),
        (create_sync_db_session, "mysql+asyncmy://u:secret@h/d", r"names an async one: write mysql\+pymysql://…"),
        (
            create_db_session,
            "postgresql+psycopg2://h/d",
            r"psycopg2.*install it, or write postgresql\+asyncpg://… or post",
        ),
        (create_db_session, "mysql://u:secret@h/d", r"'MySQLdb'.*write mysql\+asyncmy://… or mysql\+aiomysql://…"),
        (
            create_sync_db_session,
            "mysql://u:secret@h/d",
            r"'MySQLdb', which is not installed; install it, or write mysql",
        ),
        (create_db_session, "sqlite+nonesuch://", r"knows no 'sqlite\+nonesuch'; write sqlite\+aiosqlite://…"),
        (
            create_sync_db_session,
            "nonesuch://h/d",
            r"knows no 'nonesuch'; name one of the databases mariadb, mysql, post",
        ),
        (
            create_sync_db_session,
            "postgresql+nonesuch://h/d?user=u&password=secret",
            r"cannot use postgresql\+nonesuch://h/d: SQLAlchemy knows no 'postgresql\+nonesuch'; write",
        ),
        (create_db_session, "secret", r"create_db_session\(\) was given a database URL that cannot be read"),
        (
            create_sync_db_session,
            "sqlite://u:secret@h:port/d",
            r"create_sync_db_session\(\) was given a database URL that",
        ),
    ],
)
def test_url_that_cannot_work_is_refused(create: CreateSession, url: str, message: str) -> None:
    async def steps() -> None:
        async with entered(create(url, Base)):
            pytest.fail("the block must not run")

    with pytest.raises(DatabaseURLError, match=message) as caught:
        anyio.run(steps)
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value, ToolsetsError)


@pytest.mark.parametrize("create", [create_db_session, create_sync_db_session, rolled_back_session])
def test_what_is_no_url_is_named(create: CreateSession) -> None:
    async def steps() -> None:
        given: Any = None if create is rolled_back_session else create_engine("sqlite://")
        async with entered(create(given, Base)):
            pytest.fail("the block must not run")

    kind = "NoneType" if create is rolled_back_session else "Engine"
    message = (
        rf"^{create.__name__}\(\) was given an object of type {kind}, which is no database URL: write one as dialect"
    )
    with pytest.raises(DatabaseURLError, match=message):
        anyio.run(steps)


@pytest.mark.parametrize("create", [create_db_session, create_sync_db_session])
@pytest.mark.parametrize(
    ("base", "name"),
    [
        (DeclarativeBase, "DeclarativeBase"),
        (object(), "an object of type object"),
        (Colour, "Colour"),
        (None, "NoneType"),
    ],
)
def test_base_without_tables_is_refused(create: CreateSession, base: object, name: str) -> None:
    async def steps() -> None:
        async with entered(create("sqlite+aiosqlite://", base)):
            pytest.fail("the block must not run")

    with pytest.raises(
        ModelBaseError, match=rf"{name}, which has no tables: give it the class that your models derive"
    ):
        anyio.run(steps)


@pytest.mark.parametrize("create", [create_db_session, create_sync_db_session])
def test_metadata_without_tables_may_be_cleaned_up(create: CreateSession) -> None:
    driver = "aiosqlite" if create is create_db_session else "pysqlite"

    async def steps() -> None:
        async with entered(create(f"sqlite+{driver}://", MetaData(), drop_tables=False, cleanup=True)) as session:
            assert await resolve(session.scalar(text("SELECT 1"))) == 1

    anyio.run(steps)


@pytest.mark.anyio
async def test_engine_option_that_sqlalchemy_refuses_is_told_in_its_own_words() -> None:
    with pytest.raises(AsyncMethodRequired, match="server_side_cursors"):
        async with create_db_session("sqlite+aiosqlite://", Base, engine_options={"server_side_cursors": True}):
            pytest.fail("the block must not run")


def test_cleanup_that_fails_for_another_reason_than_a_lock_is_told_in_the_databases_own_words() -> None:
    """The block has dropped the table that is to be emptied."""

    def block() -> None:
        with create_sync_db_session("sqlite://", Base, drop_tables=False, cleanup=True) as session:
            session.execute(DropTable(Base.metadata.tables["teams"]))
            session.commit()

    with pytest.raises(OperationalError, match="no such table: teams"):
        block()


def test_importing_does_not_import_pytest() -> None:
    program = "import sys, fastapi_toolsets.pytest; print('pytest' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout == "False\n"


def test_sync_twin_works_without_greenlet() -> None:
    """N8: the async one is importable beside it, and asks for greenlet only when used."""
    program = """
import sys
sys.modules["greenlet"] = None
from sqlalchemy import MetaData, text
from fastapi_toolsets.pytest import create_db_session, create_sync_db_session
with create_sync_db_session("sqlite://", MetaData()) as session:
    print(session.scalar(text("SELECT 'works'")))
"""
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout == "works\n"
