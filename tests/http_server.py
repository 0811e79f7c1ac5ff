"""A real HTTP server for the length of a block, on a port and an event loop of its own."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""What to ``verify`` with: else a client of httpx reads every certificate of the system, and nothing here has TLS."""


class _Server(uvicorn.Server):
    """Ends as soon as it is told; uvicorn's own looks ten times a second whether it was."""

    _loop: asyncio.AbstractEventLoop | None = None

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        if not await self.on_tick(0):
            await self._told.wait()

    def end(self) -> None:
        """End, from another thread, also before it has started."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._told.set)


@contextmanager
def serving(app: ASGIApp) -> Generator[str]:
    """Serve an application; when the block ends, background tasks that were begun have run.

    The address can be used at once: the port listens already, and a request waits until the application has started.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = _Server(uvicorn.Config(app, log_level="critical", lifespan="on"))

        def run() -> None:
            try:
                server.run(sockets=[listener])
            finally:  # also where the application fails to start, so that no request waits for ever
                listener.close()

        host, port = listener.getsockname()
        thread = threading.Thread(target=run, name="http-server")
        thread.start()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.end()
            thread.join()
