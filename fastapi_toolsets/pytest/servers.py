"""Databases on a server, by name: PostgreSQL, which copies them, and MariaDB, which does not."""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from .administration import administer, stem_of


class _Server:
    """What both have in common: databases are made over a connection to the one that the URL names."""

    _list_names: str

    def __init__(self, url: URL) -> None:
        """Remember where the server is."""
        self.server: URL = url
        self.stem: str = stem_of(url.database or "")

    def url_of(self, name: str) -> URL:
        """Return the URL of a database."""
        return self.server.set(database=name)

    def names(self, prefix: str) -> list[str]:
        """Return the names of all databases that begin with the prefix."""
        return sorted(name for name in self._send(self._list_names) if name.startswith(prefix))

    def create(self, name: str) -> None:
        """Make an empty database."""
        self._send(f"CREATE DATABASE {name}")

    def _send(self, *statements: str) -> list[str]:
        """Send statements, outside of any transaction; return what the last of them lists."""

        def work(connection: Connection) -> list[str]:
            results = [connection.execute(text(statement)) for statement in statements]
            return list(results[-1].scalars()) if results[-1].returns_rows else []

        return administer(self.server, work, isolation_level="AUTOCOMMIT")


class PostgreSQL(_Server):
    """Copies a database on the server's side, which takes a fraction of what making its tables does."""

    _list_names = "SELECT datname FROM pg_database"

    def rename(self, name: str, new: str) -> None:
        """Give the template its final name, and let nobody connect to it: it could not be copied meanwhile."""
        self._send(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false", f"ALTER DATABASE {name} RENAME TO {new}")

    def copy(self, name: str, new: str) -> None:
        """Copy a database that nobody is connected to."""
        self._send(f"CREATE DATABASE {new} TEMPLATE {name}")

    def drop(self, name: str) -> None:
        """Remove a database, if it is there, and end the connections that a test has left open."""
        self._send(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class MariaDB(_Server):
    """Makes each database from the beginning, with the character set of the one in the URL."""

    _list_names = "SHOW DATABASES"

    def create(self, name: str) -> None:
        """Make an empty database that keeps and sorts text as the one of the URL does."""
        (charset,) = self._send("SELECT @@character_set_database")
        (collation,) = self._send("SELECT @@collation_database")
        self._send(f"CREATE DATABASE {name} CHARACTER SET {charset} COLLATE {collation}")

    def drop(self, name: str) -> None:
        """Remove a database, if it is there, and end the connections that a test has left open.

        Where one of them is in a transaction it would be waited for, by default for a day.
        """
        connected = f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"  # noqa: S608 - the name is ours
        for number in self._send(connected):
            with suppress(DBAPIError):  # it has ended meanwhile
                self._send(f"KILL {number}")
        self._send(f"DROP DATABASE IF EXISTS {name}")
