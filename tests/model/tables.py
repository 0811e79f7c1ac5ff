"""The tables of the programs: every way in which a value can come to a row, and triggers that write a trail of it.

The trail is written by the database itself, in the transaction, so it rolls back with what it tells of: after a COMMIT
it holds what has really been done to each row, in order, whatever any session believes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Computed,
    Connection,
    Dialect,
    FetchedValue,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    String,
    Table,
    event,
    func,
    text,
)
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tests.databases import TYPES


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Account(Base):
    """A parent whose orders live and die with it; it counts its versions."""

    __tablename__ = "accounts"
    __table_args__ = (CheckConstraint("balance >= 0"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(unique=True)
    balance: Mapped[int] = mapped_column(default=0)
    details: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(JSON()))
    version: Mapped[int] = mapped_column()

    orders: Mapped[list[Order]] = relationship(back_populates="account", cascade="all, delete-orphan")
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy's own way to say it


class Order(Base):
    """A row of which the database makes half the values: computed, by a trigger, by default."""

    __tablename__ = "orders"
    __table_args__ = (CheckConstraint("qty >= 0"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    qty: Mapped[int] = mapped_column(default=1)
    price: Mapped[int] = mapped_column(server_default=text("3"))
    total: Mapped[int] = mapped_column(Computed("qty * price", persisted=True))
    status: Mapped[str | None] = mapped_column("state")
    comment: Mapped[str | None] = mapped_column(deferred=True)
    revision: Mapped[int] = mapped_column(server_default=text("0"), server_onupdate=FetchedValue())

    account: Mapped[Account] = relationship(back_populates="orders")
    lines: Mapped[list[Line]] = relationship(back_populates="order")


class Line(Base):
    """A child that outlives its parent, with its foreign key set to NULL by the unit of work."""

    __tablename__ = "order_lines"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"))
    label: Mapped[str | None]
    touched: Mapped[int | None] = mapped_column(onupdate=func.coalesce(text("touched"), 0) + 1)

    order: Mapped[Order | None] = relationship(back_populates="lines")


def _can_wait_for_commit(*_: object, dialect: Dialect, **_options: object) -> bool:
    """Whether the database can check a foreign key at COMMIT."""
    return dialect.name not in {"mysql", "mariadb"}


class Node(Base):
    """A tree in one table, whose foreign key is checked at COMMIT where the database can wait so long."""

    __tablename__ = "nodes"
    __table_args__ = (
        ForeignKeyConstraint(["parent_id"], ["nodes.id"], deferrable=True, initially="DEFERRED").ddl_if(
            callable_=_can_wait_for_commit
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent_id: Mapped[int | None]
    name: Mapped[str | None]

    parent: Mapped[Node | None] = relationship(back_populates="children", remote_side="Node.id")
    children: Mapped[list[Node]] = relationship(back_populates="parent")


class Note(Base):
    """A row with a key from the database, of which only some changes are watched; the base of a joined hierarchy."""

    __tablename__ = "notes"
    __watched_fields__: tuple[str, ...] = ("body",)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "note"}  # noqa: RUF012 - as above

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    body: Mapped[str | None]
    weight: Mapped[int | None]


class Reminder(Note):
    """A row of two tables."""

    __tablename__ = "reminders"
    __watched_fields__ = ("body", "due")
    __mapper_args__ = {"polymorphic_identity": "reminder"}  # noqa: RUF012 - as above

    id: Mapped[int] = mapped_column(ForeignKey("notes.id"), primary_key=True)
    due: Mapped[int | None]


class Tag(Base):
    """A row whose primary key is a value that people change."""

    __tablename__ = "tags"

    code: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str | None]


MODELS: tuple[type[Base], ...] = (Account, Order, Line, Node, Note, Reminder, Tag)

TABLES: dict[type[Base], Table] = {model: cast("Table", model.__table__) for model in MODELS}


def base_table(model: type[Base]) -> str:
    """Name the table of the model, or of the base of its hierarchy."""
    return cast("Table", model.__mapper__.base_mapper.local_table).name


TRACKED = {
    table: {
        prop.key: cast("Column[Any]", column)
        for prop in model.__mapper__.column_attrs
        for column in prop.columns[:1]
        if column.table is table
    }
    for model, table in TABLES.items()
}
"""The attributes that each table holds, with their columns."""

trail = Table(
    "trail",
    Base.metadata,
    Column("seq", Integer, primary_key=True),
    Column("op", String(1), nullable=False),
    Column("place", String(20)),
    Column("old_key", String(20)),
    Column("new_key", String(20)),
    Column("old_row", String(2000)),
    Column("new_row", String(2000)),
)
"""What was done: ``I``, ``U`` and ``D`` with the row as it was and became, and ``F`` where a flush ended."""

markers = Table("markers", Base.metadata, Column("token", Integer, primary_key=True, autoincrement=False))
"""A row for each ``on_commit`` registration, written in the same transaction: what must be called."""


def _json_of(row: str, table: Table, function: str, json_value: Callable[[str], str]) -> str:
    pairs: list[str] = []
    for key, column in TRACKED[table].items():
        value = f"{row}.{column.name}"
        pairs.append(f"'{key}', {json_value(value) if isinstance(column.type, JSON) else value}")
    return f"{function}({', '.join(pairs)})"


_NAMES = {"I": "INSERT", "U": "UPDATE", "D": "DELETE"}


def _entry(op: str, table: Table, json: Callable[[str], str], text_of: Callable[[str], str]) -> str:
    key = next(iter(table.primary_key)).name
    values = [
        "NULL" if op == "I" else text_of(f"OLD.{key}"),
        "NULL" if op == "D" else text_of(f"NEW.{key}"),
        "NULL" if op == "I" else json("OLD"),
        json("NEW") if op == "U" else "NULL",
    ]
    return (
        "INSERT INTO trail (op, place, old_key, new_key, old_row, new_row) "
        f"VALUES ('{op}', '{table.name}', {', '.join(values)});"
    )


def _trigger(table: Table, op: str, action: str) -> str:
    return f"CREATE TRIGGER {table.name}_{op} AFTER {_NAMES[op]} ON {table.name} {action}"


def _sqlite_triggers(table: Table) -> list[str]:
    def json(row: str) -> str:
        return _json_of(row, table, "json_object", lambda value: f"json({value})")

    return [_trigger(table, op, f"BEGIN {_entry(op, table, json, lambda value: value)} END") for op in _NAMES]


def _postgresql_triggers(table: Table) -> list[str]:
    def json(row: str) -> str:
        return _json_of(row, table, "json_build_object", lambda value: value) + "::text"

    statements: list[str] = []
    for op in _NAMES:
        entry = _entry(op, table, json, lambda value: f"{value}::text")
        function = f"{table.name}_{op}() RETURNS trigger LANGUAGE plpgsql"
        statements += [
            f"CREATE OR REPLACE FUNCTION {function} AS $$ BEGIN {entry} RETURN NULL; END $$",
            _trigger(table, op, f"FOR EACH ROW EXECUTE FUNCTION {table.name}_{op}()"),
        ]
    return statements


def _mariadb_triggers(table: Table) -> list[str]:
    def json(row: str) -> str:
        return _json_of(row, table, "JSON_OBJECT", lambda value: f"JSON_EXTRACT({value}, '$')")

    return [_trigger(table, op, f"FOR EACH ROW {_entry(op, table, json, lambda value: value)}") for op in _NAMES]


_REVISION = {
    "sqlite": (
        """CREATE TRIGGER orders_revision AFTER UPDATE ON orders WHEN NEW.revision = OLD.revision
        BEGIN UPDATE orders SET revision = OLD.revision + 1 WHERE id = NEW.id; END""",
    ),
    "postgresql": (
        """CREATE OR REPLACE FUNCTION orders_revision() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN NEW.revision = OLD.revision + 1; RETURN NEW; END'""",
        "CREATE TRIGGER orders_revision BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION orders_revision()",
    ),
    "mysql": (
        "CREATE TRIGGER orders_revision BEFORE UPDATE ON orders FOR EACH ROW SET NEW.revision = OLD.revision + 1",
    ),
}


@event.listens_for(Base.metadata, "after_create")
def _create_triggers(_metadata: object, connection: Connection, **_options: object) -> None:
    dialect = "mysql" if connection.dialect.name == "mariadb" else connection.dialect.name
    make = {"sqlite": _sqlite_triggers, "postgresql": _postgresql_triggers, "mysql": _mariadb_triggers}[dialect]
    for statement in [*(line for table in TRACKED for line in make(table)), *_REVISION[dialect]]:
        connection.exec_driver_sql(statement)
