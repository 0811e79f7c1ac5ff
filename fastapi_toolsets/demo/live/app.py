"""The order desk with its page, and the stream of server-sent events that the page follows."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, FastAPI, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from fastapi_toolsets.models import Changes, EventSession, ModelEvent, listener_scope, listens_for

from ..app import OrderOut, create_app
from ..models import Order
from ..orders import read_orders
from .feed import EventFeed, FieldValues, OrderEvent, Reason, TooOldError

RETRY = 1000
"""Milliseconds that a browser waits before it connects again."""

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Table(BaseModel):
    """All orders, for a browser that cannot go on from where it was."""

    reason: Reason
    orders: list[OrderOut]


@contextmanager
def publishing(feed: EventFeed) -> Generator[None]:
    """Have the events of orders published for the length of a block; nobody else's callbacks are called in it."""
    with listener_scope(inherit=False):

        @listens_for(Order)
        async def publish(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
            values = {field: FieldValues.model_validate(change) for field, change in (changes or {}).items()}
            feed.publish(OrderEvent(type=event_type, order=OrderOut.model_validate(order), changes=values))

        yield


def create_live_app(engine: AsyncEngine, feed: EventFeed) -> FastAPI:
    """Build the application: the demo's own with a page and a stream of events beside it.

    Args:
        engine: Where the orders are kept. Where there are none, those of the demo's file are imported at the start.
        feed: What the stream reads. Who fills it is the caller's to say, by :func:`publishing`.

    Returns:
        The application, for one worker process.
    """
    session_factory = async_sessionmaker(engine, expire_on_commit=False, class_=EventSession)

    @asynccontextmanager
    async def import_first_orders(_app: FastAPI) -> AsyncGenerator[None]:
        async with session_factory.begin() as session:
            if await session.scalar(select(Order).limit(1)) is None:
                records = {record.number: record for record in read_orders()}
                session.add_all(
                    Order(number=record.number, customer=record.customer, item=record.item, quantity=record.quantity)
                    for record in records.values()
                )
        yield

    router = APIRouter(lifespan=import_first_orders)

    @router.get("/events", response_class=EventSourceResponse)
    async def follow_events(
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> AsyncIterator[ServerSentEvent]:
        async for message in _messages(feed, session_factory, last_event_id):
            yield message

    @router.post("/connections/drop", status_code=204)
    async def drop_connections() -> None:
        feed.disconnect()

    for path, (name, media_type) in _FILES.items():
        router.add_route(path, _file(name, media_type), include_in_schema=False)

    app = create_app(engine)
    app.include_router(router)
    return app


async def _messages(
    feed: EventFeed, session_factory: async_sessionmaker[EventSession], last_event_id: str | None
) -> AsyncIterator[ServerSentEvent]:
    """Tell what a browser has missed since the message it has seen last, and then what comes, until told to end."""
    connection = feed.connection()
    position = None if last_event_id is None else feed.position_of(last_event_id)
    reason: Reason = "opened" if last_event_id is None else "restarted"
    yield ServerSentEvent(retry=RETRY)
    while feed.is_open(connection):
        if position is None:
            # Taken before the table is read: an event in between is told again, which is no harm; none is lost.
            position = feed.position
            async with session_factory() as session:
                orders = await session.scalars(select(Order).order_by(Order.number))
                table = Table(reason=reason, orders=[OrderOut.model_validate(order) for order in orders])
            yield ServerSentEvent(event="table", id=feed.identifier(position), data=table)
        await feed.beyond(position)
        try:
            missed = feed.after(position)
        except TooOldError:
            position, reason = None, "gap"
            continue
        for position, event in missed:
            yield ServerSentEvent(event="order", id=feed.identifier(position), data=event)


def _file(name: str, media_type: str) -> Callable[[Request], Response]:
    """Return what answers with one of the page's files."""
    content = files("fastapi_toolsets.demo.live").joinpath(name).read_bytes()

    def answer(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return answer
