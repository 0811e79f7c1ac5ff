"""The session classes of this process and its listeners: our library, the published one, or no library at all."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from .tables import TABLES, elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tables import Row

PLAIN, PLAIN_AGAIN, EVENTS = "plain", "plain again", "events"
"""The variants: a plain session, a second one that shows the noise, and the library's."""

_ELSEWHERE_TABLES = 100


@dataclass(frozen=True)
class Library:
    """What a process measures."""

    sync_classes: dict[str, type[Session]]
    async_classes: dict[str, type[AsyncSession]]
    versions: dict[str, str]


def load(name: str, listeners: str, others: int) -> Library:
    """Import the library and register listeners.

    Args:
        name: ``"none"`` for a process without any event library, ``"ours"``, ``"published"``, or ``"least"`` for
            sessions that have SQLAlchemy's events and do nothing in them.
        listeners: ``"none"``, ``"elsewhere"`` (on tables that nobody writes), ``"sync"`` or ``"async"``.
        others: How many listeners to register elsewhere.

    Returns:
        The session classes; the sync ones have no ``"events"`` where the library has no sync front-end.
    """
    sync_classes: dict[str, type[Session]] = {PLAIN: Session, PLAIN_AGAIN: Session}
    async_classes: dict[str, type[AsyncSession]] = {PLAIN: AsyncSession, PLAIN_AGAIN: AsyncSession}
    versions = {"python": platform.python_version(), "sqlalchemy": sqlalchemy.__version__}
    if name == "least":
        from .least import least_classes  # noqa: PLC0415 - as below

        sync_classes.update(least_classes())
    elif name != "none":
        import fastapi_toolsets  # noqa: PLC0415 - a process without it must stay without it
        from fastapi_toolsets import models  # noqa: PLC0415

        # That a plain session passes listeners by is on purpose here.
        warnings.filterwarnings("ignore", message=".* has listeners, but was flushed by a")
        warnings.filterwarnings("ignore", message=".* has listeners, and a bulk")
        async_classes[EVENTS] = models.EventSession
        if name == "ours":
            sync_classes[EVENTS] = models.SyncEventSession
            versions["fastapi_toolsets"] = str(fastapi_toolsets.__version__)
        else:
            versions["fastapi_toolsets"] = importlib.metadata.version("fastapi-toolsets")
        versions["path"] = str(sys.modules["fastapi_toolsets"].__file__)
        _register(models.listens_for, listeners, others)
    return Library(sync_classes, async_classes, versions)


def _register(
    listens_for: Callable[[type[Row]], Callable[[Callable[..., object]], object]], listeners: str, others: int
) -> None:
    if listeners in ("sync", "async"):
        callback: Callable[..., object] = _ignore if listeners == "sync" else _ignore_later
        for model in TABLES.values():
            listens_for(model)(callback)
    elif listeners == "elsewhere":
        others = max(others, 1)
    tables = [elsewhere(number) for number in range(min(others, _ELSEWHERE_TABLES))]
    for number in range(others):
        listens_for(tables[number % len(tables)])(_another_callback())


def _ignore(_obj: object, _event_type: object, _changes: object) -> None:
    """Do nothing."""


async def _ignore_later(_obj: object, _event_type: object, _changes: object) -> None:
    """Do nothing."""


def _another_callback() -> Callable[[object, object, object], None]:
    def ignore(_obj: object, _event_type: object, _changes: object) -> None:
        pass

    return ignore
