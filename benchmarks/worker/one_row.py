"""What ``python -m benchmarks instructions`` counts: commits of one changed row in one session, and nothing else.

The counter stops at every call of ``getpriority``, which nothing else here makes: before, between and after two runs of
commits. What starting up costs is before the first stop, so that it cannot blur the counts.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from .library import load
from .tables import TABLES, Base, values

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from .library import Library

MODEL = TABLES["10"]
_UNCOUNTED = 20
"""Commits that compile statements, resolve listeners and warm the interpreter up."""


def main(arguments: list[str]) -> None:
    """Commit so many times.

    Args:
        arguments: Front-end (``"sync"`` or ``"async"``), library, listeners, variant, then the commits of each run.
    """
    front_end, library, listeners, variant, *commits = arguments
    runs = [_UNCOUNTED, *map(int, commits)]
    loaded = load(library, listeners, 0)
    if front_end == "sync":
        _commit(loaded, variant, runs)
    else:
        asyncio.run(_commit_async(loaded, variant, runs))


def _prepare(connection: Connection) -> None:
    Base.metadata.create_all(connection)
    connection.execute(insert(MODEL), values(MODEL, 1))


def _stop() -> None:
    """Let the counter stop here; what is left of the commits so far is no work for the collector of those to come."""
    gc.collect()
    gc.freeze()
    os.getpriority(os.PRIO_PROCESS, 0)


def _commit(library: Library, variant: str, runs: list[int]) -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        _prepare(connection)
    with library.sync_classes[variant](engine, expire_on_commit=False) as session:
        row = session.get_one(MODEL, 1)
        for commits in runs:
            for number in range(commits):
                row.quantity = -number - 1
                session.commit()
            _stop()
    engine.dispose()


async def _commit_async(library: Library, variant: str, runs: list[int]) -> None:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    async with engine.begin() as connection:
        await connection.run_sync(_prepare)
    async with library.async_classes[variant](engine, expire_on_commit=False) as session:
        row = await session.get_one(MODEL, 1)
        for commits in runs:
            for number in range(commits):
                row.quantity = -number - 1
                await session.commit()
            _stop()
    await engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1:])
