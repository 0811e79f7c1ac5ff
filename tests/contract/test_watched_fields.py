"""Rule N7: which changes make an UPDATE, and what ``__watched_fields__`` may be."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import Any, ClassVar

import pytest
from sqlalchemy import Column, ForeignKey, Integer, String
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    backref,
    composite,
    configure_mappers,
    mapped_column,
    relationship,
    synonym,
)

from fastapi_toolsets.errors import ToolsetsError, WatchedFieldsError
from fastapi_toolsets.models import Changes, Event, ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, created, declaring, deleted, new_base, updated


@dataclasses.dataclass(eq=True)
class Point:
    x: int | None
    y: int | None


class WatchBase(DeclarativeBase):
    type_annotation_map = TYPES


class Ticket(WatchBase):
    __tablename__ = "tickets"
    __watched_fields__: ClassVar[tuple[str, ...]] = ("status",)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(default="ticket")
    status: Mapped[str | None]
    note: Mapped[str | None]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "ticket"}  # noqa: RUF012 - declared as SQLAlchemy's own documentation does


class Bug(Ticket):
    """Inherits what is watched."""

    severity: Mapped[int | None] = mapped_column(default=None)
    __mapper_args__ = {"polymorphic_identity": "bug"}  # noqa: RUF012 - declared as SQLAlchemy's own documentation does


class Wish(Ticket):
    """Watches something else."""

    __watched_fields__: ClassVar[tuple[str, ...]] = ("note", "votes")
    votes: Mapped[int | None] = mapped_column(default=None)
    __mapper_args__ = {"polymorphic_identity": "wish"}  # noqa: RUF012 - declared as SQLAlchemy's own documentation does


class Watched:
    """A mixin that says what is watched of whatever has these attributes."""

    __watched_fields__ = ("label",)


class Silent(WatchBase):
    """Watches nothing at all."""

    __tablename__ = "silent"
    __watched_fields__ = ()
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str | None]


class Labelled(Watched, WatchBase):
    __tablename__ = "labelled"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label: Mapped[str | None]
    note: Mapped[str | None]


@scenario(WatchBase.metadata)
async def test_only_watched_changes_make_an_update(front: FrontEnd, recorder: EventRecorder) -> None:
    """N7: other changes make no event and are not in ``changes``; CREATE and DELETE are not affected."""
    recorder.listen(Ticket)
    ticket = Ticket(id=1, status="new", note="a")
    await front.add(ticket)
    await front.commit()
    ticket.note = "b"
    await front.commit()
    assert recorder.take() == [created(Ticket, 1)]
    ticket.note = "c"
    await front.flush()
    ticket.status = "done"
    await front.commit()
    assert recorder.take() == [updated(Ticket, 1, status=("new", "done"))]
    ticket.status = "new"
    await front.flush()
    ticket.status, ticket.note = "done", "d"
    await front.commit()
    assert recorder.take() == []
    await front.delete(ticket)
    await front.commit()
    assert recorder.take() == [deleted(Ticket, 1)]


@scenario(WatchBase.metadata, databases=LOCAL)
async def test_a_subclass_inherits_what_is_watched(front: FrontEnd, recorder: EventRecorder) -> None:
    """N7: a subclass inherits it and may replace it; so does a mixin's user; an empty tuple watches nothing."""
    recorder.listen(WatchBase)
    rows: list[Any] = [Bug(id=1), Wish(id=2), Labelled(id=3), Silent(id=4)]
    await front.add_all(rows)
    await front.commit()
    recorder.take()
    bug, wish, labelled, silent = rows
    bug.status, bug.note, bug.severity = "a", "b", 1
    wish.status, wish.note, wish.votes = "a", "b", 1
    labelled.label, labelled.note, silent.label = "a", "b", "c"
    await front.commit()
    assert sorted(recorder.take(), key=str) == [
        updated(Bug, 1, status=(None, "a")),
        updated(Labelled, 3, label=(None, "a")),
        updated(Wish, 2, note=(None, "b"), votes=(None, 1)),
    ]


