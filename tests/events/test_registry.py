"""The registry by itself: who is called for which class, in which order, and what is resolved when."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

import pytest

from fastapi_toolsets.errors import ListenerError, ToolsetsError
from fastapi_toolsets.events.callbacks import callback_name, is_async_callable
from fastapi_toolsets.events.muting import are_all_muted, is_muted, muted, muted_callbacks, only_recorded
from fastapi_toolsets.events.registry import (
    ALL_EVENTS,
    Listener,
    RegisteredListener,
    Registry,
    listener_scope,
    listens_for,
    registered_listeners,
    remove_listener,
)
from fastapi_toolsets.events.types import Event, ModelEvent


class Top: ...


class Left(Top): ...


class Right(Top): ...


class Bottom(Left, Right): ...


def a(obj: object, event_type: ModelEvent, changes: object) -> None: ...


def b(obj: object, event_type: ModelEvent, changes: object) -> None: ...


def c(obj: object, event_type: ModelEvent, changes: object) -> None: ...


def listening(
    registry: Registry, *entries: tuple[type, Callable[..., object], frozenset[ModelEvent]]
) -> Callable[[type], list[tuple[Callable[..., object], frozenset[ModelEvent]]]]:
    """Register callbacks, and give back what resolves a class to ``(callback, events)``."""
    for target, callback, events in entries:
        registry.add(target, Listener(callback, events, frozenset()))
    return lambda class_: [(listener.callback, listener.events) for listener in registry.resolve(class_)]


CREATE = frozenset({ModelEvent.CREATE})
DELETE = frozenset({ModelEvent.DELETE})


def test_order_is_the_classes_own_first_then_that_of_registration() -> None:
    """C3: base classes' after the class's own, along the method resolution order."""
    resolve = listening(Registry(), (Top, a, CREATE), (Bottom, b, CREATE), (Right, c, CREATE), (Bottom, print, CREATE))
    assert resolve(Bottom) == [(b, CREATE), (print, CREATE), (c, CREATE), (a, CREATE)]
    assert resolve(Right) == [(c, CREATE), (a, CREATE)]
    assert resolve(Left) == [(a, CREATE)]
    assert resolve(int) == []


def test_a_function_is_there_once_with_all_its_events() -> None:
    """N4: registered on a class and its bases, it stands where it was found first."""
    resolve = listening(
        Registry(), (Top, a, CREATE), (Bottom, b, CREATE), (Bottom, a, DELETE), (Left, b, CREATE), (Right, b, DELETE)
    )
    assert resolve(Bottom) == [(b, CREATE | DELETE), (a, DELETE | CREATE)]
    assert resolve(Left) == [(b, CREATE), (a, CREATE)]


def test_methods_of_one_object_are_the_same_function() -> None:
    """N4: each time they are asked for is another object; those of an equal object are others, also if made in C."""
    empty: list[list[object]] = [[], []]
    first, second = empty
    places = dict(enumerate(empty))
    assert (first == second, first.append is first.append, places.get is places.get) == (True, False, False)
    resolve = listening(
        Registry(),
        (Top, first.append, ALL_EVENTS),
        (Top, second.append, ALL_EVENTS),
        (Top, first.append, ALL_EVENTS),
        (Top, first.__len__, ALL_EVENTS),
        (Top, first.__len__, ALL_EVENTS),
        (Top, partial(a), ALL_EVENTS),
        (Top, partial(a), ALL_EVENTS),
    )
    names = [getattr(callback, "__name__", "partial") for callback, _ in resolve(Top)]
    assert names == ["append", "append", "__len__", "partial", "partial"]


def test_widening_does_not_reach_the_listener_of_the_base() -> None:
    """N4: what a subclass adds to a function's events does not leak to its base class."""
    resolve = listening(Registry(), (Top, a, CREATE), (Bottom, a, DELETE))
    assert (resolve(Bottom), resolve(Top)) == ([(a, DELETE | CREATE)], [(a, CREATE)])


