"""Bulk statements, which pass the unit of work by: noticed, and told as events where the model or statement asks."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Delete, Insert, TextClause, Update
from sqlalchemy.exc import SQLAlchemyError

from ...errors import BulkWriteError
from .. import compatibility
from ..capture.loading import OwnArguments, is_sharded, writing_connection
from ..capture.rows import RowRecord, keep_new_rows
from ..heard_rows import is_unheard
from ..journal import Doubt
from ..plan import state_of
from ..records import Kind
from ..transaction import open_savepoint
from ..types import ModelEvent
from .criteria import check_criteria, check_key_stays
from .following import Followed
from .inserts import Insertion, made_rows
from .reading import ROWS_AT_ONCE, Reader, begin_writing
from .sending import MARK, Sending, listening, taken
from .statements import (
    Subject,
    assigned_names,
    check_past_session,
    check_subject,
    inner_writes,
    inserts_elsewhere,
    may_update,
    refuse,
    subject_of,
    subject_of_mapper,
    to_tell,
    with_relatives,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable

    from sqlalchemy import Result
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import InstanceState, Mapper, ORMExecuteState, Session

    from ..capture.capture import Capture
    from ..journal import Journal
    from ..plan import Plan
    from ..transaction import CurrentTransaction
    from ..types import BulkPolicy
    from .statements import DML

_HEARS: dict[str, tuple[ModelEvent, ...]] = {
    "insert": (ModelEvent.CREATE,),
    "update": (ModelEvent.UPDATE,),
    "delete": (ModelEvent.DELETE,),
}
_UPSERT = (ModelEvent.CREATE, ModelEvent.UPDATE)

_AT_ONCE: dict[str, object] = {"stream_results": False, "yield_per": None}
"""What it returns is fetched at once: how many rows it has written no driver knows before, and the rows are known."""


class BulkWrites:
    """Follows the bulk statements of one session. Runs where the session's own work runs.

    Attributes:
        is_saving: Whether one of the session's bulk methods writes.
    """

    def __init__(self, journal: Journal, now: CurrentTransaction, capture: Capture, policy: BulkPolicy) -> None:
        """Write to ``journal``, and note in what is known of the current transaction that something was written."""
        self._journal = journal
        self._now = now
        self._capture = capture
        self._policy: BulkPolicy = policy
        self._sends_in_flush: bool | None = None  # ``None`` while the session itself sends nothing
        self.is_saving: bool = False

    @contextmanager
    def sending(self, session: Session, *, undoes: bool = False) -> Generator[None]:
        """Note that the session itself sends what may write rows past the unit of work.

        Whether these may be rows that the transaction has recorded is noted once it is known.
        """
        self._begin(session, undoes=undoes)
        outer, self._sends_in_flush = self._sends_in_flush, compatibility.in_flush(session)
        try:
            yield
        finally:
            self._sends_in_flush = outer

    def is_executing(self, session: Session) -> bool:
        """Whether the session itself sends what may write rows past the unit of work.

        Not so while it flushes before that, when listeners of the flush may send something of theirs.
        """
        began_in_flush = self._sends_in_flush
        return began_in_flush is not None and (self.is_saving or began_in_flush is compatibility.in_flush(session))

    @contextmanager
    def saving(self) -> Generator[None]:
        """Note that one of the session's bulk methods writes, in a subtransaction as a flush does.

        No longer than that: what it is given may ask the database as it is gone through, which flushes.
        """
        self.is_saving = True
        try:
            yield
        finally:
            self.is_saving = False

    def note(self, session: Session, *, undoes: bool) -> None:
        """Note that rows may be written past the unit of work, or what was written before be taken back."""
        self._begin(session, undoes=undoes)
        self._journal.doubts.add(Doubt.PAST_FLUSH)

    def _begin(self, session: Session, *, undoes: bool) -> None:
        if self._capture.written:
            self._capture.after_finalized(session, early=True)  # a listener of the flush writes: that comes second
        self._now.wrote = self._now.follows = True
        if undoes:
            self._journal.doubts.add(Doubt.UNDONE)

    def check_past_session(self, statement: DML, events: object) -> None:
        """Look at a statement that somebody is about to send on a connection of the session's.

        Raises:
            BulkWriteError: Somebody should be told of its rows, and cannot be; see ``check_past_session``.
            BulkEventsError: The execution option ``events`` is no truth value.
        """
        subject = subject_of(statement)
        check_past_session(subject, events, _rows_become(subject, statement), self._policy)

    def execute(self, execution: ORMExecuteState) -> Result[Any] | None:
        """Run a statement and record what it does, or leave it to SQLAlchemy with ``None``.

        Raises:
            BulkWriteError: The statement is not opted in and the session's policy is to raise, or events were asked
                for that cannot be told as they are. The statement has not run then.
            BulkEventsError: The execution option ``events`` is no truth value.
        """
        statement = execution.statement
        events = execution.execution_options.get("events")
        inserts = inserts_elsewhere(statement)
        for inner in inner_writes(statement):
            inserts = False
            subject = subject_of(inner)
            if subject.heard:
                hears = _rows_become(subject, inner)
                check_past_session(subject, events, hears, self._policy, is_inside=True)
        if not inserts:
            self._journal.doubts.add(Doubt.PAST_FLUSH)
        if isinstance(statement, (Insert, Update, Delete)):
            subject = subject_of(statement)
            if subject.heard:
                told = to_tell(subject, events, _rows_become(subject, statement), self._policy)
                if told:
                    return self._tell(execution, subject, statement, told)
        elif events is True and isinstance(statement, TextClause):
            raise BulkWriteError(
                "a text() statement cannot make events: nobody knows which rows it writes. Use insert(), update() or "
                "delete() on the model"
            )
        return None

    def _tell(
        self,
        execution: ORMExecuteState,
        subject: Subject,
        statement: Insert | Update | Delete,
        told: dict[Mapper[Any], Plan],
    ) -> Result[Any]:
        mapper = check_subject(subject)
        if "schema_translate_map" in execution.execution_options:
            raise refuse(subject, "it has a schema_translate_map of its own: give that to the engine or the connection")
        session = execution.session
        if is_sharded(session):
            raise refuse(subject, "its session is sharded, and sends it to one database after another")
        connection = writing_connection(session, mapper)
        if not (subject.is_orm and isinstance(execution.parameters, list)):  # such rows go where flushes write
            _check_connection(execution, subject, connection)
        sending = Sending(self._journal, session, subject.described)
        if isinstance(statement, Insert):
            told = with_relatives(mapper, told, execution.execution_options.get("events"))
            insertion = Insertion(session, connection, subject, mapper, told)
            insertion.prepare(execution, statement)
            with sending.on(connection):
                result = insertion.run(execution, statement)
            records = insertion.records
        elif isinstance(statement, Update) and subject.is_orm and _is_by_primary_key(execution):
            told = with_relatives(mapper, told, execution.execution_options.get("events"))
            check_key_stays(subject, mapper)
            records = _before_update_of_rows(execution, mapper, told)
            with sending.on(connection):
                result = self._update_rows(execution, records, sending)
        else:
            check_criteria(subject, mapper, statement, execution.parameters)
            followed = Followed(session, mapper, told, subject)
            with (
                listening(connection, "before_execute", followed.before_execute, retval=True),
                sending.on(connection, followed),
            ):
                result = execution.invoke_statement(execution_options={MARK: followed, **_AT_ONCE})
            records = followed.written(connection, sending.count)
        self._record(session, records, sending)
        return result

    def _update_rows(self, execution: ORMExecuteState, records: list[RowRecord], sending: Sending) -> Result[Any]:
        """Run it; where it fails, which rows it has come to shows when they are compared with what they were."""
        try:
            return execution.invoke_statement()
        except Exception:
            with suppress(SQLAlchemyError):  # a transaction in which nothing can be read is not committed
                self._record(execution.session, records, sending)
            raise

    def _record(self, session: Session, records: list[RowRecord], sending: Sending) -> None:
        """Write into the journal what a statement has done."""
        journal = self._journal
        for record in records:
            record.position = journal.take_positions(1)
        if records:
            journal.doubts.add(Doubt.BULK)
            keep_new_rows(session, records)
            journal.frame(open_savepoint(session)).absorb(records)
        sending.end()

    # The session's bulk methods.

    def insert_mappings(
        self,
        session: Session,
        mapper: Mapper[Any],
        mappings: Iterable[dict[str, Any]],
        write: Callable[[Iterable[dict[str, Any]], bool], None],
        *,
        return_defaults: bool,
    ) -> None:
        """Write what ``bulk_insert_mappings`` was given with ``write(mappings, return_defaults)``."""
        if not is_unheard(mapper.tables):
            self._journal.doubts.add(Doubt.PAST_FLUSH)
        subject = subject_of_mapper("insert", mapper)
        told = to_tell(subject, None, _HEARS["insert"], self._policy)
        if not told:
            write(mappings, return_defaults)
            return
        check_subject(subject)
        told = with_relatives(mapper, told, None)
        waiting = iter(mappings)
        while chunk := taken(session, islice(waiting, ROWS_AT_ONCE), lambda rows: write(rows, False)):  # noqa: FBT003 - as below
            # The primary keys are put into the dictionaries: into the caller's only where they were asked for.
            rows = chunk if return_defaults else [dict(row) for row in chunk]
            sending = Sending(self._journal, session, subject.described)
            with sending.all_or_nothing():
                write(rows, True)  # noqa: FBT003 - as SQLAlchemy's own method takes it
            connection = writing_connection(session, mapper)
            self._record(session, list(made_rows(connection, mapper, told, _identities(mapper, rows))), sending)

    def update_mappings(
        self,
        session: Session,
        mapper: Mapper[Any],
        mappings: Iterable[dict[str, Any]],
        write: Callable[[Iterable[dict[str, Any]]], None],
    ) -> None:
        """Write what ``bulk_update_mappings`` was given with ``write(mappings)``."""
        self._journal.doubts.add(Doubt.PAST_FLUSH)
        subject = subject_of_mapper("update", mapper)
        told = to_tell(subject, None, _HEARS["update"], self._policy)
        if not told:
            write(mappings)
            return
        check_subject(subject)
        check_key_stays(subject, mapper)
        told = with_relatives(mapper, told, None)
        rows = taken(session, mappings, write)
        given = compatibility.by_column_attribute(mapper, rows)
        records = _before_update(session, mapper, told, _identities(mapper, given), _assigned(mapper, given))
        sending = Sending(self._journal, session, subject.described)
        with sending.all_or_nothing():
            write(rows)
        self._record(session, records, sending)

    def save_objects(
        self,
        session: Session,
        objects: Iterable[object],
        write: Callable[[Iterable[object], bool], None],
        *,
        return_defaults: bool,
    ) -> None:
        """Write what ``bulk_save_objects`` was given with ``write(objects, return_defaults)``."""
        saved = taken(session, objects, lambda rows: write(rows, return_defaults))
        groups: dict[tuple[str, Mapper[Any]], list[InstanceState[Any]]] = {}
        for state in map(state_of, saved):
            name = "insert" if state.key is None else "update"
            groups.setdefault((name, state.manager.mapper), []).append(state)
        updates: list[RowRecord] = []
        inserted: list[tuple[Mapper[Any], dict[Mapper[Any], Plan], list[InstanceState[Any]]]] = []
        for (name, mapper), states in groups.items():
            if name == "update" or not is_unheard(mapper.tables):
                self._journal.doubts.add(Doubt.PAST_FLUSH)
            subject = subject_of_mapper(name, mapper)
            told = to_tell(subject, None, _HEARS[name], self._policy)
            if told:
                told = with_relatives(mapper, told, None)
            if told and name == "insert":
                check_subject(subject)
                inserted.append((mapper, told, states))
            elif told:
                check_subject(subject)
                check_key_stays(subject, mapper)
                identities = [state.key[1] for state in states if state.key is not None]
                loaded = {key for state in states for key in state.dict}
                updates += _before_update(session, mapper, told, identities, loaded)
        sending = Sending(self._journal, session, "bulk_save_objects()")
        with sending.all_or_nothing():
            write(saved, return_defaults or bool(inserted))
        records: list[RowRecord] = []
        for mapper, told, states in inserted:
            identities = [tuple(mapper.primary_key_from_instance(state.obj())) for state in states]
            records += made_rows(writing_connection(session, mapper), mapper, told, identities)
        self._record(session, records + updates, sending)


def _check_connection(execution: ORMExecuteState, subject: Subject, connection: Connection) -> None:
    """Refuse a statement that ``bind_arguments`` or a ``get_bind()`` sends elsewhere than flushes write the rows.

    Raises:
        BulkWriteError: It is one.
    """
    arguments = OwnArguments(execution.bind_arguments)
    arguments.setdefault("clause", execution.statement)
    if execution.session.connection(bind_arguments=arguments) is not connection:
        raise refuse(subject, "it is sent to another connection than that on which the session writes the model's rows")


def _rows_become(subject: Subject, statement: DML) -> tuple[ModelEvent, ...]:
    """Return what rows can become by a statement."""
    if isinstance(statement, Insert) and may_update(statement):
        return _UPSERT
    return _HEARS[subject.name]


def _is_by_primary_key(execution: ORMExecuteState) -> bool:
    """Whether an UPDATE of a list of rows takes them by primary key, as it does unless told otherwise."""
    strategy = execution.execution_options.get("dml_strategy", "auto")
    return isinstance(execution.parameters, list) and strategy in ("auto", "bulk")


def _identities(mapper: Mapper[Any], rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return the primary keys of rows that are given by attribute."""
    keys = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    return [tuple(row[key] for key in keys) for row in rows if row.keys() >= set(keys)]