@scenario(WatchBase.metadata)
async def test_an_event_tells_the_whole_row_all_the_same(front: FrontEnd) -> None:
    """N1, N7: ``event.before`` and ``event.after`` are the row's values, also of what is not watched."""
    heard: list[tuple[object, object]] = []

    @listens_for(Ticket, ModelEvent.UPDATE)
    def on_update(ticket: Ticket, event_type: ModelEvent, changes: Changes, *, event: Event) -> None:
        heard.append((event.before and dict(event.before), event.after and dict(event.after)))

    ticket = Ticket(id=1, status="new", note="a")
    await front.add(ticket)
    await front.commit()
    ticket.status, ticket.note = "done", "b"
    await front.commit()
    first = {"id": 1, "kind": "ticket", "status": "new", "note": "a"}
    second = {"id": 1, "kind": "ticket", "status": "done", "note": "b"}
    assert heard == [(first, second)]
    await front.expire(ticket)
    ticket.note = "c"
    await front.flush()
    ticket.status = "new"
    await front.commit()
    assert heard[1:] == [(second, {**first, "note": "c"})]


WRONG: list[tuple[object, list[str]]] = [
    (["status"], ["['status']", "tuple"]),
    ("status", ["'status'", '("status",)']),
    ({"status"}, ["tuple"]),
    (None, ["None", "tuple"]),
    (("status", 1), ["1", "tuple"]),
    ((None,), ["tuple"]),
    (1, ["tuple"]),
    (("statsu",), ["'statsu'", "'status'"]),
    (("status", "notes"), ["'notes'", "'note'"]),
    (("db_status",), ["'db_status'", "'status'"]),
    (("",), ["''"]),
    (("metadata",), ["'metadata'"]),
    (("method",), ["'method'"]),
    (("shouted",), ["'shouted'"]),
]


def declare(base: type[DeclarativeBase], watched: object) -> type[object]:
    """Declare a model that watches something, with attributes of all kinds."""

    class Issue(base):  # type: ignore[valid-type, misc]
        __tablename__ = "issues"
        __watched_fields__ = watched
        id: Mapped[int] = mapped_column(primary_key=True)
        status: Mapped[str | None] = mapped_column("db_status")
        note: Mapped[str | None]

        def method(self) -> None: ...

        @hybrid_property
        def shouted(self) -> str:
            return str(self.status).upper()

    return Issue


@pytest.mark.parametrize(("watched", "words"), WRONG, ids=range(len(WRONG)))
def test_wrong_watched_fields_are_an_error_at_configuration(watched: object, words: list[str]) -> None:
    """N7: at mapper configuration, naming the class, the field and the nearest existing name."""
    base = new_base()
    with declaring(base):
        model = declare(base, watched)
        with pytest.raises(WatchedFieldsError) as caught:
            base.registry.configure()
        message = str(caught.value)
        assert [word for word in ("Issue", "__watched_fields__", *words) if word not in message] == []
        assert isinstance(caught.value, (TypeError, ToolsetsError))
        assert model.__name__ == "Issue"


@pytest.mark.parametrize("declared_by", ["abstract base", "mixin", "parent"])
def test_wrong_watched_fields_that_are_inherited(declared_by: str) -> None:
    """N7: an abstract base or a mixin may name what a subclass lacks: the mapped class is refused, by its own name."""
    base: Any = new_base()
    named = {"__watched_fields__": ("status", "priority")}
    columns = {
        "__tablename__": "concerns",
        "id": Column("id", Integer, primary_key=True),
        "status": Column("status", String(20)),
    }
    with declaring(base):
        if declared_by == "mixin":
            type("Concern", (type("Mixin", (), named), base), columns)
        elif declared_by == "abstract base":
            type("Concern", (type("Abstract", (base,), {"__abstract__": True, **named}),), columns)
        else:
            type("Special", (type("Concern", (base,), columns),), named)
        with pytest.raises(WatchedFieldsError, match="priority") as caught:
            base.registry.configure()
        assert ("Special" if declared_by == "parent" else "Concern") in str(caught.value)


def test_wrong_watched_fields_are_no_error_before_configuration_nor_without_listeners() -> None:
    """N7: declaring does not raise, configuring does, whether or not anybody listens."""
    base = new_base()
    with declaring(base):
        model: Any = declare(base, ("statsu",))

        @listens_for(model)
        def callback(issue: object, event_type: ModelEvent, changes: Changes | None) -> None: ...

        with pytest.raises(WatchedFieldsError, match="statsu"):
            model()


