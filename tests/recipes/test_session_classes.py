"""A session class that is not the library's gets events by deriving from an event session too."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from fastapi_toolsets.errors import PlainSessionWarning, SessionClassError
from fastapi_toolsets.models import EventSession, ModelEvent, SyncEventSession, listens_for

from ..contract.event_models import created, deleted, updated
from ..contract.transaction_models import Base, Customer, Order, ShopBase
from ..front_ends import EventRecorder, FrontEnd, scenario


class TenantSession(Session):
    """What a shop may have: a constructor that takes something first, a method, and a commit of its own."""

    def __init__(self, tenant: str, **options: Any) -> None:  # noqa: ANN401 - those of Session
        super().__init__(**options)
        self.tenant = tenant
        self.commits = 0

    def commit(self) -> None:
        self.commits += 1
        super().commit()

    def new_order(self, identity: int) -> Order:
        order = Order(id=identity, status=self.tenant)
        self.add(order)
        return order


class TenantEventSession(SyncEventSession, TenantSession):
    """Events before theirs."""


class TenantSessionWithEvents(TenantSession, SyncEventSession):
    """Events after theirs."""


class TenantAsyncSession(AsyncSession):
    """The async one: it proxies the sync one."""

    sync_session_class = TenantSession

    async def new_order(self, identity: int) -> Order:
        session = self.sync_session
        assert isinstance(session, TenantSession)
        return session.new_order(identity)


class TenantAsyncEventSession(EventSession, TenantAsyncSession):
    """Events before theirs."""


class TenantAsyncSessionWithEvents(TenantAsyncSession, EventSession):
    """Events after theirs."""


class ShopSession(TenantAsyncEventSession):
    """One more step away."""


MIXED = {
    "async": (TenantAsyncEventSession, TenantAsyncSessionWithEvents, ShopSession),
    "sync": (TenantEventSession, TenantSessionWithEvents),
}


@scenario(Base.metadata)
async def test_a_session_class_of_their_own_delivers(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1, C1: through its own methods and its own commit, whichever of the two classes comes first."""
    recorder.listen(Order, asynchronous=True)
    for class_ in MIXED[front.name]:
        session = front.new_session(class_=class_, tenant="north", cascade_limit=3)
        assert isinstance(session.sync_session, TenantSession)
        if front.is_async:
            order = await session.session.new_order(1)
        else:
            order = session.session.new_order(1)
        await session.commit()
        order.status = "south"
        await session.commit()
        await session.delete(order)
        await session.rollback()
        await session.delete(order)
        await session.commit()
        assert recorder.take() == [
            created(Order, 1),
            updated(Order, 1, status=("north", "south")),
            deleted(Order, 1),
        ]
        assert session.sync_session.commits == 3


def test_an_async_class_proxies_what_theirs_does_with_events() -> None:
    """T1: made of theirs where theirs has no events, and theirs where it has; one named in the class's body is kept."""

    class WithNothingOfItsOwn(EventSession): ...

    class WithOneOfItsOwn(EventSession, TenantAsyncSession):
        sync_session_class = TenantSessionWithEvents

    class FromOneOfItsOwn(WithOneOfItsOwn): ...

    class Proxying(AsyncSession):
        sync_session_class = TenantEventSession

    class WithOneThatHasEvents(EventSession, Proxying): ...

    assert EventSession.sync_session_class is SyncEventSession
    assert WithNothingOfItsOwn.sync_session_class is SyncEventSession
    assert WithOneOfItsOwn.sync_session_class is TenantSessionWithEvents
    assert FromOneOfItsOwn.sync_session_class is TenantSessionWithEvents
    assert WithOneThatHasEvents.sync_session_class is TenantEventSession
    assert TenantAsyncSession.sync_session_class is TenantSession
    made = TenantAsyncEventSession.sync_session_class
    assert ShopSession.sync_session_class is made
    assert (made.__name__, made.__bases__) == ("SyncEventTenantSession", (SyncEventSession, TenantSession))


def test_a_sync_class_without_events_in_the_body_is_refused() -> None:
    """T1: what a class names itself is what it gets, and the message says what to derive."""

    class Wrong(EventSession):
        sync_session_class = TenantSession

    with pytest.raises(SessionClassError) as raised:
        Wrong()
    assert str(raised.value) == (
        "Wrong was given TenantSession as sync_session_class, which delivers no events: derive it from "
        "SyncEventSession too, class Name(SyncEventSession, TenantSession)"
    )


def test_the_engine_may_be_given_by_position() -> None:
    """T1: as to a session of SQLAlchemy, and through a factory, on either side."""
    engine, async_engine = create_engine("sqlite://"), create_async_engine("sqlite+aiosqlite://")

    class Own(Session): ...

    class OwnWithEvents(SyncEventSession, Own): ...

    class OwnAsync(AsyncSession): ...

    class OwnAsyncWithEvents(EventSession, OwnAsync): ...

    assert OwnWithEvents(engine).bind is engine
    assert sessionmaker(engine, class_=OwnWithEvents)().bind is engine
    assert OwnAsyncWithEvents(async_engine).bind is async_engine
    assert async_sessionmaker(async_engine, class_=OwnAsyncWithEvents)().bind is async_engine
    engine.dispose()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_classes_made_before_and_after_the_first_listener(engine: Engine, recorder: EventRecorder) -> None:
    """T1, T8: each commit is told once, also by a class that has events from two sides; theirs alone tells nothing."""

    class Before(SyncEventSession, TenantSession): ...

    recorder.listen(Order)

    class After(SyncEventSession, TenantSession): ...

    class OtherSession(Session): ...

    class OtherEventSession(SyncEventSession, OtherSession): ...

    class FromTwoSides(Before, OtherEventSession): ...

    classes: tuple[type[TenantSession], ...] = (Before, After, FromTwoSides)
    for identity, class_ in enumerate(classes, start=1):
        with class_(tenant="north", bind=engine) as session:
            session.new_order(identity)
            session.commit()
        assert recorder.take() == [created(Order, identity)]
    with TenantSession("north", bind=engine) as plain:
        plain.new_order(4)
        with pytest.warns(PlainSessionWarning):
            plain.commit()
    assert recorder.take() == []


