"""Follows one bulk UPDATE or DELETE with criteria: its rows are read right before it is sent, and counted after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Delete, Update

from ...errors import BulkWriteError
from .. import compatibility
from ..capture.loading import read_rows
from ..records import Kind
from .criteria import assigned
from .keys import only_read, own_key
from .reading import Reader, begin_writing
from .sending import MARK
from .statements import Subject, assigned_names, name_of, refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Mapper, Session

    from ..capture.rows import RowRecord
    from ..plan import Plan


class Followed:
    """One UPDATE or DELETE by criteria, whose rows are read when it is about to be sent.

    Not before: other ``do_orm_execute`` listeners may still add criteria, and SQLAlchemy flushes first.
    """

    def __init__(self, session: Session, mapper: Mapper[Any], told: dict[Mapper[Any], Plan], subject: Subject) -> None:
        self._session = session
        self._mapper = mapper
        self._told = told
        self._subject = subject
        self._reader: Reader | None = None
        self._records: list[RowRecord] = []
        self._only_read: ColumnElement[bool] | None = None
        self._parameters: Mapping[str, Any] = {}

    def before_execute(
        self,
        connection: Connection,
        statement: Any,  # noqa: ANN401 - whatever is executed
        many: Any,  # noqa: ANN401 - SQLAlchemy's own
        parameters: Any,  # noqa: ANN401 - SQLAlchemy's own
        options: Mapping[str, Any],
    ) -> tuple[Any, Any, Any]:
        """Read the rows of the statement if it is this one."""
        if options.get(MARK) is self and isinstance(statement, (Update, Delete)) and self._reader is None:
            kind = Kind.UPDATED if isinstance(statement, Update) else Kind.DELETED
            names = None
            if isinstance(statement, Update):
                names = assigned_names((*compatibility.written(statement).values, *parameters))
            self._reader = reader = Reader(self._mapper, self._told, kind, names)
            if isinstance(statement, Update):
                reader.sets_key(assigned(self._mapper, statement, parameters), parameters)
            self._parameters = parameters
            begin_writing(connection, self._mapper, kind)
            found = reader.by_criteria(connection, statement, parameters, is_orm=self._subject.is_orm)
            reader.complete(self._session, found)
            self._records = found
            if connection.dialect.name == "postgresql":
                self._only_read = only_read(self._own_key(), reader.identities, connection.dialect)
                statement = statement.where(self._only_read)
        return statement, many, parameters

    def _own_key(self) -> list[ColumnElement[Any]]:
        columns = own_key(self._mapper)
        if columns is None:
            table = name_of(self._mapper.local_table)
            raise refuse(self._subject, f"the inherit_condition does not say which columns of {table!r} hold its key")
        return columns

    def written(self, connection: Connection, count: int) -> list[RowRecord]:
        """Return what the statement has done to each row, now that it has run.

        Args:
            connection: Where it has run.
            count: How many rows the driver says that it has written.
        """
        reader = self._reader
        if reader is None:
            raise refuse(self._subject, "it was sent to another connection than the session's own for the model")
        if count > len(reader.identities):
            raise refuse(
                self._subject,
                "it has written rows that others added after its rows were read: roll back and try again, or use the "
                "isolation level REPEATABLE READ. If that is not the reason",
            )
        if 0 <= count < len(reader.identities) and self._only_read is not None:
            lost = reader.passed_over(connection, self._only_read, self._parameters)
            if lost:
                raise self._passed_over(lost, count, len(reader.identities))
        if self._records and self._records[0].kind is Kind.DELETED and count != len(reader.identities):
            # It may have left some: its criteria are true no more, or a trigger keeps them.
            keys = (self._mapper.get_property_by_column(self._mapper.primary_key[0]).key,)
            read = read_rows(self._session, self._mapper, [record.key for record in self._records], keys)
            return [record for record in self._records if record.key not in read]
        return self._records

    def _passed_over(self, lost: list[tuple[Any, ...]], count: int, read: int) -> BulkWriteError:
        """Make the error for rows that the statement passed over only since they are not found again by their key.

        Fewer rows than were read are right where a trigger, a rule or a policy keeps some, or where others have changed
        what the criteria look at in other tables. Those rows are found, and the statement did with them what it would
        have done without events.
        """
        return BulkWriteError(
            f"{self._subject.described} has written {count} rows of {name_of(self._mapper.local_table)!r}, and {read} "
            f"were read for its events: others are not found again by their primary key, such as {lost[0]!r}. Roll "
            "back, give the statement execution_options(events=False) to do without events, and report it"
        )
