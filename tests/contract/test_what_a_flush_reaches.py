"""Rules E1, E3, E4, E6, E8, E9 and E11 for rows that the flush, or another listener, comes to by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Computed, ForeignKey, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from fastapi_toolsets.models import Changes, ModelEvent, SyncEventSession, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .bulk_models import store
from .event_models import LOCAL, created, deleted, listening_to, updated


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Owner(Base):
    __tablename__ = "reach_owners"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]
    note: Mapped[str | None]
    count: Mapped[int] = mapped_column(default=0)
    secret: Mapped[str | None] = mapped_column(deferred=True)
    things: Mapped[list[Thing]] = relationship(order_by="Thing.id")
    card: Mapped[Card | None] = relationship()


class Thing(Base):
    __tablename__ = "reach_things"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("reach_owners.id"))
    revision: Mapped[int] = mapped_column(default=0, onupdate=text("revision + 1"))


class Card(Base):
    __tablename__ = "reach_cards"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("reach_owners.id"))
    revision: Mapped[int] = mapped_column(default=0, onupdate=text("revision + 1"))


class Person(Base):
    """A tree of several classes in one table."""

    __tablename__ = "reach_people"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("reach_people.id"))
    boss: Mapped[Person | None] = relationship(remote_side="Person.id")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012 - SQLAlchemy reads it


class Leader(Person):
    __mapper_args__ = {"polymorphic_identity": "leader"}  # noqa: RUF012 - SQLAlchemy reads it


class Node(Base):
    """And in a table for each."""

    __tablename__ = "reach_nodes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("reach_nodes.id"))
    parent: Mapped[Node | None] = relationship(remote_side="Node.id")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "node"}  # noqa: RUF012 - SQLAlchemy reads it


class File(Node):
    __tablename__ = "reach_files"
    id: Mapped[int] = mapped_column(ForeignKey("reach_nodes.id"), primary_key=True, autoincrement=False)
    __mapper_args__ = {"polymorphic_identity": "file"}  # noqa: RUF012 - SQLAlchemy reads it


class Folder(Node):
    __tablename__ = "reach_folders"
    id: Mapped[int] = mapped_column(ForeignKey("reach_nodes.id"), primary_key=True, autoincrement=False)
    __mapper_args__ = {"polymorphic_identity": "folder"}  # noqa: RUF012 - SQLAlchemy reads it


class Word(Base):
    __tablename__ = "reach_words"
    code: Mapped[str] = mapped_column(primary_key=True)
    meaning: Mapped[str | None]


class Team(Base):
    __tablename__ = "reach_teams"
    name: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    players: Mapped[list[Player]] = relationship(
        primaryjoin="Team.name == foreign(Player.team_name)", passive_updates=False, order_by="Player.id"
    )


class Player(Base):
    """Its database knows of no foreign key, which would forbid the flush to change the team's name first."""

    __tablename__ = "reach_players"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    team_name: Mapped[str | None]
    revision: Mapped[int] = mapped_column(default=0, onupdate=text("revision + 1"))


class Shelf(Base):
    __tablename__ = "reach_shelves"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    books: Mapped[list[Book]] = relationship(back_populates="shelf")


class Book(Base):
    __tablename__ = "reach_books"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("reach_shelves.id"))
    revision: Mapped[int] = mapped_column(default=0, onupdate=text("revision + 1"))
    shelf: Mapped[Shelf | None] = relationship(back_populates="books")


def count_up(owner: Owner) -> None:
    owner.count = Owner.count + 1


def rename(owner: Owner) -> None:
    owner.name = "new"


def rename_to_the_same(owner: Owner) -> None:
    owner.name = "old"


def tell_a_secret(owner: Owner) -> None:
    owner.secret = "told"  # noqa: S105 - no password


each_change = pytest.mark.parametrize(
    ("change", "changes"),
    [
        (count_up, {"count": (0, 1)}),
        (rename, {"name": ("old", "new")}),
        (rename_to_the_same, {}),
        (tell_a_secret, {"secret": ("hidden", "told")}),
    ],
)


