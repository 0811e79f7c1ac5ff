"""The async front-end: the orders go through the FastAPI application, over HTTP."""

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from time import perf_counter

import httpx
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import create_async_engine

from fastapi_toolsets.db import enable_sqlite_savepoints

from .app import create_app
from .callbacks import take_deliveries
from .orders import OrderRecord, Step, batches
from .run import Advance, OrderRow, Run
from .server import serve


def run_over_http(orders: Sequence[OrderRecord], steps: Sequence[Step], database: Path, advance: Advance) -> Run:
    """Import the orders and take the steps by requests to the application.

    Args:
        orders: What to import.
        steps: What to do then.
        database: Where to put the SQLite file.
        advance: Called after each request that changes something.

    Returns:
        What was delivered, what is in the table, and the time.

    Raises:
        httpx.HTTPError: The server did not answer, or not as it should.
    """
    engine = create_async_engine(URL.create("sqlite+aiosqlite", database=str(database)))
    enable_sqlite_savepoints(engine)
    began = perf_counter()
    # The environment's proxies are not asked for a server on this machine.
    with serve(create_app(engine)) as address, httpx.Client(base_url=address, timeout=30, trust_env=False) as client:
        refused_orders = sum(_import(client, batch, advance) for batch in batches(orders))
        refused_changes = sum(not _take(client, step, advance) for step in steps)
        rows = tuple(OrderRow(**row) for row in client.get("/orders").raise_for_status().json())
    seconds = perf_counter() - began
    return Run("EventSession, FastAPI over HTTP", take_deliveries(), rows, refused_orders, refused_changes, seconds)


def _import(client: httpx.Client, batch: Sequence[OrderRecord], advance: Advance) -> int:
    fields = ("number", "customer", "item", "quantity")
    orders = [{field: getattr(record, field) for field in fields} for record in batch]
    refused = client.post("/orders/import", json=orders).raise_for_status().json()["refused"]
    advance()
    return len(refused)


def _take(client: httpx.Client, step: Step, advance: Advance) -> bool:
    path = f"/orders/{step.number}"
    response = client.delete(path) if step.changes is None else client.patch(path, json=step.changes)
    advance()
    if response.status_code == HTTPStatus.CONFLICT:
        return False
    response.raise_for_status()
    return True
