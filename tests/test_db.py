"""``create_db_context`` and ``get_transaction`` on both front-ends, and what all of ``fastapi_toolsets.db`` refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, cast

import anyio
import pytest
from sqlalchemy import ForeignKey, create_engine, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from fastapi_toolsets.db import (
    create_db_context,
    create_db_dependency,
    get_transaction,
)
from fastapi_toolsets.errors import SessionClassError
from fastapi_toolsets.models import EventSession, SyncEventSession

from .databases import TYPES, Database
from .front_ends import EventRecorder, FrontEnd, SessionAdapter, entered, scenario


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))


ORDERS = select(Order.id, Order.status).order_by(Order.id)


AnyContext = AbstractAsyncContextManager[Any] | AbstractContextManager[Any]


def context_of(factory: object) -> Callable[[], AbstractAsyncContextManager[Any]]:
    """Call ``create_db_context`` where no type checker can know which kind of factory it gets."""
    open_context = cast("Callable[[object], Callable[[], AnyContext]]", create_db_context)(factory)
    return lambda: entered(open_context())


def transaction_of(session: object) -> AbstractAsyncContextManager[Any]:
    """Call ``get_transaction`` where no type checker can know which kind of session it gets."""
    return entered(cast("Callable[[object], AnyContext]", get_transaction)(session))


class OutOfPaperError(Exception):
    """What a block raises when the test wants it to fail."""


@scenario(Base.metadata)
async def test_context_commits_at_the_end_of_its_block(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1: leaving the block is a commit like any other."""
    recorder.listen(Order)
    db_context = context_of(front.factory())
    async with db_context() as session:
        session.add(Order(id=1, status="new"))
        assert recorder.events == []
    assert recorder.events == [("create", "Order", 1, None)]
    assert await front.committed_rows(ORDERS) == [(1, "new")]
    assert not session.in_transaction()


