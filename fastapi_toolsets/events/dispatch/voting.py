"""Lets ``BEFORE_COMMIT`` callbacks write and refuse, in the transaction that is about to be committed."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from .. import compatibility, observation
from ..capture.completion import complete
from ..records import Batch
from ..types import Phase
from .before_commit import Round, check_active
from .delivery import deliveries, generation
from .observing import ObservingRound

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ..journal import Journal
    from ..transaction import CurrentTransaction
    from ..types import SessionOptions
    from .delivery import Delivery


class Voting:
    """Calls the ``BEFORE_COMMIT`` callbacks of one session. Runs where the session's own work runs."""

    def __init__(self, journal: Journal, now: CurrentTransaction, options: SessionOptions) -> None:
        """Tell what the journal has, and note in what is known of the current transaction that it was told."""
        self._journal = journal
        self._now = now
        self._options = options

    def hold(self, session: Session) -> None:
        """Flush what is pending and call callbacks: what one raises rolls everything back."""
        self._now.telling, refused = True, False
        try:
            with compatibility.usable_in_begin_block(session):
                if not compatibility.is_clean(session):
                    session.flush()
                if self._journal:
                    refused = True  # unless nothing is raised
                    self._tell(session)
        except BaseException:
            root = session.get_transaction()
            if refused and root is not None:
                compatibility.roll_back_in_commit(root)
            raise
        finally:
            self._now.telling = False

    def _tell(self, session: Session) -> None:
        """Call callbacks, then for what they wrote, until nothing new has come up."""
        journal, limit = self._journal, self._options.cascade_limit
        self._now.told = batch = self._now.told or Batch(generation.get(), Phase.BEFORE_COMMIT)
        try:
            for number in count():
                complete(session, journal)
                found = deliveries(batch, journal.root)
                journal.set_aside()
                if not found:
                    return
                self._new_round(session, found).run(is_last=number > limit)
                check_active(session)
                if not compatibility.is_clean(session):
                    session.flush()
        except BaseException:
            journal.clear()  # nobody else hears of it
            raise

    def _new_round(self, session: Session, found: list[Delivery]) -> Round:
        observers = observation.current
        if observers is None:
            return Round(session, found, self._options)
        return ObservingRound(session, found, self._options, observers)
