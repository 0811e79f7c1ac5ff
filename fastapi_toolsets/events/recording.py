"""Writes down what is delivered while a block runs, so that a test can compare it with what it expects."""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

from ..errors import ExpectedChangeError
from .muting import muted, only_recorded
from .registry import check_target, registry
from .types import ModelEvent, reduced

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from uuid import UUID

    from .types import Event, Reduced

# The recorders of this task or thread that want to hear of nothing else.
_own: ContextVar[tuple[EventRecorder, ...]] = ContextVar("fastapi_toolsets_own_recorders", default=())


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RecordedEvent:
    """An event that was delivered, or one that a test expects: :func:`created`, :func:`updated`, :func:`deleted`.

    Two are equal where model, type, identity and changes are. What an expectation leaves out (``None``) is not
    compared, and neither are ``before``, ``after`` and ``transaction_id``. It is immutable, and can be pickled and
    deep-copied where the values in it can.

    Attributes:
        model: The mapped class of the row.
        type: What happened to the row.
        identity: The primary key values, in the order of the mapper's primary key columns.
        changes: For an UPDATE what changed, ``{"status": {"old": …, "new": …}}``, as callbacks are told; else ``None``.
        before: The column values at the start of the transaction, by attribute name; ``None`` for a CREATE.
        after: The column values as committed, by attribute name; ``None`` for a DELETE.
        transaction_id: The same for all events of one transaction.
    """

    model: type[object]
    type: ModelEvent
    identity: tuple[Any, ...] | None = None
    changes: Mapping[str, Mapping[str, Any]] | None = None
    before: Mapping[str, Any] | None = field(default=None, kw_only=True)
    after: Mapping[str, Any] | None = field(default=None, kw_only=True)
    transaction_id: UUID | None = field(default=None, kw_only=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RecordedEvent):
            return NotImplemented
        return (
            self.model is other.model
            and self.type is other.type
            and (self.identity is None or other.identity is None or self.identity == other.identity)
            and (self.changes is None or other.changes is None or self.changes == other.changes)
        )

    def __hash__(self) -> int:
        return hash((self.model, self.type))

    def __reduce__(self) -> Reduced:
        """Let ``pickle`` and ``copy`` make it again."""
        return reduced(self)

    def __repr__(self) -> str:
        """Write it as the call that makes it, so that what was delivered can be copied into a test."""
        parts = [self.model.__qualname__.rpartition("<locals>.")[2]]
        parts += map(_shown, self.identity or ())
        for key, change in (self.changes or {}).items():
            parts.append(f"{key}=({_shown(change['old'])}, {_shown(change['new'])})")
        return f"{self.type.value}d({', '.join(parts)})"


def created(model: type[object], /, *identity: object) -> RecordedEvent:
    """Describe the CREATE of a row, to compare what was recorded with.

    Args:
        model: The mapped class.
        *identity: The primary key, one value for each column. Left out, any row of the model will do.

    Raises:
        ListenerError: ``model`` is no class that has rows. It is a ``TypeError``.
    """
    check_target(model, "created()")
    return RecordedEvent(model, ModelEvent.CREATE, identity or None)


def updated(model: type[object], /, *identity: object, **changes: tuple[object, object]) -> RecordedEvent:
    """Describe the UPDATE of a row, to compare what was recorded with: ``updated(Order, 1, status=("new", "paid"))``.

    Args:
        model: The mapped class.
        *identity: The primary key, one value for each column. Left out, any row of the model will do.
        **changes: Everything that has changed, as ``attribute=(old, new)``. Left out, any change will do.

    Raises:
        ListenerError: ``model`` is no class that has rows. It is a ``TypeError``.
        ExpectedChangeError: One of the changes is no pair. It is a ``TypeError``.
    """
    check_target(model, "updated()")
    told = {key: _checked_change(key, change) for key, change in changes.items()}
    return RecordedEvent(model, ModelEvent.UPDATE, identity or None, MappingProxyType(told) if told else None)


def deleted(model: type[object], /, *identity: object) -> RecordedEvent:
    """Describe the DELETE of a row, to compare what was recorded with.

    Args:
        model: The mapped class.
        *identity: The primary key, one value for each column. Left out, any row of the model will do.

    Raises:
        ListenerError: ``model`` is no class that has rows. It is a ``TypeError``.
    """
    check_target(model, "deleted()")
    return RecordedEvent(model, ModelEvent.DELETE, identity or None)


def _checked_change(key: str, change: object) -> Mapping[str, Any]:
    given = f"an object of type {type(change).__name__}"
    pair = cast("Sequence[object]", change) if isinstance(change, (tuple, list)) else ()  # two letters are no pair
    if len(pair) != 2:  # noqa: PLR2004 - as above
        msg = f"updated() was given {given} as the change of {key}: give it a pair, {key}=(old, new)"
        raise ExpectedChangeError(msg)
    old, new = pair
    return MappingProxyType({"old": old, "new": new})


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


