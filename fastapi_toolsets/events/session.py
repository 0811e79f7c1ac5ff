"""``SyncEventSession``: the one file that listens to SQLAlchemy's session events."""

from __future__ import annotations

import contextlib
import sys
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session, SessionTransactionOrigin

from ..errors import SessionClassError
from . import compatibility, outcome
from .callbacks import check_callable
from .capture.loading import OwnArguments
from .crossing.crossing import checked_backend
from .options import check_options
from .passing_by import notice_plain_session
from .process_lock import ProcessLock
from .registry import registry
from .tracker import Tracker
from .types import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from sqlalchemy import Result
    from sqlalchemy.engine import Connection
    from sqlalchemy.engine.interfaces import CoreExecuteOptionsParameter
    from sqlalchemy.orm import Mapper, ORMExecuteState, SessionTransaction
    from sqlalchemy.orm.unitofwork import UOWTransaction
    from sqlalchemy.sql.selectable import ForUpdateParameter

    from .types import Backend, BulkPolicy, ErrorPolicy


class SyncEventSession(Session):
    """A ``Session`` that calls the listeners of what its commits created, updated and deleted.

    Give it to a factory, ``sessionmaker(engine, class_=SyncEventSession)``, and use it like any other session.
    Callbacks run in ``commit()``, after the COMMIT of the outermost transaction: sync ones on the thread that commits,
    async ones on the application's loop where there is one, otherwise on one of the library's. As long as no listener
    is registered in the process it *is* a plain session.

    A session class of your own, or of another library, gets events by deriving from both, this one first:
    ``class ShopSession(SyncEventSession, TheirSession)``. Whatever their constructor takes is given by keyword.
    """

    def __init__(
        self,
        bind: Any = None,  # noqa: ANN401 - whatever the Session of the installed SQLAlchemy takes
        *,
        on_callback_error: ErrorPolicy = "log",
        callback_grace: float = 10.0,
        cascade_limit: int = 20,
        dispatch_on_joined_commit: bool = False,
        callback_backend: Backend | None = None,
        on_bulk_write: BulkPolicy = "warn",
        **options: Any,  # noqa: ANN401 - passed on to the Session of the installed SQLAlchemy
    ) -> None:
        """Open a session; usually a ``sessionmaker`` does, with the options it was given.

        Args:
            bind: The engine or connection, as for ``Session``.
            on_callback_error: What to do when a callback raises: ``"log"`` it and go on (the commit stands),
                ``"raise"`` one exception group from ``commit()`` after all callbacks have run, or call this function
                with a :class:`CallbackFailure`.
            callback_grace: For how many seconds the callbacks that are left still run after the committing task was
                cancelled.
            cascade_limit: How many commits in a row callbacks may cause before ``CascadeLimitError`` ends the chain.
            dispatch_on_joined_commit: Whether the session's own commit counts although it has joined a transaction
                that somebody else began on its connection. For test suites that roll everything back.
            callback_backend: ``"asyncio"`` or ``"trio"``, for async callbacks where the caller has no loop.
            on_bulk_write: What to do when a bulk statement writes a model whose listeners are not told of it:
                ``"warn"`` once for each model and kind of statement, ``"raise"`` before the statement runs, or
                ``"ignore"``.
            **options: Everything else that ``Session``, or the session class that this one is mixed into, takes.

        Raises:
            SessionClassError: ``bind`` or one of ``binds`` belongs to the async side.
            SessionOptionError: An option has a value that it cannot have.
        """
        given: list[object] = [bind, *(options.get("binds") or {}).values()]
        for engine in given:
            if type(engine).__name__.startswith("Async") and hasattr(engine, "sync_engine"):
                msg = (
                    f"{type(self).__name__} is a sync session and was given the {type(engine).__name__} {engine!r}: "
                    "give it a sync engine, or use async_sessionmaker with class_=EventSession"
                )
                raise SessionClassError(msg)
        chosen = SessionOptions(
            on_callback_error=on_callback_error,
            callback_grace=callback_grace,
            cascade_limit=cascade_limit,
            dispatch_on_joined_commit=dispatch_on_joined_commit,
            callback_backend=None if callback_backend is None else checked_backend(callback_backend),
            on_bulk_write=on_bulk_write,
        )
        check_options(chosen)
        self._tracker = Tracker(chosen)
        if bind is not None:  # by name: the constructor of a class that this one is mixed into may begin otherwise
            options["bind"] = bind
        super().__init__(**options)
        if not _installed and any(_listened_to(self.dispatch)):
            # SQLAlchemy goes through the listeners of a class as they are, and fails where one is added meanwhile, by
            # one of them, which may be the first to call ``on_commit``, or by another thread.
            install()

    def expire(self, instance: object, attribute_names: Iterable[str] | None = None) -> None:
        """Expire an object as ``Session.expire`` does; events that callbacks still wait for keep what they show."""
        self._tracker.before_expiry(self, instance, cascades=not attribute_names)
        super().expire(instance, attribute_names)
        self._tracker.prepare_again(self)

    def refresh(
        self,
        instance: object,
        attribute_names: Iterable[str] | None = None,
        with_for_update: ForUpdateParameter = None,
    ) -> None:
        """Refresh an object as ``Session.refresh`` does; see :meth:`expire`."""
        self._tracker.before_expiry(self, instance, cascades=not attribute_names)
        super().refresh(instance, attribute_names, with_for_update)

    def expire_all(self) -> None:
        """Expire all objects as ``Session.expire_all`` does; see :meth:`expire`."""
        if self._tracker.capture.flushes:  # what it has deleted is among them yet
            self._tracker.before_expiry(self)
        else:
            self._tracker.before_use()
        super().expire_all()
        self._tracker.prepare_again(self)

    def expunge(self, instance: object) -> None:
        """Expunge an object as ``Session.expunge`` does; the flush that is writing it still tells of it."""
        self._tracker.before_expunge(self, instance)
        super().expunge(instance)

    def expunge_all(self) -> None:
        """Expunge all objects as ``Session.expunge_all`` does; see :meth:`expunge`."""
        self._tracker.before_expunge(self)
        super().expunge_all()

    def bulk_save_objects(
        self,
        objects: Iterable[object],
        return_defaults: bool = False,  # noqa: FBT001, FBT002 - SQLAlchemy's own signature
        update_changed_only: bool = True,  # noqa: FBT001, FBT002 - the same
        preserve_order: bool = True,  # noqa: FBT001, FBT002 - the same
    ) -> None:
        """Write objects as ``Session.bulk_save_objects`` does.

        Objects of models with ``__bulk_events__`` make events; new ones get their primary keys then, asked for or not.

        Raises:
            BulkWriteError: A model has listeners and is not opted in, and the session's ``on_bulk_write`` is to raise.
        """

        def write(saved: Iterable[object], defaults: bool) -> None:  # noqa: FBT001 - as above
            with bulk.saving():
                super(SyncEventSession, self).bulk_save_objects(saved, defaults, update_changed_only, preserve_order)

        bulk = self._tracker.bulk
        with bulk.sending(self):
            bulk.save_objects(self, objects, write, return_defaults=return_defaults)
        self._tracker.prepare_again(self)

    def bulk_insert_mappings(
        self,
        mapper: type[Any] | Mapper[Any],
        mappings: Iterable[dict[str, Any]],
        return_defaults: bool = False,  # noqa: FBT001, FBT002 - SQLAlchemy's own signature
        render_nulls: bool = False,  # noqa: FBT001, FBT002 - the same
    ) -> None:
        """Insert rows as ``Session.bulk_insert_mappings`` does; models with ``__bulk_events__`` make events.

        Raises:
            BulkWriteError: The model has listeners, is not opted in, and the session's ``on_bulk_write`` is to raise.
        """

        def write(rows: Iterable[dict[str, Any]], defaults: bool) -> None:  # noqa: FBT001 - as above
            with bulk.saving():
                super(SyncEventSession, self).bulk_insert_mappings(mapper, rows, defaults, render_nulls)

        bulk, written = self._tracker.bulk, cast("Mapper[Any]", inspect(mapper))
        with bulk.sending(self):
            bulk.insert_mappings(self, written, mappings, write, return_defaults=return_defaults)
        self._tracker.prepare_again(self)

    def bulk_update_mappings(self, mapper: type[Any] | Mapper[Any], mappings: Iterable[dict[str, Any]]) -> None:
        """Update rows as ``Session.bulk_update_mappings`` does; models with ``__bulk_events__`` make events.

        Raises:
            BulkWriteError: The model has listeners, is not opted in, and the session's ``on_bulk_write`` is to raise.
        """

        def write(rows: Iterable[dict[str, Any]]) -> None:
            with bulk.saving():
                super(SyncEventSession, self).bulk_update_mappings(mapper, rows)

        bulk, written = self._tracker.bulk, cast("Mapper[Any]", inspect(mapper))
        with bulk.sending(self):
            bulk.update_mappings(self, written, mappings, write)
        self._tracker.prepare_again(self)

    def on_commit(self, callback: Callable[..., object], /, *arguments: object) -> None:
        """Call ``callback(*arguments)`` once the current transaction has committed, after the events of that commit.

        It is dropped with the savepoint or the transaction that is rolled back. Outside a transaction one begins, as
        it does when an object is added; called by a callback there, it is called once the events that wait are told.

        Args:
            callback: A sync or async function.
            *arguments: What to call it with.

        Raises:
            ListenerError: ``callback`` cannot be called. It is a ``TypeError``.
        """
        check_callable(callback)
        install()
        self._tracker.on_commit(self, callback, arguments)


