"""Statements: what they write, with what, and where they conflict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import CTE, Join, UpdateBase
from sqlalchemy.engine.cursor import _NO_RESULT_METADATA
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import bulk_persistence
from sqlalchemy.sql.elements import Grouping

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sqlalchemy import Delete, Insert, Select, Update
    from sqlalchemy.engine.result import ResultMetaData
    from sqlalchemy.orm import Mapper, ORMExecuteState
    from sqlalchemy.orm.util import AliasedInsp
    from sqlalchemy.sql.base import ExecutableOption


def written_entity(statement: Insert | Update | Delete) -> Mapper[Any] | AliasedInsp[Any] | None:
    """Return the mapped entity that a statement writes, ``None`` where it was given a table.

    The annotation ``parententity`` of the statement's table. ``entity_description`` gives the same, but raises for a
    table with criteria of the ORM. Were it gone, ORM statements would be taken for statements on their tables.
    """
    return cast("Mapper[Any] | AliasedInsp[Any] | None", statement.table._annotations.get("parententity"))  # noqa: SLF001


def writes_in_cte(statement: Select[Any]) -> bool:
    """Whether a SELECT has a CTE that writes, among what it selects from or was given with ``add_cte()``.

    ``Select._raw_columns``, ``_from_obj`` and ``_independent_ctes``. Public are lists that are made anew at each call,
    and a walk through all of a statement; either takes longer than all else that is done to a SELECT here.
    """
    for column in (*statement._raw_columns, *statement._from_obj, *statement._independent_ctes):  # noqa: SLF001
        source: Any = column if isinstance(column, CTE) else getattr(column, "table", None)
        if isinstance(source, CTE) and isinstance(source.element, UpdateBase):
            return True
    return False


def populates_existing(execution: ORMExecuteState) -> bool:
    """Whether a SELECT gives objects that the session has the values of their rows, over what they show.

    ``_populate_existing`` among its load options. Of a ``Query`` and of ``Session.get`` nothing public tells it.
    """
    return execution.is_select and bool(cast("Any", execution.load_options)._populate_existing)  # noqa: SLF001


independent_ctes: Callable[[Insert | Update | Delete], Collection[CTE]] = attrgetter("_independent_ctes")
"""Returns what a statement was given with ``add_cte()``, for which there is nothing public."""


def statement_options(statement: Update | Delete) -> tuple[ExecutableOption, ...]:
    """Return what ``options()`` was given, ``with_loader_criteria`` among it (``Executable._with_options``)."""
    return statement._with_options  # noqa: SLF001


def without_mapping(query: Select[Any]) -> Select[Any]:
    """Return a SELECT that adds nothing for the mapped classes that it names (``Select._propagate_attrs``).

    They make a statement one of the ORM's, which adds the criteria of single-table inheritance, and those of
    ``with_loader_criteria``. An UPDATE or DELETE has them for its own class only, and there is nothing public to read
    what it finds. Subqueries keep theirs.
    """
    query._set_propagate_attrs({})  # noqa: SLF001
    return query


class ByItself(Grouping[Any]):
    """A criterion whose subqueries cannot refer to the tables of the statement around it, whatever they ask for.

    What they may refer to is in an entry of ``SQLCompiler.stack``. ``correlate(None)`` says it for one SELECT, not for
    those inside it. Would they change, bulk UPDATEs of joined subclasses would be told of other rows than they write.
    """

    inherit_cache: bool | None = True


@compiles(ByItself)  # type: ignore[no-untyped-call, untyped-decorator, unused-ignore]
def _compile_by_itself(criterion: ByItself, compiler: Any, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's own
    compiler.stack.append({**compiler.stack[-1], "correlate_froms": set(), "asfrom_froms": set()})
    try:
        words: str = compiler.visit_grouping(criterion, **options)
    finally:
        compiler.stack.pop()
    return words


def insert_that_returns(statement: Insert, mapper: Mapper[Any]) -> Insert:
    """Return an INSERT into the own table of a class that is loaded with its subclasses (``with_polymorphic``).

    Its ``table`` is a join then, and SQLAlchemy fails where such an INSERT has a RETURNING, on a plain session as well.
    Once it does not, this can go. The annotations say which class it is for (:func:`written_entity`).
    """
    table: Any = statement.table
    if isinstance(table, Join):
        statement = statement._generate()  # noqa: SLF001
        statement.table = cast("Any", mapper.local_table._annotate(table._annotations))  # noqa: SLF001
    return statement


NO_ROWS: ResultMetaData = _NO_RESULT_METADATA
"""With it a result says, as a cursor's does, that there are no rows to ask for; nothing public makes one that does."""


