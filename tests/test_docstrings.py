"""The examples in docstrings run, and the reference shows docstrings as its readers should see them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from griffe import Module, Object, load
from httpx import ASGITransport, AsyncClient
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_toolsets.db import create_db_context, create_db_dependency, get_transaction
from fastapi_toolsets.models import EventSession, capture_events
from fastapi_toolsets.pytest import created
from tools.docstrings import SphinxRoles, examples_of

from .pytest_plugin.suites import Suite

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fastapi_toolsets"
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings() -> dict[str, str]:
    """Return every docstring of the package, by the place where it stands."""
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, DEFINITIONS) and (docstring := ast.get_docstring(node)) is not None:
                found[f"{module}:{getattr(node, 'name', '')}"] = docstring
    return found


EXAMPLES = {place: found for place, docstring in docstrings().items() if (found := examples_of(docstring))}


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]


async def run_example(source: str, names: dict[str, Any]) -> None:
    """Run an example, which may await, with what it takes for granted."""
    code = compile(source, "example", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result: Awaitable[None] | None = eval(code, names)  # noqa: S307 -- running the example is what this test is for
    if inspect.isawaitable(result):
        await result


async def session_maker() -> AsyncGenerator[async_sessionmaker[EventSession]]:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield async_sessionmaker(engine, class_=EventSession)
    await engine.dispose()


async def dependency_commits(source: str) -> None:
    async for maker in session_maker():
        app = FastAPI()
        names = {
            "Annotated": Annotated,
            "Depends": Depends,
            "EventSession": EventSession,
            "SessionLocal": maker,
            "app": app,
            "create_db_dependency": create_db_dependency,
        }
        await run_example(source, names)
        async with AsyncClient(transport=ASGITransport(app), base_url="http://shop") as client:
            assert (await client.post("/orders")).status_code == 200


async def context_commits(source: str) -> None:
    async for maker in session_maker():
        await run_example(source, {"Order": Order, "SessionLocal": maker, "create_db_context": create_db_context})
        async with maker() as session:
            assert [order.status for order in await session.scalars(select(Order))] == ["new"]


async def transaction_commits(source: str) -> None:
    async for maker in session_maker():
        async with maker() as session:
            names = {"get_transaction": get_transaction, "order": Order(status="paid"), "session": session}
            await run_example(source, names)
        async with maker() as session:
            assert [order.status for order in await session.scalars(select(Order))] == ["paid"]


async def recorder_compares(source: str) -> None:
    async def place_order(session: EventSession) -> None:
        session.add(Order(id=1, status="new"))
        await session.commit()

    async for maker in session_maker():
        async with maker() as session:
            names = {
                "Order": Order,
                "capture_events": capture_events,
                "created": created,
                "place_order": place_order,
                "session": session,
            }
            await run_example(source, names)


SUITE = """
    import pytest
    from sqlalchemy import select
    from fastapi_toolsets.pytest import create_db_session, create_worker_database, rolled_back_session
    from models import Base, Order

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.fixture(scope="session")
    def database_url():
        return "sqlite+aiosqlite:///tests.sqlite"

    @pytest.fixture(scope="session")
    def model_base():
        return Base
"""

GIVES_A_SESSION = """
    @pytest.mark.anyio
    async def test_fixture(db_session):
        db_session.add(Order(id=1))
        await db_session.commit()
        assert list(await db_session.scalars(select(Order.id))) == [1]
"""

GIVES_A_URL = """
    @pytest.mark.anyio
    async def test_fixture(worker_database_url):
        async with rolled_back_session(worker_database_url) as session:
            assert list(await session.scalars(select(Order.id))) == []
"""


def run_as_a_suite(source: str, use: str) -> None:
    suite = Suite(Path.cwd())
    own = source.replace("postgresql+asyncpg://user@localhost/app", "sqlite+aiosqlite:///tests.sqlite")
    suite.write("test_example.py", textwrap.dedent(SUITE) + "\n" + own + textwrap.dedent(use))
    result = suite.run()
    assert result.outcomes == {"passed": 1}, result.output


def fixture_gives_a_session(source: str) -> None:
    run_as_a_suite(source, GIVES_A_SESSION)


def fixture_gives_a_url(source: str) -> None:
    run_as_a_suite(source, GIVES_A_URL)


CHECKS: dict[str, Callable[[str], Awaitable[None] | None]] = {
    "fastapi_toolsets.db:create_db_context": context_commits,
    "fastapi_toolsets.db:create_db_dependency": dependency_commits,
    "fastapi_toolsets.db:get_transaction": transaction_commits,
    "fastapi_toolsets.events.recording:capture_events": recorder_compares,
    "fastapi_toolsets.pytest.rollback:rolled_back_session": fixture_gives_a_session,
    "fastapi_toolsets.pytest.sessions:create_db_session": fixture_gives_a_session,
    "fastapi_toolsets.pytest.worker_databases:create_worker_database": fixture_gives_a_url,
}
"""What has to be true when an example has run."""


def test_every_example_is_run() -> None:
    """A new example needs a line in the table above."""
    assert sorted(EXAMPLES) == sorted(CHECKS)


@pytest.mark.parametrize("place", sorted(CHECKS))
def test_example_does_what_its_docstring_says(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (source,) = EXAMPLES[place]
    check = CHECKS[place]
    if inspect.iscoroutinefunction(check):
        anyio.run(check, source)
    else:
        check(source)


def test_no_example_escapes_the_tests() -> None:
    """Examples are blocks after ``::``: another way to write one is a block that nobody runs."""
    assert [place for place, docstring in docstrings().items() if "```" in docstring or ">>>" in docstring] == []


def written(tmp_path: Path, source: str) -> dict[str, str]:
    """Return the docstrings of a package of one file as the reference gets them, by name."""
    folder = tmp_path / "written"
    folder.mkdir()
    (folder / "__init__.py").write_text(textwrap.dedent(source), encoding="utf-8")
    package = load("written", search_paths=[tmp_path])
    assert isinstance(package, Module)
    SphinxRoles().on_package(pkg=package)
    members = {name: member for name, member in package.members.items() if isinstance(member, Object)}
    return {name: member.docstring.value for name, member in members.items() if member.docstring is not None}


def test_roles_become_links_where_they_name_something(tmp_path: Path) -> None:
    source = '''
        from pathlib import Path

        class Order:
            """See :meth:`Order.pay`, :func:`written.ship` and :class:`Path`, but not :func:`lost`."""

        def ship():
            """Ship ``it``: a plain name."""
    '''
    assert written(tmp_path, source) == {
        "Order": "See [`Order.pay`][written.Order.pay], [`written.ship`][written.ship] and [`Path`][pathlib.Path], but "
        "not `lost`.",
        "ship": "Ship ``it``: a plain name.",
    }


def test_examples_become_fenced_blocks(tmp_path: Path) -> None:
    source = '''
        def ship():
            """Ship it.

            ::

                with shop:
                    ship()

                rest()

            More::

                ship()

            Args:
                none: There are none.
            """
    '''
    expected = (
        "Ship it.\n\n```python\nwith shop:\n    ship()\n\nrest()\n```\n\n"
        "More:\n\n```python\nship()\n```\n\nArgs:\n    none: There are none."
    )
    assert written(tmp_path, source) == {"ship": expected}
