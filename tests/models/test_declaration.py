"""How models are declared with the mixins: plain and dataclass models, bases, inheritance, column order, types."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, assert_type

import pytest
from sqlalchemy import Engine, ForeignKey, String, create_engine, make_url
from sqlalchemy.orm import (
    DeclarativeBase,
    InstrumentedAttribute,
    Mapped,
    MappedAsDataclass,
    Session,
    mapped_column,
    registry,
    relationship,
)
from sqlalchemy.schema import CreateTable

from fastapi_toolsets.models import CreatedAtMixin, TimestampMixin, UpdatedAtMixin, UUIDMixin, UUIDv7Mixin
from fastapi_toolsets.models.columns import UTCDateTime

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


class Base(DeclarativeBase):
    pass


class Order(TimestampMixin, UUIDMixin, Base):
    """Its mixins stand in the wrong order on purpose: the columns do not."""

    __tablename__ = "orders"
    status: Mapped[str] = mapped_column(String(20))
    total: Mapped[int]


class RushOrder(Order):
    """Joined inheritance: a table of its own with the key of its base."""

    __tablename__ = "rush_orders"
    id: Mapped[uuid.UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    hours: Mapped[int]


class GiftOrder(Order):
    """Single-table inheritance."""

    card: Mapped[str | None] = mapped_column(String(20))


class Resource(UUIDv7Mixin, TimestampMixin, Base):
    """An abstract base."""

    __abstract__ = True


class Room(Resource):
    __tablename__ = "rooms"
    floor: Mapped[int]


class Car(Resource):
    __tablename__ = "cars"
    seats: Mapped[int]
    garage_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("rooms.id"))
    garage: Mapped[Room | None] = relationship()


class Named:
    """A mixin of the application's."""

    name: Mapped[str] = mapped_column(String(20))


class Product(TimestampMixin, Named, UUIDMixin, Base):
    """Its columns all come from mixins, but for one."""

    __tablename__ = "products"
    price: Mapped[int]


class Dated(UUIDMixin, UpdatedAtMixin, Base):
    """Has a ``created_at`` of its own that does not say in which zone it is."""

    __tablename__ = "dated"
    created_at: Mapped[datetime]


class Legacy(UUIDMixin, CreatedAtMixin, UpdatedAtMixin, Base):
    """Names its columns otherwise, and keeps the attributes."""

    __tablename__ = "legacy"
    id: Mapped[uuid.UUID] = mapped_column("legacy_key", primary_key=True, default=uuid.uuid4)
    created_at: Mapped[datetime] = mapped_column("made", UTCDateTime(), default=lambda: LONG_AGO)
    note: Mapped[str] = mapped_column(String(20))


class DataclassBase(MappedAsDataclass, DeclarativeBase):
    pass


class Parcel(UUIDMixin, TimestampMixin, DataclassBase):
    __tablename__ = "parcels"
    weight: Mapped[int]
    label: Mapped[str] = mapped_column(String(20), default="none")


class ExpressParcel(Parcel):
    """A dataclass that inherits a dataclass that has the mixins."""

    hours: Mapped[int | None] = mapped_column(default=None)


class StampedDataclassBase(MappedAsDataclass, DeclarativeBase, UUIDv7Mixin, CreatedAtMixin):
    """The mixins on the base itself."""


class Stamp(StampedDataclassBase):
    __tablename__ = "stamps"
    value: Mapped[int]


mapping = registry()


@mapping.mapped
class Decorated(UUIDMixin, TimestampMixin):
    __tablename__ = "decorated"
    value: Mapped[int] = mapped_column()


@mapping.mapped_as_dataclass
class DecoratedDataclass(UUIDMixin, TimestampMixin):
    __tablename__ = "decorated_dataclasses"
    value: Mapped[int]


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    for metadata in (Base.metadata, DataclassBase.metadata, StampedDataclassBase.metadata, mapping.metadata):
        metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_key_comes_first_and_times_last() -> None:
    """But SQLAlchemy appends what a subclass adds to its base's table, as it does on models without the mixins."""
    tables = {**Base.metadata.tables, **DataclassBase.metadata.tables, **StampedDataclassBase.metadata.tables}
    assert {name: [column.name for column in table.columns] for name, table in tables.items()} == {
        "orders": ["id", "status", "total", "created_at", "updated_at", "card"],
        "rush_orders": ["id", "hours"],
        "rooms": ["id", "floor", "created_at", "updated_at"],
        "cars": ["id", "seats", "garage_id", "created_at", "updated_at"],
        "products": ["id", "price", "name", "created_at", "updated_at"],
        "dated": ["id", "created_at", "updated_at"],
        "legacy": ["legacy_key", "made", "note", "updated_at"],
        "parcels": ["id", "weight", "label", "created_at", "updated_at", "hours"],
        "stamps": ["id", "value", "created_at"],
    }


