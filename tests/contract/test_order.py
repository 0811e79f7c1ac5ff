"""Rule E9: the order in which events arrive."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from fastapi_toolsets.models import Changes, Event, ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, Base, Order

ROOT = Path(__file__).parents[2]


class OrderBase(DeclarativeBase):
    type_annotation_map = TYPES


class Line(OrderBase):
    """Defined before its parent, and first in the alphabet too."""

    __tablename__ = "a_lines"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    basket_id: Mapped[int | None] = mapped_column(ForeignKey("z_baskets.id"))
    amount: Mapped[int | None]
    basket: Mapped[Basket | None] = relationship(back_populates="lines")


class Basket(OrderBase):
    __tablename__ = "z_baskets"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str | None]
    lines: Mapped[list[Line]] = relationship(back_populates="basket", cascade="all, delete-orphan", order_by="Line.id")


class Employee(OrderBase):
    """A table that refers to itself."""

    __tablename__ = "employees"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    manager_id: Mapped[int | None] = mapped_column(ForeignKey("employees.id"))
    name: Mapped[str | None]
    manager: Mapped[Employee | None] = relationship(remote_side="Employee.id", back_populates="reports")
    reports: Mapped[list[Employee]] = relationship(back_populates="manager")


def names(taken: Iterable[tuple[Any, ...]]) -> list[tuple[str, str, object]]:
    """What happened to which row, without the changes."""
    return [(kind, model, identity) for kind, model, identity, _ in taken]


@scenario(OrderBase.metadata)
async def test_parents_before_children_in_one_flush(front: FrontEnd, recorder: EventRecorder) -> None:
    """E9: whatever was added first, defined first or comes first in the alphabet."""
    recorder.listen(OrderBase)
    line = Line(id=1)
    await front.add(line)
    await front.add(Line(id=2))
    basket = Basket(id=1)
    await front.add(basket)
    basket.lines = [line, Line(id=3)]
    await front.commit()
    assert names(recorder.take()) == [
        ("create", "Basket", 1),
        ("create", "Line", 1),
        ("create", "Line", 2),
        ("create", "Line", 3),
    ]


@scenario(OrderBase.metadata)
async def test_parents_before_children_for_updates_and_mixtures(front: FrontEnd, recorder: EventRecorder) -> None:
    """E9: also where children are updated and parents created, or the reverse."""
    await front.add_all([Basket(id=1, lines=[Line(id=1), Line(id=2)])])
    await front.commit()
    recorder.listen(OrderBase)
    lines = list(await front.scalars(select(Line).order_by(Line.id)))
    basket = await front.get_one(Basket, 1)
    lines[1].amount = 1
    lines[0].amount = 2
    basket.label = "b"
    await front.commit()
    taken = names(recorder.take())
    assert (taken[0], sorted(map(str, taken[1:]))) == (
        ("update", "Basket", 1),
        sorted(map(str, [("update", "Line", 1), ("update", "Line", 2)])),
    )
    lines[0].amount = 3
    new = Basket(id=2, lines=[Line(id=9)])
    await front.add(new)
    await front.commit()
    taken = names(recorder.take())
    assert taken[0] == ("create", "Basket", 2)
    assert sorted(taken[1:]) == [("create", "Line", 9), ("update", "Line", 1)]


@scenario(OrderBase.metadata)
async def test_rows_of_a_table_that_refers_to_itself(front: FrontEnd, recorder: EventRecorder) -> None:
    """E9: managers before their reports, in whatever order they were added; three levels and two trees."""
    recorder.listen(Employee)
    chief, lead, worker = Employee(id=3), Employee(id=1), Employee(id=2)
    worker.manager, lead.manager = lead, chief
    other, boss = Employee(id=4), Employee(id=5)
    other.manager = boss
    await front.add_all([worker, other, lead, chief, boss])
    await front.commit()
    order = [identity for _, _, identity in names(recorder.take())]
    assert sorted(order, key=str) == [1, 2, 3, 4, 5]
    assert [order.index(manager) < order.index(report) for manager, report in [(3, 1), (1, 2), (5, 4)]] == [True] * 3


@scenario(OrderBase.metadata)
async def test_deleted_rows_of_one_flush(front: FrontEnd, recorder: EventRecorder) -> None:
    """E9: a parent and its children deleted by one flush arrive in the same order whenever it is done."""
    orders: list[list[tuple[str, str, object]]] = []
    recorder.listen(OrderBase)
    for _ in range(3):
        basket = Basket(id=1, lines=[Line(id=key) for key in (3, 1, 2)])
        await front.add(basket)
        await front.commit()
        await front.expunge_all()
        recorder.take()
        await front.delete((await front.scalars(select(Basket).options(selectinload(Basket.lines)))).one())
        await front.commit()
        orders.append(names(recorder.take()))
    assert sorted(orders[0], key=str) == [
        ("delete", "Basket", 1),
        ("delete", "Line", 1),
        ("delete", "Line", 2),
        ("delete", "Line", 3),
    ]
    assert orders == [orders[0]] * 3
    assert orders[0][0] == ("delete", "Basket", 1)


@scenario(OrderBase.metadata)
async def test_rows_in_the_order_of_their_first_change(front: FrontEnd, recorder: EventRecorder) -> None:
    """E9: over several flushes the first change of a row decides, not the last, nor its model."""
    await front.add_all([Basket(id=1), Employee(id=1), Employee(id=2)])
    await front.commit()
    recorder.listen(OrderBase)
    basket = await front.get_one(Basket, 1)
    first, second = await front.get_one(Employee, 1), await front.get_one(Employee, 2)
    second.name = "b"
    await front.flush()
    await front.add(Line(id=1))
    await front.flush()
    first.name = "a"
    await front.flush()
    basket.label = "x"
    second.name = "c"
    await front.commit()
    assert names(recorder.take()) == [
        ("update", "Employee", 2),
        ("create", "Line", 1),
        ("update", "Employee", 1),
        ("update", "Basket", 1),
    ]


@scenario(OrderBase.metadata)
async def test_order_over_savepoints(front: FrontEnd, recorder: EventRecorder) -> None:
    """E9, T3: a released savepoint's rows stand where they were first changed; a dropped one's do not count."""
    await front.add_all([Employee(id=key) for key in (1, 2, 3, 4)])
    await front.commit()
    recorder.listen(Employee)
    rows = {key: await front.get_one(Employee, key) for key in (1, 2, 3, 4)}
    async with front.begin_nested():
        rows[3].name = "x"
        await front.flush()
        savepoint = await front.begin_nested()
        rows[4].name = "dropped"
        await front.flush()
        await savepoint.rollback()
        rows[2].name = "x"
    rows[1].name = "x"
    await front.flush()
    rows[4].name = "x"
    await front.flush()
    rows[3].name = "y"
    await front.commit()
    assert [identity for _, _, identity in names(recorder.take())] == [3, 2, 1, 4]


@scenario(OrderBase.metadata, databases=LOCAL)
async def test_a_change_taken_back_and_made_again(front: FrontEnd, recorder: EventRecorder) -> None:
    """E9: positions follow the first change; those of one flush keep one order, run after run."""
    await front.add_all([Employee(id=key) for key in range(1, 30)])
    await front.commit()
    recorder.listen(Employee)
    rows = list(await front.scalars(select(Employee).order_by(Employee.id)))
    orders: list[list[object]] = []
    for label in ("a", "b", "c"):
        for row in reversed(rows):
            row.name = label
        await front.commit()
        orders.append([identity for _, _, identity in names(recorder.take())])
    assert sorted(map(int, map(str, orders[0]))) == list(range(1, 30))
    assert orders == [orders[0]] * 3


PROGRAM = """
from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker
from fastapi_toolsets.models import SyncEventSession, listens_for

