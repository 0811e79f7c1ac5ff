"""Who hears of the rows that a bulk statement may write: resolved once for each table and mapper, then kept."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Table, event, inspect
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.exc import UnmappedClassError

from . import compatibility
from .plans import plans
from .registry import registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_heard_among: dict[tuple[Mapper[Any], bool], tuple[Mapper[Any], ...]] = {}
"""Whose rows are heard of among a mapper's, by the mapper and whether only those of its own table count."""


def heard_among(mapper: Mapper[Any], *, only_own_table: bool) -> tuple[Mapper[Any], ...]:
    """Return the mappers with listeners, or recorded ones, whose rows are among a mapper's own.

    Args:
        mapper: The mapper.
        only_own_table: Whether only those count that have their rows in its table.
    """
    heard = _heard_among.get((mapper, only_own_table))
    if heard is None:
        concerned = _rows_of(mapper)
        if only_own_table:
            concerned = (member for member in concerned if member.local_table is mapper.local_table)
        heard = tuple(member for member in concerned if plans.by_mapper[member] is not None)
        _heard_among[mapper, only_own_table] = heard
    return heard


def _rows_of(mapper: Mapper[Any]) -> Iterator[Mapper[Any]]:
    """Iterate over the mappers whose rows are among the mapper's own: a concrete subclass has a table of its own."""
    concerned = {mapper}
    yield mapper
    for member in mapper.self_and_descendants:  # each behind the one that it inherits from
        if member.inherits in concerned and not member.concrete:
            concerned.add(member)
            yield member


def is_unheard(tables: Iterable[object]) -> bool:
    """Whether nobody hears of rows in tables, nor of rows of which a part is in one of them."""
    return not any(_is_heard(table) for table in tables)


def _is_heard(target: object) -> bool:
    """Whether somebody hears of rows in a table; of anything else nobody knows."""
    table = cast("Table | None", target if isinstance(target, Table) else None)
    return table is None or bool(listening_to(table))


def _mapper_of(class_: type) -> Mapper[Any] | None:
    with suppress(UnmappedClassError):  # its mapping waits for all subclasses, as it may
        return cast("Mapper[Any] | None", inspect(class_, raiseerr=False))
    return None


_by_table: WeakKeyDictionary[Table, tuple[Mapper[Any], ...]] = WeakKeyDictionary()


def listening_to(table: Table) -> tuple[Mapper[Any], ...]:
    """Return the mappers with listeners, or recorded ones, that have rows in a table."""
    known = _by_table.get(table)
    if known is None:
        classes = dict.fromkeys(registry.targets())
        if registry.recorders:
            mapped = (mapper.class_ for mapper in compatibility.all_mappers())
            classes.update(dict.fromkeys(class_ for class_ in mapped if registry.is_recorded(class_)))
        waiting = list(classes)
        while waiting:
            derived: list[type] = type.__subclasses__(waiting.pop())
            subclasses = [subclass for subclass in derived if subclass not in classes]
            classes.update(dict.fromkeys(subclasses))
            waiting += subclasses
        mappers = map(_mapper_of, classes)
        known = tuple(mapper for mapper in mappers if isinstance(mapper, Mapper) and table in mapper.tables)
        _by_table[table] = known
    return known


_roots: WeakKeyDictionary[Table, tuple[Mapper[Any], ...]] = WeakKeyDictionary()


def roots_of(table: Table, members: tuple[Mapper[Any], ...]) -> tuple[Mapper[Any], ...]:
    """Return, for the mappers that have rows in a table, the topmost of their hierarchies that has it as its own."""
    known = _roots.get(table)
    if known is None:
        roots: dict[Mapper[Any], None] = {}
        for member in members:
            own = [ancestor for ancestor in member.iterate_to_root() if ancestor.local_table is table]
            if own:
                roots[own[-1]] = None
        known = _roots[table] = tuple(roots)
    return known


def _forget() -> None:
    """Forget everything resolved: somebody begins or ceases to listen, or a new mapper has a known table."""
    _by_table.clear()
    _roots.clear()
    _heard_among.clear()


registry.subscribe(_forget)

_secondary: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def is_secondary(table: object) -> bool:
    """Whether a relationship keeps its rows in a table, which the unit of work writes for it."""
    known = _secondary.get(table)
    if known is None:
        known = _secondary[table] = any(
            relationship.secondary is table
            for mapper in compatibility.all_mappers()
            if mapper.configured  # no other has been flushed, and to ask one would configure it, or fail to
            for relationship in mapper.relationships
        )
    return known


@event.listens_for(Mapper, "mapper_configured")
def _forget_all(mapper: Mapper[Any], class_: type) -> None:  # noqa: ARG001 - SQLAlchemy calls it so
    """Forget everything, since a new mapper may have a known table."""
    _forget()
    _secondary.clear()
