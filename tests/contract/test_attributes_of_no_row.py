"""Rules N7, E3, E4, E5 and E11 for attributes and classes of which the row alone does not say everything."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Table,
    bindparam,
    func,
    outerjoin,
    select,
    text,
)
from sqlalchemy.ext.declarative import ConcreteBase
from sqlalchemy.ext.mutable import Mutable, MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    column_property,
    mapped_column,
    query_expression,
    reconstructor,
    relationship,
    with_expression,
)

from fastapi_toolsets.errors import WatchedFieldsError
from fastapi_toolsets.models import Changes, Event, ModelEvent, Phase, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .bulk_models import store
from .event_models import LOCAL, created, deleted, updated


class Bytes(Mutable, bytearray):
    """Bytes that tell it when they change in place."""

    @classmethod
    def coerce(cls, key: str, value: object) -> Any:  # noqa: ANN401 - the base says so
        return value if value is None or isinstance(value, cls) else cls(value)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType] - bytes

    def append(self, byte: Any, /) -> None:  # noqa: ANN401 - whatever has an index
        super().append(byte)
        self.changed()


class Base(DeclarativeBase):
    type_annotation_map = TYPES


counter = iter(range(100, 200))


class Item(Base):
    __tablename__ = "no_row_items"
    __watched_fields__ = ("amount", "tens", "raw", "data")
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    amount: Mapped[int] = mapped_column(default=1)
    raw: Mapped[Any] = mapped_column(Bytes.as_mutable(LargeBinary(50)), nullable=True)
    data: Mapped[Any] = mapped_column(MutableDict.as_mutable(JSON), nullable=True)
    stamped: Mapped[int] = mapped_column(default=0, onupdate=lambda: next(counter))
    tens: Mapped[int | None] = column_property(amount * 10)
    times: Mapped[int | None] = column_property(amount * bindparam("times"), deferred=True)
    wanted: Mapped[int | None] = query_expression()


@scenario(Base.metadata)
async def test_expressions_that_only_queries_make(front: FrontEnd, recorder: EventRecorder) -> None:
    """E4: they are nobody's change, and a commit does not ask for them, which may want a parameter."""
    recorder.listen(Item)
    await front.add(Item(id=1))
    await front.commit()
    await front.close()
    statement = select(Item).options(with_expression(Item.wanted, Item.amount + 5))
    item = (await front.scalars(statement)).one()
    assert item.wanted == 6
    item.amount = 2
    with front.statements() as sent:
        await front.commit()
    assert recorder.take() == [created(Item, 1), updated(Item, 1, amount=(1, 2), tens=(10, 20))]
    assert not [statement for statement in sent if "times" in statement]