def test_watched_fields_that_backrefs_make() -> None:
    """N7: the class is configured before those whose relationships give it the names."""
    base = new_base()
    with declaring(base):

        class Author(base):  # type: ignore[valid-type, misc]
            __tablename__ = "backref_authors"
            __watched_fields__: tuple[str, ...] = ("books", "letters", "drafts")
            id: Mapped[int] = mapped_column(primary_key=True)

        class Book(base):  # type: ignore[valid-type, misc]
            __tablename__ = "backref_books"
            id: Mapped[int] = mapped_column(primary_key=True)
            author_id: Mapped[int | None] = mapped_column(ForeignKey("backref_authors.id"))
            author: Mapped[Any] = relationship("Author", backref="books")

        class Letter(base):  # type: ignore[valid-type, misc]
            __tablename__ = "backref_letters"
            id: Mapped[int] = mapped_column(primary_key=True)
            author_id: Mapped[int | None] = mapped_column(ForeignKey("backref_authors.id"))
            author: Mapped[Any] = relationship("Author", backref=backref("letters", order_by="Letter.id"))

        class Draft(base):  # type: ignore[valid-type, misc]
            __tablename__ = "backref_drafts"
            id: Mapped[int] = mapped_column(primary_key=True)
            author_id: Mapped[int | None] = mapped_column(ForeignKey("backref_authors.id"))
            author: Mapped[Any] = relationship(Author, backref="drafts")

        base.registry.configure()
        assert {*Author.__mapper__.relationships.keys()} == {"books", "letters", "drafts"}
        assert {model.__mapper__.configured for model in (Book, Letter, Draft)} == {True}


@pytest.mark.parametrize("watched", ["book", "copies"])
def test_watched_fields_that_no_backref_makes(watched: str) -> None:
    """N7: another name than the one that it will make, and one that it will make in another class."""
    base = new_base()
    with declaring(base):

        class Author(base):  # type: ignore[valid-type, misc]
            __tablename__ = "backref_authors"
            __watched_fields__: tuple[str, ...] = (watched,)
            id: Mapped[int] = mapped_column(primary_key=True)

        class Library(base):  # type: ignore[valid-type, misc]
            __tablename__ = "backref_libraries"
            id: Mapped[int] = mapped_column(primary_key=True)

        class Book(base):  # type: ignore[valid-type, misc]
            __tablename__ = "backref_books"
            id: Mapped[int] = mapped_column(primary_key=True)
            author_id: Mapped[int | None] = mapped_column(ForeignKey("backref_authors.id"))
            library_id: Mapped[int | None] = mapped_column(ForeignKey("backref_libraries.id"))
            author: Mapped[Any] = relationship(Author, backref="books")
            library: Mapped[Any] = relationship(Library, backref="copies")

        with pytest.raises(WatchedFieldsError, match=f"Author.__watched_fields__ names '{watched}'"):
            base.registry.configure()
        assert Book.__name__ == "Book"


def test_right_watched_fields_of_every_kind_are_accepted() -> None:
    """N7: columns, synonyms, composites, relationships, expressions, and those of base classes."""
    configure_mappers()
    base = new_base()
    with declaring(base):

        class Node(base):  # type: ignore[valid-type, misc]
            __tablename__ = "nodes"
            __watched_fields__: tuple[str, ...] = ("id", "label", "name", "place", "parent", "children")
            id: Mapped[int] = mapped_column(primary_key=True)
            parent_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id"))
            label: Mapped[str | None]
            name: Mapped[str | None] = synonym("label")
            x: Mapped[int | None]
            y: Mapped[int | None]
            place: Mapped[Point | None] = composite(Point, "x", "y")
            parent: Mapped[Any] = relationship("Node", remote_side="Node.id", back_populates="children")
            children: Mapped[list[Any]] = relationship("Node", back_populates="parent")

        class Leaf(Node):
            __watched_fields__: tuple[str, ...] = (*Node.__watched_fields__, "colour")
            colour: Mapped[str | None]

        base.registry.configure()
        assert Leaf.__mapper__.configured


LATE_IMPORT = """
from sqlalchemy.orm import DeclarativeBase, Mapped, configure_mappers, mapped_column

class Base(DeclarativeBase): pass

class Ticket(Base):
    __tablename__ = "tickets"
    __watched_fields__ = ("statsu",)
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]

configure_mappers()
from fastapi_toolsets.errors import WatchedFieldsError
from fastapi_toolsets.models import listens_for
for target in (Ticket, Base):
    try:
        listens_for(target)(lambda ticket, event_type, changes: None)
    except WatchedFieldsError as error:
        print(error)
"""


def test_models_that_were_configured_before_the_library_was_imported() -> None:
    """N7: they are checked when somebody listens to them or to a base of theirs, not in somebody's flush."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", LATE_IMPORT]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
    message = (
        "__main__.Ticket.__watched_fields__ names 'statsu', which is no mapped attribute of Ticket: "
        "did you mean 'status'?"
    )
    assert finished.stdout.splitlines() == [message, message]
