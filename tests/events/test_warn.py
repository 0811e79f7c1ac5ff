"""Warnings name the line of the user's that committed or flushed."""

from __future__ import annotations

import linecache
import warnings

from sqlalchemy.orm import Session

from fastapi_toolsets.errors import PlainSessionWarning
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


def test_once_for_a_line() -> None:
    """T8: Python's default filter shows the same text once for each line, as it does for other warnings."""
    with warnings.catch_warnings(record=True, action="default") as caught:
        for _ in range(3):
            warn("the same", PlainSessionWarning)
        warn("the same", PlainSessionWarning)
    assert [str(warning.message) for warning in caught] == ["the same"] * 2
