"""Rules P1, P2 and P3 where savepoints, failed COMMITs and observers meet callbacks of other phases."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session, SessionTransaction

from fastapi_toolsets.models import Changes, Event, EventSession, ModelEvent, Phase, SyncEventSession, listens_for

from ..front_ends import EventRecorder, FrontEnd, SessionAdapter, scenario
from ..observers import Silent, observing
from .event_models import LOCAL, created, listening_to, updated
from .test_failed_commits import Book, DeferredBase
from .transaction_models import ORDERS, Base, Order


@pytest.mark.parametrize("really", [False, True])
@scenario(Base.metadata, databases=LOCAL)
async def test_savepoints_of_a_callback_before_the_commit(
    front: FrontEnd, recorder: EventRecorder, *, really: bool
) -> None:
    """P1, P3: what it writes in a savepoint is told when the others of this round were called, observed or not."""
    told: list[int] = []

    @listens_for(Order, phase=Phase.BEFORE_COMMIT)
    async def add(
        order: Order, event_type: ModelEvent, changes: Changes | None, *, session: EventSession | SyncEventSession
    ) -> None:
        told.append(order.id)
        if order.id < 10:
            adapter = SessionAdapter(session)
            async with adapter.begin_nested():
                await adapter.add(Order(id=order.id + 10))

    recorder.listen(Order)
    await front.add_all([Order(id=1), Order(id=2)])
    with observing(*[Silent()] if really else []):
        await front.commit()
    assert told == [1, 2, 11, 12]
    assert recorder.take() == [created(Order, key) for key in (1, 2, 11, 12)]
    assert await front.committed_rows(ORDERS) == [(key, "new") for key in (1, 2, 11, 12)]


@pytest.mark.parametrize("votes", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("act", ["release", "roll back", "leave open", "flush"])
@scenario(Base.metadata, databases=LOCAL)
async def test_savepoint_of_a_before_commit_listener(
    front: FrontEnd, recorder: EventRecorder, *, act: str, pending: bool, first: bool, votes: bool
) -> None:
    """T1, T3, P1: what it writes is told as the rest is, once, and a savepoint of its own stops no commit."""
    if votes:
        recorder.listen(Order, phase=Phase.BEFORE_COMMIT)
    recorder.listen(Order)

    def write(session: Session) -> None:
        if session.in_nested_transaction() or session.info.get("has_written"):
            return
        session.info["has_written"] = True
        savepoint = session.begin_nested() if act != "flush" else None
        session.add(Order(id=3))
        session.flush()
        if savepoint is not None and act == "release":
            savepoint.commit()
        elif savepoint is not None and act == "roll back":
            savepoint.rollback()

    await front.add(Order(id=1))
    await front.flush()
    if pending:
        await front.add(Order(id=2))
    target = SyncEventSession if first else front.sync_session
    with listening_to(target, "before_commit", write, insert=first):
        await front.commit()
    keys = [1, *([2] if pending else []), *([] if act == "roll back" else [3])]
    assert recorder.take() == [created(Order, key) for key in keys] * (2 if votes else 1)
    assert await front.committed_rows(ORDERS) == [(key, "new") for key in keys]


@scenario(DeferredBase.metadata, databases=LOCAL)
async def test_commit_that_fails_is_regretted(front: FrontEnd, recorder: EventRecorder) -> None:
    """P2, T4: a COMMIT that the database has refused is rolled back, and those hear of it who listen to that."""
    recorder.listen(Book, phase=Phase.AFTER_ROLLBACK)
    await front.add(Book(id=1, shelf_id=404))
    with pytest.raises(IntegrityError):
        await front.commit()
    await front.rollback()
    assert recorder.take() == [created(Book, 1)]


def voters() -> list[tuple[str, int, int]]:
    """Write down what is told before the COMMIT: the event, the order's id, its quantity."""
    told: list[tuple[str, int, int]] = []

    @listens_for(Order, phase=Phase.BEFORE_COMMIT)
    def vote(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        told.append((event_type.value, order.id, len(order.status)))

    return told


@scenario(Base.metadata, databases=LOCAL)
async def test_release_with_an_empty_savepoint_inside_is_no_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """P1: callbacks vote on the commit of everything, not on a release after one that had an open savepoint in it."""
    told = voters()
    recorder.listen(Order)

    def work(session: Session) -> None:
        with session.begin_nested():
            session.begin_nested()  # left open, and nothing was written yet
        with session.begin_nested():
            session.add(Order(id=1))

    await front.run_sync(work)
    assert told == []
    (await front.get_one(Order, 1)).status = "three"
    await front.commit()
    assert told == [("create", 1, 5)]
    assert recorder.take() == [created(Order, 1)]


@scenario(Base.metadata, databases=LOCAL)
async def test_nobody_votes_after_a_commit_that_did_not_come_about(front: FrontEnd, recorder: EventRecorder) -> None:
    """P1: what follows is voted on with the next commit, in one piece."""
    await front.add(Order(id=1))
    await front.commit()
    told = voters()
    recorder.listen(Order)

    def work(session: Session) -> None:
        root = session.begin()
        session.add(second := Order(id=2))
        savepoint = session.begin_nested()
        session.add(Order(id=1))
        with pytest.raises(IntegrityError):
            root.commit()
        savepoint.rollback()
        with session.begin_nested():
            session.add(Order(id=3))
        assert told == []
        second.status = "paid"
        session.commit()

    session = front.new_session()
    await session.run_sync(work)
    assert told == [("create", 2, 4), ("create", 3, 3)]
    assert recorder.take() == [created(Order, 2), created(Order, 3)]


@pytest.mark.parametrize("opened", [False, True])
@scenario(Base.metadata, databases=LOCAL)
async def test_savepoint_of_a_callback_while_another_is_open(
    front: FrontEnd, recorder: EventRecorder, *, opened: bool
) -> None:
    """P1: a round is told to its end before what it has written, whether the commit releases a savepoint or not."""
    told: list[int] = []

    @listens_for(Order, phase=Phase.BEFORE_COMMIT)
    def add(
        order: Order, event_type: ModelEvent, changes: Changes | None, *, session: EventSession | SyncEventSession
    ) -> None:
        told.append(order.id)
        if order.id < 10:
            inner = session if isinstance(session, SyncEventSession) else session.sync_session
            inner.add(Order(id=order.id + 10))
            inner.flush()
            inner.begin_nested().commit()

    recorder.listen(Order)

    def work(session: Session) -> None:
        root = session.begin()
        session.add(Order(id=1))
        session.flush()
        if opened:
            session.begin_nested()
        session.add(Order(id=2))
        root.commit()

    await front.run_sync(work)
    assert told == [1, 2, 11, 12]
    assert recorder.take() == [created(Order, key) for key in (1, 2, 11, 12)]


@scenario(Base.metadata, databases=LOCAL)
async def test_listener_that_rolls_back_what_the_commit_finds_open(front: FrontEnd, recorder: EventRecorder) -> None:
    """P1, T3: the rest is voted on all the same, and told."""
    told = voters()
    recorder.listen(Order)

    def roll_back(session: Session) -> None:
        savepoint = session.get_nested_transaction()
        if savepoint is not None:
            savepoint.rollback()

    def work(session: Session) -> None:
        root = session.begin()
        session.add(Order(id=1))
        session.begin_nested()
        session.add(Order(id=2))
        session.flush()
        root.commit()

    with listening_to(front.sync_session, "before_commit", roll_back):
        await front.run_sync(work)
    assert told == [("create", 1, 3)]
    assert recorder.take() == [created(Order, 1)]


@scenario(Base.metadata, databases=LOCAL)
async def test_savepoint_closed_by_itself_with_another_inside(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: SQLAlchemy leaves the inner one alone; what was done in either is gone, and the rest is committed."""
    recorder.listen(Order)

    def work(session: Session) -> None:
        session.add(Order(id=1))
        session.flush()
        outer = session.begin_nested()
        session.begin_nested()
        session.add(Order(id=2))
        session.flush()
        outer.close()
        session.commit()

    await front.run_sync(work)
    assert recorder.take() == [created(Order, 1)]
    assert await front.committed_rows(ORDERS) == [(1, "new")]


@pytest.mark.parametrize("votes", [False, True])
@pytest.mark.parametrize("first", [False, True])
@scenario(Base.metadata, databases=LOCAL)
async def test_before_commit_listeners_find_what_is_pending(
    front: FrontEnd, recorder: EventRecorder, *, votes: bool, first: bool
) -> None:
    """T7: as on a plain session, whoever else hears of the commit before it happens."""
    told = voters() if votes else []
    recorder.listen(Order)
    pending: list[int] = []

    def look(session: Session) -> None:
        pending.extend(order.id for order in session.new if isinstance(order, Order))

    await front.add(Order(id=1))
    target = SyncEventSession if first else front.sync_session
    with listening_to(target, "before_commit", look, insert=first):
        await front.commit()
    assert pending == [1]
    assert recorder.take() == [created(Order, 1)]
    assert told == ([("create", 1, 3)] if votes else [])


@scenario(Base.metadata, databases=LOCAL)
async def test_commit_by_a_before_flush_listener(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1, P1: it commits nothing of what is about to be flushed, as on a plain session, and stops no flush."""
    told = voters()
    recorder.listen(Order)

    def commit(session: Session, *_: object) -> None:
        session.commit()

    event.listen(front.sync_session, "before_flush", commit, once=True)
    await front.add(Order(id=1))
    await front.flush()
    assert (told, recorder.take()) == ([], [])
    await front.commit()
    assert (told, recorder.take()) == ([("create", 1, 3)], [created(Order, 1)])


@pytest.mark.parametrize("of_class", [False, True])
@scenario(Base.metadata, databases=LOCAL)
async def test_after_commit_listener_that_raises(front: FrontEnd, recorder: EventRecorder, *, of_class: bool) -> None:
    """T1, P2: what was committed is told as that, however early the listener comes."""
    regretted = EventRecorder()
    recorder.listen(Order)
    regretted.listen(Order, phase=Phase.AFTER_ROLLBACK)

    def fail(session: Session) -> None:
        raise LookupError(session)

    target = Session if of_class else front.sync_session
    await front.add(Order(id=1))
    with listening_to(target, "after_commit", fail, insert=of_class), pytest.raises(LookupError):
        await front.commit()
    await front.close()
    assert (recorder.take(), regretted.take()) == ([created(Order, 1)], [])
    assert await front.committed_rows(ORDERS) == [(1, "new")]


@pytest.mark.filterwarnings("ignore:an error inside this transaction")
@pytest.mark.parametrize("votes", [False, True])
@scenario(Base.metadata, databases=("postgresql",))
async def test_nobody_votes_on_what_the_server_has_rolled_back(
    front: FrontEnd, recorder: EventRecorder, *, votes: bool
) -> None:
    """T4, P1, P2: the commit commits nothing, says so, and those who hear of a rollback hear of it."""
    told = voters() if votes else []
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)
    await front.add(Order(id=1))
    await front.flush()
    await front.execute(text("SET LOCAL work_mem = '8MB'"))
    with pytest.raises(DBAPIError):
        await front.execute(text("SELECT 1/0"))
    await front.commit()
    await front.close()
    assert told == []
    assert recorder.take() == [created(Order, 1)]
    assert await front.committed_rows(ORDERS) == []


EXITS: dict[str, Callable[[Session, SessionTransaction], None]] = {
    "rollback": lambda session, _: session.rollback(),
    "close": lambda session, _: session.close(),
    "reset": lambda session, _: session.reset(),
    "invalidate": lambda session, _: session.invalidate(),
    "the root's rollback": lambda _, root: root.rollback(),
    "the root's close": lambda _, root: root.close(),
}


@pytest.mark.parametrize("name", EXITS)
@scenario(Base.metadata, databases=LOCAL)
async def test_savepoints_that_are_open_when_everything_is_rolled_back(
    front: FrontEnd, recorder: EventRecorder, name: str
) -> None:
    """P2: what was done in them is regretted with the rest, net; what a savepoint's own rollback took back is not."""
    await front.add(Order(id=9))
    await front.commit()
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)

    def work(session: Session) -> None:
        root = session.begin()
        session.add(Order(id=1))
        session.get_one(Order, 9).status = "one"
        own = session.begin_nested()
        session.add(Order(id=4))
        session.flush()
        own.rollback()
        session.begin_nested()
        session.add(Order(id=2))
        session.get_one(Order, 9).status = "two"
        session.begin_nested()
        session.add(Order(id=3))
        session.get_one(Order, 9).status = "three"
        session.delete(session.get_one(Order, 1))
        session.flush()
        EXITS[name](session, root)

    await front.new_session().run_sync(work)
    assert recorder.take() == [updated(Order, 9, status=("new", "three")), created(Order, 2), created(Order, 3)]
    assert await front.committed_rows(ORDERS) == [(9, "new")]


@pytest.mark.parametrize("expire_on_commit", [False, True])
@scenario(Base.metadata, databases=LOCAL)
async def test_callback_that_expires_what_is_told(
    front: FrontEnd, recorder: EventRecorder, *, expire_on_commit: bool
) -> None:
    """N1, E11, E12, P1: it is read again before the COMMIT, and nothing after it."""
    session = front.new_session(expire_on_commit=expire_on_commit)

    @listens_for(Order, phase=Phase.BEFORE_COMMIT)
    def expire(
        order: Order, event_type: ModelEvent, changes: Changes | None, *, session: EventSession | SyncEventSession
    ) -> None:
        session.expire_all()

    shown: list[tuple[int, str, object]] = []

    @listens_for(Order)
    def show(order: Order, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        shown.append((order.id, order.status, event.after and event.after["status"]))

    recorder.listen(Order)
    orders = [Order(id=1), Order(id=2)]
    await session.add_all(orders)
    with front.statements(boundaries=True) as statements:
        await session.commit()
    assert statements[-1] == "COMMIT"
    assert shown == [(1, "new", "new"), (2, "new", "new")]
    assert recorder.take() == [created(Order, 1), created(Order, 2)]
