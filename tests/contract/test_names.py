"""Rules N2, N3, N6 and N8, and the part of N1 and N4 that registration decides: what it takes and what it refuses."""

from __future__ import annotations

import functools
import importlib
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, cast

import pytest
from sqlalchemy.orm import aliased

import fastapi_toolsets.models
from fastapi_toolsets.errors import ListenerError, ToolsetsError
from fastapi_toolsets.models import Changes, ModelEvent, listens_for, remove_listener

from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, Base, Order, created, deleted, updated

register: Any = listens_for  # what the type checkers would refuse must be refused at run time too


def plain(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...


# N2


def test_model_events_are_strings() -> None:
    """N2: a ``str`` enum with the three values."""
    assert [(member.name, member.value) for member in ModelEvent] == [
        ("CREATE", "create"),
        ("UPDATE", "update"),
        ("DELETE", "delete"),
    ]
    assert all(isinstance(member, str) for member in ModelEvent)
    assert ModelEvent("update") is ModelEvent.UPDATE
    assert (f"{ModelEvent.DELETE}", json.dumps(ModelEvent.CREATE)) == ("delete", '"create"')


# N3

SHAPES: list[tuple[tuple[object, ...], list[str]]] = [
    ((), ["create", "update", "delete"]),
    ((ModelEvent.CREATE,), ["create"]),
    ((ModelEvent.UPDATE,), ["update"]),
    ((ModelEvent.DELETE,), ["delete"]),
    (([ModelEvent.DELETE, ModelEvent.CREATE],), ["create", "delete"]),
    (((ModelEvent.UPDATE, ModelEvent.UPDATE),), ["update"]),
    (({ModelEvent.CREATE, ModelEvent.UPDATE},), ["create", "update"]),
    ((frozenset(ModelEvent),), ["create", "update", "delete"]),
    (({ModelEvent.CREATE: "made", ModelEvent.DELETE: "gone"}.keys(),), ["create", "delete"]),
    ((deque([ModelEvent.UPDATE]),), ["update"]),
]


@pytest.mark.parametrize(("events", "expected"), SHAPES, ids=range(len(SHAPES)))
@scenario(Base.metadata, databases=LOCAL)
async def test_event_types_listened_to(
    front: FrontEnd, recorder: EventRecorder, events: tuple[object, ...], expected: list[str]
) -> None:
    """N3: all three when left out; one; a collection of them."""
    register(Order, *events)(recorder.record)
    order = Order(id=1, status="new")
    await front.add(order)
    await front.commit()
    order.status = "paid"
    await front.commit()
    await front.delete(order)
    await front.commit()
    assert [event[0] for event in recorder.take()] == expected


@pytest.mark.parametrize(
    "events",
    ["create", ["create"], "CREATE", None, 1, ModelEvent, [ModelEvent.CREATE, "update"], [None], [], (), {}, object()],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_as_event_type_is_refused(events: object) -> None:
    """N3: a ``TypeError`` of the library's own that says what was given."""
    with pytest.raises(ListenerError) as caught:
        register(Order, events)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ToolsetsError)
    assert repr(events) in str(caught.value)
    assert "ModelEvent" in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        Order(id=1, status="new"),
        "Order",
        None,
        1,
        plain,
        Base.metadata,
        Order.__table__,
        Order.__mapper__,
        Order.status,
        aliased(Order),
        [Order],
        object,
        str,
        dict,
    ],
    ids=lambda target: type(target).__name__,
)
def test_anything_else_as_target_is_refused(target: object) -> None:
    """N3, N4: a ``TypeError`` of the library's own that says what was given, of a row its class alone."""
    with pytest.raises(ListenerError) as caught:
        register(target)(plain)
    given = "an object of type Order" if isinstance(target, Order) else repr(target)
    assert f"was given {given}, which is no model" in str(caught.value)


def test_a_target_is_required() -> None:
    """N3: ``@listens_for`` without a model is put on the function itself and refused."""
    with pytest.raises(TypeError):
        register()
    with pytest.raises(ListenerError, match="plain"):
        register(plain)


