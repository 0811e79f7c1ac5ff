"""E9 where keys have no order of their own, few rows refer to each other, and numbers are not texts."""

from __future__ import annotations

import enum
from itertools import combinations
from typing import Any

from sqlalchemy import ForeignKey, Integer, inspect, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, mapped_column, relationship

from fastapi_toolsets.events.plans import plans
from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..contract.event_models import LOCAL, Base, Order, created, deleted, updated
from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario


class Day(enum.Enum):
    """Members have no order; by ``repr`` they stand as in the alphabet."""

    FRIDAY = 5
    MONDAY = 1
    SATURDAY = 6
    SUNDAY = 7
    THURSDAY = 4
    TUESDAY = 2
    WEDNESDAY = 3


class OrderingBase(DeclarativeBase):
    type_annotation_map = TYPES


class Opening(OrderingBase):
    __tablename__ = "openings"
    day: Mapped[Day] = mapped_column(primary_key=True)
    hours: Mapped[int]


class Node(OrderingBase):
    __tablename__ = "nodes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id"))
    parent: Mapped[Node | None] = relationship(remote_side="Node.id")


@scenario(Base.metadata, databases=LOCAL)
async def test_rows_are_ordered_by_their_keys_not_their_texts(front: FrontEnd, recorder: EventRecorder) -> None:
    """E9: 9 before 10 before 100, for updates and for deletes."""
    orders = [Order(id=number, status="new") for number in (100, 9, 10)]
    await front.add_all(orders)
    await front.commit()
    recorder.listen(Order)
    for order in orders:
        order.status = "paid"
    await front.commit()
    assert recorder.take() == [updated(Order, number, status=("new", "paid")) for number in (9, 10, 100)]
    for order in orders:
        await front.delete(order)
    await front.commit()
    assert recorder.take() == [deleted(Order, number) for number in (9, 10, 100)]


@scenario(Base.metadata, databases=LOCAL)
async def test_rows_of_several_databases(front: FrontEnd) -> None:
    """E9: where a session tells rows with the same key apart by identity tokens, as a sharded one does, by those."""
    await front.add(Order(id=1, status="new"))
    await front.commit()
    session = front.new_session()
    told: list[str] = []

    @listens_for(Order)
    def tell(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        told.append(order.status)

    found = {
        token: (await session.scalars(select(Order).execution_options(identity_token=token))).one()
        for token in "gacfbed"
    }
    for token, order in found.items():
        order.status = token
    await session.commit()
    assert told == ["a", "b", "c", "d", "e", "f", "g"]


@scenario(OrderingBase.metadata, databases=LOCAL)
async def test_keys_without_an_order_still_give_one(front: FrontEnd, recorder: EventRecorder) -> None:
    """E9: the order is the same in every run, although enumeration members cannot be compared."""
    openings = [Opening(day=day, hours=8) for day in reversed(Day)]
    await front.add_all(openings)
    await front.commit()
    recorder.listen(Opening)
    for opening in openings:
        opening.hours = 9
    await front.commit()
    assert recorder.take() == [updated(Opening, day, hours=(8, 9)) for day in Day]


@scenario(OrderingBase.metadata, databases=LOCAL)
async def test_two_rows_of_one_table(front: FrontEnd, recorder: EventRecorder) -> None:
    """E9: a parent before its child where these two are all that a flush wrote; a delete as well."""
    recorder.listen(Node)
    parent = Node(id=2)
    child = Node(id=1, parent=parent)
    await front.add_all([child, parent])
    await front.commit()
    assert recorder.take() == [created(Node, 2), created(Node, 1)]
    await front.delete(child)
    await front.delete(parent)
    await front.commit()
    assert recorder.take() == [deleted(Node, 2), deleted(Node, 1)]


@scenario(OrderingBase.metadata, databases=LOCAL)
async def test_only_what_refers_is_moved(front: FrontEnd, recorder: EventRecorder) -> None:
    """E9: rows keep the order in which they were added unless one has to stand behind another."""
    recorder.listen(Node)
    four, five = Node(id=4), Node(id=5)
    await front.add_all([four, Node(id=3), Node(id=1, parent=four), Node(id=6, parent=five), five])
    await front.commit()
    assert recorder.take() == [created(Node, number) for number in (4, 3, 1, 5, 6)]


def test_orders_of_few_combinations_are_kept() -> None:
    """T9: models that are flushed together in ever new combinations leave no order for each behind."""

    class Models(DeclarativeBase): ...

    def model(number: int) -> Mapper[Any]:
        attributes = {"__tablename__": f"models_{number}", "id": mapped_column(Integer, primary_key=True)}
        mapper: Mapper[Any] = inspect(type(f"Model{number}", (Models,), attributes))
        return mapper

    mappers = [model(number) for number in range(11)]
    plans.clear()
    for size in range(1, len(mappers) + 1):
        for chosen in combinations(mappers, size):
            assert [*plans.ranks(chosen)] == [*chosen]
    assert len(plans._ranks) <= 1_000  # noqa: SLF001 - nobody else can tell
