"""Exceptions of every kind, and callbacks that raise them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio.lowlevel

from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from .models import Order


class OwnBaseException(BaseException):
    """A callback's own exception that is no ``Exception``."""


class OwnGroup(ExceptionGroup[Exception]):
    """A group with a class of its own."""


class UnprintableError(Exception):
    """An exception that cannot even say what it is."""

    def __str__(self) -> str:
        raise ValueError


def _inside(group: type[BaseExceptionGroup[Exception]]) -> BaseException:
    return group("told", [ValueError("inner"), KeyError("inner")])


ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": ValueError,
    "OwnBaseException": OwnBaseException,
    "CancelledError": asyncio.CancelledError,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "GeneratorExit": GeneratorExit,
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "UnprintableError": UnprintableError,
    "ExceptionGroup": lambda: _inside(ExceptionGroup),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("told", [OwnBaseException()]),
    "OwnGroup": lambda: _inside(OwnGroup),
}
"""What a callback may raise without anybody else noticing: how to make one of each kind."""

INTERRUPTS: dict[str, Callable[[], BaseException]] = {
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
}
"""What reaches whoever committed."""


@dataclass(frozen=True)
class Failing:
    """A sync and an async callback, and an ad-hoc callback of each kind, that raise the same."""

    make: Callable[[], BaseException]

    def fail(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise self.make()

    async def fail_at_once(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise self.make()

    async def fail_later(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await anyio.lowlevel.checkpoint()
        raise self.make()

    def returns_what_fails(self, order: Order, event_type: ModelEvent, changes: Changes | None) -> Awaitable[None]:
        return self.fail_later(order, event_type, changes)

    def fail_on_commit(self) -> None:
        raise self.make()

    async def fail_on_commit_later(self) -> None:
        await anyio.lowlevel.checkpoint()
        raise self.make()

    def listen(self) -> None:
        """Register all that listen to a model."""
        for callback in (self.fail, self.fail_at_once, self.fail_later, self.returns_what_fails):
            listens_for(Order)(callback)

    @property
    def listening(self) -> list[str]:
        """Name them as the library does, in the order in which they are called."""
        names = ("fail", "fail_at_once", "fail_later", "returns_what_fails")
        return [f"callback {__name__}.Failing.{name} for create of Order" for name in names]

    @property
    def on_commit(self) -> list[str]:
        """Name the ad-hoc ones."""
        return [f"on_commit callback {__name__}.Failing.{name}" for name in ("fail_on_commit", "fail_on_commit_later")]
