"""A database for each worker: made from one template, filled, and gone when the run has ended."""

from __future__ import annotations

import re
import shutil
import tempfile
import uuid
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import anyio
import pytest
from sqlalchemy import URL, Connection, Table, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from fastapi_toolsets.pytest import (
    DatabaseURLError,
    ModelBaseError,
    WorkerDatabaseError,
    create_db_session,
    create_sync_db_session,
    create_worker_database,
)
from fastapi_toolsets.pytest.administration import lock_path, locked

from ..databases import TYPES, Database, TestRunDatabases
from .suites import Result, Suite

DRIVERS = {
    "sqlite+pysqlite": "sqlite",
    "sqlite+aiosqlite": "sqlite",
    "postgresql+psycopg": "postgresql",
    "postgresql+asyncpg": "postgresql",
    "mysql+pymysql": "mariadb",
    "mysql+asyncmy": "mariadb",
}


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str]


def add_order(connection: Connection) -> None:
    connection.execute(cast("Table", Order.__table__).insert(), {"id": 7, "status": "seeded"})


@dataclass
class Server:
    """A database of this test run, and what lies beside it."""

    database: Database
    driver: str

    @property
    def url(self) -> URL:
        return self.database.url.set(drivername=self.driver)

    def beside(self) -> list[str]:
        """The names of the databases made from the one of the URL."""
        assert self.url.database is not None
        if self.database.name == "sqlite":
            path = Path(self.url.database)
            return sorted(found.name for found in path.parent.glob(f"{path.stem[:24]}*") if found != path)
        listing = "SHOW DATABASES" if self.database.name == "mariadb" else "SELECT datname FROM pg_database"
        engine = self.database.create_engine(poolclass=NullPool)
        with engine.connect() as connection:
            names = list(connection.scalars(text(listing)))
        engine.dispose()
        return sorted(name for name in names if name.startswith(self.url.database[:24]) and name != self.url.database)

    def order_ids(self, url: URL) -> list[int]:
        engine = create_engine(url.set(drivername=self.database.sync_url.drivername), poolclass=NullPool)
        try:
            with engine.connect() as connection:
                return list(connection.scalars(select(Order.id)))
        finally:
            engine.dispose()


@pytest.fixture(params=DRIVERS)
def server(request: pytest.FixtureRequest, test_run_databases: TestRunDatabases, tmp_path: Path) -> Server:
    return Server(test_run_databases.provide(DRIVERS[request.param], tmp_path), request.param)


@pytest.fixture(autouse=True)
def in_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget that this test itself may run in a worker."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_lock_is_left(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    folder = tmp_path_factory.mktemp("locks")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


