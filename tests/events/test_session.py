"""What a session factory refuses: engines of the other side, options that cannot be, each with a message that helps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from fastapi_toolsets.errors import ListenerError, SessionClassError, SessionOptionError
from fastapi_toolsets.models import EventSession, SyncEventSession

from ..contract.transaction_models import Order


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


@pytest.fixture
def async_engine() -> AsyncEngine:
    return create_async_engine("sqlite+aiosqlite://")  # never connected, so there is nothing to dispose of


def message_of(error: type[Exception], session_class: Any, *arguments: object, **options: object) -> str:  # noqa: ANN401 - either session class, each with options of its own
    """What opening a session says when it is refused."""
    with pytest.raises(error) as raised:
        session_class(*arguments, **options)
    return str(raised.value)


@pytest.mark.parametrize("session_class", [EventSession, SyncEventSession])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"on_callback_error": "rase"},
            "on_callback_error was given 'rase': give it 'log', 'raise' or a function taking a CallbackFailure",
        ),
        (
            {"on_callback_error": None},
            "on_callback_error was given None: give it 'log', 'raise' or a function taking a CallbackFailure",
        ),
        ({"on_bulk_write": True}, "on_bulk_write was given True: give it 'warn', 'raise' or 'ignore'"),
        ({"callback_grace": -1}, "callback_grace was given -1: give it a number of seconds, 0 or more"),
        ({"callback_grace": "10"}, "callback_grace was given '10': give it a number of seconds, 0 or more"),
        ({"callback_grace": True}, "callback_grace was given True: give it a number of seconds, 0 or more"),
        ({"callback_grace": float("nan")}, "callback_grace was given nan: give it a number of seconds, 0 or more"),
        ({"cascade_limit": -1}, "cascade_limit was given -1: give it a number of commits, 0 or more"),
        ({"cascade_limit": 1.5}, "cascade_limit was given 1.5: give it a number of commits, 0 or more"),
        ({"cascade_limit": False}, "cascade_limit was given False: give it a number of commits, 0 or more"),
        (
            {"dispatch_on_joined_commit": "no"},
            "dispatch_on_joined_commit was given 'no': give it True or False",
        ),
        ({"dispatch_on_joined_commit": 1}, "dispatch_on_joined_commit was given 1: give it True or False"),
        ({"callback_backend": "curio"}, "the callback backend was given as 'curio': give it 'asyncio' or 'trio'"),
    ],
    ids=str,
)
def test_options_that_cannot_be(session_class: type[object], options: dict[str, object], expected: str) -> None:
    """C2, C4, C5, C6: a wrong option is refused where the session is opened, not in somebody's commit."""
    assert message_of(SessionOptionError, session_class, **options) == expected


@pytest.mark.parametrize("session_class", [EventSession, SyncEventSession])
def test_options_at_their_bounds(session_class: Any) -> None:  # noqa: ANN401 - either session class
    """C2, C4, C5, C6: the least and other kinds of numbers, every policy and every backend are taken."""
    taken: list[dict[str, object]] = [
        {"callback_grace": 0, "cascade_limit": 0, "on_callback_error": "log"},
        {"callback_grace": 0.5, "cascade_limit": 7, "on_callback_error": "raise", "on_bulk_write": "ignore"},
        {"callback_grace": 3, "on_callback_error": print, "callback_backend": "trio"},
        {"callback_backend": "asyncio"},
        {"callback_backend": None},
    ]
    assert [type(session_class(**options)) for options in taken] == [session_class] * len(taken)


def test_a_sync_session_refuses_an_async_engine(async_engine: AsyncEngine, engine: Engine) -> None:
    """N8: as ``bind`` or in ``binds``, whatever else is there; the message names what to use instead."""
    expected = (
        f"SyncEventSession is a sync session and was given the AsyncEngine {async_engine!r}: "
        "give it a sync engine, or use async_sessionmaker with class_=EventSession"
    )
    assert message_of(SessionClassError, SyncEventSession, async_engine) == expected
    assert message_of(SessionClassError, SyncEventSession, engine, binds={Order: async_engine}) == expected
    assert message_of(SessionClassError, sessionmaker(async_engine, class_=SyncEventSession)) == expected  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert SyncEventSession(engine, binds={Order: engine}).get_bind(Order) is engine
    assert SyncEventSession(engine, binds=None).get_bind(Order) is engine


def test_an_async_session_refuses_a_sync_engine(async_engine: AsyncEngine, engine: Engine) -> None:
    """T1: as ``bind`` or in ``binds``, whatever else is there; the message names what to use instead."""
    expected = (
        f"EventSession is an async session and was given the Engine {engine!r}: "
        "give it an engine of create_async_engine, or use sessionmaker with class_=SyncEventSession"
    )
    assert message_of(SessionClassError, EventSession, engine) == expected
    assert message_of(SessionClassError, EventSession, async_engine, binds={Order: engine}) == expected
    assert EventSession(async_engine, binds={Order: async_engine}).get_bind(Order) is async_engine.sync_engine
    assert EventSession(async_engine, binds=None).get_bind(Order) is async_engine.sync_engine


def test_an_async_session_over_a_plain_one_is_refused() -> None:
    """T1: a ``sync_session_class`` that would deliver nothing."""
    expected = "EventSession was given Session as sync_session_class, which delivers no events: derive it from "
    assert message_of(SessionClassError, EventSession, sync_session_class=Session) == f"{expected}SyncEventSession"


