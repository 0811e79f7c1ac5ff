"""Callbacks: which is which, how they are called, and what cannot be called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import BuiltinMethodType, MethodType, MethodWrapperType
from typing import Any, cast

import sqlalchemy
from sqlalchemy.orm import InstanceState

from ..errors import ListenerError

AnyCallback = Callable[..., object]

FILLED_IN = ("session", "event")
"""The keyword-only parameters that a callback may declare."""


def callback_name(callback: AnyCallback) -> str:
    """Return the callback's qualified name with its module, for messages."""
    function = _function_of(callback)
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    module = getattr(named, "__module__", None)  # what methods made in C may lack
    return f"{module}.{named.__qualname__}" if module else str(named.__qualname__)


def _function_of(callback: object) -> object:
    """Return what partials, and static methods as their class's body has them, call in the end."""
    while True:
        if isinstance(callback, partial):
            callback = callback.func
        elif isinstance(callback, staticmethod):
            callback = callback.__func__
        else:
            return callback


def is_async_callable(callback: AnyCallback) -> bool:
    """Whether calling it makes a coroutine: an async function, method or ``__call__``, also inside partials."""
    function = _function_of(callback)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def callback_identity(callback: object) -> object:
    """Return what only the same callback has, as long as it lives: the same object, or the same method of one.

    A method is another object each time it is got; a static one is its function everywhere but in the class's body.
    What is equal is not the same: two webhooks of a dataclass, with the same address, are both called.
    """
    if isinstance(callback, staticmethod):
        callback = callback.__func__
    if isinstance(callback, MethodType):
        return id(callback.__self__), id(callback.__func__)
    if isinstance(callback, (BuiltinMethodType, MethodWrapperType)):
        return callback  # equal where it is the same method of the same object
    return id(callback)


def shown(given: object) -> str:
    """Write what was given for a message: a row by its type, since its repr may show its values."""
    is_row = isinstance(sqlalchemy.inspect(given, raiseerr=False), InstanceState)
    return f"an object of type {type(given).__qualname__}" if is_row else repr(given)


def check_callable(callback: object) -> None:
    """Raise :class:`ListenerError` for what ``on_commit`` cannot call."""
    if not callable(callback):
        msg = f"on_commit() was given {shown(callback)}, which cannot be called: give it a function and its arguments"
        raise ListenerError(msg)
    _refuse_generators(callback)


def _refuse_generators(callback: AnyCallback) -> None:
    """Refuse what returns a generator when it is called, and does nothing else."""
    function = _function_of(callback)
    for candidate in (function, getattr(function, "__call__", None)):  # noqa: B004
        if inspect.isgeneratorfunction(candidate) or inspect.isasyncgenfunction(candidate):
            msg = (
                f"{callback_name(callback)} is a generator function, whose body would never run: make it a plain or an "
                "async function"
            )
            raise ListenerError(msg)


def checked_keywords(callback: object, target: type) -> frozenset[str]:
    """Return which keyword-only parameters the callback wants filled in, or say why it cannot be called."""
    if not callable(callback):
        given = shown(callback)
        msg = f"listens_for({target.__qualname__}) was put on {given}, which cannot be called: give it a function"
        raise ListenerError(msg)
    name = callback_name(callback)
    function: object = callback
    bound: set[str] = set()
    while isinstance(function, partial):
        bound |= function.keywords.keys()
        function = function.func
    _refuse_generators(callback)
    try:
        signature = inspect.signature(callback)
    except ValueError:  # some callables made in C do not tell their signature
        return frozenset()
    keywords = frozenset(
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name in FILLED_IN and parameter.name not in bound
    )
    try:
        signature.bind(None, None, None, **dict.fromkeys(keywords))
    except TypeError as error:
        msg = (
            f"{name} has the signature {signature}, which cannot be called as (obj, event_type, changes): {error}. "
            "Take three positional parameters and, keyword-only, nothing required but session and event"
        )
        if next(iter(signature.parameters), None) == "self":  # the decorator stands in a class's body
            msg += f". A method listens for one object: listens_for({target.__qualname__})(that_object.its_method)"
        raise ListenerError(msg) from None
    held_back = sorted(keyword for keyword in keywords if not _reaches(keyword, callback))
    required = [keyword for keyword in held_back if signature.parameters[keyword].default is inspect.Parameter.empty]
    if required:
        msg = (
            f"{name} asks for {' and '.join(required)}, which a decorator around it does not take: let the decorator's "
            "function take **keywords and pass them on, or give the parameter a default"
        )
        raise ListenerError(msg)
    return keywords.difference(held_back)


def _reaches(keyword: str, callback: object) -> bool:
    """Whether a callback can be given a keyword that its signature has, which is that of the function it decorates."""
    function = callback
    while function is not None:
        while isinstance(function, partial):
            function = function.func
        try:
            taken = inspect.signature(cast("AnyCallback", function), follow_wrapped=False).parameters
        except ValueError:  # as above; functools.lru_cache makes such, which pass on all they are given
            taken = None
        if taken is not None and keyword in taken:
            break
        if taken is not None and all(parameter.kind is not parameter.VAR_KEYWORD for parameter in taken.values()):
            return False
        called = getattr(function, "__call__", None)  # noqa: B004 - an object's method may be what is decorated
        function = getattr(function, "__wrapped__", None) or getattr(called, "__wrapped__", None)
    return True
