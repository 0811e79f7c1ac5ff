"""What one session knows about its current transaction, and what happens to it when that transaction ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.exc import InvalidRequestError

from . import compatibility, outcome
from .bulk.bulk import BulkWrites
from .bulk.statements import may_undo, may_write
from .capture.capture import Capture
from .capture.completion import complete
from .capture.expiring import hold_expunged, keep_expiring
from .capture.loading import is_sharded
from .capture.snapshots import take_snapshot
from .compatibility import PREPARES
from .dispatch.delivery import report_unfinished
from .dispatch.telling import Teller
from .dispatch.voting import Voting
from .journal import Doubt
from .lent_connections import LentConnections, mappers_heard
from .lost_commits import warn_joined, warn_lost, warn_rolled_back
from .registry import registry
from .transaction import open_savepoint
from .types import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Result
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Mapper, ORMExecuteState, Session, SessionTransaction

    from .types import SessionOptions


class Tracker(Teller):
    """Follows one session through its transactions. Every method runs where the session's own work runs.

    A root transaction that ends after its COMMIT succeeded hands its frame to a dispatch; one that ends in any other
    way forgets it.

    Attributes:
        capture: What reads the session's flushes.
        bulk: What follows the session's bulk statements.
        settles: Whether whoever has called ``commit()`` settles what an interruption leaves.
        ends: Whether a method of the session is rolling everything back.
    """

    def __init__(self, options: SessionOptions) -> None:
        """Follow a session, which hands itself over each time: kept here it would live until a garbage collection."""
        super().__init__(options)
        self.capture: Capture = Capture(self.journal, self.now)
        self.bulk: BulkWrites = BulkWrites(self.journal, self.now, self.capture, options.on_bulk_write)
        self._voting = Voting(self.journal, self.now, options)
        self._warned_joined = False
        self.settles = False
        self.ends = False

    def on_commit(self, session: Session, callback: Callable[..., object], arguments: tuple[object, ...]) -> None:
        """Call ``callback`` after the events of the transaction's commit, unless its savepoint is rolled back."""
        if not session.in_transaction():
            if self.dispatch is not None:
                self.dispatch.add_hook(callback, arguments)
                return
            if not session.autobegin:
                msg = (
                    "on_commit() was called outside a transaction of a session with autobegin=False, so there is no "
                    "commit to wait for: call session.begin() first"
                )
                raise InvalidRequestError(msg)
            session.begin()  # as adding an object would: what ends it ends the callback's hope, too
        self.now.follows = True
        savepoint = open_savepoint(session)
        self.journal.frame(savepoint).on_commit.append((callback, arguments))
        transaction = savepoint or session.get_transaction()
        if transaction is not None and compatibility.has_committed(transaction):
            self.after_commit(session)  # a listener of that has called: until now there was nothing to take note of

    # What the session's events call.

    def before_flush(self, session: Session) -> None:
        """Keep what will be gone after the flush, and follow the connections that listeners of its rows are given."""
        if self.bulk.is_saving:
            return
        if outcome.a_server_rolled_back:
            self._forget_rolled_back(session)
        modified, deleted, new = compatibility.unflushed_states(session)
        if self.capture.begin(session, modified, deleted, new):
            return
        assigning: list[Mapper[Any]] = []
        heard = mappers_heard(modified, deleted, new)
        sharded = bool(heard) and is_sharded(session)
        for mapper in heard:
            if not sharded:
                # The session lends what it is asked for: as the flush will ask, of which a ``get_bind`` knows already.
                session.connection(bind_arguments={"mapper": mapper.base_mapper})
            if compatibility.listeners_of(mapper).before_update:
                assigning.append(mapper)
        self.capture.olds.read(session, modified, deleted, new, assigning)
        if sharded:
            # Which connections it is to be is not decided yet, so that nobody can follow what is sent on them.
            self.now.follows = True
            self.journal.doubts.add(Doubt.PAST_FLUSH)

    def flushed(self, session: Session) -> None:
        """Write it into the journal, and prepare for COMMIT once its last flush is over, whatever that has found."""
        if self.capture.written:
            self.capture.after_finalized(session)
        root = session.get_transaction()
        if (
            root is not None
            and compatibility.method_under_way(root) is PREPARES
            and not (session.get_nested_transaction() and open_savepoint(session))
            and compatibility.is_clean(session)
        ):
            self._prepare_root(session, root)

    def flush_failed(self, session: Session) -> None:
        """Forget what was prepared, if it was a flush of the commit: another one says nothing of an earlier commit."""
        self.capture.clear()
        root = session.get_transaction()
        if root is None or compatibility.method_under_way(root) is PREPARES:
            self.now.prepared = None

    def do_orm_execute(self, execution: ORMExecuteState) -> Result[Any] | None:
        """Note a statement that may write rows past the unit of work, and run it where that has to be followed."""
        statement = execution.statement
        if not may_write(statement):
            if self.capture.flushes and compatibility.populates_existing(execution):
                self.before_expiry(execution.session)  # it makes objects forget as much as refreshing them does
            return None
        if outcome.a_server_rolled_back:
            self._forget_rolled_back(execution.session)
        if self.capture.written:
            # SQLAlchemy lets objects show what a statement writes, also those that a flush has just deleted.
            self.before_expiry(execution.session)
        with self.bulk.sending(execution.session, undoes=may_undo(statement)):
            result = self.bulk.execute(execution)
            # Left to SQLAlchemy it would seem to be somebody else's, or come after what is prepared here.
            if result is None and (self.now.lent is not None or _committing(execution.session) is not None):
                result = execution.invoke_statement()
        self.prepare_again(execution.session)
        return result

    def prepare_again(self, session: Session) -> None:
        """Prepare what another ``before_commit`` listener has written or expired since it was done for the commit."""
        root = _committing(session)
        if (
            root is not None
            and self.now.follows
            and not compatibility.in_flush(session)
            and not (session.get_nested_transaction() and open_savepoint(session))
            and compatibility.is_clean(session)
        ):
            self._prepare_root(session, root)

    def lend(self, session: Session, connection: Connection) -> None:
        """Follow what is sent on a connection that the session hands out, until the transaction ends."""
        if self.now.lent is None:
            self.now.follows = True  # first: what is lent has to be taken back
            self.now.lent = LentConnections(session, self.bulk)
        root = cast("SessionTransaction", session.get_transaction())  # which the connection was asked of
        self.now.lent.lend(root, connection)

    def before_commit(self, session: Session) -> None:
        """Complete, inside the transaction, what callbacks will read after it.

        SQLAlchemy tells of the release of a savepoint by the same event. A commit that finds one open is told first,
        and prepares when that has ended (:meth:`_end_savepoint`).
        """
        nested, root = session.get_nested_transaction() and open_savepoint(session), session.get_transaction()
        if self.capture.written:
            self._end_flush(session, nested)
        if root is None or compatibility.method_under_way(root) is not PREPARES:
            return
        if nested is not None:
            if compatibility.method_under_way(nested) is None:
                self.now.committing = True
            return
        self.now.committing = True
        if compatibility.is_clean(session):
            self._prepare_root(session, root)
        # Otherwise SQLAlchemy flushes next, after the other before_commit listeners: they find what is pending, as on a
        # plain session, and the flush prepares.

    def after_commit(self, session: Session) -> None:
        """Take note that a savepoint was released, or the root transaction really committed."""
        journal, now = self.journal, self.now
        nested = session.get_nested_transaction() and open_savepoint(session)
        if nested is not None:
            if compatibility.method_under_way(nested) is not None:
                now.released = nested
                return
            self._release_with_root(nested)
        root = session.get_transaction()
        if outcome.a_statement_failed and not now.lost and now.prepared is not None:
            now.lost = outcome.has_failed(compatibility.begun_transactions(now.prepared))
            if now.lost:  # in a before_commit listener, behind the library's
                warn_lost()
        if now.lost or not (journal.root.writes or journal):
            return  # rolled back, whatever the server called it
        if root is None or (now.borrows and not self._counts(root)):
            journal.clear()
            now.joined = root is not None
            return
        now.committed = root
        if session.expire_on_commit and not isinstance(root, compatibility.ExpiringTransaction):
            # What callbacks may read stays loaded until they have run; SQLAlchemy would expire it right now.
            root.__class__ = compatibility.ExpiringTransaction

    def put_off_expiry(self, session: Session, transaction: SessionTransaction) -> bool:
        """Take note of what ``expire_on_commit`` expires once callbacks have run; return whether there are any."""
        if self.now.committed is not transaction or not session.expire_on_commit:
            return False
        self.now.expiring = compatibility.expirable_states(session, transaction)
        return True

    def give_up(self, session: Session) -> None:
        """Take note that somebody ends what was prepared for a COMMIT, who need not know what has become of that."""
        root = self.now.prepared
        if root is None or self.now.committed is not None:
            return
        if compatibility.has_committed(root):
            self.after_commit(session)  # before which another listener has raised, or an interrupt came
            return
        begun = compatibility.begun_transactions(root)
        # SQLAlchemy makes them inactive with their COMMIT, however that ends, unless it is interrupted right there.
        are_active = all(transaction.is_active for transaction in begun)
        if compatibility.was_to_commit(root) and not (session.twophase and are_active):  # one may stop at prepare()
            outcome.note_interruption(begun)
        elif are_active:
            self.now.prepared = None

    def after_rollback(self, session: Session) -> None:
        """See to it that an interruption of what follows goes unnoticed no more than after a commit."""
        root = session.get_transaction()
        if self.now.follows and root is not None and open_savepoint(session) is None:
            root.__class__ = compatibility.ClosingTransaction

    def before_use(self) -> None:
        """Keep what is being told and what waits: somebody begins to use the session, and may roll back or expire."""
        if self.dispatch is not None:
            self.dispatch.take_snapshots()
        elif self.now.committed is not None:  # an ``after_commit`` listener
            for record in self.journal.whole().rows.values():
                take_snapshot(record)

    def before_expiry(self, session: Session, instance: object = None, *, cascades: bool = True) -> None:
        """Keep deleted rows, too, which no SELECT will bring back: expiring a parent cascades to them.

        Args:
            session: The session.
            instance: What is expired; ``None`` for everything.
            cascades: Whether with all that its relationships take along.
        """
        self.before_use()
        if self.capture.written:  # a listener of the very flush that has deleted them
            self.capture.after_finalized(session, early=True)
        elif self.capture.flushes and compatibility.in_flush(session):  # one of the rows that it writes
            keep_expiring(self.capture.olds, session, instance, cascades=cascades)
        if self.journal.touched:
            for frame in (*self.journal.told, *self.journal.frames()):
                for record in reversed(frame.gone.values()):
                    if record.snapshot is not None and not record.plan.has_mutable:
                        break  # so have those before it; one with mutable values has its own from its flush on
                    take_snapshot(record)

    def before_expunge(self, session: Session, instance: object = None) -> None:
        """Hold an object, or all of them, that a listener expunges while the flush is writing it."""
        if self.capture.flushes and compatibility.in_flush(session):
            hold_expunged(self.capture.olds, session, instance)

    def after_transaction_end(self, session: Session, transaction: SessionTransaction) -> None:
        """Release or drop a savepoint's part; after the root transaction tell what it committed, or forget it."""
        now = self.now
        if transaction.nested:
            if self.capture.written:
                self._end_flush(session, transaction)
            self._end_savepoint(session, transaction)
        elif now.committed is not None:
            self._deliver(session)
        elif now.follows or self.capture.flushes:
            # SQLAlchemy goes on to close a transaction whose ROLLBACK was cancelled, and raises that afterwards.
            cancellation = outcome.cancellation_of(compatibility.begun_transactions(transaction))
            self._forget(session, cancellation, stayed=compatibility.may_stay(transaction))
        else:
            now.wrote = False  # all that there is to forget

    def settle(self, session: Session, interruption: BaseException) -> None:
        """End a transaction that no event says has ended, since giving its connection back was interrupted."""
        if session.in_transaction():
            self.give_up(session)
            return  # it has not ended, and will with an event
        if self.now.committed is None:
            self._forget(session, interruption)
        else:
            self._deliver(session, interruption)

    def after_root_create(self) -> None:
        """Forget what is left of a transaction whose end nobody could settle: it has committed nothing."""
        now, journal = self.now, self.journal
        if now.committed is None and (journal.touched or self.capture.flushes):
            wrote, doubts = now.wrote, journal.doubts & {Doubt.PAST_FLUSH}
            journal.clear()
            self.capture.clear()
            now.begin_again()
            # Said of the new one, perhaps: a statement is noticed before the transaction that it begins.
            now.wrote, now.follows = wrote, True
            journal.doubts |= doubts

    # How transactions end.

    def _end_flush(self, session: Session, ending: SessionTransaction | None) -> None:
        """Enter what a flush wrote, if one of its listeners ends the transaction that it belongs to (root: ``None``).

        One that begins a savepoint of its own and ends that leaves the flush as it is.
        """
        if ending is None or ending is self.capture.savepoint:
            self.capture.after_finalized(session, early=True)

    def _end_savepoint(self, session: Session, savepoint: SessionTransaction) -> None:
        parent, root = open_savepoint(session), session.get_transaction()
        if self.now.released is savepoint:
            self.now.released = None
            self.journal.release(savepoint, parent)
        else:
            if registry.hears_after_rollback and self._ends_with(root):
                self.journal.end(savepoint)
            self._drop_savepoint(savepoint)
        if (
            parent is None
            and root is not None
            and compatibility.method_under_way(root) is PREPARES
            and compatibility.is_clean(session)  # otherwise a flush follows, and prepares when it is over
            and not compatibility.in_flush(session)  # so does that
        ):
            self._prepare_root(session, root)

    def _release_with_root(self, savepoint: SessionTransaction) -> None:
        """Take it that COMMIT has released what SQLAlchemy has left open, as a listener of its flush has begun it."""
        current: SessionTransaction | None = savepoint
        while current is not None and current.nested:
            outer = current.parent
            self.journal.release(current, outer if outer is not None and outer.nested else None)
            current = outer

    def _ends_with(self, root: SessionTransaction | None) -> bool:
        """Whether a savepoint ends because the root transaction is being rolled back or closed."""
        return self.ends or (root is not None and compatibility.method_under_way(root) not in (None, PREPARES))

    def _drop_savepoint(self, savepoint: SessionTransaction) -> None:
        """Forget what a savepoint did, and those inside it, which SQLAlchemy leaves alone if it is closed by itself."""
        enclosing: set[SessionTransaction] = set()
        outer = savepoint.parent
        while outer is not None:
            enclosing.add(outer)
            outer = outer.parent
        journal = self.journal
        for inner in [inner for inner in journal.nested if inner not in enclosing]:
            if any(state.detached for state in journal.nested[inner].states()):
                # SQLAlchemy expires what was changed in there, but not what was expunged.
                journal.doubts.add(Doubt.PAST_FLUSH)
            journal.drop(inner)

    def _prepare_root(self, session: Session, root: SessionTransaction) -> None:
        """Let callbacks vote on what the root transaction is about to commit, and complete what others will read."""
        now = self.now
        if now.telling:
            return  # a callback flushes, or ends a savepoint of its own: whoever called it goes on
        if registry.hears_before_commit:
            if not now.committing:
                return  # so does a before_commit listener that comes before the library's, and may write more
            now.follows = True
            _, _, is_lost = outcome.look_at(compatibility.connections_of(root))
            if not is_lost:
                self._voting.hold(session)
        if self.journal.touched:
            self._prepare(session, root)

    def _prepare(self, session: Session, root: SessionTransaction) -> None:
        """Complete what callbacks will read, now that everything is flushed and the transaction still open."""
        now, journal = self.now, self.journal
        if not (journal.root.writes or journal):
            return
        now.borrows, now.awaits, now.lost = outcome.look_at(compatibility.connections_of(root))
        if now.lost:
            warn_lost()
            return
        for told in journal.told:
            complete(session, journal, told)
        complete(session, journal)
        now.prepared = root
        if not self.settles:  # but a method of the transaction itself, or the end of a block
            root.__class__ = compatibility.ClosingTransaction

    def _forget_rolled_back(self, session: Session) -> None:
        """Forget what the server has rolled back by itself, before more is written, which it would commit."""
        root = session.get_transaction()
        if root is not None and outcome.take_rolled_back(compatibility.begun_transactions(root)):
            self.journal.clear()
            warn_rolled_back()

    def _counts(self, root: SessionTransaction) -> bool:
        """Whether the session's commit was the real one."""
        return self.options.dispatch_on_joined_commit or not any(
            connection.in_transaction() for connection, _, _, _ in compatibility.connections_of(root).values()
        )

    def _warn_joined(self) -> None:
        if not self._warned_joined:
            self._warned_joined = True
            warn_joined()

    def _forget(self, session: Session, interruption: BaseException | None = None, *, stayed: bool = False) -> None:
        """Let go of a transaction that has committed nothing; tell those who hear of it, unless it may have stayed."""
        journal = self.journal
        if self.now.follows:  # otherwise nothing was recorded, nor written past a flush
            if journal:
                root, unknown = self.now.prepared, False
                if root is not None and not self.now.lost:
                    unknown = outcome.is_unknown(compatibility.begun_transactions(root))
                    report_unfinished(journal.whole())
                if registry.hears_after_rollback and not unknown and not stayed:
                    journal.take_ended()
                    self._tell(session, Phase.AFTER_ROLLBACK, [], interruption)
            journal.clear()
        if self.capture.flushes:
            self.capture.clear()
        joined = self.now.joined
        self.now.begin_again()
        if joined:
            self._warn_joined()  # last: made an error, it leaves a session that can be used


def _committing(session: Session) -> SessionTransaction | None:
    """Return the session's root transaction if it is preparing its commit."""
    root = session.get_transaction()
    return root if root is not None and compatibility.method_under_way(root) is PREPARES else None
