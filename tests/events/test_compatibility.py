"""Every fact that neither SQLAlchemy nor asyncio promises and the library stands on: a change fails here first."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    Join,
    StaticPool,
    Table,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import ExecutionContext, IteratorResult
from sqlalchemy.exc import InvalidRequestError, ResourceClosedError
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    InstanceState,
    Mapped,
    Mapper,
    ORMExecuteState,
    Session,
    SessionTransaction,
    aliased,
    composite,
    mapped_column,
    relationship,
    with_loader_criteria,
)
from sqlalchemy.orm.attributes import instance_state, set_committed_value
from sqlalchemy.orm.unitofwork import UOWTransaction
from sqlalchemy.util import concurrency

from fastapi_toolsets.events import compatibility


class Base(DeclarativeBase): ...


class Parent(Base):
    __tablename__ = "parents"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    settings: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(JSON))
    children: Mapped[list[Child]] = relationship(cascade="all, delete-orphan")


pairs = Table(
    "pairs",
    Base.metadata,
    Column("a", Integer, ForeignKey("knots.number")),
    Column("b", Integer, ForeignKey("knots.number")),
)


class Hook(Base):
    __tablename__ = "hooks"
    id: Mapped[int] = mapped_column(primary_key=True)
    coat: Mapped[Coat | None] = relationship()


class Coat(Base):
    __tablename__ = "coats"
    id: Mapped[int] = mapped_column(primary_key=True)
    hook_id: Mapped[int | None] = mapped_column(ForeignKey("hooks.id"))


class Knot(Base):
    __tablename__ = "knots"
    number: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(nullable=False)
    next_id: Mapped[int | None] = mapped_column(ForeignKey("knots.number"))
    next: Mapped[Knot | None] = relationship(remote_side=[number], post_update=True)
    others: Mapped[list[Knot]] = relationship(
        secondary=pairs, primaryjoin=number == pairs.c.a, secondaryjoin=number == pairs.c.b
    )
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - as SQLAlchemy documents it


class Ring(Base):
    __tablename__ = "rings"
    number: Mapped[int] = mapped_column(primary_key=True)
    next_id: Mapped[int | None] = mapped_column(ForeignKey("rings.number"))
    next: Mapped[Ring | None] = relationship(remote_side=[number])


class Child(Base):
    __tablename__ = "children"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("parents.id"))
    name: Mapped[str | None]


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine, expire_on_commit=False, autoflush=False) as session:
        yield session


Fate = dict[str, list[tuple[Any, tuple[bool, bool]]]]


def fates(session: Session) -> list[Fate]:
    """Collect, from now on, what each flush did: ``(object, (is_delete, list_only))`` by model."""
    collected: list[Fate] = []

    def after_flush(_: Session, flush_context: UOWTransaction) -> None:
        fate = compatibility.flush_fate(flush_context)
        collected.append(
            {
                mapper.class_.__name__: [(state.obj(), fate[state]) for state in states]
                for mapper, states in compatibility.flushed_states(flush_context).items()
                if states
            }
        )

    event.listen(session, "after_flush", after_flush)
    return collected


# The greenlet bridge


@pytest.mark.anyio
async def test_awaiting_from_sync_code() -> None:
    """``await_only``, called ``await_`` from 2.1 on, waits on the loop that spawned the greenlet."""
    assert compatibility.in_greenlet() is False
    seen: list[object] = []

    async def answer() -> int:
        seen.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return 42

    def work() -> None:
        seen.append(compatibility.in_greenlet())
        seen.append(compatibility.await_in_greenlet(answer()))

    await compatibility.spawn_greenlet(work)
    assert seen == [True, asyncio.get_running_loop(), 42]
    assert compatibility.in_greenlet() is False


@pytest.mark.anyio
async def test_the_frame_that_waits_for_the_bridge() -> None:
    """``greenlet.parent.gr_frame``: from there one comes to the function that awaits."""
    names: list[str] = []

    def work() -> None:
        frame = compatibility.waiting_frame()
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back

    await compatibility.spawn_greenlet(work)
    assert "test_the_frame_that_waits_for_the_bridge" in names


@pytest.mark.anyio
async def test_waiting_through_a_wrapper() -> None:
    """What the bridge's greenlet shows as its parent gets what is waited for."""
    steps: list[object] = []
    before: object = None
    frame: object = None

    async def answer(value: int) -> int:
        await asyncio.sleep(0)
        return value

    async def fail() -> None:
        raise LookupError

    def wait(awaitable: Awaitable[Any]) -> Awaitable[Any]:
        async def wrapped() -> object:
            steps.append("wrapped")
            return await awaitable

        return wrapped()

    def work() -> None:
        steps.append(compatibility.await_in_greenlet(answer(1)))
        steps.append(compatibility.await_in_greenlet(answer(2)))
        with pytest.raises(LookupError):
            compatibility.await_in_greenlet(fail())

    def refuse() -> None:
        raise KeyError

    def nested() -> None:
        compatibility.call_with_waits(work, wait)

    def look() -> None:
        assert compatibility.current_greenlet() is before
        assert compatibility.waiting_frame() is frame

    def outer() -> None:
        nonlocal before, frame
        before, frame = compatibility.current_greenlet(), compatibility.waiting_frame()
        parent, own_class = cast("Any", before).parent, type(before)
        compatibility.call_with_waits(look, wait)
        compatibility.call_with_waits(lambda: steps.append("nothing to wait for"), wait)
        compatibility.call_with_waits(work, wait)
        compatibility.call_with_waits(nested, wait)
        with pytest.raises(KeyError):
            compatibility.call_with_waits(refuse, wait)
        steps.append(compatibility.await_in_greenlet(answer(3)))
        assert cast("Any", before).parent is parent
        assert type(before) is own_class

    await compatibility.spawn_greenlet(outer)
    once, twice = ["wrapped", 1, "wrapped", 2, "wrapped"], ["wrapped", "wrapped"]
    assert steps == ["nothing to wait for", *once, *twice, 1, *twice, 2, *twice, 3]


