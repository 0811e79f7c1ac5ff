"""How databases are made and removed, whatever they are: what a backend can do, locks, and work by any driver."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
from sqlalchemy import URL, Connection, MetaData
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.pool import NullPool

from .engines import make_async_engine, make_sync_engine

T = TypeVar("T")

CALLER = "create_worker_database()"
_LOCK_TIMEOUT_SECONDS = 600.0  # as long as somebody else's migrations may take
_LOCK_FAILURES = 20  # before it is taken for a disk that does not work


class Backend(Protocol):
    """What can be done with the databases of one server, or with the SQLite files of one folder, by name."""

    stem: str
    """The name of the database in the URL, as the beginning of other names."""
    server: URL
    """The URL that it is reached by, from whichever folder."""

    def url_of(self, name: str) -> URL:
        """Return the URL of a database."""
        ...

    def names(self, prefix: str) -> list[str]:
        """Return the names of all databases that begin with the prefix."""
        ...

    def create(self, name: str) -> None:
        """Make an empty database."""
        ...

    def drop(self, name: str) -> None:
        """Remove a database, if it is there, whoever is connected to it."""
        ...


class CopyingBackend(Backend, Protocol):
    """One that can copy a database faster than make one."""

    def rename(self, name: str, new: str) -> None:
        """Give a database its final name, after which only copies of it are made."""
        ...

    def copy(self, name: str, new: str) -> None:
        """Copy a database that nobody is connected to."""
        ...


def stem_of(database: str) -> str:
    """Return a database's name as the beginning of other names, with nothing in it that would have to be quoted."""
    return re.sub(r"\W", "_", database, flags=re.ASCII).lower() or "tests"


def lock_path(name: str) -> Path:
    """Return where the lock of that name is."""
    return Path(tempfile.gettempdir()) / f"{name}.lock"


@contextmanager
def locked(name: str) -> Generator[None]:
    """Keep this machine's other processes from blocks of the same name; a process that is killed lets go of it.

    An exclusive transaction on an empty SQLite file is such a lock on every system, without another dependency. Whoever
    holds it may remove the file: those who wait for it notice, and lock the new one.
    """
    path = lock_path(name)
    failures = 0
    while True:
        path.touch()
        waited_for = _identity(path)
        with closing(sqlite3.connect(path, timeout=_LOCK_TIMEOUT_SECONDS, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                failures += 1
                if failures > _LOCK_FAILURES or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_IOERR:
                    raise
                continue  # on some file systems a file cannot be asked for its size once it was removed
            if waited_for is not None and _identity(path) == waited_for:
                yield
                return


def _identity(path: Path) -> int | None:
    """Return which file it is, of those that had the same name one after the other."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def administer(url: URL, work: Callable[[Connection], T], **options: Any) -> T:  # noqa: ANN401 - those of create_engine
    """Call ``work`` with a connection of its own, and return what it returns.

    With an async driver it runs on a loop in a thread of its own, so it may be called where a loop runs already.
    """
    if not _is_async(url):
        engine = make_sync_engine(url, CALLER, {"poolclass": NullPool, **options})
        try:
            with engine.connect() as connection:
                return work(connection)
        finally:
            engine.dispose()

    async def connect() -> T:
        engine = make_async_engine(url, CALLER, {"poolclass": NullPool, **options})
        try:
            async with engine.connect() as connection:
                return await connection.run_sync(work)
        finally:
            await engine.dispose()

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(anyio.run, connect).result()


def _is_async(url: URL) -> bool:
    try:
        return url.get_dialect().is_async
    except NoSuchModuleError:
        return False  # making the engine says what is wrong


def fill(url: URL, metadata: MetaData | None, prepare: Callable[[Connection], object] | None) -> None:
    """Create the tables in a new database, and let the suite add to it."""

    def work(connection: Connection) -> None:
        with connection.begin():
            if metadata is not None:
                metadata.create_all(connection)
            if prepare is not None:
                prepare(connection)

    administer(url, work)
