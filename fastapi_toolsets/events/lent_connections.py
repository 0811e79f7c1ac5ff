"""Notices what somebody sends on a connection that a session has handed out: no session event tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy import Delete, Insert, Update, event
from sqlalchemy.sql.expression import ReleaseSavepointClause, RollbackToSavepointClause, SavepointClause

from . import compatibility
from .bulk_statements import may_undo, may_write, subject_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.engine import Connection, ExecutionContext
    from sqlalchemy.orm import Session, SessionTransaction

    from .bulk import BulkWrites


class LentConnections:
    """The connections that a session has handed out in its current transaction.

    Each is listened to by itself, so that nobody pays who asks for none.
    """

    __slots__ = ("_bulk", "_connections", "_session")

    def __init__(self, session: Session, bulk: BulkWrites) -> None:
        """Lend none yet; tell ``bulk`` what is sent on them past the session."""
        self._connections: dict[Connection, None] = {}
        self._session = ref(session)
        self._bulk = bulk

    def lend(self, root: SessionTransaction, connection: Connection) -> None:
        """Follow what is sent on a connection of the transaction from now on."""
        if connection not in self._connections:
            self._connections[connection] = None
            for name, listener in self._listeners():
                # On one that the session was given, other sessions write, too: what they flush passes nobody by.
                if name != "before_execute" or compatibility.owns_connection(root, connection):
                    event.listen(connection, name, listener)

    def take_back(self) -> None:
        """Follow none of them any more: one that is not the session's own outlives its transaction."""
        for connection in self._connections:
            for name, listener in self._listeners():
                if event.contains(connection, name, listener):
                    event.remove(connection, name, listener)
        self._connections.clear()

    def _listeners(self) -> tuple[tuple[str, Callable[..., None]], ...]:
        return ("before_execute", self._before_execute), ("before_cursor_execute", self._before_cursor_execute)

    def _passed_by(self) -> Session | None:
        """Return the session, unless what is sent right now is its own."""
        session = self._session()
        return None if session is None or self._bulk.is_sending(session) else session

    def _before_execute(
        self,
        connection: Connection,  # noqa: ARG002 - SQLAlchemy calls it so
        statement: object,
        many: object,  # noqa: ARG002 - the same
        parameters: object,  # noqa: ARG002 - the same
        options: Mapping[str, Any],
    ) -> None:
        if isinstance(statement, (Insert, Update, Delete)) and self._passed_by() is not None:
            self._bulk.check_past_session(statement, options.get("events"))

    def _before_cursor_execute(self, *arguments: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own
        context: ExecutionContext = arguments[4]
        statement: object = context.invoked_statement
        if statement is None:  # exec_driver_sql()
            statement = arguments[2]
        session = self._passed_by()
        if session is None:
            return
        if isinstance(statement, RollbackToSavepointClause):
            undoes = not _rolls_back_savepoint(session)
        else:
            undoes = may_undo(statement)
        if undoes or _may_write_rows(statement):
            self._bulk.note(session, undoes=undoes)


def _rolls_back_savepoint(session: Session) -> bool:
    """Whether a savepoint of the session's own is being rolled back."""
    savepoint = session.get_nested_transaction()
    return savepoint is not None and compatibility.is_ending(savepoint) is not None


def _may_write_rows(statement: object) -> bool:
    """Whether a statement may write rows that are listened to, by itself or by what the database does along with it."""
    if isinstance(statement, Insert):
        return bool(subject_of(statement).heard)
    savepoints = SavepointClause, RollbackToSavepointClause, ReleaseSavepointClause
    return not isinstance(statement, savepoints) and may_write(statement)