@pytest.mark.parametrize(
    ("database", "key", "moment"),
    [
        ("postgresql", "UUID", "TIMESTAMP WITH TIME ZONE"),
        ("mysql", "CHAR(32)", "DATETIME(6)"),
        ("sqlite", "CHAR(32)", "DATETIME"),
    ],
)
def test_table_needs_nothing_of_the_database(database: str, key: str, moment: str) -> None:
    """No default, function or extension: PostgreSQL 13 can do it, and any other."""
    dialect = make_url(f"{database}://").get_dialect()()
    statement = str(CreateTable(Base.metadata.tables["rooms"]).compile(dialect=dialect))
    assert [line.strip() for line in statement.strip().splitlines()] == [
        "CREATE TABLE rooms (",
        f"id {key} NOT NULL,",
        "floor INTEGER NOT NULL,",
        f"created_at {moment} NOT NULL,",
        f"updated_at {moment} NOT NULL,",
        "PRIMARY KEY (id)",
        ")",
    ]


def test_models_of_one_base_share_no_column() -> None:
    rooms, cars = Base.metadata.tables["rooms"], Base.metadata.tables["cars"]
    for name in ("id", "created_at", "updated_at"):
        assert (rooms.columns[name].table, cars.columns[name].table) == (rooms, cars)


def test_values_come_with_every_kind_of_inheritance(engine: Engine) -> None:
    with Session(engine, expire_on_commit=False) as session:
        rush, gift = RushOrder(status="new", total=1, hours=2), GiftOrder(status="new", total=1, card="hi")
        room = Room(floor=1)
        car = Car(seats=4, garage=room)
        stamp, parcel = Stamp(value=1), ExpressParcel(weight=1, hours=3)
        # mypy does not see that a registry's decorator makes a dataclass.
        decorated, decorated_dataclass = Decorated(), DecoratedDataclass(value=3)  # type: ignore[call-arg]
        decorated.value = 2
        made: list[Any] = [rush, gift, room, car, stamp, parcel, decorated, decorated_dataclass]
        session.add_all(made)
        session.commit()
        assert [instance.id.version for instance in made] == [4, 4, 7, 7, 7, 4, 4, 4]
        assert all(instance.created_at.tzinfo is UTC for instance in made)
        assert car.garage_id == room.id
        for instance in made:
            if not isinstance(instance, Stamp):
                assert instance.created_at == instance.updated_at


def test_update_of_a_joined_table_moves_the_time_only_with_a_column_beside_it(engine: Engine) -> None:
    """SQL's own rule: ``updated_at`` is a column of ``orders``, and an UPDATE of ``rush_orders`` is not one of it."""
    with Session(engine) as session:
        rush = RushOrder(status="new", total=1, hours=2, created_at=LONG_AGO)
        session.add(rush)
        session.commit()
        rush.hours = 3
        session.commit()
        assert rush.updated_at == LONG_AGO
        rush.total = 2
        session.commit()
        assert rush.updated_at > LONG_AGO


def test_own_column_takes_the_place_of_the_mixins(engine: Engine) -> None:
    """What ``updated_at`` begins with is a column named ``created_at`` that holds an instant; these are none."""
    before = datetime.now(UTC)
    with Session(engine, expire_on_commit=False) as session:
        legacy, dated = Legacy(note="old"), Dated(created_at=LONG_AGO.replace(tzinfo=None))
        session.add_all([legacy, dated])
        session.commit()
        assert (legacy.created_at, dated.created_at) == (LONG_AGO, LONG_AGO.replace(tzinfo=None))
        for moment in (legacy.updated_at, dated.updated_at):
            assert before <= moment <= datetime.now(UTC)


def test_dataclass_does_not_take_the_mixins_columns() -> None:
    assert {model: [field.name for field in dataclasses.fields(model)] for model in (Parcel, ExpressParcel, Stamp)} == {
        Parcel: ["weight", "label"],
        ExpressParcel: ["weight", "label", "hours"],
        Stamp: ["value"],
    }
    assert repr(Parcel(2, "x")) == "Parcel(weight=2, label='x')"
    with pytest.raises(TypeError, match="unexpected keyword argument 'id'"):
        Parcel(weight=1, id=uuid.uuid4())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_plain_model_takes_them() -> None:
    key, moment = uuid.uuid4(), datetime(2001, 1, 1, tzinfo=UTC)
    order = Order(id=key, created_at=moment, updated_at=moment, status="new", total=1)
    assert (order.id, order.created_at, order.updated_at) == (key, moment, moment)


def test_type_checkers_know_the_columns() -> None:
    """The assertions are for mypy and basedpyright, which read this file without a plugin."""
    order, parcel, room = Order(id=uuid.uuid4(), created_at=datetime.now(UTC)), Parcel(weight=1), Room(floor=1)
    order.updated_at = parcel.created_at = parcel.updated_at = datetime.now(UTC)
    parcel.id = room.id = uuid.uuid4()
    assert_type(order.id, uuid.UUID)
    assert_type(order.created_at, datetime)
    assert_type(order.updated_at, datetime)
    assert_type(parcel.id, uuid.UUID)
    assert_type(parcel.created_at, datetime)
    assert_type(room.id, uuid.UUID)
    assert_type(Order.id, InstrumentedAttribute[uuid.UUID])
    assert_type(Room.id, InstrumentedAttribute[uuid.UUID])
    assert_type(Order.created_at, InstrumentedAttribute[datetime])
    order.id = "text"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    assert order.id == "text"
