"""The one place that touches what SQLAlchemy and asyncio do not promise.

tests/events/test_compatibility.py notices a change.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, cast

import sqlalchemy
from sqlalchemy import CTE, UpdateBase
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstanceState, SessionTransaction, attributes, mapperlib
from sqlalchemy.orm.session import SessionTransactionState
from sqlalchemy.orm.state_changes import _StateChangeStates
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.util import concurrency

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Generator, Iterable, Mapping
    from collections.abc import Set as AbstractSet
    from types import FrameType

    from sqlalchemy import ColumnElement, Delete, Insert, Select, Update
    from sqlalchemy.engine import Connection, Engine, Transaction
    from sqlalchemy.orm import Mapper, ORMExecuteState, Session
    from sqlalchemy.orm.attributes import History
    from sqlalchemy.orm.instrumentation import ClassManager
    from sqlalchemy.orm.unitofwork import UOWTransaction
    from sqlalchemy.orm.util import AliasedInsp
    from sqlalchemy.sql.base import ExecutableOption

ResultT = TypeVar("ResultT")

# ``await_only`` is called ``await_`` from SQLAlchemy 2.1 on; the old name stays as an alias for a while.
_await: Callable[[Awaitable[Any]], Any] = getattr(concurrency, "await_", None) or concurrency.await_only


def await_in_greenlet(awaitable: Awaitable[ResultT]) -> ResultT:
    """Wait for ``awaitable`` from sync code that runs inside SQLAlchemy's greenlet bridge."""
    result: ResultT = _await(awaitable)
    return result


async def spawn_greenlet(function: Callable[[], None]) -> None:
    """Run sync code inside SQLAlchemy's greenlet bridge."""
    await concurrency.greenlet_spawn(function)


def in_greenlet() -> bool:
    """Whether this code runs inside SQLAlchemy's greenlet bridge, so that it may await; False without greenlet."""
    try:
        return bool(concurrency.in_greenlet())
    except (ImportError, ValueError):  # greenlet is missing, or too old for SQLAlchemy
        return False


def current_greenlet() -> object:
    """Return the greenlet that runs now; only where :func:`in_greenlet` says that there is one."""
    return _greenlet().getcurrent()


@functools.cache
def _greenlet() -> Any:  # noqa: ANN401 - a module, which has no types
    return importlib.import_module("greenlet")  # not above: the sync half works without it


def waiting_frame() -> FrameType | None:
    """Return the frame in which an async session waits for this greenlet; only where :func:`in_greenlet`."""
    parent = getattr(current_greenlet(), "parent", None)
    return cast("FrameType | None", getattr(parent, "gr_frame", None))


def call_with_waits(function: Callable[[], None], wait: Callable[[Awaitable[Any]], Awaitable[Any]]) -> None:
    """Call sync code inside the greenlet bridge so that what it waits for is first wrapped by ``wait``.

    SQLAlchemy's bridge hands what sync code waits for to ``parent`` of the greenlet that runs it; so for the time of
    the call that greenlet shows another parent, by another class. Would the bridge not ask the greenlet for its parent
    any more, a cancellation would reach what sync callbacks wait for.
    """
    current = _greenlet().getcurrent()
    own_class, outer = current.__class__, getattr(current, "waits_for", None)  # of a call around this one
    current.waits_for = current.parent, wait
    current.__class__ = _showing.get(own_class) or _make_showing(own_class)
    try:
        function()
    finally:
        current.__class__ = own_class
        current.waits_for = outer


class _Parent:
    """What a greenlet shows as its parent.

    Attributes:
        waits_for: The parent behind it, and what wraps the awaitables that it is handed.
    """

    def __init__(self, waits_for: tuple[Any, Callable[[Awaitable[Any]], Awaitable[Any]]]) -> None:
        self.waits_for = waits_for

    def switch(self, awaitable: Awaitable[Any]) -> object:
        """Hand on what is waited for."""
        parent, wait = self.waits_for
        return parent.switch(wait(awaitable))

    @property
    def gr_frame(self) -> FrameType | None:
        """The frame in which the real parent stands."""
        frame: FrameType | None = self.waits_for[0].gr_frame
        return frame


_showing: dict[type, type] = {}
"""The class that shows another parent, by the class of the greenlet (and by itself, for calls within calls)."""


