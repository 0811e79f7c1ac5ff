"""Whether a transaction is lost on the server although nobody rolled it back, so that its COMMIT commits nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, WeakSet, ref

from sqlalchemy import Dialect, Engine, event
from sqlalchemy.exc import DBAPIError

from . import compatibility

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sqlalchemy.engine import Connection, ExceptionContext, RootTransaction, Transaction

# https://www.postgresql.org/docs/current/libpq-status.html#LIBPQ-PQTRANSACTIONSTATUS
_POSTGRESQL_IN_ERROR = 3
# https://mariadb.com/docs/server/reference/error-codes: these roll the whole transaction back, not just the statement.
_ROLLED_BACK_BY_MYSQL = frozenset(
    (
        1206,  # ER_LOCK_TABLE_FULL
        1213,  # ER_LOCK_DEADLOCK
    )
)
_MAY_BE_ROLLED_BACK_BY_MARIADB = frozenset(
    (
        1020,  # ER_CHECKREAD, with innodb_snapshot_isolation
        1205,  # ER_LOCK_WAIT_TIMEOUT, with innodb_rollback_on_timeout
    )
)


class _Drivers(dict[type[Dialect], tuple[bool, bool]]):
    """Whether a driver knows by itself that the server has given a transaction up, and whether it is an async one.

    All drivers for PostgreSQL but asyncpg know. By the dialect's class, since to look up what the class says takes the
    interpreter ten times as long.
    """

    def __missing__(self, dialect: type[Dialect]) -> tuple[bool, bool]:
        keeps_status = dialect.name == "postgresql" and dialect.driver != "asyncpg"
        found = self[dialect] = keeps_status, dialect.is_async
        return found


_drivers = _Drivers()

_had_errors: WeakSet[RootTransaction] = WeakSet()
"""Transactions in which a statement has failed. Empty in most processes at most times."""

a_statement_failed: bool = False
"""Whether one ever did in this process: quicker to see than that the set is empty."""

_rolled_back: WeakSet[RootTransaction] = WeakSet()
"""Transactions of MySQL and MariaDB of which the server has rolled back what came before an error, and what comes after
it begins another one, which it commits."""

a_server_rolled_back: bool = False
"""Whether one ever did so by itself in this process, as above: each flush looks."""

_aborted: WeakSet[RootTransaction] = WeakSet()
"""Transactions of PostgreSQL in which a statement has failed since somebody looked, outside of savepoints."""

_refused: WeakSet[Transaction] = WeakSet()
"""Transactions whose COMMIT has failed."""

_cut_off: WeakSet[Transaction] = WeakSet()
"""Transactions whose connection broke, or whose statement was interrupted: its effect is known to the server only."""

_cancelled: WeakKeyDictionary[Transaction, ReferenceType[asyncio.CancelledError]] = WeakKeyDictionary()
"""Transactions whose COMMIT or ROLLBACK was cancelled, by what: as long as somebody keeps that to raise it."""


def install() -> None:
    """Remember from now on which transactions saw a statement fail. Costs nothing until one does."""
    if not event.contains(Engine, "handle_error", _note_error):
        event.listen(Engine, "handle_error", _note_error)


def look_at(
    connections: Mapping[Engine | Connection, tuple[Connection, Transaction, bool, bool]],
) -> tuple[bool, bool, bool]:
    """Look at a transaction's connections, before its COMMIT.

    Returns:
        Whether any of them is not the session's own; whether its driver is an async one; and whether a COMMIT would be
        answered with success, but commit nothing. PostgreSQL does so once a statement has failed (its answer to COMMIT
        is ROLLBACK), SQLite where an error such as a full disk made it roll back by itself, MariaDB after a deadlock or
        a snapshot conflict. The server is asked only where the driver does not know and a statement failed.
    """
    borrows = is_async = is_lost = False
    for key, (connection, _, _, is_own) in connections.items():
        if key is not connection:
            continue  # a transaction knows each by itself and by its engine
        keeps_status, is_async = _drivers[type(connection.dialect)]
        if not is_own:
            borrows = True
        if (keeps_status or a_statement_failed) and not is_lost:
            is_lost = _is_lost(connection)
    return borrows, is_async, is_lost


def take_rolled_back(transactions: Iterable[Transaction]) -> bool:
    """Whether the server has rolled back by itself what one of them has written until now; said once for each time.

    It goes on with another one (``_rolled_back``), of which the session knows nothing.
    """
    found = [transaction for transaction in transactions if transaction in _rolled_back]
    _rolled_back.difference_update(found)
    return bool(found)


def has_failed(transactions: Iterable[Transaction]) -> bool:
    """Whether a COMMIT that reported success has committed nothing, since a statement has failed shortly before it."""
    return any(transaction in _aborted or transaction in _rolled_back for transaction in transactions)


def is_unknown(transactions: Iterable[Transaction]) -> bool:
    """Whether nobody can tell if a COMMIT that raised was carried out: its connection broke, or it was interrupted."""
    return any(transaction in _cut_off for transaction in transactions)


def cancellation_of(transactions: Iterable[Transaction]) -> asyncio.CancelledError | None:
    """Return what has cancelled the ROLLBACK of a session's transactions, and is raised once they are closed."""
    for transaction in transactions:
        found = _cancelled.get(transaction)
        if found is not None:
            return found()
    return None