def test_removing_takes_only_that_target() -> None:
    """N5: all registrations of the function on the target, none on another."""
    registry = Registry()
    resolve = listening(registry, (Top, a, CREATE), (Bottom, a, CREATE), (Bottom, a, DELETE), (Bottom, b, DELETE))
    registry.remove(Bottom, a)
    assert resolve(Bottom) == [(b, DELETE), (a, CREATE)]
    registry.remove(Top, a)
    assert resolve(Bottom) == [(b, DELETE)]
    with pytest.raises(ListenerError, match="Top") as caught:
        registry.remove(Top, a)
    assert isinstance(caught.value, (ToolsetsError, TypeError))


def test_everybody_who_follows_is_told_of_every_change() -> None:
    """N5: that is what keeps everything resolved from being stale."""
    registry = Registry()
    told: list[int] = []
    registry.subscribe(lambda: told.append(len(registry.resolve(Top))))
    assert told == []
    registry.add(Top, Listener(a, CREATE, frozenset()))
    registry.add(Top, Listener(b, CREATE, frozenset()))
    registry.remove(Top, a)
    with registry.scope(inherit=False):
        registry.add(Top, Listener(c, CREATE, frozenset()))
    assert told == [1, 2, 1, 0, 1, 1]
    registry.subscribe(lambda: told.append(100))
    assert told[6:] == [100]


def test_scopes_restore_what_was_there() -> None:
    """N5: nested, with and without the listeners outside."""
    registry = Registry()
    resolve = listening(registry, (Top, a, CREATE))
    with registry.scope(inherit=True):
        registry.add(Top, Listener(b, CREATE, frozenset()))
        registry.remove(Top, a)
        with registry.scope(inherit=False):
            assert resolve(Top) == []
        assert resolve(Top) == [(b, CREATE)]
    assert resolve(Top) == [(a, CREATE)]


class Follower:
    """An observer of the subclasses of one class."""

    def __init__(self, model: type) -> None:
        self.model = model

    def follows(self, model: type) -> bool:
        return issubclass(model, self.model)

    def note(self, event: Event) -> None: ...


def test_recorders_come_and_go() -> None:
    """N5: each time everybody who follows the registry is told, and scopes of listeners leave recorders alone."""
    registry = Registry()
    told: list[tuple[bool, bool]] = []

    def observed() -> tuple[bool, bool]:
        return registry.is_recorded(Left), registry.is_recorded(Right)

    registry.subscribe(lambda: told.append(observed()))
    with registry.recorded_by(Follower(Left)):
        registry.subscribe(lambda: told.append((False, False)))
        assert told == [(True, False), (False, False)]
        with registry.recorded_by(Follower(Right)), registry.scope(inherit=False):
            assert observed() == (True, True)
            assert registry.resolve(Left) == ()
        assert (observed(), registry.is_recorded(Bottom), registry.is_recorded(Top)) == ((True, False), True, False)
    assert (observed(), registry.recorders) == ((False, False), ())
    assert told[-2:] == [(False, False), (False, False)]


def test_muting_for_observers() -> None:
    """N5: everything may be muted for callbacks alone, or for observers too, whichever block is the outer one."""
    listener = Listener(a, ALL_EVENTS, frozenset())

    def state() -> tuple[bool, bool, bool]:
        return bool(muted_callbacks()), is_muted(listener, muted_callbacks()), are_all_muted(muted_callbacks())

    with only_recorded():
        assert state() == (True, True, False)
        with muted(b):
            assert state() == (True, True, False)
        with muted():
            assert state() == (True, True, True)
    with muted(), only_recorded():
        assert state() == (True, True, True)
    with muted(b):
        assert state() == (True, False, False)
    assert state() == (False, False, False)


def test_a_class_that_is_garbage_is_forgotten() -> None:
    """T9: the registry keeps no class alive."""
    registry = Registry()
    passing: Any = type("Passing", (), {})
    registry.add(passing, Listener(a, CREATE, frozenset()))
    gone = weakref.ref(passing)
    del passing
    gc.collect()
    assert gone() is None
    assert registry.resolve(Top) == ()


