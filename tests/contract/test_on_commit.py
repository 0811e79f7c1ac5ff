"""Rule C7: ``session.on_commit``, a callback for one commit only."""

from __future__ import annotations

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from fastapi_toolsets.errors import CascadeLimitError, ListenerError
from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..front_ends import EventRecorder, FrontEnd, scenario
from .clauses import Clauses
from .event_models import LOCAL, created
from .transaction_models import ORDERS, Base, ExpectedError, Order

clause = Clauses(Base.metadata)

calls: list[tuple[object, ...]] = []


def note(*arguments: object) -> None:
    calls.append(arguments)


async def note_later(*arguments: object) -> None:
    calls.append(arguments)


@clause
async def test_on_commit_runs_after_the_events(front: FrontEnd) -> None:
    """C7: sync or async, with its arguments, in order, once, and not before the commit."""
    calls.clear()

    @listens_for(Order)
    def note_event(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        note(order.id)

    front.session.on_commit(note, "first", 1)
    await front.add(Order(id=1))
    front.session.on_commit(note_later, "second")
    front.session.on_commit(lambda: note_later("third"))
    await front.flush()
    assert calls == []
    await front.commit()
    assert calls == [(1,), ("first", 1), ("second",), ("third",)]
    await front.add(Order(id=2))
    await front.commit()
    assert calls[4:] == [(2,)]


@clause
async def test_on_commit_is_dropped_with_its_level(front: FrontEnd) -> None:
    """C7: with the savepoint or the transaction that rolls back, in whichever way, and only with that."""
    calls.clear()
    async with front.begin():
        front.session.on_commit(note, "root")
        async with front.begin_nested():
            front.session.on_commit(note, "released")
            savepoint = await front.begin_nested()
            front.session.on_commit(note, "rolled back")
            async with front.begin_nested():
                front.session.on_commit(note_later, "released into one that rolls back")
            await savepoint.rollback()
        front.session.on_commit(note_later, "after")
    assert calls == [("root",), ("released",), ("after",)]
    calls.clear()
    for leave in (front.rollback, front.close, front.reset):
        await front.execute(ORDERS)
        front.session.on_commit(note, "dropped")
        await leave()
        await front.commit()
    block = front.begin()
    await block.__aenter__()
    front.session.on_commit(note, "dropped")
    await block.__aexit__(ExpectedError, ExpectedError(), None)
    await front.execute(ORDERS)
    await front.commit()
    assert calls == []


@clause
async def test_on_commit_without_any_event(front: FrontEnd) -> None:
    """C7: no listener, no change, not even a statement is needed."""
    calls.clear()
    front.session.on_commit(note, "nothing else")
    await front.commit()
    assert calls == [("nothing else",)]
    await front.execute(ORDERS)
    front.session.on_commit(note_later, "after a read")
    await front.commit()
    assert calls == [("nothing else",), ("after a read",)]


@clause
async def test_on_commit_inside_callbacks(front: FrontEnd) -> None:
    """C7 with C6: a callback's own commit has on-commit callbacks, too, which come after its events."""
    calls.clear()

    @listens_for(Order, ModelEvent.CREATE)
    async def react(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        note("event", order.id)
        if order.id == 1:
            await front.add(Order(id=2))
            front.session.on_commit(note, "inner")
            await front.commit()

    await front.add(Order(id=1))
    front.session.on_commit(note, "outer")
    await front.commit()
    assert calls == [("event", 1), ("outer",), ("event", 2), ("inner",)]


@clause
async def test_on_commit_outside_a_transaction_inside_callbacks(front: FrontEnd) -> None:
    """C7 with C6: with nothing of its own to commit, a callback's on-commit callback comes after what waits."""
    calls.clear()

    @listens_for(Order, ModelEvent.CREATE)
    async def react(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        note("event", order.id)
        front.session.on_commit(note_later, "after", order.id)

    def more() -> None:
        note("more")
        front.session.on_commit(note, "last", 0)

    await front.add_all([Order(id=1), Order(id=2)])
    front.session.on_commit(more)
    await front.commit()
    assert calls == [("event", 1), ("event", 2), ("more",), ("after", 1), ("after", 2), ("last", 0)]
    await front.commit()
    assert len(calls) == 6


@scenario(Base.metadata, databases=LOCAL)
async def test_on_commit_callback_that_commits_and_one_that_fails(
    front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """C7 with C4 and C6: it may use the session, and an error in one is logged by name and stops nothing."""
    calls.clear()
    recorder.listen(Order)

    def fail() -> None:
        raise ExpectedError

    async def add_another() -> None:
        await front.add(Order(id=2))
        await front.commit()

    front.session.on_commit(fail)
    front.session.on_commit(add_another)
    front.session.on_commit(note, "last")
    await front.add(Order(id=1))
    await front.commit()
    assert recorder.take() == [created(Order, 1), created(Order, 2)]
    assert calls == [("last",)]
    assert "fail" in caplog.text


@pytest.mark.parametrize(("given", "shown"), [("note", "'note'"), (Order(id=1), "an object of type Order")])
@scenario(Base.metadata, databases=LOCAL)
async def test_on_commit_refuses_what_cannot_be_called(front: FrontEnd, given: object, shown: str) -> None:
    """C7: at once, where the mistake is; of a row, whose repr may have its values, only the type is said."""
    with pytest.raises(ListenerError) as raised:
        front.session.on_commit(given)
    assert str(raised.value) == (
        f"on_commit() was given {shown}, which cannot be called: give it a function and its arguments"
    )


@clause
async def test_on_commit_after_a_read_inside_callbacks(front: FrontEnd) -> None:
    """C7 with C6: what a callback has read began a transaction that has nothing to commit, and is no obstacle."""
    calls.clear()

    @listens_for(Order, ModelEvent.CREATE)
    async def reads_first(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await front.execute(ORDERS)
        front.session.on_commit(note, "after a read", order.id)

    @listens_for(Order, ModelEvent.CREATE)
    async def takes_back(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        await front.execute(ORDERS)
        front.session.on_commit(note, "rolled back")
        await front.rollback()

    await front.add_all([Order(id=1), Order(id=2)])
    await front.commit()
    assert calls == [("after a read", 1), ("after a read", 2)]
    await front.commit()
    assert len(calls) == 2


@scenario(Base.metadata, databases=LOCAL)
async def test_on_commit_callback_that_adds_itself_again(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    """C6, C7: such a chain ends at ``cascade_limit``, as one of commits does."""
    calls.clear()
    session = front.new_session(cascade_limit=3)

    def again(number: int) -> None:
        note(number)
        session.session.on_commit(again, number + 1)

    session.session.on_commit(again, 0)
    with pytest.raises(CascadeLimitError, match="cascade_limit") as raised:
        await session.commit()
    assert calls == [(0,), (1,), (2,), (3,)]
    assert caplog.messages == [str(raised.value)]
    assert f"on_commit callback {__name__}.test_on_commit_callback_that_adds_itself_again" in str(raised.value)


@scenario(Base.metadata, databases=LOCAL)
async def test_on_commit_calls_methods_made_in_c(front: FrontEnd, recorder: EventRecorder) -> None:
    """C7: methods of built-in types, bound or not; one that fails stops nobody."""
    recorder.listen(Order)
    found: dict[str, int] = {}
    order: list[str] = []
    front.session.on_commit(found.__setitem__, "bound", 1)
    front.session.on_commit(dict[str, int].__setitem__, found, "unbound", 2)
    front.session.on_commit(found.__delitem__, "missing")
    front.session.on_commit(order.append, "last")
    await front.add(Order(id=1))
    await front.commit()
    assert (found, order, recorder.take()) == ({"bound": 1, "unbound": 2}, ["last"], [created(Order, 1)])


test_every_clause_on_servers = clause.on_servers()
test_every_clause_on_expiring_sessions = clause.on_expiring_sessions()


@clause
async def test_on_commit_inside_listeners_of_after_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """C7: it is the commit that has just happened, or the savepoint, whether or not that has anything else to tell."""
    calls.clear()
    recorder.listen(Order)

    def note_commit(session: Session) -> None:
        front.session.on_commit(note, "savepoint" if session.in_nested_transaction() else "root")

    event.listen(front.sync_session, "after_commit", note_commit)
    await front.commit()
    assert calls == [("root",)]
    await front.add(Order(id=1))
    await front.commit()
    assert calls == [("root",)] * 2
    async with front.begin_nested():
        pass
    await front.commit()
    assert calls[2:] == [("savepoint",), ("root",)]
    async with front.begin_nested():
        pass
    await front.rollback()
    assert calls[4:] == []
    assert not front.session.in_transaction()
    assert recorder.take() == [created(Order, 1)]
