"""Rules T1, T2 and B2 where a bulk statement fails halfway, or is interrupted, and the program commits all the same."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Delete, Insert, Select, Update, delete, event, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError
from sqlalchemy.orm import Session

from fastapi_toolsets.errors import CommitAbortedError, RolledBackCommitWarning
from fastapi_toolsets.models import Changes, ModelEvent, Phase, listens_for

from ..front_ends import EventRecorder, FrontEnd, RecordedEvent, scenario
from .bulk_models import PARCELS, Animal, Base, Dog, Employee, Manager, Parcel, store, three_parcels
from .event_models import created, deleted, updated

IN_PAIRS = {"insertmanyvalues_page_size": 2}
TWICE_THE_SAME = [{"code": "a"}, {"code": "b"}, {"code": "c"}, {"code": "c"}]


class Interrupt(BaseException):
    """As Ctrl-C is, which no ``except Exception`` catches."""


async def commit_nothing(front: FrontEnd) -> None:
    """Try to commit what the server keeps of a statement that has failed halfway; PostgreSQL keeps nothing."""
    if front.database.name == "postgresql":
        with pytest.warns(RolledBackCommitWarning):
            await front.commit()
        return
    with pytest.raises(
        CommitAbortedError, match="was interrupted, or has failed after it had written some of its rows"
    ):
        await front.commit()
    await front.rollback()


@contextmanager
def interrupted(front: FrontEnd, kind: type[Any], error: BaseException) -> Generator[None]:
    """Raise an error after the database has executed a statement of a kind, as SQLAlchemy begins to look at it.

    Not after the UPDATE of no row that takes SQLite's lock before.
    """

    def stop(*arguments: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own
        if isinstance(arguments[1], kind) and str(getattr(arguments[1], "whereclause", None)) != "false":
            raise error

    event.listen(front.sync_engine, "after_execute", stop)
    try:
        with pytest.raises(type(error)):
            yield
    finally:
        event.remove(front.sync_engine, "after_execute", stop)


@scenario(Base.metadata)
async def test_insert_of_many_rows(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2, B2: of rows that are sent two by two the first two are there when the others fail; they are not committed."""
    recorder.listen(Parcel)
    with pytest.raises(IntegrityError):
        await front.execute(insert(Parcel), TWICE_THE_SAME, execution_options=IN_PAIRS)
    await commit_nothing(front)
    assert await front.committed_rows(PARCELS) == []
    await front.execute(insert(Parcel), [{"id": 5, "code": "d"}])
    await front.commit()
    assert recorder.take() == [created(Parcel, 5)]


