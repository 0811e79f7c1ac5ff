"""Rules C2 and C5 for what an async callback does until it first waits, which costs no turn of the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import selectors
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import anyio
import pytest
import sniffio
from sqlalchemy.orm import sessionmaker

from fastapi_toolsets.models import Changes, ModelEvent, SyncEventSession, listens_for

from ..databases import Database, tables
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, created
from .transaction_models import Base, ExpectedError, Order

REQUEST = contextvars.ContextVar("REQUEST", default="nobody")
ENOUGH = 60.0  # seconds; a time that no test uses up


def in_a_new_thread(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a thread of its own, so that on the sync front-end the library makes it a new loop."""

    @functools.wraps(test)
    def run(**fixtures: object) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.copy_context().run, lambda: test(**fixtures)).result()

    return run


def current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def commit_order(front: FrontEnd, identity: int) -> None:
    await front.add(Order(id=identity))
    await front.commit()


# What it costs


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"])
async def test_applications_loop_makes_no_turn(front: FrontEnd) -> None:
    """C2: what a callback schedules on the application's loop waits until the committer itself waits for something."""
    steps: list[str] = []

    @listens_for(Order)
    async def schedule(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        asyncio.get_running_loop().call_soon(steps.append, "turn")
        steps.append("callback")

    await commit_order(front, 1)
    steps.append("commit")
    await asyncio.sleep(0)
    assert steps == ["callback", "commit", "turn"]


class Turns:
    """How often the loops of this process have looked for what is ready, which they do once in each turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        select = selectors.DefaultSelector.select

        def counted(selector: selectors.BaseSelector, timeout: float | None = None) -> Any:  # noqa: ANN401 - select()'s
            self.count += 1
            return select(cast("Any", selector), timeout)

        monkeypatch.setattr(selectors.DefaultSelector, "select", counted)

    def take(self) -> int:
        taken, self.count = self.count, 0
        return taken


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    return Turns(monkeypatch)


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"])
async def test_first_steps_that_wait_for_the_same_future(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C1, C2: as the callbacks of commits side by side do with a client that the first of them connects."""
    told: list[int] = []
    connecting: list[asyncio.Task[None]] = []

    @listens_for(Order)
    async def send(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if not connecting:
            connecting.append(asyncio.create_task(asyncio.sleep(0.01)))
        await connecting[0]
        told.append(order.id)

    sessions = [front.new_session() for _ in range(5)]

    async def commit(number: int) -> None:
        await sessions[number].add(Order(id=number))
        await sessions[number].commit()

    async def hook(number: int) -> None:
        async def wait() -> None:
            await connecting[0]
            told.append(10 + number)

        sessions[number].session.on_commit(wait)
        await sessions[number].commit()

    for number in range(5):  # a statement at a time, as SQLite wants it
        await commit(number)
    connecting[:] = [asyncio.create_task(asyncio.sleep(0.01))]
    await asyncio.gather(*(hook(number) for number in range(5)))
    assert (sorted(told), caplog.messages) == ([*range(5), *range(10, 15)], [])


@in_a_new_thread
@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_loop_of_a_thread_makes_no_turn(front: FrontEnd, recorder: EventRecorder, turns: Turns) -> None:
    """C2: from the second commit on, as long as callbacks neither wait nor schedule anything."""
    recorder.listen(Order, asynchronous=True)
    await commit_order(front, 1)
    turns.take()
    for identity in (2, 3, 4):
        await commit_order(front, identity)
    assert (turns.take(), len(recorder.take())) == (0, 4)


def schedule_a_call(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    loop.call_soon(call)


def set_a_timer(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    loop.call_later(0, call)


def begin_a_task(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    async def work() -> None:
        call()

    TASKS.add(task := asyncio.create_task(work()))
    task.add_done_callback(TASKS.discard)


TASKS = set[asyncio.Task[None]]()


def let_a_thread_call(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(call,))
    thread.start()
    thread.join()


def watch_for_writing(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    end, other = socket.socketpair()

    def ready() -> None:
        loop.remove_writer(end)
        end.close()
        other.close()
        call()

    loop.add_writer(end, ready)


def watch_for_reading(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    end, other = socket.socketpair()

    def ready() -> None:
        loop.remove_reader(end)
        end.close()
        other.close()
        call()

    loop.add_reader(end, ready)
    other.send(b"ready")


WAYS = (
    schedule_a_call,
    set_a_timer,
    begin_a_task,
    let_a_thread_call,
    watch_for_writing,
    watch_for_reading,
)


@pytest.mark.parametrize("schedule", WAYS, ids=lambda way: way.__name__)
@in_a_new_thread
@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_what_a_callback_leaves_on_a_threads_loop_goes_on(
    front: FrontEnd, turns: Turns, *, schedule: Callable[[asyncio.AbstractEventLoop, Callable[[], object]], None]
) -> None:
    """C2: whatever it is, it has one turn with each commit from then on, and none before."""
    steps: list[str] = []
    made: list[int] = []

    @listens_for(Order)
    async def leave(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        steps.append(f"callback {order.id}")
        if order.id == 2:
            schedule(asyncio.get_running_loop(), functools.partial(steps.append, "what was left"))

    await commit_order(front, 1)
    turns.take()
    for identity in (2, 3, 4, 5):
        await commit_order(front, identity)
        made.append(turns.take())
    assert made == [0, 1, 1, 1]
    assert sorted(steps) == ["callback 1", "callback 2", "callback 3", "callback 4", "callback 5", "what was left"]
    assert steps.index("what was left") in {2, 3}  # a turn calls first what was ready before it


@in_a_new_thread
@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_tasks_left_on_a_threads_loop_make_a_step_with_each_commit(front: FrontEnd) -> None:
    """C2: one begun by a callback that did not wait for it, as if each commit had been a turn all along."""
    steps: list[int] = []

    async def count() -> None:
        for number in range(3):
            steps.append(number)
            await asyncio.sleep(0)

    @listens_for(Order)
    async def begin(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id == 1:
            TASKS.add(task := asyncio.create_task(count()))
            task.add_done_callback(TASKS.discard)

    seen: list[list[int]] = []
    for identity in (1, 2, 3, 4, 5):
        await commit_order(front, identity)
        seen.append(steps.copy())
    assert seen == [[], [0], [0, 1], [0, 1, 2], [0, 1, 2]]


@in_a_new_thread
@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_stopping_a_threads_loop(front: FrontEnd, recorder: EventRecorder) -> None:
    """C2: it stands still between two commits anyway, so a callback that stops it changes nothing."""

    @listens_for(Order)
    async def stop(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        asyncio.get_running_loop().stop()

    @listens_for(Order)
    async def wait(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id == 2:
            await asyncio.sleep(0)

    recorder.listen(Order, asynchronous=True)
    await commit_order(front, 1)
    await commit_order(front, 2)
    assert recorder.take() == [created(Order, 1), created(Order, 2)]


# What it stands in


@in_a_new_thread
@scenario(Base.metadata, databases=LOCAL)
async def test_one_task_from_the_first_step_to_the_last(front: FrontEnd) -> None:
    """C2: a task of its own, which the loop knows, runs the callback before and after it waits."""
    committer = current_task() if front.is_async else None
    seen: list[tuple[object, ...]] = []

    def look() -> None:
        task, loop = current_task(), asyncio.get_running_loop()
        library, known = sniffio.current_async_library(), task in asyncio.all_tasks()
        running = (loop.is_running(), task.get_loop() is loop, asyncio.get_event_loop() is loop)
        seen.append((task, loop, library, known, *running, task.done(), task.cancelling()))

    @listens_for(Order)
    async def wait(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        look()
        await asyncio.sleep(0)
        look()
        loop = asyncio.get_running_loop()
        loop.call_soon((future := loop.create_future()).set_result, None)
        await future
        look()

    await commit_order(front, 1)
    task, loop = seen[0][:2]
    assert seen == [(task, loop, "asyncio", True, True, True, True, False, 0)] * 3
    assert task is not committer
    if front.is_async:
        assert (current_task(), asyncio.get_running_loop(), asyncio.all_tasks()) == (committer, loop, {committer})


@in_a_new_thread
@scenario(Base.metadata, databases=LOCAL)
async def test_no_task_is_left(front: FrontEnd) -> None:
    """C2: once a callback that waited for nothing has returned, the loop knows no task of it."""
    tasks: list[asyncio.Task[Any]] = []
    left: list[set[asyncio.Task[Any]]] = []

    @listens_for(Order)
    async def look(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        left.append(asyncio.all_tasks() & set(tasks))
        tasks.append(current_task())

    for identity in (1, 2, 3):
        await commit_order(front, identity)
    assert left == [set(), set(), set()]
    assert len(set(tasks)) == 3


@in_a_new_thread
@scenario(Base.metadata, databases=LOCAL)
async def test_timeouts_and_scopes_around_the_first_wait(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C2: those of asyncio and of anyio, entered in the first step and due in a later one, end what they surround."""
    steps: list[str] = []

    async def of_asyncio() -> None:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            steps.append("asyncio.timeout")

    async def of_anyio() -> None:
        with anyio.move_on_after(0) as scope:
            await anyio.sleep_forever()
        steps.append(f"move_on_after {scope.cancelled_caught}")

    async def of_groups() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            group.cancel_scope.cancel()
            await anyio.sleep_forever()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(0))
        steps.append(f"groups {current_task().cancelling()}")

    async def add_step() -> None:
        steps.append("nothing is due")

    async def unfulfilled() -> None:
        async with asyncio.timeout(ENOUGH):
            with anyio.fail_after(ENOUGH), anyio.CancelScope(shield=True):
                await add_step()

    for first in (of_asyncio, of_anyio, of_groups, unfulfilled):

        async def callback(
            order: Order,
            event_type: ModelEvent,
            changes: Changes | None,
            *,
            first: Callable[[], Any] = first,
        ) -> None:
            await first()
            await asyncio.sleep(0)

        listens_for(Order)(callback)
    for identity in (1, 2):
        await commit_order(front, identity)
        await front.rollback()
    assert steps == ["asyncio.timeout", "move_on_after True", "groups 0", "nothing is due"] * 2
    assert caplog.messages == []


@in_a_new_thread
@scenario(Base.metadata, databases=LOCAL)
async def test_async_generators_belong_to_the_loop(front: FrontEnd) -> None:
    """C2: the loop closes one that was begun in the first step and left."""
    steps: list[str] = []

    async def numbers() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            steps.append("closed")

    @listens_for(Order)
    async def leave(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        async for number in numbers():
            steps.append(f"first of {order.id}: {number}")
            break
        hooks.append(sys.get_asyncgen_hooks())
        await asyncio.sleep(0)
        hooks.append(sys.get_asyncgen_hooks())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    hooks: list[object] = []
    before = sys.get_asyncgen_hooks()
    await commit_order(front, 1)
    assert steps == ["first of 1: 1", "closed"]
    assert hooks[0] == hooks[1]
    assert sys.get_asyncgen_hooks() == before


@in_a_new_thread
@scenario(Base.metadata, databases=LOCAL)
async def test_context_variables(front: FrontEnd) -> None:
    """C2: the committer's are visible, what a callback sets stays with those of the same commit."""
    seen: list[str] = []

    @listens_for(Order)
    async def write(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        seen.append(REQUEST.get())
        REQUEST.set("callback")
        if order.id == 2:
            await asyncio.sleep(0)
        seen.append(REQUEST.get())

    REQUEST.set("committer")
    await commit_order(front, 1)
    await commit_order(front, 2)
    assert (seen, REQUEST.get()) == (["committer", "callback"] * 2, "committer")


# How it ends


@in_a_new_thread
@scenario(Base.metadata, databases=LOCAL, on_callback_error="raise")
async def test_errors(front: FrontEnd, recorder: EventRecorder) -> None:
    """C4: what it raises in its first step is told like any other error, made-up cancellations included."""

    @listens_for(Order)
    async def fail(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise ExpectedError

    @listens_for(Order)
    async def make_up(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise asyncio.CancelledError

    recorder.listen(Order, asynchronous=True)
    for identity in (1, 2):
        with pytest.raises(BaseExceptionGroup) as raised:
            await commit_order(front, identity)
        assert [type(error) for error in raised.value.exceptions] == [ExpectedError, asyncio.CancelledError]
    assert recorder.take() == [created(Order, 1), created(Order, 2)]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@in_a_new_thread
@scenario(Base.metadata, databases=LOCAL)
async def test_interrupts(front: FrontEnd, recorder: EventRecorder, *, interrupt: type[BaseException]) -> None:
    """C4: they reach the committer, and the next commit finds everything as usual."""

    @listens_for(Order)
    async def end(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id == 1:
            raise interrupt

    recorder.listen(Order, asynchronous=True)
    with pytest.raises(interrupt):
        await commit_order(front, 1)
    assert recorder.take() == []
    await commit_order(front, 2)
    assert recorder.take() == [created(Order, 2)]


@pytest.mark.parametrize("waits", [False, True])
@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=ENOUGH)
async def test_callback_that_cancels_the_committer(front: FrontEnd, recorder: EventRecorder, *, waits: bool) -> None:
    """C5: neither it nor those that follow are disturbed; then ``commit()`` raises the cancellation."""

    @listens_for(Order)
    async def cancel(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        committer.cancel()
        if waits:
            await asyncio.sleep(0)

    async def commit() -> None:
        await commit_order(front, 1)
        recorder.events.append(("commit", "returned", None, None))

    recorder.listen(Order, asynchronous=True)
    committer = asyncio.create_task(commit())
    with pytest.raises(asyncio.CancelledError):
        await committer
    assert recorder.take() == [created(Order, 1)]


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=0.0)
async def test_committer_cancelled_before_the_first_step(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C5: that is taken even without a grace, since asyncio delivers a cancellation where somebody waits."""
    steps: list[str] = []

    @listens_for(Order)
    def cancel(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        committer.cancel()

    @listens_for(Order)
    async def wait(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        steps.append("first")
        await asyncio.Event().wait()

    committer = asyncio.create_task(commit_order(front, 1))
    with pytest.raises(asyncio.CancelledError):
        await committer
    assert steps == ["first"]
    assert ["interrupted callback" in message and "wait for create" in message for message in caplog.messages] == [True]


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=ENOUGH)
async def test_callback_cancelled_before_its_second_step(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C2: whoever cancels the task at once cancels what the first step waits for, and is heard where it waits."""
    steps: list[str] = []

    async def inner() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            steps.append("inner")

    @listens_for(Order)
    async def wait(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        task = current_task()
        waited_for = asyncio.create_task(inner())
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, task.cancel, "why")
        try:
            await waited_for
        except asyncio.CancelledError as error:
            steps.append(f"outer {error.args} {task.cancelling()} {waited_for.cancelled()}")
            task.uncancel()
        task.cancel("again")
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            steps.append(f"outer {error.args}")
            task.uncancel()
        await asyncio.sleep(0)
        steps.append("end")

    await commit_order(front, 1)
    assert steps == ["inner", "outer ('why',) 1 True", "outer ('again',)", "end"]
    assert caplog.messages == []


# Whose loop it is


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"])
async def test_task_factory_of_the_applications_loop(front: FrontEnd, recorder: EventRecorder) -> None:
    """C2: one that is set makes the callback's task, too."""
    made: list[asyncio.Task[Any]] = []

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:  # noqa: ANN401 - theirs
        made.append(task := asyncio.Task(coroutine, loop=loop, **options))
        return task

    @listens_for(Order)
    async def look(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        assert current_task() in made
        recorder.record(order, event_type, changes)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(cast("Any", make))
    await commit_order(front, 1)
    loop.set_task_factory(None)
    assert recorder.take() == [created(Order, 1)]


class OtherLoop(asyncio.SelectorEventLoop):
    """Somebody's own loop, about which the library knows nothing."""


@pytest.mark.parametrize("kind", [OtherLoop, asyncio.SelectorEventLoop])
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_loop_that_somebody_has_chosen(
    database: Database,
    turns: Turns,
    monkeypatch: pytest.MonkeyPatch,
    *,
    kind: type[asyncio.AbstractEventLoop],
    debug: bool,
) -> None:
    """C2: it is used as it was made; a subclass makes turns, and so does one that looks how long each takes."""

    def new_event_loop() -> asyncio.AbstractEventLoop:
        loop = kind()
        loop.set_debug(debug)
        return loop

    monkeypatch.setattr(asyncio, "new_event_loop", new_event_loop)
    engine = database.create_engine()
    factory = sessionmaker(engine, class_=SyncEventSession)
    loops: list[asyncio.AbstractEventLoop] = []

    @listens_for(Order)
    async def note(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        loops.append(asyncio.get_running_loop())

    def commit_twice() -> int:
        for number in (1, 2):
            turns.take()
            with factory.begin() as session:
                session.add(Order(id=number))
        return turns.take()

    with tables(database, Base.metadata), ThreadPoolExecutor(1) as pool:
        made = pool.submit(commit_twice).result()
    engine.dispose()
    assert (len(loops), loops[0] is loops[1], loops[0].get_debug()) == (2, True, debug)
    assert isinstance(loops[0], kind)
    assert made == (0 if kind is asyncio.SelectorEventLoop and not debug else 1)


# What is left when the loop ends

SCRIPT = """
    import asyncio
    import sys
    from sqlalchemy import StaticPool, create_engine
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    from sqlalchemy.util import greenlet_spawn
    from fastapi_toolsets.models import SyncEventSession, listens_for

    class Base(DeclarativeBase): ...

    class Order(Base):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)

    @listens_for(Order)
    async def note(order, event_type, changes):
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 60
        if "stop" in sys.argv[1]:
            loop.stop()
        print("told")

    def commit():
        engine = create_engine("sqlite://", poolclass=StaticPool)
        Base.metadata.create_all(engine)
        with SyncEventSession(engine) as session:
            session.add(Order(id=1))
            session.commit()
        engine.dispose()

    async def commit_in_bridge():
        await greenlet_spawn(commit)

    def run():
        asyncio.run(commit_in_bridge())

    def run_until_complete():
        loop = asyncio.new_event_loop()
        loop.run_until_complete(commit_in_bridge())
        loop.close()

    def stop():
        loop = asyncio.new_event_loop()
        task = loop.create_task(commit_in_bridge())
        loop.run_forever()
        loop.close()
        assert task.done()

    def script():
        commit()

    globals()[sys.argv[1]]()
"""


@pytest.mark.parametrize("debug", ["", "1"])
@pytest.mark.parametrize("end", ["run", "run_until_complete", "stop", "script"])
def test_loop_that_ends_right_after_the_commit(end: str, debug: str) -> None:
    """C2: nothing is pending, and nobody hears of it, also in asyncio's debug mode."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(SCRIPT), end]
    environment = {**os.environ, "PYTHONASYNCIODEBUG": debug}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "told\n", "")
