"""``create_db_dependency`` in a real application, behind a real HTTP server, asked by a real client."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import ForeignKey, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import NullPool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_toolsets.db import create_db_dependency
from fastapi_toolsets.errors import SessionClassError
from fastapi_toolsets.models import EventSession, ModelEvent, SyncEventSession, listens_for

from .databases import TYPES, Database, tables
from .front_ends import AnySession, EventRecorder
from .http_server import NO_CERTIFICATES, serving


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


REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("REQUEST", default="no request")


@dataclass(frozen=True)
class Whereabouts:
    """Where a callback ran, and whose context it saw."""

    loop: asyncio.AbstractEventLoop
    thread: int
    request: str


@dataclass
class Shop:
    """An application with one kind of session, and a log of what happened in which order."""

    database: Database
    app: FastAPI
    get_db: Any
    started_on: list[Whereabouts]
    log: list[str] = field(default_factory=list)
    called_on: list[Whereabouts] = field(default_factory=list)

    @property
    def served(self) -> ASGIApp:
        return ResponseLog(self.app, self.log)

    def rows(self) -> list[tuple[int, str]]:
        """Read the orders over a connection of the test's own."""
        engine = self.database.create_engine(poolclass=NullPool)
        try:
            with engine.connect() as connection:
                return [(row.id, row.status) for row in connection.execute(select(Order).order_by(Order.id))]
        finally:
            engine.dispose()

    async def on_order(self, order: Order, event_type: ModelEvent, changes: object) -> None:
        await asyncio.sleep(0)
        self.log.append(f"{event_type.value} {order.status}")
        self.called_on.append(here())


def here() -> Whereabouts:
    return Whereabouts(asyncio.get_running_loop(), threading.get_ident(), REQUEST.get())


class ResponseLog:
    """Writes down when the response begins, an error response included: it stands around the whole application."""

    def __init__(self, app: ASGIApp, log: list[str]) -> None:
        self.app = app
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.log.append("response")
            await send(message)

        await self.app(scope, receive, send_and_tell)


def make_shop(kind: str, database: Database) -> Shop:
    """Make an application with a session factory of a kind, ``async`` or ``sync``."""
    async_engine, engine = database.create_async_engine(), database.create_engine()
    if kind == "async":
        get_db: Any = create_db_dependency(
            async_sessionmaker(async_engine, expire_on_commit=False, class_=EventSession)
        )
    else:
        get_db = create_db_dependency(sessionmaker(engine, expire_on_commit=False, class_=SyncEventSession))
    started_on: list[Whereabouts] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        started_on.append(here())
        yield
        await async_engine.dispose()
        engine.dispose()

    shop = Shop(database, FastAPI(lifespan=lifespan), get_db, started_on)
    listens_for(Order)(shop.on_order)
    return shop


@pytest.fixture(params=["async", "sync"])
def shop(request: pytest.FixtureRequest, database: Database) -> Generator[Shop]:
    """An application with each kind of session on each database."""
    with tables(database, Base.metadata):
        yield make_shop(request.param, database)


@pytest.fixture
def sqlite_shop(request: pytest.FixtureRequest, database: Database) -> Generator[Shop]:
    """An application with the kind of session that the test names."""
    with tables(database, Base.metadata):
        yield make_shop(request.param, database)


def add_order(shop: Shop, session: AnySession, background: BackgroundTasks, status: str) -> dict[str, str]:
    """Do what the endpoints of either kind do."""
    session.add(Order(id=1, status=status))
    background.add_task(shop.log.append, "background task")
    shop.log.append("endpoint")
    if status == "refused":
        raise HTTPException(409, detail="refused")
    if status == "broken":
        raise ZeroDivisionError
    if status == "unknown to the database":
        session.add(Line(id=1, order_id=404))
    return {"status": status}