class Base(DeclarativeBase): pass

class Team(Base):
    __tablename__ = "teams"
    id: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str | None]

class Person(Base):
    __tablename__ = "people"
    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str | None] = mapped_column(ForeignKey("teams.id"))
    boss_id: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    label: Mapped[str | None]
    extra: Mapped[str | None]
    team: Mapped[Team | None] = relationship()
    boss: Mapped["Person | None"] = relationship(remote_side=[id])

class Loner(Base):
    __tablename__ = "loners"
    id: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str | None]

@listens_for(Base)
def told(obj, event_type, changes):
    print(event_type.value, type(obj).__name__, obj.id, changes)

engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
with sessionmaker(engine, class_=SyncEventSession, expire_on_commit=False)() as session:
    teams = [Team(id=f"t{n}") for n in range(7)]
    people = [Person(id=f"p{n}", team=teams[n % 7]) for n in range(20)]
    for n in range(1, 20):
        people[n].boss = people[(n * 7) % n]
    loners = [Loner(id=f"l{n}") for n in range(7)]
    session.add_all(people[::-1] + loners + teams)
    session.commit()
    for row in people + loners + teams:
        row.label = "x"
    for person in people:
        person.extra = "y"
    session.commit()
    for row in loners + people[10:] + teams:
        row.label = "z"
    session.flush()
    for row in people:
        row.extra = "w"
    for row in people[::-1] + loners[:3]:
        session.delete(row)
    session.commit()
engine.dispose()
"""


def test_the_order_does_not_depend_on_the_process() -> None:
    """E9: the same program tells the same events in the same order, whatever the hash seed and addresses."""

    def run(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "PYTHONMALLOC": "malloc"}
        command = [sys.executable, "-W", "error", "-c", PROGRAM]
        finished = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
        return finished.stdout

    outputs = [run(seed) for seed in ("0", "1", "4242")]
    assert len(outputs[0].splitlines()) == 34 + 34 + (20 + 7 + 7)
    assert outputs == [outputs[0]] * 3


@scenario(Base.metadata, databases=LOCAL)
async def test_positions_and_transaction_ids(front: FrontEnd) -> None:
    """N1, E9: events count from 0 in each transaction and share its id."""
    heard: list[Event] = []

    @listens_for(Order)
    def keep(order: Order, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        heard.append(event)

    orders = [Order(id=key, status="new") for key in (1, 2, 3)]
    await front.add_all(orders)
    await front.commit()
    orders[1].status = "paid"
    await front.flush()
    await front.delete(orders[0])
    await front.commit()
    assert [(event.type.value, event.identity, event.position) for event in heard] == [
        ("create", (1,), 0),
        ("create", (2,), 1),
        ("create", (3,), 2),
        ("update", (2,), 0),
        ("delete", (1,), 1),
    ]
    identifiers = [event.transaction_id for event in heard]
    assert identifiers == [identifiers[0]] * 3 + [identifiers[3]] * 2
    assert identifiers[0] != identifiers[3]
