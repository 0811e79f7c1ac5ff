"""Spans, as the SDK's own exporter gets them: parents, attributes, errors, in every place where a callback may run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from sqlalchemy.orm import sessionmaker
from sqlalchemy.util import await_only, greenlet_spawn

from fastapi_toolsets import __version__
from fastapi_toolsets.errors import CascadeLimitError, ObserverError
from fastapi_toolsets.models import Changes, EventSession, ModelEvent, Phase, SyncEventSession, listens_for
from fastapi_toolsets.observability.opentelemetry import instrument_opentelemetry

from ..contract.event_models import LOCAL
from ..contract.transaction_models import Base, ExpectedError, Order
from ..databases import Database, tables
from ..front_ends import FrontEnd, scenario
from .test_observers import cancelled_commit


class Spans:
    """A tracer provider and what it has exported."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    def take(self) -> list[ReadableSpan]:
        """Give the spans that have ended since the last time, in that order."""
        spans = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return spans

    def tree(self) -> list[str]:
        """Give the same as lines of a tree, in the order in which they began: what is inside is indented."""
        spans = sorted(self.take(), key=lambda span: span.start_time or 0)
        by_identity = {identity_of(span): span for span in spans}

        def depth(span: ReadableSpan) -> int:
            return 0 if span.parent is None else 1 + depth(by_identity[span.parent.span_id])

        return [f"{'  ' * depth(span)}{span.name.replace('callback ' + __name__ + '.', '')}" for span in spans]


def identity_of(span: ReadableSpan) -> int:
    assert span.context is not None
    identity: int = span.context.span_id
    return identity


@pytest.fixture
def spans(caplog: pytest.LogCaptureFixture) -> Generator[Spans]:
    """Spans of this test, which fails if OpenTelemetry logs, as for a context left where it was not entered."""
    spans = Spans()
    with instrument_opentelemetry(spans.provider):
        yield spans
    spans.provider.shutdown()
    assert [
        record.getMessage() for record in caplog.get_records("call") if record.name.startswith("opentelemetry")
    ] == []


async def awaits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    await anyio.lowlevel.checkpoint()
    trace.get_current_span().set_attribute("seen", "awaits")
    await anyio.lowlevel.checkpoint()