@pytest.fixture(params=["async def", "def"])
def orders(request: pytest.FixtureRequest, shop: Shop) -> Shop:
    """The application with ``POST /orders``, as a coroutine function and as a function."""
    session_of_request = Depends(shop.get_db)

    async def create_order(
        status: str, background: BackgroundTasks, session: Annotated[AnySession, session_of_request]
    ) -> dict[str, str]:
        return add_order(shop, session, background, status)

    def create_order_in_a_thread(
        status: str, background: BackgroundTasks, session: Annotated[AnySession, session_of_request]
    ) -> dict[str, str]:
        return add_order(shop, session, background, status)

    endpoint = create_order if request.param == "async def" else create_order_in_a_thread
    shop.app.add_api_route("/orders", endpoint, methods=["POST"], status_code=201)
    return shop


def test_commit_comes_before_the_response_and_before_background_tasks(orders: Shop) -> None:
    """T1: the session that the dependency commits is delivered before the client hears of it."""
    with serving(orders.served) as address:
        response = httpx.post(f"{address}/orders", params={"status": "new"}, verify=NO_CERTIFICATES)
        assert (response.status_code, response.json()) == (201, {"status": "new"})
        assert orders.rows() == [(1, "new")]
    assert orders.log == ["endpoint", "create new", "response", "background task"]


@pytest.mark.parametrize(("status", "code"), [("refused", 409), ("broken", 500)])
def test_endpoint_that_raises_is_rolled_back(orders: Shop, status: str, code: int) -> None:
    """T2: nothing is delivered from a request that failed, nor from it with the next one."""
    with serving(orders.served) as address:
        assert httpx.post(f"{address}/orders", params={"status": status}, verify=NO_CERTIFICATES).status_code == code
        assert orders.rows() == []
        assert httpx.post(f"{address}/orders", params={"status": "new"}, verify=NO_CERTIFICATES).status_code == 201
    assert orders.rows() == [(1, "new")]
    assert orders.log == ["endpoint", "response", "endpoint", "create new", "response", "background task"]


def test_commit_that_fails_is_an_error_response(orders: Shop) -> None:
    """T4: a commit that failed delivers nothing, and the client is not told otherwise."""
    with serving(orders.served) as address:
        assert (
            httpx.post(
                f"{address}/orders", params={"status": "unknown to the database"}, verify=NO_CERTIFICATES
            ).status_code
            == 500
        )
    assert orders.rows() == []
    assert orders.log == ["endpoint", "response"]


SQLITE_ASYNC = pytest.mark.parametrize(("database", "sqlite_shop"), [("sqlite", "async")], indirect=True)
SQLITE_SYNC = pytest.mark.parametrize(("database", "sqlite_shop"), [("sqlite", "sync")], indirect=True)
SQLITE_EITHER = pytest.mark.parametrize(
    ("database", "sqlite_shop"), [("sqlite", "async"), ("sqlite", "sync")], indirect=True
)


@SQLITE_ASYNC
def test_async_endpoint_may_commit_by_itself(sqlite_shop: Shop) -> None:
    """C1: async callbacks run on the application's loop, within the endpoint's ``commit()`` and the dependency's."""
    shop = sqlite_shop

    @shop.app.post("/orders")
    async def create_orders(session: Annotated[EventSession, Depends(shop.get_db)]) -> None:
        REQUEST.set("of the client")
        session.add(Order(id=1, status="first"))
        await session.commit()
        shop.log.append("committed")
        session.add(Order(id=2, status="second"))

    with serving(shop.served) as address:
        assert httpx.post(f"{address}/orders", verify=NO_CERTIFICATES).status_code == 200
    assert shop.log == ["create first", "committed", "create second", "response"]
    assert shop.rows() == [(1, "first"), (2, "second")]
    (application,) = shop.started_on
    assert [(where.loop, where.thread) for where in shop.called_on] == [(application.loop, application.thread)] * 2
    assert shop.called_on[0].request == "of the client"


