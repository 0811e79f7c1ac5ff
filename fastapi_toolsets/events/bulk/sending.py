"""A bulk statement on its way: what it has written is not forgotten if it fails before its rows are known."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Delete, Insert, Update, event
from sqlalchemy.engine.interfaces import ExecuteStyle

from ..transaction import open_savepoint

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from sqlalchemy.engine import Connection, ExecutionContext
    from sqlalchemy.orm import Session

    from ..journal import Frame, Journal

_Given = TypeVar("_Given")

MARK = "fastapi_toolsets_bulk_statement"
"""The execution option by which a statement is known again on its way to the database."""


class Sending:
    """The time from which a bulk statement may have written rows until they are in the journal.

    A savepoint or transaction in which that time has not ended cannot be committed: see ``completion.complete``. An
    INSERT of many rows is sent in parts, and an UPDATE of a list of rows row by row. Where a later one fails, SQLite
    and MariaDB keep the rows of those before it, and a program that catches the error may commit them.

    Attributes:
        count: How many rows the driver says that the statement has written, of the last part; -1 where it does not say.
    """

    def __init__(self, journal: Journal, session: Session, described: str) -> None:
        """Prepare to follow one statement."""
        self._journal = journal
        self._session = session
        self._described = described
        self._frame: Frame | None = None
        self.count: int = -1

    def begin(self) -> None:
        """Note that the statement may have written rows from now on."""
        if self._frame is None:
            self._frame = frame = self._journal.frame(open_savepoint(self._session))
            frame.unknown.append(self._described)

    def end(self) -> None:
        """Note that what it has written is in the journal, or that it has written nothing."""
        if self._frame is not None:
            self._frame.unknown.remove(self._described)
            self._frame = None

    @contextmanager
    def all_or_nothing(self) -> Generator[None]:
        """Let the time begin now: one of the session's bulk methods rolls everything back if it fails."""
        if not self._session.in_transaction():
            self._session.begin()  # as the method would
        self.begin()
        try:
            yield
        except Exception:
            self.end()
            raise

    @contextmanager
    def on(self, connection: Connection, mark: object = None) -> Generator[None]:
        """Let the time begin once the database has executed the first part of the statement.

        An interrupt while the driver executes it, or while SQLAlchemy tells of it right after that, breaks the
        connection (``Connection._handle_dbapi_exception``): nothing is committed then.

        Args:
            connection: Where it is sent.
            mark: What it was marked with.
        """

        def before(*arguments: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own
            context: ExecutionContext = arguments[4]
            if is_meant(context) and context.execute_style is ExecuteStyle.EXECUTEMANY:  # may fail at any row
                self.begin()

        def after(*arguments: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own
            if is_meant(arguments[4]):
                self.begin()
                self.count = arguments[1].rowcount

        def is_meant(context: ExecutionContext) -> bool:
            writes = isinstance(context.invoked_statement, (Insert, Update, Delete))
            return writes and context.execution_options.get(MARK) is mark

        with (
            listening(connection, "before_cursor_execute", before),
            listening(connection, "after_cursor_execute", after),
        ):
            yield


def taken(session: Session, given: Iterable[_Given], write: Callable[[Iterable[_Given]], None]) -> list[_Given]:
    """Go through what a bulk method was given before SQLAlchemy does, which rolls everything back if that fails."""
    found: list[_Given] = []
    try:
        found.extend(given)
    except BaseException as error:
        if session.is_active:  # otherwise a flush in between has failed, and nothing is left to be rolled back
            write(chain(found, map(_fail, [error])))
        raise
    return found


def _fail(error: BaseException) -> Any:  # noqa: ANN401 - nothing, in place of anything
    raise error


@contextmanager
def listening(connection: Connection, name: str, listener: Callable[..., Any], **options: bool) -> Generator[None]:
    """Listen to an event of one connection for the time of a block."""
    event.listen(connection, name, listener, **options)
    try:
        yield
    finally:
        event.remove(connection, name, listener)