def test_the_names_of_the_bridge() -> None:
    """One of the two names is there, and both mean the same where both are."""
    names = [getattr(concurrency, name) for name in ("await_", "await_only") if hasattr(concurrency, name)]
    assert names != []
    assert compatibility.in_greenlet() is False


# What a flush tells


def test_fate_of_created_updated_and_deleted_states(session: Session) -> None:
    """``UOWTransaction.mappers`` and ``states`` hold each state that is written, with ``(is_delete, list_only)``."""
    collected = fates(session)
    parent, other = Parent(id=1), Parent(id=2)
    session.add_all([parent, other])
    session.flush()
    parent.name = "x"
    session.delete(other)
    session.flush()
    assert [sorted(fate["Parent"], key=lambda pair: pair[0].id) for fate in collected] == [
        [(parent, (False, False)), (other, (False, False))],
        [(parent, (False, False)), (other, (True, False))],
    ]


def test_fate_of_an_orphan(session: Session) -> None:
    """An orphan is in the flush as a delete, although ``session.deleted`` never contains it."""
    child = Child(id=1)
    parent = Parent(id=1, children=[child])
    session.add(parent)
    session.commit()
    collected = fates(session)
    parent.children.remove(child)
    assert list(session.deleted) == []
    session.flush()
    assert collected[0]["Child"] == [(child, (True, False))]


def test_fate_of_a_state_that_is_only_looked_at(session: Session) -> None:
    """A child whose foreign key needs no change is listed only: nothing is written for it."""
    child = Child(id=1)
    parent = Parent(id=1, children=[child])
    session.add(parent)
    session.commit()
    collected = fates(session)
    parent.children.append(Child(id=2))
    parent.name = "x"
    session.flush()
    assert (child, (False, False)) not in collected[0]["Child"]


def test_fate_of_a_row_switch(session: Session) -> None:
    """The deleted state is ``(True, True)``, and the new one, which takes its row, an ordinary write with that key."""
    old = Parent(id=1, name="old")
    session.add(old)
    session.commit()
    collected = fates(session)
    session.delete(old)
    new = Parent(id=1, name="new")
    session.add(new)
    session.flush()
    assert sorted(collected[0]["Parent"], key=str) == sorted([(old, (True, True)), (new, (False, False))], key=str)
    assert instance_state(new).key == instance_state(old).key


def test_fate_of_a_row_switch_where_rows_refer_to_each_other(session: Session) -> None:
    """``UOWTransaction.cycles``: there the row is deleted all the same, after it was updated."""
    found: list[bool] = []

    def look(_session: Session, flush: UOWTransaction) -> None:
        found.append(compatibility.deletes_what_was_taken_over(flush, inspect(Ring)))
        found.append(compatibility.deletes_what_was_taken_over(flush, inspect(Parent)))

    session.add_all([Ring(number=1), Parent(id=1)])
    session.commit()
    event.listen(session, "after_flush", look)
    session.delete(session.get_one(Ring, 1))
    session.delete(session.get_one(Parent, 1))
    session.add_all([Ring(number=1), Parent(id=1)])
    session.flush()
    assert found == [True, False]
    assert session.execute(select(Ring.number)).all() == []
    assert session.execute(select(Parent.id)).all() == [(1,)]


# What awaits a flush


def test_history_of_a_relationship_that_was_not_loaded(session: Session) -> None:
    """A flush remembers, as states, what it has looked up before it wrote; after it nobody finds that any more."""
    hook, old, new = Hook(id=1), Coat(id=1, hook_id=1), Coat(id=2)
    session.add_all([hook, old])
    session.commit()
    session.expire(hook, ["coat"])
    seen: list[object] = []

    def after_flush(_: Session, flush_context: UOWTransaction) -> None:
        history = compatibility.flush_history(flush_context, instance_state(hook), "coat")
        seen.append((history.added, history.deleted))

    event.listen(session, "after_flush", after_flush)
    hook.coat = new
    session.flush()
    assert seen == [([instance_state(new)], [instance_state(old)])]