@SQLITE_SYNC
def test_def_endpoint_has_its_async_callbacks_on_the_applications_loop(sqlite_shop: Shop) -> None:
    """C2: from an AnyIO worker thread async callbacks run on the application's own loop, in the committer's context."""
    shop = sqlite_shop
    endpoint_threads: list[int] = []

    @shop.app.post("/orders")
    def create_orders(session: Annotated[SyncEventSession, Depends(shop.get_db)]) -> None:
        REQUEST.set("of the client")
        endpoint_threads.append(threading.get_ident())
        session.add(Order(id=1, status="first"))
        session.commit()
        shop.log.append("committed")
        session.add(Order(id=2, status="second"))

    with serving(shop.served) as address:
        assert httpx.post(f"{address}/orders", verify=NO_CERTIFICATES).status_code == 200
    assert shop.log == ["create first", "committed", "create second", "response"]
    assert shop.rows() == [(1, "first"), (2, "second")]
    (application,) = shop.started_on
    assert application.thread not in endpoint_threads
    assert [(where.loop, where.thread) for where in shop.called_on] == [(application.loop, application.thread)] * 2
    assert shop.called_on[0].request == "of the client"


@SQLITE_SYNC
def test_async_endpoint_with_a_sync_session_has_its_async_callbacks_run(sqlite_shop: Shop) -> None:
    """C2: where a loop already runs in the thread that commits, they run on a helper thread's loop."""
    shop = sqlite_shop

    @shop.app.post("/orders")
    async def create_order(session: Annotated[SyncEventSession, Depends(shop.get_db)]) -> None:
        REQUEST.set("of the client")
        session.add(Order(id=1, status="new"))
        session.commit()
        shop.log.append("committed")

    with serving(shop.served) as address:
        assert httpx.post(f"{address}/orders", verify=NO_CERTIFICATES).status_code == 200
    assert shop.log == ["create new", "committed", "response"]
    (application,), (callback,) = shop.started_on, shop.called_on
    assert callback.loop is not application.loop
    assert callback.thread != application.thread
    assert callback.request == "of the client"


@SQLITE_EITHER
def test_all_who_depend_on_it_in_one_request_share_one_session(sqlite_shop: Shop) -> None:
    """However they spell the dependency; also a generator of the user's own, which ends after the response."""
    shop, get_db = sqlite_shop, sqlite_shop.get_db
    sessions: list[object] = []

    async def of_a_generator(session: Annotated[AnySession, Depends(get_db)]) -> AsyncGenerator[AnySession]:
        yield session

    @shop.app.post("/orders")
    async def create_order(
        plain: Annotated[AnySession, Depends(get_db)],
        in_function_scope: Annotated[AnySession, Depends(get_db, scope="function")],
        through_a_generator: Annotated[AnySession, Depends(of_a_generator)],
        as_a_default: AnySession = Depends(get_db),  # noqa: B008 - how older applications spell it
    ) -> None:
        sessions.extend([plain, in_function_scope, through_a_generator, as_a_default])
        plain.add(Order(id=1, status="new"))

    with serving(shop.served) as address:
        assert httpx.post(f"{address}/orders", verify=NO_CERTIFICATES).status_code == 200
        assert (
            httpx.post(f"{address}/orders", verify=NO_CERTIFICATES).status_code == 500
        )  # the same key again: another session
    assert shop.log == ["create new", "response", "response"]
    assert sessions == [sessions[0]] * 4 + [sessions[4]] * 4
    assert sessions[0] is not sessions[4]


@SQLITE_EITHER
def test_session_begins_nothing_more_after_the_endpoint(sqlite_shop: Shop) -> None:
    """What a streamed response or a background task wrote with it was lost without a word, and its connection kept."""
    shop = sqlite_shop

    async def write(session: AnySession, order_id: int) -> AsyncGenerator[str]:
        try:
            session.add(Order(id=order_id, status="too late"))
            if (flushed := session.flush()) is not None:
                await flushed
        except InvalidRequestError as error:
            shop.log.append(str(error).partition(";")[0])
        yield "streamed"

    async def write_in_background(session: AnySession) -> None:
        async for _ in write(session, 3):
            pass

    @shop.app.post("/orders")
    async def create_order(
        session: Annotated[AnySession, Depends(shop.get_db)], background: BackgroundTasks
    ) -> StreamingResponse:
        session.add(Order(id=1, status="new"))
        background.add_task(write_in_background, session)
        return StreamingResponse(write(session, 2), background=background)

    with serving(shop.served) as address:
        assert httpx.post(f"{address}/orders", verify=NO_CERTIFICATES).text == "streamed"
    refused = "Autobegin is disabled on this Session"
    assert shop.log == ["create new", "response", refused, refused]
    assert shop.rows() == [(1, "new")]