def test_what_on_commit_cannot_call() -> None:
    """C7: the message says what was given."""
    for session in (SyncEventSession(), EventSession()):
        with pytest.raises(ListenerError) as raised:
            session.on_commit("notify")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert str(raised.value) == (
            "on_commit() was given 'notify', which cannot be called: give it a function and its arguments"
        )
        assert not session.in_transaction()


def test_generator_functions_that_on_commit_would_never_run() -> None:
    """C7, C1: they are refused as ``listens_for`` refuses them, and not lost without a word."""

    def generator() -> Generator[None]:
        yield

    async def async_generator() -> AsyncGenerator[None]:
        yield

    name = f"{__name__}.test_generator_functions_that_on_commit_would_never_run.<locals>"
    expected = "is a generator function, whose body would never run: make it a plain or an async function"
    for session in (SyncEventSession(), EventSession()):
        assert message_of(ListenerError, session.on_commit, generator) == f"{name}.generator {expected}"
        assert message_of(ListenerError, session.on_commit, async_generator) == f"{name}.async_generator {expected}"
        assert not session.in_transaction()


FIRST_LISTENER = """
import sys
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from fastapi_toolsets.models import SyncEventSession, listens_for

class Base(DeclarativeBase): ...

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)

def begin_to_listen(*_):
    if not listening:
        listening.append(listens_for(Order)(lambda order, event_type, changes: told.append(order.id)))

name, session_class = sys.argv[1], {"event": SyncEventSession, "plain": Session}[sys.argv[2]]
engine, listening, told = create_engine("sqlite://"), [], []
Base.metadata.create_all(engine)
event.listen(session_class, name, begin_to_listen)
with session_class(engine) as session:
    session.add(Order(id=1))
    session.scalars(select(Order)).all()
    session.commit()
with SyncEventSession(engine) as session:
    session.add(Order(id=2))
    session.commit()
assert told[-1:] == [2], told
"""
"""Registers the first listener of the process inside one of SQLAlchemy's events."""


@pytest.mark.parametrize(
    ("name", "session_class"),
    [
        ("before_commit", "event"),
        ("after_flush", "event"),
        ("after_transaction_end", "event"),
        ("do_orm_execute", "event"),
        ("before_commit", "plain"),
    ],
)
def test_the_first_listener_is_registered_inside_an_event(name: str, session_class: str) -> None:
    """N5, T8: whichever it is, it neither disturbs the session whose event it is nor is it too late for the next."""
    command = [sys.executable, "-W", "ignore::UserWarning", "-c", FIRST_LISTENER, name, session_class]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")


FIRST_LISTENER_IN_A_FLUSH = """
from sqlalchemy import create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from fastapi_toolsets.models import SyncEventSession, listens_for

class Base(DeclarativeBase): ...

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]

def begin_to_listen(*_):
    if not listening:
        listening.append(listens_for(Order)(lambda order, event_type, changes: told.append(changes)))

engine, listening, told = create_engine("sqlite://"), [], []
Base.metadata.create_all(engine)
with SyncEventSession(engine) as session:
    order = Order(id=1, status="new")
    session.add(order)
    session.commit()
    event.listen(Order, "before_update", begin_to_listen)
    order.status = "paid"  # which commit() has expired
    session.flush()
    session.commit()
    order.status = "sent"
    session.commit()
assert told == [{"status": {"old": "paid", "new": "sent"}}], told
"""
"""Registers the first listener of the process when a flush has begun, as another thread may."""


def test_the_first_listener_is_registered_during_a_flush() -> None:
    """N5, E3: nobody has kept the old values of that flush: it is the next one that it hears of."""
    command = [sys.executable, "-c", FIRST_LISTENER_IN_A_FLUSH]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")


EARLIER_LISTENER = """
import sys
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from fastapi_toolsets.models import SyncEventSession, listens_for

class Base(DeclarativeBase): ...

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]

def assign_and_expire(session, flush_context):
    for order in session.dirty:
        order.status = "assigned"
    if session.deleted:
        session.expire_all()

told = []
engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
event.listen({"event": SyncEventSession, "plain": Session}[sys.argv[1]], "after_flush", assign_and_expire)
listens_for(Order)(lambda order, event_type, changes: told.append((event_type.value, order.status, changes)))
with SyncEventSession(engine) as session:
    order = Order(id=1, status="new")
    session.add(order)
    session.commit()
    order.status = "sent"
    session.commit()
    written = session.scalars(select(Order.status)).one()
    session.delete(session.get(Order, 1))
    session.commit()
assert written == "sent", written
assert told[1][2] == {"status": {"old": "new", "new": "sent"}}, told
assert told[2] == ("delete", "sent", None), told
"""
"""Has a listener of SQLAlchemy's that is older than the first one of the process's models."""


@pytest.mark.parametrize("session_class", ["event", "plain"])
def test_listeners_of_flushes_that_are_older(session_class: str) -> None:
    """E3, E11: what they assign, which SQLAlchemy does not write any more, and what they expire, is no part of it."""
    command = [sys.executable, "-W", "ignore", "-c", EARLIER_LISTENER, session_class]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")
