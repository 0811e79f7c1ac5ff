"""Rule C4 where the application's own logging raises: what cannot be logged stops nothing, and is written to stderr."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from fastapi_toolsets.models import CallbackFailure, Changes, ModelEvent, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from ..observers import observing
from .event_models import LOCAL, created
from .transaction_models import Base, ExpectedError, Order

LOGGER = logging.getLogger("fastapi_toolsets.events")


class BrokenLoggingError(Exception):
    """What the application's logging raises."""


def break_filter(record: logging.LogRecord) -> bool:
    raise BrokenLoggingError


class BrokenHandler(logging.Handler):
    """One that does not guard itself, as the standard ones do."""

    def emit(self, record: logging.LogRecord) -> None:
        raise BrokenLoggingError


@contextmanager
def broken_filter() -> Generator[None]:
    LOGGER.addFilter(break_filter)
    try:
        yield
    finally:
        LOGGER.removeFilter(break_filter)


@contextmanager
def broken_handler() -> Generator[None]:
    handler = BrokenHandler()
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)


@contextmanager
def broken_records() -> Generator[None]:
    def fail(*_: object, **__: object) -> logging.LogRecord:
        raise BrokenLoggingError

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(fail)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)


def fail(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    raise ExpectedError


async def fail_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
    raise ExpectedError


def hook() -> None:
    raise ExpectedError


def handle(failure: CallbackFailure) -> None:
    raise ExpectedError


@pytest.mark.parametrize("broken", [broken_filter, broken_handler, broken_records])
@pytest.mark.parametrize("policy", ["log", handle])
@scenario(Base.metadata, databases=LOCAL)
async def test_logging_that_raises_stops_nothing(
    front: FrontEnd,
    recorder: EventRecorder,
    capsys: pytest.CaptureFixture[str],
    *,
    policy: Any,  # noqa: ANN401 - what the option takes
    broken: Callable[[], Any],
) -> None:
    """C4, C7: every other callback runs, ``commit()`` returns, and stderr has what could not be logged, and why."""
    told: list[str] = []
    listens_for(Order)(fail)
    listens_for(Order)(fail_later)
    recorder.listen(Order)
    recorder.listen(Order, asynchronous=True)
    session = front.new_session(on_callback_error=policy)
    await session.add(Order(id=1, status="secret"))
    session.session.on_commit(hook)
    session.session.on_commit(told.append, "second hook")
    with broken():
        await session.commit()
    assert (recorder.take(), told) == ([created(Order, 1)] * 2, ["second hook"])
    written = capsys.readouterr().err
    assert [name for name in ("fail", "fail_later", "hook") if f"{__name__}.{name}" not in written] == []
    assert written.count("--- Logging error ---") == 3
    assert [name for name in ("BrokenLoggingError", "ExpectedError") if f"{name}\n" not in written] == []
    assert "secret" not in written


@pytest.mark.parametrize(
    ("raises", "last", "expected"), [(False, True, (0, 1)), (True, False, (1, 0)), (False, False, (0, 0))]
)
@scenario(Base.metadata, databases=LOCAL)
async def test_logging_that_raises_is_written_as_logging_is_set(
    front: FrontEnd,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    raises: bool,
    last: bool,
    expected: tuple[int, int],
) -> None:
    """C4: ``logging.raiseExceptions`` and ``logging.lastResort`` say what of it."""
    monkeypatch.setattr(logging, "raiseExceptions", raises)
    if not last:
        monkeypatch.setattr(logging, "lastResort", None)
    listens_for(Order)(fail)
    await front.add(Order(id=1))
    with broken_filter():
        await front.commit()
    written = capsys.readouterr().err
    told = [line for line in written.splitlines() if line.startswith("callback ")]
    assert (written.count("--- Logging error ---"), len(told)) == expected


@scenario(Base.metadata, databases=LOCAL)
async def test_observers_error_that_cannot_be_logged(front: FrontEnd, recorder: EventRecorder) -> None:
    """C4: an observer that raises affects no callback, whether that can be logged or not."""

    class Observer:
        def begin_dispatch(self, dispatch: object) -> None:
            raise ExpectedError

        def begin_callback(self, call: object) -> None:
            raise ExpectedError

        def callbacks_not_called(self, calls: object, reason: str) -> None: ...

    recorder.listen(Order)
    observer: Any = Observer()
    with observing(observer), broken_filter():
        await front.add(Order(id=1))
        await front.commit()
    assert recorder.take() == [created(Order, 1)]


@scenario(Base.metadata, databases=LOCAL)
async def test_log_records_name_the_place_in_the_library(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C4: where it is logged, and not where that is guarded."""
    listens_for(Order)(fail)
    await front.add(Order(id=1))
    await front.commit()
    assert [(record.module, record.funcName) for record in caplog.records] == [("failures", "_log")]
