"""The order of what one flush wrote, the same in every run although SQLAlchemy hands it over in sets."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from .journal import Kind
from .plan import plans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .journal import Record
    from .plan import Plan


def in_order(found: list[tuple[Plan, list[Record]]]) -> list[Record]:
    """Order what one flush wrote: writes before deletes, parents before children, then as SQLAlchemy writes rows."""
    if len(found) == 1 and len(found[0][1]) == 1:
        return found[0][1]
    ranks = plans.ranks([plan.mapper for plan, _ in found]) if len(found) > 1 else {}
    written: list[Record] = []
    deleted: list[Record] = []
    for plan, records in sorted(found, key=lambda pair: ranks.get(pair[0].mapper, 0)):
        by_kind: dict[Kind, list[Record]] = {Kind.CREATED: [], Kind.UPDATED: [], Kind.DELETED: []}
        for record in records:
            by_kind[record.kind].append(record)
        new = sorted(by_kind[Kind.CREATED], key=_insert_order)
        written += _parents_first(plan, new + _by_key(by_kind[Kind.UPDATED]))
        deleted += _parents_first(plan, _by_key(by_kind[Kind.DELETED]))
    return written + deleted


_insert_order = attrgetter("state.insert_order")


def _by_key(records: list[Record]) -> list[Record]:
    if len(records) < 2:  # noqa: PLR2004
        return records
    try:
        return sorted(records, key=lambda record: record.key[1])
    except TypeError:  # keys that have no order of their own
        return sorted(records, key=lambda record: repr(record.key[1]))


def _parents_first(plan: Plan, records: list[Record]) -> list[Record]:
    """Put rows behind the rows of the same table that they refer to; otherwise keep the order."""
    if not plan.self_references or len(records) < 2:  # noqa: PLR2004
        return records
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