def test_registering_from_many_threads_loses_nothing() -> None:
    """N5: each registration counts."""
    registry = Registry()
    callbacks = [partial(a) for _ in range(200)]
    start = threading.Barrier(8)

    def register(mine: list[Callable[..., object]]) -> None:
        start.wait()
        for callback in mine:
            registry.add(Top, Listener(callback, ALL_EVENTS, frozenset()))

    threads = [threading.Thread(target=register, args=(callbacks[number::8],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    resolved = {id(listener.callback) for listener in registry.resolve(Bottom)}
    assert resolved == {id(callback) for callback in callbacks}


class Handler:
    def method(self, obj: object, event_type: ModelEvent, changes: object) -> None: ...

    async def async_method(self, obj: object, event_type: ModelEvent, changes: object) -> None: ...

    def __call__(self, obj: object, event_type: ModelEvent, changes: object) -> None: ...


class AsyncHandler:
    async def __call__(self, obj: object, event_type: ModelEvent, changes: object) -> None: ...


async def asynchronous(obj: object, event_type: ModelEvent, changes: object) -> None: ...


HERE = __name__


@pytest.mark.parametrize(
    ("callback", "name", "is_async"),
    [
        (a, f"{HERE}.a", False),
        (asynchronous, f"{HERE}.asynchronous", True),
        (partial(a), f"{HERE}.a", False),
        (partial(partial(asynchronous)), f"{HERE}.asynchronous", True),
        (Handler().method, f"{HERE}.Handler.method", False),
        (Handler().async_method, f"{HERE}.Handler.async_method", True),
        (Handler(), f"{HERE}.Handler", False),
        (AsyncHandler(), f"{HERE}.AsyncHandler", True),
        (partial(AsyncHandler()), f"{HERE}.AsyncHandler", True),
        (Handler, f"{HERE}.Handler", False),
        (print, "builtins.print", False),
    ],
)
def test_what_a_callback_is_called_and_whether_it_is_async(
    callback: Callable[..., object], name: str, *, is_async: bool
) -> None:
    """C1, C4: functions, partials of partials, methods, objects and builtins."""
    assert (callback_name(callback), is_async_callable(callback)) == (name, is_async)


def test_muting_is_the_contexts_own() -> None:
    """N5: a copy of the context taken before the block does not see it, one taken inside does."""
    first, second = (Listener(callback, ALL_EVENTS, frozenset()) for callback in (a, b))

    def state() -> tuple[bool, bool, bool]:
        return bool(muted_callbacks()), is_muted(first, muted_callbacks()), is_muted(second, muted_callbacks())

    before = copy_context()
    with muted(a):
        inside = copy_context()
        assert state() == (True, True, False)
        with muted():
            assert state() == (True, True, True)
            with muted(b):
                assert state() == (True, True, True)
        assert state() == (True, True, False)
    assert state() == before.run(state) == (False, False, False)
    assert inside.run(state) == (True, True, False)


def test_what_is_registered_can_be_read() -> None:
    """N5: in the order of registration, and without what was removed or belongs to a scope that has ended."""
    with listener_scope(inherit=False):
        decorated = listens_for(Left, ModelEvent.CREATE)(a)
        listens_for(Top)(b)
        listens_for(Left, [ModelEvent.UPDATE, ModelEvent.DELETE])(a)
        with listener_scope():
            listens_for(Left)(c)
        listens_for(Right)(c)
        remove_listener(Right, c)
        of_a = (decorated, callback_name(a), False)
        assert registered_listeners() == (
            RegisteredListener(Left, frozenset({ModelEvent.CREATE}), *of_a),
            RegisteredListener(Left, frozenset({ModelEvent.UPDATE, ModelEvent.DELETE}), *of_a),
            RegisteredListener(Top, ALL_EVENTS, b, callback_name(b), is_async=False),
        )


def test_registered_async_callback_is_told_as_such() -> None:
    async def callback(obj: object, event_type: ModelEvent, changes: object) -> None: ...

    with listener_scope(inherit=False):
        listens_for(Top)(callback)
        (registered,) = registered_listeners()
        assert (registered.target, registered.callback, registered.is_async) == (Top, callback, True)
