"""SQLite databases by name: files in the folder of the one that the URL names."""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlalchemy import URL

from .administration import stem_of

_BESIDE = ("", "-wal", "-shm", "-journal")  # what SQLite may keep beside a database, by its name's ending


class SQLiteFiles:
    """Copies a file, which takes a fraction of what making its tables does."""

    def __init__(self, url: URL) -> None:
        """Remember where the files are, whatever folder a test changes to."""
        path = Path(url.database or "").absolute()
        self.server: URL = url.set(database=str(path))
        self._folder = path.parent
        self._suffix = path.suffix
        self.stem: str = stem_of(path.stem)

    def url_of(self, name: str) -> URL:
        """Return the URL of a file."""
        return self.server.set(database=str(self._path(name)))

    def names(self, prefix: str) -> list[str]:
        """Return the names of all files that begin with the prefix."""
        return sorted(
            path.stem for path in self._folder.glob(f"{prefix}*{self._suffix}") if path.suffix == self._suffix
        )

    def create(self, name: str) -> None:
        """Make an empty file, which to SQLite is an empty database."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path(name).touch(exist_ok=False)

    def rename(self, name: str, new: str) -> None:
        """Give the template its final name."""
        self._path(name).rename(self._path(new))

    def copy(self, name: str, new: str) -> None:
        """Copy a file that nobody has opened."""
        shutil.copyfile(self._path(name), self._path(new))

    def drop(self, name: str) -> None:
        """Remove a file, if it is there, with what SQLite keeps beside it."""
        for ending in _BESIDE:
            path = self._path(name)
            path.with_name(path.name + ending).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{self._suffix}"