def _make_showing(own_class: type) -> type:
    parent = property(lambda greenlet: _Parent(greenlet.waits_for))
    made = type(f"{own_class.__name__}WithWaits", (own_class,), {"parent": parent})
    _showing[made] = _showing[own_class] = made
    return made


def switch_task(
    loop: asyncio.AbstractEventLoop, was: asyncio.Task[Any] | None, becomes: asyncio.Task[Any] | None
) -> None:
    """Make another task of a loop the current one, as asyncio does around each of a task's steps.

    ``_leave_task`` and ``_enter_task`` are documented, for those who write tasks. Python 3.11 only: later ones take a
    task's first step themselves.
    """
    if was is not None:
        asyncio._leave_task(loop, was)  # noqa: SLF001
    if becomes is not None:
        asyncio._enter_task(loop, becomes)  # noqa: SLF001


def forget_task(task: asyncio.Task[Any]) -> None:
    """Let nobody hear of a task that is pending only because the loop has not come to it; Python 3.11 only.

    ``_unregister_task`` is documented, for those who write tasks. ``Task._log_destroy_pending`` is not; asyncio uses it
    for the tasks of ``gather()``. Without it a loop that is stopped and closed in this very turn would log that a
    pending task was destroyed.
    """
    asyncio._unregister_task(task)  # noqa: SLF001
    task._log_destroy_pending = False  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue] # noqa: SLF001


def mark_awaited(waits_for: object, *, is_awaited: bool) -> None:
    """Say of what a task's coroutine has yielded whether the task is to take it as awaited; Python 3.11 only.

    A future has ``_asyncio_future_blocking`` from where it is awaited until the task is given it: that is the loop's
    first step, and until then nobody else could await it.
    """
    if asyncio.isfuture(waits_for):
        cast("Any", waits_for)._asyncio_future_blocking = is_awaited  # noqa: SLF001


# What is called in each commit names its attributes in the code: the interpreter remembers for each place where it has
# found one. ``attrgetter`` and its like look each one up anew, which takes three times as long, a call included.


class MapperListeners(Protocol):
    """Who hears of a mapper's rows as a flush writes them; false for an event that nobody hears of."""

    before_insert: object
    after_insert: object
    before_update: object
    after_update: object
    before_delete: object
    after_delete: object


def listeners_of(mapper: Mapper[Any]) -> MapperListeners:
    """Return who hears of a mapper's rows, from now on always (``Mapper.dispatch``, which a mapper has for life).

    SQLAlchemy shows ``dispatch`` in the code for those who extend it, not in its documentation. Who listens is asked of
    it in each flush, since anybody may begin to at any time, also to all mappers.
    """
    return cast("MapperListeners", mapper.dispatch)


def hears_of_rows(mapper: Mapper[Any]) -> bool:
    """Whether anybody is called with a mapper's rows as a flush writes them; see :func:`listeners_of`."""
    heard = listeners_of(mapper)
    return bool(
        heard.before_insert
        or heard.after_insert
        or heard.before_update
        or heard.after_update
        or heard.before_delete
        or heard.after_delete
    )


def flushed_states(flush: UOWTransaction) -> Mapping[Mapper[Any], Collection[InstanceState[Any]]]:
    """Return the states that a flush deals with, by mapper.

    ``UOWTransaction.mappers``: there is no public way to go by mapper; ``session.new``, ``dirty`` and ``deleted`` have
    no orphans and cost a set per call. Would it go, every flush would have to be read object by object.
    """
    return flush.mappers


def flush_fate(flush: UOWTransaction) -> Mapping[InstanceState[Any], tuple[bool, bool]]:
    """Return ``(is_delete, list_only)`` for each state of a flush.

    ``UOWTransaction.states``. A state that is ``list_only`` is not written; a deleted one that is ``list_only`` had its
    row taken over by another object in the same flush (a row switch).
    """
    return flush.states  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - it says no types


def savepoint_of_flush(flush: UOWTransaction) -> SessionTransaction | None:
    """Return the savepoint in which a flush writes, if any (``UOWTransaction.transaction``).

    ``Session.get_nested_transaction()`` would not do: SQLAlchemy gives it that only once listeners of its creation were
    called, which may flush into it.
    """
    transaction: SessionTransaction | None = flush.transaction.parent
    while transaction is not None and not transaction.nested:
        transaction = transaction.parent
    return transaction