# What is below is installed with the first model listener of the process: until then an event session costs exactly
# what a plain session costs. It is on our own class, so that other sessions never pay, except for the one look per
# flush that notices a model whose listeners a plain session passes by.

_SUBTRANSACTION = SessionTransactionOrigin.SUBTRANSACTION
_installing = ProcessLock()
_installed = False


def install() -> None:
    """Begin to follow every event session, existing ones included."""
    global _installed  # noqa: PLW0603 - once for the process, as SQLAlchemy's class-level listeners are
    with _installing.current:
        if _installed:
            return
        _installed = True
        for method in (flush, commit, rollback, close, reset, invalidate, connection):
            setattr(SyncEventSession, method.__name__, method)
        for name in _HOOKS:
            # What is committed has to be known before another listener of ``after_commit`` raises, and what was done in
            # a transaction be told or forgotten before one of its end, or of the next one's beginning, does more.
            event.listen(SyncEventSession, name, getattr(sys.modules[__name__], f"_{name}"), insert=name in _FIRST)
        # Others may expire what was deleted, and what they assign to what was written SQLAlchemy forgets.
        event.listen(Session, "after_flush", _after_flush, insert=True)
        outcome.install()


def flush(self: SyncEventSession, objects: Sequence[Any] | None = None) -> None:
    """Flush as ``Session.flush`` does; the last one of a commit also prepares what callbacks will read."""
    tracker = self._tracker
    try:
        super(SyncEventSession, self).flush(objects)
    except BaseException:
        # Rolled back, in whichever of SQLAlchemy's steps it failed, and not refused inside another one.
        if not self.is_active and not compatibility.in_flush(self):
            tracker.flush_failed(self)
        raise
    if tracker.now.follows:
        tracker.flushed(self)