def test_the_decorator_returns_the_function_itself() -> None:
    """N3: unchanged, also when stacked; async functions, partials and objects too."""

    class Callback:
        async def __call__(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    async def asynchronous(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    before = dict(vars(plain))
    callbacks: list[Callable[..., object]] = [plain, asynchronous, functools.partial(plain), Callback()]
    for callback in callbacks:
        assert register(Order, ModelEvent.CREATE)(callback) is callback
        assert register(Order, ModelEvent.UPDATE)(register(Base)(callback)) is callback
    assert dict(vars(plain)) == before


@scenario(Base.metadata, databases=LOCAL)
async def test_stacked_decorators(front: FrontEnd) -> None:
    """N3: stacked on one function, each adds its events; none makes the function be called twice."""
    heard: list[str] = []

    @listens_for(Order, ModelEvent.CREATE)
    @listens_for(Order, [ModelEvent.CREATE, ModelEvent.DELETE])
    def both(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        heard.append(event_type.value)

    order = Order(id=1, status="new")
    await front.add(order)
    await front.commit()
    order.status = "paid"
    await front.commit()
    await front.delete(order)
    await front.commit()
    assert heard == ["create", "delete"]
    remove_listener(Order, both)
    await front.add(Order(id=2, status="new"))
    await front.commit()
    assert heard == ["create", "delete"]


# N1, at registration


def two(order: Order, event_type: ModelEvent) -> None: ...


def four(order: Order, event_type: ModelEvent, changes: Changes | None, fourth: int) -> None: ...


def positional_session(order: Order, event_type: ModelEvent, changes: Changes | None, session: object) -> None: ...


def unknown_keyword(order: Order, event_type: ModelEvent, changes: Changes | None, *, request: object) -> None: ...


def keyword_changes(order: Order, event_type: ModelEvent, *, changes: Changes | None) -> None: ...


def no_parameters() -> None: ...


async def two_asynchronous(order: Order, event_type: ModelEvent) -> None: ...


class TwoMethods:
    def on_event(self, order: Order, event_type: ModelEvent) -> None: ...

    def __call__(self, order: Order) -> None: ...


@pytest.mark.parametrize(
    "callback",
    [
        two,
        four,
        positional_session,
        unknown_keyword,
        keyword_changes,
        no_parameters,
        two_asynchronous,
        TwoMethods().on_event,
        TwoMethods(),
        functools.partial(plain, Order(id=1, status="new")),
        functools.partial(four),
    ],
)
def test_a_callback_with_another_signature_is_refused(callback: Callable[..., object]) -> None:
    """N1: any other required parameter, or too few, is a ``TypeError`` at registration, naming the callback."""
    with pytest.raises(ListenerError) as caught:
        register(Order)(callback)
    name = getattr(callback, "__qualname__", None)
    assert name is None or name in str(caught.value)
    with pytest.raises(ListenerError):  # it was not registered all the same
        remove_listener(Order, callback)


@pytest.mark.parametrize(
    "callback", [None, 1, "plain", [plain], Order(id=1, status="new")], ids=lambda value: type(value).__name__
)
def test_what_cannot_be_called_is_refused(callback: object) -> None:
    """N1: a ``TypeError`` at registration that says what was given, of a row its class alone."""
    with pytest.raises(ListenerError, match="listens_for") as caught:
        register(Order)(callback)
    given = "an object of type Order" if isinstance(callback, Order) else repr(callback)
    assert f"was put on {given}, which cannot be called" in str(caught.value)


def test_generator_functions_are_refused() -> None:
    """N1, C1: a generator's body would never run, so it is refused rather than lost silently."""

    def generator(order: Order, event_type: ModelEvent, changes: Changes | None) -> Generator[None]:
        yield

    async def async_generator(order: Order, event_type: ModelEvent, changes: Changes | None) -> AsyncGenerator[None]:
        yield

    class Generating:
        def __call__(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> Generator[None]:
            yield

    class AsyncGenerating:
        async def __call__(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> AsyncGenerator[None]:
            yield

    objects = (Generating(), AsyncGenerating(), functools.partial(Generating()))
    for callback in (generator, async_generator, functools.partial(generator), staticmethod(generator), *objects):
        with pytest.raises(ListenerError, match="generator"):
            register(Order)(callback)


def test_a_method_without_its_object_is_refused() -> None:
    """N1: as a decorator in the class's body gets it; the message says how a method is registered."""

    class Mailer:
        def on_order(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    with pytest.raises(ListenerError, match=r"missing a required argument: 'changes'") as caught:
        register(Order)(Mailer.on_order)
    assert str(caught.value).endswith(". A method listens for one object: listens_for(Order)(that_object.its_method)")
    mailer = Mailer()
    register(Order)(mailer.on_order)
    remove_listener(Order, mailer.on_order)


@scenario(Base.metadata, databases=LOCAL)
async def test_signatures_that_fit(front: FrontEnd) -> None:
    """N1: positional-only, optional and variable parameters fit; so do methods, partials, objects and classes."""
    heard: dict[str, tuple[object, ...]] = {}

    class Audit:
        def __init__(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            heard["class"] = (order, event_type, changes)

        @classmethod
        def on_class(cls, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            heard["classmethod"] = (order, event_type, changes)

        @staticmethod
        def on_static(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            heard["staticmethod"] = (order, event_type, changes)

    def positional_only(order: Order, event_type: ModelEvent, changes: Changes | None, /) -> None:
        heard["positional_only"] = (order, event_type, changes)

    def optional(a: Order, b: ModelEvent, c: Changes | None, d: int = 4, *, retry: bool = False) -> None:
        heard["optional"] = (a, b, c, d, retry)

    def variable(*arguments: object, **keywords: object) -> None:
        heard["variable"] = (*arguments, keywords)

    def bound_first(greeting: str, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        heard["partial"] = (greeting, order, event_type, changes)

    callbacks = [Audit, Audit.on_class, Audit.on_static, positional_only, optional, variable]
    for callback in (*callbacks, functools.partial(bound_first, "hello")):
        register(Order)(callback)
    order = Order(id=1, status="new")
    await front.add(order)
    await front.commit()
    arguments = (order, ModelEvent.CREATE, None)
    assert heard == {
        "class": arguments,
        "classmethod": arguments,
        "staticmethod": arguments,
        "positional_only": arguments,
        "optional": (*arguments, 4, False),
        "variable": (*arguments, {}),
        "partial": ("hello", *arguments),
    }


# N1, of decorated functions


def passing_on(function: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(function)
    def wrapper(*arguments: object, **keywords: object) -> object:
        return function(*arguments, **keywords)

    return wrapper


def with_session(function: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(function)
    def wrapper(*arguments: object, session: object) -> object:
        return function(*arguments, session=session)

    return wrapper


def positional(function: Callable[..., object]) -> Callable[..., object]:
    """Pass no keyword on, as a decorator may that was written for functions without any."""

    @functools.wraps(function)
    def wrapper(*arguments: object) -> object:
        return function(*arguments)

    return wrapper


def passing_on_to_positional(function: Callable[..., object]) -> Callable[..., object]:
    return passing_on(positional(function))


class Decorated:
    """Methods, and an object that can be called, decorated the same ways."""

    @positional
    def on_event(self, order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object = None) -> str:
        return f"method {'was' if session else 'was not'} given the session"

    @positional
    def __call__(self, order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object = None) -> str:
        return f"object {'was' if session else 'was not'} given the session"


@scenario(Base.metadata, databases=LOCAL)
async def test_keywords_that_a_decorator_passes_on(front: FrontEnd) -> None:
    """N1: are given; one that it does not pass on, and that the function can do without, is not."""
    told: dict[str, list[str]] = {}

    def optional(name: str) -> Callable[..., None]:
        def callback(
            order: Order,
            event_type: ModelEvent,
            changes: Changes | None,
            *,
            session: object = None,
            event: object = None,
        ) -> None:
            told[name] = [key for key, given in (("session", session), ("event", event)) if given is not None]

        return callback

    register(Order)(passing_on(optional("all")))
    register(Order)(passing_on(passing_on(optional("all twice"))))
    register(Order)(with_session(optional("session")))
    register(Order)(passing_on(with_session(optional("session inside"))))
    register(Order)(positional(optional("none")))
    register(Order)(passing_on(positional(optional("none inside"))))
    register(Order)(functools.partial(positional(optional("none, partial"))))
    register(Order)(functools.partial(passing_on(functools.partial(positional(optional("none, partials"))))))

    @functools.lru_cache  # made in C, it does not tell what it takes itself
    def cached(order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object = None) -> None:
        told["cached"] = ["session"] if session is not None else []

    register(Order)(cached)
    register(Order)(functools.lru_cache(positional(optional("none, cached"))))
    await front.add(Order(id=1, status="new"))
    await front.commit()
    assert told == {
        "all": ["session", "event"],
        "all twice": ["session", "event"],
        "session": ["session"],
        "session inside": ["session"],
        "none": [],
        "none inside": [],
        "none, partial": [],
        "none, partials": [],
        "cached": ["session"],
        "none, cached": [],
    }


@scenario(Base.metadata, databases=LOCAL)
async def test_decorated_methods_without_their_keyword(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """N1: a method and an object are called without what their decorator does not pass on."""
    decorated = Decorated()
    told: list[object] = []

    def telling(callback: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(callback)
        def tell(*arguments: object, **keywords: object) -> None:
            told.append(callback(*arguments, **keywords))

        return tell

    for callback in (decorated.on_event, decorated):
        register(Order)(callback)
    register(Order)(telling(decorated.on_event))
    register(Order)(telling(decorated.__call__))
    await front.add(Order(id=1, status="new"))
    await front.commit()
    assert told == ["method was not given the session", "object was not given the session"]
    assert caplog.messages == []


@pytest.mark.parametrize("decorate", [positional, passing_on_to_positional])
@pytest.mark.parametrize("keyword", ["session", "event"])
def test_a_keyword_that_a_decorator_does_not_pass_on_is_refused(
    keyword: str, decorate: Callable[[Callable[..., object]], Callable[..., object]]
) -> None:
    """N1: where the function cannot do without, since it would fail at each event; the message says what to do."""

    def wants_session(order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object) -> None: ...

    def wants_event(order: Order, event_type: ModelEvent, changes: Changes | None, *, event: object) -> None: ...

    callback = decorate(wants_session if keyword == "session" else wants_event)
    message = rf"wants_{keyword} asks for {keyword}, which a decorator around it does not take: let the decorator's "
    with pytest.raises(ListenerError, match=message):
        register(Order)(callback)
    with pytest.raises(ListenerError):
        remove_listener(Order, callback)


def test_a_keyword_that_an_objects_decorator_does_not_pass_on_is_refused() -> None:
    """N1: the same, where it is the object's ``__call__`` that is decorated twice."""

    class Wanting:
        @passing_on_to_positional
        def __call__(
            self, order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object
        ) -> None: ...

    with pytest.raises(ListenerError, match="asks for session, which a decorator around it does not take"):
        register(Order)(Wanting())


# N1, when called


@scenario(Base.metadata)
async def test_what_a_callback_is_called_with(front: FrontEnd) -> None:
    """N1: three positional arguments; ``changes`` is a plain dict of plain dicts for UPDATE, else ``None``."""
    calls: list[tuple[object, ...]] = []

    def callback(*arguments: object) -> None:
        calls.append(arguments)

    register(Order)(callback)
    order = Order(id=1, status="new", note="a")
    await front.add(order)
    await front.commit()
    order.status, order.note = "paid", None
    await front.commit()
    await front.delete(order)
    await front.commit()
    changes = {"status": {"old": "new", "new": "paid"}, "note": {"old": "a", "new": None}}
    assert calls == [
        (order, ModelEvent.CREATE, None),
        (order, ModelEvent.UPDATE, changes),
        (order, ModelEvent.DELETE, None),
    ]
    assert all(arguments[0] is order for arguments in calls)
    assert all(type(arguments[1]) is ModelEvent for arguments in calls)
    given = cast("dict[str, dict[str, object]]", calls[1][2])
    assert [type(given), *(type(change) for change in given.values())] == [dict, dict, dict]


@scenario(Base.metadata)
async def test_both_keys_are_present_for_unloaded_attributes(front: FrontEnd, recorder: EventRecorder) -> None:
    """N1, E3: ``old`` is there for expired and for deferred attributes too."""
    await front.add(Order(id=1, status="new", note="a", memo="m"))
    await front.commit()
    recorder.listen(Order)
    session = front.new_session()
    order = await session.get_one(Order, 1)
    await session.expire(order, ["status"])
    order.status, order.memo = "paid", "n"
    await session.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "paid"), memo=("m", "n"))]


# N6


@pytest.mark.parametrize(
    ("name", "replacement"), [("WatchedFieldsMixin", "__watched_fields__"), ("watch", "__watched_fields__")]
)
def test_names_of_version_2_say_what_replaced_them(name: str, replacement: str) -> None:
    """N6: importing either raises ``ImportError``, which names the replacement and the migration guide."""
    with pytest.raises(ImportError) as caught:
        exec(f"from fastapi_toolsets.models import {name}", {})  # noqa: S102 - the import as a user writes it
    message = str(caught.value)
    assert [word for word in (name, replacement, "listens_for", "migration") if word not in message] == []
    assert name not in fastapi_toolsets.models.__all__


def test_the_names_of_the_guide_import() -> None:
    """N6: everything that the guide imports is there; a name that never was is an ``AttributeError``."""
    module = importlib.import_module("fastapi_toolsets.models")
    guide = ["EventSession", "SyncEventSession", "ModelEvent", "listens_for", "UUIDMixin", "UUIDv7Mixin"]
    guide += ["CreatedAtMixin", "UpdatedAtMixin", "TimestampMixin"]
    assert [name for name in guide if name not in module.__all__ or not hasattr(module, name)] == []
    assert not hasattr(module, "no_such_name")


# Errors after registration


@scenario(Base.metadata, databases=LOCAL)
async def test_a_refused_registration_leaves_the_others(front: FrontEnd, recorder: EventRecorder) -> None:
    """N1, N3: nothing of a refused registration stays behind."""
    recorder.listen(Order)
    with pytest.raises(ListenerError):
        register(Order, "create")
    with pytest.raises(ListenerError):
        register(Order)(two)
    order = Order(id=1, status="new")
    await front.add(order)
    await front.commit()
    await front.delete(order)
    await front.commit()
    assert recorder.take() == [created(Order, 1), deleted(Order, 1)]


def test_a_class_that_no_mapper_knows_yet_is_a_fine_target() -> None:
    """N4: it may be mapped later."""

    class Mixin: ...

    assert register(Mixin)(plain) is plain
