"""Rule N1: what a callback may ask for by name: the session that committed, and the immutable event."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import PickleType
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session

from fastapi_toolsets.models import Changes, Event, EventSession, ModelEvent, SyncEventSession, listens_for

from ..front_ends import FrontEnd, scenario
from .event_models import LOCAL, Base, Order


def collecting(target: type[object]) -> list[Event]:
    """Register a callback that keeps the events of a model."""
    events: list[Event] = []

    @listens_for(target)
    def keep(obj: object, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        events.append(event)

    return events


def told(event: Event) -> dict[str, object]:
    """Everything the event says, but for the transaction's id, with its mappings as plain dicts."""

    def plain(value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {key: plain(item) for key, item in cast("Mapping[str, object]", value).items()}

    names = (field.name for field in dataclasses.fields(event))
    return {name: plain(getattr(event, name)) for name in names if name != "transaction_id"}


@scenario(Base.metadata)
async def test_everything_an_event_says(front: FrontEnd) -> None:
    """N1: model, identity, type, changes, before and after, transaction id and position."""
    events = collecting(Order)
    order = Order(id=1, status="new", memo="m")
    await front.add(order)
    await front.commit()
    order.status, order.note = "paid", "n"
    await front.flush()
    order.status = "sent"
    await front.commit()
    await front.delete(order)
    await front.commit()
    first = {"id": 1, "status": "new", "quantity": 1, "note": None, "memo": "m"}
    second = {**first, "status": "sent", "note": "n"}
    common = {"model": Order, "identity": (1,), "position": 0}
    assert [told(event) for event in events] == [
        {**common, "type": ModelEvent.CREATE, "changes": None, "before": None, "after": first},
        {
            **common,
            "type": ModelEvent.UPDATE,
            "changes": {"status": {"old": "new", "new": "sent"}, "note": {"old": None, "new": "n"}},
            "before": first,
            "after": second,
        },
        {**common, "type": ModelEvent.DELETE, "changes": None, "before": second, "after": None},
    ]
    assert all(isinstance(event, Event) for event in events)
    assert [type(event.transaction_id) for event in events] == [UUID, UUID, UUID]
    assert len({event.transaction_id for event in events}) == 3


@scenario(Base.metadata)
async def test_before_of_rows_that_were_not_loaded(front: FrontEnd) -> None:
    """N1, E3: ``before`` has every column, also of an object of which nothing was loaded."""
    await front.add_all([Order(id=key, status="new", note="n", memo="m") for key in (1, 2)])
    await front.commit()
    events = collecting(Order)
    order, gone = await front.get_one(Order, 1), await front.get_one(Order, 2)
    await front.expire_all()
    order.status = "paid"
    await front.delete(gone)
    await front.commit()
    row: dict[str, object] = {"status": "new", "quantity": 1, "note": "n", "memo": "m"}
    assert [(told(event)["before"], told(event)["after"]) for event in events] == [
        ({"id": 1, **row}, {"id": 1, **row, "status": "paid"}),
        ({"id": 2, **row}, None),
    ]


@scenario(Base.metadata)
async def test_before_of_a_row_that_was_changed_and_deleted(front: FrontEnd) -> None:
    """N1, E1: ``before`` is the row as the transaction found it, also of one that it has updated before the DELETE."""
    order = Order(id=1, status="new", memo="m")
    await front.add(order)
    await front.commit()
    events = collecting(Order)
    order.status = "paid"
    await front.flush()
    await front.delete(order)
    await front.commit()
    before = {"id": 1, "status": "new", "quantity": 1, "note": None, "memo": "m"}
    assert [told(event)["before"] for event in events] == [before]


@scenario(Base.metadata, databases=LOCAL)
async def test_an_event_is_immutable(front: FrontEnd) -> None:
    """N1: no field, no mapping in it and no change in that can be set; the same for what reads it later."""
    events = collecting(Order)
    order = Order(id=1, status="new")
    await front.add(order)
    await front.commit()
    order.status = "paid"
    await front.commit()
    event: Any = events[1]
    for name in ("model", "identity", "type", "changes", "before", "after", "transaction_id", "position", "new_name"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(event, name, None)
    for mapping in (event.changes, event.before, event.after, event.changes["status"]):
        with pytest.raises(TypeError):
            mapping["status"] = "other"
        with pytest.raises((TypeError, AttributeError)):
            mapping.clear()
    before = told(event)
    order.status = "later"
    await front.commit()
    assert told(event) == before


@scenario(Base.metadata, databases=LOCAL)
async def test_each_keyword_alone_and_both_together(front: FrontEnd) -> None:
    """N1: filled in by name, in any order, for functions, async functions, partials and objects."""
    heard: dict[str, tuple[object, ...]] = {}

    class Callback:
        async def __call__(
            self, order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object, event: Event
        ) -> None:
            heard["object"] = (session is front.session, event.identity)

    def only_session(order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object) -> None:
        heard["session"] = (session is front.session,)

    async def only_event(order: Order, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        heard["event"] = (event.identity,)

    def optional(
        order: Order,
        event_type: ModelEvent,
        changes: Changes | None,
        *,
        event: Event | None = None,
        session: object = None,
    ) -> None:
        heard["optional"] = (session is front.session, event and event.identity)

    def partial(
        order: Order, event_type: ModelEvent, changes: Changes | None, *, greeting: str, session: object
    ) -> None:
        heard["partial"] = (greeting, session is front.session)

    class Handler:
        def method(self, order: Order, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
            heard["method"] = (event.identity,)

    register: Any = listens_for(Order)
    handler = Handler()
    for callback in (Callback(), only_session, only_event, optional, handler.method):
        register(callback)
    register(functools.partial(partial, greeting="hello"))
    await front.add(Order(id=1, status="new"))
    await front.commit()
    assert heard == {
        "object": (True, (1,)),
        "session": (True,),
        "event": ((1,),),
        "optional": (True, (1,)),
        "partial": ("hello", True),
        "method": ((1,),),
    }


@scenario(Base.metadata, databases=LOCAL)
async def test_keywords_that_a_partial_has_bound(front: FrontEnd) -> None:
    """N1: what it binds, in whichever layer, stays as it is; only what is still open is filled in."""
    heard: list[tuple[object, object]] = []

    def callback(
        order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object, event: object
    ) -> None:
        heard.append((session, event))

    def positional(order: Order, event_type: ModelEvent, changes: Changes | None, session: object) -> None:
        heard.append((session, None))

    register: Any = listens_for(Order)
    register(functools.partial(callback, session="http", event="mine"))
    register(functools.partial(functools.partial(callback, session="inner"), event="outer"))
    register(functools.partial(positional, session="http"))
    register(functools.partial(callback, event="mine"))
    await front.add(Order(id=1, status="new"))
    await front.commit()
    assert heard == [("http", "mine"), ("inner", "outer"), ("http", None), (front.session, "mine")]


@scenario(Base.metadata)
async def test_the_session_is_the_one_that_committed(front: FrontEnd) -> None:
    """N1: of the caller's kind; with two sessions each callback gets its own, also from inside ``run_sync``."""
    sessions: list[object] = []

    @listens_for(Order)
    def keep(order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object) -> None:
        sessions.append(session)

    @listens_for(Order)
    async def keep_too(order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object) -> None:
        sessions.append(session)

    other = front.new_session()
    await front.add(Order(id=1, status="new"))
    await front.commit()
    await other.add(Order(id=2, status="new"))
    await other.run_sync(Session.commit)
    async with other.begin():
        await other.add(Order(id=3, status="new"))
    expected = [front.session] * 2 + [other.session] * 4
    assert [one is another for one, another in zip(sessions, expected, strict=True)] == [True] * 6


class OwnAsyncSession(EventSession):
    """A user's own session class."""


class OwnSyncSession(SyncEventSession):
    """A user's own session class."""


@scenario(Base.metadata, databases=LOCAL)
async def test_sessions_of_a_subclass(front: FrontEnd) -> None:
    """N1: a user's own subclass arrives as such."""
    sessions: list[object] = []

    @listens_for(Order)
    def keep(order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object) -> None:
        sessions.append(session)

    own = front.new_session(class_=OwnAsyncSession if front.is_async else OwnSyncSession)
    await own.add(Order(id=1, status="new"))
    await own.commit()
    assert (len(sessions), sessions[0] is own.session) == (1, True)


@scenario(Base.metadata, databases=LOCAL, front_ends=["sync"])
async def test_the_session_of_a_scoped_session(front: FrontEnd) -> None:
    """N1, T1: the session itself, as ``scoped_session()`` gives it."""
    sessions: list[object] = []

    @listens_for(Order)
    def keep(order: Order, event_type: ModelEvent, changes: Changes | None, *, session: object) -> None:
        sessions.append(session)

    scoped = scoped_session(front.factory())
    scoped.add(Order(id=1, status="new"))
    scoped.commit()
    assert [session is scoped() for session in sessions] == [True]
    scoped.remove()


@scenario(Base.metadata, databases=LOCAL)
async def test_what_can_be_done_with_an_event(front: FrontEnd) -> None:
    """N1: its values can be sent elsewhere: the mappings turn into dicts that pickle."""
    events = collecting(Order)
    await front.add(Order(id=1, status="new"))
    await front.commit()
    after = dict(cast("Mapping[str, object]", events[0].after))
    assert pickle.loads(pickle.dumps(after)) == after  # noqa: S301 - its own


@scenario(Base.metadata, databases=LOCAL)
async def test_an_event_can_be_pickled_and_copied(front: FrontEnd) -> None:
    """N1: of each kind, whole; what comes out is as immutable, and shares no mapping with it."""
    events = collecting(Order)
    order = Order(id=1, status="new")
    await front.add(order)
    await front.commit()
    order.status = "paid"
    await front.commit()
    await front.delete(order)
    await front.commit()
    for made_again in (pickle.loads(pickle.dumps(events)), copy.deepcopy(events), [*map(copy.copy, events)]):  # noqa: S301 - its own
        assert made_again == events
        event: Any = made_again[1]
        for mapping in (event.changes, event.before, event.after, event.changes["status"]):
            with pytest.raises(TypeError):
                mapping["status"] = "other"
    assert copy.deepcopy(events)[1].after is not events[1].after


def test_a_copied_event_has_copies_of_its_values() -> None:
    """N1, E5: deeply where ``deepcopy`` is asked, and a value that is a mapping stays what it was."""
    event = Event(
        model=Order,
        identity=(1,),
        type=ModelEvent.CREATE,
        changes=None,
        before=None,
        after={"status": {"nested": ["list"]}},
        transaction_id=UUID(int=1),
        position=0,
    )
    copied = copy.deepcopy(event)
    assert copied == event
    assert type(cast("Any", copied.after)["status"]) is dict
    cast("Any", copied.after)["status"]["nested"].append("more")
    assert told(event)["after"] == {"status": {"nested": ["list"]}}


class Photo:
    """A value that counts its copies."""

    copies = 0

    def __deepcopy__(self, _memo: object) -> Photo:
        type(self).copies += 1
        return self

    def __getstate__(self) -> object:
        return {}


class PhotoBase(DeclarativeBase):
    type_annotation_map = {Photo: PickleType}  # noqa: RUF012 - declared as SQLAlchemy's own documentation does


class Portrait(PhotoBase):
    __tablename__ = "portraits"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    photo: Mapped[Photo]


@scenario(PhotoBase.metadata, databases=LOCAL)
async def test_a_value_that_has_not_changed_is_copied_once(front: FrontEnd) -> None:
    """E5, N1: ``before`` and ``after`` of one event show the same copy."""
    portrait = Portrait(id=1, name="a", photo=Photo())
    await front.add(portrait)
    await front.commit()
    await front.refresh(portrait)
    events = collecting(Portrait)
    portrait.name = "b"
    await front.flush()
    before = Photo.copies
    await front.commit()
    assert Photo.copies - before == 1
    event = events[0]
    assert event.before == {"id": 1, "name": "a", "photo": portrait.photo}
    assert event.after == {"id": 1, "name": "b", "photo": portrait.photo}
