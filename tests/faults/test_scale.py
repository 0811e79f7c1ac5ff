"""Ten thousand of everything: callbacks of one event, events for one callback, links of a chain, transactions."""

from __future__ import annotations

import gc
import sys
from functools import partial

import anyio.lowlevel
import pytest
from sqlalchemy import text

from fastapi_toolsets.models import CallbackFailure, Changes, ModelEvent, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from .models import Base, Order, created, library_log, updated

LOCAL = ("sqlite",)
MANY = 10_000


class Numbered:
    """Callbacks that write down their numbers, every third of them async, every hundredth failing afterwards."""

    def __init__(self) -> None:
        self.called: list[int] = []

    def note(self, number: int, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        self.called.append(number)
        if number % 100 == 0:
            raise ValueError

    async def note_later(self, number: int, order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await anyio.lowlevel.checkpoint()
        self.note(number, order, event_type, changes)

    def listen(self) -> None:
        for number in range(MANY):
            listens_for(Order)(partial(self.note_later if number % 3 == 0 else self.note, number))


@scenario(Base.metadata, databases=LOCAL)
async def test_many_callbacks_of_one_event(front: FrontEnd) -> None:
    """C3, C4: 10,000 callbacks are called once each, in the order of registration, whichever of them raise."""
    numbered = Numbered()
    numbered.listen()
    failures: list[CallbackFailure] = []
    session = front.new_session(on_callback_error=failures.append)
    await session.add(Order(id=1))
    await session.commit()
    assert numbered.called == list(range(MANY))
    assert len(failures) == MANY // 100


@scenario(Base.metadata, databases=LOCAL)
async def test_many_callbacks_of_one_commit(front: FrontEnd) -> None:
    """C7: 10,000 ad-hoc callbacks, sync and async in turn, in the order in which they were given."""
    called: list[int] = []

    async def note_later(number: int) -> None:
        called.append(number)

    for number in range(MANY):
        front.session.on_commit(note_later if number % 2 else called.append, number)
    await front.commit()
    assert called == list(range(MANY))


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@scenario(Base.metadata, databases=LOCAL)
async def test_many_events_for_one_callback(front: FrontEnd, recorder: EventRecorder, *, asynchronous: bool) -> None:
    """E9, C3: 10,000 rows created, then changed, in one transaction each: every one is told, in order."""
    recorder.listen(Order, asynchronous=asynchronous)
    orders = [Order(id=number) for number in range(MANY)]
    await front.add_all(orders)
    await front.commit()
    assert recorder.take() == [created(number) for number in range(MANY)]
    for order in orders:
        order.status = "changed"
    await front.commit()
    assert recorder.take() == [updated(number, "new", "changed") for number in range(MANY)]


@scenario(Base.metadata, databases=LOCAL, cascade_limit=1_000)
async def test_long_chain(front: FrontEnd) -> None:
    """C6: a chain of 1,000 commits, each by a callback of the one before, needs no deeper stack than one."""
    depths: list[int] = []

    @listens_for(Order)
    async def follow(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        depths.append(stack_depth())
        if order.id < 1_000:
            await front.add(Order(id=order.id + 1))
            await front.commit()

    await do_not_wait_for_the_disk(front)
    await front.add(Order(id=1))
    with library_log() as logged:
        await front.commit()
    # The first is told the short way, where the committer stands; from the second on none stands deeper than another.
    assert (len(depths), set(depths[1:]), logged) == (1_000, {depths[1]}, [])


def stack_depth() -> int:
    frame, depth = sys._getframe(), 0  # noqa: SLF001 - there is no cheaper way to know
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


async def do_not_wait_for_the_disk(front: FrontEnd) -> None:
    """Make commits of the front-end's session cheap: nothing here survives the test anyway."""
    if front.database.name == "sqlite":
        await front.execute(text("COMMIT"))
        await front.execute(text("PRAGMA synchronous = OFF"))
        await front.execute(text("PRAGMA journal_mode = MEMORY"))
        await front.execute(text("BEGIN"))
    else:
        await front.execute(text("SET synchronous_commit = off"))
    await front.commit()


def blocks_in_use() -> int:
    """Count the memory blocks that the interpreter has handed out and not got back."""
    gc.collect()
    return sys.getallocatedblocks()


async def commit_many(front: FrontEnd) -> None:
    """Change a row in one transaction after the other; compare the memory after 2,000 and after 10,000 of them."""
    told = 0

    def count(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        nonlocal told
        told += 1

    async def count_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        count(order, event_type, changes)

    order = Order(id=-1)
    await front.add(order)
    await front.commit()
    listens_for(Order)(count)
    listens_for(Order)(count_later)
    before = 0
    for number in range(MANY):
        if number == 2_000:
            before = blocks_in_use()
        order.status = f"{number}"
        await front.commit()
    assert max(blocks_in_use() - before, 800) == 800
    assert told == 2 * MANY


@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_sync_session_of_ten_thousand_transactions(front: FrontEnd) -> None:
    """T9: from the 2,000th to the 10,000th a session comes to hold less than a memory block per 10 transactions."""
    await do_not_wait_for_the_disk(front)
    await commit_many(front)


@scenario(Base.metadata, databases=["postgresql"], front_ends=["async"])
async def test_async_session_of_ten_thousand_transactions(front: FrontEnd) -> None:
    """T9: the same on the async front-end, on a driver that needs no thread."""
    await do_not_wait_for_the_disk(front)
    await commit_many(front)
