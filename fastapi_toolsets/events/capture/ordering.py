"""The order of what one flush wrote, the same in every run although SQLAlchemy hands it over in sets."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from ..plans import plans
from ..records import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy.orm import InstanceState, Mapper

    from ..records import Writes

_Place: TypeAlias = "tuple[Writes, int]"
"""One row, and where it stands in what was written alike."""

_DELETED = Kind.DELETED
insert_order: Callable[[InstanceState[Any]], Any] = attrgetter("insert_order")
"""Returns where a new object stands among those that SQLAlchemy inserts."""
_key: Callable[[InstanceState[Any]], Any] = attrgetter("key")


def sort_by_key(states: list[InstanceState[Any]]) -> None:
    """Put objects that are updated or deleted in the order of their primary keys, then of their identity tokens."""
    try:
        # Whole identity keys have the same order, but take three times as long: they begin with a class, and a sort is
        # quick only where all keys are, or begin with, values of one builtin type. Only sharded sessions have tokens.
        _, primary_key, token = _key(states[0])
        states.sort(key=_key if token is not None else _primary_key if len(primary_key) > 1 else _primary_key_value)
    except TypeError:  # keys that have no order of their own
        states.sort(key=lambda state: repr(state.key and state.key[1]))


# The parameter has no type since whoever asks knows that there is a key.


def _primary_key(state: Any) -> Any:  # noqa: ANN401 - as above; a tuple, of whatever the key is made of
    return state.key[1]


def _primary_key_value(state: Any) -> Any:  # noqa: ANN401 - as above; whatever the key is
    return state.key[1][0]


def in_order(found: list[Writes]) -> list[Writes]:
    """Order what one flush wrote: writes before deletes, parents before children, then as SQLAlchemy writes rows.

    Args:
        found: What it wrote, the rows of each in the order of their keys or of their insertion.
    """
    if len(found) > 1:
        mappers = {writes.plan.mapper for writes in found}
        ranks = plans.ranks(mappers | {mapper.base_mapper for mapper in mappers})
        found = sorted(
            found,
            key=lambda writes: (
                writes.kind is _DELETED,
                ranks[writes.plan.mapper.base_mapper],  # one hierarchy together, since its rows may refer to each other
                ranks[writes.plan.mapper],
            ),
        )
    if any(writes.plan.self_references for writes in found):
        return [writes for _, alike in groupby(found, key=_table) for writes in _parents_first(alike)]
    return found


def _table(writes: Writes) -> tuple[Mapper[Any], bool]:
    return writes.plan.mapper.base_mapper, writes.kind is _DELETED


def _parents_first(found: Iterable[Writes]) -> Iterator[Writes]:
    """Put rows behind the rows of the same table that they refer to; otherwise keep the order."""
    places: list[_Place] = [(writes, at) for writes in found for at in range(len(writes.states))]
    references = sorted({pair for writes in {writes for writes, _ in places} for pair in writes.plan.self_references})
    loaded = [writes.states[at].dict for writes, at in places]
    by_value = {(parent, values.get(parent)): index for index, values in enumerate(loaded) for _, parent in references}

    def referred(index: int) -> Iterator[int]:
        for child, parent in references:
            value = loaded[index].get(child)
            found = by_value.get((parent, value)) if value is not None else None
            if found is not None:
                yield found

    ordered: list[_Place] = []
    entered: set[int] = set()
    for first in range(len(places)):
        if first in entered:
            continue
        entered.add(first)
        path = [(first, referred(first))]
        while path:
            current, parents = path[-1]
            parent = next((parent for parent in parents if parent not in entered), None)
            if parent is None:
                ordered.append(places[current])
                path.pop()
            else:
                entered.add(parent)
                path.append((parent, referred(parent)))
    for writes, alike in groupby(ordered, key=itemgetter(0)):
        yield writes.part(at for _, at in alike)