@scenario(Base.metadata)
async def test_mutable_values_over_plain_types(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5: old and new are copies whatever type the values are stored as."""
    await store(front, Item(id=1, raw=b"a"))
    recorder.listen(Item)
    item = await front.get_one(Item, 1)
    item.raw.append(98)
    await front.commit()
    item.raw.append(99)
    assert recorder.take() == [updated(Item, 1, raw=(b"a", b"ab"))]


@scenario(Base.metadata)
async def test_deleted_row_whose_values_change_in_place(front: FrontEnd) -> None:
    """E5, E11: after its flush, by whoever holds it and by the callback before."""
    await store(front, Item(id=1, data={"kept": 1}))
    shown: list[object] = []

    @listens_for(Item, ModelEvent.DELETE)
    def show(item: Item, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        assert event.before is not None
        shown.append((dict(item.data), event.before["data"]))
        item.data["by a callback"] = True

    @listens_for(Item, ModelEvent.DELETE)
    def show_again(item: Item, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append(dict(item.data))

    item = await front.get_one(Item, 1)
    await front.delete(item)
    await front.flush()
    item.data["gone"] = True
    await front.commit()
    assert shown == [({"kept": 1}, {"kept": 1}), {"kept": 1}]


@scenario(Base.metadata)
async def test_unwatched_values_that_python_makes_for_each_row(front: FrontEnd) -> None:
    """E11: of several rows in one statement each callback sees its own."""
    shown: list[tuple[int, int]] = []

    @listens_for(Item, ModelEvent.UPDATE)
    def show(item: Item, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((item.id, item.stamped))

    await store(front, Item(id=1), Item(id=2), Item(id=3))
    for item in await front.scalars(select(Item)):
        item.amount = 5
    await front.commit()
    assert shown == await front.committed_rows(select(Item.id, Item.stamped).order_by(Item.id))


class Stamped(Base):
    __tablename__ = "no_row_stamped"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]
    made: Mapped[str] = mapped_column(default="old", onupdate=lambda: "new")
    counted: Mapped[int] = mapped_column(default=1, onupdate=text("counted + 1"))
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy reads it


@pytest.mark.parametrize("assigned", ["made", "counted", "version"])
@scenario(Base.metadata)
async def test_values_that_an_update_sets_although_they_were_assigned(
    front: FrontEnd, recorder: EventRecorder, assigned: str
) -> None:
    """E3, E4: assigned what it had already, as a form does that sets everything."""
    await store(front, Stamped(id=1, name="old"))
    recorder.listen(Stamped)
    stamped = await front.get_one(Stamped, 1)
    setattr(stamped, assigned, getattr(stamped, assigned))
    stamped.name = "new"
    await front.commit()
    changes = {"name": ("old", "new"), "made": ("old", "new"), "counted": (1, 2), "version": (1, 2)}
    assert recorder.take() == [updated(Stamped, 1, **changes)]


@scenario(Base.metadata)
async def test_expression_that_is_flushed_by_reading_another_attribute(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """E4: SQLAlchemy takes what that flush has expired for loaded, and loads the rest."""
    await store(front, Stamped(id=1, name="old"))
    recorder.listen(Stamped)
    stamped: Any = await front.get_one(Stamped, 1)
    shown: list[int] = []

    @listens_for(Stamped)
    def show(stamped: Stamped, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append(stamped.counted)

    await front.expire(stamped)
    stamped.counted = func.abs(-7)

    def read(_session: object) -> None:
        assert stamped.name == "old"

    await front.run_sync(read)
    await front.commit()
    told = [updated(Stamped, 1, counted=(1, 7), made=("old", "new"), version=(1, 2))]
    assert (recorder.take(), shown) == (told, [7])


@scenario(Base.metadata)
async def test_identity_of_a_deleted_row_whose_key_was_changed(front: FrontEnd) -> None:
    """E8, N1: it is the key that the row had, by which everybody else knows it."""
    await store(front, Stamped(id=1, name="old"))
    told: list[object] = []

    @listens_for(Stamped, ModelEvent.DELETE)
    def tell(stamped: Stamped, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        assert event.before is not None
        told.append((event.identity, event.before["id"]))

    stamped = await front.get_one(Stamped, 1)
    stamped.id = 2
    await front.flush()
    await front.delete(stamped)
    await front.commit()
    assert told == [((1,), 1)]


class Reader(Base):
    """Sets more than columns on each of its objects."""

    __tablename__ = "no_row_readers"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]

    def __init__(self, **values: object) -> None:
        super().__init__(**values)
        self.notes: list[str] = []

    @reconstructor
    def begin_notes(self) -> None:
        """Do what the constructor does for an object that is loaded."""
        self.notes = []


@scenario(Base.metadata)
async def test_copies_are_made_as_loaded_objects_are(front: FrontEnd) -> None:
    """E11, P2: a class that sets more on its objects than columns finds it on those that callbacks are shown, too."""
    shown: list[object] = []

    @listens_for(Reader, phase=Phase.AFTER_ROLLBACK)
    @listens_for(Reader, ModelEvent.UPDATE)
    def show(reader: Reader, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((event_type.value, reader.name, reader.notes))

    await front.add(Reader(id=1, name="rolled back"))
    await front.flush()
    await front.rollback()
    reader = Reader(id=1, name="old")
    await front.add(reader)
    await front.commit()
    reader.name = "new"
    await front.flush()
    await front.expunge(reader)
    reader.name = "never written"
    await front.commit()
    assert shown == [("create", "rolled back", []), ("update", "new", [])]


USERS = Table(
    "no_row_users",
    Base.metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(20)),
)
ADDRESSES = Table(
    "no_row_addresses",
    Base.metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("user_id", Integer, ForeignKey("no_row_users.id")),
    Column("mail", String(20)),
)


class UserWithAddress(Base):
    """Rows of an outer join, of which a part of the key is NULL where there is no address."""

    __table__ = outerjoin(USERS, ADDRESSES)
    id: Mapped[int] = column_property(USERS.c.id, ADDRESSES.c.user_id)
    address_id: Mapped[int | None] = column_property(ADDRESSES.c.id)
    name: Mapped[str] = column_property(USERS.c.name)
    mail: Mapped[str | None] = column_property(ADDRESSES.c.mail)


@scenario(Base.metadata)
async def test_rows_of_which_a_part_of_the_key_is_null(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3: they are found again where something has to be read, also after statements past the unit of work."""
    await front.execute(USERS.insert(), [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    await front.execute(ADDRESSES.insert(), [{"id": 7, "user_id": 2, "mail": "m"}])
    await front.commit()
    recorder.listen(UserWithAddress)
    found = list(await front.scalars(select(UserWithAddress).order_by(USERS.c.id)))
    await front.expire_all()
    for user in found:
        user.name = "new"
    await front.commit()
    await front.execute(text("UPDATE no_row_users SET name = name"))  # past the unit of work
    for user in found:
        user.name = "newer"
    await front.commit()
    assert recorder.take() == [
        updated(UserWithAddress, (1, None), name=("a", "new")),
        updated(UserWithAddress, (2, 7), name=("b", "new")),
        updated(UserWithAddress, (1, None), name=("new", "newer")),
        updated(UserWithAddress, (2, 7), name=("new", "newer")),
    ]


class ConcreteModels(DeclarativeBase): ...


class Worker(ConcreteBase, ConcreteModels):
    __tablename__ = "no_row_workers"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(20), server_default="nobody")
    __mapper_args__ = {"polymorphic_identity": "worker", "concrete": True}  # noqa: RUF012 - SQLAlchemy reads it


class Manager(Worker):
    __tablename__ = "no_row_managers"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(20), server_default="nobody")
    __mapper_args__ = {"polymorphic_identity": "manager", "concrete": True}  # noqa: RUF012 - SQLAlchemy reads it


@scenario(ConcreteModels.metadata)
async def test_rows_of_a_concrete_base_are_read(front: FrontEnd, recorder: EventRecorder) -> None:
    """N4, E3, E11: though the class is mapped to a union, from the table that has them."""
    recorder.listen(Worker)
    worker, manager = Worker(id=1), Manager(id=2)
    await front.add_all([worker, manager])
    await front.commit()
    await front.expire_all()
    worker.name = manager.name = "somebody"
    await front.commit()
    await front.delete(worker)
    await front.commit()
    told = recorder.take()
    assert sorted(told[:2]) == [created(Manager, 2), created(Worker, 1)]
    assert sorted(told[2:4], key=str) == [
        updated(Manager, 2, name=("nobody", "somebody")),
        updated(Worker, 1, name=("nobody", "somebody")),
    ]
    assert told[4:] == [deleted(Worker, 1)]


@scenario(Base.metadata, databases=LOCAL)
async def test_watched_relationship_that_another_class_names(front: FrontEnd, recorder: EventRecorder) -> None:
    """N7, E7: by ``backref``, which is not there yet when the class itself is configured."""

    class Models(DeclarativeBase): ...

    class Shelf(Models):
        __tablename__ = "shelves"
        __watched_fields__ = ("books",)
        id: Mapped[int] = mapped_column(primary_key=True)

    class Book(Models):
        __tablename__ = "books"
        id: Mapped[int] = mapped_column(primary_key=True)
        shelf_id: Mapped[int | None] = mapped_column(ForeignKey("shelves.id"))
        shelf: Mapped[Shelf | None] = relationship(backref="books")

    recorder.listen(Shelf)

    def create_tables(session: Session) -> None:
        Models.metadata.create_all(session.connection())

    await front.run_sync(create_tables)
    shelf, book = Shelf(id=1), Book(id=1)
    await front.add_all([shelf, book])
    await front.commit()
    book.shelf = shelf
    await front.commit()
    assert recorder.take() == [created(Shelf, 1), updated(Shelf, 1, books=([], [book]))]


@pytest.mark.parametrize("watched", ["books", "b", "more"])
def test_fields_that_nobody_can_watch(watched: str) -> None:
    """N7: a ``backref`` of another class, a letter of one, and an expression that only queries make."""

    class Models(DeclarativeBase): ...

    class Lonely(Models):
        __tablename__ = "lonely"
        __watched_fields__ = (watched,)
        id: Mapped[int] = mapped_column(primary_key=True)
        more: Mapped[int | None] = query_expression()

    class Shelf(Models):
        __tablename__ = "shelves"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Book(Models):
        __tablename__ = "books"
        id: Mapped[int] = mapped_column(primary_key=True)
        shelf_id: Mapped[int | None] = mapped_column(ForeignKey("shelves.id"))
        shelf: Mapped[Shelf | None] = relationship(backref="books")

    with pytest.raises(WatchedFieldsError, match=f"Lonely.__watched_fields__ names '{watched}'"):
        Models.registry.configure()
    assert Lonely.__name__ == "Lonely"
    assert Book.__name__ == "Book"
    Models.registry.dispose()