@scenario(Base.metadata)
async def test_context_rolls_back_when_its_block_raises(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2: nothing is delivered from the block that raised, and the next one starts clean."""
    recorder.listen(Order)
    db_context = context_of(front.factory())
    opened: list[SessionAdapter] = []

    async def fail() -> None:
        async with db_context() as session:
            opened.append(SessionAdapter(session))
            await opened[0].add(Order(id=1, status="new"))
            await opened[0].flush()
            raise OutOfPaperError

    with pytest.raises(OutOfPaperError):
        await fail()
    assert not opened[0].in_transaction()
    async with db_context() as session:
        session.add(Order(id=2, status="new"))
    assert recorder.events == [("create", "Order", 2, None)]
    assert await front.committed_rows(ORDERS) == [(2, "new")]


@scenario(Base.metadata)
async def test_block_may_commit_and_roll_back_by_itself(front: FrontEnd, recorder: EventRecorder) -> None:
    recorder.listen(Order)
    async with context_of(front.factory())() as opened:
        session = SessionAdapter(opened)
        await session.add(Order(id=1, status="new"))
        await session.commit()
        await session.add(Order(id=2, status="new"))
        await session.rollback()
        await session.add(Order(id=3, status="new"))
    assert recorder.events == [("create", "Order", 1, None), ("create", "Order", 3, None)]
    assert await front.committed_rows(ORDERS) == [(1, "new"), (3, "new")]


@scenario(Base.metadata)
async def test_commit_that_fails_at_the_end_of_the_block_raises(front: FrontEnd, recorder: EventRecorder) -> None:
    recorder.listen(Line)
    with pytest.raises(IntegrityError):
        async with context_of(front.factory())() as session:
            session.add(Line(id=1, order_id=404))
    assert recorder.events == []
    assert await front.committed_rows(select(Line.id)) == []


@scenario(Base.metadata)
async def test_block_that_does_nothing_sends_nothing(front: FrontEnd) -> None:
    with front.statements(boundaries=True) as sent:
        async with context_of(front.factory(autobegin=False))():
            pass
        async with context_of(front.factory())():
            pass
    assert sent == []


@scenario(Base.metadata)
async def test_each_call_opens_a_session_of_its_own(front: FrontEnd) -> None:
    db_context = context_of(front.factory())
    async with db_context() as one, db_context() as other:
        assert one is not other


@pytest.mark.anyio
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_cancelled_block_is_rolled_back(database: Database) -> None:
    engine = database.create_async_engine()
    rolled_back: list[object] = []
    event.listen(engine.sync_engine, "rollback", rolled_back.append)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        with anyio.CancelScope() as scope:
            async with create_db_context(async_sessionmaker(engine, class_=EventSession))() as session:
                session.add(Order(id=1, status="new"))
                await session.flush()
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert len(rolled_back) == 1
        async with engine.connect() as connection:
            assert list(await connection.scalars(select(Order.id))) == []
    finally:
        await engine.dispose()


@scenario(Base.metadata)
async def test_outermost_transaction_commits(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: the savepoint's part is delivered with the rest, after the outer commit."""
    recorder.listen(Order)
    async with transaction_of(front.session) as given:
        assert given is front.session
        await front.add(Order(id=1, status="new"))
        async with transaction_of(front.session):
            await front.add(Order(id=2, status="new"))
        assert recorder.events == []
    assert not front.in_transaction()
    assert recorder.events == [("create", "Order", 1, None), ("create", "Order", 2, None)]
    assert await front.committed_rows(ORDERS) == [(1, "new"), (2, "new")]


@scenario(Base.metadata)
async def test_inner_transaction_is_rolled_back_alone(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: a rollback drops exactly the savepoint's own part."""
    recorder.listen(Order)

    async def fail() -> None:
        async with transaction_of(front.session):
            await front.add(Order(id=2, status="new"))
            raise OutOfPaperError

    async with transaction_of(front.session):
        await front.add(Order(id=1, status="new"))
        with pytest.raises(OutOfPaperError):
            await fail()
    assert recorder.events == [("create", "Order", 1, None)]
    assert await front.committed_rows(ORDERS) == [(1, "new")]


@scenario(Base.metadata)
async def test_outermost_transaction_that_raises_rolls_everything_back(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """T2: also what an inner savepoint had released."""
    recorder.listen(Order)

    async def fail() -> None:
        async with transaction_of(front.session):
            async with transaction_of(front.session):
                await front.add(Order(id=1, status="new"))
            raise OutOfPaperError

    with pytest.raises(OutOfPaperError):
        await fail()
    await front.commit()
    assert recorder.events == []
    assert await front.committed_rows(ORDERS) == []


@scenario(Base.metadata)
async def test_transaction_begun_by_a_read_stays_the_callers_to_commit(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    recorder.listen(Order)
    assert await front.get(Order, 1) is None
    async with transaction_of(front.session):
        await front.add(Order(id=1, status="new"))
    assert recorder.events == []
    await front.commit()
    assert recorder.events == [("create", "Order", 1, None)]


@scenario(Base.metadata)
async def test_scoped_session_is_a_session(front: FrontEnd, recorder: EventRecorder) -> None:
    recorder.listen(Order)
    scoped: Any = (
        async_scoped_session(front.factory(), lambda: "everybody")
        if front.is_async
        else scoped_session(front.factory())
    )
    async with transaction_of(scoped) as given:
        assert given is scoped
        scoped.add(Order(id=1, status="new"))
        async with transaction_of(scoped):
            scoped.add(Order(id=2, status="new"))
    assert recorder.events == [("create", "Order", 1, None), ("create", "Order", 2, None)]
    await front.adapt(scoped.registry()).close()


@scenario(Base.metadata)
async def test_plain_sessions_are_served_too(front: FrontEnd) -> None:
    plain = front.plain_session()
    plain_class: type[object] = AsyncSession if front.is_async else Session
    async with transaction_of(plain.session):
        await plain.add(Order(id=1, status="new"))
    async with context_of(front.factory(class_=plain_class))() as session:
        session.add(Order(id=2, status="new"))
    assert await front.committed_rows(ORDERS) == [(1, "new"), (2, "new")]


ASYNC_ENGINE = create_async_engine("sqlite+aiosqlite://")
SYNC_ENGINE = create_engine("sqlite://")
SyncFactoryOfAsync: Any = sessionmaker
AsyncFactoryOfSync: Any = async_sessionmaker


@pytest.mark.parametrize("function", [create_db_dependency, create_db_context])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ASYNC_ENGINE,
            "was given an object of type AsyncEngine, which is no session factory: give it an async_sessionm",
        ),
        (EventSession, "was given the class EventSession, which is no session factory"),
        (None, "was given an object of type NoneType, which is no session factory"),
        (lambda: None, "was given an object of type function, which is no session factory"),
        (scoped_session(sessionmaker()), "was given an object of type scoped_session, which is no session factory"),
        (
            SyncFactoryOfAsync(class_=EventSession),
            "was given a sessionmaker whose session class EventSession is async: give the factory class_=Sy",
        ),
        (
            AsyncFactoryOfSync(class_=SyncEventSession),
            "was given an async_sessionmaker whose session class SyncEventSession is sync: give the factory clas",
        ),
        (
            SyncFactoryOfAsync(ASYNC_ENGINE),
            "bound to an object of type AsyncEngine, which is async: bind it to an engine",
        ),
        (
            AsyncFactoryOfSync(SYNC_ENGINE),
            "bound to an object of type Engine, which is sync: bind it to an engine made",
        ),
    ],
)
def test_wrong_factory_is_refused_at_once(function: Callable[[Any], object], given: object, message: str) -> None:
    with pytest.raises(SessionClassError, match=message) as caught:
        function(given)
    assert str(caught.value).startswith(f"{function.__name__}() was given")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (sessionmaker(), "an object of type sessionmaker"),
        (EventSession, "the class EventSession"),
        (None, "an object of"),
    ],
)
def test_transaction_of_no_session_is_refused_at_once(given: object, name: str) -> None:
    with pytest.raises(SessionClassError, match=rf"get_transaction\(\) was given {name}.*: give it an EventSession"):
        transaction_of(given)


