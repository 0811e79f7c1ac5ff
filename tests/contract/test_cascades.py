"""Rule C6: callbacks that use the session, and the chains of commits that follow."""

from __future__ import annotations

import warnings

import pytest
from sqlalchemy import event, select

from fastapi_toolsets.errors import CascadeLimitError, UncommittedChangesWarning
from fastapi_toolsets.models import Changes, ModelEvent, Phase, listener_scope, listens_for

from ..front_ends import EventRecorder, FrontEnd, entered, resolve, scenario
from .clauses import Clauses
from .event_models import LOCAL, created, deleted, updated
from .transaction_models import ORDERS, Base, Order, do_not_wait_for_the_disk

clause = Clauses(Base.metadata)


async def rows(front: FrontEnd) -> list[tuple[object, ...]]:
    """Read the orders with the session itself."""
    return [tuple(row) for row in await front.execute(ORDERS)]


@clause
async def test_callback_reads_writes_and_commits(front: FrontEnd, recorder: EventRecorder) -> None:
    """C6: by every door; what it commits is told after the current batch, with changes of its own."""
    recorder.listen(Order)

    @listens_for(Order, ModelEvent.CREATE)
    async def react(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id == 1:
            assert await rows(front) == [(1, "new"), (2, "new")]
            order.status = "seen"
            await front.commit()
            async with front.begin(), front.begin_nested():
                await front.add(Order(id=3))
            await front.delete(order)
            await front.commit()

    await front.add_all([Order(id=1), Order(id=2)])
    await front.commit()
    assert recorder.take() == [
        created(Order, 1),
        created(Order, 2),
        updated(Order, 1, status=("new", "seen")),
        created(Order, 3),
        deleted(Order, 1),
    ]
    assert await front.committed_rows(ORDERS) == [(2, "new"), (3, "new")]


@clause
async def test_callback_uses_the_session_inside_a_begin_block(front: FrontEnd, recorder: EventRecorder) -> None:
    """C6: at the end of the block, and after a commit inside it, where the caller may not use it any more."""
    recorder.listen(Order)

    @listens_for(Order, ModelEvent.CREATE)
    async def react(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        order.quantity = len((await front.execute(ORDERS)).all())
        await front.commit()

    async with front.begin():
        await front.add(Order(id=1))
    async with front.begin():
        await front.add(Order(id=2))
        await front.commit()
    assert await front.committed_rows(select(Order.id, Order.quantity).order_by(Order.id)) == [(1, 1), (2, 2)]
    assert recorder.take() == [
        created(Order, 1),
        updated(Order, 1, quantity=(0, 1)),
        created(Order, 2),
        updated(Order, 2, quantity=(0, 2)),
    ]


@clause
async def test_sync_callback_uses_the_session_inside_a_begin_block(front: FrontEnd, recorder: EventRecorder) -> None:
    """C6: with the sync session, also on an ``EventSession``."""
    recorder.listen(Order, asynchronous=True)

    @listens_for(Order, ModelEvent.CREATE)
    def react(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        with front.sync_session.begin():
            order.status = "seen"

    async with front.begin():
        await front.add_all([Order(id=1), Order(id=2)])
    assert recorder.take() == [
        created(Order, 1),
        created(Order, 2),
        updated(Order, 1, status=("new", "seen")),
        updated(Order, 2, status=("new", "seen")),
    ]


@clause
async def test_first_in_first_out(front: FrontEnd, recorder: EventRecorder) -> None:
    """C6: breadth first: a tree of creations is told level by level, not branch by branch."""

    @listens_for(Order, ModelEvent.CREATE)
    async def grow(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id < 8:
            await front.add(Order(id=2 * order.id))
            await front.commit()
            await front.add(Order(id=2 * order.id + 1))
            await front.commit()

    recorder.listen(Order)
    await front.add(Order(id=1))
    await front.commit()
    assert recorder.take() == [created(Order, number) for number in range(1, 16)]


@clause
async def test_waiting_events_keep_their_changes(front: FrontEnd, recorder: EventRecorder) -> None:
    """C6: what a callback commits meanwhile is an event of its own and changes none that waits."""
    first, second = Order(id=1, status="a"), Order(id=2, status="a")
    await front.add_all([first, second])
    await front.commit()

    @listens_for(Order, ModelEvent.UPDATE)
    async def change_the_other(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id == 1:
            second.status = "c"
            await front.commit()

    recorder.listen(Order)
    async with front.begin():
        first.status = second.status = "b"
    assert recorder.take() == [
        updated(Order, 1, status=("a", "b")),
        updated(Order, 2, status=("a", "b")),
        updated(Order, 2, status=("b", "c")),
    ]


@clause
async def test_rollback_in_a_callback_drops_its_own_work_only(front: FrontEnd, recorder: EventRecorder) -> None:
    """C6 with T2: neither what waits nor what comes later."""

    @listens_for(Order, ModelEvent.CREATE)
    async def try_something(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        identity = order.id  # as on any session, the rollback expires the object
        if identity < 10:
            await front.add(Order(id=10 + identity))
            await front.flush()
            await front.rollback()
            await front.add(Order(id=20 + identity))
            await front.commit()

    recorder.listen(Order)
    await front.add_all([Order(id=1), Order(id=2)])
    await front.commit()
    assert recorder.take() == [created(Order, number) for number in (1, 2, 21, 22)]


EXPECTED_AT_LIMIT = {0: [0], 1: [0, 1], 3: [0, 1, 2, 3]}


@pytest.mark.parametrize("policy", ["log", "raise"])
@pytest.mark.parametrize("limit", EXPECTED_AT_LIMIT)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@pytest.mark.parametrize("phases", [(), (Phase.BEFORE_COMMIT,)], ids=["", "beside another phase"])
@scenario(Base.metadata, databases=LOCAL)
async def test_chain_that_feeds_itself_ends(
    front: FrontEnd,
    caplog: pytest.LogCaptureFixture,
    *,
    limit: int,
    policy: str,
    asynchronous: bool,
    phases: tuple[Phase, ...],
) -> None:
    """C6: at ``cascade_limit`` commits in a row, with an error that names the callback and the option.

    P1: what ``BEFORE_COMMIT`` callbacks hear of that is no chain of theirs.
    """

    def hear(order: Order, event_type: ModelEvent, changes: Changes | None) -> None: ...

    for phase in phases:
        listens_for(Order, phase=phase)(hear)
    session = front.new_session(cascade_limit=limit, on_callback_error=policy)
    seen: list[int] = []

    def feed(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        seen.append(order.id)
        session.sync_session.add(Order(id=order.id + 1))
        session.sync_session.commit()

    async def feed_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        seen.append(order.id)
        await session.add(Order(id=order.id + 1))
        await session.commit()

    listens_for(Order, ModelEvent.CREATE)(feed_later if asynchronous else feed)
    await session.add(Order(id=0))
    with pytest.raises(CascadeLimitError, match="cascade_limit") as raised:
        await session.commit()
    assert "feed" in str(raised.value)
    assert "cascade_limit" in caplog.text
    assert seen == EXPECTED_AT_LIMIT[limit]
    assert await front.committed_rows(select(Order.id)) == [(number,) for number in range(limit + 2)]
    assert not session.in_transaction()
    with listener_scope(inherit=False):
        recorder = EventRecorder()
        recorder.listen(Order)
        await session.add(Order(id=100))
        await session.commit()
        assert recorder.take() == [created(Order, 100)]


@scenario(Base.metadata, databases=LOCAL)
async def test_chain_through_sessions_of_its_own_ends(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C6: the bound holds also where each callback commits with a session of its own; no ``RecursionError``."""
    seen: list[int] = []
    factory = front.factory(cascade_limit=4)

    @listens_for(Order, ModelEvent.CREATE)
    async def feed(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        seen.append(order.id)
        if order.id < 50:
            async with entered(factory()) as session:
                session.add(Order(id=order.id + 1))
                await resolve(session.commit())

    async with entered(factory()) as session:
        session.add(Order(id=0))
        await resolve(session.commit())
    assert seen == [0, 1, 2, 3, 4]
    assert "cascade_limit" in caplog.text
    assert "RecursionError" not in caplog.text


@pytest.mark.parametrize("limit", [1, 2])
@scenario(Base.metadata, databases=LOCAL)
async def test_chain_through_the_session_and_then_another(
    front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture, *, limit: int
) -> None:
    """C6: each commit of a chain counts once, whichever session made it."""
    session, other = front.new_session(cascade_limit=limit), front.new_session(cascade_limit=limit)
    recorder.listen(Order)

    @listens_for(Order, ModelEvent.CREATE)
    def feed(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id < 2:
            following = (session, other)[order.id].sync_session
            following.add(Order(id=order.id + 1))
            following.commit()

    await session.add(Order(id=0))
    await session.commit()
    assert recorder.take() == [created(Order, number) for number in range(limit + 1)]
    assert [record.name for record in caplog.records] == ["fastapi_toolsets.events"] * (2 if limit == 1 else 0)
    assert await front.committed_rows(select(Order.id).order_by(Order.id)) == [(0,), (1,), (2,)]


@scenario(Base.metadata, databases=LOCAL)
async def test_long_chains_within_the_bound(front: FrontEnd, recorder: EventRecorder) -> None:
    """C6: a chain of 500 commits needs no stack, and many commits beside each other are no chain."""
    event.listen(front.sync_engine, "connect", do_not_wait_for_the_disk)
    session = front.new_session(cascade_limit=500)

    @listens_for(Order, ModelEvent.CREATE)
    async def feed(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id < 500:
            await session.add(Order(id=order.id + 1))
            await session.commit()

    recorder.listen(Order)
    await session.add(Order(id=0))
    await session.commit()
    assert recorder.take() == [created(Order, number) for number in range(501)]


@scenario(Base.metadata, databases=LOCAL, cascade_limit=1)
async def test_commits_beside_each_other_are_no_chain(front: FrontEnd, recorder: EventRecorder) -> None:
    """C6: the bound is about commits that cause each other."""

    @listens_for(Order, ModelEvent.CREATE)
    async def spread(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.id == 0:
            for number in range(1, 50):
                await front.add(Order(id=number))
                await front.commit()

    recorder.listen(Order)
    await front.add(Order(id=0))
    await front.commit()
    assert recorder.take() == [created(Order, number) for number in range(50)]


@pytest.mark.parametrize("flushed", [False, True], ids=["pending", "flushed"])
@pytest.mark.parametrize("work", ["add", "update", "delete"])
@scenario(Base.metadata, databases=LOCAL)
async def test_leftovers_warn(front: FrontEnd, recorder: EventRecorder, *, work: str, flushed: bool) -> None:
    """C6: changes that a callback did not commit are warned about by its name, and never reach the database."""

    @listens_for(Order, ModelEvent.CREATE)
    async def forgetful(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if work == "add":
            await front.add(Order(id=2))
        elif work == "update":
            order.status = "changed"
        else:
            await front.delete(order)
        if flushed:
            await front.flush()

    recorder.listen(Order)
    await front.add(Order(id=1))
    with pytest.warns(UncommittedChangesWarning, match="forgetful") as caught:
        await front.commit()
    assert len(caught) == 1
    await front.commit()
    assert recorder.take() == [created(Order, 1)]
    assert await front.committed_rows(ORDERS) == [(1, "new")]


@scenario(Base.metadata, databases=LOCAL)
async def test_reading_leaves_nothing_behind(front: FrontEnd) -> None:
    """C6: a callback that only reads is not warned about."""

    @listens_for(Order, ModelEvent.CREATE)
    async def read(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        assert await rows(front) == [(1, "new")]
        async with front.begin_nested():
            await front.get(Order, 2)

    with warnings.catch_warnings(action="error"):
        await front.add(Order(id=1))
        await front.commit()


test_every_clause_on_servers = clause.on_servers()
test_every_clause_on_expiring_sessions = clause.on_expiring_sessions()