def commit(self: SyncEventSession) -> None:
    """Commit as ``Session.commit`` does, and call callbacks also where giving the connection back is interrupted."""
    tracker = self._tracker
    tracker.settles = True
    try:
        super(SyncEventSession, self).commit()
    except BaseException as interruption:
        tracker.settle(self, interruption)
        raise
    finally:
        tracker.settles = False


def rollback(self: SyncEventSession) -> None:
    """Roll back as ``Session.rollback`` does, with all savepoints that are open."""
    with _ending(self):
        super(SyncEventSession, self).rollback()


def close(self: SyncEventSession) -> None:
    """Close as ``Session.close`` does; what was not committed is forgotten also where that is interrupted."""
    with _settled(self):
        super(SyncEventSession, self).close()


def reset(self: SyncEventSession) -> None:
    """Close as ``Session.reset`` does; see :func:`close`."""
    with _settled(self):
        super(SyncEventSession, self).reset()


def invalidate(self: SyncEventSession) -> None:
    """Close as ``Session.invalidate`` does; see :func:`close`."""
    with _settled(self):
        super(SyncEventSession, self).invalidate()


def connection(
    self: SyncEventSession,
    bind_arguments: dict[str, Any] | None = None,
    execution_options: CoreExecuteOptionsParameter | None = None,
) -> Connection:
    """Return a connection as ``Session.connection`` does; what writes rows on it in this transaction is noticed."""
    lent = super(SyncEventSession, self).connection(bind_arguments, execution_options)
    if not isinstance(bind_arguments, OwnArguments):
        self._tracker.lend(self, lent)
    return lent


