"""A program that forks in each place where callbacks run; ``test_forks.py`` runs it and reads what it prints.

``python -m tests.faults.forking URL WAY``: in each place the parent commits order 1, forks as ``WAY`` says, commits 2
while the child waits, lets the child commit 3, 4, and on a loop that it runs itself, waits for its end, and commits 5.
Both print what their callbacks were told.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import anyio.lowlevel
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import sessionmaker

from fastapi_toolsets.db import enable_sqlite_savepoints
from fastapi_toolsets.models import Changes, ModelEvent, SyncEventSession, listens_for

from .models import Order
from .places import PLACES, Place, in_script, on_running_loop

Way = Callable[[Callable[[], None]], Callable[[], int]]
"""Starts a child that calls a function; returns how to wait for its exit status."""


class Program:
    """A process with an engine, a place to commit in, and callbacks."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url)
        enable_sqlite_savepoints(self.engine)
        self.factory = sessionmaker(self.engine, class_=SyncEventSession)
        self.told: list[str] = []
        listens_for(Order)(self.note)

    async def note(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await anyio.lowlevel.checkpoint()
        self.told.append(f"{event_type} {order.status}")

    def commit(self, status: str) -> None:
        with self.factory() as session:
            last = session.scalar(select(func.max(Order.id))) or 0
            session.add(Order(id=last + 1, status=status))
            session.commit()
        self.engine.dispose()  # no connection survives a fork

    def work(self, place: Place, way: Way) -> None:
        """Fork in a place, and commit on both sides; only the parent comes back."""
        self.told = []
        place.visit(lambda: self.commit("1"))
        wait_for_ending_threads()
        may_go, let_go = os.pipe()

        def child() -> None:
            self.told.clear()
            os.read(may_go, 1)
            place.visit(lambda: self.commit("3"))
            place.visit(lambda: self.commit("4"))
            on_running_loop(lambda: self.commit("on a loop"))  # the child's, wherever it has begun
            gc.collect()  # what the parent's other threads had is garbage here
            print(f"{place}: child: {', '.join(self.told)}", flush=True)  # noqa: T201 - the test reads it

        wait = way(child)
        place.visit(lambda: self.commit("2"))
        os.write(let_go, b"!")
        status = wait()
        os.close(may_go)
        os.close(let_go)
        place.visit(lambda: self.commit("5"))
        print(f"{place}: parent: {', '.join(self.told)}; status {status}", flush=True)  # noqa: T201 - as above


def wait_for_ending_threads() -> None:
    """Return when no thread is about to end.

    While one that has used greenlets does, greenlet holds a lock of the process: a child forked at that moment would
    wait for it for ever when it ends itself. ``join()`` returns a little before the operating system's thread is gone.
    """
    for thread in threading.enumerate():
        if thread.name == "AnyIO worker thread" and thread is not threading.current_thread():
            thread.join()
    tasks = Path("/proc/self/task")
    while tasks.exists() and len(list(tasks.iterdir())) > threading.active_count():
        os.sched_yield()


def by_fork(child: Callable[[], None]) -> Callable[[], int]:
    """Fork, and let the child leave as any program does."""
    identifier = os.fork()
    if identifier == 0:
        child()
        sys.exit(0)
    return lambda: os.waitstatus_to_exitcode(os.waitpid(identifier, 0)[1])


def by_multiprocessing(child: Callable[[], None]) -> Callable[[], int]:
    """Fork as multiprocessing does."""
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()

    def wait() -> int:
        process.join()
        return -1 if process.exitcode is None else process.exitcode

    return wait


def work_there(program: Program, place: Place) -> None:
    """Fork where the parent's commit stands: the child is a copy of that place, and commits in it directly."""
    here = Place(place.name, in_script, place.backend)
    place.visit(lambda: program.work(here, by_multiprocessing))


WAYS: dict[str, Callable[[Program, Place], None]] = {
    "fork": lambda program, place: program.work(place, by_fork),
    "multiprocessing": lambda program, place: program.work(place, by_multiprocessing),
    "multiprocessing in the place itself": work_there,
}


def main() -> None:
    url, way = sys.argv[1:]
    # The helper threads are what the test is about; Python 3.12 and later say that they may be a danger to the child.
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*", category=DeprecationWarning)
    program = Program(url)
    for place in PLACES:
        WAYS[way](program, place)
    program.engine.dispose()


if __name__ == "__main__":
    main()
