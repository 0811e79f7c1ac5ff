"""The demo's page behind a real server, and its stream of events as a client reads it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import create_async_engine

from fastapi_toolsets.db import enable_sqlite_savepoints
from fastapi_toolsets.demo.live.app import create_live_app, publishing
from fastapi_toolsets.demo.live.feed import CAPACITY, EventFeed
from fastapi_toolsets.demo.live.server import LiveServer

from .http_server import NO_CERTIFICATES


@dataclass(frozen=True)
class Message:
    """One message of the stream."""

    event: str
    identifier: str
    data: Any

    @property
    def position(self) -> int:
        return int(self.identifier.rpartition("-")[2])


class Desk:
    """A running order desk, and somebody who uses it."""

    def __init__(self, address: str, client: httpx.Client) -> None:
        self.address = address
        self._client = client

    def change(self, number: str, **values: object) -> int:
        """Change an order; return the status of the response."""
        return self._client.patch(f"/orders/{number}", json=values).status_code

    def cancel(self, number: str) -> int:
        return self._client.delete(f"/orders/{number}").status_code

    def create(self, *numbers: str, quantity: int = 1) -> list[str]:
        """Create orders in one transaction; return the numbers of those that were refused."""
        orders = [{"number": each, "customer": "Lena Ohm", "item": "lamp", "quantity": quantity} for each in numbers]
        refused: list[str] = self._client.post("/orders/import", json=orders).raise_for_status().json()["refused"]
        return refused

    def drop_connections(self) -> None:
        self._client.post("/connections/drop").raise_for_status()

    def orders(self) -> Any:  # noqa: ANN401 - JSON
        return self._client.get("/orders").raise_for_status().json()

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path)

    @contextmanager
    def stream(self, last_event_id: str | None = None) -> Generator[Iterator[Message]]:
        """Follow the events; the iterator ends where the server ends the stream."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        with self._client.stream("GET", "/events", headers=headers) as response:
            response.raise_for_status()
            assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
            yield messages(response.iter_lines())


def messages(lines: Iterator[str]) -> Iterator[Message]:
    """Read messages as https://html.spec.whatwg.org/multipage/server-sent-events.html says; others are for browsers."""
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and fields:
            if "data" in fields:
                yield Message(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}


@contextmanager
def open_desk(folder: Path, *, capacity: int = CAPACITY, port: int = 0) -> Generator[Desk]:
    """Open the order desk of a folder: one that was there before has its orders still."""
    engine = create_async_engine(URL.create("sqlite+aiosqlite", database=str(folder / "orders.sqlite")))
    enable_sqlite_savepoints(engine)
    feed = EventFeed(capacity)
    with socket.create_server(("127.0.0.1", port)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = LiveServer(create_live_app(engine, feed), feed)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="order-desk")
        with (
            publishing(feed),
            httpx.Client(base_url=address, timeout=30, trust_env=False, verify=NO_CERTIFICATES) as client,
        ):
            thread.start()
            try:
                client.get("/orders").raise_for_status()
                yield Desk(address, client)
            finally:
                server.should_exit = True
                thread.join()