def test_who_listens_to_a_mapper(session: Session) -> None:
    """``Mapper.dispatch``: one object for the mapper's life, which knows who listens to it, and to all mappers."""
    mapper = inspect(Knot)
    listeners = compatibility.listeners_of(mapper)
    names = [f"{when}_{what}" for what in ("insert", "update", "delete") for when in ("before", "after")]

    def heard() -> list[str]:
        return [name for name in names if getattr(listeners, name)]

    def listen(mapper: object, connection: object, target: object) -> None: ...

    found = [heard()]
    for target in (Knot, mapper, Mapper):
        for name in names:
            event.listen(target, name, listen)
            found.append(heard())
            event.remove(target, name, listen)
    session.add(Knot(number=1, version=1))
    session.flush()
    assert (found, heard()) == ([[], *([name] for name in names * 3)], [])
    assert compatibility.listeners_of(mapper) is listeners


def test_modified_and_deleted_states(session: Session) -> None:
    """``IdentityMap._modified``, ``Session._deleted`` and ``_new`` are ``session.dirty``, ``deleted`` and ``new``."""
    parents = [Parent(id=key) for key in (1, 2, 3)]
    session.add_all(parents)
    modified, deleted, new = compatibility.unflushed_states(session)
    assert (compatibility.is_clean(session), [*modified], [*deleted], {*new}) == (
        False,
        [],
        [],
        {instance_state(parent) for parent in parents},
    )
    session.commit()
    assert compatibility.is_clean(session) is True
    parents[0].name = "x"
    assert compatibility.is_clean(session) is False
    session.delete(parents[1])
    modified, deleted, new = compatibility.unflushed_states(session)
    assert (set(modified), set(deleted), [*new]) == ({instance_state(parents[0])}, {instance_state(parents[1])}, [])
    assert {state.obj() for state in modified} == set(session.dirty)
    assert {state.obj() for state in deleted} == set(session.deleted)
    session.flush()
    modified, deleted, new = compatibility.unflushed_states(session)
    assert (compatibility.is_clean(session), [*modified], [*deleted], [*new]) == (True, [], [], [])
    session.delete(parents[0])
    assert compatibility.is_clean(session) is False


def test_objects_that_were_deleted_before(session: Session) -> None:
    """What the public property says of each, whatever has become of it since."""
    kept, gone, back = parents = [Parent(id=key) for key in (1, 2, 3)]
    session.add_all(parents)
    session.commit()
    session.delete(gone)
    savepoint = session.begin_nested()
    session.delete(back)
    session.flush()
    savepoint.rollback()
    session.commit()
    states = [instance_state(parent) for parent in (kept, gone, back)]
    assert [state.was_deleted for state in states] == [False, True, False]
    assert [compatibility.were_deleted([state]) for state in states] == [False, True, False]
    assert compatibility.were_deleted(states)


def test_in_place_changes_are_modifications(session: Session) -> None:
    """A change inside a mutable value marks its state as modified as an assignment does."""
    parent = Parent(id=1, settings={"a": 1})
    session.add(parent)
    session.commit()
    assert parent.settings is not None
    parent.settings["b"] = 2
    assert set(compatibility.unflushed_states(session)[0]) == {instance_state(parent)}


def test_only_its_own_statements_are_sent_while_a_flush_is_under_way(engine: Engine, session: Session) -> None:
    """``Session._warn_on_events``: not while the listeners of ``before_flush`` and ``after_flush`` send theirs."""
    sent: list[tuple[str, bool]] = []
    in_flush: list[bool] = []

    def send(session: Session, *_: object) -> None:
        in_flush.append(bool(compatibility.in_flush(session)))
        session.connection().exec_driver_sql("SELECT 1")

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append((statement.split(maxsplit=1)[0], bool(compatibility.is_flushing(session))))

    for name in ("before_flush", "after_flush", "after_flush_postexec"):
        event.listen(session, name, send)
    session.add(Parent(id=1))
    session.commit()
    assert sent == [("SELECT", False), ("INSERT", True), ("SELECT", False), ("SELECT", False)]
    assert compatibility.is_flushing(session) is False
    assert (in_flush, compatibility.in_flush(session)) == ([True, True, True], False)


def test_method_of_a_transaction_that_is_under_way(session: Session) -> None:
    """``_StateChange._current_fn``: none, or the one in which a commit flushes and releases what is open."""
    found: list[tuple[str, bool, bool]] = []

    def note(name: str) -> Callable[..., None]:
        def look(session: Session, *_: object) -> None:
            root, savepoint = session.get_transaction(), session.get_nested_transaction()
            methods = [None if one is None else compatibility.method_under_way(one) for one in (root, savepoint)]
            found.append((name, methods[0] is compatibility.PREPARES, methods[1] is compatibility.PREPARES))

        return look

    for name in ("before_flush", "before_commit", "after_commit"):
        event.listen(session, name, note(name))
    session.add(Parent(id=1))
    session.flush()
    session.add(Parent(id=2))
    session.begin_nested()  # flushes
    session.add(Parent(id=3))
    root = session.get_transaction()
    assert root is not None
    assert compatibility.method_under_way(root) is None
    root.commit()
    assert found == [
        ("before_flush", False, False),
        ("before_flush", False, False),
        ("before_commit", True, False),  # of the root, which finds a savepoint open
        ("before_commit", True, True),
        ("before_flush", True, True),
        ("after_commit", True, False),
        ("after_commit", False, False),
    ]


