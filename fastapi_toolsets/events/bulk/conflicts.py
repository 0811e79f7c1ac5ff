"""On which keys of a table the rows of an upsert can conflict, and whether PostgreSQL can say what it has found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Column, Index, UnaryExpression, UniqueConstraint, and_, func, literal_column, or_, text

from ..capture.loading import has_identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.engine import Connection

IS_MADE: ColumnElement[bool] = literal_column("(xmax = 0)")
"""Whether PostgreSQL has made a row that an upsert has written, and not found it."""


PARTITIONED, VIEW = "p", "v"
"""What PostgreSQL keeps in partitions, where an INSERT returns no system columns, and what has none at all."""


def kind_of_relation(connection: Connection, table: Table) -> str | None:
    """Return PostgreSQL's letter for what a table is."""
    schemas: Mapping[Any, Any] = connection.get_execution_options().get("schema_translate_map") or {}
    names = (schemas.get(table.schema, table.schema), table.name)
    quoted = ".".join(connection.dialect.identifier_preparer.quote(name) for name in names if name)
    kind = text("SELECT CAST(relkind AS TEXT) FROM pg_catalog.pg_class WHERE oid = to_regclass(:name)")
    return cast("str | None", connection.scalar(kind, {"name": quoted}))


def unique_keys(table: Table) -> Iterator[tuple[Any, list[Column[Any]]]]:
    """Iterate over the names and columns of a table's unique keys; what has none is called as PostgreSQL calls it."""
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint) or constraint is table.primary_key:
            columns: list[Column[Any]] = list(getattr(constraint, "columns", ()))
            parts = ["pkey"] if constraint is table.primary_key else [*(column.name for column in columns), "key"]
            yield constraint.name or "_".join([table.name, *parts]), columns
    for index in table.indexes:
        if index.unique and index.columns:
            yield index.name or index, list(index.columns)


def unique_expressions(table: Table) -> list[Index]:
    """Return the unique indexes of a table that are not only on columns."""
    return [index for index in table.indexes if index.unique and not all(map(_is_column, index.expressions))]


def _is_column(part: Any) -> bool:  # noqa: ANN401 - SQLAlchemy says no types of an index's parts
    """Whether an index is on a column there: ``desc()`` and its like do not change which rows conflict."""
    if isinstance(part, UnaryExpression) and part.modifier is not None:
        return _is_column(part.element)
    return isinstance(part, Column)


def as_compared(
    table: Table, columns: Sequence[Column[Any]], keys: Sequence[tuple[Any, ...]]
) -> tuple[Sequence[ColumnElement[Any]], list[tuple[Any, ...]]]:
    """Return unique columns and the keys of rows as MariaDB compares them: an index may have only a part of a text."""
    for index in table.indexes:
        lengths: Any = index.dialect_kwargs.get("mysql_length") or index.dialect_kwargs.get("mariadb_length")
        if index.unique and lengths and [*index.columns] == [*columns]:
            cuts = [lengths if isinstance(lengths, int) else lengths.get(column.name) for column in columns]
            parts = [func.left(column, cut) if cut else column for column, cut in zip(columns, cuts, strict=True)]
            return parts, [tuple(map(_beginning, key, cuts)) for key in keys]
    return columns, [*keys]


def _beginning(value: object, length: int | None) -> object:
    return value[:length] if isinstance(value, (str, bytes)) else value


def nulls_are_equal(table: Table, columns: Sequence[Column[Any]]) -> bool:
    """Whether rows conflict that have NULL in the same unique column (PostgreSQL's ``NULLS NOT DISTINCT``)."""
    keys = (item for item in (*table.constraints, *table.indexes) if isinstance(item, (UniqueConstraint, Index)))
    return any(key.dialect_kwargs.get("postgresql_nulls_not_distinct") and {*columns} == {*key.columns} for key in keys)


def has_key(columns: Sequence[ColumnElement[Any]], keys: Sequence[tuple[Any, ...]]) -> ColumnElement[bool]:
    """Return the criterion that a row has one of some unique keys, of which parts may be NULL."""
    whole = [key for key in keys if None not in key]
    criteria = [
        and_(*(column.is_not_distinct_from(value) for column, value in zip(columns, key, strict=True)))
        for key in keys
        if None in key
    ]
    if whole:
        criteria.append(has_identity(columns, whole))
    return or_(*criteria)
