"""A real HTTP server for the length of a block."""

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

import uvicorn
from fastapi import FastAPI


@contextmanager
def serve(app: FastAPI) -> Generator[str]:
    """Serve an application on a free port of 127.0.0.1, in a thread of its own with its own event loop.

    Yields:
        The address to send requests to. It can be used at once: the port already listens, and requests wait for the
        application to start.

    Raises:
        OSError: No port can be opened.
    """
    # asyncio turns Nagle's algorithm off only where it sees the protocol named; with it a response takes 40 ms longer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on"))

        def run() -> None:
            try:
                # Where the application fails to start, uvicorn logs why and exits.
                with suppress(SystemExit):
                    server.run(sockets=[listener])
            finally:  # so that no request waits for an application that did not start
                listener.close()

        host, port = listener.getsockname()
        # A daemon, so that a user who interrupts even the waiting below gets out.
        thread = threading.Thread(target=run, name="demo-server", daemon=True)
        try:
            thread.start()
            yield f"http://{host}:{port}"
        finally:
            server.should_exit = True
            if thread.is_alive():
                thread.join()