def as_worker(monkeypatch: pytest.MonkeyPatch, worker: str, run: str) -> None:
    """Stand where a worker of pytest-xdist stands."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", run)


def test_alone_it_is_made_and_removed(server: Server) -> None:
    with create_worker_database(server.url, Base, prepare=add_order) as url:
        assert url.drivername == server.driver
        assert url.database != server.url.database
        assert server.order_ids(url) == [7]
        with create_worker_database(server.url, Base) as second:
            assert (server.order_ids(second), server.order_ids(url)) == ([], [7])
            assert len(server.beside()) == 2
    assert server.beside() == []


def test_workers_share_a_template_where_there_are_any(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    run = uuid.uuid4().hex
    prepared: list[str] = []

    def prepare(connection: Connection) -> None:
        prepared.append(connection.engine.dialect.name)
        add_order(connection)

    as_worker(monkeypatch, "gw0", run)
    with create_worker_database(server.url, Base, prepare=prepare) as first:
        as_worker(monkeypatch, "gw1", run)
        with create_worker_database(server.url, Base, prepare=prepare) as second:
            assert (server.order_ids(first), server.order_ids(second)) == ([7], [7])
            assert first != second
            copies = server.database.name != "mariadb"
            assert len(prepared) == (1 if copies else 2)
            assert len(server.beside()) == (3 if copies else 2)
    assert server.beside() == []


def test_nothing_is_left_when_the_test_or_the_preparation_fails(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(connection: Connection) -> None:
        raise ZeroDivisionError

    as_worker(monkeypatch, "gw0", uuid.uuid4().hex)
    for prepare in (fail, add_order, fail):
        with pytest.raises(ZeroDivisionError), create_worker_database(server.url, Base, prepare=prepare):
            raise ZeroDivisionError
        assert server.beside() == []


def test_lock_lets_one_in_at_a_time_also_where_its_file_is_removed() -> None:
    inside: list[int] = []
    seen: list[int] = []

    def enter(number: int) -> None:
        for turn in range(5):
            with locked("shared"):
                inside.append(number)
                seen.append(len(inside))
                inside.remove(number)
                if (number + turn) % 2:
                    lock_path("shared").unlink()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(enter, range(6)))
    assert seen == [1] * 30
    lock_path("shared").unlink(missing_ok=True)


@pytest.mark.parametrize("in_transaction", [False, True])
def test_connections_left_open_do_not_keep_it(server: Server, *, in_transaction: bool) -> None:
    """PostgreSQL would refuse to drop it, and MariaDB wait for the end of a transaction, for a day."""
    with create_worker_database(server.url, Base) as url:
        forgotten = create_engine(url.set(drivername=server.database.sync_url.drivername), poolclass=NullPool)
        connection = forgotten.connect()
        assert list(connection.scalars(select(Order.id))) == []
        if not in_transaction:
            connection.commit()
    assert server.beside() == []
    connection.invalidate()
    connection.close()


def test_folder_that_a_test_changes_to_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    with create_worker_database("sqlite:///orders.db", Base, prepare=add_order) as url:
        monkeypatch.chdir(elsewhere)
        with create_sync_db_session(url, Base) as session:
            assert list(session.scalars(select(Order.id))) == [7]
    assert list(tmp_path.rglob("*")) == [elsewhere]


def test_where_an_event_loop_runs(server: Server) -> None:
    async def make() -> list[str]:
        with create_worker_database(server.url, Base) as url:
            if url.get_dialect().is_async:
                async with create_db_session(url, Base) as session:
                    session.add(Order(id=1, status="new"))
                    await session.commit()
            else:
                with create_sync_db_session(url, Base) as sync_session:
                    sync_session.add(Order(id=1, status="new"))
                    sync_session.commit()
        return server.beside()

    assert anyio.run(make) == []


def test_user_who_may_not_create_databases_is_told(test_run_databases: TestRunDatabases, tmp_path: Path) -> None:
    database = test_run_databases.provide("postgresql", tmp_path)
    role = f"toolsets_{uuid.uuid4().hex[:12]}"
    administrator = database.create_engine(poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'hidden'"))
        try:
            url = database.sync_url.set(username=role, password="hidden")  # noqa: S106 - of this test only
            with pytest.raises(WorkerDatabaseError, match="ALTER ROLE … CREATEDB") as caught:  # noqa: SIM117 - one raises
                with create_worker_database(url, Base):
                    pytest.fail("the block must not run")
            assert "hidden" not in str(caught.value)
        finally:
            connection.execute(text(f"DROP ROLE {role}"))
    administrator.dispose()


def test_database_that_is_not_there_is_named(test_run_databases: TestRunDatabases, tmp_path: Path) -> None:
    url = test_run_databases.provide("postgresql", tmp_path).sync_url.set(database="nonesuch")
    message = (
        r'beside .*/nonesuch: .*"nonesuch" does not exist\. Give it the URL of a database that is there, and a user '
    )
    with pytest.raises(WorkerDatabaseError, match=message), create_worker_database(url, Base):
        pytest.fail("the block must not run")


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("nonsense", DatabaseURLError, "cannot be read"),
        ("sqlite://", WorkerDatabaseError, "names no file to copy"),
        ("sqlite+aiosqlite:///file:orders.db?uri=true", WorkerDatabaseError, "names no file to copy"),
        ("oracle://scott:tiger@localhost/orders", DatabaseURLError, "name one of the databases"),
        ("postgresql+nonesuch://scott:tiger@localhost/orders", DatabaseURLError, "no 'postgresql\\+nonesuch'; write"),
        (
            "postgresql+asyncpg://scott:tiger@localhost:1/orders",
            WorkerDatabaseError,
            r"localhost:1/orders: .*Connect call",
        ),
        ("postgresql+psycopg://scott:tiger@localhost:1/orders", WorkerDatabaseError, r"localhost:1/orders: connection"),
    ],
)
@pytest.mark.parametrize("worker", [None, "gw0"])
def test_url_that_cannot_work_is_refused(
    url: str, error: type[Exception], message: str, worker: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if worker is not None:
        as_worker(monkeypatch, worker, uuid.uuid4().hex)
    with pytest.raises(error, match=message) as caught, create_worker_database(url, Base):
        pytest.fail("the block must not run")
    assert "tiger" not in str(caught.value)


def test_what_has_no_tables_is_refused() -> None:
    with pytest.raises(ModelBaseError), create_worker_database("sqlite:///orders.db", int):
        pytest.fail("the block must not run")


def test_what_cannot_be_prepared_is_refused(tmp_path: Path) -> None:
    async def prepare(connection: Connection) -> None:
        pytest.fail("nobody awaits it")

    url = f"sqlite:///{tmp_path}/orders.db"
    message = r"was given the async function .*\.prepare as prepare"
    with pytest.raises(WorkerDatabaseError, match=message), create_worker_database(url, Base, prepare=prepare):
        pytest.fail("the block must not run")
    assert list(tmp_path.iterdir()) == []


# Under pytest-xdist, with the fixtures.

CONFTEST = """
    import json, os, pathlib
    import pytest
    from fastapi_toolsets.pytest import rolled_back_session
    from models import Base, Order

    LOG = pathlib.Path(__file__).parent / "log"
    LOG.mkdir(exist_ok=True)

    def log(kind, text=""):
        with (LOG / f"{kind}-{os.getpid()}").open("a") as file:
            file.write(text + chr(10))

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.fixture(scope="session")
    def database_url():
        return os.environ["SUITE_DATABASE"]

    @pytest.fixture(scope="session")
    def model_base():
        return Base

    @pytest.fixture(scope="session")
    def prepare_database():
        def seed(connection):
            log("prepared")
            connection.execute(Order.__table__.insert(), {"id": 7, "status": "seeded"})
        return seed

    @pytest.fixture
    async def db_session(worker_database_url):
        log("database", worker_database_url.database)
        async with rolled_back_session(worker_database_url) as session:
            yield session