def returns(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    trace.get_current_span().set_attribute("seen", "returns")


def returns_awaitable(order: Order, event_type: ModelEvent, changes: Changes | None) -> object:
    return awaits(order, event_type, changes)


@scenario(Base.metadata)
async def test_spans_of_a_commit(front: FrontEnd, spans: Spans) -> None:
    """C1, C3: one for the dispatch inside the committer's, and in it one for each callback, current inside it."""
    listens_for(Order)(awaits)
    listens_for(Order, ModelEvent.UPDATE)(returns)
    listens_for(Order, ModelEvent.UPDATE)(returns_awaitable)
    order = Order(id=1)
    await front.add(order)
    with spans.tracer.start_as_current_span("request"):
        await front.commit()
    *_, outer = first = spans.take()
    assert [span.name for span in first] == [f"callback {__name__}.awaits", "dispatch", "request"]
    assert [span.parent and span.parent.span_id for span in first] == [identity_of(first[1]), identity_of(outer), None]

    order.status = "paid"
    with spans.tracer.start_as_current_span("request"):
        await front.commit()
        assert trace.get_current_span().is_recording()
    *callbacks, dispatch, outer = spans.take()
    names = [f"{__name__}.{name}" for name in ("awaits", "returns", "returns_awaitable")]
    assert [span.name for span in callbacks] == [f"callback {name}" for name in names]
    assert {span.parent and span.parent.span_id for span in callbacks} == {identity_of(dispatch)}
    assert dispatch.parent is not None
    assert dispatch.parent.span_id == identity_of(outer)
    seen = ["awaits", "returns", "awaits"]
    assert [dict(span.attributes or {}) for span in (*callbacks, dispatch)] == [
        *(
            {
                "code.function.name": name,
                "fastapi_toolsets.model": "Order",
                "fastapi_toolsets.event_type": "update",
                "fastapi_toolsets.phase": "after_commit",
                "fastapi_toolsets.outcome": "success",
                "seen": where,
            }
            for name, where in zip(names, seen, strict=True)
        ),
        {
            "fastapi_toolsets.deliveries": 1,
            "fastapi_toolsets.phase": "after_commit",
            "fastapi_toolsets.outcome": "success",
        },
    ]
    assert {span.status.status_code for span in (*callbacks, dispatch)} == {StatusCode.UNSET}
    scope = dispatch.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("fastapi_toolsets", __version__)


async def awaits_and_raises(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    await anyio.lowlevel.checkpoint()
    raise ExpectedError("in vain")


def raises(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    raise ValueError("in vain")


@pytest.mark.parametrize(
    ("callback", "error_type"),
    [(awaits_and_raises, f"{ExpectedError.__module__}.ExpectedError"), (raises, "ValueError")],
)
@scenario(Base.metadata, databases=LOCAL)
async def test_callback_that_raises(front: FrontEnd, spans: Spans, *, callback: Any, error_type: str) -> None:  # noqa: ANN401 - either kind of function
    """C4: its span has the status and the exception; the dispatch's has not, since the commit stands."""
    listens_for(Order)(callback)
    listens_for(Order)(returns)
    await front.add(Order(id=1))
    await front.commit()
    failed, other, dispatch = spans.take()
    assert [span.status.status_code for span in (failed, other, dispatch)] == [
        StatusCode.ERROR,
        StatusCode.UNSET,
        StatusCode.UNSET,
    ]
    assert dict(failed.attributes or {}) == {
        "code.function.name": f"{__name__}.{callback.__name__}",
        "fastapi_toolsets.model": "Order",
        "fastapi_toolsets.event_type": "create",
        "fastapi_toolsets.phase": "after_commit",
        "fastapi_toolsets.outcome": "error",
        "error.type": error_type,
    }
    (event,) = failed.events
    recorded = dict(event.attributes or {})
    stack = str(recorded.pop("exception.stacktrace"))
    assert (event.name, recorded) == (
        "exception",
        {"exception.type": error_type, "exception.message": "in vain", "exception.escaped": "False"},
    )
    assert callback.__name__ in stack


@scenario(Base.metadata, databases=LOCAL)
async def test_on_commit_callback(front: FrontEnd, spans: Spans) -> None:
    """C7: it has no model and no event."""

    async def hook(number: int) -> None:
        await anyio.lowlevel.checkpoint()

    front.session.on_commit(hook, 1)
    await front.commit()
    callback, _ = spans.take()
    assert dict(callback.attributes or {}) == {
        "code.function.name": f"{__name__}.test_on_commit_callback.<locals>.hook",
        "fastapi_toolsets.phase": "after_commit",
        "fastapi_toolsets.outcome": "success",
    }


@scenario(Base.metadata, databases=LOCAL)
async def test_commits_of_callbacks(front: FrontEnd, spans: Spans) -> None:
    """C6: one on the same session belongs to the dispatch that runs; one on another is inside the callback."""

    @listens_for(Order)
    async def react(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id == 1:
            await front.add(Order(id=2))
            await front.commit()
        if order.id == 2:
            other = front.new_session()
            await other.add(Order(id=3))
            await other.commit()

    with spans.tracer.start_as_current_span("request"):
        await front.add(Order(id=1))
        await front.commit()
    name = "test_commits_of_callbacks.<locals>.react"
    assert spans.tree() == [
        "request",
        "  dispatch",
        f"    {name}",
        f"    {name}",
        "      dispatch",
        f"        {name}",
    ]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callbacks", "async callbacks"])
@scenario(Base.metadata, databases=LOCAL)
async def test_phases(front: FrontEnd, spans: Spans, *, asynchronous: bool) -> None:
    """P1, P2, P3: a dispatch for each, inside the committer's span; the callback's is the current one inside it."""
    for phase in Phase:
        listens_for(Order, phase=phase)(awaits if asynchronous else returns_awaitable)
    with spans.tracer.start_as_current_span("request") as request:
        await front.add(Order(id=1))
        await front.commit()
        await front.add(Order(id=2))
        await front.flush()
        await front.rollback()
        assert trace.get_current_span() is request
    found = spans.take()
    told = [dict(span.attributes or {}) for span in found if span.name.endswith(("awaits", "returns_awaitable"))]
    assert [(each["fastapi_toolsets.phase"], each.get("seen")) for each in told] == [
        ("before_commit", "awaits"),
        ("after_commit", "awaits"),
        ("after_rollback", "awaits"),
    ]
    dispatches = [span for span in found if span.name == "dispatch"]
    assert [dict(span.attributes or {})["fastapi_toolsets.phase"] for span in dispatches] == list(Phase)
    assert {span.parent and span.parent.span_id for span in dispatches} == {identity_of(found[-1])}


@pytest.mark.parametrize("callback", [awaits_and_raises, raises])
@scenario(Base.metadata, databases=LOCAL)
async def test_callback_that_aborts_the_commit(front: FrontEnd, spans: Spans, *, callback: Any) -> None:  # noqa: ANN401 - either kind of function
    """P1: its span and the dispatch's are errors: nothing was committed."""
    listens_for(Order, phase=Phase.BEFORE_COMMIT)(callback)
    await front.add(Order(id=1))
    with pytest.raises((ExpectedError, ValueError), match="in vain"):
        await front.commit()
    await front.rollback()
    failed, dispatch = spans.take()
    assert [span.status.status_code for span in (failed, dispatch)] == [StatusCode.ERROR, StatusCode.ERROR]
    assert [dict(span.attributes or {})["fastapi_toolsets.outcome"] for span in (failed, dispatch)] == [
        "error",
        "error",
    ]


@scenario(Base.metadata, databases=LOCAL, cascade_limit=0)
async def test_callbacks_that_are_not_called(front: FrontEnd, spans: Spans) -> None:
    """C6: they are noted on the span that was current when they were left out, which is an error."""

    @listens_for(Order)
    async def feed(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await front.add(Order(id=order.id + 1))
        await front.commit()

    await front.add(Order(id=1))
    with pytest.raises(CascadeLimitError):
        await front.commit()
    callback, dispatch = spans.take()
    assert [(event.name, dict(event.attributes or {})) for event in callback.events] == [
        (
            "callback not called",
            {
                "code.function.name": f"{__name__}.test_callbacks_that_are_not_called.<locals>.feed",
                "fastapi_toolsets.model": "Order",
                "fastapi_toolsets.event_type": "create",
                "fastapi_toolsets.phase": "after_commit",
                "fastapi_toolsets.reason": "callbacks have committed too many times in a row",
            },
        )
    ]
    assert [span.status.status_code for span in (callback, dispatch)] == [StatusCode.ERROR, StatusCode.ERROR]


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=0.0)
async def test_cancelled_committer(front: FrontEnd, spans: Spans) -> None:
    """C5: a callback that is cut short, sync and in the middle of waiting, leaves every context as it was."""
    waiting = anyio.Event()

    @listens_for(Order)
    def waits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        waiting.set()
        await_only(asyncio.Event().wait())

    with spans.tracer.start_as_current_span("request"):
        await cancelled_commit(front, waiting)
    callback, dispatch, _ = spans.take()
    assert [(dict(span.attributes or {})["fastapi_toolsets.outcome"], span.name) for span in (callback, dispatch)] == [
        ("cancelled", f"callback {__name__}.test_cancelled_committer.<locals>.waits"),
        ("cancelled", "dispatch"),
    ]


# The places of rule C2


Work = Callable[[], None]


async def in_thread(work: Work) -> None:
    """A thread that carries the context on, as an instrumented executor does."""
    await asyncio.to_thread(work)


async def in_worker_thread(work: Work) -> None:
    await anyio.to_thread.run_sync(work)


async def on_running_loop(work: Work) -> None:
    work()


async def in_bridge(work: Work) -> None:
    await greenlet_spawn(work)


PLACES: dict[str, tuple[str, Callable[[Work], Coroutine[Any, Any, None]]]] = {
    "thread": ("asyncio", in_thread),
    "thread, trio": ("trio", in_thread),
    "worker thread": ("asyncio", in_worker_thread),
    "running loop": ("asyncio", on_running_loop),
    "running loop, trio": ("trio", on_running_loop),
    "bridge": ("asyncio", in_bridge),
}
IN_REQUEST = ["request", "  dispatch", "    awaits", "    returns", "    returns_awaitable"]


@pytest.fixture
def commit(database: Database, listeners_of_this_test: None) -> Generator[Callable[..., None]]:
    """Commits an order with a session of its own, as a script does; three callbacks listen."""
    engine = database.create_engine()
    identities = iter(range(1, 1000))
    for callback in (awaits, returns, returns_awaitable):
        listens_for(Order)(callback)

    def commit_order(**options: Any) -> None:  # noqa: ANN401 - those of the session, which types them
        with sessionmaker(engine, class_=SyncEventSession, **options)() as session:
            session.add(Order(id=next(identities)))
            session.commit()

    with tables(database, Base.metadata):
        yield commit_order
    engine.dispose()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_every_place_of_a_sync_session(commit: Callable[..., None], spans: Spans, place: str) -> None:
    """C2: wherever the callbacks run, their spans are inside the committer's, and its own is current afterwards."""
    backend, run = PLACES[place]

    async def application() -> None:
        with spans.tracer.start_as_current_span("request") as request:
            for _ in range(2):
                await run(lambda: commit(callback_backend=backend))
            assert trace.get_current_span() is request

    asyncio.run(application())
    assert spans.tree() == [*IN_REQUEST, *IN_REQUEST[1:]]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_script(commit: Callable[..., None], spans: Spans, backend: str) -> None:
    """C2: no loop runs: the callbacks have one in this thread, or in the helper's."""
    with spans.tracer.start_as_current_span("request") as request:
        commit(callback_backend=backend)
        assert trace.get_current_span() is request
    assert spans.tree() == IN_REQUEST


@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_many_committers_at_once(commit: Callable[..., None], spans: Spans) -> None:
    """C2: each has its own trace, with its own callbacks in it."""

    async def committer(number: int) -> None:
        with spans.tracer.start_as_current_span(f"request {number}"):
            await anyio.to_thread.run_sync(commit)

    async def application() -> None:
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(committer, number)

    anyio.run(application)
    traces: dict[int, list[str]] = {}
    for span in spans.take():
        assert span.context is not None
        traces.setdefault(span.context.trace_id, []).append(span.name.rpartition(".")[2])
    in_one = ["awaits", "returns", "returns_awaitable", "dispatch"]
    assert sorted(traces.values()) == sorted([*in_one, f"request {number}"] for number in range(8))


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"])
async def test_many_committers_of_the_async_front_end(front: FrontEnd, spans: Spans) -> None:
    """C2: tasks that commit at the same time on one loop do not see each other's spans."""
    listens_for(Order)(returns_awaitable)
    listens_for(Order)(awaits)
    gate = asyncio.Barrier(4)

    @listens_for(Order)
    async def meets(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await gate.wait()

    async def committer(number: int) -> None:
        session: EventSession = front.factory()()
        async with session:
            with spans.tracer.start_as_current_span(f"request {number}"):
                session.add(Order(id=number))
                await session.commit()

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(committer, number)
    traces: dict[int, list[str]] = {}
    for span in spans.take():
        assert span.context is not None
        traces.setdefault(span.context.trace_id, []).append(span.name.rpartition(".")[2])
    in_one = ["returns_awaitable", "awaits", "meets", "dispatch"]
    assert sorted(traces.values()) == sorted([*in_one, f"request {number}"] for number in range(4))


# Instrumenting


@scenario(Base.metadata, databases=LOCAL)
async def test_removed_again(front: FrontEnd) -> None:
    """From the next commit on there are no spans."""
    spans = Spans()
    listens_for(Order)(returns)
    instrumentation = instrument_opentelemetry(spans.provider)
    await front.add(Order(id=1))
    await front.commit()
    instrumentation.remove()
    await front.add(Order(id=2))
    await front.commit()
    assert len(spans.take()) == 2
    with pytest.raises(ObserverError, match="does not observe"):
        instrumentation.remove()


def test_instrumented_twice() -> None:
    """For one provider it is a mistake; each of two has its own spans."""
    spans, others = Spans(), Spans()
    twice = pytest.raises(ObserverError, match="observes already")
    with instrument_opentelemetry(spans.provider), instrument_opentelemetry(others.provider), twice:
        instrument_opentelemetry(spans.provider)
    with instrument_opentelemetry(), pytest.raises(ObserverError, match="observes already"):
        instrument_opentelemetry()


def test_what_is_no_tracer_provider_is_named() -> None:
    given: Any = InMemorySpanExporter()
    with pytest.raises(ObserverError) as caught:
        instrument_opentelemetry(given)
    assert str(caught.value) == (
        "instrument_opentelemetry() was given an object of type InMemorySpanExporter, which is no tracer provider: "
        "give it the TracerProvider that the spans go through, or nothing for the global one"
    )
