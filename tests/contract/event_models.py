"""Models that several contract tests use, and short ways to write down the events that are expected."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import cast

from sqlalchemy import String, Table, TypeDecorator, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, configure_mappers, mapped_column

from ..databases import TYPES
from ..front_ends import RecordedEvent

LOCAL = ("sqlite",)
"""For what happens in Python alone: the other databases would only repeat it."""


class Lower(TypeDecorator[str]):
    """A database that writes values otherwise than they were given."""

    impl = String(20)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        return None if value is None else value.lower()


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str]
    quantity: Mapped[int] = mapped_column(default=1)
    note: Mapped[str | None]
    memo: Mapped[str | None] = mapped_column(deferred=True)


ORDERS = select(Order.id, Order.status, Order.quantity, Order.note).order_by(Order.id)


def created(model: type[object], identity: object) -> RecordedEvent:
    """What a recorder writes down for a CREATE."""
    return ("create", model.__name__, identity, None)


def deleted(model: type[object], identity: object) -> RecordedEvent:
    """What a recorder writes down for a DELETE."""
    return ("delete", model.__name__, identity, None)


def updated(model: type[object], identity: object, /, **changes: tuple[object, object]) -> RecordedEvent:
    """What a recorder writes down for an UPDATE, given ``attribute=(old, new)``."""
    return ("update", model.__name__, identity, {key: {"old": old, "new": new} for key, (old, new) in changes.items()})


@contextmanager
def listening_to(
    target: object, name: str, listener: Callable[..., object], *, insert: bool = False
) -> Generator[None]:
    """Have a listener of SQLAlchemy's own for the time of a block, before all others with ``insert``."""
    event.listen(target, name, listener, insert=insert)
    try:
        yield
    finally:
        event.remove(target, name, listener)


def table_of(model: type[DeclarativeBase]) -> Table:
    """The table of a model, for statements that pass the unit of work by."""
    return cast("Table", model.__table__)


@contextmanager
def declaring(base: type[DeclarativeBase]) -> Generator[type[DeclarativeBase]]:
    """Forget afterwards the mappers declared in the block, so that one that fails leaves the others usable."""
    try:
        yield base
    finally:
        base.registry.dispose()
        configure_mappers()


def new_base() -> type[DeclarativeBase]:
    """Make a declarative base with a registry of its own."""

    class LocalBase(DeclarativeBase):
        type_annotation_map = TYPES

    return LocalBase