@dataclass(frozen=True, slots=True)
class Written:
    """The parts of an INSERT or UPDATE that nothing public gives.

    Attributes:
        values: What ``values()`` was given, by column or column key.
        rows: What ``values()`` was given as a list.
        conflict: The dialect's clause for rows that exist.
        prefixes: Whether it has prefixes such as ``IGNORE``.
        returning: How many columns or entities ``returning()`` was given.
        in_order: Whether ``returning()`` was told to keep the order of the parameters.
        limited: Whether it writes only some of the rows that meet its criteria.
        inline: Whether ``inline()`` says that nobody needs the keys of the row that it makes.
    """

    values: Mapping[Any, Any]
    rows: tuple[Mapping[Any, Any], ...]
    conflict: object
    prefixes: bool
    returning: int
    in_order: bool
    limited: bool
    inline: bool


def written(statement: Insert | Update | Delete) -> Written:
    """Take a statement apart: ``_values``, ``_multi_values``, ``_post_values_clause`` and their like.

    Would one be renamed, upserts or changed primary keys would go unnoticed; without ``_returning`` a result would
    show columns that nobody asked for.
    """
    parts = vars(statement)

    def part(name: str) -> Any:  # noqa: ANN401 - each has a type of its own
        return parts.get(name, getattr(type(statement), name, None))

    values: Mapping[Any, Any] = part("_values") or dict(part("_ordered_values") or ())
    rows = tuple(row for batch in part("_multi_values") or () for row in batch)
    return Written(
        values=values,
        rows=rows,
        conflict=part("_post_values_clause"),
        prefixes=bool(part("_prefixes")),
        returning=len(part("_returning") or ()),
        in_order=bool(part("_sort_by_parameter_order")),
        limited=part("_post_criteria_clause") is not None or any("limit" in name for name in statement.dialect_kwargs),
        inline=bool(part("_inline")),
    )


def by_column_attribute(mapper: Mapper[Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of a list by column attribute: some may be given as a composite, or a hybrid with ``bulk_dml``.

    ``_expand_other_attrs`` of ``orm.bulk_persistence``, called ``_expand_composites`` before 2.1; nothing public finds
    a hybrid's function. Would both be gone, rows whose keys are given so would be told as new, or not at all.
    """
    if {key for row in rows for key in row} <= set(mapper.column_attrs.keys()):
        return rows
    expand = getattr(bulk_persistence, "_expand_other_attrs", None) or getattr(
        bulk_persistence, "_expand_composites", None
    )
    expanded = [dict(row) for row in rows]
    if expand is not None:
        expand(mapper, expanded)
    return expanded


def conflict_update(conflict: object) -> Iterable[Any]:
    """Return the columns or keys that an upsert sets in rows that exist; nothing for ``DO NOTHING``.

    MySQL's clause has ``update``; the others' ``update_values_to_set`` is a list of pairs in SQLAlchemy 2.0 and a
    dictionary in 2.1.
    """
    found: Iterable[Any] = getattr(conflict, "update_values_to_set", None) or getattr(conflict, "update", None) or ()
    return [cast("tuple[Any, Any]", item)[0] if isinstance(item, tuple) else item for item in found]


def conflict_target(conflict: object) -> tuple[str | None, Iterable[Any]]:
    """Return the name of the constraint, or the columns or keys, that an upsert of PostgreSQL or SQLite names."""
    return getattr(conflict, "constraint_target", None), getattr(conflict, "inferred_target_elements", None) or ()
