"""A database of its own for each process of a test run, copied from one template where the database can copy."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from uuid import uuid4

from sqlalchemy import URL, Connection, MetaData, make_url
from sqlalchemy.exc import DBAPIError

from ..errors import ToolsetsError
from .administration import CALLER, Backend, CopyingBackend, fill, lock_path, locked
from .engines import DatabaseURLError, is_memory_database, parsed_url, shown
from .servers import MariaDB, PostgreSQL
from .sessions import metadata_of
from .sqlite_files import SQLiteFiles

_BACKENDS: dict[str, Callable[[URL], Backend]] = {
    "mariadb": MariaDB,
    "mysql": MariaDB,
    "postgresql": PostgreSQL,
    "sqlite": SQLiteFiles,
}
_LONGEST_STEM = 24  # of a name's 63 characters on PostgreSQL; the run, the worker and a number come behind it
_numbers = itertools.count(1)


class WorkerDatabaseError(ToolsetsError, RuntimeError):
    """No database can be made beside the one of the URL, or it cannot be prepared; the message says why."""


@contextmanager
def create_worker_database(
    database_url: str | URL,
    base: type[object] | MetaData | None = None,
    *,
    prepare: Callable[[Connection], object] | None = None,
) -> Generator[URL]:
    """Make a database for this process beside the one of the URL, and remove it when the block ends.

    ::

        @pytest.fixture(scope="session")
        def worker_database_url():
            with create_worker_database("postgresql+asyncpg://user@localhost/app", Base) as url:
                yield url

    Under pytest-xdist each worker gets its own. On PostgreSQL the first of them makes a template, with the tables and
    what ``prepare`` adds, while the others wait, and every worker gets a copy of it, which takes a fraction of the
    time; the last to end removes the template. On SQLite the same is done with files, in the folder of the file that
    the URL names. MariaDB has no templates: there each worker's database is made from the beginning. The database of
    the URL itself is only used to connect to; nothing in it is changed. It may be called where an event loop runs, and
    blocks it. What a worker leaves that crashes, only the fixture ``worker_database_url`` removes.

    Args:
        database_url: A database that exists, on the server to use, with a sync or an async driver; on SQLite a file,
            which need not be there. The user has to be allowed to create databases.
        base: The declarative base of the models, or their ``MetaData``: the tables to create.
        prepare: Called with a connection, in a transaction and after the tables were created: migrates, or adds rows
            that every test finds. It gets a sync ``Connection`` whatever the driver, as ``run_sync`` does.

    Yields:
        The URL of the new database, with the driver and the user of the one given.

    Raises:
        DatabaseURLError: The URL cannot be read, or its driver is not installed.
        ModelBaseError: ``base`` has no ``MetaData``.
        WorkerDatabaseError: The database cannot be reached, its user may not create others, ``prepare`` is an async
            function, or the URL names an SQLite database in memory, of which each engine has its own anyway.
    """
    with WorkerDatabase(database_url, base, prepare).provided() as url:
        yield url


class WorkerDatabase:
    """One process's database: how it is called, how it is made and how it is removed.

    Attributes:
        server: The URL that it is reached by, with its password.
        prefix: With what the names of all databases begin that this test run makes from the same template.
    """

    def __init__(
        self,
        database_url: str | URL,
        base: type[object] | MetaData | None,
        prepare: Callable[[Connection], object] | None,
    ) -> None:
        """Decide on the names."""
        url = parsed_url(database_url, CALLER)
        self._metadata = None if base is None else metadata_of(base, CALLER)
        self._prepare = prepare
        self._backend = _backend_of(url)
        self.server: str = self._backend.server.render_as_string(hide_password=False)
        self._worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
        self._alone = run is None
        contents = (
            run or (os.getpid(), uuid4().hex),
            sorted(self._metadata.tables) if self._metadata else (),
            getattr(prepare, "__module__", None),
            getattr(prepare, "__qualname__", None),
        )
        digest = hashlib.blake2s(repr(contents).encode(), digest_size=6).hexdigest()
        self.prefix: str = f"{self._backend.stem[:_LONGEST_STEM]}_{digest}"

    @contextmanager
    def provided(self, *, keep_template: bool = False) -> Generator[URL]:
        """Make the database and remove it, and the template with the last one, unless somebody else sees to that."""
        backend = self._backend
        name = f"{self.prefix}_{self._worker}_{next(_numbers)}"
        if self._alone or not isinstance(backend, (PostgreSQL, SQLiteFiles)):
            self._make(name)
            try:
                yield backend.url_of(name)
            finally:
                backend.drop(name)
            return
        template = f"{self.prefix}_template"
        with locked(self.prefix):
            try:
                self._copy(backend, template, name)
            except (DatabaseURLError, WorkerDatabaseError):  # there is nothing, or nobody can ask
                lock_path(self.prefix).unlink()
                raise
            except BaseException:
                self._leave(template, keep_template=keep_template)
                raise
        try:
            yield backend.url_of(name)
        finally:
            with locked(self.prefix):
                backend.drop(name)
                self._leave(template, keep_template=keep_template)

    def _leave(self, template: str, *, keep_template: bool) -> None:
        """Remove the template with the last copy, and the lock with the last database."""
        left = self._backend.names(self.prefix)
        if left == [template] and not keep_template:
            self._backend.drop(template)
            left = []
        if not left:
            lock_path(self.prefix).unlink()

    def _copy(self, backend: CopyingBackend, template: str, name: str) -> None:
        with self._explained(template):
            there = backend.names(self.prefix)
        if template not in there:
            building = f"{self.prefix}_building"
            backend.drop(building)  # a worker may have been killed here
            self._make(building)
            backend.rename(building, template)
        backend.copy(template, name)

    def _make(self, name: str) -> None:
        backend = self._backend
        with self._explained(name):
            backend.create(name)
        try:
            fill(backend.url_of(name), self._metadata, self._prepared)
        except BaseException:
            backend.drop(name)
            raise

    @contextmanager
    def _explained(self, name: str) -> Generator[None]:
        try:
            yield
        except (DBAPIError, OSError) as error:  # asyncpg passes on what the network says as it is
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise WorkerDatabaseError(
                f"{CALLER} could not create the database {name} beside {shown(make_url(self.server))}: {reason}. "
                "Give it the URL of a database that is there, and a user who may create others "
                "(PostgreSQL: ALTER ROLE … CREATEDB, MariaDB: GRANT CREATE)"
            ) from error

    def _prepared(self, connection: Connection) -> None:
        if self._prepare is None:
            return
        result = self._prepare(connection)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise WorkerDatabaseError(
                f"{CALLER} was given the async function {getattr(self._prepare, '__qualname__', self._prepare)} as "
                "prepare, which nobody awaits: its connection is a sync one, so write it with `def`"
            )


def sweep(server: str, prefix: str) -> None:
    """Remove every database whose name begins with the prefix of a test run that has ended, and its lock."""
    backend = _backend_of(make_url(server))
    for name in backend.names(prefix):
        backend.drop(name)
    lock_path(prefix).unlink(missing_ok=True)


def _backend_of(url: URL) -> Backend:
    if is_memory_database(url) or (url.database or "").startswith("file:"):
        raise WorkerDatabaseError(
            f"{CALLER} was given {shown(url)}, which names no file to copy: give it a path, such as "
            "sqlite+aiosqlite:///tests.db, or use create_db_session(), whose databases in memory nobody shares"
        )
    backend = _BACKENDS.get(url.get_backend_name())
    if backend is None:
        raise DatabaseURLError(f"{CALLER} cannot use {shown(url)}: name one of the databases {', '.join(_BACKENDS)}")
    return backend(url)
