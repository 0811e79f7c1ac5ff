"""OpenTelemetry: a span for what each commit dispatches, and inside it one for each callback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .. import __version__
from ..errors import ObserverError
from ..events import CallbackOutcome, Ending, ObservedCallback, ObservedDispatch
from .instrumentation import Instrumentation

try:
    from opentelemetry import context, trace
    from opentelemetry.trace import Span, StatusCode, Tracer, TracerProvider
except ImportError as _error:
    _message = 'instrument_opentelemetry() needs OpenTelemetry: run pip install "fastapi-toolsets[opentelemetry]"'
    raise ImportError(_message, name=_error.name) from _error

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/: stable names. The package that has them as constants
# belongs to the SDK, which an application chooses.
CODE_FUNCTION_NAME = "code.function.name"
ERROR_TYPE = "error.type"
# There is no convention for these.
PHASE = "fastapi_toolsets.phase"
DELIVERIES = "fastapi_toolsets.deliveries"
MODEL = "fastapi_toolsets.model"
EVENT_TYPE = "fastapi_toolsets.event_type"
OUTCOME = "fastapi_toolsets.outcome"
REASON = "fastapi_toolsets.reason"


def instrument_opentelemetry(tracer_provider: TracerProvider | None = None) -> Instrumentation:
    """Make spans for callbacks, from the next commit on, in every event session of the process.

    A commit or rollback that has something to tell makes a span ``dispatch`` for each phase, a child of the span that
    is current where it was called, and in it a span for each callback, which is the current one inside the callback,
    async or sync. A callback that raises sets its span's status to error and records the exception, message and
    traceback included.

    Args:
        tracer_provider: Where the spans go; the process's global provider when left out.

    Returns:
        What removes it again.

    Raises:
        ObserverError: It is no tracer provider, or spans are made for it already.
    """
    provider = trace.get_tracer_provider() if tracer_provider is None else tracer_provider
    if not callable(getattr(provider, "get_tracer", None)):
        msg = (
            f"instrument_opentelemetry() was given an object of type {type(provider).__name__}, which is no tracer "
            "provider: give it the TracerProvider that the spans go through, or nothing for the global one"
        )
        raise ObserverError(msg)
    return Instrumentation(SpanObserver(provider))


@dataclass(frozen=True)
class SpanObserver:
    """Makes the spans; :func:`instrument_opentelemetry` puts it to work.

    Attributes:
        tracer_provider: Where the spans go. Two observers with the same one are equal.
    """

    tracer_provider: TracerProvider
    _tracer: Tracer = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Ask for a tracer of the library's name."""
        object.__setattr__(self, "_tracer", self.tracer_provider.get_tracer("fastapi_toolsets", __version__))

    def begin_dispatch(self, dispatch: ObservedDispatch) -> Ending:
        """Begin a span as a child of the committer's, and make it the current one."""
        attributes = {PHASE: dispatch.phase.value, DELIVERIES: dispatch.deliveries}
        return _entered(self._tracer.start_span("dispatch", attributes=attributes))

    def begin_callback(self, call: ObservedCallback) -> Ending:
        """Begin a span, and make it the current one for the callback."""
        return _entered(self._tracer.start_span(f"callback {call.callback}", attributes=_attributes(call)))

    def callbacks_not_called(self, calls: Sequence[ObservedCallback], reason: str) -> None:
        """Note on the current span, which is the dispatch's, what is not called, and that this is an error."""
        span = trace.get_current_span()
        for call in calls:
            span.add_event("callback not called", {**_attributes(call), REASON: reason})
        span.set_status(StatusCode.ERROR)


def _attributes(call: ObservedCallback) -> dict[str, str]:
    attributes = {CODE_FUNCTION_NAME: call.callback, PHASE: call.phase.value}
    if call.model is not None and call.event_type is not None:
        attributes |= {MODEL: call.model, EVENT_TYPE: call.event_type.value}
    return attributes


def _entered(span: Span) -> Ending:
    """Make a span the current one; return what makes the former one current again, and ends it."""
    token = context.attach(trace.set_span_in_context(span))

    def end(outcome: CallbackOutcome, error: BaseException | None) -> None:
        context.detach(token)
        span.set_attribute(OUTCOME, outcome.value)
        if error is not None:
            span.set_attribute(ERROR_TYPE, _type_name(error))
            span.record_exception(error)
            span.set_status(StatusCode.ERROR)
        span.end()

    return end


def _type_name(error: BaseException) -> str:
    """Return the name as ``record_exception`` writes it: with the module, unless it is a built-in one."""
    module, name = type(error).__module__, type(error).__qualname__
    return name if module == "builtins" else f"{module}.{name}"
