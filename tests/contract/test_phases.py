"""Rules P1, P2 and P3: callbacks inside the transaction, and after one that was rolled back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, object_session

from fastapi_toolsets.errors import CascadeLimitError, ListenerError
from fastapi_toolsets.models import Changes, Event, ModelEvent, Phase, listens_for, muted, remove_listener

from ..databases import DATABASES, TYPES
from ..front_ends import AnySession, EventRecorder, FrontEnd, scenario
from ..session_adapter import resolve
from .event_models import LOCAL, created, deleted, updated


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Order(Base):
    __tablename__ = "phase_orders"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(default="new")
    quantity: Mapped[int] = mapped_column(default=1)


class Audit(Base):
    __tablename__ = "phase_audits"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]
    about: Mapped[int]


AUDITS = select(Audit.what, Audit.about).order_by(Audit.id)
ORDERS = select(Order.id, Order.status, Order.quantity).order_by(Order.id)


class RefusedError(Exception):
    """What a callback of these scenarios vetoes with."""


def audit(events: tuple[ModelEvent, ...] = tuple(ModelEvent), *, asynchronous: bool = False) -> None:
    """Write an audit row for each event, inside its transaction."""

    def write(order: Order, event_type: ModelEvent, changes: Changes | None, *, session: AnySession) -> None:
        session.add(Audit(what=event_type.value, about=order.id))

    async def write_later(
        order: Order, event_type: ModelEvent, changes: Changes | None, *, session: AnySession
    ) -> None:
        write(order, event_type, changes, session=session)

    listens_for(Order, events, phase=Phase.BEFORE_COMMIT)(write_later if asynchronous else write)


@pytest.mark.parametrize("asynchronous", [False, True])
@scenario(Base.metadata)
async def test_what_it_writes_is_committed_with_the_rest(
    front: FrontEnd, recorder: EventRecorder, *, asynchronous: bool
) -> None:
    """P1, P3: called with the net events inside the transaction; its own rows make events in both phases."""
    audit(asynchronous=asynchronous)
    before = EventRecorder()
    before.listen(Audit, phase=Phase.BEFORE_COMMIT, asynchronous=asynchronous)
    recorder.listen(Order, asynchronous=asynchronous)
    recorder.listen(Audit, asynchronous=asynchronous)
    order = Order(id=1)
    await front.add(order)
    await front.flush()
    order.quantity = 2
    await front.commit()
    assert before.take() == [created(Audit, 1)]
    assert recorder.take() == [created(Order, 1), created(Audit, 1)]
    assert await front.committed_rows(AUDITS) == [("create", 1)]
    order.status = "paid"
    await front.flush()
    order.status = "new"
    await front.commit()
    assert (before.take(), recorder.take()) == ([], [])
    order.status = "paid"
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "paid")), created(Audit, 2)]
    await front.delete(order)
    await front.commit()
    assert recorder.take() == [deleted(Order, 1), created(Audit, 3)]
    assert await front.committed_rows(AUDITS) == [("create", 1), ("update", 1), ("delete", 1)]


@pytest.mark.parametrize("asynchronous", [False, True])
@scenario(Base.metadata)
async def test_veto_rolls_everything_back(front: FrontEnd, recorder: EventRecorder, *, asynchronous: bool) -> None:
    """P1, P3: what it raises comes out of the commit, nothing is left, and no other phase hears of it."""
    audit()
    recorder.listen(Order)
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)
    recorder.listen(Audit)
    error = RefusedError("no")

    def refuse(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        if order.quantity > 5:
            raise error

    async def refuse_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        refuse(order, event_type, changes)

    listens_for(Order, phase=Phase.BEFORE_COMMIT)(refuse_later if asynchronous else refuse)
    await front.add_all([Order(id=1), Order(id=2, quantity=6)])
    with pytest.raises(RefusedError) as raised:
        await front.commit()
    assert raised.value is error
    assert not front.session.in_transaction()
    assert (recorder.take(), await front.committed_rows(ORDERS), await front.committed_rows(AUDITS)) == ([], [], [])
    with pytest.raises(RefusedError):
        async with front.begin():
            await front.add(Order(id=3, quantity=7))
    async with front.begin():
        await front.add(Order(id=4))
    assert recorder.take() == [created(Order, 4), created(Audit, 1)]
    assert await front.committed_rows(ORDERS) == [(4, "new", 1)]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync callback", "async callback"])
@scenario(Base.metadata, databases=LOCAL)
async def test_veto_comes_out_as_it_was_raised(front: FrontEnd, *, asynchronous: bool) -> None:
    """P1: with what had led to it, which nothing of the library's takes the place of."""
    reason = KeyError("no such customer")

    def refuse(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        try:
            raise reason
        except KeyError:
            raise RefusedError("no")  # noqa: B904 - it is what it came from that this is about

    async def refuse_later(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        refuse(order, event_type, changes)

    listens_for(Order, phase=Phase.BEFORE_COMMIT)(refuse_later if asynchronous else refuse)
    await front.add(Order(id=1))
    with pytest.raises(RefusedError) as raised:
        await front.commit()
    assert (raised.value.__cause__, raised.value.__context__) == (None, reason)


@scenario(Base.metadata)
async def test_it_hears_of_what_savepoints_left(front: FrontEnd, recorder: EventRecorder) -> None:
    """P1, T3: the audit rows agree with the data, whatever became of the savepoints."""
    audit()
    recorder.listen(Order)
    async with front.begin():
        await front.add(Order(id=1))
        async with front.begin_nested():
            await front.add(Order(id=2))
        savepoint = await front.begin_nested()
        await front.add(Order(id=3))
        await front.flush()
        await savepoint.rollback()
        await front.begin_nested()  # left open: the commit releases it
        await front.add(Order(id=4))
    assert recorder.take() == [created(Order, 1), created(Order, 2), created(Order, 4)]
    assert await front.committed_rows(AUDITS) == [("create", 1), ("create", 2), ("create", 4)]


@scenario(Base.metadata, databases=LOCAL)
async def test_by_whichever_door_it_is_committed(front: FrontEnd) -> None:
    """P1, T1: as after the commit."""
    audit()
    await front.add(Order(id=1))
    await front.commit()
    async with front.begin():
        await front.add(Order(id=2))
    transaction = await front.begin()
    await front.begin_nested()
    await front.add(Order(id=3))
    await transaction.commit()
    await front.add(Order(id=4))
    await front.flush()
    await front.commit()
    assert await front.committed_rows(AUDITS) == [("create", 1), ("create", 2), ("create", 3), ("create", 4)]


@scenario(Base.metadata)
async def test_callbacks_that_change_what_they_hear_of(front: FrontEnd, recorder: EventRecorder) -> None:
    """P1, E1: what one changes is told in turn, relative to what was told; after the commit there is one event."""
    before = EventRecorder()

    def pay(
        order: Order, event_type: ModelEvent, changes: Changes | None, *, session: AnySession, event: Event
    ) -> None:
        before.record(order, event_type, changes)
        assert event.after is not None
        assert event.after["quantity"] == order.quantity
        if order.quantity < 3:
            order.quantity += 1

    listens_for(Order, phase=Phase.BEFORE_COMMIT)(pay)
    recorder.listen(Order)
    order = Order(id=1)
    await front.add(order)
    await front.commit()
    assert before.take() == [created(Order, 1), updated(Order, 1, quantity=(1, 2)), updated(Order, 1, quantity=(2, 3))]
    assert recorder.take() == [created(Order, 1)]
    front.session.expire_all()
    order.quantity = 0
    await front.commit()
    assert before.take() == [
        updated(Order, 1, quantity=(3, 0)),
        updated(Order, 1, quantity=(0, 1)),
        updated(Order, 1, quantity=(1, 2)),
        updated(Order, 1, quantity=(2, 3)),
    ]
    assert recorder.take() == []
    assert await front.committed_rows(ORDERS) == [(1, "new", 3)]


async def assign(_session: AnySession, order: Order) -> None:
    order.quantity = 1


async def assign_beside_words(session: AnySession, order: Order) -> None:
    order.quantity = 1
    await resolve(session.execute(text("DELETE FROM phase_audits")))


async def update_in_bulk(session: AnySession, order: Order) -> None:
    statement = update(Order).where(Order.id == order.id).values(quantity=1)
    await resolve(session.execute(statement, execution_options={"events": True}))


@pytest.mark.parametrize("write", [assign, assign_beside_words, update_in_bulk])
@scenario(Base.metadata)
async def test_callback_that_takes_back_what_it_hears_of(
    front: FrontEnd, recorder: EventRecorder, write: Callable[[AnySession, Order], Awaitable[None]]
) -> None:
    """P1, E2: a value that ends where it began is no change, also where rows are read again before the commit."""
    before = EventRecorder()

    async def take_back(order: Order, event_type: ModelEvent, changes: Changes | None, *, session: AnySession) -> None:
        before.record(order, event_type, changes)
        if order.quantity == 5:
            await write(session, order)

    order = Order(id=1, quantity=1)
    await front.add(order)
    await front.commit()
    listens_for(Order, phase=Phase.BEFORE_COMMIT)(take_back)
    recorder.listen(Order)
    order.quantity = 5
    order.status = "paid"
    await front.commit()
    assert before.take() == [
        updated(Order, 1, status=("new", "paid"), quantity=(1, 5)),
        updated(Order, 1, quantity=(5, 1)),
    ]
    assert recorder.take() == [updated(Order, 1, status=("new", "paid"))]
    order.quantity = 5
    await front.commit()
    assert before.take() == [updated(Order, 1, quantity=(1, 5)), updated(Order, 1, quantity=(5, 1))]
    assert recorder.take() == []
    assert await front.committed_rows(ORDERS) == [(1, "paid", 1)]


@scenario(Base.metadata, databases=LOCAL, cascade_limit=3)
async def test_chain_that_feeds_itself_ends(front: FrontEnd, recorder: EventRecorder) -> None:
    """P1, C6: with a clear error, and everything rolled back."""
    recorder.listen(Audit)

    def write(audit: Audit, event_type: ModelEvent, changes: Changes | None, *, session: AnySession) -> None:
        session.add(Audit(what="again", about=audit.about))

    listens_for(Audit, phase=Phase.BEFORE_COMMIT)(write)
    await front.add(Audit(what="first", about=1))
    with pytest.raises(CascadeLimitError, match=r"3 times in a row.*not called any more: callback .*write"):
        await front.commit()
    assert (recorder.take(), await front.committed_rows(AUDITS)) == ([], [])


@scenario(Base.metadata, databases=LOCAL, cascade_limit=3)
async def test_chain_as_long_as_it_may_be(front: FrontEnd, recorder: EventRecorder) -> None:
    """P1, C6: what callbacks write calls callbacks again as often as the limit says."""
    recorder.listen(Audit)

    def write(audit: Audit, event_type: ModelEvent, changes: Changes | None, *, session: AnySession) -> None:
        if audit.about < 3:
            session.add(Audit(what="again", about=audit.about + 1))

    listens_for(Audit, phase=Phase.BEFORE_COMMIT)(write)
    await front.add(Audit(what="first", about=0))
    await front.commit()
    assert len(recorder.take()) == 4
    assert await front.committed_rows(AUDITS) == [("first", 0), *(("again", number) for number in (1, 2, 3))]


@scenario(Base.metadata, databases=[name for name in DATABASES if name != "sqlite"], cascade_limit=3)
async def test_chain_through_other_sessions_ends(front: FrontEnd) -> None:
    """P1, C6: also where each callback commits through a session of its own."""
    depths: list[int] = []

    async def write(audit: Audit, event_type: ModelEvent, changes: Changes | None) -> None:
        depths.append(audit.about)
        other = front.new_session()
        await other.add(Audit(what="again", about=audit.about + 1))
        await other.commit()

    listens_for(Audit, phase=Phase.BEFORE_COMMIT)(write)
    other = front.new_session()
    await other.add(Audit(what="first", about=1))
    with pytest.raises(CascadeLimitError):
        await other.commit()
    assert depths == [1, 2, 3, 4]
    assert await front.committed_rows(AUDITS) == []


@scenario(Base.metadata)
async def test_callback_may_flush_and_query(front: FrontEnd) -> None:
    """P1: it stands inside the transaction: what it flushes has a key, and queries see it."""
    seen: list[object] = []

    async def write(order: Order, event_type: ModelEvent, changes: Changes | None, *, session: AnySession) -> None:
        row = Audit(what="flushed", about=order.id)
        await front.add(row)
        await front.flush()
        seen.append(row.id)
        await front.add(Audit(what="queried", about=order.id))
        seen.append((await front.execute(AUDITS)).all())
        async with front.begin_nested():
            await front.add(Audit(what="released", about=order.id))
        savepoint = await front.begin_nested()
        await front.add(Audit(what="dropped", about=order.id))
        await savepoint.rollback()

    listens_for(Order, ModelEvent.CREATE, phase=Phase.BEFORE_COMMIT)(write)
    async with front.begin():
        await front.add(Order(id=7))
    assert seen == [1, [("flushed", 7), ("queried", 7)]]
    assert await front.committed_rows(select(Audit.what).order_by(Audit.id)) == [
        ("flushed",),
        ("queried",),
        ("released",),
    ]


@pytest.mark.parametrize("action", ["commit", "rollback"])
@scenario(Base.metadata, databases=LOCAL)
async def test_callback_that_ends_the_transaction(front: FrontEnd, recorder: EventRecorder, *, action: str) -> None:
    """P1: it cannot, and trying ends the commit."""
    recorder.listen(Order)

    async def end(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await getattr(front, action)()

    listens_for(Order, phase=Phase.BEFORE_COMMIT)(end)
    await front.add(Order(id=1))
    with pytest.raises(Exception, match="already in progress"):
        await front.commit()
    assert (recorder.take(), await front.committed_rows(ORDERS)) == ([], [])
    remove_listener(Order, end)
    await front.add(Order(id=2))
    await front.commit()
    assert recorder.take() == [created(Order, 2)]


@scenario(Base.metadata)
async def test_what_it_writes_cannot_be_written(front: FrontEnd, recorder: EventRecorder) -> None:
    """P1: an error of the database over a callback's row ends the commit as one that it raised."""
    recorder.listen(Order)
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)

    def write(order: Order, event_type: ModelEvent, changes: Changes | None, *, session: AnySession) -> None:
        session.add(Audit(id=1, what="twice", about=order.id))

    await front.add(Audit(id=1, what="there", about=0))
    await front.commit()
    front.session.expunge_all()
    listens_for(Order, phase=Phase.BEFORE_COMMIT)(write)
    await front.add(Order(id=1))
    with pytest.raises(IntegrityError):
        await front.commit()
    assert not front.session.in_transaction()
    assert (recorder.take(), await front.committed_rows(ORDERS)) == ([], [])


@scenario(Base.metadata, databases=LOCAL)
async def test_changes_of_another_before_commit_listener(front: FrontEnd) -> None:
    """P1: "after the last flush" also holds for one that SQLAlchemy makes because of a listener of its own."""
    audit()
    session: Session = front.session.sync_session if front.is_async else front.session

    def add_another(session: Session) -> None:
        session.add(Order(id=2))

    sqlalchemy_event.listen(session, "before_commit", add_another, once=True)
    await front.add(Order(id=1))
    await front.commit()
    assert await front.committed_rows(AUDITS) == [("create", 1), ("create", 2)]


@scenario(Base.metadata, databases=LOCAL)
async def test_commit_given_up_by_somebody_else_is_told_once(front: FrontEnd) -> None:
    """P1: what was told before a commit that came to nothing is not told again by the next."""
    audit()
    session: Session = front.session.sync_session if front.is_async else front.session

    def give_up(session: Session) -> None:
        raise RefusedError

    await front.add(Order(id=1))
    sqlalchemy_event.listen(session, "before_commit", give_up)
    with pytest.raises(RefusedError):
        await front.commit()
    sqlalchemy_event.remove(session, "before_commit", give_up)
    await front.add(Order(id=2))
    await front.flush()
    await front.commit()
    assert await front.committed_rows(ORDERS) == [(1, "new", 1), (2, "new", 1)]
    assert await front.committed_rows(AUDITS) == [("create", 1), ("create", 2)]


@scenario(Base.metadata, databases=LOCAL)
async def test_event_says_the_same_in_both_phases(front: FrontEnd) -> None:
    """P1, N1: one transaction has one id, and each phase counts its own positions."""
    told: list[tuple[Phase, Event]] = []

    def note(phase: Phase) -> None:
        @listens_for(Order, phase=phase)
        def record(order: Order, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
            told.append((phase, event))

    for phase in Phase:
        note(phase)
    await front.add_all([Order(id=1), Order(id=2)])
    await front.commit()
    assert [(phase, event.identity, event.position) for phase, event in told] == [
        (Phase.BEFORE_COMMIT, (1,), 0),
        (Phase.BEFORE_COMMIT, (2,), 1),
        (Phase.AFTER_COMMIT, (1,), 0),
        (Phase.AFTER_COMMIT, (2,), 1),
    ]
    assert len({event.transaction_id for _, event in told}) == 1
    assert told[0][1] == told[2][1]


@scenario(Base.metadata, databases=LOCAL)
async def test_muted_and_removed(front: FrontEnd) -> None:
    """P1, N5: muting and removing hold in every phase."""
    recorder = EventRecorder()
    recorder.listen(Order, phase=Phase.BEFORE_COMMIT)
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)
    with muted():
        await front.add(Order(id=1))
        await front.commit()
        await front.add(Order(id=2))
        await front.flush()
        await front.rollback()
    assert recorder.take() == []
    remove_listener(Order, recorder.record)
    await front.add(Order(id=3))
    await front.commit()
    assert recorder.take() == []


def test_phase_that_is_none() -> None:
    """P2, N3: anything but a phase is refused, and says what was given."""
    with pytest.raises(ListenerError, match=r"was given 'before_commit' as phase: give it a Phase"):
        listens_for(Order, phase="before_commit")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# After a rollback.


@pytest.mark.parametrize("asynchronous", [False, True])
@scenario(Base.metadata)
async def test_rollback_is_told(front: FrontEnd, recorder: EventRecorder, *, asynchronous: bool) -> None:
    """P2, P3: with the net of what was dropped, once, whichever way the transaction ended."""
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK, asynchronous=asynchronous)
    kept = Order(id=9, status="kept", quantity=4)
    gone = Order(id=8)
    await front.add_all([kept, gone])
    await front.commit()
    assert recorder.take() == []
    for leave in (front.rollback, front.reset, front.close):
        await front.add(Order(id=1))
        kept, gone = (await front.scalars(select(Order).where(Order.id > 5).order_by(Order.id.desc()))).all()
        kept.quantity = Order.quantity + 1
        await front.flush()
        kept.status = "changed"
        await front.delete(gone)
        await front.flush()
        await leave()
        assert recorder.take() == [
            created(Order, 1),
            updated(Order, 9, quantity=(4, 5), status=("kept", "changed")),
            deleted(Order, 8),
        ]
    with suppress(RefusedError):
        async with front.begin():
            await front.add(Order(id=1))
            await front.flush()
            raise RefusedError
    assert recorder.take() == [created(Order, 1)]
    await front.rollback()
    await front.commit()
    assert recorder.take() == []


@scenario(Base.metadata)
async def test_copy_of_what_would_have_been(front: FrontEnd) -> None:
    """P2: ``obj`` is detached, readable without I/O, and nobody else's."""
    told: list[tuple[str, int, str, int]] = []
    objects: list[object] = []

    @listens_for(Order, phase=Phase.AFTER_ROLLBACK)
    def note(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        assert object_session(order) is None
        objects.append(order)
        told.append((event_type.value, order.id, order.status, order.quantity))

    order = Order(id=1, quantity=5)
    await front.add(order)
    await front.commit()
    order.status = "changed"
    new = Order(id=2)
    await front.add(new)
    await front.flush()
    front.session.expire(order)
    new.status = "never written"
    await front.rollback()
    assert told == [("create", 2, "new", 1), ("update", 1, "changed", 5)]
    assert all(found is not order and found is not new for found in objects)


@scenario(Base.metadata)
async def test_rolled_back_savepoint_is_not_told(front: FrontEnd, recorder: EventRecorder) -> None:
    """P2: only what the outermost transaction still held when it was rolled back."""
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)
    await front.add(Order(id=1))
    async with front.begin_nested():
        await front.add(Order(id=2))
    savepoint = await front.begin_nested()
    await front.add(Order(id=3))
    await front.flush()
    await savepoint.rollback()
    assert recorder.take() == []
    await front.rollback()
    assert recorder.take() == [created(Order, 1), created(Order, 2)]


@scenario(Base.metadata)
async def test_failed_flush_is_told_of_what_went_before(front: FrontEnd, recorder: EventRecorder) -> None:
    """P2: when the session is done with the transaction that the error rolled back."""
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)
    await front.add(Order(id=1))
    await front.commit()
    front.session.expunge_all()
    await front.add(Order(id=2))
    await front.flush()
    await front.add(Order(id=1))
    with pytest.raises(IntegrityError):
        await front.commit()
    await front.rollback()
    assert recorder.take() == [created(Order, 2)]