HIDING = """
import sys
for hidden in {hidden}:
    sys.modules[hidden] = None
"""
SYNC_USE = """
from sqlalchemy import create_engine, text
from sqlalchemy.orm import sessionmaker
from fastapi_toolsets.db import MissingExtraError, create_db_context, create_db_dependency, get_transaction
from fastapi_toolsets.errors import SessionClassError
from fastapi_toolsets.models import SyncEventSession
SessionLocal = sessionmaker(create_engine("sqlite://"), class_=SyncEventSession)
with create_db_context(SessionLocal)() as session, get_transaction(session):
    print(session.scalar(text("SELECT 'works'")))
"""


def run_program(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def test_works_without_fastapi_and_says_what_the_dependency_needs() -> None:
    program = (
        HIDING.format(hidden=["fastapi"])
        + SYNC_USE
        + "try:\n    create_db_dependency(SessionLocal)\nexcept MissingExtraError as error:\n    print(error)\n"
    )
    assert run_program(program) == (
        "works\ncreate_db_dependency() needs FastAPI, which is not installed: run `pip install "
        "'fastapi-toolsets[fastapi]'`, or use create_db_context() outside of an application\n"
    )


def test_fastapi_that_is_too_old_is_named() -> None:
    """Before 0.121 its Depends() knew no scope."""
    program = (
        "import sys, types\n"
        "sys.modules['fastapi'] = types.SimpleNamespace(Depends=lambda dependency: dependency)\n"
        + SYNC_USE
        + "try:\n    create_db_dependency(SessionLocal)\nexcept MissingExtraError as error:\n    print(error)\n"
    )
    assert run_program(program) == (
        "works\ncreate_db_dependency() needs FastAPI 0.121 or later, and the one installed is older: run "
        "`pip install 'fastapi-toolsets[fastapi]'`\n"
    )


def test_sync_form_works_without_greenlet() -> None:
    """N8: also where it has to tell that what it was given is neither kind."""
    program = (
        HIDING.format(hidden=["greenlet"])
        + SYNC_USE
        + "for refuse in (create_db_context, get_transaction):\n"
        + "    try:\n        refuse(None)\n    except SessionClassError as error:\n        print(str(error)[:36])\n"
    )
    assert run_program(program) == (
        "works\ncreate_db_context() was given an obj\nget_transaction() was given an objec\n"
    )


def test_importing_imports_neither_fastapi_nor_asyncio_support() -> None:
    program = "import sys, fastapi_toolsets.db; print(sorted({'fastapi', 'sqlalchemy.ext.asyncio'} & set(sys.modules)))"
    assert run_program(program) == "[]\n"
