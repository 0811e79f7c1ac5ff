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


WHILE_LOCKS_ARE_HELD = """
import os, signal, threading
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from fastapi_toolsets.events import add_observer, observation, registry, session
from fastapi_toolsets.models import SyncEventSession, listens_for
from tests.faults.models import Base, Order

held, may_end = threading.Event(), threading.Event()

def hold():
    with registry.registry._lock.current, observation._changing.current, session._installing.current:
        held.set()
        may_end.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    listens_for(Order)(lambda order, event_type, changes: print(event_type, flush=True))
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with sessionmaker(engine, class_=SyncEventSession).begin() as session:
        session.add(Order(id=1, status="new"))
    add_observer(object())
    os._exit(0)
status = os.waitpid(child, 0)[1]
may_end.set()
thread.join()
print(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_fork_while_a_thread_registers() -> None:
    """N5: the child, which has no such thread, can register and commit nevertheless."""
    program = subprocess.run(
        [sys.executable, "-c", WHILE_LOCKS_ARE_HELD], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert program.stdout.splitlines() == ["create", "0"]


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
