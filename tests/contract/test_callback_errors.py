"""Rule C4: what a callback raises or breaks stops nothing else, and what the session was told to do about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from fastapi_toolsets.models import CallbackFailure, Changes, ModelEvent, listener_scope, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, created, updated
from .transaction_models import ORDERS, Base, ExpectedError, Order

VALUE = "not for any log"


class OwnBaseException(BaseException):
    """A callback's own exception that is no ``Exception``."""


ERRORS: tuple[BaseException, ...] = (
    ExpectedError("told"),
    AssertionError("told"),
    TimeoutError("told"),
    RecursionError("told"),
    StopIteration("told"),
    StopAsyncIteration("told"),
    GeneratorExit("told"),
    asyncio.CancelledError("told"),
    ExceptionGroup("told", [ExpectedError("told")]),
    OwnBaseException("told"),
)


def listen_and_raise(error: BaseException, *, asynchronous: bool) -> None:
    """Register a callback that raises, between two that record what they were told."""

    def fail(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise error

    async def fail_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await asyncio.sleep(0)
        raise error

    listens_for(Order)(fail_later if asynchronous else fail)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@scenario(Base.metadata, databases=LOCAL)
async def test_error_is_logged_and_stops_nothing(
    front: FrontEnd, caplog: pytest.LogCaptureFixture, *, error: BaseException, asynchronous: bool
) -> None:
    """C4: the commit stands, every other callback runs, ``commit()`` returns; the log names all but the values."""
    before, after = EventRecorder(), EventRecorder()
    before.listen(Order)
    listen_and_raise(error, asynchronous=asynchronous)
    after.listen(Order, asynchronous=True)
    order = Order(id=4711, status=VALUE)
    await front.add_all([order, Order(id=4712)])
    await front.commit()
    order.quantity = 2
    await front.commit()
    expected = [created(Order, 4711), created(Order, 4712), updated(Order, 4711, quantity=(0, 2))]
    assert (before.events, after.events) == (expected, expected)
    assert await front.committed_rows(ORDERS) == [(4711, VALUE), (4712, "new")]
    records = [record for record in caplog.records if record.name.startswith("fastapi_toolsets")]
    assert [record.levelno for record in records] == [logging.ERROR] * 3
    name = f"{__name__}.listen_and_raise.<locals>.fail{'_later' if asynchronous else ''}"
    messages = [record.getMessage() for record in records]
    for message, event_type in zip(messages, ("create", "create", "update"), strict=True):
        assert [part for part in (name, "Order", event_type) if part not in message] == []
        assert [value for value in (VALUE, "4711", "4712") if value in message] == []
    assert all(record.exc_info is not None for record in records)
    assert VALUE not in caplog.text


@scenario(Base.metadata, on_callback_error="raise")
async def test_policy_to_raise(front: FrontEnd, recorder: EventRecorder) -> None:
    """C4: one ``ExceptionGroup`` from ``commit()`` after all have run; the commit stands and the session goes on."""
    first, second = ExpectedError("first"), ValueError("second")
    listen_and_raise(first, asynchronous=True)
    recorder.listen(Order)
    listen_and_raise(second, asynchronous=False)
    order = Order(id=1)
    await front.add(order)
    with pytest.raises(ExceptionGroup) as raised:
        await front.commit()
    assert raised.value.exceptions == (first, second)
    assert "listen_and_raise" in str(raised.value)
    assert not front.in_transaction()
    assert recorder.take() == [created(Order, 1)]
    assert await front.committed_rows(ORDERS) == [(1, "new")]
    order.status = "b"
    with pytest.raises(ExceptionGroup):
        await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "b"))]


@scenario(Base.metadata, databases=LOCAL, on_callback_error="raise")
async def test_policy_to_raise_by_every_kind_of_door(front: FrontEnd, recorder: EventRecorder) -> None:
    """C4: it comes out of the block or the transaction object that committed, and hides no events."""
    recorder.listen(Order)
    listen_and_raise(ExpectedError(), asynchronous=True)
    block = front.begin()
    await block.__aenter__()
    await front.add(Order(id=1))
    with pytest.raises(ExceptionGroup):
        await block.__aexit__(None, None, None)
    transaction = await front.begin()
    await front.add(Order(id=2))
    with pytest.raises(ExceptionGroup):
        await transaction.commit()
    async with front.begin():
        await front.add(Order(id=3))
        with pytest.raises(ExceptionGroup):
            await front.commit()
    assert recorder.take() == [created(Order, number) for number in (1, 2, 3)]
    await front.execute(ORDERS)
    await front.rollback()
    assert not front.in_transaction()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync function", "async function"])
