"""What type checkers see of observers and instruments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

from prometheus_client import CollectorRegistry

from fastapi_toolsets.events import (
    CallbackOutcome,
    DispatchObserver,
    Ending,
    ObservedCallback,
    ObservedDispatch,
    add_observer,
    remove_observer,
)
from fastapi_toolsets.models import ModelEvent, Phase
from fastapi_toolsets.observability.instrumentation import Instrumentation
from fastapi_toolsets.observability.opentelemetry import instrument_opentelemetry
from fastapi_toolsets.observability.prometheus import instrument_prometheus


class Observer:
    """Has the methods, and needs no base class."""

    def begin_dispatch(self, dispatch: ObservedDispatch) -> Ending:
        assert_type(dispatch.phase, Phase)
        assert_type(dispatch.deliveries, int)
        return lambda outcome, error: assert_type(outcome, CallbackOutcome)

    def begin_callback(self, call: ObservedCallback) -> Ending:
        assert_type(call.model, str | None)
        assert_type(call.event_type, ModelEvent | None)
        return lambda outcome, error: assert_type(error, BaseException | None)

    def callbacks_not_called(self, calls: Sequence[ObservedCallback], reason: str) -> None: ...


class Incomplete:
    """Lacks what is told of callbacks."""

    def begin_dispatch(self, dispatch: ObservedDispatch) -> Ending:
        return lambda outcome, error: None


def observers() -> None:
    observer: DispatchObserver = Observer()
    add_observer(observer)
    remove_observer(observer)
    add_observer(Incomplete())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def instruments() -> None:
    assert_type(instrument_opentelemetry(), Instrumentation)
    with instrument_prometheus(CollectorRegistry(), buckets=(0.1, 1.0)) as instrumentation:
        assert_type(instrumentation, Instrumentation)
    instrument_prometheus("registry")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