def test_statements_of_the_unit_of_work_have_the_cache_of_their_mapper(engine: Engine, session: Session) -> None:
    """``compiled_cache``: for the rows of mappers, versioned or not; not for a relationship's own, nor a listener's."""
    sent: list[tuple[str, bool]] = []

    def send(_mapper: object, connection: Connection, _target: object) -> None:
        connection.execute(delete(Child))

    @event.listens_for(engine, "before_cursor_execute")
    def note(
        _connection: object, _cursor: object, statement: str, _parameters: object, context: ExecutionContext, _: object
    ) -> None:
        if not statement.startswith("SELECT"):
            words = " ".join(word for word in statement.split()[:3] if word not in ("INTO", "FROM", "SET"))
            sent.append((words, compatibility.is_of_unit_of_work(context.execution_options)))

    event.listen(Knot, "after_update", send)
    first, second = Knot(number=1), Knot(number=2)
    first.next, first.others = second, [second]
    session.add_all([first, second])
    session.flush()
    assert set(sent) == {("INSERT knots", True), ("UPDATE knots", True), ("INSERT pairs", False)}  # in no fixed order
    sent.clear()
    first.next_id, first.others = None, []
    session.flush()
    assert set(sent) == {("UPDATE knots", True), ("DELETE pairs", False), ("DELETE children", False)}
    sent.clear()
    session.delete(first)
    session.delete(second)
    session.flush()
    assert sent == [("DELETE knots", True)]


# Transactions


def test_connections_of_a_transaction(engine: Engine, session: Session) -> None:
    """``SessionTransaction._connections``: the same as the public attribute has, and whose connection each is."""

    def known(transaction: SessionTransaction) -> dict[object, bool]:
        return {connection: own for connection, _, _, own in compatibility.connections_of(transaction).values()}

    transaction = session.begin()
    assert known(transaction) == {}
    connection = session.connection()
    session.execute(select(Parent))
    assert known(transaction) == {connection: True}
    public = getattr(transaction, "connections", None)
    assert public is None or set(public) == {connection}
    other = create_engine("sqlite://")
    second = session.connection(bind_arguments={"bind": other})
    assert known(transaction) == {connection: True, second: True}
    assert connection.engine is engine
    foreign = create_engine("sqlite://")
    with foreign.connect() as third:
        session.connection(bind_arguments={"bind": third})
        assert known(transaction) == {connection: True, second: True, third: False}
        session.rollback()
    other.dispose()
    foreign.dispose()


def test_autocommit_is_known(engine: Engine) -> None:
    """``Connection._is_autocommit_isolation``."""
    with engine.connect() as connection:
        assert compatibility.is_autocommit(connection) is False
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert compatibility.is_autocommit(connection) is True


def state_of_everything(session: Session, objects: list[Any]) -> list[tuple[object, ...]]:
    """What a commit leaves of each object: what is loaded, what is expired, and how it stands to the session."""
    states = [inspect(each) for each in objects]
    return [
        (sorted(state.dict), sorted(state.expired_attributes), state.persistent, state.detached, state.transient)
        for state in states
    ]


def lifecycle(session: Session) -> list[Any]:
    """An object of each kind: loaded, changed, created, deleted, expunged, partly expired and never added."""
    session.add_all([Parent(id=key, name="n", settings={}) for key in range(1, 6)])
    session.commit()
    session.expunge_all()
    loaded, changed, deleted, expunged, expired = session.scalars(select(Parent).order_by(Parent.id))
    created = Parent(id=9)
    changed.name = "x"
    session.add(created)
    session.delete(deleted)
    session.expunge(expunged)
    session.expire(expired, ["name"])
    session.flush()
    return [loaded, changed, deleted, expunged, expired, created, Parent(id=10)]


def test_expiry_does_what_a_commit_does(engine: Engine) -> None:
    """The twin of ``SessionTransaction._remove_snapshot``: the same is expired, detached and kept."""
    with Session(engine, expire_on_commit=True) as plain:
        objects = lifecycle(plain)
        plain.commit()
        expected = state_of_everything(plain, objects)
        plain.execute(delete(Parent))
        plain.commit()
    with Session(engine, expire_on_commit=False, autoflush=False) as session:
        objects = lifecycle(session)
        transaction = session.get_transaction()
        assert transaction is not None
        states: list[list[InstanceState[Any]]] = []

        def after_commit(session: Session) -> None:
            states.append(compatibility.expirable_states(session, transaction))

        event.listen(session, "after_commit", after_commit)
        session.commit()
        assert [sorted(inspect(each).dict) != [] for each in objects] == [True] * 7
        compatibility.expire(session, states[0])
        assert state_of_everything(session, objects) == expected


