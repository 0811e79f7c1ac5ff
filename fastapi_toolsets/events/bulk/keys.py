"""How PostgreSQL is told to write only the rows of a bulk statement that were read and locked before it."""

from __future__ import annotations

from operator import eq
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, BinaryExpression, TypeDecorator, and_, bindparam, cast, false, func, or_, select, tuple_
from sqlalchemy.sql import visitors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Dialect
    from sqlalchemy.orm import Mapper


def own_key(mapper: Mapper[Any]) -> list[ColumnElement[Any]] | None:
    """Return the columns of a mapper's own table that hold the primary key, as the joins with its ancestors say.

    A foreign key alone does not: others may point at the key as well, from rows to rows of the same table, too.

    Returns:
        The columns in the order of the key, or nothing where the joins do not say.
    """
    found: list[ColumnElement[Any]] = []
    for key in mapper.primary_key:
        alike: set[object] = {key}
        for ancestor in reversed([*mapper.iterate_to_root()]):
            for left, right in _equal_columns(ancestor.inherit_condition):
                if left in alike or right in alike:
                    alike |= {left, right}
        found += [column for column in mapper.local_table.columns if column in alike][:1]
    return found if len(found) == len(mapper.primary_key) else None


def _equal_columns(condition: ColumnElement[bool] | None) -> Iterator[tuple[object, object]]:
    if condition is not None:
        for part in visitors.iterate(condition):
            if isinstance(part, BinaryExpression) and part.operator is eq:
                yield part.left, part.right


def only_read(
    columns: Sequence[ColumnElement[Any]], identities: Sequence[tuple[Any, ...]], dialect: Dialect
) -> ColumnElement[bool]:
    """Return the criterion, for PostgreSQL, that a row is one of those that were read and locked.

    Under READ COMMITTED a statement sees what others have committed since the SELECT before it; with this it writes
    exactly what it would have written at the time of that SELECT.

    Args:
        columns: The primary key in the table that the statement writes: see :func:`own_key`.
        identities: The primary keys of the rows.
        dialect: The connection's.
    """
    fits = all(_fits_array(column, dialect) for column in columns)
    in_arrays = [identity for identity in identities if fits and None not in identity]
    others = [identity for identity in identities if not fits or None in identity]
    criteria: list[ColumnElement[bool]] = []
    if len(columns) == 1:  # to put a criterion for each of thousands of rows into words would take SQLAlchemy minutes
        plain = [value for (value,) in others if not isinstance(value, (list, tuple, type(None)))]
        if plain:
            criteria.append(columns[0].in_(plain))
            others = [identity for identity in others if isinstance(identity[0], (list, tuple, type(None)))]
    criteria += [and_(*map(eq, columns, identity)) for identity in others]  # with None that is IS NULL
    if in_arrays:
        criteria.append(_in_arrays(columns, in_arrays))
    return or_(false(), *criteria)


def _fits_array(column: ColumnElement[Any], dialect: Dialect) -> bool:
    """Whether an array can have a column's values, and each compares as it does alone.

    Not where SQL is put around each value (``bind_expression``), nor where the values are arrays themselves.
    """
    own_type = column.type.dialect_impl(dialect)
    plain_type = own_type.impl_instance if isinstance(own_type, TypeDecorator) else own_type
    around: object = own_type.bind_expression(bindparam(None, type_=column.type))
    return around is None and not isinstance(plain_type, ARRAY)


def _in_arrays(columns: Sequence[ColumnElement[Any]], identities: list[tuple[Any, ...]]) -> ColumnElement[bool]:
    """Return the criterion that columns have one of some values, of which each column's are one parameter."""
    arrays: list[Any] = []
    for position, column in enumerate(columns):
        array = ARRAY(column.type)
        values = [identity[position] for identity in identities]
        arrays.append(func.unnest(cast(bindparam(None, values, array), array)))
    return (columns[0] if len(arrays) == 1 else tuple_(*columns)).in_(select(*arrays))
