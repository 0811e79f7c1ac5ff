"""Rule N4: what may be listened to, and which mapped classes that reaches."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ForeignKey, Integer, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, registry

from fastapi_toolsets.models import Changes, ModelEvent, TimestampMixin, UUIDMixin, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, created, deleted, new_base, updated


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Audited:
    """A mixin that knows nothing of SQLAlchemy."""


class Priced:
    """A mixin with a column."""

    price: Mapped[int | None]


class Document(Base):
    __abstract__ = True
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str | None]


class Invoice(Audited, Priced, Document):
    __tablename__ = "invoices"


class Letter(Audited, Document):
    __tablename__ = "letters"


class Note(Document):
    __tablename__ = "notes"


class Vehicle(Base):
    """Joined-table inheritance, two levels deep."""

    __tablename__ = "vehicles"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    name: Mapped[str | None]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}  # noqa: RUF012 - as documented


class Car(Vehicle):
    __tablename__ = "cars"
    id: Mapped[int] = mapped_column(ForeignKey("vehicles.id"), primary_key=True)
    doors: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "car"}  # noqa: RUF012 - as documented


class Taxi(Car):
    """Single-table inheritance on top of a joined table."""

    licence: Mapped[str | None]
    __mapper_args__ = {"polymorphic_identity": "taxi"}  # noqa: RUF012 - as documented


class Machine(Base):
    """Concrete-table inheritance."""

    __tablename__ = "machines"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]


class Robot(Machine):
    __tablename__ = "robots"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]
    arms: Mapped[int | None]
    __mapper_args__ = {"concrete": True}  # noqa: RUF012 - as documented


async def live(front: FrontEnd, *rows: Any) -> None:  # noqa: ANN401 - rows of any model with a title or a name
    """Create, change and delete rows, in a transaction each."""
    await front.add_all(rows)
    await front.commit()
    for row in rows:
        setattr(row, "title" if hasattr(row, "title") else "name", "x")
    await front.commit()
    for row in rows:
        await front.delete(row)
    await front.commit()


@scenario(Base.metadata, databases=LOCAL)
async def test_a_plain_mixin(front: FrontEnd, recorder: EventRecorder) -> None:
    """N4: every mapped class that has it, and no other."""
    recorder.listen(Audited, ModelEvent.UPDATE)
    recorder.listen(Priced, ModelEvent.DELETE)
    await live(front, Invoice(id=1), Letter(id=2), Note(id=3))
    assert sorted(recorder.take(), key=str) == [
        deleted(Invoice, 1),
        updated(Invoice, 1, title=(None, "x")),
        updated(Letter, 2, title=(None, "x")),
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_an_abstract_base(front: FrontEnd, recorder: EventRecorder) -> None:
    """N4: an abstract class between the declarative base and the models, and the declarative base itself."""
    recorder.listen(Document, ModelEvent.CREATE)
    await live(front, Invoice(id=1), Note(id=3), Machine(id=4))
    assert sorted(recorder.take(), key=str) == [created(Invoice, 1), created(Note, 3)]
    recorder.listen(Base, ModelEvent.DELETE)
    await live(front, Note(id=3), Machine(id=4))
    assert sorted(recorder.take(), key=str) == [created(Note, 3), deleted(Machine, 4), deleted(Note, 3)]


@scenario(Base.metadata)
async def test_joined_and_single_table_inheritance(front: FrontEnd, recorder: EventRecorder) -> None:
    """N4, E1: one event per object, however many tables its row is in; changes of every table."""
    recorder.listen(Vehicle)
    rows: list[Any] = [Vehicle(id=1), Car(id=2, doors=3), Taxi(id=3, doors=5, licence="l")]
    await front.add_all(rows)
    await front.commit()
    assert sorted(recorder.take(), key=str) == [created(Car, 2), created(Taxi, 3), created(Vehicle, 1)]
    rows[0].name, rows[1].name, rows[2].name = "v", "c", "t"
    rows[1].doors, rows[2].licence = 4, "m"
    await front.commit()
    assert sorted(recorder.take(), key=str) == [
        updated(Car, 2, name=(None, "c"), doors=(3, 4)),
        updated(Taxi, 3, name=(None, "t"), licence=("l", "m")),
        updated(Vehicle, 1, name=(None, "v")),
    ]
    rows[1].doors = 5
    await front.flush()
    rows[1].name = "d"
    await front.commit()
    assert recorder.take() == [updated(Car, 2, doors=(4, 5), name=("c", "d"))]
    for row in rows:
        await front.delete(row)
    await front.commit()
    assert sorted(recorder.take(), key=str) == [deleted(Car, 2), deleted(Taxi, 3), deleted(Vehicle, 1)]


@scenario(Base.metadata)
async def test_inherited_rows_that_were_not_loaded(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E11: old values from both tables, expired or loaded as the base class, whose query leaves columns out."""
    shown: list[tuple[object, ...]] = []

    @listens_for(Taxi)
    async def show(taxi: Taxi, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((event_type.value, taxi.id, taxi.kind, taxi.name, taxi.doors, taxi.licence))

    await front.add(Taxi(id=3, name="t", doors=5, licence="l"))
    await front.commit()
    await front.expunge_all()
    recorder.listen(Vehicle)
    taxi: Any = await front.get_one(Vehicle, 3)
    assert type(taxi) is Taxi
    taxi.doors = 6
    await front.commit()
    await front.expire(taxi)
    taxi.name, taxi.licence, taxi.doors = "u", "m", 6
    await front.commit()
    await front.expunge_all()
    await front.delete(await front.get_one(Vehicle, 3))
    await front.commit()
    assert recorder.take() == [
        updated(Taxi, 3, doors=(5, 6)),
        updated(Taxi, 3, name=("t", "u"), licence=("l", "m")),
        deleted(Taxi, 3),
    ]
    assert shown == [
        ("create", 3, "taxi", "t", 5, "l"),
        ("update", 3, "taxi", "t", 6, "l"),
        ("update", 3, "taxi", "u", 6, "m"),
        ("delete", 3, "taxi", "u", 6, "m"),
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_listening_to_one_class_of_a_hierarchy(front: FrontEnd, recorder: EventRecorder) -> None:
    """N4: a listener of a subclass does not hear of its base or its siblings."""
    recorder.listen(Car)
    await live(front, Vehicle(id=1), Car(id=2), Taxi(id=3))
    assert sorted((kind, model) for kind, model, _, _ in recorder.take()) == [
        ("create", "Car"),
        ("create", "Taxi"),
        ("delete", "Car"),
        ("delete", "Taxi"),
        ("update", "Car"),
        ("update", "Taxi"),
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_concrete_table_inheritance(front: FrontEnd, recorder: EventRecorder) -> None:
    """N4, E10: the same primary key in two tables is two rows."""
    recorder.listen(Machine)
    await live(front, Machine(id=1), Robot(id=1))
    assert sorted(recorder.take(), key=str) == [
        created(Machine, 1),
        created(Robot, 1),
        deleted(Machine, 1),
        deleted(Robot, 1),
        updated(Machine, 1, name=(None, "x")),
        updated(Robot, 1, name=(None, "x")),
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_one_function_on_many_targets_is_called_once(front: FrontEnd, recorder: EventRecorder) -> None:
    """N4: registered on a base, a mixin and the class itself, for the same and for other events: once per event."""
    recorder.listen(Base)
    recorder.listen(Audited, ModelEvent.CREATE)
    recorder.listen(Document, [ModelEvent.UPDATE, ModelEvent.CREATE])
    recorder.listen(Invoice)
    recorder.listen(Invoice)
    await live(front, Invoice(id=1))
    assert recorder.take() == [created(Invoice, 1), updated(Invoice, 1, title=(None, "x")), deleted(Invoice, 1)]


@scenario(Base.metadata, databases=LOCAL)
async def test_bound_methods_of_two_objects_are_two_callbacks(front: FrontEnd, recorder: EventRecorder) -> None:
    """N4: the same method of another object is another function; that of the same object is one."""
    other = EventRecorder()
    for each in (recorder, other, recorder):
        each.listen(Note, ModelEvent.CREATE)
    await live(front, Note(id=1))
    assert (recorder.take(), other.take()) == ([created(Note, 1)], [created(Note, 1)])


@scenario(Base.metadata, databases=LOCAL)
async def test_classes_defined_later(front: FrontEnd, recorder: EventRecorder) -> None:
    """N4, N5: a subclass of an abstract base, a mixin or a mapped class defined after events were dispatched."""
    base = new_base()

    class Parent(base):  # type: ignore[valid-type, misc]
        __tablename__ = "parents"
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        kind: Mapped[str] = mapped_column(String(20))
        title: Mapped[str | None] = mapped_column(String(20))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "p"}  # noqa: RUF012 - as documented

    def create_tables(session: Session) -> None:
        base.metadata.create_all(session.connection())

    recorder.listen(Parent)
    recorder.listen(Audited)
    await front.run_sync(create_tables)
    await live(front, Parent(id=1))
    assert [event[0] for event in recorder.take()] == ["create", "update", "delete"]

    class Later(Parent):
        __mapper_args__ = {"polymorphic_identity": "later"}  # noqa: RUF012 - as documented

    class Mixed(Audited, base):  # type: ignore[valid-type, misc]
        __tablename__ = "mixed"
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        title: Mapped[str | None] = mapped_column(String(20))

    await front.run_sync(create_tables)
    await live(front, Later(id=2), Mixed(id=3))
    assert sorted(recorder.take(), key=str) == [
        created(Later, 2),
        created(Mixed, 3),
        deleted(Later, 2),
        deleted(Mixed, 3),
        updated(Later, 2, title=(None, "x")),
        updated(Mixed, 3, title=(None, "x")),
    ]


@scenario(Base.metadata, databases=LOCAL)
async def test_a_class_mapped_imperatively(front: FrontEnd, recorder: EventRecorder) -> None:
    """N4: listened to before it is mapped."""

    class Plain:
        id: int
        title: str | None

        def __init__(self, key: int) -> None:
            self.id = key

    recorder.listen(Plain)
    mappers = registry()
    table = Table("plain", mappers.metadata, Column("id", Integer, primary_key=True), Column("title", String(20)))
    mappers.map_imperatively(Plain, table)

    def create_tables(session: Session) -> None:
        mappers.metadata.create_all(session.connection())

    await front.run_sync(create_tables)
    await live(front, Plain(1))
    assert recorder.take() == [created(Plain, 1), updated(Plain, 1, title=(None, "x")), deleted(Plain, 1)]
    mappers.dispose()


class MixinBase(DeclarativeBase):
    type_annotation_map = TYPES


class Purchase(MixinBase, UUIDMixin, TimestampMixin):
    __tablename__ = "purchases"
    __watched_fields__ = ("status",)
    status: Mapped[str | None]


@scenario(MixinBase.metadata)
async def test_the_mixins_of_the_library_are_targets(front: FrontEnd, recorder: EventRecorder) -> None:
    """N4: listening to a mixin of the library; the model of the guide, with its generated key."""
    recorder.listen(UUIDMixin)
    purchase = Purchase(status="new")
    await front.add(purchase)
    await front.commit()
    purchase.status = "paid"
    await front.commit()
    await front.expire(purchase)
    purchase.status = "sent"
    await front.commit()
    assert recorder.take() == [
        created(Purchase, purchase.id),
        updated(Purchase, purchase.id, status=("new", "paid")),
        updated(Purchase, purchase.id, status=("paid", "sent")),
    ]
