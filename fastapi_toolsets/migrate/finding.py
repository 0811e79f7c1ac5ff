"""Which files a command line means: paths to files, and folders with all that is below them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from .problems import MigrationError

_PASSED_BY = {"__pycache__", "node_modules", "site-packages"}


def find_files(paths: Iterable[str]) -> dict[str, str]:
    """Find the Python files.

    Of a folder it is every file ``*.py`` below it, but for what lies in hidden folders and virtual environments.
    Symbolic links are followed where they were named; those that lie in a folder are passed by, since a file inside it
    is found anyway, and one outside it was not asked for.

    Args:
        paths: Files and folders.

    Returns:
        By the absolute path of each file, without symbolic links, how messages name it.

    Raises:
        MigrationError: A path does not exist or is a notebook, or a folder cannot be read.
    """
    found: dict[str, str] = {}
    for path in paths:
        if os.path.isdir(path):
            files: Iterable[str] = _python_files_below(path)
        elif path.endswith(".ipynb") and os.path.isfile(path):  # often Python to the letter, in which nothing is found
            raise MigrationError(
                f"{path} is a notebook, which cannot be rewritten: save its code as a .py file to see how"
            )
        elif os.path.isfile(path):
            files = [path]
        else:
            raise MigrationError(f"{path or repr(path)} {_why_not(path)}")
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    return found


def roots_of(files: Iterable[str], paths: Iterable[str]) -> list[str]:
    """Return the folders from which the files' absolute imports may start, the innermost first.

    Args:
        files: The files' absolute paths.
        paths: What the command line named.
    """
    here = os.path.realpath(os.curdir)
    roots: set[str] = set()
    for folder in {os.path.dirname(file) for file in files}:
        root = folder
        while os.path.isfile(os.path.join(root, "__init__.py")):
            root = os.path.dirname(root)
        roots.add(root)
        if folder == here or folder.startswith(here.rstrip(os.sep) + os.sep):
            roots.add(here)
    for path in paths:
        folder = os.path.realpath(path)
        if os.path.isdir(folder):
            roots |= {folder, os.path.dirname(folder)}
    return sorted(roots, key=lambda root: (-len(root), root))


def _why_not(path: str) -> str:
    """Return what is wrong with a path that is neither a file nor a folder."""
    try:
        os.stat(path)
    except PermissionError as error:
        return f"cannot be read: {error.strerror}"
    except OSError:
        return "does not exist"
    return "is not a file"


def _python_files_below(folder: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise MigrationError(f"{error.filename} cannot be read: {error.strerror}")

    for where, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(each for each in folders if not _is_passed_by(where, each))
        for file in sorted(files):
            path = os.path.join(where, file)
            if file.endswith(".py") and os.path.isfile(path) and not os.path.islink(path):
                yield os.path.normpath(path)


def _is_passed_by(where: str, folder: str) -> bool:
    hidden = folder.startswith(".") or folder in _PASSED_BY
    return hidden or os.path.exists(os.path.join(where, folder, "pyvenv.cfg"))
