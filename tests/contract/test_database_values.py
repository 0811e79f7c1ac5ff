"""Rule E4: values that only the database knows."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    Computed,
    FetchedValue,
    String,
    func,
    select,
    text,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    load_only,
    mapped_column,
)

from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, ORDERS, Base, Order, created, deleted, updated


async def stored(front: FrontEnd, recorder: EventRecorder, **values: object) -> Order:
    """Commit an order that was there before, and begin to listen."""
    order = Order(**{"id": 1, "status": "new", **values})
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    return order


class MadeBase(DeclarativeBase):
    type_annotation_map = TYPES


class Stamped(MadeBase):
    __tablename__ = "stamped"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str | None]
    python: Mapped[str] = mapped_column(default="p0", onupdate=lambda: "p1")
    sql: Mapped[str] = mapped_column(default="s0", onupdate=func.lower("S1"))
    eager: Mapped[str] = mapped_column(default="e0", onupdate=func.lower("E1"))
    silent: Mapped[str | None]
    __mapper_args__ = {"eager_defaults": False}  # noqa: RUF012 - declared as SQLAlchemy's own documentation does


class Touched(MadeBase):
    __tablename__ = "touched"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str | None]
    count: Mapped[int] = mapped_column(default=1, onupdate=9, deferred=True)


class Doubled(MadeBase):
    __tablename__ = "doubled"
    __watched_fields__ = ("quantity",)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    quantity: Mapped[int]
    note: Mapped[str | None]
    double: Mapped[int] = mapped_column(Computed("quantity * 2", persisted=True))


class Triggered(MadeBase):
    __tablename__ = "triggered"
    __table_args__ = {"implicit_returning": False}  # noqa: RUF012 - RETURNING misses what AFTER triggers write
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str | None]
    shouted: Mapped[str | None] = mapped_column(server_default=FetchedValue(), server_onupdate=FetchedValue())


class Versioned(MadeBase):
    __tablename__ = "versioned"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    quantity: Mapped[int] = mapped_column(default=1)
    double: Mapped[int] = mapped_column(Computed("quantity * 2", persisted=True))
    kind: Mapped[str | None] = mapped_column(String(20), server_default="plain")
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - declared as SQLAlchemy's own documentation does


class Fetching(MadeBase):
    """SQLAlchemy asks within the flush for what an INSERT has not given back, such as what only an UPDATE sets."""

    __tablename__ = "fetching"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str | None]
    touched: Mapped[str | None] = mapped_column(onupdate=func.lower("T1"))
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012 - declared as SQLAlchemy's own documentation does


class VersionedByServer(MadeBase):
    __tablename__ = "versioned_by_server"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str | None]
    touched: Mapped[str | None] = mapped_column(onupdate=func.lower("T1"))
    version: Mapped[int] = mapped_column(server_default="1", onupdate=text("version + 1"))
    __mapper_args__ = {  # noqa: RUF012 - declared as SQLAlchemy's own documentation does
        "version_id_col": version,
        "version_id_generator": False,
        "eager_defaults": False,
    }


@scenario(Base.metadata)
async def test_sql_expressions(front: FrontEnd, recorder: EventRecorder) -> None:
    """E4: an SQL expression appears with the value the database gave, once and in several flushes."""
    order: Any = await stored(front, recorder)
    order.quantity = Order.quantity + 1
    await front.commit()
    assert recorder.take() == [updated(Order, 1, quantity=(1, 2))]
    assert [order.quantity] == [2]
    order.quantity = Order.quantity + 1
    await front.flush()
    order.quantity = Order.quantity * 10
    order.note = func.upper("loud")
    await front.flush()
    order.status = func.lower("BULK")
    await front.commit()
    assert recorder.take() == [updated(Order, 1, quantity=(2, 30), status=("new", "bulk"), note=(None, "LOUD"))]
    assert await front.committed_rows(ORDERS) == [(1, "bulk", 30, "LOUD")]


@scenario(Base.metadata)
async def test_sql_expressions_that_change_nothing(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2, E4: an expression whose value is what the row had is no change; nor is one that is taken back."""
    order: Any = await stored(front, recorder)
    order.quantity = Order.quantity + 0
    await front.commit()
    assert recorder.take() == []
    order.quantity = Order.quantity + 1
    await front.flush()
    order.quantity = Order.quantity - 1
    await front.commit()
    assert recorder.take() == []
    order.quantity = Order.quantity + 1
    await front.flush()
    order.quantity = 1
    await front.commit()
    assert recorder.take() == []


