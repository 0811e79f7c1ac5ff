"""A TCP proxy before a database server that ends the connection when COMMIT passes, at one of three moments."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum

import anyio.from_thread
from sqlalchemy.engine import URL

from ..services import url_of_default_port

# As a query of its own, the last in its message; MariaDB's drivers also say ``SET AUTOCOMMIT = 0``.
_COMMIT = re.compile(rb"[^A-Z]COMMIT;?\0?$")
_CHUNK_BYTES = 65536


class Cut(Enum):
    """When the connection ends. Only after ``ANSWERED`` does the client know what became of its COMMIT."""

    REQUEST = "before the server sees the COMMIT"
    ANSWER = "after the server committed, before the client hears of it"
    ANSWERED = "after the client heard that the server committed"


class CommitProxy:
    """Passes bytes between clients and a server until it is armed; then the next COMMIT ends its connection.

    Runs on an event loop in a thread of its own, so that clients may block theirs.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server_address = host, port
        self._armed: Cut | None = None
        self._open: dict[asyncio.Event, tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self.cuts: list[Cut] = []

    def arm(self, cut: Cut) -> None:
        """End the connection of the next COMMIT, once; any thread may call this."""
        self._armed = cut

    async def serve(self) -> tuple[asyncio.Server, int]:
        """Accept connections on a free port of this machine; return the server and the port."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        return server, port

    async def _connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(*self._server_address)
        link = _Link(self, client, to_client, server, to_server)
        ended = asyncio.Event()
        self._open[ended] = to_client, to_server
        try:
            await link.run()
        finally:
            _abort(*self._open.pop(ended))
            ended.set()

    async def end(self, server: asyncio.Server) -> None:
        """Accept no more connections, and end those that are open."""
        server.close()
        for ended, writers in list(self._open.items()):
            _abort(*writers)
            await ended.wait()

    def cut_for(self, message: bytes) -> Cut | None:
        """Say whether a message that a client sent ends its connection, and when."""
        if self._armed is None or not _COMMIT.search(message):
            return None
        cut, self._armed = self._armed, None
        self.cuts.append(cut)
        return cut


def _abort(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.transport.abort()


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(
        self,
        proxy: CommitProxy,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._client, self._to_client = client, to_client
        self._server, self._to_server = server, to_server
        self._cut: Cut | None = None

    async def run(self) -> None:
        """Pass bytes both ways until either side, or a COMMIT, ends the connection."""
        directions = {asyncio.create_task(self._to_the_server()), asyncio.create_task(self._to_the_client())}
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _to_the_server(self) -> None:
        # A driver sends COMMIT as one small message, which arrives in one piece.
        while message := await self._client.read(_CHUNK_BYTES):
            self._cut = self._proxy.cut_for(message)
            if self._cut is Cut.REQUEST:
                return
            self._to_server.write(message)
            await self._to_server.drain()

    async def _to_the_client(self) -> None:
        while message := await self._server.read(_CHUNK_BYTES):
            if self._cut is Cut.ANSWER:
                return
            self._to_client.write(message)
            await self._to_client.drain()
            if self._cut is Cut.ANSWERED:
                self._to_client.write_eof()
                return


@contextmanager
def commit_proxy(url: URL) -> Generator[tuple[CommitProxy, URL]]:
    """Run a proxy before the server of ``url``; give it and the URL that leads through it."""
    port = url.port or url_of_default_port("postgresql" if url.drivername.startswith("postgresql") else "mariadb")
    proxy = CommitProxy(url.host or "127.0.0.1", port)
    with anyio.from_thread.start_blocking_portal("asyncio", name="commit-proxy") as portal:
        server, own_port = portal.call(proxy.serve)
        try:
            yield proxy, url.set(host="127.0.0.1", port=own_port)
        finally:
            portal.call(proxy.end, server)
