"""Bulk INSERTs: which rows they made, and which were there already and became updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import BindParameter, Column, CursorResult, Table, not_, select
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData

from .. import compatibility
from ..capture.loading import chunks, has_identity
from ..capture.rows import RowRecord
from ..plan import is_expression, mapped_keys
from ..records import Kind
from .conflicts import (
    IS_MADE,
    PARTITIONED,
    VIEW,
    as_compared,
    has_key,
    kind_of_relation,
    nulls_are_equal,
    unique_expressions,
    unique_keys,
)
from .keys import own_key
from .reading import ROWS_AT_ONCE, Reader, begin_writing, plain_value
from .statements import assigned_names, column_keys, column_of, name_of, other_tables, refuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import ColumnElement, Insert, Result, Row
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Mapper, ORMExecuteState, Session

    from ..compatibility import Written
    from ..plan import Plan
    from .statements import Subject

Identity = tuple[Any, ...]


class _Counted(IteratorResult[Any]):
    """The result of an INSERT without ``returning()``: no rows, how many were written, and the key of the only one."""

    is_insert: bool = True
    returns_rows: bool = False

    def __init__(self, rowcount: int, names: Sequence[str], key: Identity | None) -> None:
        # For the key of an only row PostgreSQL is asked by SQLAlchemy itself: such a result lets itself be read.
        super().__init__(compatibility.NO_ROWS if key is None else SimpleResultMetaData([]), iter(()))
        self.rowcount: int = rowcount
        only: IteratorResult[Any] = IteratorResult(SimpleResultMetaData(names), iter([key or (None,) * len(names)]))
        self.inserted_primary_key: Row[Any] = only.one()

    @property
    def inserted_primary_key_rows(self) -> list[Row[Any]]:
        """What a cursor's result has under this name."""
        return [self.inserted_primary_key]