def flush_history(flush: UOWTransaction, state: InstanceState[Any], key: str) -> History:
    """Return the history that a relationship had when a flush began to write, of states instead of objects.

    ``UOWTransaction.get_attribute_history``, which keeps what the flush has asked. Asked anew, a relationship that was
    not loaded when it was assigned looks for what it led to, and finds the rows as they are now.
    """
    history: History = cast("Any", flush).get_attribute_history(state, key)
    return history


def unflushed_states(
    session: Session,
) -> tuple[Collection[InstanceState[Any]], Collection[InstanceState[Any]], Collection[InstanceState[Any]]]:
    """Return the persistent states with changes, those to be deleted, and the new ones, that await a flush.

    ``IdentityMap._modified``, ``Session._deleted`` and ``_new``: ``session.dirty``, ``deleted`` and ``new`` give the
    same as objects, at the price of sets that are made at each call.
    """
    return session.identity_map._modified, session._deleted, session._new  # noqa: SLF001


def is_clean(session: Session) -> bool:
    """Whether the session has nothing to flush (:func:`unflushed_states`), as ``Session._is_clean`` asks."""
    return not (session.identity_map._modified or session._deleted or session._new)  # noqa: SLF001


def connections_of(
    transaction: SessionTransaction,
) -> Mapping[Engine | Connection, tuple[Connection, Transaction, bool, bool]]:
    """Return the connections that a root transaction has acquired, each perhaps twice.

    ``SessionTransaction._connections`` holds ``(connection, transaction, should_commit, autoclose)`` by connection and
    by engine. The last is true where the session has taken the connection from an engine by itself. SQLAlchemy 2.1.7
    brought the public ``connections``, which gives the connections only.
    """
    return transaction._connections  # noqa: SLF001


def method_under_way(transaction: SessionTransaction) -> object:
    """Return which of its methods a transaction is in, if any, as SQLAlchemy notes it (``_StateChange._current_fn``).

    Without it a flush that a commit makes could not be told from any other, nor the rollback of a session's savepoint
    from that of somebody else's.
    """
    return transaction._current_fn  # noqa: SLF001


PREPARES: object = cast("Any", SessionTransaction)._prepare_impl.__wrapped__  # noqa: SLF001
"""The method in which a commit releases the savepoints that are open and flushes, before it commits."""


def in_flush(session: Session) -> bool:
    """Whether a flush is under way, its listeners included (``Session._flushing``): another one would be refused."""
    return session._flushing  # noqa: SLF001


def is_flushing(session: Session) -> bool:
    """Whether the unit of work is sending its statements right now.

    ``Session._warn_on_events``, by which SQLAlchemy warns of what has no place there; it is off while the listeners of
    ``before_flush`` and ``after_flush`` run. Without it what they send on a connection could not be told from a flush.
    """
    return session._warn_on_events  # noqa: SLF001


def is_of_unit_of_work(options: Mapping[str, Any]) -> bool:
    """Whether a statement that is sent during a flush has the execution options of one for a mapper's own rows.

    ``compiled_cache``, the cache of statements that each mapper has for its flushes. Without it what the listeners of a
    mapper's events send meanwhile could not be told from the flush that calls them.
    """
    return options.get("compiled_cache") is not None


def owns_connection(transaction: SessionTransaction, connection: Connection) -> bool:
    """Whether a root transaction took a connection from an engine by itself (:func:`connections_of`)."""
    entry = connections_of(transaction).get(connection)
    return entry is not None and entry[3]


def begun_transactions(transaction: SessionTransaction) -> set[Transaction]:
    """Return the database transactions that a root transaction began (:func:`connections_of`), also ended."""
    return {entry[1] for entry in connections_of(transaction).values()}


def may_stay(transaction: SessionTransaction) -> bool:
    """Whether what a root transaction wrote may stay although it has not committed (:func:`connections_of`).

    So it is where each statement commits by itself, and where it has joined somebody's transaction and was only closed.
    """
    return any(
        (not should_commit and joined.is_active) or is_autocommit(connection)
        for connection, joined, should_commit, _ in connections_of(transaction).values()
    )