@scenario(Base.metadata)
async def test_insert_that_fails_as_a_whole(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1: where the database has kept no row of a statement, the rest is committed and told as ever."""
    recorder.listen(Parcel)
    await front.execute(insert(Parcel), [{"id": 1, "code": "a"}])
    with pytest.raises(IntegrityError):
        async with front.begin_nested():
            await front.execute(insert(Parcel), TWICE_THE_SAME, execution_options=IN_PAIRS)
    if front.database.name != "postgresql":
        with pytest.raises(IntegrityError):
            await front.execute(insert(Parcel).values([{"code": "b"}, {"code": "a"}]))
    await front.commit()
    assert recorder.take() == [created(Parcel, 1)]
    assert [row[:2] for row in await front.committed_rows(PARCELS)] == [(1, "a")]


@scenario(Base.metadata)
async def test_insert_into_two_tables(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2, B2: the base table has its rows when the other table refuses its own."""
    recorder.listen(Employee)
    with pytest.raises(DBAPIError):
        await front.execute(insert(Manager), [{"name": "a", "budget": 1}, {"name": "b", "budget": None}])
    await commit_nothing(front)
    assert recorder.take() == []
    assert await front.committed_rows(select(Employee.id)) == []


@scenario(Base.metadata)
async def test_update_of_a_list_of_rows(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1, B2: what the rows that it came to have become is told."""
    await three_parcels(front, recorder)
    rolled_back: list[tuple[int, Changes | None]] = []

    @listens_for(Parcel, phase=Phase.AFTER_ROLLBACK)
    def note(parcel: Parcel, event_type: ModelEvent, changes: Changes | None) -> None:
        rolled_back.append((parcel.id, changes))

    rows = [{"id": 1, "code": "x"}, {"id": 2, "code": "y"}, {"id": 3, "code": "x"}]
    told: list[RecordedEvent] = [updated(Parcel, 1, code=("p1", "x")), updated(Parcel, 2, code=("p2", "y"))]
    with pytest.raises(IntegrityError):
        await front.execute(update(Parcel), rows)
    await front.rollback()
    is_kept = front.database.name != "postgresql"
    assert rolled_back == (
        [(1, {"code": {"old": "p1", "new": "x"}}), (2, {"code": {"old": "p2", "new": "y"}})] * is_kept
    )
    with pytest.raises(IntegrityError):
        await front.execute(update(Parcel), rows)
    if is_kept:
        await front.commit()
    else:
        await commit_nothing(front)
    assert recorder.take() == told * is_kept
    codes = [row[1] for row in await front.committed_rows(PARCELS)]
    assert codes == (["x", "y", "p3"] if is_kept else ["p1", "p2", "p3"])


def insert_two(session: Session) -> None:
    session.execute(insert(Parcel), [{"id": 11, "code": "a"}, {"id": 12, "code": "b"}])


def insert_one(session: Session) -> None:
    session.execute(insert(Parcel).values(id=11, code="a"))


def update_by_criteria(session: Session) -> None:
    session.execute(update(Parcel).where(Parcel.id > 1).values(note="z"))


def update_by_key(session: Session) -> None:
    session.execute(update(Parcel), [{"id": 1, "note": "z"}, {"id": 2, "note": "z"}])


def delete_by_criteria(session: Session) -> None:
    session.execute(delete(Parcel).where(Parcel.id > 1))


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (insert_two, Insert),
        (insert_one, Insert),
        (update_by_criteria, Update),
        (update_by_key, Update),
        (delete_by_criteria, Delete),
    ],
)
@scenario(Base.metadata)
async def test_interrupted_once_it_was_executed(
    front: FrontEnd, recorder: EventRecorder, write: Callable[[Session], None], kind: type[Any]
) -> None:
    """T1, T2: nobody knows what it has written, so it is not committed, neither by itself nor by a later savepoint."""
    await three_parcels(front, recorder)
    with interrupted(front, kind, Interrupt()):
        await front.run_sync(write)
    with pytest.raises(CommitAbortedError):
        await front.commit()
    await front.rollback()
    savepoint = await front.begin_nested()
    with interrupted(front, kind, Interrupt()):
        await front.run_sync(write)
    await savepoint.commit()
    await front.add(Parcel(id=9, code="i"))
    with pytest.raises(CommitAbortedError):
        await front.commit()
    await front.rollback()
    assert recorder.take() == []
    assert [row[:2] for row in await front.committed_rows(PARCELS)] == [(1, "p1"), (2, "p2"), (3, "p3")]
    await front.add(Parcel(id=9, code="i"))
    savepoint = await front.begin_nested()
    with interrupted(front, kind, Interrupt()):
        await front.run_sync(write)
    await savepoint.rollback()
    await front.commit()
    assert recorder.take() == [created(Parcel, 9)]


@scenario(Base.metadata)
async def test_interrupted_beside_one_that_has_succeeded(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2: another statement of the same kind, before or after it, makes nothing known; a commit by a block neither."""
    await three_parcels(front, recorder)

    async def write() -> None:
        async with front.begin():
            await front.execute(delete(Parcel).where(Parcel.id == 1))
            with interrupted(front, Delete, Interrupt()):
                await front.execute(delete(Parcel).where(Parcel.id == 2))
            await front.execute(delete(Parcel).where(Parcel.id == 3))

    with pytest.raises(CommitAbortedError):
        await write()
    assert recorder.take() == []
    await front.execute(delete(Parcel).where(Parcel.id == 3))
    await front.commit()
    assert recorder.take() == [deleted(Parcel, 3)]
    assert [row[0] for row in await front.committed_rows(PARCELS)] == [1, 2]


@scenario(Base.metadata)
async def test_interrupted_in_a_savepoint_that_the_outer_commit_releases(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """T2: the transaction's own ``commit()`` with the savepoint still open is refused as well."""
    await three_parcels(front, recorder)

    def write(session: Session) -> None:
        transaction = session.begin()
        session.begin_nested()
        with interrupted(front, Update, Interrupt()):
            update_by_criteria(session)
        with pytest.raises(CommitAbortedError):
            transaction.commit()
        session.rollback()

    await front.run_sync(write)
    assert recorder.take() == []
    assert [row[4] for row in await front.committed_rows(PARCELS)] == [None, None, None]
    await front.run_sync(update_by_criteria)
    await front.commit()
    assert recorder.take() == [updated(Parcel, 2, note=(None, "z")), updated(Parcel, 3, note=(None, "z"))]


def insert_mappings(session: Session) -> None:
    session.bulk_insert_mappings(Dog, [{"name": "a"}, {"name": "b"}])


def save_objects(session: Session) -> None:
    session.bulk_save_objects([Dog(name="a"), Dog(name="b")])


@pytest.mark.parametrize("write", [insert_mappings, save_objects])
@scenario(Base.metadata)
async def test_bulk_methods_whose_rows_cannot_be_read(
    front: FrontEnd, recorder: EventRecorder, write: Callable[[Session], None]
) -> None:
    """T2, B2: the library's SELECT of the new rows' classes fails."""
    recorder.listen(Animal)
    with interrupted(front, Select, RuntimeError("no answer")):
        await front.run_sync(write)
    with pytest.raises(CommitAbortedError):
        await front.commit()
    await front.rollback()
    assert recorder.take() == []
    await front.run_sync(write)
    await front.commit()
    ids = [row[0] for row in await front.committed_rows(select(Animal.id).order_by(Animal.id))]
    assert recorder.take() == [created(Dog, key) for key in ids]


def insert_twice_the_same(session: Session) -> None:
    session.bulk_insert_mappings(Parcel, TWICE_THE_SAME)


def save_one_that_is_there(session: Session) -> None:
    session.bulk_save_objects([Parcel(code="b"), Parcel(code="a")])


def update_to_one_that_is_there(session: Session) -> None:
    session.bulk_update_mappings(Parcel, [{"id": 2, "code": "x"}, {"id": 1, "code": "x"}])


@pytest.mark.parametrize("write", [insert_twice_the_same, save_one_that_is_there, update_to_one_that_is_there])
@scenario(Base.metadata)
async def test_bulk_methods_that_fail(
    front: FrontEnd, recorder: EventRecorder, write: Callable[[Session], None]
) -> None:
    """T1: they have rolled everything back by themselves, and the next commit tells of its own."""
    await store(front, Parcel(id=1, code="a"), Parcel(id=2, code="c"))
    recorder.listen(Parcel)
    with pytest.raises(IntegrityError):
        await front.run_sync(write)
    await front.rollback()
    await front.add(Parcel(id=3, code="b"))
    await front.commit()
    assert recorder.take() == [created(Parcel, 3)]


def broken_off(number: int) -> Iterator[dict[str, Any]]:
    for key in range(10, 10 + number):
        yield {"id": key, "code": str(key)}
    raise Interrupt


def insert_broken_off(session: Session) -> None:
    session.bulk_insert_mappings(Parcel, broken_off(1_001))  # of which the library writes 1 000 at a time


def update_broken_off(session: Session) -> None:
    session.bulk_update_mappings(Parcel, broken_off(2))


def save_broken_off(session: Session) -> None:
    session.bulk_save_objects(Parcel(**row) for row in broken_off(2))


@pytest.mark.parametrize("write", [insert_broken_off, update_broken_off, save_broken_off])
@scenario(Base.metadata)
async def test_bulk_methods_whose_rows_break_off(
    front: FrontEnd, recorder: EventRecorder, write: Callable[[Session], None]
) -> None:
    """T2, B2: where what they are given raises, everything is rolled back, and not committed, as on a plain session."""
    recorder.listen(Parcel)
    await front.add(Parcel(id=1, code="a"))
    await front.flush()
    with pytest.raises(Interrupt):
        await front.run_sync(write)
    with pytest.raises(PendingRollbackError):
        await front.commit()
    await front.rollback()
    assert (recorder.take(), await front.committed_rows(PARCELS)) == ([], [])


@pytest.mark.parametrize("saves", [False, True])
@scenario(Base.metadata)
async def test_bulk_methods_whose_rows_flush_what_fails(
    front: FrontEnd, recorder: EventRecorder, *, saves: bool
) -> None:
    """T2: what they are given asks the database, and the flush before that fails: it is that error which is raised."""
    await store(front, Parcel(id=1, code="a"))
    recorder.listen(Parcel)
    await front.add(Parcel(id=2, code="a"))

    def codes(session: Session) -> Iterator[dict[str, Any]]:
        yield {"id": 3, "code": str(len(session.scalars(select(Parcel)).all()))}

    def give(session: Session) -> None:
        if saves:
            session.bulk_save_objects(Parcel(**row) for row in codes(session))
        else:
            session.bulk_insert_mappings(Parcel, codes(session))

    with pytest.raises(IntegrityError):
        await front.run_sync(give)
    await front.rollback()
    assert (recorder.take(), await front.committed_rows(select(Parcel.id))) == ([], [(1,)])
