"""B2 at scale: a hundred thousand rows are tuples, streamed, and never a hundred thousand objects."""

from __future__ import annotations

import gc

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ..databases import TYPES

MANY = 100_000


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Row(Base):
    __tablename__ = "bulk_scale_rows"
    __bulk_events__ = True
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str]
    quantity: Mapped[int]
    note: Mapped[str | None]


def rows_in_memory() -> int:
    return sum(isinstance(found, Row) for found in gc.get_objects())
