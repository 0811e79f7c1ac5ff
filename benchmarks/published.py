"""The published library in an environment of its own: it has our import name, so no process can have both."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys

from .processes import ROOT

VERSION = "6.0.2"
_SAME_VERSIONS = ("sqlalchemy", "greenlet", "aiosqlite", "asyncpg")
"""What both sides must have alike for the comparison to be one of libraries."""


class PublishedLibraryError(RuntimeError):
    """The environment of the published library could not be made."""


def interpreter(version: str = VERSION) -> str:
    """Return the Python that has the published library, made on first use and kept in the checkout.

    It has the same Python, SQLAlchemy and drivers as this process.

    Raises:
        PublishedLibraryError: It could not be installed.
    """
    same = {name: importlib.metadata.version(name) for name in _SAME_VERSIONS}
    label = "-".join(
        [version, f"python{platform.python_version()}", *(f"{name}{found}" for name, found in same.items())]
    )
    folder = ROOT / ".benchmarks" / label
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = folder / "installed"
    if done.exists():
        return str(python)
    sys.stderr.write(f"Installing fastapi-toolsets {version} into an environment of its own ...\n")
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    requirements = [f"fastapi-toolsets=={version}", *(f"{name}=={found}" for name, found in same.items())]
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], version)
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], version)
    done.touch()
    return str(python)


def _run(command: list[str], version: str) -> None:
    finished = subprocess.run(  # noqa: S603 - an interpreter of ours
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if finished.returncode:
        msg = (
            f"fastapi-toolsets {version} could not be installed beside this environment (with --no-published the "
            f"comparison goes without it):\n{finished.stdout}"
        )
        raise PublishedLibraryError(msg)