@scenario(Base.metadata, on_callback_error="raise")
async def test_errors_after_a_rollback_hide_nothing(
    front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """P2, C4: they are logged, the caller's own exception goes on, and the other callbacks run."""

    @listens_for(Order, phase=Phase.AFTER_ROLLBACK)
    def fail(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        message = "secret value"
        raise ValueError(message)

    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)
    with suppress(RefusedError):
        async with front.begin():
            await front.add(Order(id=1))
            await front.flush()
            raise RefusedError
    assert recorder.take() == [created(Order, 1)]
    [record] = [record for record in caplog.records if record.name == "fastapi_toolsets.events"]
    assert "fail for create of Order raised; the rollback stands" in record.getMessage()
    assert "secret" not in record.getMessage()


@scenario(Base.metadata)
async def test_compensation_may_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """P2, C6: a callback may use the session; what it commits is told after what waits."""

    async def compensate(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        recorder.record(order, event_type, changes)
        await front.add(Audit(what="compensated", about=order.id))
        await front.commit()

    listens_for(Order, phase=Phase.AFTER_ROLLBACK)(compensate)
    recorder.listen(Audit)
    await front.add_all([Order(id=1), Order(id=2)])
    await front.flush()
    await front.rollback()
    assert recorder.take() == [created(Order, 1), created(Order, 2), created(Audit, 1), created(Audit, 2)]
    assert await front.committed_rows(AUDITS) == [("compensated", 1), ("compensated", 2)]
    assert await front.committed_rows(ORDERS) == []


@pytest.mark.parametrize("expire_on_commit", [False, True])
@scenario(Base.metadata, databases=LOCAL)
async def test_a_commit_is_no_rollback(front: FrontEnd, recorder: EventRecorder, *, expire_on_commit: bool) -> None:
    """P2: and reading is none either."""
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)
    session = front.new_session(expire_on_commit=expire_on_commit)
    await session.add(Order(id=1))
    await session.commit()
    await session.execute(ORDERS)
    await session.rollback()
    await session.execute(ORDERS)
    await session.close()
    assert recorder.take() == []


@scenario(Base.metadata, databases=[name for name in DATABASES if name == "postgresql"])
async def test_commit_that_the_server_answers_with_rollback(front: FrontEnd, recorder: EventRecorder) -> None:
    """P2, T4: it was rolled back, whatever it was called."""
    recorder.listen(Order)
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)
    await front.add(Order(id=1))
    await front.flush()
    connection: Any = await front.connection()
    with pytest.raises(Exception, match="nowhere"):
        await _resolved(connection.execute(text("SELECT * FROM nowhere")))
    with pytest.warns(match="commits nothing"):
        await front.commit()
    assert recorder.take() == [created(Order, 1)]
    assert await front.committed_rows(ORDERS) == []


async def _resolved(value: Any) -> object:  # noqa: ANN401 - of either kind
    return await value if hasattr(value, "__await__") else value
