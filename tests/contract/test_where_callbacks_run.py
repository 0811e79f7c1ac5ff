"""Rule C2: where the async callbacks of a ``SyncEventSession`` run, for each place in which it may stand."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import sniffio
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.util import greenlet_spawn

from fastapi_toolsets.events import set_callback_backend
from fastapi_toolsets.models import Changes, ModelEvent, SyncEventSession, listener_scope, listens_for

from ..databases import Database, tables
from ..front_ends import FrontEnd, scenario
from .event_models import LOCAL
from .transaction_models import ORDERS, Base, Order

REQUEST = contextvars.ContextVar("REQUEST", default="nobody")

pytestmark = pytest.mark.parametrize("database", LOCAL, indirect=True)


@dataclass(frozen=True)
class Place:
    """Where a callback found itself."""

    loop: object
    thread: int
    backend: str
    request: str


class Places:
    """A session factory and the places where an async callback ran, one for each commit."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.seen: list[Place] = []
        self.identities = iter(range(1, 1000))
        listens_for(Order)(self.note)

    async def note(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await anyio.lowlevel.checkpoint()
        backend = sniffio.current_async_library()
        loop: object = asyncio.get_running_loop() if backend == "asyncio" else trio_loop()
        self.seen.append(Place(loop, threading.get_ident(), backend, REQUEST.get()))

    def commit(self, **options: Any) -> None:  # noqa: ANN401 - those of the session, which types them
        """Commit an order, as a script does."""
        with sessionmaker(self.engine, class_=SyncEventSession, **options)() as session:
            session.add(Order(id=next(self.identities)))
            session.commit()

    def take(self) -> list[Place]:
        taken, self.seen = self.seen, []
        return taken


def trio_loop() -> object:
    import trio  # noqa: PLC0415 - only where it runs anyway

    return trio.lowlevel.current_root_task()


@pytest.fixture
def places(database: Database, listeners_of_this_test: None) -> Any:  # noqa: ANN401 - Places, after its engine
    engine = database.create_engine()
    with tables(database, Base.metadata):
        yield Places(engine)
    engine.dispose()


def in_thread(function: Callable[[], object]) -> int:
    """Run a function in a thread of its own; return the thread's identifier."""
    identifiers: list[int] = []
    errors: list[BaseException] = []

    def run() -> None:
        identifiers.append(threading.get_ident())
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            errors.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,))
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return identifiers[0]


