"""Writes down what is delivered while a block runs, so that a test can compare it with what it expects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, overload

from .differences import difference
from .muting import muted, only_recorded
from .recorded_events import RecordedEvent
from .registry import check_target, registry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .types import Event

# The recorders of this task or thread that want to hear of nothing else.
_own: ContextVar[tuple[EventRecorder, ...]] = ContextVar("fastapi_toolsets_own_recorders", default=())


class EventRecorder(Sequence[RecordedEvent]):  # noqa: PLW1641 - it changes, and so has no hash
    """What was delivered, in the order of delivery: a sequence that equals a list of the same events.

    :func:`capture_events` and the pytest fixture ``event_recorder`` make one.
    """

    def __init__(self, models: tuple[type[object], ...] = (), *, own_context: bool = False) -> None:
        """Make an empty one, which records nothing by itself."""
        self._models = models
        self._own_context = own_context
        self._events: list[RecordedEvent] = []
        self._pauses: list[object] = []

    # What the registry asks of a recorder.

    def follows(self, model: type[object]) -> bool:
        """Whether the rows of a class are recorded."""
        return not self._models or issubclass(model, self._models)

    def note(self, event: Event) -> None:
        """Write an event down, unless the recorder pauses or has no business in this context."""
        if self._pauses or (self._own_context and all(recorder is not self for recorder in _own.get())):
            return
        self._events.append(
            RecordedEvent(
                event.model,
                event.type,
                event.identity,
                event.changes,
                before=event.before,
                after=event.after,
                transaction_id=event.transaction_id,
            )
        )

    # What tests do with it.

    def clear(self) -> None:
        """Forget what was recorded so far, for example while a test made its data."""
        self._events.clear()

    def take(self) -> list[RecordedEvent]:
        """Return what was recorded so far, and forget it."""
        taken, self._events = self._events, []
        return taken

    @contextlib.contextmanager
    def paused(self) -> Generator[None]:
        """Record nothing in this block, whoever commits; callbacks are called as ever."""
        self._pauses.append(None)
        try:
            yield
        finally:
            self._pauses.pop()

    @contextlib.contextmanager
    def muted(self, *callbacks: Callable[..., object]) -> Generator[None]:
        """Record in this block without calling ``callbacks`` (any callback when none is named).

        Holds for the current task or thread, and for the tasks and AnyIO worker threads that it starts: what a
        ``threading.Thread`` commits is recorded, and its callbacks are called. The function of the same name in
        ``fastapi_toolsets.models``, given no callback, silences recorders as well.

        Args:
            *callbacks: The functions not to call; with none named, those of ``session.on_commit`` are left out too.
        """
        with muted(*callbacks) if callbacks else only_recorded():
            yield

    def assert_delivered(self, expected: Iterable[RecordedEvent]) -> None:
        """Assert that exactly these events were delivered, in this order.

        ``assert recorder == [...]`` says the same in a test that pytest runs; this one explains itself everywhere.

        Args:
            expected: The events, made with :func:`created`, :func:`updated` and :func:`deleted`.

        Raises:
            AssertionError: Others were; its message lists those that are missing and those that are too many.
        """
        wanted = list(expected)
        if self._events != wanted:
            raise AssertionError("\n".join(("what was delivered is not what was expected", *difference(self, wanted))))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (EventRecorder, list, tuple)):
            return self._events == [*other]
        return NotImplemented

    @overload
    def __getitem__(self, index: int) -> RecordedEvent: ...
    @overload
    def __getitem__(self, index: slice) -> list[RecordedEvent]: ...
    def __getitem__(self, index: int | slice) -> RecordedEvent | list[RecordedEvent]:
        return self._events[index]

    def __len__(self) -> int:
        return len(self._events)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._events!r})"


@contextlib.contextmanager
def capture_events(
    *models: type[object], run_callbacks: bool = True, own_context: bool = False
) -> Generator[EventRecorder]:
    """Record every event that is delivered while the block runs, in order, also those that nobody listens to.

    ::

        with capture_events(Order) as events:
            await place_order(session)
        assert events == [created(Order, 1)]

    It is no listener: callbacks are told the same, in the same order, as without it, and ``listener_scope`` leaves it
    alone. An event is recorded before its first callback is called, once for each recorder; blocks may be nested. Only
    event sessions deliver events, and only what was committed is recorded, whatever callbacks of other phases are told.
    Values that were not loaded are read from the database, as they are for a listener that asks for the ``event``.
    Afterwards the recorder keeps what it has.

    Args:
        *models: Mapped classes, abstract bases or mixins to record the rows of; all models when none is given.
        run_callbacks: Whether callbacks are called for what the current task or thread, and the tasks and AnyIO worker
            threads that it starts, commit in the block. Without them (``False``) a test sees that an e-mail would be
            sent, and none is. Other threads that it starts call theirs.
        own_context: Whether to record only what the current task or thread commits, and the tasks and AnyIO worker
            threads that it starts, so that tests that run at the same time in one process do not see each other's
            events. By default everything that the process commits is recorded, whichever task or thread does it.

    Yields:
        The recorder, a sequence of :class:`RecordedEvent`.

    Raises:
        ListenerError: One of the models is none. It is a ``TypeError``.
    """
    for model in models:
        check_target(model, "capture_events()")
    recorder = EventRecorder(models, own_context=own_context)
    with contextlib.ExitStack() as stack:
        stack.enter_context(registry.recorded_by(recorder))
        if own_context:
            _own.set((*_own.get(), recorder))
            stack.callback(_disown, recorder)
        if not run_callbacks:
            stack.enter_context(recorder.muted())
        yield recorder


def _disown(recorder: EventRecorder) -> None:
    """Let a recorder go; a sync generator is ended by FastAPI in another context than it was begun in."""
    _own.set(tuple(known for known in _own.get() if known is not recorder))