def test_what_a_commit_does_to_its_snapshot() -> None:
    """``_remove_snapshot`` does no more than the library's twin of it does."""
    names = set(SessionTransaction._remove_snapshot.__code__.co_names)  # noqa: SLF001
    known = {
        "InstanceState",
        "_deleted",
        "_detach_states",
        "_dirty",
        "_expire",
        "_is_transaction_boundary",
        "_key_switches",
        "_modified",
        "_new",
        "_parent",
        "AssertionError",
        "all_states",
        "clear",
        "dict",
        "expire_on_commit",
        "identity_map",
        "list",
        "nested",
        "parent",
        "session",
        "statelib",
        "update",
    }
    assert names - known == set()


@pytest.mark.parametrize("put_off", [False, True])
def test_a_commit_expires_by_its_own_method(engine: Engine, monkeypatch: pytest.MonkeyPatch, *, put_off: bool) -> None:
    """``SessionTransaction`` calls ``self._remove_snapshot()``, once, and only that expires what was committed."""
    asked: list[object] = []

    def ask(session: Session, transaction: SessionTransaction) -> bool:
        asked.append((session, transaction))
        return put_off

    monkeypatch.setattr(compatibility.ExpiringTransaction, "put_off", ask)
    with Session(engine) as session:
        parent = Parent(id=1, name="a")
        session.add(parent)
        session.flush()
        transaction = session.get_transaction()
        assert transaction is not None
        transaction.__class__ = compatibility.ExpiringTransaction
        session.commit()
        assert ("name" in inspect(parent).dict, asked) == (put_off, [(session, transaction)])


def test_who_reads_objects_anew(session: Session) -> None:
    """Of statements, of a ``Query`` and of ``Session.get``: ``_populate_existing`` among the load options."""
    session.add(Parent(id=1))
    session.flush()
    told: list[bool] = []

    def listen(execution: ORMExecuteState) -> None:
        told.append(compatibility.populates_existing(execution))

    event.listen(session, "do_orm_execute", listen)
    anew = {"populate_existing": True}
    session.scalars(select(Parent)).all()
    session.scalars(select(Parent), execution_options=anew).all()
    session.scalars(select(Parent).execution_options(**anew)).all()
    session.query(Parent).populate_existing().all()
    session.get(Parent, 1, populate_existing=True)
    session.execute(delete(Parent), execution_options=anew)
    assert told == [False, True, True, True, True, False]


def everything_of(state: InstanceState[Any]) -> tuple[object, ...]:
    """Whatever a state knows of its object, private things included, and the object itself."""
    ours = ("session_id", "key", "_instance_dict", "runid", "attrs", "mapper")
    details = {key: value for key, value in vars(state).items() if key not in ours}
    loaded = {key: value for key, value in state.dict.items() if key != "_sa_instance_state"}
    for name in ("committed_state", "expired_attributes"):  # in slots from 2.1 on
        details.pop(name, None)
    return details, dict(state.committed_state), set(state.expired_attributes), loaded, state.modified, state.expired


def kinds_of_state(session: Session) -> list[Any]:
    """Objects of whose state an expiry has more and less to forget."""
    session.add_all([Parent(id=key, name="n", settings={}) for key in range(1, 8)])
    session.add_all([Child(id=key, name="n") for key in range(1, 8)])
    session.commit()
    session.expunge_all()
    found: list[Any] = []
    for model in (Parent, Child):
        rows: list[Any] = list(session.scalars(select(model).order_by(model.id)))
        loaded, changed, partly, more, pending, deferred, known = rows
        changed.name = "x"
        session.expire(partly, ["name"])
        more.unmapped = "stays"
        session.refresh(deferred, ["name"])
        states = [inspect(each) for each in (loaded, changed, partly, more, pending, deferred, known)]
        states[4].__dict__["_pending_mutations"] = {}
        states[4].__dict__["parents"] = {}
        states[5].__dict__["callables"] = {"name": str}
        states[6].__dict__["_last_known_values"] = {"name": None}
        found += rows
    return found


def test_expiry_does_to_a_state_what_sqlalchemy_does(engine: Engine) -> None:
    """``InstanceState._expire``: the quicker twin leaves every kind of state exactly as it does."""
    outcomes: list[list[tuple[object, ...]]] = []
    for expire_one_by_one in (True, False):
        with Session(engine, expire_on_commit=False, autoflush=False) as session:
            objects = kinds_of_state(session)
            states = [instance_state(each) for each in objects]
            if expire_one_by_one:
                for state in states:
                    state._expire(state.dict, session.identity_map._modified)  # noqa: SLF001 - what is compared with
            else:
                compatibility.expire(session, states)
            assert set(session.dirty) == set()
            outcomes.append([everything_of(state) for state in states])
            session.rollback()
            session.execute(delete(Child))
            session.execute(delete(Parent))
            session.commit()
    assert outcomes[0] == outcomes[1]


def test_expiry_tells_who_listens(session: Session) -> None:
    """A class with ``expire`` listeners has them called once for each object."""
    told: list[object] = []

    def expired(target: object, names: object) -> None:
        told.append((target, names))

    children = [Child(id=key, name="n") for key in (1, 2)]
    session.add_all(children)
    session.commit()
    event.listen(Child, "expire", expired)
    try:
        compatibility.expire(session, [instance_state(child) for child in children])
    finally:
        event.remove(Child, "expire", expired)
    assert told == [(child, None) for child in children]