@each_change
@pytest.mark.parametrize("of_class", [False, True])
@scenario(Base.metadata)
async def test_what_a_before_flush_listener_assigns(
    front: FrontEnd,
    recorder: EventRecorder,
    *,
    change: Callable[[Owner], None],
    changes: dict[str, tuple[object, object]],
    of_class: bool,
) -> None:
    """E2, E3, E4: its changes are told as any, with true old values, whichever listener comes first."""
    await store(front, Owner(id=1, name="old", secret="hidden"), Thing(id=1, owner_id=1))  # noqa: S106 - no password
    recorder.listen(Owner)
    owner = await front.get_one(Owner, 1)
    await front.expire(owner, ["name"])

    def touch(_session: Session, _context: object, _instances: object) -> None:
        change(owner)

    thing = await front.get_one(Thing, 1)
    thing.revision = 5
    with listening_to(Session if of_class else front.sync_session, "before_flush", touch):
        await front.commit()
    assert recorder.take() == ([updated(Owner, 1, **changes)] if changes else [])


@scenario(Base.metadata)
async def test_object_that_a_before_flush_listener_deletes(front: FrontEnd, recorder: EventRecorder) -> None:
    """E11: its last row is all there, deferred columns, too."""
    await store(front, Owner(id=1, name="old", secret="hidden"))  # noqa: S106 - no password
    recorder.listen(Owner)
    shown: list[tuple[str | None, str | None]] = []

    @listens_for(Owner)
    def show(owner: Owner, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((owner.name, owner.secret))

    owner = await front.get_one(Owner, 1)

    def remove(session: Session, _context: object, _instances: object) -> None:
        session.delete(owner)

    await front.add(Thing(id=1))
    with listening_to(front.sync_session, "before_flush", remove):
        await front.commit()
    assert (recorder.take(), shown) == ([deleted(Owner, 1)], [("old", "hidden")])


class Profile(Base):
    __tablename__ = "reach_profiles"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    note: Mapped[str | None] = mapped_column(deferred=True)


class Member(Base):
    """Its profile goes with it, and when it gets another one."""

    __tablename__ = "reach_members"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    profile_id: Mapped[int | None] = mapped_column(ForeignKey("reach_profiles.id"))
    profile: Mapped[Profile | None] = relationship(cascade="all, delete-orphan", single_parent=True)


@pytest.mark.parametrize("replaced", [False, True])
@scenario(Base.metadata)
async def test_orphan_of_a_many_to_one_relationship(
    front: FrontEnd, recorder: EventRecorder, *, replaced: bool
) -> None:
    """E6, E11: its last row is all there, deferred columns, too."""
    await store(front, Member(id=1, profile=Profile(id=1, note="first")))
    recorder.listen(Profile)
    shown: list[str | None] = []

    @listens_for(Profile, ModelEvent.DELETE)
    def show(profile: Profile, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append(profile.note)

    member = await front.get_one(Member, 1)

    def leave(_session: Session) -> None:
        member.profile = Profile(id=2) if replaced else None

    await front.run_sync(leave)
    await front.commit()
    assert recorder.take() == [*([created(Profile, 2)] if replaced else []), deleted(Profile, 1)]
    assert shown == ["first"]


@pytest.mark.parametrize(("name", "expected"), [("before_update", ["SELECT", "UPDATE"]), ("after_update", ["UPDATE"])])
@scenario(Base.metadata)
async def test_only_what_may_be_assigned_is_read(
    front: FrontEnd, recorder: EventRecorder, name: str, expected: list[str]
) -> None:
    """E12: of listeners of a mapper those of ``before_update`` alone can still change what is written."""
    await store(front, Owner(id=1, name="old", secret="hidden"))  # noqa: S106 - no password
    recorder.listen(Owner)
    owner = await front.get_one(Owner, 1)
    owner.name = "new"

    def listen(_mapper: object, _connection: object, _owner: object) -> None: ...

    with listening_to(Owner, name, listen), front.statements() as statements:
        await front.flush()
    assert [statement.split()[0] for statement in statements] == expected
    await front.commit()
    assert recorder.take() == [updated(Owner, 1, name=("old", "new"))]


@each_change
@pytest.mark.parametrize("expired", [False, True])
@scenario(Base.metadata)
async def test_what_a_before_update_listener_assigns(
    front: FrontEnd,
    recorder: EventRecorder,
    *,
    change: Callable[[Owner], None],
    changes: dict[str, tuple[object, object]],
    expired: bool,
) -> None:
    """E2, E3, E4: to its own object, inside the flush, loaded before or not."""
    await store(front, Owner(id=1, name="old", secret="hidden"))  # noqa: S106 - no password
    recorder.listen(Owner)
    owner = await front.get_one(Owner, 1)
    if expired:
        await front.expire(owner, ["name", "count"])
    owner.note = "why"

    def assign(_mapper: object, _connection: object, updated_owner: Owner) -> None:
        change(updated_owner)

    with listening_to(Owner, "before_update", assign):
        await front.commit()
    assert recorder.take() == [updated(Owner, 1, **{"note": (None, "why"), **changes})]


@scenario(Base.metadata)
async def test_new_parent_that_takes_children(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E4, E6: their old foreign key and what the database changes along with it, loaded or not."""
    things = [Thing(id=key) for key in (1, 2)]
    await store(front, Owner(id=1, things=things))
    recorder.listen(Thing)
    loaded = await front.get_one(Thing, 1)
    expired = await front.get_one(Thing, 2)
    await front.expire(expired)
    await front.add(Owner(id=2, things=[loaded, expired]))
    await front.commit()
    assert recorder.take() == [
        updated(Thing, 1, owner_id=(1, 2), revision=(0, 1)),
        updated(Thing, 2, owner_id=(1, 2), revision=(0, 1)),
    ]


class Room(Base):
    __tablename__ = "reach_rooms"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    boxes: Mapped[list[Box]] = relationship(cascade="all, delete-orphan", back_populates="room")
    crates: Mapped[list[Crate]] = relationship(cascade="all, delete-orphan")


class Box(Base):
    __tablename__ = "reach_boxes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    room_id: Mapped[int | None] = mapped_column(ForeignKey("reach_rooms.id"))
    room: Mapped[Room | None] = relationship(back_populates="boxes")
    labels: Mapped[list[Label]] = relationship()


class Crate(Base):
    """Knows nothing of its room, so that nothing of it changes when it leaves."""

    __tablename__ = "reach_crates"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    room_id: Mapped[int | None] = mapped_column(ForeignKey("reach_rooms.id"))
    labels: Mapped[list[Label]] = relationship()


class Label(Base):
    __tablename__ = "reach_labels"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    box_id: Mapped[int | None] = mapped_column(ForeignKey("reach_boxes.id"))
    crate_id: Mapped[int | None] = mapped_column(ForeignKey("reach_crates.id"))
    number: Mapped[int] = mapped_column(default=1)
    double: Mapped[int] = mapped_column(Computed("number * 2", persisted=True))
    revision: Mapped[int] = mapped_column(default=0, onupdate=text("revision + 1"))


@pytest.mark.parametrize("loaded", [False, True])
@scenario(Base.metadata)
async def test_members_of_an_orphan(front: FrontEnd, recorder: EventRecorder, *, loaded: bool) -> None:
    """E2, E3, E4: their foreign key becomes NULL, and nothing else but what that UPDATE sets has changed."""
    boxes = [Box(id=key, labels=[Label(id=key)]) for key in (1, 2)]
    await store(front, Room(id=1, boxes=boxes, crates=[Crate(id=1, labels=[Label(id=3)])]))
    recorder.listen(Label)
    recorder.listen(Crate)
    room = await front.get_one(Room, 1)

    def load(_session: Session) -> tuple[Box, Box, Crate]:
        (first, second), (crate,) = room.boxes, room.crates
        if loaded:
            assert [len(parent.labels) for parent in (first, second, crate)] == [1, 1, 1]
        return first, second, crate

    first, second, crate = await front.run_sync(load)
    room.boxes.remove(first)
    second.room = None
    room.crates.remove(crate)
    await front.commit()
    assert sorted(recorder.take(), key=str) == [
        deleted(Crate, 1),
        updated(Label, 1, box_id=(1, None), revision=(0, 1)),
        updated(Label, 2, box_id=(2, None), revision=(0, 1)),
        updated(Label, 3, crate_id=(1, None), revision=(0, 1)),
    ]


@scenario(Base.metadata)
async def test_members_that_follow_a_changed_key(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E4: without ``passive_updates`` the flush writes the new key to them; what they were is known if loaded."""
    await store(front, Team(name="a", players=[Player(id=1), Player(id=2)]))
    recorder.listen(Player)
    team = await front.get_one(Team, "a")

    def load(_session: Session) -> int:
        return len(team.players)

    assert await front.run_sync(load) == 2
    team.name = "b"
    await front.commit()
    assert recorder.take() == [updated(Player, key, team_name=("a", "b"), revision=(0, 1)) for key in (1, 2)]
    team.title = "no key"
    with front.statements() as statements:
        await front.commit()
    assert [statement.split()[0] for statement in statements] == ["UPDATE"]
    assert recorder.take() == []


@scenario(Base.metadata)
async def test_only_member_that_is_replaced_and_was_not_loaded(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E4: of the old one nobody holds an object, but the flush does."""
    await store(front, Owner(id=1, card=Card(id=1)))
    recorder.listen(Card)
    owner = await front.get_one(Owner, 1)

    def replace(_session: Session) -> None:
        owner.card = Card(id=2)

    await front.run_sync(replace)
    await front.commit()
    assert recorder.take() == [created(Card, 2), updated(Card, 1, owner_id=(1, None), revision=(0, 1))]


@scenario(Base.metadata)
async def test_parents_first_among_classes_of_one_hierarchy(front: FrontEnd, recorder: EventRecorder) -> None:
    """E9: whatever their names and keys are."""
    recorder.listen(Person)
    recorder.listen(Node)
    leader = Leader(id=2)
    await front.add_all([Person(id=1, boss=leader), leader])
    folder = Folder(id=2)
    await front.add_all([File(id=1, parent=folder), folder])
    await front.commit()
    told = recorder.take()
    assert sorted(map(str, told)) == sorted(
        map(str, [created(Leader, 2), created(Person, 1), created(Folder, 2), created(File, 1)])
    )
    assert told.index(created(Leader, 2)) < told.index(created(Person, 1))
    assert told.index(created(Folder, 2)) < told.index(created(File, 1))


@pytest.mark.parametrize("events", [ModelEvent.CREATE, (ModelEvent.CREATE, ModelEvent.DELETE)])
@scenario(Base.metadata, databases=LOCAL)
async def test_changed_key_where_nobody_hears_of_updates(
    front: FrontEnd, recorder: EventRecorder, events: ModelEvent | tuple[ModelEvent, ...]
) -> None:
    """E1, E8: a row is known again by its new key."""
    recorder.listen(Word, [events] if isinstance(events, ModelEvent) else [*events])
    word = Word(code="a", meaning="first")
    await front.add(word)
    await front.flush()
    word.code = "b"
    await front.flush()
    await front.add(Word(code="a", meaning="second"))
    await front.commit()
    assert recorder.take() == [created(Word, "b"), created(Word, "a")]
    word = Word(code="c")
    await front.add(word)
    await front.flush()
    word.code = "d"
    await front.flush()
    await front.delete(word)
    await front.commit()
    assert recorder.take() == []


@pytest.mark.filterwarnings("ignore:DELETE statement on table:sqlalchemy.exc.SAWarning")
@scenario(Base.metadata, databases=LOCAL)
async def test_row_that_is_deleted_twice(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1: SQLAlchemy warns; it is one event, and none for a row that the transaction itself has made."""
    await store(front, Word(code="a"))
    recorder.listen(Word)
    word = await front.get_one(Word, "a")
    for _ in range(2):
        await front.delete(word)
        await front.flush()
    made = Word(code="b")
    await front.add(made)
    await front.flush()
    for _ in range(2):
        await front.delete(made)
        await front.flush()
    await front.commit()
    assert recorder.take() == [deleted(Word, "a")]
    made = Word(code="c")
    await front.add(made)
    await front.flush()
    async with front.begin_nested():
        await front.delete(made)
        await front.flush()
    async with front.begin_nested():
        await front.delete(made)
    await front.add(Word(code="d"))
    inside = Word(code="e")
    async with front.begin_nested():
        await front.add(inside)
        await front.flush()
        await front.delete(inside)
        await front.flush()
    await front.delete(inside)
    await front.commit()
    assert recorder.take() == [created(Word, "d")]
    again = Word(code="c")  # of the next transaction
    await front.add(again)
    await front.commit()
    await front.delete(again)
    await front.commit()
    assert recorder.take() == [created(Word, "c"), deleted(Word, "c")]


@pytest.mark.filterwarnings("ignore:DELETE statement on table:sqlalchemy.exc.SAWarning")
@scenario(Base.metadata)
async def test_row_that_is_deleted_again_after_the_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1: SQLAlchemy warns that there is no such row, and there is no event; one if somebody has made it anew."""
    await store(front, Word(code="a"), Word(code="b"), Word(code="c"))
    recorder.listen(Word)
    gone, others = await front.get_one(Word, "a"), [await front.get_one(Word, code) for code in ("b", "c")]
    await front.delete(gone)
    await front.commit()
    assert recorder.take() == [deleted(Word, "a")]
    await front.delete(gone)
    await front.delete(others[0])
    await front.commit()
    assert recorder.take() == [deleted(Word, "b")]
    for word in (gone, others[0]):
        await front.delete(word)
    await front.commit()
    assert recorder.take() == []
    await front.delete(gone)
    await front.add(Word(code=func.lower("A")))  # inserted before that is deleted
    await front.commit()
    assert recorder.take() == []
    await store(front, Word(code="a"))
    await front.delete(gone)
    await front.delete(others[1])
    await front.commit()
    assert recorder.take() == [created(Word, "a"), deleted(Word, "a"), deleted(Word, "c")]
    assert await front.committed_rows(select(Word.code)) == []


@pytest.mark.parametrize("expire", [False, True])
@scenario(Base.metadata)
async def test_expunged_in_a_savepoint_that_is_rolled_back(
    front: FrontEnd, recorder: EventRecorder, *, expire: bool
) -> None:
    """E10, E11, T3: SQLAlchemy does not expire what is not in the session; callbacks read what was committed."""
    await store(front, Word(code="a", meaning="before"))
    recorder.listen(Word)
    shown: list[str | None] = []

    @listens_for(Word)
    def show(word: Word, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append(word.meaning)

    session = front.new_session(expire_on_commit=expire)
    word = await session.get_one(Word, "a")
    word.meaning = "outside"
    await session.flush()
    savepoint = session.begin_nested()
    await savepoint
    word.meaning = "inside"
    await session.flush()
    await session.expunge(word)
    await savepoint.rollback()
    await session.commit()
    assert recorder.take() == [updated(Word, "a", meaning=("before", "outside"))]
    assert shown == ["outside"]


def test_event_session_is_the_listeners_target() -> None:
    """The library itself listens to no ``before_flush``: whoever does comes before it."""
    assert not SyncEventSession().dispatch.before_flush


class Versioned(Base):
    __tablename__ = "reach_versioned"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    words: Mapped[str]
    version: Mapped[int] = mapped_column()
    touched: Mapped[int] = mapped_column(default=0, onupdate=text("touched + 1"))
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy reads it


@pytest.mark.parametrize("expired", [None, ["version"], ["touched"], ["words"]])
@pytest.mark.parametrize("inside", [False, True])
@scenario(Base.metadata)
async def test_what_the_database_made_of_a_row_in_two_flushes(
    front: FrontEnd, recorder: EventRecorder, *, expired: list[str] | None, inside: bool
) -> None:
    """E1, E3, E4: from the first old value to the last new one, whatever was expired in between."""
    await store(front, Versioned(id=1, words="a"))
    recorder.listen(Versioned)
    row = await front.get_one(Versioned, 1)
    row.words = "b"
    await front.flush()
    await front.expire(row, expired)
    row.words = "c"
    if inside:
        async with front.begin_nested():
            await front.flush()
    await front.commit()
    assert recorder.take() == [updated(Versioned, 1, words=("a", "c"), version=(1, 3), touched=(0, 2))]


@pytest.mark.parametrize("end", ["expire", "refresh"])
@scenario(Base.metadata)
async def test_members_of_collections_that_are_not_loaded(front: FrontEnd, recorder: EventRecorder, end: str) -> None:
    """E3, E4, E6: moved by their own side, then read or expired again, they are written by the collection's."""
    await store(front, *(Shelf(id=key) for key in (1, 2)), Book(id=1, shelf_id=1))
    recorder.listen(Book)
    book, shelf = await front.get_one(Book, 1), await front.get_one(Shelf, 2)

    def read(_session: object) -> None:
        assert book.shelf is not None

    await front.run_sync(read)
    book.shelf = shelf
    await getattr(front, end)(book)
    await front.commit()
    ((shelf_id, revision),) = await front.committed_rows(select(Book.shelf_id, Book.revision))
    assert recorder.take() == [updated(Book, 1, shelf_id=(1, shelf_id), revision=(0, revision))]
