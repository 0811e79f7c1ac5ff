"""Rule E7: relationships, reported where ``__watched_fields__`` names them."""

from __future__ import annotations

from operator import attrgetter

import pytest
from sqlalchemy import Column, ForeignKey, Integer, String, Table, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    load_only,
    mapped_column,
    object_session,
    relationship,
    selectinload,
)

from fastapi_toolsets.models import Changes, ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, created, listening_to, updated


class LibraryBase(DeclarativeBase):
    type_annotation_map = TYPES


book_keywords = Table(
    "book_keywords",
    LibraryBase.metadata,
    Column("book_id", Integer, ForeignKey("books.id"), primary_key=True),
    Column("keyword_id", Integer, ForeignKey("keywords.id"), primary_key=True),
)


class Author(LibraryBase):
    __tablename__ = "authors"
    __watched_fields__ = ("name", "books")
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]
    books: Mapped[list[Book]] = relationship(back_populates="author", order_by="Book.id")


class Keyword(LibraryBase):
    __tablename__ = "keywords"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Book(LibraryBase):
    __tablename__ = "books"
    __watched_fields__ = ("author", "keywords")
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str | None]
    author_id: Mapped[int | None] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author | None] = relationship(back_populates="books")
    keywords: Mapped[set[Keyword]] = relationship(secondary=book_keywords)


class BookKeyword(LibraryBase):
    """An association object on the table of a many-to-many relationship."""

    __table__ = book_keywords


class Copy(LibraryBase):
    """Watches nothing by name, so that no relationship is reported."""

    __tablename__ = "copies"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    book_id: Mapped[int | None] = mapped_column(ForeignKey("books.id"))
    book: Mapped[Book | None] = relationship()


class SeatBase(DeclarativeBase):
    type_annotation_map = TYPES


class Guest(SeatBase):
    __tablename__ = "guests"
    __watched_fields__ = ("seat",)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seat: Mapped[Seat | None] = relationship(back_populates="guest")


class Seat(SeatBase):
    __tablename__ = "seats"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    guest_id: Mapped[int | None] = mapped_column(ForeignKey("guests.id"))
    guest: Mapped[Guest | None] = relationship(back_populates="seat")


async def store_library(front: FrontEnd, recorder: EventRecorder) -> tuple[list[Author], list[Book], list[Keyword]]:
    """Commit two authors, two books of the first and two keywords; begin to listen to all."""
    authors = [Author(id=1), Author(id=2)]
    keywords = [Keyword(id=1), Keyword(id=2)]
    books = [Book(id=1, author=authors[0], keywords={keywords[0]}), Book(id=2, author=authors[0], keywords=set())]
    await front.add_all([*authors, *books, *keywords])
    await front.commit()
    authors = list(await front.scalars(select(Author).options(selectinload(Author.books)).order_by(Author.id)))
    books = list(await front.scalars(select(Book).options(selectinload(Book.keywords)).order_by(Book.id)))
    await front.commit()
    recorder.listen(LibraryBase)
    return authors, books, keywords


@scenario(LibraryBase.metadata)
async def test_a_watched_scalar_relationship(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7: its old and its new object; the foreign key is not watched, so it is not reported."""
    authors, books, _ = await store_library(front, recorder)
    recorder.take()
    books[0].author = authors[1]
    await front.commit()
    assert updated(Book, 1, author=(authors[0], authors[1])) in recorder.take()
    books[0].author = None
    await front.commit()
    assert updated(Book, 1, author=(authors[1], None)) in recorder.take()
    books[0].author = authors[0]
    await front.flush()
    books[0].author = authors[1]
    await front.commit()
    assert updated(Book, 1, author=(None, authors[1])) in recorder.take()
    books[0].author = authors[0]
    await front.flush()
    books[0].author = authors[1]
    await front.commit()
    assert recorder.take() == []


@scenario(LibraryBase.metadata)
async def test_an_unloaded_scalar_relationship(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E7: the old object is true also where it was not loaded, or the book was expired."""
    await store_library(front, recorder)
    for unload in ("new session", "expire", "load_only"):
        session = front.new_session()
        option = [load_only(Book.id)] if unload == "load_only" else []
        book = (await session.scalars(select(Book).where(Book.id == 1).options(*option))).one()
        if unload == "expire":
            await session.expire(book)
        new = await session.get_one(Author, 2)
        book.author = new
        await session.commit()
        old = await session.get_one(Author, 1)
        assert [event for event in recorder.take() if event[1] == "Book"] == [updated(Book, 1, author=(old, new))]
        book.author = old
        await session.commit()
        recorder.take()


class PetBase(DeclarativeBase):
    type_annotation_map = TYPES


class Pet(PetBase):
    __tablename__ = "pets"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "pet"}  # noqa: RUF012 - SQLAlchemy reads it


