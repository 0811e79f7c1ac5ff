"""What a session does with a transaction that has ended: its callbacks are called, whatever they do to the session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import UncommittedChangesWarning
from .. import compatibility, observation
from ..journal import Journal
from ..transaction import CurrentTransaction, open_savepoint
from ..types import Phase
from ..warn import warn_of
from .dispatch import Dispatch
from .observing import ObservingDispatch
from .straight import Straight, straight_calls

if TYPE_CHECKING:
    from sqlalchemy.orm import InstanceState, Session, SessionTransaction

    from ..registry import Listener
    from ..types import SessionOptions
    from .host import Telling

# Looking a member up in its enumeration takes longer than asking for it.
_AFTER_COMMIT = Phase.AFTER_COMMIT


class Teller:
    """Tells what one session's transactions have done, once they have ended. Runs where the session's own work runs.

    Attributes:
        options: What the session factory was told.
        dispatch: What calls callbacks right now.
        now: The current transaction.
        journal: What it has done.
    """

    def __init__(self, options: SessionOptions) -> None:
        """Begin with a transaction that has done nothing."""
        self.options = options
        self.now: CurrentTransaction = CurrentTransaction()
        self.journal: Journal = Journal()
        self.dispatch: Telling | None = None
        self._found_open: SessionTransaction | None = None  # the next transaction, if a listener has begun it already

    def _deliver(self, session: Session, interruption: BaseException | None = None) -> None:
        states = self.now.expiring
        if self.dispatch is None and self.now.told is None and interruption is None and observation.current is None:
            calls, may_wait = straight_calls(self.journal), self.now.awaits
            if calls is not None:
                self._run(session, Straight(self, session, states, calls, may_wait=may_wait), _AFTER_COMMIT)
                return
        self._tell(session, _AFTER_COMMIT, states, interruption)

    def _tell(
        self,
        session: Session,
        phase: Phase,
        states: list[InstanceState[Any]],
        interruption: BaseException | None = None,
    ) -> None:
        """Call the callbacks of a transaction that has ended, or queue them behind those that are being called."""
        dispatch = self.dispatch
        if dispatch is not None:
            # A callback has ended a transaction: its events come after those that wait.
            dispatch.states[:] = dict.fromkeys((*dispatch.states, *states))
            dispatch.add(phase, self.now.told, self.journal.whole())
            self.journal.clear()
            self.now.begin_again()
            return
        new = self._new_dispatch(session, states)
        new.add(phase, self.now.told, self.journal.whole())
        if interruption is not None:
            new.interrupt(interruption)
        self._run(session, new, phase)

    def _run(self, session: Session, dispatch: Dispatch | Straight, phase: Phase) -> None:
        """Forget the transaction, which the dispatch knows now, and call its callbacks.

        Interrupted by Ctrl-C on the way, nothing is lost without a word: what the session still knows is told by
        whoever finds that it has ended, and what the dispatch knows is named.
        """
        try:
            self.dispatch = dispatch
            self.journal.clear()
            self.now.begin_again()
            self._found_open = session.get_transaction()
            if compatibility.begin_block(session) is None:
                dispatch.run(phase)
            else:
                with compatibility.usable_in_begin_block(session):
                    dispatch.run(phase)
        except BaseException:
            if self.now.committed is not None:
                self.journal.clear()
                self.now.begin_again()
            dispatch.report_untold()
            raise
        finally:
            self.dispatch = self._found_open = None
            if dispatch.states:
                compatibility.expire(session, dispatch.states)

    def _new_dispatch(self, session: Session, states: list[InstanceState[Any]]) -> Dispatch:
        observers = observation.current
        return (
            Dispatch(self, session, states)
            if observers is None
            else ObservingDispatch(self, session, states, observers)
        )

    # What a dispatch asks of whoever follows the session.

    def tidy(self, session: Session, listener: Listener) -> None:
        """End the transaction that a callback left behind, and warn if that discards changes."""
        if self._found_open is not None and session.get_transaction() is self._found_open:
            return  # which is the caller's
        compatibility.leave_begin_block(session)  # which the callback has begun: the caller's is put aside meanwhile
        if self.now.wrote or session.new or session.dirty or session.deleted:
            session.rollback()
            warn_of(
                listener.callback,
                f"{listener.name} returned with changes in its session that it did not commit: they were rolled back. "
                "Commit them in the callback, or make them in the transaction that the callback follows",
                UncommittedChangesWarning,
            )
            return
        hooks = [*self.journal.root.on_commit]
        # Closing, unlike a rollback, leaves what is loaded as it is.
        while (transaction := open_savepoint(session) or session.get_transaction()) is not None:
            transaction.close()
        if self.dispatch is not None:
            for function, arguments in hooks:  # what it has read is nothing that they would have to wait for
                self.dispatch.add_hook(function, arguments)