HERE = __name__
DERIVE = "give its factory a class that derives from both,"
WHAT_TO_USE_INSTEAD: dict[str, list[tuple[type[Any], str]]] = {
    "async": [
        (AsyncSession, "AsyncSession, make its factory with async_sessionmaker(..., class_=EventSession)"),
        (
            TenantAsyncSession,
            f"{HERE}.TenantAsyncSession, {DERIVE} class Name(EventSession, TenantAsyncSession)",
        ),
    ],
    "sync": [
        (Session, "Session, make its factory with sessionmaker(..., class_=SyncEventSession)"),
        (
            TenantSession,
            f"{HERE}.TenantSession, {DERIVE} class Name(SyncEventSession, TenantSession)",
        ),
    ],
}


@scenario(Base.metadata, databases=("sqlite",))
async def test_a_session_without_events_says_what_to_use_instead(front: FrontEnd) -> None:
    """T8: the class of its own kind, for SQLAlchemy's own sessions and for others."""
    for class_, expected in WHAT_TO_USE_INSTEAD[front.name]:

        def listener(order: Order, event_type: ModelEvent, changes: object) -> None: ...

        listens_for(Order)(listener)  # a new one for each class: the same would not be worth a second warning
        session = front.new_session(class_=class_, **({"tenant": "north"} if "Tenant" in class_.__name__ else {}))
        with warnings.catch_warnings(record=True, action="always") as caught:
            await session.add(Order(id=1))
            await session.flush()
        name, instead = expected.split(", ", 1)
        assert [str(warning.message) for warning in caught] == [
            f"Order has listeners, but was flushed by a session of class {name}, which calls none of them: {instead}"
        ]
        await session.rollback()


class RoutingSession(Session):
    """Chooses a database by model, as Flask-SQLAlchemy's binds and read replicas do."""

    engines: dict[type[object], Engine | AsyncEngine]

    def get_bind(self, mapper: Any = None, **arguments: Any) -> Any:  # noqa: ANN401 - Session's own annotations
        if mapper is None:
            return super().get_bind(mapper, **arguments)
        base = Base if issubclass(mapper.class_, Base) else ShopBase
        return getattr(self.engines[base], "sync_engine", self.engines[base])


class RoutingEventSession(SyncEventSession, RoutingSession): ...


class RoutingAsyncSession(AsyncSession):
    sync_session_class = RoutingSession


class RoutingAsyncEventSession(EventSession, RoutingAsyncSession): ...


@scenario(Base.metadata)
async def test_a_session_that_chooses_databases_by_itself(
    front: FrontEnd, recorder: EventRecorder, tmp_path: Path
) -> None:
    """T1, E3: what it reads for callbacks, it reads where the row is."""
    second = create_engine(f"sqlite:///{tmp_path / 'shop.sqlite'}")
    ShopBase.metadata.create_all(second)
    driver = "sqlite+aiosqlite" if front.is_async else "sqlite"
    url = f"{driver}:///{tmp_path / 'shop.sqlite'}"
    routed: Any = create_async_engine(url) if front.is_async else create_engine(url)
    RoutingSession.engines = {Base: front.engine, ShopBase: routed}
    try:
        session = front.new_session(
            bind=None, class_=RoutingAsyncEventSession if front.is_async else RoutingEventSession, expire_on_commit=True
        )
        recorder.listen(Base)
        recorder.listen(ShopBase)
        order, customer = Order(id=1), Customer(id=7, name="Ada")
        await session.add_all([order, customer])
        await session.commit()
        order.status, customer.name = "paid", "Bea"  # both expired: their old values have to be read
        await session.commit()
        assert sorted(recorder.take()) == [
            created(Customer, 7),
            created(Order, 1),
            updated(Customer, 7, name=("Ada", "Bea")),
            updated(Order, 1, status=("new", "paid")),
        ]
    finally:
        await front.close_all()
        disposed = routed.dispose()
        if disposed is not None:
            await disposed
        second.dispose()


def test_listeners_on_their_class_still_hear(engine: Engine) -> None:
    """T7: SQLAlchemy's own events of the class that was mixed in."""
    heard: list[type[object]] = []

    def hear(session: Session) -> None:
        heard.append(type(session))

    event.listen(TenantSession, "after_commit", hear)
    try:
        for class_ in (TenantSession, TenantEventSession):
            with class_(tenant="north", bind=engine) as session:
                session.new_order(len(heard))
                session.commit()
    finally:
        event.remove(TenantSession, "after_commit", hear)
    assert heard == [TenantSession, TenantEventSession]
