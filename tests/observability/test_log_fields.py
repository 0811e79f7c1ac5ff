"""Log records carry what they name in fields of their own, for structured logs, and no field value anywhere."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import pytest
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, composite, mapped_column

from fastapi_toolsets.errors import CascadeLimitError
from fastapi_toolsets.models import CallbackFailure, Changes, ModelEvent, listens_for

from ..contract.event_models import LOCAL
from ..contract.transaction_models import ORDERS, Base, ExpectedError, Order
from ..front_ends import EventRecorder, FrontEnd, scenario
from .test_observers import cancelled_commit

STANDARD = {*vars(logging.LogRecord("", 0, "", 0, "", None, None)), "message", "asctime"}


def fields(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """What each record has beyond what every record has, as a formatter of structured logs finds it."""
    return [
        {key: value for key, value in vars(record).items() if key not in STANDARD}
        for record in caplog.records
        if record.name == "fastapi_toolsets.events"
    ]


def named(test: str, callback: str, event_type: str = "create") -> dict[str, object]:
    return {"callback": f"{__name__}.{test}.<locals>.{callback}", "model": "Order", "event_type": event_type}


@pytest.mark.parametrize("policy", ["log", "function"])
@scenario(Base.metadata, databases=LOCAL)
async def test_callback_that_raises(front: FrontEnd, caplog: pytest.LogCaptureFixture, *, policy: str) -> None:
    """C4: the callback, the model and the event; the same where the function for errors raises."""

    @listens_for(Order)
    def raises(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise ExpectedError

    def handle(failure: CallbackFailure) -> None:
        raise ExpectedError

    session = front.new_session(on_callback_error="log" if policy == "log" else handle)
    await session.add(Order(id=1, status="secret"))
    await session.commit()
    assert fields(caplog) == [named("test_callback_that_raises", "raises")]


@scenario(Base.metadata, databases=LOCAL)
async def test_on_commit_callback_that_raises(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C7: it has no model and no event, and says so."""

    async def hook() -> None:
        raise ExpectedError

    front.session.on_commit(hook)
    await front.commit()
    name = f"{__name__}.test_on_commit_callback_that_raises.<locals>.hook"
    assert fields(caplog) == [{"callback": name, "model": None, "event_type": None}]


@scenario(Base.metadata, databases=LOCAL)
async def test_tidying_that_fails(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C6: the warning about what a callback left behind, where warnings are errors, as in this suite."""

    @listens_for(Order, ModelEvent.CREATE)
    async def forgetful(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        order.status = "changed"
        await front.execute(ORDERS)

    await front.add(Order(id=1))
    await front.commit()
    assert fields(caplog) == [named("test_tidying_that_fails", "forgetful")]


@scenario(Base.metadata, databases=LOCAL, front_ends=["async"], callback_grace=0.0)
async def test_cancelled_committer(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C5: the callback that was interrupted, and those that are not called, counted."""
    waiting = anyio.Event()

    @listens_for(Order)
    async def waits(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        waiting.set()
        await asyncio.Event().wait()

    @listens_for(Order)
    def follows(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    await front.add_all([Order(id=2), Order(id=3)])
    await cancelled_commit(front, waiting)
    test = "test_cancelled_committer"
    assert fields(caplog) == [
        {
            **named(test, "waits"),
            "not_called": [{**named(test, "follows"), "count": 3}, {**named(test, "waits"), "count": 2}],
        }
    ]


@scenario(Base.metadata, databases=LOCAL, cascade_limit=1)
async def test_end_of_a_chain(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C6: those that are not called."""

    @listens_for(Order)
    async def feed(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await front.add(Order(id=order.id + 1))
        await front.commit()

    await front.add(Order(id=1))
    with pytest.raises(CascadeLimitError):
        await front.commit()
    assert fields(caplog) == [{"not_called": [{**named("test_end_of_a_chain", "feed"), "count": 1}]}]


@scenario(Base.metadata, databases=LOCAL)
async def test_commit_that_fails(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """T4: those that are not called, since nothing was committed."""

    @listens_for(Order)
    def told(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    def fail(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own
        raise ExpectedError

    await front.add(Order(id=1))
    event.listen(front.sync_engine, "commit", fail)
    with pytest.raises(ExpectedError):
        await front.commit()
    event.remove(front.sync_engine, "commit", fail)
    await front.rollback()
    assert fields(caplog) == [{"not_called": [{**named("test_commit_that_fails", "told"), "count": 1}]}]


class Interval:
    """A composite's class that refuses what some rows hold."""

    def __init__(self, begin: int, end: int) -> None:
        if end < begin:
            raise ExpectedError
        self.begin, self.end = begin, end

    def __composite_values__(self) -> tuple[int, int]:
        return self.begin, self.end


class BookingBase(DeclarativeBase):
    """A base of this test's own."""


class Booking(BookingBase):
    __tablename__ = "bookings"
    id: Mapped[int] = mapped_column(primary_key=True)
    begin: Mapped[int]
    end: Mapped[int]
    interval: Mapped[Interval] = composite(Interval, "begin", "end")


@scenario(BookingBase.metadata, databases=LOCAL)
async def test_composite_that_cannot_be_made(
    front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """E7: the model and the name of the field, when it is asked whether there is a change, and for the callback."""
    recorder.listen(Booking)
    booking = Booking(id=1, begin=1, end=2)
    await front.add(booking)
    await front.commit()
    booking.end = 0
    await front.commit()
    assert fields(caplog) == [{"model": "Booking", "field": "interval"}] * 2
    assert [record.getMessage().partition(" and ")[0] for record in caplog.records] == [
        "Booking.interval cannot be made of what its row holds (ExpectedError)"
    ] * 2
