"""Rule E6: what the unit of work does to rows by itself."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import JSON, Column, ForeignKey, Integer, Table, func, select
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from fastapi_toolsets.models import Changes, Event, ModelEvent, Phase, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from ..session_adapter import SessionAdapter
from .event_models import LOCAL, created, deleted, listening_to, updated


class FamilyBase(DeclarativeBase):
    type_annotation_map = TYPES


class Parent(FamilyBase):
    __tablename__ = "parents"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]
    owned: Mapped[list[Owned]] = relationship(
        cascade="all, delete-orphan", back_populates="parent", order_by="Owned.id"
    )
    linked: Mapped[list[Linked]] = relationship(back_populates="parent", order_by="Linked.id")


class Owned(FamilyBase):
    """Deleted with its parent, and when it leaves it."""

    __tablename__ = "owned"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("parents.id"))
    name: Mapped[str | None]
    memo: Mapped[str | None] = mapped_column(deferred=True)
    parent: Mapped[Parent | None] = relationship(back_populates="owned")


class Linked(FamilyBase):
    """Loses its foreign key when it leaves its parent."""

    __tablename__ = "linked"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("parents.id"))
    name: Mapped[str | None]
    parent: Mapped[Parent | None] = relationship(back_populates="linked")


class OneWayBase(DeclarativeBase):
    type_annotation_map = TYPES


class Owner(OneWayBase):
    __tablename__ = "owners"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    pets: Mapped[list[Pet]] = relationship(cascade="all, delete-orphan", order_by="Pet.id")
    toys: Mapped[list[Toy]] = relationship(order_by="Toy.id")
    licence: Mapped[Licence | None] = relationship(cascade="all, delete-orphan")


class Pet(OneWayBase):
    """Knows its owner by a foreign key only, and has pets of its own."""

    __tablename__ = "pets"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))
    name: Mapped[str | None]


class Toy(OneWayBase):
    __tablename__ = "toys"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))


class Licence(OneWayBase):
    __tablename__ = "licences"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))


class Paper(OneWayBase):
    """Has a value that changes in place."""

    __tablename__ = "papers"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    data: Mapped[Any] = mapped_column(MutableDict.as_mutable(JSON), nullable=True)


async def loaded_parent(session: SessionAdapter) -> Parent:
    """Load the parent with everything it has."""
    options = (selectinload(Parent.owned), selectinload(Parent.linked))
    parent: Parent = (await session.scalars(select(Parent).options(*options))).one()
    return parent


async def store_family(front: FrontEnd, recorder: EventRecorder) -> Parent:
    """Commit a parent with two owned and two linked children, and begin to listen to all."""
    await front.add(
        Parent(
            id=1,
            owned=[Owned(id=1, name="a", memo="m"), Owned(id=2, name="b")],
            linked=[Linked(id=1, name="c"), Linked(id=2, name="d")],
        )
    )
    await front.commit()
    await front.expunge_all()
    recorder.listen(FamilyBase)
    return await loaded_parent(front)


@scenario(FamilyBase.metadata)
async def test_an_orphan_is_a_delete(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6: removed from the collection, with a backref; its siblings and parent have no event."""
    parent = await store_family(front, recorder)
    parent.owned.remove(parent.owned[0])
    await front.commit()
    assert recorder.take() == [deleted(Owned, 1)]
    parent.owned[0].parent = None
    await front.commit()
    assert recorder.take() == [deleted(Owned, 2)]
    assert await front.committed_rows(select(func.count()).select_from(Owned)) == [(0,)]


