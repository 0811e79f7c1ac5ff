"""The one table that faults happen to, what was recorded of it, and what the library logged."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ..databases import TYPES
from ..front_ends import RecordedEvent

LOGGER = "fastapi_toolsets.events"


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(default="new")


ORDERS = select(Order.id, Order.status).order_by(Order.id)


def created(identity: int) -> RecordedEvent:
    """What a recorder writes down for a new order."""
    return ("create", "Order", identity, None)


def updated(identity: int, old: str, new: str) -> RecordedEvent:
    """What a recorder writes down for an order whose status changed."""
    return ("update", "Order", identity, {"status": {"old": old, "new": new}})


class _Collector(logging.Handler):
    def __init__(self, collected: list[tuple[str, str]]) -> None:
        super().__init__()
        self._collected = collected

    def emit(self, record: logging.LogRecord) -> None:
        self._collected.append((record.levelname, record.getMessage()))


@contextmanager
def library_log() -> Generator[list[tuple[str, str]]]:
    """Collect what the library logs: ``(level, message)``, without the tracebacks, which keep objects alive."""
    collected: list[tuple[str, str]] = []
    handler = _Collector(collected)
    logger = logging.getLogger(LOGGER)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield collected
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
