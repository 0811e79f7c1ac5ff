"""Prometheus: how often callbacks are called and how that ends, how long they take, how many run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from time import perf_counter

from ..errors import ObserverError
from ..events import CallbackOutcome, Ending, ObservedCallback, ObservedDispatch
from .instrumentation import Instrumentation

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
except ImportError as _error:
    _message = 'instrument_prometheus() needs the Prometheus client: run pip install "fastapi-toolsets[prometheus]"'
    raise ImportError(_message, name=_error.name) from _error

NOT_CALLED = "not_called"
"""The outcome of a callback that was due and is never called; the log says why."""

ON_COMMIT = "on_commit"
"""The event of a ``session.on_commit`` callback, which has no model."""

_CALLBACK = ("model", "event", "phase", "callback")


def instrument_prometheus(
    registry: CollectorRegistry = REGISTRY, *, buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS
) -> Instrumentation:
    """Count and time callbacks, from the next commit on, in every event session of the process.

    The metrics are ``fastapi_toolsets_callbacks_total`` (by model, event, phase, callback and outcome),
    ``fastapi_toolsets_callback_duration_seconds`` and ``fastapi_toolsets_callbacks_in_progress`` (the same without the
    outcome), ``fastapi_toolsets_dispatch_duration_seconds`` and ``fastapi_toolsets_dispatches_in_progress`` (by phase:
    how long and how many commits and rollbacks wait for their callbacks).

    Args:
        registry: Where the metrics are registered; the client's own registry when left out.
        buckets: The upper bounds of both histograms' buckets, in seconds, ascending.

    Returns:
        What removes the metrics again, from the registry too.

    Raises:
        ObserverError: The registry is none or has these metrics already, or the buckets are none. Nothing is
            registered then.
    """
    if not callable(getattr(registry, "register", None)):
        msg = (
            f"instrument_prometheus() was given an object of type {type(registry).__name__}, which is no registry: "
            "give it a CollectorRegistry, or nothing for the client's own"
        )
        raise ObserverError(msg)
    try:
        metrics = MetricsObserver(buckets)
    except ValueError as error:
        msg = f"buckets was given {buckets!r}: {error}. Give it upper bounds in seconds, ascending"
        raise ObserverError(msg) from error
    try:
        metrics.register(registry)
    except ValueError as error:
        msg = (
            f"{registry!r} cannot take the metrics: {error}. If it has them already, call remove() on what the first "
            "instrument_prometheus() returned, or give each its own registry"
        )
        raise ObserverError(msg) from error
    return Instrumentation(metrics, lambda: metrics.unregister(registry))


class MetricsObserver:
    """Keeps the metrics; :func:`instrument_prometheus` puts it to work."""

    def __init__(self, buckets: Sequence[float]) -> None:
        """Make the metrics."""
        self._callbacks = Counter(
            "fastapi_toolsets_callbacks",
            "Callbacks by how they ended; not_called are those that were due and never will be called.",
            (*_CALLBACK, "outcome"),
            registry=None,
        )
        self._duration = Histogram(
            "fastapi_toolsets_callback_duration_seconds",
            "How long a callback took, what it awaited included.",
            _CALLBACK,
            registry=None,
            buckets=buckets,
        )
        self._in_progress = Gauge(
            "fastapi_toolsets_callbacks_in_progress",
            "Callbacks that run at the moment.",
            _CALLBACK,
            registry=None,
            multiprocess_mode="livesum",
        )
        self._dispatch_duration = Histogram(
            "fastapi_toolsets_dispatch_duration_seconds",
            "How long a commit or rollback with something to tell waited for its callbacks.",
            ("phase",),
            registry=None,
            buckets=buckets,
        )
        self._dispatches_in_progress = Gauge(
            "fastapi_toolsets_dispatches_in_progress",
            "Commits and rollbacks that wait for their callbacks at the moment.",
            ("phase",),
            registry=None,
            multiprocess_mode="livesum",
        )
        self._metrics = (
            self._callbacks,
            self._duration,
            self._in_progress,
            self._dispatch_duration,
            self._dispatches_in_progress,
        )

    def register(self, registry: CollectorRegistry) -> None:
        """Give the registry all of the metrics, or none where it has one of that name already."""
        with contextlib.ExitStack() as taken_back:
            for metric in self._metrics:
                registry.register(metric)
                taken_back.callback(registry.unregister, metric)
            taken_back.pop_all()

    def unregister(self, registry: CollectorRegistry) -> None:
        """Take the metrics out of the registry."""
        for metric in self._metrics:
            registry.unregister(metric)

    def begin_dispatch(self, dispatch: ObservedDispatch) -> Ending:
        """Time a dispatch."""
        phase = dispatch.phase.value
        in_progress = self._dispatches_in_progress.labels(phase)
        in_progress.inc()
        began = perf_counter()

        def end(_outcome: CallbackOutcome, _error: BaseException | None) -> None:
            self._dispatch_duration.labels(phase).observe(perf_counter() - began)
            in_progress.dec()

        return end

    def begin_callback(self, call: ObservedCallback) -> Ending:
        """Time and count a callback."""
        labels = _labels(call)
        in_progress = self._in_progress.labels(*labels)
        in_progress.inc()
        began = perf_counter()

        def end(outcome: CallbackOutcome, _error: BaseException | None) -> None:
            self._duration.labels(*labels).observe(perf_counter() - began)
            in_progress.dec()
            self._callbacks.labels(*labels, outcome.value).inc()

        return end

    def callbacks_not_called(self, calls: Sequence[ObservedCallback], reason: str) -> None:  # noqa: ARG002 - unbounded as a label
        """Count what is lost."""
        for call in calls:
            self._callbacks.labels(*_labels(call), NOT_CALLED).inc()


def _labels(call: ObservedCallback) -> tuple[str, str, str, str]:
    event = ON_COMMIT if call.event_type is None else call.event_type.value
    return call.model or "", event, call.phase.value, call.callback
