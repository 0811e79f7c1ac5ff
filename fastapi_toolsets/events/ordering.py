"""The order of what one flush wrote, the same in every run although SQLAlchemy hands it over in sets."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from .plans import plans
from .records import Kind, Writes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .plan import Plan
    from .records import Row

Written: TypeAlias = "tuple[Plan, list[Row], list[Row], list[Row]]"
"""What a flush created, updated and deleted of one mapper's rows."""

_KindAndRow: TypeAlias = "tuple[Kind, Row]"
_CREATED, _UPDATED, _DELETED = Kind.CREATED, Kind.UPDATED, Kind.DELETED


def in_order(found: list[Written]) -> list[Writes]:
    """Order what one flush wrote: writes before deletes, parents before children, then as SQLAlchemy writes rows."""
    if len(found) > 1:
        ranks = plans.ranks([plan.mapper for plan, _, _, _ in found])
        found = sorted(found, key=lambda written: ranks[written[0].mapper])
    written: list[Writes] = []
    removed: list[Writes] = []
    for plan, created, updated, deleted in found:
        if len(created) > 1:
            created.sort(key=_insert_order)
        if len(updated) > 1:
            _sort_by_key(updated)
        if len(deleted) > 1:
            _sort_by_key(deleted)
        if plan.self_references:
            rows = [(_CREATED, row) for row in created] + [(_UPDATED, row) for row in updated]
            written += _parents_first(plan, rows)
            removed += _parents_first(plan, [(_DELETED, row) for row in deleted])
            continue
        if created:
            written.append(Writes(_CREATED, plan, created))
        if updated:
            written.append(Writes(_UPDATED, plan, updated))
        if deleted:
            removed.append(Writes(_DELETED, plan, deleted))
    return written + removed if removed else written


def _insert_order(row: Row) -> int:
    return row[0].insert_order or 0


def _sort_by_key(rows: list[Row]) -> None:
    """Sort rows by their primary keys."""
    try:
        rows.sort(key=_single_primary_key if len(_primary_key(rows[0])) == 1 else _primary_key)
    except TypeError:  # keys that have no order of their own
        rows.sort(key=lambda row: repr(_primary_key(row)))


def _single_primary_key(row: Any) -> Any:  # noqa: ANN401 - a row; its key is of whatever type the column has
    return row[2][1][0]


def _primary_key(row: Row) -> tuple[Any, ...]:
    key = row[2]
    return () if key is None else key[1]


def _parents_first(plan: Plan, rows: list[_KindAndRow]) -> Iterator[Writes]:
    """Put rows behind the rows of the same table that they refer to; otherwise keep the order."""
    by_value = {
        (parent, row[0].dict.get(parent)): index
        for index, (_, row) in enumerate(rows)
        for _, parent in plan.self_references
    }

    def referred(index: int) -> Iterator[int]:
        loaded = rows[index][1][0].dict
        for child, parent in plan.self_references:
            value = loaded.get(child)
            found = by_value.get((parent, value)) if value is not None else None
            if found is not None:
                yield found

    ordered: list[_KindAndRow] = []
    entered: set[int] = set()
    for first in range(len(rows)):
        if first in entered:
            continue
        entered.add(first)
        path = [(first, referred(first))]
        while path:
            current, parents = path[-1]
            parent = next((parent for parent in parents if parent not in entered), None)
            if parent is None:
                ordered.append(rows[current])
                path.pop()
            else:
                entered.add(parent)
                path.append((parent, referred(parent)))
    for kind, alike in groupby(ordered, key=itemgetter(0)):
        yield Writes(kind, plan, [row for _, row in alike])