class Insertion:
    """One INSERT whose rows are told of.

    Attributes:
        records: What it did, once it has run.
    """

    def __init__(
        self,
        session: Session,
        connection: Connection,
        subject: Subject,
        mapper: Mapper[Any],
        told: Mapping[Mapper[Any], Plan],
    ) -> None:
        """Prepare to run an INSERT of rows of ``mapper`` on ``connection``."""
        self.records: list[RowRecord] = []
        self._session = session
        self._connection = connection
        self._subject = subject
        self._mapper = mapper
        self._told = told
        self._there: set[Identity] = set()
        self._updates: dict[Identity, RowRecord] = {}
        self._updates_rows: bool = False
        self._shows_made: bool = False

    def prepare(self, execution: ORMExecuteState, statement: Insert) -> None:
        """Flush what is pending, and read what the statement will find.

        Raises:
            BulkWriteError: What it will do cannot be found out.
        """
        parts = compatibility.written(statement)
        self._check(statement, parts, is_single=not execution.parameters)
        compatibility.autoflush(execution)
        self._updates_rows = bool(compatibility.conflict_update(parts.conflict))
        if self._updates_rows:
            self._read_existing(parts, list(self._given(parts, execution.parameters)))

    def run(self, execution: ORMExecuteState, statement: Insert) -> Result[Any]:
        """Run the statement and find out what it did.

        Raises:
            BulkWriteError: That cannot be found out; the statement has not run.
        """
        parts = compatibility.written(statement)
        parameters = execution.parameters
        more = parts.rows or parts.returning or parts.conflict is not None or parts.inline
        plain = not more and statement.select is None
        table = cast("Table", self._mapper.local_table)
        # A mapper may have another key than its table, or one where that has none (``primary_key`` in its arguments).
        if plain and not parameters and (*table.primary_key,) == self._mapper.primary_key:
            result = execution.invoke_statement()
            key = cast("CursorResult[Any]", result).inserted_primary_key
            self._take([tuple(key)] if key else [])  # none where a trigger has kept the row
            return result
        identities: list[Identity] = []
        if parts.conflict is None and not parts.returning and statement.select is None:
            identities = self._known_identities(parts, parameters)
        if not identities and self._connection.dialect.insert_returning:
            return self._run_returning(execution, statement, parts)
        if not identities:
            raise refuse(self._subject, "this database has no RETURNING, and not every row is given its primary key")
        result = execution.invoke_statement()
        self._take(identities)
        return result

    def _check(self, statement: Insert, parts: Written, *, is_single: bool) -> None:
        subject, mapper = self._subject, self._mapper
        if parts.prefixes:
            raise refuse(
                subject, "it has a prefix such as IGNORE or REPLACE, and the database does not tell its effect"
            )
        if other_tables(mapper) and (is_single or not subject.is_orm):
            raise refuse(
                subject, "it makes a part of the row only, in one of its tables: give execute() a list of rows"
            )
        if compatibility.conflict_update(parts.conflict):
            if statement.select is not None:
                raise refuse(subject, "which rows an INSERT from a SELECT will find cannot be read before it")
            if column_keys(compatibility.conflict_update(parts.conflict)) & {key.key for key in mapper.primary_key}:
                raise refuse(subject, "it sets the primary key of rows that exist")

    def _makes_keys(self, parts: Written) -> bool:
        """Whether each row's key is to be made of its parameters: SQLAlchemy cannot return such rows in their order."""
        keys = {column.key for column in (*self._mapper.primary_key, *(own_key(self._mapper) or ()))}
        made = [key for key, value in parts.values.items() if is_expression(value) and not _is_literal(value)]
        names = mapped_keys(self._mapper, self._mapper.primary_key)
        return not keys.union(names).isdisjoint(column_keys(made))

    def _beside_keys(self, *, is_asked: bool) -> list[Any]:
        """Return an attribute of each table in between, which SQLAlchemy otherwise asks for the base's key, and fails.

        Raises:
            BulkWriteError: A table has none, and the statement would not fail by itself.
        """
        ends = (self._mapper.local_table, self._mapper.base_mapper.local_table)
        found: dict[object, Any] = {}
        for mapper in self._mapper.iterate_to_root():
            table = mapper.local_table
            if table not in ends and table not in found:
                keys = mapped_keys(mapper, {*table.columns}.difference(own_key(mapper) or ()))
                if keys:
                    found[table] = getattr(self._mapper.class_, keys[0])
                elif not is_asked:
                    reason = f"SQLAlchemy cannot return keys past the table {name_of(table)!r}, which has nothing else"
                    raise refuse(self._subject, f"{reason}: give every row its own")
        return [*found.values()]

    # How its rows become known.

    def _run_returning(self, execution: ORMExecuteState, statement: Insert, parts: Written) -> Result[Any]:
        added: list[Any] = [*(own_key(self._mapper) or self._mapper.primary_key)]
        if self._subject.is_orm:
            added = [self._mapper.get_property_by_column(column).class_attribute for column in added]
        width = len(added)
        if self._connection.dialect.name == "postgresql" and self._updates_rows:
            kind = kind_of_relation(self._connection, cast("Table", self._mapper.local_table))
            if kind == VIEW:
                raise refuse(self._subject, "of a view PostgreSQL does not say which rows it has made, and which found")
            self._shows_made = kind != PARTITIONED
        if self._shows_made:
            added.append(IS_MADE)
        if self._subject.is_orm and isinstance(execution.parameters, list):
            added += self._beside_keys(is_asked=bool(parts.returning))
        many = isinstance(execution.parameters, list) and parts.conflict is None and not self._makes_keys(parts)
        extended = cast("Any", compatibility.insert_that_returns(statement, self._mapper))
        extended = extended.returning(*added, sort_by_parameter_order=parts.in_order or many)
        result = execution.invoke_statement(statement=extended)
        if not parts.returning:
            count = 0
            last: Identity = ()
            while rows := result.fetchmany(ROWS_AT_ONCE):
                count += len(rows)
                last = tuple(rows[-1][:width])
                self._take_returned([tuple(row) for row in rows], width)
            names = _key_columns(self._mapper)
            is_only = not (parts.rows or statement.select is not None or isinstance(execution.parameters, list))
            if is_only and not last:  # the criteria of an upsert have kept it from writing the row that it found
                given = next(self._given(parts, execution.parameters))
                last = tuple(map(given.get, names))
            return _Counted(count, names, last if is_only else None)
        frozen = result.freeze()
        self._take_returned([tuple(row)[-len(added) :] for row in cast("Sequence[Row[Any]]", frozen.data)], width)
        shown: Result[Any] = frozen()
        shown = shown.columns(*range(len(shown.keys()) - len(added)))
        if not self._subject.is_orm:
            cast("Any", shown).rowcount = len(frozen.data)
        return shown

    def _take_returned(self, rows: list[tuple[Any, ...]], width: int) -> None:
        if self._shows_made:
            found = any(not row[width] and row[:width] not in self._there for row in rows)
        else:
            found = self._has_found([row[:width] for row in rows if row[:width] not in self._there])
        if found:
            raise refuse(
                self._subject,
                "others have added rows with the same keys after the existing ones were read: roll back and try "
                "again. If that is not the reason",
            )
        self._take([row[:width] for row in rows])

    def _has_found(self, identities: Sequence[Identity]) -> bool:
        """Whether an upsert of a partitioned table has found one of some rows: its RETURNING cannot say that."""
        if self._connection.dialect.name != "postgresql" or not self._updates_rows:
            return False
        query = select(1).select_from(self._mapper.local_table).where(not_(IS_MADE)).limit(1)
        columns = own_key(self._mapper) or self._mapper.primary_key
        return any(
            self._connection.scalar(query.where(has_identity(columns, chunk))) is not None
            for chunk in chunks(identities)
        )

    def _known_identities(self, parts: Written, parameters: object) -> list[Identity]:
        """Return the primary keys where every row is given its own, otherwise nothing."""
        columns = _key_columns(self._mapper)
        found = [tuple(row.get(column) for column in columns) for row in self._given(parts, parameters)]
        complete = all(value is not None and not is_expression(value) for identity in found for value in identity)
        return found if complete else []

    def _take(self, identities: Iterable[Identity]) -> None:
        """Record rows that the statement has written."""
        told = self._told
        if not self._updates_rows:
            self.records += made_rows(self._connection, self._mapper, told, list(identities))
            return
        if self._subject.is_orm:  # it finds rows of subclasses that have tables of their own; it makes none
            told = {member: plan for member, plan in told.items() if member.local_table is self._mapper.local_table}
        written = [*identities]
        new = [identity for identity in written if identity not in self._there]
        made = {record.key[1]: record for record in made_rows(self._connection, self._mapper, told, new)}
        for identity in written:
            record = (self._updates if identity in self._there else made).pop(identity, None)
            if record is not None:
                self.records.append(record)
        self.records += made.values()  # whose keys the database has written otherwise

    # What an upsert will find.

    def _read_existing(self, parts: Written, rows: Sequence[Mapping[str, Any]]) -> None:
        """Read and lock the rows that will be updated instead of inserted."""
        begin_writing(self._connection, self._mapper)
        sets = assigned_names(compatibility.conflict_update(parts.conflict))
        table = cast("Table", self._mapper.local_table)
        for columns in self._conflicts(parts.conflict):
            finds_null = nulls_are_equal(table, columns)
            keys = [key for row in rows if (key := self._conflict_key(columns, row, finds_null)) is not None]
            compared: Sequence[ColumnElement[Any]] = columns
            if self._connection.dialect.name in ("mysql", "mariadb"):
                compared, keys = as_compared(table, columns, keys)
            reader = Reader(self._mapper, self._told, Kind.UPDATED, sets)
            for chunk in chunks(keys):
                found = list(reader.by_criterion(self._connection, has_key(compared, chunk)))
                reader.complete(self._session, found)
                for record in found:
                    self._updates.setdefault(record.key[1], record)
            self._there.update(reader.identities)

    def _conflicts(self, conflict: object) -> Iterator[list[Column[Any]]]:
        """Iterate over the columns of each key on which a row can conflict."""
        table = cast("Table", self._mapper.local_table)
        name, elements = compatibility.conflict_target(conflict)
        by_name = dict(unique_keys(table))
        if name is not None:
            if name not in by_name:
                raise refuse(self._subject, f"the table's definition knows no unique constraint {name!r}")
            yield by_name[name]
        elif elements:
            keys = column_keys(elements)
            if not keys <= set(table.columns.keys()):
                raise refuse(self._subject, "its conflict target is an expression")
            yield [table.columns[key] for key in sorted(keys)]
        else:
            for index in unique_expressions(table):
                raise refuse(self._subject, f"rows conflict on {index.name!r}, too, which is on an expression")
            yield from by_name.values()

    def _conflict_key(
        self,
        columns: Sequence[Column[Any]],
        row: Mapping[str, Any],
        finds_null: bool,  # noqa: FBT001 - it comes from another function
    ) -> Identity | None:
        """Return what a row has in some unique columns, ``None`` where that cannot be in the table already."""
        found: list[Any] = []
        for column in columns:
            value: Any = row.get(column.key)
            if column.key not in row:
                default: Any = column.default
                value = default.arg if default is not None and default.is_scalar else None
                is_made = value is None and (column.server_default is not None or default is not None)
                # A key that is made for the row is no other row's, but a part of one may be.
                if is_made and not (column.primary_key and len(self._mapper.primary_key) == 1):
                    raise refuse(self._subject, f"{column.name!r} is left to a default, and rows conflict on it")
            if is_expression(value):
                raise refuse(self._subject, f"{column.name!r} is given as an expression, and rows conflict on it")
            if value is None and not finds_null:
                return None
            found.append(value)
        return tuple(found)

    def _given(self, parts: Written, parameters: object) -> Iterator[dict[str, Any]]:
        """Iterate over the rows that the statement was given, by column key."""
        rows: Sequence[Any] = parts.rows
        several: Sequence[Mapping[str, Any]] = ()
        if parameters:
            several = cast("Any", parameters if isinstance(parameters, list) else [parameters])
            if self._subject.is_orm and isinstance(parameters, list):
                several = compatibility.by_column_attribute(self._mapper, cast("list[dict[str, Any]]", parameters))
        named: Mapping[str, Any] = several[0] if several and rows else {}
        columns = cast("Table", self._mapper.local_table).columns
        names = {prop.key: column_of(self._mapper, prop.key) for prop in self._mapper.column_attrs}
        for row in rows or several or [{}]:
            given: dict[str, Any] = {}
            by_column: Mapping[Any, Any] = row if isinstance(row, Mapping) else dict(zip(columns, row, strict=False))
            for key, value in (*parts.values.items(), *by_column.items()):
                column = names.get(key) if isinstance(key, str) and self._subject.is_orm else key
                name = next(iter(column_keys([key if column is None else column])))
                given[name] = plain_value(value, named or by_column)
            yield given


def _is_literal(value: object) -> bool:
    return isinstance(value, BindParameter) and cast("Any", value).unique is True


def made_rows(
    connection: Connection, mapper: Mapper[Any], told: Mapping[Mapper[Any], Plan], identities: Sequence[Identity]
) -> Iterator[RowRecord]:
    """Record new rows, each with the plan of its own class.

    Args:
        connection: The connection that has made them.
        mapper: The mapper that they were made for.
        told: The plans of those who are to be told, by mapper.
        identities: Their primary keys.
    """
    if mapper.polymorphic_on is not None:
        yield from Reader(mapper, told, Kind.CREATED).by_identity(connection, identities)
        return
    plan = told.get(mapper)
    if plan is None:  # only a subclass is heard of, and no column tells of which class a row is
        return
    identity_class = mapper.identity_key_from_primary_key((None,) * len(mapper.primary_key))[0]
    for identity in identities:
        yield RowRecord(Kind.CREATED, (identity_class, identity, None), plan)


def _key_columns(mapper: Mapper[Any]) -> list[str]:
    """Return the keys of the primary key's columns, which are not always those of the attributes."""
    return [str(column.key) for column in mapper.primary_key]
