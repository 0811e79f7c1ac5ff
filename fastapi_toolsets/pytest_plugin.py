"""The pytest plugin: an event recorder, a scope of listeners for a test, and a database for each worker.

pytest loads this module in every run wherever the library is installed. So it imports nothing but pytest, until a test
asks for one of its fixtures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, MetaData

    from .events import EventRecorder, SyncEventSession

_SCOPE_FOR_EVERY_TEST = "event_listener_scope"
_TO_SWEEP = "fastapi_toolsets_databases"
_left_by_workers = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one setting."""
    parser.addini(
        _SCOPE_FOR_EVERY_TEST,
        "fastapi_toolsets: undo at the end of every test what it registered with listens_for, without asking for the "
        "fixture event_listener_scope",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Give every test a scope where the setting says so."""
    if config.getini(_SCOPE_FOR_EVERY_TEST):
        config.pluginmanager.register(_ScopeForEveryTest(), "fastapi_toolsets_scope_for_every_test")


class _ScopeForEveryTest:
    """Registered only where it is wanted, so that other suites do not have one more fixture in every test."""

    @pytest.fixture(autouse=True)
    def event_listener_scope_of_every_test(self, event_listener_scope: None) -> None:
        """Undo at the end of the test what it registered with ``listens_for``."""


@pytest.fixture
def event_listener_scope() -> Generator[None]:
    """Undo at the end of the test what it registered or removed with ``listens_for`` and ``remove_listener``.

    A module that the test is the first to import registers its listeners in the test, too: import it at the top.
    """
    from .events import listener_scope  # noqa: PLC0415 - see the module's docstring

    with listener_scope():
        yield


@pytest.fixture
def event_recorder() -> Generator[EventRecorder]:
    """Record what is delivered during the test, in order, whoever commits and whether anybody listens or not.

    ``assert event_recorder == [created(Order, 1)]``; see ``fastapi_toolsets.pytest.created`` and its siblings.
    """
    from .events import capture_events  # noqa: PLC0415 - see the module's docstring

    with capture_events() as recorder:
        yield recorder


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain, event by event, why a recorder does not equal what a test expects."""
    module = sys.modules.get(f"{__package__}.events")
    if module is None or op != "==":
        return None
    recorder_class: type[EventRecorder] = module.EventRecorder
    delivered, expected = (left, right) if isinstance(left, recorder_class) else (right, left)
    if not isinstance(delivered, recorder_class) or not isinstance(expected, (recorder_class, list, tuple)):
        return None
    from .events.differences import difference  # noqa: PLC0415 - see the module's docstring

    wanted: list[object] = [*expected]
    return ["what was delivered is not what was expected", *difference(delivered, wanted)]


# Databases.


@pytest.fixture(scope="session")
def database_url() -> str | URL:
    """Say where the suite's database is; a suite that uses ``worker_database_url`` has a fixture of this name."""
    pytest.fail(
        "the fixture database_url is yours to write: in conftest.py define a fixture of that name, with "
        'scope="session", that returns the URL of the database, such as "postgresql+asyncpg://user@localhost/app"',
        pytrace=False,
    )


@pytest.fixture(scope="session")
def model_base() -> type[object] | MetaData | None:
    """Name the declarative base whose tables the worker's database has; a suite overrides it."""
    return None


@pytest.fixture(scope="session")
def prepare_database() -> Callable[[Connection], object] | None:
    """Give a function that migrates or fills the worker's database; a suite may override it."""
    return None


@pytest.fixture(scope="session")
def worker_database_url(
    request: pytest.FixtureRequest,
    database_url: str | URL,
    model_base: type[object] | MetaData | None,
    prepare_database: Callable[[Connection], object] | None,
) -> Generator[URL]:
    """Give this process, pytest-xdist's worker or the only one, a database of its own for the test run.

    It is made as ``fastapi_toolsets.pytest.create_worker_database`` does, from the fixtures ``database_url``,
    ``model_base`` and ``prepare_database``, and is gone when the run ends.
    """
    from .pytest.worker_databases import WorkerDatabase  # noqa: PLC0415 - see the module's docstring

    database = WorkerDatabase(database_url, model_base, prepare_database)
    worker_output: dict[str, object] | None = getattr(request.config, "workeroutput", None)
    if worker_output is None:
        with database.provided() as url:
            yield url
        return
    # The controller removes what is left when all workers have ended: the template, and what a crashed one leaves.
    worker_output[_TO_SWEEP] = [database.server, database.prefix]
    with database.provided(keep_template=True) as url:
        yield url


@pytest.fixture
def rolled_back_sync_session(worker_database_url: URL) -> Generator[SyncEventSession]:
    """Give the test a sync session on the worker's database; what it commits is delivered, and undone at the end."""
    from .pytest import rolled_back_sync_session  # noqa: PLC0415 - see the module's docstring

    with rolled_back_sync_session(worker_database_url) as session:
        yield session


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """In the controller of pytest-xdist: note which databases a worker has used."""
    output: dict[str, list[str]] = getattr(node, "workeroutput", {})
    config: pytest.Config | None = getattr(node, "config", None)
    if config is not None and _TO_SWEEP in output:
        server, prefix = output[_TO_SWEEP]
        config.stash.setdefault(_left_by_workers, {})[prefix] = server


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In the controller of pytest-xdist: remove what the workers have left."""
    left = session.config.stash.get(_left_by_workers, None)
    if left:
        from .pytest.worker_databases import sweep  # noqa: PLC0415 - see the module's docstring

        for prefix, server in left.items():
            sweep(server, prefix)