_COMPARED = 1_000_000
"""So many pairs of events that may be equal are compared; of more alike events, those that stand at like places."""

_COMPARED_IN_ANY_ORDER = 1_000


def difference(delivered: Sequence[RecordedEvent], expected: Sequence[object]) -> list[str]:
    """Describe, a line for each event, what was delivered but not expected (+) and the reverse (-)."""
    lines = ["  (- expected and not delivered, + delivered and not expected)"]
    row = column = 0
    for next_row, next_column in (*_in_common([*delivered], expected), (len(delivered), len(expected))):
        lines += (f"  - {_shown(event)}" for event in expected[column:next_column])
        lines += (f"  + {event!r}" for event in delivered[row:next_row])
        lines += (f"    {event!r}" for event in delivered[next_row : next_row + 1])
        row, column = next_row + 1, next_column + 1
    if len(delivered) == len(expected) <= _COMPARED_IN_ANY_ORDER and _same_in_any_order(delivered, expected):
        lines.append("  The same events, in another order.")
    return lines


def _in_common(delivered: list[RecordedEvent], expected: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Find the most events that both have in common, in order; return the place of each in both."""
    begin, end = 0, min(len(delivered), len(expected))
    while begin < end and delivered[begin] == expected[begin]:
        begin += 1
    tail = 0
    while tail < end - begin and delivered[-1 - tail] == expected[-1 - tail]:
        tail += 1
    yield from zip(range(begin), range(begin), strict=True)
    middle = delivered[begin : len(delivered) - tail], expected[begin : len(expected) - tail]
    yield from ((begin + row, begin + column) for row, column in _longest(*middle))
    yield from zip(
        range(len(delivered) - tail, len(delivered)), range(len(expected) - tail, len(expected)), strict=True
    )


_Chain: TypeAlias = "tuple[int, int, _Chain | None]"


def _longest(delivered: list[RecordedEvent], expected: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Do that by the method of Hunt and Szymanski, from the ends on: it costs as much as there are pairs of equals."""
    candidates = _Candidates(expected, _COMPARED // max(len(delivered), 1) + 1)
    firsts: list[int] = []  # of the chains of each length, how near to the end the nearest begins, negated
    chains: list[_Chain] = []
    for row in reversed(range(len(delivered))):
        for column in candidates.of(delivered[row]):
            if delivered[row] == expected[column]:
                length = bisect_left(firsts, -column)
                chain = row, column, chains[length - 1] if length else None
                firsts[length : length + 1], chains[length : length + 1] = [-column], [chain]
    rest = chains[-1] if chains else None
    while rest is not None:
        yield rest[:2]
        rest = rest[2]


class _Candidates:
    """Where among the expected events those stand that may equal one that was delivered."""

    def __init__(self, expected: Sequence[object], most: int) -> None:
        self._most = most
        self._by_key: defaultdict[object, list[int]] = defaultdict(list)
        """Those of a row, and those of any row, or of one that has no hash; ``None`` for what is no event."""
        self._by_kind: defaultdict[object, list[int]] = defaultdict(list)
        self._asked: Counter[object] = Counter()
        for column, event in enumerate(expected):
            key: object = None
            if isinstance(event, RecordedEvent):
                self._by_kind[event.model, event.type].append(column)
                key = _key(event)
            self._by_key[key].append(column)

    def of(self, event: RecordedEvent) -> list[int]:
        """Return their places in order, for one event after the other from the last on."""
        kind, key = (event.model, event.type), _key(event)
        lists = [self._by_kind[kind]] if key == kind else [self._by_key[key], self._by_key[kind]]
        found: list[int] = []
        for which, places in zip((key, kind), lists, strict=False):
            found += self._near(which, places)
        return sorted(found + self._near(None, self._by_key[None]))

    def _near(self, key: object, places: list[int]) -> list[int]:
        """Return the places for a key; of too many, as many before as behind the one whose turn it is."""
        if len(places) <= self._most:
            return places
        self._asked[key] += 1
        begin = len(places) - self._asked[key] - self._most // 2
        begin = max(0, min(begin, len(places) - self._most))
        return places[begin : begin + self._most]


def _key(event: RecordedEvent) -> object:
    """Return what is equal for equal events of one row, or what they are where the row is not known so."""
    kind = event.model, event.type
    try:
        hash(event.identity)
    except TypeError:
        return kind
    return kind if event.identity is None else (*kind, event.identity)


def _same_in_any_order(delivered: Sequence[object], expected: Sequence[object]) -> bool:
    rest = list(expected)
    for event in delivered:
        if event not in rest:
            return False
        rest.remove(event)
    return not rest


def _shown(value: object) -> str:
    """Return the value's repr, or a plain one where that fails: a detached object may try to load what it shows."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - whatever a repr raises, the message it was for must arrive
        return object.__repr__(value)