def is_orphan(state: InstanceState[Any]) -> bool:
    """Whether the next flush deletes a modified object of such a mapper (``Mapper._is_orphan``, as it asks)."""
    return bool(state.manager.mapper._is_orphan(state))  # noqa: SLF001


def may_have_orphans(mapper: Mapper[Any]) -> bool:
    """Whether an object of the mapper can be deleted for want of a parent (``Mapper._delete_orphans``)."""
    return bool(mapper._delete_orphans)  # noqa: SLF001


def all_mappers() -> list[Mapper[Any]]:
    """Return every mapper of the process (``mapperlib._all_registries``): no table knows its classes.

    ``registry._managers``, since the public ``registry.mappers`` raises as long as the mapping of one class waits for
    its subclasses.
    """
    managers = (manager for registry in mapperlib._all_registries() for manager in registry._managers)  # noqa: SLF001
    return [manager.mapper for manager in managers if manager.is_mapped]


def equivalent_columns(mapper: Mapper[Any]) -> Mapping[ColumnElement[Any], Collection[ColumnElement[Any]]]:
    """Return the columns of each column's value in the other tables of a joined hierarchy.

    ``Mapper._equivalent_columns``; those of one step up or down, so that a grandparent's column takes two.
    """
    return cast("Any", mapper)._equivalent_columns  # type: ignore[no-any-return] # noqa: SLF001


_FLUSHES_BEFORE_CORE = not sqlalchemy.__version__.startswith("2.0.")


def autoflush(execution: ORMExecuteState) -> None:
    """Flush if SQLAlchemy would before it runs a statement (``Session._autoflush``): an error says what it comes from.

    The execution option ``autoflush`` is for statements on mapped classes. Those on tables are flushed for from 2.1 on.
    """
    options = execution.execution_options
    if options.get("autoflush", True) if execution.is_orm_statement else _FLUSHES_BEFORE_CORE:
        execution.session._autoflush()  # noqa: SLF001


def expirable_states(session: Session, transaction: SessionTransaction) -> list[InstanceState[Any]]:
    """Return the states that a commit under ``expire_on_commit`` would have expired; detach the deleted ones now.

    The twin of ``SessionTransaction._remove_snapshot``, whose expiry the library puts off until callbacks have run.
    Should SQLAlchemy do more there one day, objects would stay attached or loaded longer than on a plain session.
    """
    deleted = transaction._deleted  # noqa: SLF001
    if deleted:
        states: type[InstanceState[Any]] = InstanceState
        states._detach_states(list(deleted), session)  # noqa: SLF001
        deleted.clear()
    return session.identity_map.all_states()


_NEEDS_MORE = ("_last_known_values", "_pending_mutations", "callables", "parents")
"""Attributes of a state for which ``InstanceState._expire`` does something more; most states have none of them."""