class Dog(Pet):
    __tablename__ = "pet_dogs"
    id: Mapped[int] = mapped_column(ForeignKey("pets.id"), primary_key=True, autoincrement=False)
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012 - SQLAlchemy reads it


class Puppy(Dog):
    """Its attribute for the key has a name of its own."""

    __tablename__ = "pet_puppies"
    dog_id: Mapped[int] = mapped_column(ForeignKey("pet_dogs.id"), primary_key=True, autoincrement=False)
    __mapper_args__ = {"polymorphic_identity": "puppy"}  # noqa: RUF012 - SQLAlchemy reads it


class Keeper(PetBase):
    __tablename__ = "keepers"
    __watched_fields__ = ("dog", "puppy")
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    dog_id: Mapped[int | None] = mapped_column(ForeignKey("pet_dogs.id"))
    puppy_id: Mapped[int | None] = mapped_column(ForeignKey("pet_puppies.dog_id"))
    dog: Mapped[Dog | None] = relationship(foreign_keys=dog_id)
    puppy: Mapped[Puppy | None] = relationship(foreign_keys=puppy_id)


async def load_seats(front: FrontEnd) -> tuple[Guest, list[Seat]]:
    """Load anew, without the relationship between them, what is stored."""
    await front.close()
    seats = list(await front.scalars(select(Seat).order_by(Seat.id)))
    return await front.get_one(Guest, 1), seats


async def store_seats(front: FrontEnd, recorder: EventRecorder) -> None:
    """Commit two seats and a guest on the first, and begin to listen."""
    await front.add_all([Guest(id=1, seat=Seat(id=1)), Seat(id=2)])
    await front.commit()
    recorder.listen(Guest)