@scenario(Base.metadata, databases=LOCAL)
async def test_policy_to_call_a_function(
    front: FrontEnd, caplog: pytest.LogCaptureFixture, *, asynchronous: bool
) -> None:
    """C4: the function is called with each failure, between the callbacks, and nothing is logged besides."""
    handed: list[CallbackFailure] = []

    def take(failure: CallbackFailure) -> None:
        handed.append(failure)

    async def take_later(failure: CallbackFailure) -> None:
        await asyncio.sleep(0)
        handed.append(failure)

    first, second = ExpectedError("first"), ExpectedError("second")
    listen_and_raise(first, asynchronous=True)
    listen_and_raise(second, asynchronous=False)
    session = front.new_session(on_callback_error=take_later if asynchronous else take)
    session.session.on_commit(fail_on_commit)
    await session.add(Order(id=1, status=VALUE))
    await session.commit()
    name = f"{__name__}.listen_and_raise.<locals>.fail"
    expected = [
        (f"{name}_later", "Order", ModelEvent.CREATE, first),
        (name, "Order", ModelEvent.CREATE, second),
        (f"{__name__}.fail_on_commit", None, None, ON_COMMIT_ERROR),
    ]
    assert [(failure.callback, failure.model, failure.event_type, failure.error) for failure in handed] == expected
    assert caplog.messages == []


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@scenario(Base.metadata, databases=LOCAL)
async def test_function_for_errors_that_returns_something(
    front: FrontEnd, caplog: pytest.LogCaptureFixture, *, asynchronous: bool
) -> None:
    """C4: what it returns is waited for where that can be waited for, and of no interest otherwise."""
    handed: list[BaseException] = []

    def take(failure: CallbackFailure) -> int:
        handed.append(failure.error)
        return len(handed)

    error = ExpectedError()
    listen_and_raise(error, asynchronous=asynchronous)
    session = front.new_session(on_callback_error=take)
    await session.add(Order(id=1))
    await session.commit()
    assert (handed, caplog.messages) == ([error], [])


ON_COMMIT_ERROR = ExpectedError("on commit")


def fail_on_commit() -> None:
    raise ON_COMMIT_ERROR


@scenario(Base.metadata, databases=LOCAL)
async def test_function_for_errors_that_raises(
    front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """C4: it is logged, too, and stops nothing."""

    async def raise_again(failure: CallbackFailure) -> None:
        raise failure.error

    def raise_at_once(failure: CallbackFailure) -> None:
        raise failure.error

    listen_and_raise(ExpectedError(), asynchronous=True)
    listen_and_raise(ExpectedError(), asynchronous=False)
    recorder.listen(Order)
    for number, policy in enumerate((raise_again, raise_at_once)):
        session = front.new_session(on_callback_error=policy)
        await session.add(Order(id=number))
        await session.commit()
        assert recorder.take() == [created(Order, number)]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 4


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("policy", ["log", "raise"])
@scenario(Base.metadata, databases=LOCAL)
async def test_interrupts_propagate(
    front: FrontEnd,
    recorder: EventRecorder,
    caplog: pytest.LogCaptureFixture,
    *,
    policy: str,
    error: type[BaseException],
    asynchronous: bool,
) -> None:
    """C4: ``KeyboardInterrupt`` and ``SystemExit`` reach whoever committed; what is not called any more is named."""
    listen_and_raise(ExpectedError(), asynchronous=True)
    listens_for(Order, ModelEvent.CREATE)(interrupt_later(error) if asynchronous else interrupt(error))
    listens_for(Order)(left_out)
    session = front.new_session(on_callback_error=policy)
    order = Order(id=1)
    await session.add(order)
    with pytest.raises(error):
        await session.commit()
    assert "left_out" in caplog.text
    assert "fail_later" in caplog.text
    assert not session.in_transaction()
    assert await front.committed_rows(ORDERS) == [(1, "new")]
    with listener_scope(inherit=False):
        recorder.listen(Order, asynchronous=True)
        order.status = "b"
        await session.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "b"))]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("policy", ["log", "raise", "function"])
@scenario(Base.metadata, databases=LOCAL)
async def test_interrupts_in_a_group_propagate(
    front: FrontEnd,
    caplog: pytest.LogCaptureFixture,
    *,
    policy: str,
    error: type[BaseException],
    asynchronous: bool,
) -> None:
    """C4: so do those that a task group in the callback has wrapped, alone or beside other errors, as the group."""
    group = BaseExceptionGroup("", [ExpectedError(), BaseExceptionGroup("", [error()])])
    handed: list[CallbackFailure] = []
    session = front.new_session(on_callback_error=handed.append if policy == "function" else policy)
    listen_and_raise(group, asynchronous=asynchronous)
    listens_for(Order)(left_out)
    await session.add(Order(id=1))
    with pytest.raises(BaseExceptionGroup) as raised:
        await session.commit()
    assert (raised.value, handed) == (group, [])
    (message,) = caplog.messages
    assert message.endswith(f"not called: callback {__name__}.left_out for create of Order")
    assert await front.committed_rows(ORDERS) == [(1, "new")]


def left_out(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...


def interrupt(error: type[BaseException]) -> Callable[[Order, ModelEvent, Changes | None], None]:
    def stop(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        raise error

    return stop


def interrupt_later(error: type[BaseException]) -> Callable[[Order, ModelEvent, Changes | None], Awaitable[None]]:
    async def stop_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await asyncio.sleep(0)
        raise error

    return stop_later
