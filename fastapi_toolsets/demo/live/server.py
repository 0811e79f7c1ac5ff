"""``--serve``: the page behind a server of its own, until it is interrupted."""

import asyncio
import signal
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

import uvicorn
from fastapi import FastAPI
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from fastapi_toolsets.db import enable_sqlite_savepoints

from .app import create_live_app, publishing
from .feed import EventFeed


def serve_page(host: str, port: int, database: str | None) -> int:
    """Serve the page until the process is interrupted or told to end.

    Args:
        host: The address to listen at.
        port: The port to listen on; 0 takes a free one.
        database: The URL of the orders' database, with an async driver; ``None`` uses a SQLite file that is removed
            at the end.

    Returns:
        The exit code: 0 once it was interrupted, 1 where the server could not start, 2 where the database's URL cannot
        be used.
    """
    signal.signal(signal.SIGTERM, _exit)
    with TemporaryDirectory(prefix="fastapi-toolsets-demo-") as folder:
        try:
            engine = _engine(database, Path(folder, "orders.sqlite"))
            _try_out(engine)
        except (ArgumentError, InvalidRequestError, NoSuchModuleError, ModuleNotFoundError) as error:
            return _refuse(
                2,
                "The database's URL cannot be used",
                error,
                "Give one with an async driver: sqlite+aiosqlite:///a.sqlite",
            )
        except (SQLAlchemyError, OSError) as error:
            return _refuse(1, "The database does not answer", error, "See that it is running and the URL is right")
        try:
            listener = _listen(host, port)
        except OSError as error:
            return _refuse(1, f"Port {port} of {host} cannot be opened", error, "Choose another with --port or --host")
        with listener:
            return _serve(engine, listener)


def _engine(database: str | None, file: Path) -> AsyncEngine:
    url = URL.create("sqlite+aiosqlite", database=str(file)) if database is None else make_url(database)
    engine = create_async_engine(url)
    enable_sqlite_savepoints(engine)
    return engine


def _try_out(engine: AsyncEngine) -> None:
    """Connect once, so that a database that is not there is found before the server starts."""
    if engine.dialect.name == "sqlite":
        # aiosqlite's thread outlives a connection that cannot be opened, and complains of the loop that is gone.
        sync_engine = create_engine(engine.url.set(drivername="sqlite+pysqlite"))
        sync_engine.connect().close()
        sync_engine.dispose()
    else:
        asyncio.run(_connect(engine))


async def _connect(engine: AsyncEngine) -> None:
    try:
        async with engine.connect():
            pass
    finally:
        await engine.dispose()  # its connections belong to this loop


def _listen(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family)


def _serve(engine: AsyncEngine, listener: socket.socket) -> int:
    feed = EventFeed()
    server = LiveServer(create_live_app(engine, feed), feed)
    host, port = listener.getsockname()[:2]
    sys.stdout.write(
        f"The order desk is open at http://{f'[{host}]' if ':' in host else host}:{port}/ (Ctrl+C closes it)\n"
    )
    sys.stdout.flush()
    try:
        with publishing(feed):
            server.run(sockets=[listener])
    except KeyboardInterrupt:
        sys.stdout.write("\nThe order desk is closed.\n")
        return 0
    return 0 if server.started else 1  # uvicorn has said why it did not start


class LiveServer(uvicorn.Server):
    """A server that ends the streams of events before it waits for open connections to end."""

    def __init__(self, app: FastAPI, feed: EventFeed) -> None:
        """Prepare to serve an application that streams a feed."""
        super().__init__(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on"))
        self._feed = feed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; see uvicorn."""
        self._feed.close()
        await super().shutdown(sockets)


def _refuse(exit_code: int, what: str, error: Exception, advice: str) -> int:
    reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    sys.stderr.write(f"{what}: {reason}. {advice}.\n")
    return exit_code


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    """End the process, temporary files removed: uvicorn stops first and then passes the signal on to this."""
    sys.exit(128 + number)
