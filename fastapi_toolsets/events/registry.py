"""Who listens to what: registration, removal, and the listeners of a class in the order they are called."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, ParamSpec, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from ..errors import ListenerError
from .callbacks import (
    FILLED_IN,
    AnyCallback,
    callback_identity,
    callback_name,
    checked_keywords,
    is_async_callable,
    shown,
)
from .process_lock import ProcessLock
from .types import CallbackFor, ModelEvent, Phase

if TYPE_CHECKING:
    from .types import Event

ModelT = TypeVar("ModelT")
Parameters = ParamSpec("Parameters")
ResultT = TypeVar("ResultT")

ALL_EVENTS = frozenset(ModelEvent)


class Listener:
    """One callback with what it listens to and what it wants to be told."""

    __slots__ = ("callback", "events", "identity", "is_async", "name", "phase", "wants_event", "wants_session")

    def __init__(
        self,
        callback: AnyCallback,
        events: frozenset[ModelEvent],
        keywords: frozenset[str],
        phase: Phase = Phase.AFTER_COMMIT,
    ) -> None:
        """Resolve once what every call needs to know."""
        self.phase: Phase = phase
        self.callback: AnyCallback = callback
        self.identity: object = callback_identity(callback)
        self.events: frozenset[ModelEvent] = events
        self.is_async: bool = is_async_callable(callback)
        self.name: str = callback_name(callback)
        self.wants_session: bool = "session" in keywords
        self.wants_event: bool = "event" in keywords


@dataclass(frozen=True, slots=True)
class RegisteredListener:
    """One callback and the class that it listens to, as :func:`registered_listeners` returns them."""

    target: type
    """The class that ``listens_for`` was given: a model, an abstract base or a mixin."""
    events: frozenset[ModelEvent]
    callback: AnyCallback
    name: str
    """The callback's qualified name, with its module."""
    is_async: bool
    """Whether the callback is awaited."""
    phase: Phase = Phase.AFTER_COMMIT


class Recorder(Protocol):
    """Hears of every event without being a listener: it changes nothing of what callbacks are told, or when."""

    def follows(self, model: type) -> bool:
        """Whether it wants to hear of the rows of a class, also where nobody listens to it."""
        ...

    def note(self, event: Event) -> None:
        """Take note of an event that is about to be told."""
        ...


