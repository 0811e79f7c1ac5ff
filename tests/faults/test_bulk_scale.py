"""B2 at scale: many rows are tuples, read and told one by one, and never as many objects."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from sqlalchemy import Executable, delete, func, insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import FrontEnd, scenario

MANY = 12_000


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Row(Base):
    __tablename__ = "bulk_scale_rows"
    __watched_fields__ = ("quantity",)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[str]
    quantity: Mapped[int]
    note: Mapped[str | None]


class Peak:
    """The bytes that were in use at most, above what was in use before."""

    value: int = 0

    def note(self) -> None:
        self.value = max(self.value, tracemalloc.get_traced_memory()[1])

    @contextmanager
    def without(self) -> Generator[None]:
        """Leave out what a block needs for itself: a list of all objects of the process is long."""
        self.note()
        yield
        tracemalloc.reset_peak()


@contextmanager
def peak_memory() -> Generator[Peak]:
    peak = Peak()
    gc.collect()
    tracemalloc.start()
    try:
        yield peak
        peak.note()
    finally:
        tracemalloc.stop()


async def make_rows(front: FrontEnd, many: int = MANY) -> None:
    rows = [{"id": number, "status": "new", "quantity": number % 7} for number in range(many)]
    await front.execute(insert(Row).execution_options(events=False), rows)
    await front.commit()


@pytest.mark.parametrize(
    ("statement", "bytes_per_row"),
    [(update(Row).values(quantity=Row.quantity + 1), 1_000), (delete(Row), 800)],
    ids=["update", "delete"],
)
@scenario(Base.metadata, databases=["sqlite"], front_ends=["sync"])
async def test_memory_per_row(front: FrontEnd, statement: Executable, bytes_per_row: int) -> None:
    """B2, T9: less than a kilobyte for each row, a mapped object takes more; there is one object at a time."""
    await make_rows(front)
    told = at_once = 0

    def count(row: Row, event_type: ModelEvent, changes: Changes | None) -> None:
        nonlocal told, at_once
        told += 1
        if told % 4_000 == 0:
            with peak.without():
                at_once = max(at_once, sum(isinstance(found, Row) for found in gc.get_objects()))

    listens_for(Row, [ModelEvent.UPDATE, ModelEvent.DELETE])(count)
    with peak_memory() as peak:
        options = {"synchronize_session": False, "events": True}
        await front.execute(statement, execution_options=options)
        await front.commit()
    assert (told, at_once) == (MANY, 1)
    assert max(peak.value // MANY, bytes_per_row) == bytes_per_row


@scenario(Base.metadata, databases=["postgresql", "mariadb"], front_ends=["async"])
async def test_streamed_on_asynchronous_drivers(front: FrontEnd) -> None:
    """B2: more rows than one fetch takes, through the cursors of drivers that have to be awaited."""
    await make_rows(front, 3_000)
    changed: list[tuple[int, int]] = []

    @listens_for(Row, ModelEvent.UPDATE)
    async def note(row: Row, event_type: ModelEvent, changes: Changes) -> None:
        changed.append((row.id, changes["quantity"]["new"] - changes["quantity"]["old"]))

    options = {"synchronize_session": False, "events": True}
    await front.execute(update(Row).where(Row.id < 2_500).values(quantity=Row.quantity + 1), execution_options=options)
    await front.commit()
    assert changed == [(number, 1) for number in range(2_500)]
    assert await front.committed_rows(select(func.count()).where(Row.quantity == Row.id % 7 + 1)) == [(2_500,)]