def note_interruption(transactions: Collection[Transaction]) -> None:
    """Take note that something came in between around the COMMIT of a session's transactions.

    SQLAlchemy may have sent it, may have had its answer, or neither; only where the answer was an error it is known.
    With several databases one may have committed before another has refused.
    """
    others = [transaction for transaction in transactions if transaction not in _refused]
    if len(others) == len(transactions) or not all(transaction.is_active for transaction in others):
        _cut_off.update(transactions)


def _note_error(context: ExceptionContext) -> None:
    connection = context.connection
    transaction = None if connection is None or connection.closed else connection.get_transaction()
    if connection is None or transaction is None:
        return
    global a_statement_failed  # noqa: PLW0603 - once for the process
    a_statement_failed = True
    _had_errors.add(transaction)
    if context.statement is None:
        _refused.add(transaction)
        if isinstance(context.original_exception, asyncio.CancelledError):
            _cancelled[transaction] = ref(context.original_exception)
    if context.is_disconnect or context.sqlalchemy_exception is None:
        _cut_off.add(transaction)
    if context.statement is not None and not context.is_disconnect:
        _note_effect(connection, transaction, context.original_exception)


def _note_effect(connection: Connection, transaction: RootTransaction, error: BaseException) -> None:
    """Take note of what the error of a statement does to its transaction, as far as only now anybody can tell."""
    global a_server_rolled_back  # noqa: PLW0603 - once for the process
    dialect = connection.dialect
    code: object = error.args[0] if error.args else None
    if dialect.name == "postgresql":
        if not connection.in_nested_transaction() and not compatibility.is_autocommit(connection):
            _aborted.add(transaction)
    elif dialect.name in ("mysql", "mariadb") and (
        code in _ROLLED_BACK_BY_MYSQL
        or (
            code in _MAY_BE_ROLLED_BACK_BY_MARIADB
            and getattr(dialect, "is_mariadb", False)
            and _mariadb_has_rolled_back(connection)  # the next statement begins another one
        )
    ):
        a_server_rolled_back = True
        _rolled_back.add(transaction)


def _is_lost(connection: Connection) -> bool:
    dialect = connection.dialect
    transaction = connection.get_transaction()
    if dialect.name == "postgresql":
        is_in_error = _postgresql_in_error(connection)
        if not is_in_error and transaction is not None:
            _aborted.discard(transaction)  # somebody has rolled a savepoint back
        return is_in_error
    if transaction not in _had_errors or compatibility.is_autocommit(connection):
        return False
    if dialect.name == "sqlite":
        return not getattr(connection.connection.driver_connection, "in_transaction", True)
    return transaction in _rolled_back or (
        getattr(dialect, "is_mariadb", False) and _mariadb_has_rolled_back(connection)
    )


def _mariadb_has_rolled_back(connection: Connection) -> bool:
    """Ask the server: which errors roll everything back depends on its version and settings."""
    return connection.exec_driver_sql("SELECT @@in_transaction").scalar() == 0


def _postgresql_in_error(connection: Connection) -> bool:
    driver: Any = connection.connection.driver_connection
    information = getattr(driver, "info", None)
    status = getattr(information, "transaction_status", None)
    if status is not None:
        return int(status) == _POSTGRESQL_IN_ERROR
    if connection.get_transaction() in _had_errors:
        try:
            connection.exec_driver_sql("SELECT 1")
        except DBAPIError:
            return True
    return False