"""

ASYNC_TESTS = """
    import pytest
    from sqlalchemy import select
    from fastapi_toolsets.pytest import created
    from models import Order

    @pytest.mark.anyio
    @pytest.mark.parametrize("number", range(12))
    async def test_order(db_session, event_recorder, number):
        assert list(await db_session.scalars(select(Order.id))) == [7]
        db_session.add(Order(id=1))
        await db_session.commit()
        assert event_recorder == [created(Order, 1)]
"""

SYNC_TESTS = """
    import os
    import pytest
    from sqlalchemy import select
    from fastapi_toolsets.pytest import created
    from conftest import log
    from models import Order

    @pytest.mark.parametrize("number", range(12))
    def test_order(rolled_back_sync_session, event_recorder, number, worker_database_url):
        log("database", worker_database_url.database)
        assert list(rolled_back_sync_session.scalars(select(Order.id))) == [7]
        rolled_back_sync_session.add(Order(id=1))
        rolled_back_sync_session.commit()
        assert event_recorder == [created(Order, 1)]

    def test_crash(worker_database_url):
        if "SUITE_CRASHES" in os.environ and os.environ["PYTEST_XDIST_WORKER"] in ("gw0", "gw1"):
            os._exit(3)
"""


def logged(suite: Suite, kind: str) -> list[str]:
    """What the suite's processes have logged, without what they repeat."""
    return sorted({line for path in (suite.folder / "log").glob(f"{kind}-*") for line in path.read_text().splitlines()})


def prepared_times(suite: Suite) -> int:
    return sum(len(path.read_text().splitlines()) for path in (suite.folder / "log").glob("prepared-*"))


def run_with(suite: Suite, server: Server, *arguments: str, **environment: str) -> Result:
    suite.write("conftest.py", CONFTEST)
    suite.write("test_orders.py", ASYNC_TESTS if server.url.get_dialect().is_async else SYNC_TESTS)
    temporary = suite.folder / "temporary"
    temporary.mkdir()
    environment |= {"SUITE_DATABASE": server.url.render_as_string(hide_password=False), "TMPDIR": str(temporary)}
    result = suite.run(*arguments, environment=environment)
    assert (server.beside(), list(temporary.glob("*.lock"))) == ([], []), result.output
    return result


@pytest.mark.parametrize(
    "server", ["sqlite+aiosqlite", "postgresql+psycopg", "postgresql+asyncpg", "mysql+pymysql"], indirect=True
)
def test_workers_of_a_run_have_their_own_databases(server: Server, suite: Suite) -> None:
    result = run_with(suite, server, "-n", "2")
    assert result.outcomes == {"passed": 12 if server.url.get_dialect().is_async else 13}, result.output
    databases = logged(suite, "database")
    workers = [match[1] for name in databases if (match := re.search(r"_(gw\d)_\d+(\.sqlite)?$", name))]
    assert sorted(workers) == ["gw0", "gw1"]
    assert prepared_times(suite) == (2 if server.database.name == "mariadb" else 1)


@pytest.mark.parametrize("server", ["sqlite+pysqlite"], indirect=True)
def test_without_workers_there_is_one_database(server: Server, suite: Suite) -> None:
    for arguments in (("-n", "0"), ("-p", "no:xdist")):
        result = run_with(suite, server, *arguments)
        assert result.outcomes == {"passed": 13}, result.output
        assert (len(logged(suite, "database")), prepared_times(suite)) == (1, 1)
        shutil.rmtree(suite.folder / "log")
        shutil.rmtree(suite.folder / "temporary")


@pytest.mark.parametrize("server", ["postgresql+psycopg"], indirect=True)
def test_what_a_crashed_worker_leaves_is_removed(server: Server, suite: Suite) -> None:
    result = run_with(suite, server, "-n", "2", SUITE_CRASHES="yes")
    assert result.outcomes == {"failed": 1, "passed": 12}, result.output
    assert "crashed while running 'test_orders.py::test_crash'" in result.output


def test_suite_without_a_database_url_is_told_what_to_write(suite: Suite) -> None:
    suite.write("test_orders.py", "def test_order(worker_database_url): pass")
    result = suite.run()
    assert result.outcomes == {"error": 1}
    assert "the fixture database_url is yours to write: in conftest.py define a fixture" in result.output
