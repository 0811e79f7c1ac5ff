"""The order of what one flush wrote, the same in every run although SQLAlchemy hands it over in sets."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

from .plan import plans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .journal import Record
    from .plan import Plan

Written: TypeAlias = "tuple[Plan, list[Record], list[Record], list[Record]]"
"""What a flush created, updated and deleted of one mapper's rows."""


def in_order(found: list[Written]) -> list[Record]:
    """Order what one flush wrote: writes before deletes, parents before children, then as SQLAlchemy writes rows."""
    if len(found) == 1:
        _, created, updated, deleted = found[0]
        if len(created) + len(updated) + len(deleted) == 1:
            return created or updated or deleted
    else:
        ranks = plans.ranks([plan.mapper for plan, _, _, _ in found])
        found = sorted(found, key=lambda written: ranks[written[0].mapper])
    written: list[Record] = []
    removed: list[Record] = []
    for plan, created, updated, deleted in found:
        if len(created) > 1:
            created.sort(key=_insert_order)
        rows = created + _by_key(updated) if updated else created
        written += _parents_first(plan, rows) if plan.self_references else rows
        if deleted:
            rows = _by_key(deleted)
            removed += _parents_first(plan, rows) if plan.self_references else rows
    return written + removed if removed else written


_insert_order = attrgetter("state.insert_order")


def _by_key(records: list[Record]) -> list[Record]:
    if len(records) < 2:  # noqa: PLR2004
        return records
    try:
        if len(records[0].plan.primary_key) == 1:
            return sorted(records, key=lambda record: record.key[1][0])
        return sorted(records, key=lambda record: record.key[1])
    except TypeError:  # keys that have no order of their own
        return sorted(records, key=lambda record: repr(record.key[1]))


def _parents_first(plan: Plan, records: list[Record]) -> list[Record]:
    """Put rows behind the rows of the same table that they refer to; otherwise keep the order."""
    by_value = {
        (parent, record.state.dict.get(parent)): record for record in records for _, parent in plan.self_references
    }

    def referred(record: Record) -> Iterator[Record]:
        for child, parent in plan.self_references:
            value = record.state.dict.get(child)
            found = by_value.get((parent, value)) if value is not None else None
            if found is not None:
                yield found

    ordered: list[Record] = []
    entered: set[Record] = set()
    for record in records:
        if record in entered:
            continue
        entered.add(record)
        path = [(record, referred(record))]
        while path:
            current, parents = path[-1]
            parent = next((parent for parent in parents if parent not in entered), None)
            if parent is None:
                ordered.append(current)
                path.pop()
            else:
                entered.add(parent)
                path.append((parent, referred(parent)))
    return ordered