@scenario(SeatBase.metadata)
async def test_an_unloaded_one_to_one_relationship(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E7, E12: its old object is what the flush itself has looked up, and nothing is asked once it has written."""
    await store_seats(front, recorder)
    guest, seats = await load_seats(front)
    guest.seat = new = Seat(id=3)
    with front.statements() as statements:
        await front.commit()
    assert [statement.split()[0] for statement in statements] == ["SELECT", "UPDATE", "INSERT"]
    assert recorder.take() == [updated(Guest, 1, seat=(seats[0], new))]
    guest, seats = await load_seats(front)
    guest.seat = None
    await front.commit()
    assert recorder.take() == [updated(Guest, 1, seat=(seats[2], None))]
    guest, seats = await load_seats(front)
    guest.seat = seats[0]
    await front.flush()
    guest.seat = seats[1]
    await front.commit()
    assert recorder.take() == [updated(Guest, 1, seat=(None, seats[1]))]
    guest, seats = await load_seats(front)
    guest.seat = seats[1]
    await front.commit()
    assert recorder.take() == []


@scenario(SeatBase.metadata)
async def test_an_unloaded_one_to_one_relationship_from_its_other_side(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """E3, E7: the old object is true also where the child's many-to-one relationship is what was assigned."""
    await store_seats(front, recorder)
    guest, (first, second) = await load_seats(front)
    second.guest = guest
    await front.commit()
    assert recorder.take() == [updated(Guest, 1, seat=(first, second))]
    assert await front.committed_rows(select(Seat.id, Seat.guest_id).order_by(Seat.id)) == [(1, None), (2, 1)]


@scenario(PetBase.metadata)
async def test_an_unloaded_relationship_to_a_joined_subclass(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E7: the old object is true where the foreign key names the subclass's table, and not that of its base."""
    await front.add_all([Dog(id=1), Dog(id=2), Puppy(id=3), Puppy(id=4)])
    await front.flush()
    await front.add(Keeper(id=1, dog_id=1, puppy_id=3))
    await front.commit()
    await front.close()
    recorder.listen(Keeper)
    keeper = await front.get_one(Keeper, 1)
    dogs = {key: await front.get_one(Dog, key) for key in (1, 2, 3, 4)}
    keeper.dog, keeper.puppy = dogs[2], None
    await front.commit()
    assert recorder.take() == [updated(Keeper, 1, dog=(dogs[1], dogs[2]), puppy=(dogs[3], None))]
    await front.expire(keeper)
    keeper.dog = None
    await front.commit()
    assert recorder.take() == [updated(Keeper, 1, dog=(dogs[2], None))]


@scenario(LibraryBase.metadata)
async def test_an_unloaded_scalar_relationship_with_its_foreign_key(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E7: the old object is that of the old foreign key, also where both are assigned and neither was loaded."""
    authors, books, _ = await store_library(front, recorder)
    await front.expire(books[0])
    books[0].author_id = 2
    books[0].author = authors[1]
    await front.commit()
    assert [event for event in recorder.take() if event[1] == "Book"] == [
        updated(Book, 1, author=(authors[0], authors[1]))
    ]


@scenario(LibraryBase.metadata)
async def test_a_watched_collection(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7: ``old`` = all members removed, ``new`` = all members added; over several flushes, net."""
    authors, books, _ = await store_library(front, recorder)
    recorder.take()
    authors[1].books.append(books[0])
    await front.commit()
    taken = recorder.take()
    assert sorted(taken, key=str) == sorted(
        [
            updated(Author, 1, books=([books[0]], [])),
            updated(Author, 2, books=([], [books[0]])),
            updated(Book, 1, author=(authors[0], authors[1])),
        ],
        key=str,
    )
    authors[0].books.remove(books[1])
    await front.flush()
    third = Book(id=3)
    authors[0].books.append(third)
    await front.commit()
    taken = [event for event in recorder.take() if event[1] == "Author"]
    assert taken == [updated(Author, 1, books=([books[1]], [third]))]


@scenario(LibraryBase.metadata)
async def test_a_member_that_was_added_and_removed(front: FrontEnd, recorder: EventRecorder) -> None:
    """E2, E7: added then removed is nothing, and removed then added."""
    authors, books, _ = await store_library(front, recorder)
    recorder.take()
    authors[0].books.remove(books[0])
    await front.flush()
    authors[0].books.insert(0, books[0])
    await front.commit()
    assert recorder.take() == []
    third = Book(id=3)
    authors[0].books.append(third)
    await front.flush()
    authors[0].books.remove(third)
    await front.commit()
    assert recorder.take() == [created(Book, 3)]


@pytest.mark.parametrize("flushes", [False, True], ids=["in one flush", "in two"])
@scenario(LibraryBase.metadata)
async def test_a_member_whose_row_another_object_takes_over(
    front: FrontEnd, recorder: EventRecorder, *, flushes: bool
) -> None:
    """E2, E7, E8: members are rows, and one that is deleted and put back has neither left nor joined."""
    authors, books, _ = await store_library(front, recorder)
    authors[0].books.remove(books[1])
    await front.delete(books[1])
    if flushes:
        await front.flush()
    third = Book(id=3)
    authors[0].books += [Book(id=2, keywords=set()), third]
    await front.commit()
    taken = [event for event in recorder.take() if event[1] == "Author"]
    assert taken == [updated(Author, 1, books=([], [third]))]
    await front.delete(third)
    authors[0].books[1:] = [authors[0].books[1], Book(id=3, keywords=set())]
    await front.commit()
    assert [event for event in recorder.take() if event[1] == "Author"] == []


@scenario(LibraryBase.metadata)
async def test_a_collection_that_is_replaced(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7: only who really left and who really joined; a set of many-to-many members too."""
    authors, books, keywords = await store_library(front, recorder)
    recorder.take()
    third = Book(id=3)
    authors[0].books = [books[1], third]
    books[1].keywords = set(keywords)
    books[0].keywords = {keywords[1]}
    await front.commit()
    taken = recorder.take()
    for _, _, _, changes in taken:
        if changes is not None and "keywords" in changes:
            changes["keywords"]["new"].sort(key=attrgetter("id"))
    assert sorted(taken, key=str) == sorted(
        [
            updated(Author, 1, books=([books[0]], [third])),
            updated(Book, 1, author=(authors[0], None), keywords=([keywords[0]], [keywords[1]])),
            updated(Book, 2, keywords=([], [keywords[0], keywords[1]])),
            created(Book, 3),
        ],
        key=str,
    )


@scenario(LibraryBase.metadata)
async def test_a_collection_that_was_not_loaded(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E7: appended to, removed from or replaced without having been loaded; expired before."""
    await store_library(front, recorder)
    session = front.new_session()
    author = await session.get_one(Author, 1)
    first, second = await session.get_one(Book, 1), await session.get_one(Book, 2)
    third = Book(id=3)

    def append_and_remove(_: object) -> None:
        author.books.append(third)
        author.books.remove(first)

    await session.run_sync(append_and_remove)
    await session.commit()
    assert [event for event in recorder.take() if event[1] == "Author"] == [
        updated(Author, 1, books=([first], [third]))
    ]
    await session.expire(author)

    def replace(_: object) -> None:
        author.books = [first]

    await session.run_sync(replace)
    await session.commit()
    taken = [event for event in recorder.take() if event[1] == "Author"]
    assert taken == [updated(Author, 1, books=([second, third], [first]))]


@scenario(LibraryBase.metadata)
async def test_a_collection_changed_from_the_other_side(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7: through the backref of a loaded collection."""
    authors, books, _ = await store_library(front, recorder)
    recorder.take()
    books[0].author = authors[1]
    await front.commit()
    taken = sorted((event for event in recorder.take() if event[1] == "Author"), key=str)
    assert taken == [updated(Author, 1, books=([books[0]], [])), updated(Author, 2, books=([], [books[0]]))]


@scenario(LibraryBase.metadata)
async def test_an_unloaded_collection_changed_from_the_other_side(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7: through the backref of a collection that nobody has loaded."""
    await store_library(front, recorder)
    session = front.new_session()
    first, second = [await session.get_one(Author, key) for key in (1, 2)]
    book, new = await session.get_one(Book, 1), Book(id=3)
    book.author = second
    new.author = first
    await session.add(new)
    await session.commit()
    taken = sorted((event for event in recorder.take() if event[1] == "Author"), key=str)
    assert taken == [updated(Author, 1, books=([book], [new])), updated(Author, 2, books=([], [book]))]


@scenario(LibraryBase.metadata)
async def test_a_collection_in_a_savepoint(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7, T3: released it is net with what was before; rolled back it is gone."""
    authors, books, _ = await store_library(front, recorder)
    recorder.take()
    authors[0].books.remove(books[0])
    async with front.begin_nested():
        authors[1].books.append(books[0])
        authors[0].books.remove(books[1])
    savepoint = await front.begin_nested()
    authors[1].books.append(books[1])
    await front.flush()
    await savepoint.rollback()
    await front.commit()
    taken = sorted((event for event in recorder.take() if event[1] == "Author"), key=str)
    assert len(taken) == 2
    (_, _, first_id, first), (_, _, second_id, second) = taken
    assert (first_id, second_id) == (1, 2)
    assert first is not None
    assert second is not None
    assert (set(first["books"]["old"]), first["books"]["new"]) == (set(books), [])
    assert second == {"books": {"old": [], "new": [books[0]]}}


@scenario(LibraryBase.metadata, databases=LOCAL)
async def test_relationships_that_nobody_watches(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7: without ``__watched_fields__`` a relationship is never reported, only the foreign key."""
    _, books, _ = await store_library(front, recorder)
    copy = Copy(id=1, book=books[0])
    await front.add(copy)
    await front.commit()
    copy.book = books[1]
    await front.commit()
    assert recorder.take() == [created(Copy, 1), updated(Copy, 1, book_id=(1, 2))]


@pytest.mark.parametrize("hook", ["before_insert", "after_insert"])
@pytest.mark.parametrize("attributes", [None, ["books"], ["name"]])
@scenario(LibraryBase.metadata, databases=LOCAL)
async def test_a_collection_that_a_listener_of_its_members_expires(
    front: FrontEnd, recorder: EventRecorder, hook: str, attributes: list[str] | None
) -> None:
    """E7: who has joined and left is told also where the flush that writes it has the collection loaded anew."""
    authors, books, _ = await store_library(front, recorder)
    recorder.take()

    def listener(mapper: object, connection: object, book: Book) -> None:
        session = object_session(book)
        assert session is not None
        session.expire(authors[0], attributes)

    book = Book(id=3, keywords=set())
    with listening_to(Book, hook, listener):
        authors[0].name = "Ada"
        authors[0].books = [books[1], book]
        await front.commit()
    assert recorder.take() == [
        updated(Author, 1, name=(None, "Ada"), books=([books[0]], [book])),
        created(Book, 3),
        updated(Book, 1, author=(authors[0], None)),
    ]


@pytest.mark.parametrize("attributes", [None, ["author", "keywords"], ["title"]])
@scenario(LibraryBase.metadata, databases=LOCAL)
async def test_relationships_that_a_listener_of_their_row_expires(
    front: FrontEnd, recorder: EventRecorder, attributes: list[str] | None
) -> None:
    """E7: so it is with the object that a row refers to, and where both were set to what they are."""
    authors, books, keywords = await store_library(front, recorder)
    recorder.take()

    def listener(mapper: object, connection: object, book: Book) -> None:
        session = object_session(book)
        assert session is not None
        session.expire(book, attributes)

    with listening_to(Book, "after_update", listener):
        books[0].author, books[0].keywords = authors[1], {keywords[1]}
        books[1].author, books[1].keywords = authors[0], set()
        books[1].title = "renamed"
        await front.commit()
    assert recorder.take() == [
        updated(Author, 1, books=([books[0]], [])),
        updated(Author, 2, books=([], [books[0]])),
        updated(Book, 1, author=(authors[0], authors[1]), keywords=([keywords[0]], [keywords[1]])),
    ]


@scenario(LibraryBase.metadata, databases=LOCAL)
async def test_lists_of_members_are_each_callbacks_own(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5, E7: clearing them in one callback changes neither the next one's nor the collection."""
    authors, books, _ = await store_library(front, recorder)
    heard: list[Changes] = []

    def vandal(author: Author, event_type: ModelEvent, changes: Changes) -> None:
        changes["books"]["old"].clear()
        changes["books"]["new"].append("vandal")

    def witness(author: Author, event_type: ModelEvent, changes: Changes) -> None:
        heard.append(changes)

    for callback in (vandal, witness):
        listens_for(Author, ModelEvent.UPDATE)(callback)
    authors[0].books.remove(books[0])
    await front.commit()
    assert heard == [{"books": {"old": [books[0]], "new": []}}]
    assert authors[0].books == [books[1]]


@scenario(LibraryBase.metadata)
async def test_rows_of_a_secondary_table_make_no_event(front: FrontEnd, recorder: EventRecorder) -> None:
    """E6, E7: also where a class is mapped to it; the watched collection tells, and the class where it is used."""
    _, books, keywords = await store_library(front, recorder)
    recorder.take()
    books[0].keywords = {keywords[1]}
    await front.commit()
    assert recorder.take() == [updated(Book, 1, keywords=([keywords[0]], [keywords[1]]))]
    await front.add(BookKeyword(book_id=2, keyword_id=1))
    await front.commit()
    assert recorder.take() == [created(BookKeyword, (2, 1))]


class PlaceBase(DeclarativeBase):
    type_annotation_map = TYPES


class Country(PlaceBase):
    __tablename__ = "countries"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    code: Mapped[str] = mapped_column(String(2), unique=True)


class City(PlaceBase):
    __tablename__ = "cities"
    __watched_fields__ = ("country",)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    country_code: Mapped[str | None] = mapped_column(ForeignKey("countries.code"))
    country: Mapped[Country | None] = relationship()


@scenario(PlaceBase.metadata)
async def test_an_unloaded_relationship_to_what_is_no_primary_key(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7: nor had anybody loaded it, and the row refers to another column."""
    countries = [Country(id=1, code="be"), Country(id=2, code="fr")]
    await front.add_all([*countries, City(id=1, country=countries[0])])
    await front.commit()
    await front.expunge_all()
    recorder.listen(City)
    countries = list(await front.scalars(select(Country).order_by(Country.id)))
    city = await front.get_one(City, 1)
    city.country = countries[1]
    await front.commit()
    assert recorder.take() == [updated(City, 1, country=(countries[0], countries[1]))]


@scenario(PlaceBase.metadata, databases=LOCAL)
async def test_expiring_a_row_that_refers_to_what_is_no_primary_key(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E7: what it led to was not loaded, and is known by another column than its key."""
    await front.add_all([Country(id=2, code="fr"), City(id=1, country=Country(id=1, code="be"))])
    await front.commit()
    await front.expunge_all()
    told: list[list[str]] = []

    @listens_for(City, ModelEvent.UPDATE)
    def note(city: City, event_type: ModelEvent, changes: Changes) -> None:
        told.append([changes["country"][side].code for side in ("old", "new")])

    def listener(mapper: object, connection: object, city: City) -> None:
        session = object_session(city)
        assert session is not None
        session.expire(city)

    city = await front.get_one(City, 1)
    city.country = await front.get(Country, 2)
    with listening_to(City, "after_update", listener):
        await front.commit()
    assert told == [["be", "fr"]]


@scenario(LibraryBase.metadata)
async def test_an_unloaded_relationship_and_its_foreign_key(front: FrontEnd, recorder: EventRecorder) -> None:
    """E7: both are assigned, and the object knows which key it had, of what nobody has loaded."""
    await store_library(front, recorder)
    await front.expunge_all()
    told: list[list[int]] = []

    @listens_for(Book, ModelEvent.UPDATE)
    def note(book: Book, event_type: ModelEvent, changes: Changes) -> None:
        told.append([changes["author"][side].id for side in ("old", "new")])

    book = await front.get_one(Book, 1)
    book.author_id, book.author = 2, await front.get_one(Author, 2)
    await front.commit()
    assert told == [[1, 2]]