def test_what_an_expiry_touches() -> None:
    """``_expire`` knows no attribute of a state that the quicker twin does not know."""
    state: type[InstanceState[Any]] = InstanceState
    names = set(state._expire.__code__.co_names)  # noqa: SLF001
    known = {
        "_all_key_set",
        "_collection_impl_keys",
        "_last_known_values",
        "_loader_impls",
        "_sa_adapter",
        "_strong_obj",
        "__dict__",
        "callables",
        "clear",
        "committed_state",
        "discard",
        "dispatch",
        "expire",
        "expired",
        "expired_attributes",
        "intersection",
        "invalidated",
        "items",
        "key",
        "manager",
        "modified",
        "pop",
        "update",
    }
    assert names - known == set()


def test_expiring_leaves_what_is_not_persistent(session: Session) -> None:
    """A state that another session has, or none, is not touched."""
    parent, gone = Parent(id=1, name="n"), Parent(id=2, name="n")
    session.add_all([parent, gone])
    session.commit()
    session.expunge(gone)
    transient = Parent(id=3, name="n")
    compatibility.expire(session, [instance_state(each) for each in (parent, gone, transient)])
    assert [sorted(vars(each).keys() & {"id", "name"}) for each in (parent, gone, transient)] == [
        [],
        ["id", "name"],
        ["id", "name"],
    ]


# Loading


def test_mutable_values_hear_of_a_refresh(session: Session) -> None:
    """``InstanceState.manager.dispatch.refresh``: without it a value set as loaded is not followed."""
    parent = Parent(id=1, settings={"a": 1})
    session.add(parent)
    session.commit()
    set_committed_value(parent, "settings", {"a": 2})
    assert type(parent.settings) is dict
    compatibility.announce_refresh(instance_state(parent), ["settings"])
    settings: object = parent.settings
    assert isinstance(settings, MutableDict)
    assert list(session.dirty) == []
    settings["b"] = 3
    assert list(session.dirty) == [parent]


def test_who_has_mutable_values() -> None:
    """The modules of those listeners: without them values of a mutable type over a plain one would not be copied."""
    assert [compatibility.has_mutable_values(model.__mapper__) for model in (Parent, Child)] == [True, False]


def test_models_without_such_listeners_are_left_alone(session: Session) -> None:
    """Nothing happens where nobody listens."""
    child = Child(id=1, name="n")
    session.add(child)
    session.commit()
    compatibility.announce_refresh(instance_state(child), ["name"])
    assert list(session.dirty) == []


# Ends of transactions


def test_a_begin_block_refuses_work_after_its_commit(session: Session) -> None:
    """``Session._trans_context_manager``: without it the session can begin again, and then the block is as it was."""

    def refused() -> bool:
        try:
            session.execute(select(Parent))
        except InvalidRequestError:
            return True
        session.rollback()
        return False

    with session.begin():
        session.add(Parent(id=1))
        session.commit()
        assert refused() is True
        with compatibility.usable_in_begin_block(session):
            assert refused() is False
            session.add(Parent(id=2))
            session.commit()
        assert refused() is True
    assert list(session.scalars(select(Parent.id).order_by(Parent.id))) == [1, 2]


def test_a_block_is_restored_when_its_use_fails(session: Session) -> None:
    """However the use ends."""

    def use() -> None:
        with compatibility.usable_in_begin_block(session):
            raise ZeroDivisionError

    with session.begin():
        session.commit()
        with pytest.raises(ZeroDivisionError):
            use()
        with pytest.raises(InvalidRequestError):
            session.execute(select(Parent))


def test_loaded_values_are_set_as_sqlalchemy_sets_them(session: Session) -> None:
    """``InstanceState._commit``: what ``set_committed_value`` does for each attribute, with several at once."""
    for number in (1, 2):
        session.add(Child(id=number, name="first"))
    session.commit()
    values = {"name": "second", "parent_id": None}
    left: list[tuple[object, ...]] = []
    for number in (1, 2):
        child = session.get_one(Child, number)
        child.name = "assigned"
        session.expire(child, ["parent_id"])
        state = instance_state(child)
        if number == 1:
            compatibility.set_loaded(state, child, values)
        else:
            for key, value in values.items():
                set_committed_value(child, key, value)
        left.append((dict(state.committed_state), set(state.expired_attributes), state.expired, child.name))
    assert left == [({}, set(), False, "second")] * 2


