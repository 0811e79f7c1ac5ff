"""Notices what somebody sends on a connection that a session has handed out: no session event tells of it."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy import Delete, Insert, Update, event
from sqlalchemy.sql.expression import ReleaseSavepointClause, RollbackToSavepointClause, SavepointClause

from . import compatibility
from .bulk_statements import is_secondary, may_undo, may_write, subject_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.engine import Connection, ExecutionContext
    from sqlalchemy.orm import ClassManager, InstanceState, Mapper, Session, SessionTransaction

    from .bulk import BulkWrites
    from .old_values import States


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

    def _passed_by(self, statement: object, options: Mapping[str, Any]) -> Session | None:
        """Return the session, unless a statement is its own."""
        session = self._session()
        if session is None or self._bulk.is_executing:
            return None
        is_flushed = compatibility.is_flushing(session) and _is_of_flush(statement, options)
        return None if is_flushed else session

    def _before_execute(
        self,
        connection: Connection,  # noqa: ARG002 - SQLAlchemy calls it so
        statement: object,
        many: object,  # noqa: ARG002 - the same
        parameters: object,  # noqa: ARG002 - the same
        options: Mapping[str, Any],
    ) -> None:
        if isinstance(statement, (Insert, Update, Delete)) and self._passed_by(statement, options) is not None:
            self._bulk.check_past_session(statement, options.get("events"))

    def _before_cursor_execute(self, *arguments: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own
        context: ExecutionContext = arguments[4]
        statement: object = context.invoked_statement
        if statement is None:  # exec_driver_sql()
            statement = arguments[2]
        session = self._passed_by(statement, context.execution_options)
        if session is None:
            return
        if isinstance(statement, RollbackToSavepointClause):
            undoes = not _rolls_back_savepoint(session)
        else:
            undoes = may_undo(statement)
        if undoes or _may_write_rows(statement):
            self._bulk.note(session, undoes=undoes)


def mappers_heard(modified: States, deleted: States, new: States) -> list[Mapper[Any]]:
    """Return the mappers whose own listeners a flush will call, and give its connection.

    They are looked for each time, since anybody may listen at any time: half a microsecond, of which most flushes have
    one for all that they write.
    """
    found: list[Mapper[Any]] = []
    if new:
        _add_heard(found, new, _OF_INSERT)
    if modified:
        _add_heard(found, modified, _OF_UPDATE)
    if deleted:
        _add_heard(found, deleted, _OF_DELETE)
    return found


def _add_heard(found: list[Mapper[Any]], states: States, listeners_of: Callable[[object], tuple[Any, Any]]) -> None:
    managers = map(_manager_of, states)
    for manager in managers if len(states) == 1 else set(managers):
        before, after = listeners_of(manager.mapper.dispatch)
        if before or after:
            found.append(manager.mapper)


_manager_of: Callable[[InstanceState[Any]], ClassManager[Any]] = attrgetter("manager")
_OF_INSERT, _OF_UPDATE, _OF_DELETE = (
    attrgetter(f"before_{name}", f"after_{name}") for name in ("insert", "update", "delete")
)


def _is_of_flush(statement: object, options: Mapping[str, Any]) -> bool:
    """Whether the unit of work sends a statement during a flush, and no listener of its rows."""
    if compatibility.is_of_unit_of_work(options):
        return True
    return isinstance(statement, (Insert, Update, Delete)) and is_secondary(statement.table)


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
