"""Reading rows past the session's own loading, yet as SQLAlchemy's loading would: routed, and announced."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import Engine, event, func
from sqlalchemy.orm import Mapper, sessionmaker

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
async def test_what_was_read_is_announced(front: FrontEnd, recorder: EventRecorder) -> None:
    """E11: SQLAlchemy's ``refresh`` event names the attributes that were loaded for a callback."""
    refreshed: list[tuple[int, list[str] | None]] = []

    def note(order: Order, context: object, names: Iterable[str] | None) -> None:
        refreshed.append((order.id, None if names is None else sorted(names)))

    order: Any = Order(id=1, status="new", quantity=1, note="n", memo="m")
    await front.add(order)
    await front.commit()
    recorder.listen(Order)
    event.listen(Order, "refresh", note)
    try:
        order.quantity = func.abs(-5)
        await front.commit()
    finally:
        event.remove(Order, "refresh", note)
    assert recorder.take() == [updated(Order, 1, quantity=(1, 5))]
    assert refreshed == [(1, ["quantity"])]
