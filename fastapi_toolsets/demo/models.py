"""The demo's one model, the same for both front-ends."""

from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_toolsets.models import TimestampMixin, UUIDMixin


class Base(DeclarativeBase):
    """Base of the demo's models."""


class Order(Base, UUIDMixin, TimestampMixin):
    """An order of one item."""

    __tablename__ = "orders"
    __watched_fields__: ClassVar[tuple[str, ...]] = ("status", "quantity")
    __table_args__: Any = (CheckConstraint("quantity > 0", name="quantity_is_positive"),)

    number: Mapped[str] = mapped_column(String(40), unique=True)
    customer: Mapped[str] = mapped_column(String(80))
    item: Mapped[str] = mapped_column(String(80))
    quantity: Mapped[int]
    status: Mapped[str] = mapped_column(String(20), default="new")
    note: Mapped[str | None] = mapped_column(String(200))
