"""Reading rows past the session's own loading, yet as SQLAlchemy's loading would: routed, and announced."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from itertools import combinations
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import BigInteger, Column, Engine, Integer, Select, String, Table, event, func, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, QueryContext, Session, mapped_column, sessionmaker

from fastapi_toolsets.events.capture.loading import read_objects, read_rows
from fastapi_toolsets.models import SyncEventSession

from ..contract.event_models import LOCAL, Base, Order, updated
from ..databases import Database, tables
from ..front_ends import EventRecorder, FrontEnd, scenario


class RoutedSession(SyncEventSession):
    """Knows its engine by the mapper alone, as SQLAlchemy's documentation routes tables to databases."""

    engines: dict[type[object], Engine]

    def get_bind(self, mapper: Mapper[Any] | type[object] | None = None, **options: Any) -> Engine:  # noqa: ANN401 - SQLAlchemy's own
        assert isinstance(mapper, Mapper), f"nothing says what to route by: {options}"
        return self.engines[mapper.class_]


@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_old_values_are_read_where_the_mapper_is_routed_to(database: Database, recorder: EventRecorder) -> None:
    """E3: from the database that the session's own ``get_bind`` names for the mapper."""
    engine = database.create_engine()
    factory = sessionmaker(class_=RoutedSession)
    RoutedSession.engines = {Order: engine}
    with tables(database, Base.metadata), factory() as session:
        order = Order(id=1, status="new", quantity=1)
        session.add(order)
        session.commit()
        recorder.listen(Order)
        session.expire(order)
        order.status = "paid"
        session.commit()
        assert recorder.take() == [updated(Order, 1, status=("new", "paid"))]
    engine.dispose()


@scenario(Base.metadata, databases=LOCAL)
async def test_what_was_read_is_announced_to_nobody_who_may_want_the_query(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """E11: ``refresh`` listeners are given the query that has loaded something; for a callback none has."""
    refreshed: list[int] = []

    def note(order: Order, context: QueryContext, names: Iterable[str] | None) -> None:
        assert context.session is not None
        refreshed.append(order.id)

    order: Any = Order(id=1, status="new", quantity=1, note="n", memo="m")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    event.listen(Order, "refresh", note)
    try:
        order.quantity = func.abs(-5)
        await front.commit()
        assert (recorder.take(), refreshed) == ([updated(Order, 1, quantity=(1, 5))], [])
        await front.refresh(order)
    finally:
        event.remove(Order, "refresh", note)
    assert refreshed == [1]


class PlaceBase(DeclarativeBase): ...


class Place(PlaceBase):
    """Known by two columns."""

    __tablename__ = "places"
    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seat: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    taken: Mapped[bool]


class Ticket(PlaceBase):
    __tablename__ = "tickets"
    key: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int]


class Visit(PlaceBase):
    __tablename__ = "visits"
    key: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    number: Mapped[int]


class Visitor(PlaceBase):
    __tablename__ = "visitors"
    key: Mapped[str] = mapped_column(String(20), primary_key=True)
    number: Mapped[int]


@pytest.mark.parametrize("count", [1, 9, 10, 501])
@scenario(PlaceBase.metadata)
async def test_rows_are_found_by_keys_of_any_type(front: FrontEnd, count: int) -> None:
    """E11, E12: few and many, for which PostgreSQL is asked in two ways; a SELECT for each 500 rows."""
    keys_of: dict[type[Any], list[Any]] = {
        Ticket: [UUID(int=2**100 + number) for number in range(count)],
        Visit: [2**40 + number for number in range(count)],
        Visitor: [f"Visitor {number}" for number in range(count)],
    }
    others = {Ticket: UUID(int=0), Visit: 0, Visitor: "nobody"}
    for model, keys in keys_of.items():
        rows = [model(key=key, number=number) for number, key in enumerate([*keys, others[model]])]
        await front.add_all(rows)
        await front.flush()
        with front.statements() as sent:
            found = await front.run_sync(read_rows, inspect(model), [(model, (key,), None) for key in keys], ["number"])
        assert found == {(model, (key,), None): {"number": number} for number, key in enumerate(keys)}
        assert len(sent) == (2 if count > 500 else 1)


@scenario(PlaceBase.metadata, databases=LOCAL, front_ends=["sync"])
async def test_only_the_rows_asked_for_are_read(front: FrontEnd) -> None:
    """E12: not all those that have the same first column, where two make up the key; one SELECT for those there are."""
    places = [Place(row=row, seat=seat, taken=row == seat) for row in (1, 2) for seat in (1, 2)]
    await front.add_all(places)
    await front.commit()
    asked = [(1, 2), (2, 2), (3, 3)]
    with front.statements() as sent:
        rows = read_rows(front.sync_session, inspect(Place), [(Place, key, None) for key in asked], ["taken"])
    assert rows == {(Place, (1, 2), None): {"taken": False}, (Place, (2, 2), None): {"taken": True}}
    assert len(sent) == 1
    await front.expunge_all()
    objects = read_objects(front.sync_session, inspect(Place), asked, None)
    assert objects == {identity: await front.get(Place, identity) for identity in asked[:2]}
    assert len(front.sync_session.identity_map) == 2


class WideBase(DeclarativeBase): ...


class Wide(WideBase):
    __table__ = Table(
        "wide",
        WideBase.metadata,
        Column("id", Integer, primary_key=True),
        *(Column(f"value_{number}", Integer) for number in range(8)),
    )


@scenario(WideBase.metadata, databases=LOCAL, front_ends=["sync"])
async def test_statements_are_kept_within_bounds(front: FrontEnd) -> None:
    """T9: queries that load other columns each time do not leave a SELECT for each combination behind."""
    mapper = inspect(Wide)
    keys = [f"value_{number}" for number in range(8)]
    session = Session(front.sync_engine.execution_options(compiled_cache=None))

    def kept() -> int:
        gc.collect()
        return sum(isinstance(found, Select) for found in gc.get_objects())

    before = kept()
    for count in range(1, len(keys) + 1):
        for chosen in combinations(keys, count):
            read_rows(session, mapper, [(mapper.class_, (1,), None)], chosen)
    session.close()
    assert min(kept() - before, 100) == kept() - before
