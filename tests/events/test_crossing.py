"""Rule C2 in a plain thread: the loop that the library keeps there is nobody else's business."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from sqlalchemy.orm import sessionmaker

from fastapi_toolsets.events.crossing import helper_threads
from fastapi_toolsets.events.crossing.helper_threads import HelperThread
from fastapi_toolsets.events.crossing.kept_loop import KeptLoop
from fastapi_toolsets.models import Changes, ModelEvent, SyncEventSession, listens_for

from ..contract.event_models import LOCAL
from ..contract.transaction_models import Base, Order
from ..databases import Database, tables

ENOUGH = 60.0  # seconds; a time that no test uses up


@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_the_loop_is_not_made_the_threads_current_one(database: Database) -> None:
    """C2: one loop is kept and reused, and whoever asks for the thread's loop afterwards finds none."""
    engine = database.create_engine()
    factory = sessionmaker(engine, class_=SyncEventSession)
    loops: list[asyncio.AbstractEventLoop] = []

    @listens_for(Order)
    async def note(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        loops.append(asyncio.get_running_loop())

    def commit_twice() -> None:
        for number in (1, 2):
            with factory.begin() as session:
                session.add(Order(id=number))
        with pytest.raises(RuntimeError, match="no current event loop"):
            asyncio.get_event_loop()

    with tables(database, Base.metadata), ThreadPoolExecutor(1) as pool:
        pool.submit(commit_twice).result()
    engine.dispose()
    assert len(loops) == 2
    assert loops[0] is loops[1]


WITHOUT_TRIO = """
import sys
sys.modules["trio"] = None  # how Python marks what is not there
from sqlalchemy.orm import sessionmaker
from fastapi_toolsets.errors import SessionOptionError
from fastapi_toolsets.models import SyncEventSession, set_callback_backend
for choose in (lambda: set_callback_backend("trio"), sessionmaker(class_=SyncEventSession, callback_backend="trio")):
    try:
        choose()
    except SessionOptionError as error:
        print(error)
"""


def test_a_backend_that_is_not_installed() -> None:
    """C2: is refused where it is chosen, for the process or for a session."""
    refused = "the callback backend was given as 'trio', which is not installed: install trio, or give it 'asyncio'"
    program = subprocess.run([sys.executable, "-c", WITHOUT_TRIO], capture_output=True, text=True, check=True)
    assert program.stdout.splitlines() == [refused, refused]


DAEMON = """
import asyncio, threading
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool
from fastapi_toolsets.models import SyncEventSession, listens_for
from tests.contract.transaction_models import Base, Order

waits = threading.Event()

@listens_for(Order)
async def wait_for_ever(order, event_type, changes):
    waits.set()
    await asyncio.Event().wait()

def commit():
    with sessionmaker(engine, class_=SyncEventSession).begin() as session:
        session.add(Order(id=1))

engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
Base.metadata.create_all(engine)
threading.Thread(target=commit, daemon=True).start()
waits.wait()
print("ends")
"""


def test_a_daemon_thread_whose_loop_runs_as_the_process_ends() -> None:
    """C2: nobody else closes its loop, and nothing is said."""
    program = subprocess.run([sys.executable, "-c", DAEMON], capture_output=True, text=True, check=False, timeout=60)
    assert (program.stdout, program.stderr, program.returncode) == ("ends\n", "", 0)


@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_a_commit_before_the_loop_has_taken_the_first_step(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """C2: such as a signal handler's, or that of a finalizer: both commits tell what they have to."""
    engine = database.create_engine()
    factory = sessionmaker(engine, class_=SyncEventSession)
    told: list[int] = []

    @listens_for(Order)
    async def note(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        told.append(order.id)

    def commit(identity: int) -> None:
        with factory.begin() as session:
            session.add(Order(id=identity))

    advance = KeptLoop.advance

    def interrupted(loop: KeptLoop) -> None:
        monkeypatch.undo()
        commit(3)
        advance(loop)

    def script() -> None:
        commit(1)
        monkeypatch.setattr(KeptLoop, "advance", interrupted)
        commit(2)
        commit(4)

    with tables(database, Base.metadata), ThreadPoolExecutor(1) as pool:
        pool.submit(script).result(ENOUGH)
    engine.dispose()
    assert told == [1, 3, 2, 4]


@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_an_interrupt_on_the_loop_ends_the_callback_that_waits(database: Database) -> None:
    """C4: its clean-up runs, and may wait; the interrupt reaches who commits once, and a later commit finds nothing."""
    engine = database.create_engine()
    factory = sessionmaker(engine, class_=SyncEventSession)
    steps: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    @listens_for(Order)
    async def wait(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id > 1:
            steps.append("told")
            return
        asyncio.get_running_loop().call_soon(interrupt)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    with tables(database, Base.metadata):
        for number in (1, 2, 3):
            try:
                with factory.begin() as session:
                    session.add(Order(id=number))
            except KeyboardInterrupt:
                steps.append("interrupted")
    engine.dispose()
    assert steps == ["cleaned up", "interrupted", "told", "told"]


DAEMON_WITH_THREADS = """
import asyncio, threading, time
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool
from fastapi_toolsets.models import SyncEventSession, listens_for
from tests.contract.transaction_models import Base, Order

committed = threading.Event()

@listens_for(Order)
async def use_a_thread(order, event_type, changes):
    await asyncio.to_thread(print, "told", flush=True)  # which the loop keeps

def commit():
    with sessionmaker(engine, class_=SyncEventSession).begin() as session:
        session.add(Order(id=1))
    committed.set()
    time.sleep(1000)

engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
Base.metadata.create_all(engine)
threading.Thread(target=commit, daemon=True).start()
committed.wait()
print("ends")
"""


def test_a_daemon_thread_whose_loop_has_threads_as_the_process_ends() -> None:
    """C2: nobody waits for them, and nothing is said."""
    command = [sys.executable, "-c", DAEMON_WITH_THREADS]
    program = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (program.stdout, program.stderr) == ("told\nends\n", "")


@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_a_worker_thread_that_outlives_its_loop(database: Database) -> None:
    """C2: an abandoned one commits when the application's loop is gone, and its callbacks find another."""
    engine = database.create_engine()
    factory = sessionmaker(engine, class_=SyncEventSession)
    begun, let_go, ended = anyio.Event(), threading.Event(), threading.Event()
    called: list[str] = []

    @listens_for(Order)
    async def asynchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await asyncio.sleep(0)
        called.append("asynchronous")

    @listens_for(Order)
    def synchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        called.append("synchronous")

    def work() -> None:
        anyio.from_thread.run_sync(begun.set)
        let_go.wait(ENOUGH)
        with factory.begin() as session:
            session.add(Order(id=1))
        ended.set()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(anyio.to_thread.run_sync, work, abandon_on_cancel=True))
            await begun.wait()
            group.cancel_scope.cancel()

    with tables(database, Base.metadata):
        asyncio.run(main())
        let_go.set()
        assert ended.wait(ENOUGH)
    engine.dispose()
    assert called == ["asynchronous", "synchronous"]


HALFWAY = """
import importlib
import sys
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from fastapi_toolsets.models import SyncEventSession, listens_for

class Base(DeclarativeBase): ...

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)

@listens_for(Order)
async def note(order, event_type, changes, *, session):
    print(type(session).__name__, order.id)

class CommitOnTheWay:
    def find_spec(self, name, path=None, target=None):
        if name == part:
            for identity, session_class in enumerate([SyncEventSession, Session]):
                with session_class(engine) as session:
                    session.add(Order(id=identity))
                    session.commit()

package, part = sys.argv[1:]
engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
assert package not in sys.modules
sys.meta_path.insert(0, CommitOnTheWay())
importlib.import_module(package)
"""
"""Commits while a package is imported, as another thread may, just before one of its parts is."""


@pytest.mark.parametrize(
    ("package", "part"), [("trio", "trio._core"), ("sqlalchemy.ext.asyncio", "sqlalchemy.ext.asyncio.engine")]
)
def test_a_commit_while_a_package_is_half_imported(package: str, part: str) -> None:
    """C1, C2: as libraries do that try whether trio is there, and whoever is the first to ask for ``EventSession``."""
    command = [sys.executable, "-W", "ignore::UserWarning", "-c", HALFWAY, package, part]
    program = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (program.returncode, program.stdout, program.stderr) == (0, "SyncEventSession 0\n", "")


WHILE_A_HELPER_STARTS = """
import asyncio, signal, sys
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from fastapi_toolsets.models import SyncEventSession, listens_for
from tests.contract.transaction_models import Base, Order

@listens_for(Order)
async def note(order, event_type, changes):
    await asyncio.sleep(0)
    told.append(order.id)

def commit(identity):
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with sessionmaker(engine, class_=SyncEventSession).begin() as session:
        session.add(Order(id=identity))

def interrupt(frame, event, argument):
    if frame.f_code.co_name == "start_blocking_portal":
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)

async def main():
    sys.setprofile(interrupt)
    for identity in (1, 3):
        commit(identity)

told = []
signal.signal(signal.SIGINT, lambda *arguments: commit(2))
asyncio.run(main())
print(told)
"""


def test_a_commit_while_a_helper_thread_starts() -> None:
    """C2: a signal handler's, or a finalizer's, does not wait for ever for the thread that it has interrupted."""
    command = [sys.executable, "-c", WHILE_A_HELPER_STARTS]
    program = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (program.returncode, program.stdout, program.stderr) == (0, "[2, 1, 3]\n", "")


def test_an_interrupt_does_not_wait_for_a_callback_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """C4: of a callback that is shielded from its end who has committed waits for a moment only."""
    monkeypatch.setattr(helper_threads, "LAST_WORDS", 0.05)
    ended: list[str] = []

    async def callback() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        with anyio.move_on_after(3, shield=True):
            await anyio.sleep_forever()
        ended.append("by itself")

    with pytest.raises(KeyboardInterrupt):
        HelperThread("asyncio").run(callback, 0)
    assert ended == []