@SQLITE_EITHER
def test_endpoint_may_close_its_session_and_go_on(sqlite_shop: Shop) -> None:
    """As on a plain session: its connection is somebody else's while the endpoint waits for something."""
    shop = sqlite_shop

    @shop.app.post("/orders")
    async def create_orders(session: Annotated[AnySession, Depends(shop.get_db)]) -> None:
        for number in (1, 2):
            session.add(Order(id=number, status=f"number {number}"))
            for step in (session.commit, session.close):
                if (taken := step()) is not None:
                    await taken
        session.add(Order(id=3, status="number 3"))

    with serving(shop.served) as address:
        assert httpx.post(f"{address}/orders", verify=NO_CERTIFICATES).status_code == 200
    assert shop.log == [*(f"create number {number}" for number in (1, 2, 3)), "response"]
    assert shop.rows() == [(number, f"number {number}") for number in (1, 2, 3)]


@SQLITE_EITHER
def test_dependency_that_is_called_by_hand_says_who_calls_it(sqlite_shop: Shop) -> None:
    """It gave FastAPI's ``Depends`` for a session."""
    message = r"made by create_db_dependency\(\) was called by hand.*create_db_context\(\)"
    with pytest.raises(SessionClassError, match=message):
        asyncio.run(sqlite_shop.get_db())


@SQLITE_EITHER
def test_dependency_can_be_overridden(sqlite_shop: Shop) -> None:
    shop = sqlite_shop

    @shop.app.get("/session")
    async def show_session(session: Annotated[AnySession, Depends(shop.get_db)]) -> str:
        return str(session)

    shop.app.dependency_overrides[shop.get_db] = lambda: "the test's own session"
    with serving(shop.served) as address:
        assert httpx.get(f"{address}/session", verify=NO_CERTIFICATES).json() == "the test's own session"


@SQLITE_EITHER
def test_dependency_adds_nothing_to_the_schema(sqlite_shop: Shop) -> None:
    shop = sqlite_shop

    @shop.app.get("/session")
    async def show_session(session: Annotated[AnySession, Depends(shop.get_db)]) -> None: ...

    assert "parameters" not in shop.app.openapi()["paths"]["/session"]["get"]


@SQLITE_EITHER
def test_requests_at_the_same_time_have_sessions_of_their_own(sqlite_shop: Shop, recorder: EventRecorder) -> None:
    """All requests are inside their endpoint at once before the first may end; each delivers its own order."""
    shop, clients = sqlite_shop, 5
    everybody_is_here = threading.Barrier(clients)
    recorder.listen(Order)

    @shop.app.post("/orders")
    def create_order(order_id: int, session: Annotated[AnySession, Depends(shop.get_db)]) -> None:
        session.add(Order(id=order_id, status="new"))
        everybody_is_here.wait()

    async def ask_all(address: str) -> list[int]:
        async with httpx.AsyncClient(timeout=60, verify=NO_CERTIFICATES) as client:
            asked = [client.post(f"{address}/orders", params={"order_id": number}) for number in range(clients)]
            return [response.status_code for response in await asyncio.gather(*asked)]

    with serving(shop.served) as address:
        assert asyncio.run(ask_all(address)) == [200] * clients
    assert shop.rows() == [(number, "new") for number in range(clients)]
    assert sorted(recorder.events, key=str) == [("create", "Order", number, None) for number in range(clients)]
