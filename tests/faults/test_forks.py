"""Rule C2 in processes that fork: the child has loops of its own, and the parent keeps its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..databases import TestRunDatabases, tables
from .forking import WAYS
from .models import Base
from .places import PLACES

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.parametrize("way", WAYS)
def test_forks(test_run_databases: TestRunDatabases, tmp_path: Path, way: str) -> None:
    """C2: async callbacks work in the child, in the parent beside it, and in the parent when the child has gone.

    Every warning is an error in the program, and none of its loops is left open.
    """
    database = test_run_databases.provide("sqlite", tmp_path)
    url = database.sync_url.render_as_string(hide_password=False)
    with tables(database, Base.metadata):
        program = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.faults.forking", url, way],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = program.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)  # a child that waits for ever, too
            output, errors = program.communicate()
    expected = [
        line
        for place in PLACES
        for line in (
            f"{place}: child: create 3, create 4, create on a loop",
            f"{place}: parent: create 1, create 2, create 5; status 0",
        )
    ]
    assert (output.splitlines(), errors, program.returncode) == (expected, "", 0)
