"""Models on which bulk statements make events, and rows for them."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import ForeignKey, Insert, Result, select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd


class Base(DeclarativeBase):
    type_annotation_map = TYPES
    __bulk_events__ = True


class Parcel(Base):
    __tablename__ = "bulk_parcels"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str] = mapped_column(default="new")
    weight: Mapped[int] = mapped_column(default=1)
    note: Mapped[str | None]
    printed: Mapped[str] = mapped_column(server_default="no")


class Stamp(Base):
    """The database and SQLAlchemy make values of their own."""

    __tablename__ = "bulk_stamps"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int]
    touched: Mapped[int] = mapped_column(default=0, onupdate=7)


class Seat(Base):
    """A composite key."""

    __tablename__ = "bulk_seats"
    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    taken: Mapped[str | None]


class Animal(Base):
    """A single table."""

    __tablename__ = "bulk_animals"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012 - SQLAlchemy reads it


class Dog(Animal):
    trick: Mapped[str | None]
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012 - SQLAlchemy reads it


class Cat(Animal):
    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012 - SQLAlchemy reads it


class Employee(Base):
    """A table for each class."""

    __tablename__ = "bulk_employees"
    id: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "type", "polymorphic_identity": "employee"}  # noqa: RUF012 - SQLAlchemy reads it


class Manager(Employee):
    __tablename__ = "bulk_managers"
    id: Mapped[int] = mapped_column(ForeignKey("bulk_employees.id", ondelete="CASCADE"), primary_key=True)
    budget: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "manager"}  # noqa: RUF012 - SQLAlchemy reads it


class Quiet(Base):
    """Opted out again."""

    __tablename__ = "bulk_quiet"
    __bulk_events__ = False
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]


PARCELS = select(Parcel.id, Parcel.code, Parcel.status, Parcel.weight, Parcel.note).order_by(Parcel.id)


async def store(front: FrontEnd, *objects: object) -> None:
    """Commit objects through a session of their own."""
    session = front.new_session()
    await session.add_all(objects)
    await session.commit()
    await session.close()


async def three_parcels(front: FrontEnd, recorder: EventRecorder) -> None:
    """Commit three parcels, then begin to listen."""
    await store(front, *(Parcel(id=key, code=f"p{key}", weight=key) for key in (1, 2, 3)))
    recorder.listen(Parcel)


def row_count(result: Result[Any]) -> int:
    """How many rows a statement says to have written."""
    return cast("int", cast("Any", result).rowcount)


def upsert(
    front: FrontEnd, model: type[DeclarativeBase], key: str, rows: list[dict[str, object]], *columns: str
) -> Insert:
    """An INSERT that updates ``columns`` of the rows that have the same ``key``, in the database's own words."""
    if front.database.name == "mariadb":
        statement = mysql.insert(model).values(rows)
        return statement.on_duplicate_key_update({name: statement.inserted[name] for name in columns})
    if front.database.name == "postgresql":
        found = postgresql.insert(model).values(rows)
        return found.on_conflict_do_update(index_elements=[key], set_={name: found.excluded[name] for name in columns})
    other = sqlite.insert(model).values(rows)
    return other.on_conflict_do_update(index_elements=[key], set_={name: other.excluded[name] for name in columns})