class Interrupted(BaseException):
    """What a cancellation is."""


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_commit_closes_its_transaction_by_its_own_close(
    session: Session, monkeypatch: pytest.MonkeyPatch, *, interrupted: bool
) -> None:
    """``SessionTransaction.commit`` calls ``self.close()``; ``settle`` runs when that is interrupted, and only then."""
    happened: list[object] = []

    def end(_: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            happened.append("end")
            if interrupted:
                raise Interrupted

    def settle(of: Session, interruption: BaseException) -> None:
        happened.extend((of, type(interruption)))

    monkeypatch.setattr(compatibility.ClosingTransaction, "settle", settle)
    session.add(Parent(id=1))
    session.flush()
    transaction = session.get_transaction()
    assert transaction is not None
    event.listen(session, "after_transaction_end", end)
    transaction.__class__ = compatibility.ClosingTransaction
    commit: Callable[[], None] = session.commit
    if interrupted:
        with pytest.raises(Interrupted):
            commit()
    else:
        commit()
    assert happened == (["end", session, Interrupted] if interrupted else ["end"])


def test_a_statement_tells_what_it_writes() -> None:
    """A mapped class or an alias is told from a table, also where the criteria are the ORM's."""
    mapper = inspect(Parent)
    table = cast("Table", Parent.__table__)
    for statement in (insert(Parent), update(Parent).values(name="x"), delete(Parent)):
        assert compatibility.written_entity(statement) is mapper
    alias = aliased(Parent)
    assert compatibility.written_entity(update(alias)) is inspect(alias)
    assert compatibility.written_entity(update(table).where(Parent.id == 1)) is None


def test_a_statement_is_taken_apart() -> None:
    """Values, rows, options, RETURNING, prefixes, limits and the clause for rows that exist."""
    table = cast("Table", Parent.__table__)
    one = compatibility.written(insert(Parent).values(name="x").returning(Parent.id, Parent.name))
    assert ([column.key for column in one.values], one.rows, one.returning) == (["name"], (), 2)
    assert (one.conflict, one.prefixes, one.in_order, one.limited) == (None, False, False, False)
    many = compatibility.written(insert(Parent).values([{"name": "a"}, {"name": "b"}]).prefix_with("OR IGNORE"))
    assert [[column.key for column in row] for row in many.rows] == [["name"], ["name"]]
    assert many.prefixes
    ordered = compatibility.written(update(table).ordered_values((table.c.name, "x")))
    assert list(ordered.values) == [table.c.name]
    returned = insert(Parent).returning(Parent.id, sort_by_parameter_order=True)
    assert compatibility.written(returned).in_order
    assert compatibility.written(update(Parent).with_dialect_options(mysql_limit=1)).limited
    option = with_loader_criteria(Parent, Parent.id > 1)
    assert compatibility.statement_options(update(Parent).options(option)) == (option,)


def test_an_insert_into_a_join_that_returns() -> None:
    """A class that is loaded with its subclasses: SQLAlchemy fails where it is given as it is."""

    class Base(DeclarativeBase):
        pass

    class Shape(Base):
        __tablename__ = "shapes"
        id: Mapped[int] = mapped_column(primary_key=True)
        __mapper_args__ = {"with_polymorphic": "*"}  # noqa: RUF012 - SQLAlchemy reads it

    class Circle(Shape):
        __tablename__ = "circles"
        id: Mapped[int] = mapped_column(ForeignKey("shapes.id"), primary_key=True)

    mapper = inspect(Shape)
    given = insert(Shape)
    statement = compatibility.insert_that_returns(given, mapper)
    assert (isinstance(given.table, Join), isinstance(statement.table, Join)) == (True, False)
    assert compatibility.written_entity(statement) is mapper
    assert str(statement.returning(Shape.id)) == "INSERT INTO shapes (id) VALUES (:id) RETURNING shapes.id"
    assert compatibility.insert_that_returns(insert(Circle), inspect(Circle)).table.description == "circles"


def test_a_result_without_rows() -> None:
    """It raises what a cursor's does for a statement that returns none."""
    result: IteratorResult[Any] = IteratorResult(compatibility.NO_ROWS, iter(()))
    with pytest.raises(ResourceClosedError, match="does not return rows"):
        result.all()


def test_an_upsert_tells_its_target_and_what_it_sets() -> None:
    """Of PostgreSQL, SQLite and MySQL each in its own way."""
    updating = postgresql.insert(Parent).on_conflict_do_update(constraint="a_key", set_={"name": "x"})
    found = compatibility.written(updating).conflict
    assert (list(compatibility.conflict_update(found)), compatibility.conflict_target(found)) == (
        ["name"],
        ("a_key", ()),
    )
    found = compatibility.written(sqlite.insert(Parent).on_conflict_do_update(["id"], set_={"name": "x"})).conflict
    assert (list(compatibility.conflict_update(found)), compatibility.conflict_target(found)) == (
        ["name"],
        (None, ["id"]),
    )
    found = compatibility.written(postgresql.insert(Parent).on_conflict_do_nothing()).conflict
    assert (found is not None, list(compatibility.conflict_update(found))) == (True, [])
    found = compatibility.written(mysql.insert(Parent).on_duplicate_key_update(name="x")).conflict
    assert list(compatibility.conflict_update(found)) == ["name"]


def test_rows_are_given_by_column_attribute() -> None:
    """What stands for columns is taken apart, in a copy."""

    class Base(DeclarativeBase):
        pass

    @dataclass
    class Span:
        first: int
        last: int

    class Chapter(Base):
        __tablename__ = "chapters"
        first: Mapped[int] = mapped_column(primary_key=True)
        last: Mapped[int]
        span: Mapped[Span] = composite(Span, "first", "last")

    rows: list[dict[str, Any]] = [{"first": 1, "last": 2}]
    assert compatibility.by_column_attribute(inspect(Chapter), rows) is rows
    given: list[dict[str, Any]] = [{"span": Span(3, 4)}, *rows]
    assert compatibility.by_column_attribute(inspect(Chapter), given) == [{"first": 3, "last": 4}, *rows]
    assert given == [{"span": Span(3, 4)}, *rows]


def test_equivalent_columns_of_a_joined_hierarchy() -> None:
    """A mapper knows which columns of its hierarchy's tables have the same value, one step up or down."""

    class LocalBase(DeclarativeBase): ...

    class Top(LocalBase):
        __tablename__ = "top"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Middle(Top):
        __tablename__ = "middle"
        top_id: Mapped[int] = mapped_column(ForeignKey("top.id"), primary_key=True)

    class Bottom(Middle):
        __tablename__ = "bottom"
        middle_id: Mapped[int] = mapped_column(ForeignKey("middle.top_id"), primary_key=True)

    top, middle, bottom = (
        next(iter(LocalBase.metadata.tables[name].primary_key)) for name in ("top", "middle", "bottom")
    )
    assert compatibility.equivalent_columns(inspect(Bottom)) == {top: {middle}, middle: {top, bottom}, bottom: {middle}}


def test_all_mappers() -> None:
    """``_all_registries`` names every declarative registry that has mappers."""
    assert {Parent.__mapper__, Child.__mapper__} <= set(compatibility.all_mappers())


# Tasks of asyncio


OLD = pytest.mark.skipif(sys.version_info >= (3, 12), reason="from 3.12 on asyncio takes a task's first step itself")


@OLD
@pytest.mark.anyio
async def test_another_task_is_made_the_current_one() -> None:
    """``_leave_task`` and ``_enter_task``, to a task and back, and from where there is none."""
    loop, host = asyncio.get_running_loop(), asyncio.current_task()
    other = asyncio.create_task(asyncio.sleep(0))
    seen: list[object] = []

    def switch(*tasks: asyncio.Task[Any] | None) -> None:
        for was, becomes in itertools.pairwise(tasks):
            compatibility.switch_task(loop, was, becomes)
            seen.append(asyncio.current_task())

    switch(host, other, host)
    loop.call_soon(switch, None, other, None)
    await other
    assert seen == [other, host, other, None]


@OLD
def test_a_forgotten_task_is_destroyed_in_silence() -> None:
    """``_unregister_task`` and ``Task._log_destroy_pending``: a loop is closed before it has come to it."""
    logged: list[dict[str, Any]] = []
    for forget in (False, True):
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _, context: logged.append(context))
        coroutine = asyncio.sleep(0)
        task = loop.create_task(coroutine)
        assert asyncio.all_tasks(loop) == {task}
        if forget:
            compatibility.forget_task(task)
            assert asyncio.all_tasks(loop) == set()
        loop.close()
        coroutine.close()
        del task
        gc.collect()
    assert [context["message"] for context in logged] == ["Task was destroyed but it is pending!"]


