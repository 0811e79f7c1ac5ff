"""On a terminal a large project shows how far it has come, and the diff has colours."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TIMEOUT = 120


def shown_on_a_terminal(folder: Path) -> str:
    """Run the command on a pseudo-terminal and return all that it wrote there."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100"}
    for name in ("NO_COLOR", "FORCE_COLOR", "CI"):
        environment.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-m", "fastapi_toolsets.cli", "migrate", "v3", "."],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        written = b""
        while chunk := _read(ours):
            written += chunk
        assert process.wait(TIMEOUT) == 1
    os.close(ours)
    return written.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


@pytest.mark.parametrize(("files", "bar"), [(1, False), (60, True)])
def test_bar_and_colours(files: int, bar: bool, tmp_path: Path) -> None:  # noqa: FBT001 -- a parameter of the test
    for number in range(files):
        (tmp_path / f"app{number}.py").write_text(
            "from sqlalchemy.orm import sessionmaker\nS = sessionmaker()\n", encoding="utf-8"
        )
    written = shown_on_a_terminal(tmp_path)
    assert ("Reading" in written) == bar
    assert "\x1b[32m+S = sessionmaker(class_=SyncEventSession)" in written
