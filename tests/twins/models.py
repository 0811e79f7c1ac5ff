"""The models of the programs: each way to map that changes what a flush does, loads or keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, Column, ForeignKey, Integer, Table, UniqueConstraint, text
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, backref, composite, mapped_column, relationship

from tests.databases import TYPES


class Base(DeclarativeBase):
    type_annotation_map = TYPES


@dataclass
class Address:
    street: str | None
    number: int | None


memberships = Table(
    "twin_memberships",
    Base.metadata,
    Column("owner_id", Integer, ForeignKey("twin_owners.id"), primary_key=True),
    Column("club_id", Integer, ForeignKey("twin_clubs.id"), primary_key=True),
)


class Owner(Base):
    """A parent of every kind of child; values of every kind of origin."""

    __tablename__ = "twin_owners"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str | None] = mapped_column(unique=True)
    name: Mapped[str | None]
    remark: Mapped[str | None] = mapped_column(deferred=True)
    rank: Mapped[int] = mapped_column(server_default=text("3"))
    touched: Mapped[int | None] = mapped_column(default=0, onupdate=text("touched + 1"))
    mark: Mapped[int | None] = mapped_column(onupdate=lambda: 7)
    street: Mapped[str | None]
    number: Mapped[int | None]
    address: Mapped[Address] = composite("street", "number")
    settings: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(JSON()))

    pets: Mapped[list[Pet]] = relationship(back_populates="owner", cascade="all, delete-orphan")
    visits: Mapped[list[Visit]] = relationship(back_populates="owner", cascade="all", passive_deletes=True)
    letters: Mapped[list[Letter]] = relationship(lazy="raise", backref=backref("owner", lazy="raise"))
    named: Mapped[list[Pet]] = relationship(viewonly=True)
    clubs: Mapped[list[Club]] = relationship(secondary=memberships, back_populates="owners")


class Pet(Base):
    """A child that dies with its parent, with a version and a one-to-one child of its own."""

    __tablename__ = "twin_pets"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("twin_owners.id"))
    name: Mapped[str | None]
    weight: Mapped[int | None]
    version: Mapped[int] = mapped_column()

    owner: Mapped[Owner | None] = relationship(back_populates="pets")
    chip: Mapped[Chip | None] = relationship(back_populates="pet", cascade="all, delete-orphan", single_parent=True)
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy's own way to say it


class Chip(Base):
    __tablename__ = "twin_chips"

    id: Mapped[int] = mapped_column(primary_key=True)
    pet_id: Mapped[int | None] = mapped_column(ForeignKey("twin_pets.id"))
    number: Mapped[int | None]

    pet: Mapped[Pet | None] = relationship(back_populates="chip")


class Visit(Base):
    """A child that the database deletes."""

    __tablename__ = "twin_visits"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("twin_owners.id", ondelete="CASCADE"))
    reason: Mapped[str | None]

    owner: Mapped[Owner | None] = relationship(back_populates="visits")


class Letter(Base):
    """A child whose relationship, and its parent's, refuses to load."""

    __tablename__ = "twin_letters"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("twin_owners.id"))
    body: Mapped[str | None]
    stamps: Mapped[int | None] = mapped_column(server_default=text("1"))


class Club(Base):
    """A row of which only one field is watched, which does not opt in to events of bulk statements."""

    __tablename__ = "twin_clubs"
    __watched_fields__ = ("title",)

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    seats: Mapped[int | None]

    owners: Mapped[list[Owner]] = relationship(secondary=memberships, back_populates="clubs")


class Node(Base):
    __tablename__ = "twin_nodes"

    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("twin_nodes.id"))
    name: Mapped[str | None]

    parent: Mapped[Node | None] = relationship(back_populates="children", remote_side="Node.id")
    children: Mapped[list[Node]] = relationship(back_populates="parent")


class Animal(Base):
    """The base of a joined hierarchy."""

    __tablename__ = "twin_animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012 - as above

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str | None]


class Dog(Animal):
    __tablename__ = "twin_dogs"
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012 - as above

    id: Mapped[int] = mapped_column(ForeignKey("twin_animals.id"), primary_key=True)
    tricks: Mapped[int | None]
    barks: Mapped[int | None] = mapped_column(server_default=text("2"), onupdate=text("barks + 1"))


class Item(Base):
    """The base of a hierarchy in one table."""

    __tablename__ = "twin_items"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "item"}  # noqa: RUF012 - as above

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str | None]


class Book(Item):
    __mapper_args__ = {"polymorphic_identity": "book"}  # noqa: RUF012 - as above

    pages: Mapped[int | None]


class Slot(Base):
    """A row with a key of two columns, of which one may be NULL."""

    __tablename__ = "twin_slots"

    __table_args__ = (UniqueConstraint("line", "place"),)

    line: Mapped[int] = mapped_column()
    place: Mapped[int | None] = mapped_column()
    label: Mapped[str | None]
    __mapper_args__ = {"primary_key": [line, place]}  # noqa: RUF012 - as above


class Box(Base):
    """A row with a key that programs change; it opts in to events of bulk statements."""

    __tablename__ = "twin_boxes"
    __bulk_events__ = True

    code: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int | None]
    count: Mapped[int] = mapped_column(default=1, onupdate=text("count + 1"))
    holds: Mapped[list[Content]] = relationship(back_populates="box", passive_updates=True)