def test_autoflush_before_statements(engine: Engine) -> None:
    """``autoflush`` flushes when SQLAlchemy does, which passes over listeners before it does: see ``bulk.py``."""
    statements = insert(Parent), insert(cast("Table", Parent.__table__))
    flushed: list[list[bool]] = []
    for options in ({}, {"autoflush": False}):
        for statement in statements:
            by_library, by_itself = [
                _is_flushed_before(engine, statement, options, listens=listens) for listens in (True, False)
            ]
            flushed.append([by_library, by_itself])
    assert all(by_library is by_itself for by_library, by_itself in flushed)
    assert flushed[::2] == [[True, True], [False, False]]


def _is_flushed_before(engine: Engine, statement: Any, options: dict[str, bool], *, listens: bool) -> bool:  # noqa: ANN401 - an INSERT of either kind
    def flush(execution: ORMExecuteState) -> None:
        compatibility.autoflush(execution)
        flushed.append(not session.new)

    flushed: list[bool] = []
    with Session(engine) as session:
        session.add(Parent(id=1))
        if listens:
            event.listen(session, "do_orm_execute", flush)
        session.execute(statement.values(id=2), execution_options=options)
        return flushed[0] if listens else not session.new


def test_how_far_a_commit_has_come(session: Session) -> None:
    """``SessionTransaction._state`` says it before the COMMIT, and before ``after_commit`` listeners hear of it."""
    seen: list[tuple[str, bool, bool]] = []
    session.add(Parent(id=1))
    session.flush()
    transaction = session.get_transaction()
    assert transaction is not None

    def look(name: str) -> Callable[..., None]:
        return lambda *_: seen.append(
            (name, compatibility.was_to_commit(transaction), compatibility.has_committed(transaction))
        )

    event.listen(session, "before_commit", look("before_commit"))
    event.listen(session.get_bind(), "commit", look("COMMIT"))
    event.listen(session, "after_commit", look("after_commit"))
    session.commit()
    assert seen == [("before_commit", False, False), ("COMMIT", True, False), ("after_commit", False, True)]
