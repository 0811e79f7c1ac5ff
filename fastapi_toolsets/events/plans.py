"""The plan of each mapper, and what else a flush has to know of its objects: resolved when first needed, then kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.orm import RelationshipDirection
from sqlalchemy.schema import sort_tables_and_constraints  # pyright: ignore[reportUnknownVariableType] - untyped

from . import compatibility
from .plan import Plan, mapped_keys
from .registry import registry

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Table
    from sqlalchemy.orm import Mapper, RelationshipProperty


class Reach:
    """A relationship through which writing one object changes the rows of others."""

    __slots__ = ("_remote", "key", "loads_on_delete", "orphans")

    def __init__(self, prop: RelationshipProperty[Any]) -> None:
        """Resolve which columns of the members are set, and whether members that leave are deleted."""
        self.key: str = prop.key
        self.orphans: bool = prop.cascade.delete_orphan
        self.loads_on_delete: bool = not prop.passive_deletes
        self._remote = tuple(remote for _, remote in prop.local_remote_pairs or ())

    def foreign_keys(self, member: Mapper[Any]) -> tuple[str, ...]:
        """Return the member's column attributes that the unit of work sets."""
        return mapped_keys(member, self._remote)


class Route(NamedTuple):
    """What a flush that begins has to look at in each changed object of a class.

    Attributes:
        plan: The plan of the mapper, if somebody listens.
        reach: The relationships through which the objects change rows that somebody listens to.
        has_orphans: Whether an object that has lost its parent is deleted, and somebody hears of it.
    """

    plan: Plan | None
    reach: tuple[Reach, ...]
    has_orphans: bool


class Plans:
    """The plan of each mapper, made at its first flush and dropped whenever a registration changes anything."""

    def __init__(self) -> None:
        """Begin empty and follow the registry."""
        self.by_mapper: dict[Mapper[Any], Plan | None] = {}
        self._ranks: dict[frozenset[Mapper[Any]], dict[Mapper[Any], int]] = {}
        self._routes: dict[Mapper[Any], Route] = {}
        registry.subscribe(self.clear)

    def clear(self) -> None:
        """Forget everything resolved. New dictionaries, so that what is being resolved now ends in the old ones."""
        self._ranks = {}
        self._routes = {}
        self.by_mapper = {}

    def get(self, mapper: Mapper[Any]) -> Plan | None:
        """Return the mapper's plan, ``None`` where nobody listens or observes."""
        by_mapper = self.by_mapper
        try:
            return by_mapper[mapper]
        except KeyError:
            listeners = registry.resolve(mapper.class_)
            observed = bool(registry.recorders) and registry.is_recorded(mapper.class_)
            plan = Plan(mapper, listeners, observed=observed) if listeners or observed else None
            by_mapper[mapper] = plan
            return plan

    def route(self, mapper: Mapper[Any]) -> Route:
        """Return what a flush that begins has to look at in objects of a class."""
        routes = self._routes
        route = routes.get(mapper)
        if route is not None:
            return route
        plan = self.get(mapper)
        reach = tuple(
            Reach(prop)
            for prop in mapper.relationships
            if prop.direction is RelationshipDirection.ONETOMANY
            and not prop.viewonly
            and any(self.get(member) is not None for member in prop.mapper.self_and_descendants)
        )
        has_orphans = plan is not None and compatibility.may_have_orphans(mapper)
        route = routes[mapper] = Route(plan, reach, has_orphans)
        return route

    def ranks(self, mappers: Collection[Mapper[Any]]) -> dict[Mapper[Any], int]:
        """Return where each mapper stands when tables are ordered parents first, then in order of definition."""
        key = frozenset(mappers)
        ranks = self._ranks.get(key)
        if ranks is None:
            ranks = self._ranks[key] = _table_ranks(mappers)
        return ranks


plans: Plans = Plans()


def _table_ranks(mappers: Collection[Mapper[Any]]) -> dict[Mapper[Any], int]:
    tables: dict[Table, None] = {}
    for mapper in mappers:
        for table in mapper.tables:
            metadata = getattr(table, "metadata", None)
            if metadata is not None:
                tables.update(dict.fromkeys(metadata.tables.values()))
    order: dict[object, int] = {}
    for table, _ in sort_tables_and_constraints(tables):  # type: ignore[no-untyped-call]
        if table is not None:
            order[table] = len(order)
    positions = {
        mapper: (max((order.get(table, 0) for table in mapper.tables), default=0), mapper.class_.__qualname__)
        for mapper in mappers
    }
    return {mapper: rank for rank, mapper in enumerate(sorted(mappers, key=positions.__getitem__))}
