"""Rules E1, E6 and E11 where the database deletes rows by itself that the transaction has written before."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import updated


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Ship(Base):
    __tablename__ = "ships"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    cabins: Mapped[list[Cabin]] = relationship(passive_deletes=True)


class Cabin(Base):
    """Deleted by the database with its ship."""

    __tablename__ = "cabins"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    ship_id: Mapped[int] = mapped_column(ForeignKey("ships.id", ondelete="CASCADE"))
    name: Mapped[str | None]


class Bed(Base):
    """Loses its cabin when the database deletes that."""

    __tablename__ = "beds"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    cabin_id: Mapped[int | None] = mapped_column(ForeignKey("cabins.id", ondelete="SET NULL"))
    name: Mapped[str | None]


@scenario(Base.metadata)
async def test_rows_that_the_database_deletes_after_they_were_written(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E11: what the transaction had done to them before is not told; others show what has become of them."""
    for rows in ([Ship(id=1), Ship(id=2)], [Cabin(id=1, ship_id=1), Cabin(id=2, ship_id=2)], [Bed(id=1, cabin_id=1)]):
        await front.add_all(rows)
        await front.commit()
    for model in (Cabin, Bed):
        recorder.listen(model)
    shown: list[int | None] = []

    @listens_for(Bed)
    def look(bed: Bed, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append(bed.cabin_id)

    for key in (1, 2):
        (await front.get_one(Cabin, key)).name = "changed"
    (await front.get_one(Bed, 1)).name = "changed"
    await front.flush()
    await front.delete(await front.get_one(Ship, 1))
    await front.commit()
    named = (None, "changed")
    assert recorder.take() == [updated(Cabin, 2, name=named), updated(Bed, 1, name=named)]
    assert shown == [None]