class Content(Base):
    __tablename__ = "twin_contents"
    __bulk_events__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    box_code: Mapped[str | None] = mapped_column(ForeignKey("twin_boxes.code", onupdate="CASCADE"))
    name: Mapped[str | None]

    box: Mapped[Box | None] = relationship(back_populates="holds")


MODELS: tuple[type[Base], ...] = (
    Owner,
    Pet,
    Chip,
    Visit,
    Letter,
    Club,
    Node,
    Animal,
    Dog,
    Item,
    Book,
    Slot,
    Box,
    Content,
)

WORDS = ("a", "b", None)
NUMBERS = (0, 1, 2, None)

COLUMNS: dict[type[Base], dict[str, tuple[Any, ...]]] = {
    Owner: {
        "code": ("c1", "c2", None),
        "name": WORDS,
        "remark": WORDS,
        "rank": (1, 3),
        "mark": (1, 7),
        "street": WORDS,
        "number": NUMBERS,
        "settings": (None, {}, {"v": 1}),
        "touched": (0, 1),
    },
    Pet: {"name": WORDS, "weight": NUMBERS, "owner_id": (1, 2, 3, None)},
    Chip: {"number": NUMBERS, "pet_id": (1, 2, None)},
    Visit: {"reason": WORDS, "owner_id": (1, 2, None)},
    Letter: {"body": WORDS, "owner_id": (1, 2, None), "stamps": NUMBERS},
    Club: {"title": WORDS, "seats": NUMBERS},
    Node: {"name": WORDS, "parent_id": (1, 2, None)},
    Animal: {"name": WORDS},
    Dog: {"name": WORDS, "tricks": NUMBERS},
    Item: {"title": WORDS},
    Book: {"title": WORDS, "pages": NUMBERS},
    Slot: {"label": WORDS},
    Box: {"size": NUMBERS},
    Content: {"name": WORDS, "box_code": ("b1", "b2", None)},
}
"""The attributes that programs assign, and the values: few, so that they come back to where they were."""

KEYS: dict[type[Base], tuple[tuple[Any, ...], ...]] = {
    **{model: tuple((number,) for number in (1, 2, 3, 4, 5)) for model in MODELS},
    Slot: ((1, 1), (1, 2), (2, None), (3, None), (2, 2)),
    Box: tuple((f"b{number}",) for number in (1, 2, 3, 4, 5)),
    Animal: ((1,), (5,), (6,)),  # no key serves two classes
    Item: ((1,), (5,), (6,)),
    Dog: ((2,), (3,), (4,)),
    Book: ((2,), (3,), (4,)),
}
"""The primary keys that programs use."""

FAMILIES: tuple[tuple[type[Base], str, type[Base], bool], ...] = (
    (Owner, "pets", Pet, True),
    (Owner, "visits", Visit, True),
    (Owner, "letters", Letter, True),
    (Owner, "clubs", Club, True),
    (Club, "owners", Owner, True),
    (Pet, "owner", Owner, False),
    (Pet, "chip", Chip, False),
    (Chip, "pet", Pet, False),
    (Visit, "owner", Owner, False),
    (Letter, "owner", Owner, False),
    (Node, "children", Node, True),
    (Node, "parent", Node, False),
    (Box, "holds", Content, True),
    (Content, "box", Box, False),
)
"""A model, its relationship, to which model, and whether to many."""

SEED: dict[type[Base], list[dict[str, Any]]] = {
    Owner: [
        {"id": 1, "code": "c1", "name": "a", "settings": {"v": 1}, "touched": 0, "street": "a", "number": 1},
        {"id": 2, "code": None, "name": None, "settings": None, "touched": 0, "remark": "b"},
    ],
    Pet: [{"id": 1, "owner_id": 1, "name": "a", "version": 1}, {"id": 2, "owner_id": 1, "name": "b", "version": 1}],
    Chip: [{"id": 1, "pet_id": 1, "number": 1}],
    Visit: [{"id": 1, "owner_id": 1, "reason": "a"}, {"id": 2, "owner_id": 2, "reason": None}],
    Letter: [{"id": 1, "owner_id": 1, "body": "a"}, {"id": 2, "owner_id": None, "body": "b"}],
    Club: [{"id": 1, "title": "a", "seats": 1}, {"id": 2, "title": "b", "seats": 2}],
    Node: [{"id": 1, "parent_id": None, "name": "a"}, {"id": 2, "parent_id": 1, "name": "b"}],
    Animal: [{"id": 1, "kind": "animal", "name": "a"}, {"id": 2, "kind": "dog", "name": "b"}],
    Item: [{"id": 1, "kind": "item", "title": "a"}, {"id": 2, "kind": "book", "title": "b", "pages": 2}],
    Slot: [{"line": 1, "place": 1, "label": "a"}, {"line": 2, "place": None, "label": "b"}],
    Box: [{"code": "b1", "size": 1, "count": 1}, {"code": "b2", "size": None, "count": 1}],
    Content: [{"id": 1, "box_code": "b1", "name": "a"}, {"id": 2, "box_code": None, "name": "b"}],
}
"""The rows that every program begins with; those of tables that only subclasses have are in ``SEED_OF_TABLES``."""

SEED_OF_TABLES: dict[str, list[dict[str, Any]]] = {
    "twin_dogs": [{"id": 2, "tricks": 1}],
    "twin_memberships": [{"owner_id": 1, "club_id": 1}],
}


def core_table(model: type[Base]) -> Table:
    """Return the table of a model, for statements past the unit of work."""
    return Base.metadata.tables[model.__tablename__]
