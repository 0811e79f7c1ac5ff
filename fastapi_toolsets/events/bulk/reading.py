"""Reads and locks the rows that a bulk statement is about to write, a tuple each, streamed."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import (
    BindParameter,
    ClauseElement,
    Column,
    ColumnClause,
    Over,
    SelectBase,
    TextClause,
    delete,
    false,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.orm import LoaderCriteriaOption
from sqlalchemy.sql import visitors

from .. import compatibility
from ..capture.loading import chunks, has_identity, read_values, stored_identities
from ..capture.rows import RowRecord
from ..plan import is_expression
from ..records import Kind
from .keys import own_key
from .statements import column_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Delete, Select, Table, Update
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Mapper, Session

    from ..plan import Plan

ROWS_AT_ONCE = 1_000
"""So many rows are fetched at a time, and a statement on fewer has no cursor on the server: that takes round trips."""


def begin_writing(connection: Connection, mapper: Mapper[Any], kind: Kind = Kind.UPDATED) -> None:
    """Take the lock with which SQLite lets one connection write, before rows are read: it knows no ``FOR UPDATE``.

    Otherwise somebody else may write between the SELECT and the statement. The old values are wrong then, where the
    driver begins no transaction for a SELECT, or SQLite refuses the statement at once, for which it would have waited.
    """
    if connection.dialect.name == "sqlite":
        table = cast("Table", mapper.local_table)
        if kind is Kind.DELETED:  # a view may have a trigger for that only
            connection.execute(delete(table).where(false()))
            return
        columns: list[Any] = [*(table.primary_key.columns or mapper.primary_key)]
        columns += [column for column in table.columns if column.onupdate is not None]  # whose function is not called
        connection.execute(update(table).values({column: column for column in columns}).where(false()))


class _Layout(NamedTuple):
    """Where in a row that was read the values of one class are."""

    plan: Plan
    identity_class: type[object]
    keys: tuple[str, ...]
    values: Callable[[Sequence[Any]], tuple[Any, ...]]


class Reader:
    """Reads the rows of one statement."""

    def __init__(
        self,
        mapper: Mapper[Any],
        plans: Mapping[Mapper[Any], Plan],
        kind: Kind,
        assigned: Collection[str] | None = None,
    ) -> None:
        """Resolve what to read.

        Args:
            mapper: The mapper that the statement writes.
            plans: The plans of those who are to be told, by the mapper of the row.
            kind: What becomes of the rows.
            assigned: What an UPDATE sets: keys of attributes, keys or names of columns. ``None`` if that may be all.
        """
        self.mapper = mapper
        self._plans = plans
        self._kind = kind
        self._assigned = assigned
        self._columns: list[Any] = [*mapper.primary_key]
        self._width = len(self._columns)
        self._polymorphic = mapper.polymorphic_on is not None
        if self._polymorphic:
            self._columns.append(mapper.polymorphic_on)
        self._layouts: dict[Any, _Layout | None] = {}
        self._positions: dict[ColumnElement[Any], int] = {}
        for plan in plans.values():
            for key in self._keys(plan):
                column = column_of(plan.mapper, key)
                if column not in self._positions:
                    self._positions[column] = len(self._columns)
                    self._columns.append(column)
        later = {plan: self._keys_read_later(plan) for plan in plans.values()}
        self._later: dict[Plan, tuple[str, ...]] = {plan: keys for plan, keys in later.items() if keys}
        self._query: Any = None
        self._new_key: dict[int, int] = {}
        self._set_to: dict[int, Any] = {}
        self.identities: list[tuple[Any, ...]] = []
        """The primary keys of all rows that were read, also of those that nobody is to be told of."""

    def _keys(self, plan: Plan) -> tuple[str, ...]:
        """Return the attributes to read of a class: what an UPDATE may change, the last row of what is deleted."""
        if self._kind is Kind.UPDATED:
            keys = [key for key in plan.watched_columns if plan.follows_updates and self._may_set(plan, key)]
            return tuple(key for key in keys if self._is_in_tables(plan, key))
        if self._kind is Kind.DELETED and all(self._is_in_tables(plan, key) for key in plan.columns):
            return tuple(plan.columns)
        return ()

    def _keys_read_later(self, plan: Plan) -> tuple[str, ...]:
        """Return the attributes that another SELECT is to read: SQL expressions, and what is in other tables.

        An expression may not be selected where rows are locked, or mean something else beside the tables of the
        statement's criteria. What a window function says of a row depends on the rows that are read with it.
        """
        if self._kind is Kind.DELETED:
            return () if self._keys(plan) else tuple(plan.columns)
        if self._kind is Kind.UPDATED and plan.follows_updates:
            expressions = {key: column_of(plan.mapper, key) for key in plan.watched_columns}
            return tuple(
                key for key, column in expressions.items() if not (isinstance(column, Column) or _sees_others(column))
            )
        return ()

    def _is_in_tables(self, plan: Plan, key: str) -> bool:
        column = column_of(plan.mapper, key)
        return isinstance(column, Column) and column.table in self.mapper.tables

    def _may_set(self, plan: Plan, key: str) -> bool:
        """Whether the UPDATE sets an attribute, or the database does so by itself, as the unit of work has it.

        No other is compared: there are values of which two that are loaded from one row are not equal.
        """
        if self._assigned is None or key in plan.volatile_keys:
            return True
        columns = plan.mapper.column_attrs[key].columns
        names = {key}.union(*((column.key, getattr(column, "name", None)) for column in columns))
        return not names.isdisjoint(self._assigned)

    def sets_key(self, assigned: Mapping[int, Any], parameters: Mapping[str, Any]) -> None:
        """Read what an UPDATE is about to make of the primary key, too.

        Args:
            assigned: Values or expressions by position in the key.
            parameters: Those of the statement.
        """
        for position, value in assigned.items():
            given = plain_value(value, parameters)
            if is_expression(given):
                self._new_key[position] = len(self._columns)
                self._columns.append(given)
            else:
                self._set_to[position] = given

    def by_criteria(
        self, connection: Connection, statement: Update | Delete, parameters: Mapping[str, Any], *, is_orm: bool
    ) -> list[RowRecord]:
        """Read and lock the rows that meet a statement's criteria, those of its options and its class included."""
        query: Any = select(*self._columns)
        if is_orm:
            options = compatibility.statement_options(statement)
            # How objects are loaded is nothing to a row of columns.
            criteria = [option for option in options if isinstance(option, LoaderCriteriaOption)]
            query = query.select_from(self.mapper).options(*criteria)
        else:
            query = query.select_from(self.mapper.persist_selectable)
        if statement.whereclause is not None:
            query = query.where(self._criterion(statement.whereclause))
        self._query = query
        query = query.order_by(*self.mapper.primary_key)
        return list(self._records(self._stream(connection, self._locked(query), parameters)))

    def _criterion(self, whereclause: ColumnElement[bool]) -> ColumnElement[bool]:
        """Return the criterion that a row meets a statement's, read by themselves where they look at other tables.

        A SELECT of the ORM would add criteria for the other classes that they name, which the statement has not, and
        subqueries would refer to the tables of the row's ancestors, which the statement does not name, either. What is
        selected by the keys has the statement's own table and those that it joins, and no criteria but its own. In it a
        name that stands alone, as in ``text()``, means that table; joined with the ancestors' it may mean either.
        """
        target = self.mapper.local_table
        columns = cast("list[Column[Any]] | None", own_key(self.mapper))
        is_joined = len(self.mapper.tables) > 1 or self.mapper.with_polymorphic is not None
        reads_more = _names_others(whereclause, target) or (is_joined and _has_bare_names(whereclause))
        if columns is None or any(column.nullable for column in columns) or not reads_more:
            return whereclause
        if any(_names_others(self._columns[index], target) for index in self._new_key.values()):
            return whereclause  # a new key from another table is read along with it
        found: Any = compatibility.without_mapping(select(*columns).select_from(target).where(whereclause))
        found = found.correlate(None).order_by(*columns).with_for_update(of=target)  # locks in this order
        criterion = (columns[0] if len(columns) == 1 else tuple_(*columns)).in_(found)
        return compatibility.ByItself(criterion) if is_joined else criterion

    def by_criterion(self, connection: Connection, criterion: ColumnElement[bool]) -> Iterator[RowRecord]:
        """Read and lock the rows that meet a criterion, whatever their class."""
        query: Any = select(*self._columns).select_from(self.mapper.persist_selectable).where(criterion)
        yield from self._records(connection.execute(self._locked(query)))

    def by_identity(self, connection: Connection, identities: Iterable[tuple[Any, ...]]) -> Iterator[RowRecord]:
        """Read and lock the rows with these primary keys."""
        key = self.mapper.primary_key
        for chunk in chunks(identities):
            found = {record.key[1]: record for record in self.by_criterion(connection, has_identity(key, chunk))}
            if not found.keys() <= set(chunk):  # the database has another value for a key than it was given
                others = [identity for identity in chunk if identity not in found]
                stored = stored_identities(connection, self.mapper, others)
                found.update((identity, found[other]) for identity, other in stored.items() if other in found)
            for identity in chunk:
                if identity in found:
                    yield found[identity]

    def _locked(self, query: Select[Any]) -> Select[Any]:
        return query.with_for_update(of=self.mapper.local_table)

    def _stream(
        self, connection: Connection, query: Select[Any], parameters: Mapping[str, Any]
    ) -> Iterator[Sequence[Any]]:
        first = connection.execute(query.limit(ROWS_AT_ONCE + 1), parameters).all()
        if len(first) <= ROWS_AT_ONCE:
            yield from first
            return
        del first
        options = {} if compatibility.is_autocommit(connection) else {"yield_per": ROWS_AT_ONCE}
        yield from connection.execute(query, parameters, execution_options=options)

    def _records(self, rows: Iterable[Sequence[Any]]) -> Iterator[RowRecord]:
        width, kind = self._width, self._kind
        moves = bool(self._new_key or self._set_to)
        last: tuple[Any, ...] | None = None
        for row in rows:
            identity = tuple(row[:width])
            if identity == last:  # joined with several rows of another table
                continue
            last = identity
            self.identities.append(identity)
            layout = self._layout(row[width] if self._polymorphic else None)
            if layout is None:
                continue
            values = layout.values(row)
            key = (layout.identity_class, identity, None)
            if kind is Kind.UPDATED:
                record = RowRecord(kind, key, layout.plan, keys=layout.keys, before=values)
                if moves:
                    record.key = (layout.identity_class, self._moved(identity, row), None)
            else:
                record = RowRecord(kind, key, layout.plan, stored=values if layout.keys else None)
            yield record

    def _moved(self, identity: tuple[Any, ...], row: Sequence[Any]) -> tuple[Any, ...]:
        moved = list(identity)
        for position, value in self._set_to.items():
            moved[position] = value
        for position, index in self._new_key.items():
            moved[position] = row[index]
        return tuple(moved)

    def _layout(self, discriminator: object) -> _Layout | None:
        if discriminator in self._layouts:
            return self._layouts[discriminator]
        mapper = self.mapper.polymorphic_map.get(discriminator) if self._polymorphic else self.mapper
        plan = None if mapper is None else self._plans.get(mapper)
        layout = None
        if plan is not None and not (self._kind is Kind.UPDATED and not plan.follows_updates):
            keys = self._keys(plan)
            positions = [self._positions[column_of(plan.mapper, key)] for key in keys]
            identity_class = plan.mapper.identity_key_from_primary_key((None,) * self._width)[0]
            layout = _Layout(plan, identity_class, keys, _getter(positions))
        self._layouts[discriminator] = layout
        return layout

    def complete(self, session: Session, records: Iterable[RowRecord]) -> None:
        """Read what the SELECT that locks rows has left out."""
        missing: dict[Plan, dict[tuple[Any, ...], RowRecord]] = {}
        if self._later:
            for record in records:
                if record.plan in self._later:
                    missing.setdefault(record.plan, {})[record.origin[1]] = record
        for plan, by_identity in missing.items():
            later = self._later[plan]
            keys = (*self._keys(plan), *later)
            for identity, values in read_values(session, plan.mapper, list(by_identity), later):
                record = by_identity[identity]
                if self._kind is Kind.DELETED:
                    record.stored = values
                else:
                    record.keys, record.before = keys, record.before + values

    def passed_over(
        self, connection: Connection, only_read: ColumnElement[bool], parameters: Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        """Return the primary keys of rows that were read and that ``keys.only_read`` does not find all the same.

        Args:
            connection: Where the statement has run.
            only_read: The criterion that it had.
            parameters: Those of the statement.
        """
        query = self._query.with_only_columns(*self.mapper.primary_key, maintain_column_froms=True)
        known = set(self.identities)
        rows = connection.execute(query.where(only_read.is_not(true())), parameters)
        return [identity for row in rows if (identity := tuple(row)) in known]


def _names_others(clause: ClauseElement, target: object) -> bool:
    """Whether a clause has a subquery, or a column of another table than a statement's own."""
    for part in visitors.iterate(clause):
        if isinstance(part, SelectBase):
            return True
        table: object = getattr(cast("object", part), "table", None) if isinstance(part, ColumnClause) else None
        if table is not None and table != target:  # what the ORM has annotated is equal, and another object
            return True
    return False


def _has_bare_names(clause: ClauseElement) -> bool:
    """Whether a clause has words, or a column of no table."""
    return any(
        isinstance(part, TextClause) or (isinstance(part, ColumnClause) and cast("Any", part).table is None)
        for part in visitors.iterate(clause)
    )


def _sees_others(expression: ColumnElement[Any]) -> bool:
    return any(isinstance(part, Over) for part in visitors.iterate(expression))


def plain_value(given: object, parameters: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever the column takes
    """Return the value that a statement was given, not as a parameter but as it is; an expression stays one."""
    if not isinstance(given, BindParameter):
        return given
    parameter = cast("Any", given)
    return parameters.get(parameter.key, parameter.effective_value)


def _getter(positions: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if not positions:
        return lambda _row: ()
    if len(positions) == 1:
        position = positions[0]
        return lambda row: (row[position],)
    return itemgetter(*positions)
