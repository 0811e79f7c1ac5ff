"""The rows that are written, and the tables that listeners elsewhere listen to."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, DateTime, Float, Integer, String, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMN_TYPES = (String(200), Integer(), Float(), Boolean(), DateTime(timezone=False))
_EPOCH = datetime(2024, 1, 1)  # noqa: DTZ001 - the columns have no time zone


class Base(DeclarativeBase):
    """The base of all tables of the benchmarks."""


class Row(Base):
    """What every measured table has: a key made by the client, as bulk inserts want it, and what updates change.

    A key made by the server would make SQLite write one INSERT per row, and the comparison one of INSERT statements.
    """

    __abstract__ = True
    __tablename__: str

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str] = mapped_column(String(200))
    quantity: Mapped[int]


_NAMED_COLUMNS = 3


def _table(name: str, columns: int, **more: object) -> type[Row]:
    """Make a table of so many columns, and of those in ``more``."""
    fillers = {
        f"column_{number}": mapped_column(COLUMN_TYPES[number % len(COLUMN_TYPES)])
        for number in range(_NAMED_COLUMNS, columns - len(more))
    }
    return type(name, (Row,), {"__tablename__": name.lower(), "__module__": __name__, **fillers, **more})


TABLES: Mapping[str, type[Row]] = {
    "10": _table("Narrow", 10),
    "40": _table("Wide", 40),
    "onupdate": _table(
        "Stamped", 10, updated_at=mapped_column(DateTime(), server_default=func.now(), onupdate=func.now())
    ),
}
"""By the name used in cells. The client knows all values of the first two; the database sets one of the third."""


def elsewhere(number: int) -> type[Row]:
    """Make one more table that nobody writes to."""
    return _table(f"Elsewhere{number}", 10)


def values(model: type[Row], number: int) -> dict[str, Any]:
    """Return the values of a row, its key being ``number``."""
    row: dict[str, Any] = {"id": number, "status": "new", "quantity": number}
    for key, column in model.__table__.columns.items():
        if key in row or column.server_default is not None:
            continue
        kind = column.type
        if isinstance(kind, String):
            row[key] = f"a text of usual length, number {number}"
        elif isinstance(kind, Boolean):
            row[key] = number % 2 == 0
        elif isinstance(kind, Float):
            row[key] = number / 8
        elif isinstance(kind, DateTime):
            row[key] = _EPOCH + timedelta(seconds=number)
        else:
            row[key] = number
    return row
