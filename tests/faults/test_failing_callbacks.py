"""Rule C4 wherever callbacks may run: whatever one raises is its own affair, unless it is an interrupt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import sessionmaker

from fastapi_toolsets.models import CallbackFailure, SyncEventSession, listener_scope, listens_for

from ..databases import TestRunDatabases, tables
from ..front_ends import EventRecorder, FrontEnd, RecordedEvent, scenario
from .failures import ERRORS, INTERRUPTS, Failing
from .models import Base, Order, created, library_log, updated
from .places import PLACES, Place

LOCAL = ("sqlite",)

everywhere = pytest.mark.parametrize("place", PLACES, ids=str)


@pytest.fixture
def engine(test_run_databases: TestRunDatabases, tmp_path: Path) -> Iterator[Engine]:
    database = test_run_databases.provide("sqlite", tmp_path)
    engine = database.create_engine()
    with tables(database, Base.metadata):
        yield engine
    engine.dispose()


def listen_around(recorder: EventRecorder, failing: Failing) -> None:
    """Register callbacks that fail, and before and after them such as record what they were told."""
    recorder.listen(Order)
    failing.listen()
    recorder.listen(Order, asynchronous=True)


def raised_by(logged: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(level, message.partition(" raised;")[0]) for level, message in logged]


@everywhere
def test_error_is_logged_and_stops_nothing(place: Place, engine: Engine, recorder: EventRecorder) -> None:
    """C4: sync, async and ad-hoc callbacks that raise anything at all; the others run, and ``commit()`` returns."""
    told: dict[str, list[RecordedEvent]] = {}
    named: dict[str, list[tuple[str, str]]] = {}

    def work() -> None:
        for number, (kind, make) in enumerate(ERRORS.items()):
            failing = Failing(make)
            with listener_scope(), library_log() as logged, SyncEventSession(engine) as session:
                listen_around(recorder, failing)
                session.add(Order(id=number))
                session.on_commit(failing.fail_on_commit)
                session.on_commit(failing.fail_on_commit_later)
                session.on_commit(recorder.events.append, created(-1))
                session.commit()
                assert not session.in_transaction()
            told[kind], named[kind] = recorder.take(), raised_by(logged)

    place.visit(work)
    names = [("ERROR", name) for name in (*Failing(ValueError).listening, *Failing(ValueError).on_commit)]
    assert told == {kind: [created(number), created(number), created(-1)] for number, kind in enumerate(ERRORS)}
    assert named == dict.fromkeys(ERRORS, names)


@everywhere
def test_errors_are_collected(place: Place, engine: Engine, recorder: EventRecorder) -> None:
    """C4: with the policy to raise, one group with what each callback raised, in order, after all have run."""
    factory = sessionmaker(engine, class_=SyncEventSession, on_callback_error="raise")
    raised: dict[str, list[type[BaseException]]] = {}

    def work() -> None:
        for number, (kind, make) in enumerate(ERRORS.items()):
            with listener_scope(), factory() as session:
                listen_around(recorder, Failing(make))
                session.add(Order(id=number))
                with pytest.raises(BaseExceptionGroup) as group:
                    session.commit()
                assert not session.in_transaction()
            raised[kind] = [type(error) for error in group.value.exceptions]

    place.visit(work)
    assert recorder.take() == [created(number) for number in range(len(ERRORS)) for _ in range(2)]
    expected = {kind: [type(make())] * 4 for kind, make in ERRORS.items()}
    expected["StopIteration"][1:] = [RuntimeError] * 3  # Python lets no StopIteration out of a coroutine
    assert raised == expected


@pytest.mark.parametrize("method", ["fail", "fail_at_once", "fail_later", "returns_what_fails"])
@everywhere
def test_interrupts_reach_the_committer(place: Place, engine: Engine, recorder: EventRecorder, method: str) -> None:
    """C4: ``KeyboardInterrupt`` and ``SystemExit`` propagate as they are; the same session goes on to commit."""
    logs: dict[str, list[tuple[str, str]]] = {}

    def work() -> None:
        for number, (kind, make) in enumerate(INTERRUPTS.items()):
            with library_log() as logged, SyncEventSession(engine, expire_on_commit=False) as session:
                order = Order(id=number)
                with listener_scope():
                    listens_for(Order)(getattr(Failing(make), method))
                    recorder.listen(Order, asynchronous=True)
                    session.add(order)
                    with pytest.raises(type(make())):
                        session.commit()
                    assert not session.in_transaction()
                assert recorder.take() == []
                with listener_scope():
                    recorder.listen(Order, asynchronous=True)
                    order.status = "again"
                    session.commit()
                assert recorder.take() == [updated(number, "new", "again")]
            logs[kind] = logged

    place.visit(work)
    interrupted = f"callback {Failing.__module__}.Failing.{method} for create of Order"
    rest = "callback tests.front_ends.EventRecorder.record_asynchronously for create of Order"
    message = f"Committed, but interrupted: interrupted {interrupted}; not called: {rest}"
    assert logs == {kind: [("ERROR", message)] for kind in INTERRUPTS}


ErrorFunction = Callable[[CallbackFailure], object]


def functions_that_raise(make: Callable[[], BaseException]) -> tuple[ErrorFunction, ...]:
    def raise_at_once(failure: CallbackFailure) -> None:
        raise make()

    async def raise_later(failure: CallbackFailure) -> None:
        await anyio.lowlevel.checkpoint()
        raise make()

    return raise_at_once, raise_later


@scenario(Base.metadata, databases=LOCAL)
async def test_function_for_errors_that_raises(front: FrontEnd, recorder: EventRecorder) -> None:
    """C4: whatever the user's function for errors raises stops nothing either; it is logged."""
    failing = Failing(ValueError)
    outcomes: dict[str, object] = {}
    listen_around(recorder, failing)
    for kind, make in ERRORS.items():
        for function in functions_that_raise(make):
            session = front.new_session(on_callback_error=function)
            identity = len(outcomes)
            with library_log() as logged:
                await session.add(Order(id=identity))
                await session.commit()
            outcomes[f"{kind} by {function.__name__}"] = (recorder.take() == [created(identity)] * 2, logged)
    message = "The on_callback_error function raised for {}: let it catch its errors"
    expected = [("ERROR", message.format(name)) for name in failing.listening]
    assert outcomes == dict.fromkeys(outcomes, (True, expected))


@scenario(Base.metadata, databases=LOCAL)
async def test_function_for_errors_that_interrupts(front: FrontEnd, recorder: EventRecorder) -> None:
    """C4: an interrupt from there reaches the committer as one from a callback does, and the session goes on."""
    for number, (make, method, index) in enumerate(
        (make, method, index) for make in INTERRUPTS.values() for method in ("fail", "fail_later") for index in (0, 1)
    ):
        session = front.new_session(on_callback_error=functions_that_raise(make)[index])
        order = Order(id=number)
        with listener_scope(), library_log() as logged:
            listens_for(Order)(getattr(Failing(ValueError), method))
            recorder.listen(Order)
            await session.add(order)
            with pytest.raises(type(make())):
                await session.commit()
            assert not session.in_transaction()
            assert [level for level, message in logged if "EventRecorder.record for create of Order" in message] == [
                "ERROR"
            ]
        with listener_scope():
            recorder.listen(Order, asynchronous=True)
            order.status = "again"
            await session.commit()
        assert recorder.take() == [updated(number, "new", "again")]
