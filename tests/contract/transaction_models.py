"""Models of the tests about transactions and callbacks: one small table, and one with a relationship to load."""

from __future__ import annotations

from sqlalchemy import ForeignKey, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from ..databases import TYPES


class ExpectedError(Exception):
    """What blocks and callbacks of these tests raise."""


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(default="new")
    quantity: Mapped[int] = mapped_column(default=0)


class ShopBase(DeclarativeBase):
    type_annotation_map = TYPES


class Customer(ShopBase):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    purchases: Mapped[list[Purchase]] = relationship(back_populates="customer", order_by="Purchase.id")


class Purchase(ShopBase):
    __tablename__ = "purchases"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    customer: Mapped[Customer] = relationship(back_populates="purchases")


ORDERS = select(Order.id, Order.status).order_by(Order.id)


def do_not_wait_for_the_disk(connection: DBAPIConnection, record: object) -> None:
    """Make a SQLite engine's many commits fast; a listener of its ``connect`` event."""
    connection.cursor().execute("PRAGMA synchronous = OFF")