@scenario(Base.metadata)
async def test_sql_expressions_on_unloaded_attributes(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E4: neither old nor new was ever in Python: an expired, a deferred and a never loaded attribute."""
    order: Any = await stored(front, recorder, memo="m")
    await front.expire(order)
    order.quantity = Order.quantity + 1
    order.memo = func.upper(Order.memo)
    await front.commit()
    assert recorder.take() == [updated(Order, 1, quantity=(1, 2), memo=("m", "M"))]
    await front.close()
    other: Any = await front.scalar(select(Order).options(load_only(Order.id)))
    other.quantity = Order.quantity + 1
    await front.commit()
    assert recorder.take() == [updated(Order, 1, quantity=(2, 3))]


@scenario(Base.metadata)
async def test_sql_expressions_at_creation(front: FrontEnd) -> None:
    """E4, E11: an object created with an expression shows its value in the callback."""
    shown: list[tuple[str, int]] = []

    @listens_for(Order)
    def show(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((order.status, order.quantity))

    order: Any = Order(id=1, status=func.lower("NEW"), quantity=select(func.count(Order.id) + 7).scalar_subquery())
    await front.add(order)
    await front.commit()
    assert shown == [("new", 7)]


@scenario(Base.metadata)
async def test_expressions_in_a_savepoint_that_is_rolled_back(front: FrontEnd, recorder: EventRecorder) -> None:
    """E4, T3: only what was before and after it counts."""
    order: Any = await stored(front, recorder)
    order.quantity = Order.quantity + 1
    savepoint = await front.begin_nested()
    order.quantity = Order.quantity + 10
    await front.flush()
    await savepoint.rollback()
    await front.commit()
    assert recorder.take() == [updated(Order, 1, quantity=(1, 2))]
    savepoint = await front.begin_nested()
    order.quantity = Order.quantity + 10
    await front.flush()
    await savepoint.rollback()
    order.quantity = Order.quantity + 1
    await front.commit()
    assert recorder.take() == [updated(Order, 1, quantity=(2, 3))]


@scenario(MadeBase.metadata)
async def test_values_made_by_onupdate(front: FrontEnd, recorder: EventRecorder) -> None:
    """E4: ``onupdate``, by a Python function and by an SQL function, has its old and its new value."""
    row = Stamped(id=1)
    await front.add(row)
    await front.commit()
    recorder.listen(Stamped)
    row.label = "a"
    await front.commit()
    assert recorder.take() == [
        updated(Stamped, 1, label=(None, "a"), python=("p0", "p1"), sql=("s0", "s1"), eager=("e0", "e1"))
    ]
    row.label = "b"
    await front.flush()
    row.label = "a"
    await front.commit()
    assert recorder.take() == []
    row.label = "c"
    row.python = "mine"
    await front.commit()
    assert recorder.take() == [updated(Stamped, 1, label=("a", "c"), python=("p1", "mine"))]


@scenario(MadeBase.metadata)
async def test_values_made_by_onupdate_of_unloaded_attributes(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E4: the old value of what the statement makes is true also where nobody had loaded it."""
    await front.add(Stamped(id=1))
    await front.commit()
    recorder.listen(Stamped)
    await front.expire_all()
    session = front.new_session()
    row = await session.scalar(select(Stamped).options(load_only(Stamped.id)))
    row.silent = "x"
    await session.commit()
    assert recorder.take() == [
        updated(Stamped, 1, silent=(None, "x"), python=("p0", "p1"), sql=("s0", "s1"), eager=("e0", "e1"))
    ]


@scenario(MadeBase.metadata)
async def test_assigned_onupdate_columns_that_were_not_loaded(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2, E3, E4: a column that an UPDATE sets by itself has its true old value where it is assigned instead."""
    await front.add(Touched(id=1))
    await front.commit()
    recorder.listen(Touched)
    await front.close()
    row = await front.get_one(Touched, 1)
    row.count = 1
    await front.commit()
    assert recorder.take() == []
    await front.expire(row, ["count"])
    row.count = 2
    await front.commit()
    assert recorder.take() == [updated(Touched, 1, count=(1, 2))]
    await front.expire(row, ["count"])
    row.label, row.count = "a", 2
    await front.commit()
    assert recorder.take() == [updated(Touched, 1, label=(None, "a"))]


@scenario(MadeBase.metadata)
async def test_computed_server_default_and_version(front: FrontEnd, recorder: EventRecorder) -> None:
    """E4: ``Computed``, ``server_default`` and ``version_id_col``, over several flushes of one transaction."""
    row: Any = Versioned(id=1)
    recorder.listen(Versioned)
    shown: list[tuple[int, str | None, int]] = []

    @listens_for(Versioned)
    def show(row: Versioned, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((row.double, row.kind, row.version))

    await front.add(row)
    await front.commit()
    row.quantity = 5
    await front.commit()
    row.quantity = 7
    await front.flush()
    row.kind = "special"
    await front.flush()
    row.quantity = Versioned.quantity + 1
    await front.commit()
    assert recorder.take() == [
        created(Versioned, 1),
        updated(Versioned, 1, quantity=(1, 5), double=(2, 10), version=(1, 2)),
        updated(Versioned, 1, quantity=(5, 8), double=(10, 16), kind=("plain", "special"), version=(2, 5)),
    ]
    assert shown == [(2, "plain", 1), (10, "plain", 2), (16, "special", 5)]


@scenario(MadeBase.metadata)
@pytest.mark.parametrize(("model", "version"), [(Fetching, {}), (VersionedByServer, {"version": (1, 2)})])
async def test_rows_of_which_the_flush_itself_asks_for_more(
    front: FrontEnd,
    recorder: EventRecorder,
    model: type[Fetching | VersionedByServer],
    version: dict[str, tuple[int, int]],
) -> None:
    """E1, E4: SQLAlchemy gives a new object its key at once, where it loads what the database has made of the row."""
    recorder.listen(model)
    rows = [model(id=1, label="a"), model(id=2, label="b")]
    await front.add_all(rows)
    await front.commit()
    assert recorder.take() == [created(model, 1), created(model, 2)]
    rows[0].label = "c"
    await front.add(model(id=3, label="d"))
    await front.commit()
    assert recorder.take() == [
        created(model, 3),
        updated(model, 1, label=("a", "c"), touched=(None, "t1"), **version),
    ]
    await front.delete(rows[1])
    await front.flush()
    await front.add(model(id=2))
    await front.commit()
    assert recorder.take() == [deleted(model, 2), created(model, 2)]


@scenario(MadeBase.metadata)
async def test_default_columns_changed_right_after_the_insert(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E4: a server default that was never read has its true old value."""
    row = Versioned(id=1)
    await front.add(row)
    await front.commit()
    recorder.listen(Versioned)
    row.kind = "special"
    await front.commit()
    assert recorder.take() == [updated(Versioned, 1, kind=("plain", "special"), version=(1, 2))]


@scenario(MadeBase.metadata, databases=LOCAL)
@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("update", [("update", 1, 5, 10)]),
        ("update two", [("update", 1, 5, 10), ("update", 2, 6, 12)]),
        ("create", [("create", 1, 5, 10), ("create", 2, 2, 4)]),
        ("delete", [("delete", 1, 5, 10)]),
    ],
)
async def test_what_the_database_makes_while_an_attribute_is_read(
    front: FrontEnd, recorder: EventRecorder, end: str, told: list[tuple[str, int, int, int]]
) -> None:
    """E4, E11: reading an expired attribute flushes, and SQLAlchemy forgets that it has expired others with that."""
    shown: list[tuple[str, int, int, int]] = []

    @listens_for(Doubled)
    def show(row: Doubled, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((event_type.value, row.id, row.quantity, row.double))

    def read(_session: Session) -> str | None:
        return rows[0].note

    rows = [Doubled(id=1, quantity=2), Doubled(id=2, quantity=2)]
    await front.add_all(rows)
    await (front.flush() if end == "create" else front.commit())
    shown.clear()
    await front.expire(rows[0], ["note"])
    rows[0].quantity = 5
    if end == "update two":
        rows[1].quantity = 6
    assert await front.run_sync(read) is None
    if end == "delete":
        await front.delete(rows[0])
    with front.statements() as statements:
        await front.commit()
    assert [statement.split()[0] for statement in statements] == ["SELECT", "DELETE"][: 2 if end == "delete" else 1]
    assert shown == told


@scenario(MadeBase.metadata, databases=LOCAL)
async def test_what_an_insert_left_out_is_not_asked_for(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: it reads as ``None``, and what the database has made came back with the INSERT."""
    recorder.listen(Doubled)
    row = Doubled(id=1, quantity=2)
    await front.add(row)
    with front.statements() as statements:
        await front.commit()
    assert [statement.split()[0] for statement in statements] == ["INSERT"]
    row.quantity = 3
    with front.statements() as statements:
        await front.commit()
    assert [statement.split()[0] for statement in statements] == ["UPDATE", "SELECT"]
    with front.statements() as statements:
        await front.delete(row)
        await front.commit()
    assert [statement.split()[0] for statement in statements] == ["DELETE"]
    assert recorder.take() == [created(Doubled, 1), updated(Doubled, 1, quantity=(2, 3)), deleted(Doubled, 1)]


TRIGGERS = {
    "sqlite": [
        """CREATE TRIGGER shout AFTER UPDATE OF label ON triggered BEGIN
        UPDATE triggered SET shouted = upper(new.label) WHERE id = new.id; END""",
        """CREATE TRIGGER shout_first AFTER INSERT ON triggered BEGIN
        UPDATE triggered SET shouted = upper(new.label) WHERE id = new.id; END""",
    ],
    "postgresql": [
        """CREATE OR REPLACE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN NEW.shouted := upper(NEW.label); RETURN NEW; END$$""",
        "CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON triggered FOR EACH ROW EXECUTE FUNCTION shout()",
    ],
    "mariadb": [
        "CREATE TRIGGER shout BEFORE UPDATE ON triggered FOR EACH ROW SET NEW.shouted = upper(NEW.label)",
        "CREATE TRIGGER shout_first BEFORE INSERT ON triggered FOR EACH ROW SET NEW.shouted = upper(NEW.label)",
    ],
}


@scenario(MadeBase.metadata)
async def test_values_made_by_a_trigger(front: FrontEnd, recorder: EventRecorder) -> None:
    """E4: a column declared with ``FetchedValue``, which a trigger sets, at creation and at each update."""
    for statement in TRIGGERS[front.database.name]:
        await front.execute(text(statement))
    await front.commit()
    shown: list[tuple[str | None, str | None]] = []
    recorder.listen(Triggered)

    @listens_for(Triggered)
    def show(row: Triggered, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((row.label, row.shouted))

    row = Triggered(id=1, label="a")
    await front.add(row)
    await front.commit()
    row.label = "b"
    await front.commit()
    row.label = "c"
    await front.flush()
    row.label = "d"
    await front.commit()
    assert recorder.take() == [
        created(Triggered, 1),
        updated(Triggered, 1, label=("a", "b"), shouted=("A", "B")),
        updated(Triggered, 1, label=("b", "d"), shouted=("B", "D")),
    ]
    assert shown == [("a", "A"), ("b", "B"), ("d", "D")]