def _assigned(mapper: Mapper[Any], rows: list[dict[str, Any]], values: Iterable[Any] = ()) -> set[str] | None:
    """Return what an update of a list of rows sets, ``None`` where other names stand for columns in it."""
    given = {key for row in rows for key in row}
    return given | assigned_names(values) if given <= set(mapper.column_attrs.keys()) else None


def _before_update(
    session: Session,
    mapper: Mapper[Any],
    told: dict[Mapper[Any], Plan],
    identities: Iterable[tuple[Any, ...]],
    assigned: Collection[str] | None,
) -> list[RowRecord]:
    """Read the rows that an update by primary key is about to write, and of them what it is about to set."""
    connection = writing_connection(session, mapper)
    begin_writing(connection, mapper)
    reader = Reader(mapper, told, Kind.UPDATED, assigned)
    records = list(reader.by_identity(connection, dict.fromkeys(identities)))
    reader.complete(session, records)
    return records


def _before_update_of_rows(
    execution: ORMExecuteState, mapper: Mapper[Any], told: dict[Mapper[Any], Plan]
) -> list[RowRecord]:
    """Flush what is pending, and read the rows of an UPDATE of a list of rows."""
    compatibility.autoflush(execution)
    rows = compatibility.by_column_attribute(mapper, cast("list[dict[str, Any]]", execution.parameters))
    sets = _assigned(mapper, rows, compatibility.written(cast("Update", execution.statement)).values)
    return _before_update(execution.session, mapper, told, _identities(mapper, rows), sets)
