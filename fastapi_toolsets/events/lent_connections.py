"""Notices what somebody sends on a connection of a session's, which handed it out, or whose flush did to a listener.

No session event tells of it.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

from sqlalchemy import Delete, Insert, Update
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import ReleaseSavepointClause, RollbackToSavepointClause, SavepointClause

from . import compatibility
from .bulk.statements import inner_writes, inserts_elsewhere, may_undo, may_write
from .heard_rows import is_secondary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.orm import Mapper, Session, SessionTransaction
    from sqlalchemy.orm.instrumentation import ClassManager

    from .bulk.bulk import BulkWrites
    from .capture.at_hand import States


class LentConnections:
    """The connections that a session has handed out in its current transaction.

    Each is followed by itself, so that nobody pays who asks for none.
    """

    __slots__ = ("_bulk", "_connections", "_session")

    def __init__(self, session: Session, bulk: BulkWrites) -> None:
        """Lend none yet; tell ``bulk`` what is sent on them past the session."""
        self._connections: dict[Connection, bool] = {}
        self._session = ref(session)
        self._bulk = bulk

    def lend(self, root: SessionTransaction, connection: Connection) -> None:
        """Follow what is sent on a connection of the transaction from now on."""
        if connection not in self._connections:
            self._connections[connection] = compatibility.owns_connection(root, connection)
            FollowedConnection.follow(connection, self)

    def take_back(self) -> None:
        """Follow none of them any more: one that is not the session's own outlives its transaction."""
        for connection in self._connections:
            FollowedConnection.leave(connection, self)
        self._connections.clear()

    def is_needed(self) -> bool:
        """Whether there is a session that can be told."""
        return self._session() is not None

    def sent(self, connection: Connection, statement: object, options: Mapping[str, Any]) -> None:
        """Look at what is about to be sent on one of the connections.

        Args:
            connection: The connection.
            statement: What :meth:`Connection.execute` was given, or the words that ``exec_driver_sql()`` was.
            options: The execution options of the call.

        Raises:
            BulkWriteError: Somebody should be told of what it writes, and cannot be; see ``check_past_session``.
            BulkEventsError: The execution option ``events`` is no truth value.
        """
        session = self._session()
        if session is None or self._bulk.is_executing(session):
            return
        if compatibility.is_flushing(session) and _is_of_flush(statement, options):
            return
        # On one that the session was given, other sessions write, too: what they flush passes nobody by.
        if isinstance(statement, (Insert, Update, Delete)) and self._connections[connection]:
            merged = {**statement.get_execution_options(), **connection.get_execution_options(), **options}
            self._bulk.check_past_session(statement, merged.get("events"))
        if isinstance(statement, RollbackToSavepointClause):
            undoes = not _rolls_back_savepoint(session)
        else:
            undoes = may_undo(statement)
        if undoes or _may_write_rows(statement):
            self._bulk.note(session, undoes=undoes)


class FollowedConnection(Connection):
    """What a connection becomes while a session has lent it, to notice what is sent on it.

    A class of its own, which overrides what SQLAlchemy documents, and no listeners of the connection's events: to add
    two and to remove them again makes the commit of one row take nearly twice as long.
    """

    lent_by: list[LentConnections]
    class_before: type[Connection]

    @classmethod
    def follow(cls, connection: Connection, lent: LentConnections) -> None:
        """Tell ``lent`` what is sent on a connection before it is sent."""
        if isinstance(connection, cls):  # several sessions share it, of which some were dropped without close()
            connection.lent_by = [*filter(LentConnections.is_needed, connection.lent_by), lent]
            return
        before = type(connection)
        followed = cast("FollowedConnection", connection)
        followed.class_before, followed.lent_by = before, [lent]
        connection.__class__ = _class_of_followed(before)  # last: an interrupt leaves it whole

    @staticmethod
    def leave(connection: Connection, lent: LentConnections) -> None:
        """Tell it no more."""
        followed = cast("FollowedConnection", connection)
        if issubclass(type(connection), FollowedConnection):  # to follow it may have been interrupted
            followed.lent_by = [other for other in followed.lent_by if other is not lent]
            if not followed.lent_by:
                connection.__class__ = followed.class_before

    def execute(self, statement: Any, parameters: Any = None, *, execution_options: Any = None) -> Any:  # noqa: ANN401 - SQLAlchemy's own types
        """Execute as ``Connection.execute`` does."""
        self._tell(statement, execution_options)
        return super().execute(statement, parameters, execution_options=execution_options)

    def scalar(self, statement: Any, parameters: Any = None, *, execution_options: Any = None) -> Any:  # noqa: ANN401 - the same
        """Execute as ``Connection.scalar`` does."""
        self._tell(statement, execution_options)
        return super().scalar(statement, parameters, execution_options=execution_options)

    def exec_driver_sql(self, statement: str, parameters: Any = None, execution_options: Any = None) -> Any:  # noqa: ANN401 - the same
        """Execute as ``Connection.exec_driver_sql`` does."""
        self._tell(statement, None)
        return super().exec_driver_sql(statement, parameters, execution_options)

    def _tell(self, statement: object, options: Mapping[str, Any] | None) -> None:
        for lent in self.lent_by:
            lent.sent(self, statement, options or {})


_classes: dict[type[Connection], type[Connection]] = {Connection: FollowedConnection}


def _class_of_followed(before: type[Connection]) -> type[Connection]:
    """Return what connections of a class become: others may have changed theirs, too."""
    if before not in _classes:
        _classes[before] = type(before.__name__, (FollowedConnection, before), {})
    return _classes[before]


def mappers_heard(modified: States, deleted: States, new: States) -> list[Mapper[Any]]:
    """Return the mappers whose own listeners a flush will call, and give its connection."""
    found: list[Mapper[Any]] = []
    _add_heard(found, new, _OF_INSERT)
    _add_heard(found, modified, _OF_UPDATE)
    _add_heard(found, deleted, _OF_DELETE)
    return found


def _add_heard(
    found: list[Mapper[Any]],
    states: States,
    heard_of: Callable[[compatibility.MapperListeners], tuple[object, ...]],
) -> None:
    manager: ClassManager[Any] | None = None
    for state in states:
        if state.manager is not manager:  # most are of the same class as the one before; to hash a manager takes a call
            manager = state.manager
            mapper = manager.mapper
            if any(heard_of(compatibility.listeners_of(mapper))) and mapper not in found:
                found.append(mapper)


_OF_INSERT, _OF_UPDATE, _OF_DELETE = (
    attrgetter(*(f"{time}_{name}" for name in names for time in ("before", "after")))
    for names in (("insert",), ("update", "delete"), ("delete",))  # one that is changed may turn out to be an orphan
)


def _is_of_flush(statement: object, options: Mapping[str, Any]) -> bool:
    """Whether the unit of work sends a statement during a flush, and no listener of its rows."""
    if compatibility.is_of_unit_of_work(options):
        return True
    return isinstance(statement, (Insert, Update, Delete)) and is_secondary(statement.table)


def _rolls_back_savepoint(session: Session) -> bool:
    """Whether a savepoint of the session's own is being rolled back."""
    savepoint = session.get_nested_transaction()
    return savepoint is not None and compatibility.method_under_way(savepoint) is not None


def _may_write_rows(statement: object) -> bool:
    """Whether a statement may write rows that are listened to, by itself or by what the database does along with it."""
    if isinstance(statement, Insert):
        return not inserts_elsewhere(statement) or any(True for _ in inner_writes(statement))
    savepoints = SavepointClause, RollbackToSavepointClause, ReleaseSavepointClause
    return not isinstance(statement, savepoints) and may_write(statement)
