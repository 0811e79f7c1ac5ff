"""Warnings name the line of the user's that committed or flushed."""

from __future__ import annotations

import asyncio
import functools
import linecache
import warnings
from typing import Any

import pytest
from sqlalchemy.orm import Session

from fastapi_toolsets.errors import PlainSessionWarning, UncommittedChangesWarning
from fastapi_toolsets.events.warn import warn
from fastapi_toolsets.models import ModelEvent, listens_for

from ..contract.transaction_models import Base, Order
from ..front_ends import AnySession, FrontEnd, scenario


async def flush(session: AnySession) -> None:
    if isinstance(session, Session):
        session.flush()
    else:
        await session.flush()


async def commit(session: AnySession) -> None:
    if isinstance(session, Session):
        session.commit()
    else:
        await session.commit()


@scenario(Base.metadata, databases=("sqlite",))
async def test_the_line_that_wrote(front: FrontEnd) -> None:
    """T8: in sync code and, although an async session works on a stack of its own, in async code."""
    lines: list[tuple[str, str]] = []
    for number, way in enumerate((flush, commit)):

        def listener(order: Order, event_type: ModelEvent, changes: object) -> None: ...

        listens_for(Order)(listener)
        session = front.plain_session()
        await session.add(Order(id=number))
        with warnings.catch_warnings(record=True, action="always") as caught:
            await way(session.session)
        lines += [(warning.filename, linecache.getline(warning.filename, warning.lineno).strip()) for warning in caught]
        await session.rollback()
    waiting = "await " if front.is_async else ""
    assert lines == [(__file__, f"{waiting}session.flush()"), (__file__, f"{waiting}session.commit()")]


class Leaves:
    """Callbacks that leave a change behind, each in a way of its own."""

    async def method(self, order: Order, event_type: ModelEvent, changes: object) -> None:
        await asyncio.sleep(0)
        order.status = "left"

    async def __call__(self, order: Order, event_type: ModelEvent, changes: object) -> None:
        await asyncio.sleep(0)
        order.status = "left"


async def leaves(order: Order, event_type: ModelEvent, changes: object) -> None:
    await asyncio.sleep(0)
    order.status = "left"


@functools.wraps(leaves)
def decorated(*arguments: Any) -> object:  # noqa: ANN401 - as decorators have it
    return leaves(*arguments)


def leaves_at_once(order: Order, event_type: ModelEvent, changes: object) -> None:
    order.status = "left"


PLACES = {
    "function": (leaves_at_once, "def leaves_at_once("),
    "async function": (leaves, "async def leaves("),
    "decorated": (decorated, "async def leaves("),
    "bound method": (Leaves().method, "async def method("),
    "object": (Leaves(), "async def __call__("),
    "partials": (functools.partial(functools.partial(Leaves().method)), "async def method("),
}


@pytest.mark.parametrize("callback", PLACES)
@scenario(Base.metadata, databases=("sqlite",))
async def test_the_line_of_the_callback_that_left_changes(front: FrontEnd, *, callback: str) -> None:
    """C6: on whichever loop it was called."""
    function, line = PLACES[callback]
    register: Any = listens_for(Order, ModelEvent.CREATE)
    register(function)

    @listens_for(Order)
    async def read(order: Order, event_type: ModelEvent, changes: object) -> None: ...

    await front.add(Order(id=1))
    with warnings.catch_warnings(record=True, action="always") as caught:
        await front.commit()
    places = [(warning.filename, linecache.getline(warning.filename, warning.lineno).strip()) for warning in caught]
    assert [(filename, found[: len(line)]) for filename, found in places] == [(__file__, line)]
    assert [warning.category for warning in caught] == [UncommittedChangesWarning]


def test_once_for_a_line() -> None:
    """T8: Python's default filter shows the same text once for each line, as it does for other warnings."""
    with warnings.catch_warnings(record=True, action="default") as caught:
        for _ in range(3):
            warn("the same", PlainSessionWarning)
        warn("the same", PlainSessionWarning)
    assert [str(warning.message) for warning in caught] == ["the same"] * 2
