"""Writing files so that none is ever half written: beside the old one first, then renamed over it."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from .problems import MigrationError


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file and its new content."""

    path: str
    """Its absolute path, without symbolic links."""
    shown: str
    """How messages name it."""
    before: bytes
    after: bytes


def write_all(files: Sequence[Rewritten]) -> None:
    """Write all files, or none of them.

    Each keeps its mode, and its owner where that is allowed. All are written beside the old ones before the first is
    renamed.

    Raises:
        MigrationError: One of them cannot be written, or was changed since it was read. Nothing has been touched,
            unless the message says that one could not be replaced: those before it have been.
    """
    staged: list[tuple[str, Rewritten]] = []
    try:
        for file in files:
            with _named(file, "cannot be written"):
                staged.append((_stage(file), file))
        while staged:
            beside, file = staged[0]
            with _named(file, "could not be replaced"):
                os.replace(beside, file.path)
            del staged[0]
    finally:
        for beside, _file in staged:
            with contextlib.suppress(OSError):
                os.unlink(beside)


@contextlib.contextmanager
def _named(file: Rewritten, what: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise MigrationError(f"{file.shown} {what}: {error.strerror or error}") from error


def _stage(file: Rewritten) -> str:
    """Write a file's new content beside it and return where."""
    if not os.access(file.path, os.W_OK):
        raise PermissionError(0, "it is read-only")
    with open(file.path, "rb") as now:
        if now.read() != file.before:
            raise MigrationError(f"{file.shown} was changed since it was read: run the command again")
        status = os.fstat(now.fileno())
    folder, name = os.path.split(file.path)
    descriptor, beside = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
    try:
        with open(descriptor, "wb") as new:
            new.write(file.after)
            with contextlib.suppress(PermissionError, AttributeError):
                os.chown(beside, status.st_uid, status.st_gid)
            os.chmod(beside, stat.S_IMODE(status.st_mode))
            new.flush()
            os.fsync(new.fileno())
    except BaseException:
        os.unlink(beside)
        raise
    return beside