@scenario(FamilyBase.metadata)
async def test_replacing_a_collection(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6: the members that left are DELETE, those that are new CREATE, those that stay nothing."""
    parent = await store_family(front, recorder)
    stays = parent.owned[1]
    parent.owned = [stays, Owned(id=3)]
    parent.linked = []
    await front.commit()
    taken = sorted(recorder.take(), key=str)
    assert taken == sorted(
        [
            deleted(Owned, 1),
            created(Owned, 3),
            updated(Linked, 1, parent_id=(1, None)),
            updated(Linked, 2, parent_id=(1, None)),
        ],
        key=str,
    )


@scenario(FamilyBase.metadata)
async def test_an_orphan_with_unloaded_columns_shows_its_last_row(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6, E11: expired, deferred or partly loaded, it shows its last row without I/O."""
    await store_family(front, recorder)
    seen: list[tuple[object, ...]] = []

    @listens_for(Owned, ModelEvent.DELETE)
    def show(owned: Owned, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        assert event.before is not None
        seen.append((owned.id, owned.parent_id, owned.name, owned.memo, dict(event.before), event.after))

    await front.close()
    session = front.new_session()
    parent = await loaded_parent(session)
    await session.expire(parent.owned[0])
    parent.owned.clear()
    await session.commit()
    assert recorder.take() == [deleted(Owned, 1), deleted(Owned, 2)]
    assert seen == [
        (1, 1, "a", "m", {"id": 1, "parent_id": 1, "name": "a", "memo": "m"}, None),
        (2, 1, "b", None, {"id": 2, "parent_id": 1, "name": "b", "memo": None}, None),
    ]


@scenario(FamilyBase.metadata, databases=LOCAL)
async def test_an_orphan_whose_class_assigns_in_a_listener(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6, E11: what was not loaded of an orphan is shown also where ``before_update`` hears of other rows."""
    parent = await store_family(front, recorder)
    shown: list[tuple[object, ...]] = []

    @listens_for(Owned, ModelEvent.DELETE)
    def show(owned: Owned, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        assert event.before is not None
        shown.append((owned.id, owned.memo, dict(event.before)))

    def assign(mapper: object, connection: object, owned: Owned) -> None:
        owned.name = "assigned"

    with listening_to(Owned, "before_update", assign):
        parent.owned.remove(parent.owned[0])
        parent.owned[0].name = "changed"
        await front.commit()
    assert recorder.take() == [updated(Owned, 2, name=("b", "assigned")), deleted(Owned, 1)]
    assert shown == [(1, "m", {"id": 1, "parent_id": 1, "name": "a", "memo": "m"})]


@scenario(FamilyBase.metadata)
async def test_deleting_a_parent_cascades(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6: owned rows are DELETE, linked ones UPDATE with the foreign key; loaded or not."""
    await store_family(front, recorder)
    await front.close()
    session = front.new_session()
    parent = await session.get_one(Parent, 1)
    await session.delete(parent)
    await session.commit()
    assert sorted(recorder.take(), key=str) == sorted(
        [
            updated(Linked, 1, parent_id=(1, None)),
            updated(Linked, 2, parent_id=(1, None)),
            deleted(Owned, 1),
            deleted(Owned, 2),
            deleted(Parent, 1),
        ],
        key=str,
    )


@scenario(FamilyBase.metadata)
async def test_a_nullified_foreign_key(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6: the unit of work set it, nobody assigned it; also where it was expired."""
    parent = await store_family(front, recorder)
    parent.linked.pop(0)
    await front.commit()
    assert recorder.take() == [updated(Linked, 1, parent_id=(1, None))]
    child = parent.linked[0]
    await front.expire(child, ["parent_id", "name"])
    parent.linked.remove(child)
    await front.commit()
    assert recorder.take() == [updated(Linked, 2, parent_id=(1, None))]


@scenario(FamilyBase.metadata)
async def test_a_child_that_moves(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6: from one parent to another, by the collection, by the reference, by the foreign key."""
    parent = await store_family(front, recorder)
    second = Parent(id=2, owned=[], linked=[])
    await front.add(second)
    second.linked.append(parent.linked[0])
    await front.commit()
    assert recorder.take() == [created(Parent, 2), updated(Linked, 1, parent_id=(1, 2))]
    second.linked[0].parent = parent
    parent.owned[0].parent = second
    await front.commit()
    taken = sorted(recorder.take(), key=str)
    assert taken == [updated(Linked, 1, parent_id=(2, 1)), updated(Owned, 1, parent_id=(1, 2))]
    (await front.get_one(Linked, 1)).parent_id = 2
    await front.commit()
    assert recorder.take() == [updated(Linked, 1, parent_id=(1, 2))]


@scenario(FamilyBase.metadata)
async def test_a_child_that_leaves_and_comes_back(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2, E6: the foreign key ends where it began: nothing."""
    parent = await store_family(front, recorder)
    child = parent.linked[0]
    parent.linked.remove(child)
    await front.flush()
    parent.linked.append(child)
    await front.commit()
    assert recorder.take() == []


@scenario(OneWayBase.metadata)
async def test_orphans_without_a_backref(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6: the child does not know its owner; an orphan is a DELETE, a nullified foreign key an UPDATE."""
    owner = Owner(id=1, pets=[Pet(id=1, name="a"), Pet(id=2)], toys=[Toy(id=1), Toy(id=2)], licence=Licence(id=1))
    await front.add(owner)
    await front.commit()
    recorder.listen(OneWayBase)
    await front.expire(owner.pets[0])
    owner.pets.remove(owner.pets[0])
    owner.toys.remove(owner.toys[1])
    owner.licence = Licence(id=2)
    await front.commit()
    assert sorted(recorder.take(), key=str) == sorted(
        [deleted(Pet, 1), updated(Toy, 2, owner_id=(1, None)), created(Licence, 2), deleted(Licence, 1)], key=str
    )


@scenario(OneWayBase.metadata, databases=LOCAL)
async def test_an_orphan_of_an_unloaded_collection(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6: appended to and removed from a collection that a new session loads lazily."""
    await front.add(Owner(id=1, pets=[Pet(id=1), Pet(id=2)], toys=[Toy(id=1)]))
    await front.commit()
    await front.expunge_all()
    recorder.listen(OneWayBase)
    owner = await front.get_one(Owner, 1)

    def change(session: object) -> None:
        owner.pets.append(Pet(id=3))
        del owner.pets[0]
        owner.toys = []

    await front.run_sync(change)
    await front.commit()
    assert sorted(recorder.take(), key=str) == sorted(
        [created(Pet, 3), deleted(Pet, 1), updated(Toy, 1, owner_id=(1, None))], key=str
    )


@scenario(OneWayBase.metadata, databases=LOCAL)
async def test_a_pending_orphan_is_nothing(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E6: added to a collection and removed before any flush; or flushed and then orphaned."""
    recorder.listen(OneWayBase)
    owner = Owner(id=1)
    pet, flushed = Pet(id=1), Pet(id=2)
    owner.pets += [pet, flushed]
    await front.add(owner)
    owner.pets.remove(pet)
    await front.flush()
    owner.pets.remove(flushed)
    await front.commit()
    assert recorder.take() == [created(Owner, 1)]


@scenario(FamilyBase.metadata, databases=LOCAL)
async def test_an_orphan_in_a_savepoint_that_is_rolled_back(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6, T3: an orphan that came back is none."""
    parent = await store_family(front, recorder)
    savepoint = await front.begin_nested()
    parent.owned.clear()
    parent.linked.clear()
    await front.flush()
    await savepoint.rollback()
    (await front.get_one(Owned, 2)).name = "still here"
    await front.commit()
    assert recorder.take() == [updated(Owned, 2, name=("b", "still here"))]


class ManyBase(DeclarativeBase):
    type_annotation_map = TYPES


articles_tags = Table(
    "articles_tags",
    ManyBase.metadata,
    Column("article_id", Integer, ForeignKey("articles.id"), primary_key=True),
    Column("tag_id", Integer, ForeignKey("tags.id"), primary_key=True),
)


class Article(ManyBase):
    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str | None]
    tags: Mapped[list[Tag]] = relationship(secondary=articles_tags, back_populates="articles")


class Tag(ManyBase):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    articles: Mapped[list[Article]] = relationship(secondary=articles_tags, back_populates="tags")


@scenario(ManyBase.metadata, databases=LOCAL)
async def test_many_to_many_changes_no_row_of_either_side(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6, E7: links are rows of neither model; only what has a change of its own has an event."""
    recorder.listen(ManyBase)
    article, tags = Article(id=1), [Tag(id=1), Tag(id=2)]
    article.tags = list(tags)
    await front.add(article)
    await front.commit()
    assert recorder.take() == [created(Article, 1), created(Tag, 1), created(Tag, 2)]
    article.tags.remove(tags[0])
    await front.commit()
    assert recorder.take() == []
    article.tags.append(tags[0])
    article.title = "t"
    await front.commit()
    assert recorder.take() == [updated(Article, 1, title=(None, "t"))]
    await front.delete(tags[1])
    await front.commit()
    assert recorder.take() == [deleted(Tag, 2)]


@pytest.mark.parametrize("phase", [Phase.BEFORE_COMMIT, Phase.AFTER_COMMIT])
@pytest.mark.parametrize("how", ["expire", "refresh"])
@scenario(OneWayBase.metadata)
async def test_a_deleted_member_that_is_expired_with_its_parent(front: FrontEnd, how: str, phase: Phase) -> None:
    """E11, P1: ``expire`` and ``refresh`` cascade to members, also to one whose row is gone: it shows its last row."""
    shown: list[tuple[str, str | None, dict[str, object]]] = []
    owner = Owner(id=1, pets=[Pet(id=1, name="Rex"), Pet(id=2, name="Fido")])
    await front.add(owner)
    await front.commit()
    rex = owner.pets[0]

    def show(pet: Pet, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((event_type.value, pet.name, {key: getattr(pet, key) for key in ("id", "owner_id")}))

    listens_for(Pet, phase=phase)(show)
    await front.delete(rex)
    await front.flush()
    rex.name = "never written"
    await getattr(front, how)(owner)
    rex.owner_id = 5
    await front.commit()
    assert shown == [("delete", "Rex", {"id": 1, "owner_id": 1})]


@scenario(OneWayBase.metadata)
async def test_a_deleted_member_that_is_expired_after_other_deletions(front: FrontEnd, recorder: EventRecorder) -> None:
    """E11: whatever was deleted after it, it shows its last row."""
    recorder.listen(Paper)
    shown: list[str | None] = []

    @listens_for(Pet, ModelEvent.DELETE)
    def show(pet: Pet, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append(pet.name)

    owner, paper = Owner(id=1, pets=[Pet(id=1, name="Rex")]), Paper(id=1, data={"a": 1})
    await front.add_all([owner, paper])
    await front.commit()
    await front.delete(owner.pets[0])
    await front.flush()
    await front.delete(paper)
    await front.flush()
    await front.expire(owner)
    await front.commit()
    assert (shown, recorder.take()) == (["Rex"], [created(Paper, 1), deleted(Paper, 1)])
