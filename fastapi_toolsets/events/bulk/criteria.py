"""Which UPDATEs and DELETEs by criteria cannot be told: those whose rows no SELECT can find beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import ClauseElement, Column, Update, select
from sqlalchemy.sql import visitors
from sqlalchemy.sql.functions import FunctionElement, next_value

from .. import compatibility
from .statements import inner_writes, name_of, other_tables, plain_column, refuse, subject_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Delete
    from sqlalchemy.orm import Mapper

    from .statements import Subject

_UNSTABLE = frozenset(
    (
        "clock_timestamp", "gen_random_uuid", "last_insert_id", "newid", "nextval", "rand", "random", "random_normal",
        "randomblob", "sys_guid", "timeofday", "uuid", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4",
        "uuid_short", "uuidv4", "uuidv7",
    )
)  # fmt: skip
"""Functions that give another value each time. What is read before a statement is not what the statement finds then."""


def _unstable_function(clause: object) -> str | None:
    """Return the name of a function in a clause that gives another value each time, if there is one."""
    if isinstance(clause, ClauseElement):
        for part in visitors.iterate(clause):
            if isinstance(part, next_value):
                return "nextval"
            if isinstance(part, FunctionElement):
                name: object = getattr(cast("object", part), "name", None)
                if isinstance(name, str) and name.lower() in _UNSTABLE:
                    return name
    return None


def check_criteria(subject: Subject, mapper: Mapper[Any], statement: Update | Delete, parameters: object) -> None:
    """Refuse an UPDATE or DELETE by criteria whose rows no SELECT can find beforehand.

    Raises:
        BulkWriteError: It is one.
    """
    parts = compatibility.written(statement)
    local = mapper.local_table
    if isinstance(parameters, list):
        raise refuse(subject, "it runs once for each of a list of parameters: use the ORM's update by primary key")
    if parts.prefixes:
        raise refuse(subject, "it has a prefix such as IGNORE or REPLACE, and the database does not tell its effect")
    if parts.limited:
        raise refuse(subject, "it has a LIMIT, and which rows it takes only the database knows")
    others = other_tables(mapper)
    if not isinstance(statement, Update) and others:
        reason = f"it takes rows from the table {name_of(local)!r} only and leaves their other part"
        raise refuse(subject, f"{reason} in {name_of(others[-1])!r}: write it for the base class")
    for key in parts.values:
        table = getattr(plain_column(key), "table", local)
        if table is not local:
            raise refuse(subject, f"it sets a column of another table, {name_of(table)!r}")
    _check_whereclause(subject, mapper, statement)


def _check_whereclause(subject: Subject, mapper: Mapper[Any], statement: Update | Delete) -> None:
    if next(inner_writes(statement), None) is not None:
        raise refuse(subject, "there is a statement inside it that writes, and to read its rows would run that, too")
    unstable = _unstable_function(statement.whereclause)
    if unstable is not None:
        raise refuse(subject, f"its criteria call {unstable}(), and find other rows each time")
    others = other_tables(mapper)
    if others and subject.is_orm and mapper.single:
        reason = (
            f"SQLAlchemy tells its rows by a column of another table, {name_of(others[0])!r}, and does not join them"
        )
        raise refuse(subject, f"{reason}: it would write those of other classes, too")
    if statement.whereclause is not None:
        for found in select(1).where(statement.whereclause).get_final_froms():
            if found in others:
                raise refuse(subject, f"its criteria name {name_of(found)!r}, another table of the same rows")


def assigned(mapper: Mapper[Any], statement: Update, parameters: Mapping[str, Any]) -> dict[int, Any]:
    """Return what an UPDATE sets the primary key to: values or expressions, by position in the key.

    Raises:
        BulkWriteError: It is what nobody can know before.
    """
    values: dict[str, Any] = {}
    for key, value in (*compatibility.written(statement).values.items(), *parameters.items()):
        column = plain_column(key)
        values[column.key if isinstance(column, Column) else str(key)] = value
    found: dict[int, Any] = {}
    for position, column in enumerate(mapper.primary_key):
        for name in (column.key, mapper.get_property_by_column(column).key):
            if name in values:
                unstable = _unstable_function(values[name])
                if unstable is not None:
                    reason = f"it gives rows a primary key that {unstable}() makes, another one each time"
                    raise refuse(subject_of(statement), reason)
                found[position] = values[name]
        onupdate = cast("Any", column).onupdate
        if position not in found and onupdate is not None and column.table is mapper.local_table:
            if not (onupdate.is_scalar or onupdate.is_clause_element) or _unstable_function(onupdate.arg):
                raise refuse(subject_of(statement), _MAKES_KEY)
            found[position] = onupdate.arg
    return found


_MAKES_KEY = "the onupdate of a primary key gives its rows another one, which is not known before"


def check_key_stays(subject: Subject, mapper: Mapper[Any]) -> None:
    """Refuse an update of rows by primary key that changes the key by itself: of each row only if there is else to set.

    Raises:
        BulkWriteError: It does.
    """
    if any(cast("Any", column).onupdate is not None for column in mapper.primary_key):
        raise refuse(subject, _MAKES_KEY)
