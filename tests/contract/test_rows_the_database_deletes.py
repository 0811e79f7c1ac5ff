"""Rules E1, E6 and E11 where the database deletes rows by itself that the transaction has written before."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import created, deleted, updated


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


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(default="book")
    pages: Mapped[list[Page]] = relationship(cascade="all, delete-orphan")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "book"}  # noqa: RUF012 - SQLAlchemy's own


class Atlas(Book):
    __tablename__ = "atlases"
    id: Mapped[int] = mapped_column(ForeignKey("books.id", ondelete="CASCADE"), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "atlas"}  # noqa: RUF012 - SQLAlchemy's own


class Page(Base):
    """Deleted by the unit of work before the database would."""

    __tablename__ = "pages"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id", ondelete="CASCADE"))


@scenario(Base.metadata)
async def test_nothing_is_read_where_the_unit_of_work_deletes_the_rows(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """E12: a foreign key that would have the database delete rows has none to delete; nor a joined class's key."""
    await front.add_all([Atlas(id=1, pages=[Page(id=1)]), Atlas(id=2)])
    await front.commit()
    recorder.listen(Base)
    atlas = await front.get_one(Atlas, 1)
    await front.refresh(atlas, ["pages"])
    with front.statements() as statements:
        await front.delete(atlas)
        await front.add(Atlas(id=3, pages=[Page(id=3)]))
        await front.commit()
    assert {statement.split()[0] for statement in statements} == {"INSERT", "DELETE"}
    told = [created(Atlas, 3), created(Page, 3), deleted(Page, 1), deleted(Atlas, 1)]
    assert sorted(recorder.take(), key=str) == sorted(told, key=str)