def test_script(places: Places) -> None:
    """C2: on a loop of the library's in this thread, kept and used again; the committer's context is visible."""
    REQUEST.set("script")
    places.commit()
    places.commit()
    first, second = places.take()
    assert first == Place(first.loop, threading.get_ident(), "asyncio", "script")
    assert second == first
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_loop_of_a_script_keeps_what_a_callback_left_on_it(places: Places) -> None:
    """C2: a client with a connection, or a future, made in one callback can be awaited in the next."""
    kept: list[asyncio.Future[str]] = []
    got: list[str] = []

    @listens_for(Order)
    async def use(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if kept:
            got.append(await kept[0])
        else:
            loop = asyncio.get_running_loop()
            kept.append(loop.create_future())
            loop.call_soon(kept[0].set_result, "kept")

    places.commit()
    places.commit()
    assert got == ["kept"]


def test_script_does_not_change_the_current_loop(places: Places) -> None:
    """C2: a script that has its own loop set, or runs one later, finds it as it was."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        places.commit()
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    places.commit()

    async def own() -> object:
        return asyncio.get_running_loop()

    assert asyncio.run(own()) is not places.take()[0].loop


def test_thread(places: Places) -> None:
    """C2: each thread has a loop of its own, used for all its commits."""
    REQUEST.set("thread")

    def commit_twice() -> None:
        places.commit()
        places.commit()

    threads = [in_thread(commit_twice) for _ in range(2)]
    seen = places.take()
    assert [(place.thread, place.request) for place in seen] == [
        (thread, "thread") for thread in threads for _ in range(2)
    ]
    assert (seen[0].loop is seen[1].loop, seen[2].loop is seen[3].loop) == (True, True)
    assert seen[0].loop is not seen[2].loop


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_worker_thread(places: Places, backend: str) -> None:
    """C2: a FastAPI ``def`` endpoint's callbacks run on the application's own loop, in its thread."""

    async def application() -> Place:
        REQUEST.set("endpoint")
        await anyio.to_thread.run_sync(places.commit)
        await anyio.to_thread.run_sync(places.commit)
        loop: object = asyncio.get_running_loop() if backend == "asyncio" else trio_loop()
        return Place(loop, threading.get_ident(), backend, "endpoint")

    own = anyio.run(application, backend=backend)
    assert places.take() == [own, own]


def test_asyncio_thread(places: Places) -> None:
    """C2: a thread of ``asyncio.to_thread`` is no AnyIO worker: its callbacks have a loop in that thread."""

    async def application() -> tuple[object, int]:
        REQUEST.set("to_thread")
        await asyncio.to_thread(places.commit)
        return asyncio.get_running_loop(), threading.get_ident()

    loop, thread = asyncio.run(application())
    (place,) = places.take()
    assert (place.backend, place.request) == ("asyncio", "to_thread")
    assert place.loop is not loop
    assert place.thread != thread


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_loop_running_in_this_thread(places: Places, backend: str) -> None:
    """C2: it cannot be entered twice, so the callbacks run on a helper thread's, kept for the next commit."""

    async def application() -> int:
        REQUEST.set("same thread")
        places.commit()
        places.commit()
        return threading.get_ident()

    thread = anyio.run(application, backend=backend)
    first, second = places.take()
    assert (first.backend, first.request) == ("asyncio", "same thread")
    assert first.thread != thread
    assert second == first
    anyio.run(application, backend=backend)
    assert places.take() == [first, first]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_commit_on_a_helper_threads_loop_in_another_context(places: Places, backend: Any) -> None:  # noqa: ANN401 - one of two words
    """C2: as a client library calls back there: what that commits is told in the next thread, each time in the same."""
    threads: dict[int, int] = {}
    inner = iter([True, True, False] * 3)

    @listens_for(Order, ModelEvent.CREATE)
    async def commits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        threads[order.id] = threading.get_ident()
        if next(inner):
            done = anyio.Event()

            def called_back() -> None:
                places.commit(callback_backend=backend)
                done.set()

            if backend == "asyncio":
                asyncio.get_running_loop().call_soon(called_back, context=contextvars.Context())
            else:
                import trio  # noqa: PLC0415 - only where it runs anyway

                trio.lowlevel.spawn_system_task(as_async(called_back), context=contextvars.Context())
            await done.wait()

    async def application() -> None:
        for _ in range(3):
            places.commit(callback_backend=backend)

    asyncio.run(application())
    of_each_commit = [tuple(threads[key] for key in range(first, first + 3)) for first in (1, 4, 7)]
    assert of_each_commit == [of_each_commit[0]] * 3
    assert len({*of_each_commit[0], threading.get_ident()}) == 4


def as_async(function: Callable[[], None]) -> Callable[[], Coroutine[Any, Any, None]]:
    async def call() -> None:
        function()

    return call


def cancel_this_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def stop_this_loop() -> None:
    asyncio.get_running_loop().stop()


def leave_in_a_task() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    asyncio.get_running_loop().create_task(leave(), name="leaves")


@pytest.mark.parametrize("end", [stop_this_loop, leave_in_a_task])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_helper_thread_that_a_callback_has_ended(places: Places, end: Callable[[], None]) -> None:
    """C2, C4: the next commit has another one; no callback is lost for what an earlier one has done to its loop."""
    told: dict[int, threading.Thread] = {}

    @listens_for(Order, ModelEvent.CREATE)
    async def note(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        told[order.id] = threading.current_thread()
        if len(told) == 1:
            end()

    async def application() -> None:
        for key in (1, 2, 3):
            with contextlib.suppress(asyncio.CancelledError, SystemExit):
                places.commit()
            if key == 1:
                await asyncio.to_thread(told[1].join, 10)

    asyncio.run(application())
    assert [*told] == [1, 2, 3]
    assert told[1] is not told[2]
    assert told[2] is told[3]


def test_helper_thread_whose_task_a_callback_cancels(places: Places) -> None:
    """C2, C4: that is the callback's own affair, and the thread goes on for the next callback and the next commit."""

    @listens_for(Order, ModelEvent.CREATE)
    async def cancel(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        cancel_this_task()

    @listens_for(Order, ModelEvent.CREATE)
    async def waits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await places.note(order, event_type, changes)

    async def application() -> None:
        places.commit()
        places.commit()

    asyncio.run(application())
    seen = places.take()
    assert seen == [seen[0]] * 4


def test_inside_the_greenlet_bridge(places: Places) -> None:
    """C2: where sync code runs inside SQLAlchemy's bridge, its callbacks are awaited on the loop outside it."""

    async def application() -> Place:
        REQUEST.set("bridge")
        await greenlet_spawn(places.commit)
        return Place(asyncio.get_running_loop(), threading.get_ident(), "asyncio", "bridge")

    own = asyncio.run(application())
    assert places.take() == [own]


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"])
async def test_async_front_end(front: FrontEnd, database: Database) -> None:
    """C2: an ``EventSession`` awaits on the application's loop, also from ``run_sync``, in the committer's context."""
    places = Places(front.sync_engine)

    def commit(session: Session) -> None:
        session.add(Order(id=2))
        session.commit()

    REQUEST.set("async")
    await front.add(Order(id=1))
    await front.commit()
    await front.run_sync(commit)
    own = Place(asyncio.get_running_loop(), threading.get_ident(), "asyncio", "async")
    assert places.take() == [own, own]


# The configured backend


def test_backend_of_the_session(places: Places) -> None:
    """C2: ``callback_backend`` chooses for scripts, threads and running loops; there is one loop for all."""
    REQUEST.set("trio")
    places.commit(callback_backend="trio")
    places.commit(callback_backend="trio")
    in_thread(lambda: places.commit(callback_backend="trio"))

    async def application() -> None:
        places.commit(callback_backend="trio")

    asyncio.run(application())
    first, *others = places.take()
    assert (first.backend, first.request) == ("trio", "trio")
    assert others == [first, first, first]


def test_backend_of_the_process(places: Places) -> None:
    """C2: ``set_callback_backend`` chooses for sessions that say nothing."""
    set_callback_backend("trio")
    try:
        places.commit()
        places.commit(callback_backend="asyncio")
    finally:
        set_callback_backend("asyncio")
    places.commit()
    assert [place.backend for place in places.take()] == ["trio", "asyncio", "asyncio"]


def test_backend_does_not_matter_where_the_application_has_a_loop(places: Places) -> None:
    """C2: an AnyIO worker thread's callbacks run on the application's loop, whatever is configured."""

    async def application() -> object:
        await anyio.to_thread.run_sync(lambda: places.commit(callback_backend="trio"))
        return asyncio.get_running_loop()

    loop = asyncio.run(application())
    assert [(place.loop, place.backend) for place in places.take()] == [(loop, "asyncio")]


# One place inside another


async def run_in_script(work: Callable[[], None]) -> None:
    in_thread(work)


async def run_in_worker(work: Callable[[], None]) -> None:
    await anyio.to_thread.run_sync(work)


async def run_on_loop(work: Callable[[], None]) -> None:
    work()


async def run_in_bridge(work: Callable[[], None]) -> None:
    await greenlet_spawn(work)


STARTS: dict[str, Callable[[Callable[[], None]], Coroutine[Any, Any, None]]] = {
    "thread": run_in_script,
    "worker thread": run_in_worker,
    "running loop": run_on_loop,
    "bridge": run_in_bridge,
}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("start", STARTS)
def test_sessions_inside_callbacks(places: Places, start: str, backend: Any) -> None:  # noqa: ANN401 - a Literal
    """C2: an async callback that commits with a sync session of its own, whose callback does so again, and so on."""
    depths: list[int] = []
    factory = sessionmaker(places.engine, class_=SyncEventSession, callback_backend=backend)

    async def nest(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await anyio.lowlevel.checkpoint()
        depths.append(order.quantity)
        if order.quantity < 5:
            work(order.quantity + 1)

    def work(depth: int = 1) -> None:
        with factory() as session:
            session.add(Order(id=next(places.identities), quantity=depth))
            session.commit()

    with listener_scope(inherit=False):
        listens_for(Order)(nest)
        asyncio.run(STARTS[start](work))
    assert depths == [1, 2, 3, 4, 5]


def test_every_place_at_once(places: Places) -> None:
    """C2: 8 threads, 8 worker threads and the loop between them commit at the same time, each with its own context."""

    async def application() -> None:
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(commit_in, anyio.to_thread.run_sync, f"worker {number}")
                group.start_soon(commit_in, asyncio.to_thread, f"thread {number}")
            REQUEST.set("loop")
            places.commit()

    async def commit_in(run: Callable[[Callable[[], None]], Awaitable[None]], name: str) -> None:
        REQUEST.set(name)
        await run(places.commit)

    anyio.run(application)
    expected = {*(f"worker {number}" for number in range(8)), *(f"thread {number}" for number in range(8)), "loop"}
    seen = places.take()
    assert (len(seen), {place.request for place in seen}) == (17, expected)
    with places.engine.connect() as connection:
        assert len(connection.execute(ORDERS).all()) == 17


def test_trio_application_that_wants_trio(places: Places) -> None:
    """C2: a trio application that commits in its own thread has its callbacks on trio, in a helper thread."""
    REQUEST.set("trio application")

    async def application() -> None:
        places.commit(callback_backend="trio")

    anyio.run(application, backend="trio")
    (place,) = places.take()
    assert (place.backend, place.request) == ("trio", "trio application")
    assert place.thread != threading.get_ident()