def expire(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Expire states that are still persistent in the session (``Session.expire`` without its walk of cascades).

    Does what ``InstanceState._expire`` does, but finds out once for each class, not once for each object, which keys
    that concerns: it takes a third of the time. States of which more has to be forgotten than columns go through
    ``_expire`` itself. Would ``_expire`` clear yet another attribute one day, that one would stay.
    """
    expired_too = session.identity_map._modified  # noqa: SLF001
    instance_dict = attributes.instance_dict
    session_key = session.hash_key
    manager: ClassManager[Any] | None = None
    loadable: AbstractSet[str] = frozenset()  # a set is merged into another one in half the time of a list
    mapped: AbstractSet[str] = frozenset()
    state_attribute = ""
    is_simple = False
    for state in states:
        if state.session_id != session_key or state.key is None or state._deleted:  # noqa: SLF001
            continue
        if state.manager is not manager:
            manager = state.manager
            loadable = frozenset(attribute.key for attribute in manager._loader_impls)  # noqa: SLF001
            state_attribute = manager.STATE_ATTR
            mapped = manager._all_key_set | {state_attribute}  # noqa: SLF001
            is_simple = not (manager._collection_impl_keys or manager.dispatch.expire)  # noqa: SLF001
        instance = state.obj()
        if instance is None:
            continue
        loaded = instance_dict(instance)
        details = state.__dict__
        if is_simple and not state.modified and details.keys().isdisjoint(_NEEDS_MORE) and loaded.keys() <= mapped:
            state.expired = True
            state._strong_obj = None  # noqa: SLF001
            state.expired_attributes.update(loadable)
            loaded.clear()
            loaded[state_attribute] = state
        else:
            state._expire(loaded, expired_too)  # noqa: SLF001


def set_loaded(state: InstanceState[Any], instance: object, values: Mapping[str, object]) -> None:
    """Give an object values of columns as if SQLAlchemy had loaded them.

    ``InstanceState._commit`` is what the public ``set_committed_value()`` calls for each attribute by itself, in
    several times the time. Would it forget less one day, such attributes would be loaded again when they are read.
    """
    loaded = attributes.instance_dict(instance)
    loaded.update(values)
    state._commit(loaded, values)  # noqa: SLF001


_ADOPT_VALUES = {"sqlalchemy.ext.mutable", "sqlalchemy.orm.descriptor_props"}
"""The modules of SQLAlchemy's whose listeners make mutable values and composites of what was loaded."""


def has_mutable_values(mapper: Mapper[Any]) -> bool:
    """Whether a class has values that tell it when they change (``sqlalchemy.ext.mutable``), whatever their types.

    The same listeners: the extension says nowhere what it follows. Would it listen otherwise, the values of a mutable
    type over a plain one, such as a text, would not be copied.
    """
    return any(listener.__module__ == "sqlalchemy.ext.mutable" for listener in mapper.class_manager.dispatch.refresh)


def announce_load(state: InstanceState[Any]) -> None:
    """Tell the same listeners that an object was loaded, and call the class's ``@reconstructor``.

    ``InstanceState.manager.dispatch.load``: without it a copy that callbacks are shown would lack what the class sets
    on each of its objects.
    """
    for listener in state.manager.dispatch.load:
        if listener.__module__ in _ADOPT_VALUES or listener.__module__ == "sqlalchemy.orm.mapper":
            listener(state, None)


def announce_refresh(state: InstanceState[Any], names: Iterable[str]) -> None:
    """Tell SQLAlchemy's own ``refresh`` listeners that attributes were loaded, so that mutable types adopt the values.

    ``InstanceState.manager.dispatch``: SQLAlchemy's own loading fires the same event. Without it a ``MutableDict``
    loaded by the library would be a plain dict whose changes nobody sees. Those of others may want the query that has
    loaded them, which there is not.
    """
    for listener in state.manager.dispatch.refresh:
        if listener.__module__ in _ADOPT_VALUES:
            listener(state, None, names)


@contextlib.contextmanager
def usable_in_begin_block(session: Session) -> Generator[None]:
    """Let the session work although the ``begin()`` block that has just committed, or is about to, is not left yet.

    ``Session._trans_context_manager`` names the block that refuses further work. If it were renamed, callbacks could
    not use the session after a ``begin()`` block.
    """
    block = session._trans_context_manager  # noqa: SLF001
    session._trans_context_manager = None  # noqa: SLF001
    try:
        yield
    finally:
        session._trans_context_manager = block  # noqa: SLF001


def begin_block(session: Session) -> object:
    """Return the ``begin()`` block that session work is refused for, if any; see :func:`usable_in_begin_block`."""
    return session._trans_context_manager  # noqa: SLF001


def leave_begin_block(session: Session) -> None:
    """Let a session go on of whose ``begin()`` block nobody has found the end; see :func:`usable_in_begin_block`."""
    session._trans_context_manager = None  # noqa: SLF001


def was_to_commit(transaction: SessionTransaction) -> bool:
    """Whether a transaction is past all that comes before its COMMIT, so that one may have been sent.

    ``SessionTransaction._state``. An interrupt around the COMMIT leaves it so. Without it such a transaction would be
    taken for one that never got that far.
    """
    return transaction._state is SessionTransactionState.PREPARED  # noqa: SLF001


def has_committed(transaction: SessionTransaction) -> bool:
    """Whether the COMMIT of a transaction has succeeded on every connection, while it is not closed yet (the same)."""
    return transaction._state is SessionTransactionState.COMMITTED  # noqa: SLF001


def roll_back_in_commit(root: SessionTransaction) -> None:
    """Roll a root transaction back from within its own ``commit()`` or ``prepare()``, before anything was committed.

    ``SessionTransaction._expect_state`` lets a method that is under way call one that ends the transaction; SQLAlchemy
    does the same when the second of two phases fails. Without it ``rollback()`` refuses to run there.
    """
    with root._expect_state(SessionTransactionState.CLOSED):  # noqa: SLF001
        root.rollback()


def roll_back_flush(flush: SessionTransaction) -> None:
    """Roll back a flush, given the transaction that it is, from within the event of its creation.

    ``SessionTransaction.rollback(_capture_exception=True)``, as ``Session._flush`` does with whatever is raised later:
    until somebody rolls back, too, the session refuses to be used, and says what was raised. Without it the session
    would be left in a transaction that nobody can end. And since the flush's parent is in ``_begin()`` meanwhile, which
    is done for (``_StateChange._next_state``), listeners of ``after_soft_rollback`` could not end that.
    """
    begins = cast("Any", flush.parent)
    begins._next_state = _StateChangeStates.ANY  # noqa: SLF001
    flush.rollback(_capture_exception=True)


class ClosingTransaction(SessionTransaction):
    """What the transaction of an event session becomes in the end, to notice an interrupted ``close()``.

    After COMMIT or ROLLBACK a ``SessionTransaction`` calls its own ``close()``, which gives the connection back. A
    driver that awaits there can be cancelled, and then no session event tells that the transaction has ended. Would it
    no longer go through ``close``, committed events were reported as lost, and those of rollbacks not told. Nor does an
    event come before a ROLLBACK, when it can still be seen whether a COMMIT was sent.

    A class of its own and no function put into the object: that would make every later look at its attributes slow.
    """

    settle: ClassVar[Callable[[Session, BaseException], None]]
    """Called when closing was interrupted, after what was begun has been tidied up."""

    give_up: ClassVar[Callable[[Session], None]]
    """Called before it is rolled back or closed, as by a ``begin()`` block whose commit was refused or interrupted."""

    def rollback(self, _capture_exception: bool = False, _to_root: bool = False) -> None:  # noqa: FBT001, FBT002 - as below
        """Roll back as any transaction does, taking note of it."""
        ClosingTransaction.give_up(self.session)
        SessionTransaction.rollback(self, _capture_exception, _to_root)

    def close(self, invalidate: bool = False) -> None:  # noqa: FBT001, FBT002 - SQLAlchemy's own signature
        """Close as any transaction does, and settle what an interruption leaves."""
        ClosingTransaction.give_up(self.session)
        try:
            SessionTransaction.close(self, invalidate)
        except BaseException as interruption:
            ClosingTransaction.settle(self.session, interruption)
            raise


def is_autocommit(connection: Connection) -> bool:
    """Whether every statement commits by itself (``Connection._is_autocommit_isolation``; no public way to ask)."""
    return connection._is_autocommit_isolation()  # noqa: SLF001


def written_entity(statement: Insert | Update | Delete) -> Mapper[Any] | AliasedInsp[Any] | None:
    """Return the mapped entity that a statement writes, ``None`` where it was given a table.

    The annotation ``parententity`` of the statement's table. ``entity_description`` gives the same, but raises for a
    table with criteria of the ORM. Were it gone, ORM statements would be taken for statements on their tables.
    """
    return cast("Mapper[Any] | AliasedInsp[Any] | None", statement.table._annotations.get("parententity"))  # noqa: SLF001


def writes_in_cte(statement: Select[Any]) -> bool:
    """Whether a SELECT has a CTE that writes, among what it selects from or was given with ``add_cte()``.

    ``Select._raw_columns``, ``_from_obj`` and ``_independent_ctes``. Public are lists that are made anew at each call,
    and a walk through all of a statement; either takes longer than all else that is done to a SELECT here.
    """
    for column in (*statement._raw_columns, *statement._from_obj, *statement._independent_ctes):  # noqa: SLF001
        source: Any = column if isinstance(column, CTE) else getattr(column, "table", None)
        if isinstance(source, CTE) and isinstance(source.element, UpdateBase):
            return True
    return False


independent_ctes: Callable[[Insert | Update | Delete], Collection[CTE]] = attrgetter("_independent_ctes")
"""Returns what a statement was given with ``add_cte()``, for which there is nothing public."""


def statement_options(statement: Update | Delete) -> tuple[ExecutableOption, ...]:
    """Return what ``options()`` was given, ``with_loader_criteria`` among it (``Executable._with_options``)."""
    return statement._with_options  # noqa: SLF001


def without_mapping(query: Select[Any]) -> Select[Any]:
    """Return a SELECT that adds nothing for the mapped classes that it names (``Select._propagate_attrs``).

    They make a statement one of the ORM's, which adds the criteria of single-table inheritance, and those of
    ``with_loader_criteria``. An UPDATE or DELETE has them for its own class only, and there is nothing public to read
    what it finds. Subqueries keep theirs.
    """
    query._set_propagate_attrs({})  # noqa: SLF001
    return query


class ByItself(Grouping[Any]):
    """A criterion whose subqueries cannot refer to the tables of the statement around it, whatever they ask for.

    What they may refer to is in an entry of ``SQLCompiler.stack``. ``correlate(None)`` says it for one SELECT, not for
    those inside it. Would they change, bulk UPDATEs of joined subclasses would be told of other rows than they write.
    """

    inherit_cache: bool | None = True


@compiles(ByItself)  # type: ignore[no-untyped-call, untyped-decorator, unused-ignore]
def _compile_by_itself(criterion: ByItself, compiler: Any, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's own
    compiler.stack.append({**compiler.stack[-1], "correlate_froms": set(), "asfrom_froms": set()})
    try:
        words: str = compiler.visit_grouping(criterion, **options)
    finally:
        compiler.stack.pop()
    return words


@dataclass(frozen=True, slots=True)
class Written:
    """The parts of an INSERT or UPDATE that nothing public gives.

    Attributes:
        values: What ``values()`` was given, by column or column key.
        rows: What ``values()`` was given as a list.
        conflict: The dialect's clause for rows that exist.
        prefixes: Whether it has prefixes such as ``IGNORE``.
        returning: How many columns or entities ``returning()`` was given.
        in_order: Whether ``returning()`` was told to keep the order of the parameters.
        limited: Whether it writes only some of the rows that meet its criteria.
        inline: Whether ``inline()`` says that nobody needs the keys of the row that it makes.
    """

    values: Mapping[Any, Any]
    rows: tuple[Mapping[Any, Any], ...]
    conflict: object
    prefixes: bool
    returning: int
    in_order: bool
    limited: bool
    inline: bool


def written(statement: Insert | Update | Delete) -> Written:
    """Take a statement apart: ``_values``, ``_multi_values``, ``_post_values_clause`` and their like.

    Would one be renamed, upserts or changed primary keys would go unnoticed; without ``_returning`` a result would
    show columns that nobody asked for.
    """
    parts = vars(statement)

    def part(name: str) -> Any:  # noqa: ANN401 - each has a type of its own
        return parts.get(name, getattr(type(statement), name, None))

    values: Mapping[Any, Any] = part("_values") or dict(part("_ordered_values") or ())
    rows = tuple(row for batch in part("_multi_values") or () for row in batch)
    return Written(
        values=values,
        rows=rows,
        conflict=part("_post_values_clause"),
        prefixes=bool(part("_prefixes")),
        returning=len(part("_returning") or ()),
        in_order=bool(part("_sort_by_parameter_order")),
        limited=part("_post_criteria_clause") is not None or any("limit" in name for name in statement.dialect_kwargs),
        inline=bool(part("_inline")),
    )


def conflict_update(conflict: object) -> Iterable[Any]:
    """Return the columns or keys that an upsert sets in rows that exist; nothing for ``DO NOTHING``.

    MySQL's clause has ``update``; the others' ``update_values_to_set`` is a list of pairs in SQLAlchemy 2.0 and a
    dictionary in 2.1.
    """
    found: Iterable[Any] = getattr(conflict, "update_values_to_set", None) or getattr(conflict, "update", None) or ()
    return [cast("tuple[Any, Any]", item)[0] if isinstance(item, tuple) else item for item in found]


def conflict_target(conflict: object) -> tuple[str | None, Iterable[Any]]:
    """Return the name of the constraint, or the columns or keys, that an upsert of PostgreSQL or SQLite names."""
    return getattr(conflict, "constraint_target", None), getattr(conflict, "inferred_target_elements", None) or ()
