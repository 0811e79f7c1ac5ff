"""Every driver of a server, each of which hears of a lost connection in its own way."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from ..front_ends import FrontEnd, resolve

_DRIVERS = {
    ("postgresql", "async"): ("postgresql+asyncpg", "postgresql+psycopg"),
    ("postgresql", "sync"): ("postgresql+psycopg",),
    ("mariadb", "async"): ("mysql+asyncmy", "mysql+aiomysql"),
    ("mariadb", "sync"): ("mysql+pymysql",),
}


def drivers_of(front: FrontEnd) -> tuple[str, ...]:
    """Name the drivers that a front-end may use to reach its database."""
    return _DRIVERS[front.database.name, front.name]


@asynccontextmanager
async def front_on(front: FrontEnd, url: URL, **options: object) -> AsyncGenerator[FrontEnd]:
    """Give a front-end of the same kind on an engine of its own; options go to the session factory."""
    engine: Any = create_async_engine(url) if front.is_async else create_engine(url)
    other = FrontEnd(front.name, front.database, engine, **options)
    try:
        yield other
    finally:
        await other.close_all()
        await resolve(engine.dispose())
