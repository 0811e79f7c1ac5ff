"""The places where a sync session may stand when it commits, each with another way to its async callbacks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import anyio.to_thread
from sqlalchemy.util import greenlet_spawn

from fastapi_toolsets.events import set_callback_backend
from fastapi_toolsets.events.types import Backend

Work = Callable[[], None]


@dataclass(frozen=True)
class Place:
    """How work is brought there, and the backend on which callbacks run where it is the library's to choose."""

    name: str
    run: Callable[[Work], None]
    backend: Backend = "asyncio"

    def __str__(self) -> str:
        return self.name

    def visit(self, work: Work) -> None:
        """Run work there; what it raises is raised here."""
        set_callback_backend(self.backend)
        try:
            self.run(work)
        finally:
            set_callback_backend("asyncio")


def in_script(work: Work) -> None:
    work()


def in_thread(work: Work) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for this one
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in errors:
        raise error


def on_running_loop(work: Work) -> None:
    async def application() -> None:
        work()

    asyncio.run(application())


def in_worker_thread(work: Work) -> None:
    async def application() -> None:
        await anyio.to_thread.run_sync(work)

    anyio.run(application)


def in_trio_worker_thread(work: Work) -> None:
    async def application() -> None:
        await anyio.to_thread.run_sync(work)

    anyio.run(application, backend="trio")


def in_greenlet_bridge(work: Work) -> None:
    async def application() -> None:
        await greenlet_spawn(work)

    asyncio.run(application())


PLACES = (
    Place("script", in_script),
    Place("thread", in_thread),
    Place("running loop", on_running_loop),
    Place("worker thread", in_worker_thread),
    Place("trio worker thread", in_trio_worker_thread),
    Place("greenlet bridge", in_greenlet_bridge),
    Place("script with trio", in_script, "trio"),
    Place("running loop with trio", on_running_loop, "trio"),
)
