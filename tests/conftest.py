"""Fixtures that every test may use: databases, front-ends, and listeners that end with their test."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastapi_toolsets.events import listener_scope

from .databases import DATABASES, Database, TestRunDatabases
from .front_ends import Case, EventRecorder, PreparedCase


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # what runs next may ask the garbage collector who refers to what, as Hypothesis does


@pytest.fixture(scope="module", autouse=True)
def garbage_of_this_module() -> None:
    """Spare the garbage collector what is there before a module's tests: pytest's items, reports and imported modules.

    It would go through hundreds of thousands of objects each time, which takes longer than the tests that make garbage.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def test_run_databases() -> Iterator[TestRunDatabases]:
    databases = TestRunDatabases()
    yield databases
    databases.drop_all()


@pytest.fixture(scope="module", autouse=True)
def tables_of_this_module(test_run_databases: TestRunDatabases) -> Iterator[None]:
    """Drop, after a module's tests, the tables that stood from one of them to the next."""
    yield
    test_run_databases.drop_tables()


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, test_run_databases: TestRunDatabases, tmp_path: Path) -> Database:
    """A database under test; restrict with ``parametrize("database", ["sqlite"], indirect=True)``."""
    return test_run_databases.provide(request.param, tmp_path)


@pytest.fixture
def prepared_case(request: pytest.FixtureRequest, test_run_databases: TestRunDatabases, tmp_path: Path) -> PreparedCase:
    """The database × front-end of one scenario; the ``scenario`` decorator parametrises it."""
    case: Case = request.param
    return PreparedCase(case.front_end, test_run_databases.provide(case.database, tmp_path))


@pytest.fixture(autouse=True)
def listeners_of_this_test() -> Iterator[None]:
    """Remove, at the end of a test, the listeners registered in it."""
    with listener_scope():
        yield


@pytest.fixture
def recorder(listeners_of_this_test: None) -> EventRecorder:
    """A list of the events delivered to the callbacks that the test asked it to register."""
    return EventRecorder()
