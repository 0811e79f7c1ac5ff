"""A real HTTP server for the length of a block, on a port and an event loop of its own."""

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp


@contextmanager
def serving(app: ASGIApp) -> Generator[str]:
    """Serve an application; when the block ends, background tasks that were begun have run.

    The address can be used at once: the port listens already, and a request waits until the application has started.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))

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
            server.should_exit = True
            thread.join()
