"""Ctrl-C reaches every process of the command at once; one of them answers, and nothing has been written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastapi_toolsets.migrate.project import PROCESSES_FROM

ROOT = Path(__file__).parent.parent.parent
TIMEOUT = 120
BEFORE = "from sqlalchemy.orm import sessionmaker\n\nSession = sessionmaker()\n"

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes as Linux shows them"),
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor alone does all the work in one process"),
]


@pytest.fixture(autouse=True)
def interrupts_arrive() -> Iterator[None]:
    """Python's own handling of Ctrl-C, also where the tests were started in the background, with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def started_workers(pid: int) -> int:
    """Return how many of a process's workers have come so far that they would answer Ctrl-C, or leave it alone."""
    started = 0
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
        folder = Path("/proc", child)
        status = dict(line.split(":", 1) for line in (folder / "status").read_text(encoding="utf-8").splitlines())
        signals = [int(status[name], 16) for name in ("SigCgt", "SigBlk", "SigIgn")]
        decided = any(each & 1 << signal.SIGINT - 1 for each in signals)
        started += decided and b"spawn_main" in (folder / "cmdline").read_bytes()
    return started


@pytest.mark.parametrize("workers", [1, 2])
def test_while_the_workers_start(workers: int, tmp_path: Path) -> None:
    for number in range(PROCESSES_FROM):
        (tmp_path / f"app{number}.py").write_text(BEFORE, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-m", "fastapi_toolsets.cli", "migrate", "v3", "--write", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while started_workers(process.pid) < workers:
            assert process.poll() is None, process.communicate()
        os.killpg(process.pid, signal.SIGINT)
        output = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, output) == (130, ("", "fastapi-toolsets was interrupted.\n"))
    assert {path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {BEFORE}