@contextlib.contextmanager
def _ending(session: SyncEventSession) -> Generator[None]:
    session._tracker.give_up(session)
    session._tracker.ends = True
    try:
        yield
    finally:
        session._tracker.ends = False


@contextlib.contextmanager
def _settled(session: SyncEventSession) -> Generator[None]:
    try:
        with _ending(session):
            yield
    except BaseException as interruption:
        session._tracker.settle(session, interruption)
        raise


_HOOKS = (
    "do_orm_execute",
    "before_commit",
    "after_commit",
    "after_rollback",
    "after_transaction_create",
    "after_transaction_end",
)
_FIRST = ("after_commit", "after_transaction_create", "after_transaction_end")
"""Those that come before what others have registered until then."""
_listened_to = attrgetter(*_HOOKS, "after_flush")


def _after_flush(session: Session, flush_context: UOWTransaction) -> None:
    if not isinstance(session, SyncEventSession):
        notice_plain_session(session, flush_context)
    elif session._tracker.capture.flushes:  # otherwise the first listener was registered when it had begun
        session._tracker.capture.after_flush(flush_context)


def _do_orm_execute(execution: ORMExecuteState) -> Result[Any] | None:
    session = execution.session
    return session._tracker.do_orm_execute(execution) if isinstance(session, SyncEventSession) else None


def _before_commit(session: SyncEventSession) -> None:
    tracker = session._tracker
    if tracker.now.follows or registry.hears_before_commit:
        tracker.before_commit(session)


def _after_commit(session: SyncEventSession) -> None:
    tracker = session._tracker
    if tracker.journal.touched:
        tracker.after_commit(session)


def _after_rollback(session: SyncEventSession) -> None:
    session._tracker.after_rollback(session)


def _after_transaction_create(session: SyncEventSession, transaction: SessionTransaction) -> None:
    tracker = session._tracker
    if tracker.dispatch is not None:
        tracker.before_use()
    if transaction.origin is _SUBTRANSACTION:
        # The one that a flush is: it begins after all before_flush listeners, before the first statement.
        try:
            tracker.before_flush(session)
        except BaseException:
            compatibility.roll_back_flush(transaction)
            raise
    elif tracker.now.follows and transaction.parent is None:
        tracker.after_root_create()


def _after_transaction_end(session: SyncEventSession, transaction: SessionTransaction) -> None:
    if transaction.origin is not _SUBTRANSACTION:  # not the one that a flush is
        session._tracker.after_transaction_end(session, transaction)


def _settle(session: Session, interruption: BaseException) -> None:
    if isinstance(session, SyncEventSession):
        session._tracker.settle(session, interruption)


def _give_up(session: Session) -> None:
    if isinstance(session, SyncEventSession):
        session._tracker.give_up(session)


def _put_off(session: Session, transaction: SessionTransaction) -> bool:
    return isinstance(session, SyncEventSession) and session._tracker.put_off_expiry(session, transaction)


compatibility.ClosingTransaction.settle = _settle
compatibility.ExpiringTransaction.put_off = _put_off
compatibility.ClosingTransaction.give_up = _give_up


registry.subscribe(install)