class Registry:
    """Listeners by target class; every change drops what was resolved before, so nothing resolved is ever stale."""

    def __init__(self) -> None:
        """Begin without listeners."""
        self._lock = ProcessLock()
        self._listeners: WeakKeyDictionary[type, list[Listener]] = WeakKeyDictionary()
        self._watchers: list[Callable[[], None]] = []
        self.hears_before_commit: bool = False
        """Whether anybody listens to ``Phase.BEFORE_COMMIT``."""
        self.hears_after_rollback: bool = False
        """Whether anybody listens to ``Phase.AFTER_ROLLBACK``."""
        self.recorders: tuple[Recorder, ...] = ()
        """Who hears of events besides the listeners; scopes leave them alone."""
        self.checks: list[Callable[[type], None]] = []
        """What a target has to pass before anybody may listen to it; each raises what is wrong."""

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` now if anything is registered, and after every registration and removal."""
        self._watchers.append(changed)
        if self._listeners or self.recorders:
            changed()

    @contextlib.contextmanager
    def recorded_by(self, recorder: Recorder) -> Generator[None]:
        """Let a recorder hear of what is told in the block, from the next flush on."""
        with self._lock.current:
            self.recorders = (*self.recorders, recorder)
        self._tell_watchers()
        try:
            yield
        finally:
            with self._lock.current:
                self.recorders = tuple(known for known in self.recorders if known is not recorder)
            self._tell_watchers()

    def is_recorded(self, model: type) -> bool:
        """Whether any recorder wants to hear of the rows of a class."""
        return any(recorder.follows(model) for recorder in self.recorders)

    def add(self, target: type, listener: Listener) -> None:
        """Add a listener behind those that the target has."""
        for check in self.checks:
            check(target)
        with self._lock.current:
            self._listeners.setdefault(target, []).append(listener)
            self.hears_before_commit = self.hears_before_commit or listener.phase is Phase.BEFORE_COMMIT
            self.hears_after_rollback = self.hears_after_rollback or listener.phase is Phase.AFTER_ROLLBACK
        self._tell_watchers()

    def remove(self, target: type, callback: AnyCallback) -> None:
        """Remove a callback from a target, in every phase.

        Raises:
            ListenerError: The callback does not listen to that target.
        """
        with self._lock.current:
            registered = self._listeners.get(target, [])
            identities, identity = [*map(_identity_of, registered)], callback_identity(callback)
            if identity not in identities:
                msg = (
                    f"{callback_name(callback)} does not listen to {target.__qualname__}: "
                    "give remove_listener the class and the function that listens_for was given"
                )
                raise ListenerError(msg)
            while identity in identities:
                place = identities.index(identity)
                del identities[place], registered[place]
            if not registered:
                del self._listeners[target]
        self._changed()

    @contextlib.contextmanager
    def scope(self, *, inherit: bool) -> Generator[None]:
        """Restore on exit what was registered on entry."""
        with self._lock.current:
            saved = {target: list(listeners) for target, listeners in self._listeners.items()}
            if not inherit:
                self._listeners.clear()
        self._changed()
        try:
            yield
        finally:
            with self._lock.current:
                self._listeners = WeakKeyDictionary(saved)
            self._changed()

    def targets(self) -> list[type]:
        """Return the classes that anybody listens to."""
        with self._lock.current:
            return list(self._listeners)

    def resolve(self, model: type) -> tuple[Listener, ...]:
        """Return the listeners of a class: its own first, then its bases', in registration order, no function twice."""
        found: list[Listener] = []
        places: dict[object, int] = {}
        with self._lock.current:
            for class_ in model.__mro__:
                for listener in self._listeners.get(class_, ()):
                    _merge(found, places, listener)
        return tuple(found)

    def registered(self) -> tuple[tuple[type, Listener], ...]:
        """Return every target with each of its listeners, targets and listeners in the order of registration."""
        with self._lock.current:
            return tuple((target, listener) for target, listeners in self._listeners.items() for listener in listeners)

    def _changed(self) -> None:
        with self._lock.current:
            self.hears_before_commit = self._has_listener_in(Phase.BEFORE_COMMIT)
            self.hears_after_rollback = self._has_listener_in(Phase.AFTER_ROLLBACK)
        self._tell_watchers()

    def _has_listener_in(self, phase: Phase) -> bool:
        return any(phase in map(_phase_of, listeners) for listeners in self._listeners.values())

    def _tell_watchers(self) -> None:
        for changed in self._watchers:
            changed()


_identity_of: Callable[[Listener], object] = attrgetter("identity")
_phase_of: Callable[[Listener], Phase] = attrgetter("phase")


def _merge(found: list[Listener], places: dict[object, int], listener: Listener) -> None:
    """Append a listener, or widen the one that calls the same function already."""
    place = places.setdefault((listener.identity, listener.phase), len(found))
    if place == len(found):
        found.append(listener)
        return
    known = found[place]
    if not listener.events <= known.events:
        keywords = {name for name in FILLED_IN if getattr(known, f"wants_{name}")}
        events = known.events | listener.events
        found[place] = Listener(known.callback, events, frozenset(keywords), known.phase)


registry: Registry = Registry()


class ListenerDecorator(Generic[ModelT]):
    """What ``listens_for`` returns: registers the function it decorates and returns it unchanged.

    To type checkers a callback whose first parameter cannot be every ``ModelT`` is an error, a function keeps its type,
    and an object with ``__call__`` becomes a function of that signature.
    """

    def __init__(self, target: type[ModelT], events: frozenset[ModelEvent], phase: Phase) -> None:
        """Remember what to listen to."""
        self._target = target
        self._events = events
        self._phase = phase

    def __call__(self, callback: CallbackFor[ModelT, Parameters, ResultT], /) -> Callable[Parameters, ResultT]:
        """Register ``callback`` and return it.

        Raises:
            ListenerError: It cannot be called as ``callback(obj, event_type, changes)``, or is a generator function.
        """
        keywords = checked_keywords(callback, self._target)
        registry.add(self._target, Listener(callback, self._events, keywords, self._phase))
        return callback


def listens_for(
    target: type[ModelT],
    event_types: ModelEvent | Collection[ModelEvent] = ALL_EVENTS,
    *,
    phase: Phase = Phase.AFTER_COMMIT,
) -> ListenerDecorator[ModelT]:
    """Call the decorated function for every transaction that created, updated or deleted a row of ``target``.

    The function is called with ``(obj, event_type, changes)``; it may also declare the keyword-only parameters
    ``session`` (the session of the transaction) and ``event`` (an :class:`Event`). It may be sync or async, a partial,
    a bound method or an object with ``__call__``. Decorators stack. It takes effect from the next flush on, or from
    the next commit on where somebody listens to such events of the model already.

    Phases:
        ``AFTER_COMMIT``: after the COMMIT of the outermost transaction, for exactly what it committed.
        ``BEFORE_COMMIT``: inside the transaction, once everything is flushed. What the function writes through
        ``session`` is committed with the rest, and told in turn. What it raises comes out of ``commit()``, with
        everything rolled back; no callback of another phase hears of it. It cannot commit or roll back itself.
        ``AFTER_ROLLBACK``: after the outermost transaction was rolled back, for what it would have committed; ``obj``
        is a detached copy of the row that would have been.

    Args:
        target: A mapped class, an abstract base or a plain mixin; every mapped subclass is listened to, also one
            that is defined later.
        event_types: One :class:`ModelEvent` or a collection of them; all three when left out.
        phase: When to call it. The same function may listen in several phases, decorated once for each.

    Returns:
        A decorator that returns the function unchanged.

    Raises:
        ListenerError: ``target`` is not such a class, ``event_types`` is anything else, or ``phase`` is no
            :class:`Phase`. The decorator raises it for a function that cannot be called that way. It is a
            ``TypeError``.
    """
    check_target(target, "listens_for()")
    return ListenerDecorator(target, _checked_events(event_types), _checked_phase(phase))


def check_target(target: object, caller: str) -> None:
    """Raise :class:`ListenerError` for what nobody can listen to."""
    if not isinstance(target, type) or getattr(builtins, target.__name__, None) is target:
        given = shown(target)
        msg = f"{caller} was given {given}, which is no model: give it a mapped class, an abstract base or a mixin"
        raise ListenerError(msg)


def remove_listener(target: type, callback: AnyCallback) -> None:
    """Stop calling ``callback`` for ``target``, in every phase, from the next delivery on.

    Args:
        target: The class that ``listens_for`` was given.
        callback: The function that it decorated.

    Raises:
        ListenerError: The callback does not listen to that class, or it is none.
    """
    check_target(target, "remove_listener()")
    registry.remove(target, callback)


def registered_listeners() -> tuple[RegisteredListener, ...]:
    """Return what listens to what, in the order of registration: that of the targets, then of each one's callbacks.

    Returns:
        One entry for each time that ``listens_for`` decorated a function and was not undone since, by
        :func:`remove_listener` or the end of a :func:`listener_scope`.
    """
    return tuple(
        RegisteredListener(target, listener.events, listener.callback, listener.name, listener.is_async, listener.phase)
        for target, listener in registry.registered()
    )


@contextlib.contextmanager
def listener_scope(*, inherit: bool = True) -> Generator[None]:
    """Give a block listeners of its own: what is registered or removed inside is undone when it ends.

    It is meant for tests. The scope is the process's, not the task's or the thread's.

    Args:
        inherit: Whether the listeners registered so far are called inside the block too.
    """
    with registry.scope(inherit=inherit):
        yield


def _checked_events(events: object) -> frozenset[ModelEvent]:
    if isinstance(events, ModelEvent):
        return frozenset((events,))
    if isinstance(events, Collection) and not isinstance(events, type) and events:  # ModelEvent itself is a collection
        members = cast("Collection[object]", events)
        found = [member for member in members if isinstance(member, ModelEvent)]
        if len(found) == len(members):
            return frozenset(found)
    msg = (
        f"listens_for() was given {events!r} as event types: give it a ModelEvent such as ModelEvent.CREATE, "
        "or a list of them"
    )
    raise ListenerError(msg)


def _checked_phase(phase: object) -> Phase:
    if isinstance(phase, Phase):
        return phase
    msg = f"listens_for() was given {phase!r} as phase: give it a Phase such as Phase.BEFORE_COMMIT"
    raise ListenerError(msg)
