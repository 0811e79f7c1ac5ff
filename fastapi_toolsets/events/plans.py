"""The plan of each mapper, and what else a flush has to know of its objects: resolved when first needed, then kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import Table, event
from sqlalchemy.orm import Mapper, RelationshipDirection
from sqlalchemy.schema import sort_tables_and_constraints  # pyright: ignore[reportUnknownVariableType] - untyped

from . import compatibility
from .plan import Plan, mapped_keys
from .registry import registry

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import ForeignKey
    from sqlalchemy.orm import RelationshipProperty


class Reach:
    """A relationship through which writing one object changes the rows of others.

    Attributes:
        key: Its name.
        orphans: Whether members that leave are deleted.
        loads_on_delete: Whether SQLAlchemy looks for the members of what is deleted.
        referred: The object's column attributes whose new values the unit of work writes to members that stay.
    """

    __slots__ = ("_remote", "key", "loads_on_delete", "orphans", "referred")

    def __init__(self, prop: RelationshipProperty[Any]) -> None:
        """Resolve which columns of the members are set, and when."""
        self.key: str = prop.key
        self.orphans: bool = prop.cascade.delete_orphan
        self.loads_on_delete: bool = not prop.passive_deletes
        follows = prop.direction is RelationshipDirection.ONETOMANY and not prop.passive_updates
        self.referred: frozenset[str] = frozenset(
            mapped_keys(prop.parent, (local for local, _ in prop.local_remote_pairs or ())) if follows else ()
        )
        self._remote = tuple(remote for _, remote in prop.local_remote_pairs or ())

    def foreign_keys(self, member: Mapper[Any]) -> tuple[str, ...]:
        """Return the member's column attributes that the unit of work sets."""
        return mapped_keys(member, self._remote)


Route: TypeAlias = "tuple[Plan | None, tuple[Reach, ...], bool, compatibility.MapperListeners]"
"""What a flush that begins has to look at in each changed object of a class.

The plan of the mapper, if somebody listens; the relationships through which the objects change rows that somebody
listens to; whether an object that has lost its parent is deleted; the mapper's own listeners.
A plain tuple, since to unpack one that has names takes several times as long.
"""


class _PlansByMapper(dict["Mapper[Any]", "Plan | None"]):
    """Resolves what is asked for the first time: a dictionary, since to look into one takes no call."""

    def __init__(self, version: object) -> None:
        super().__init__()
        self._version = version

    def __missing__(self, mapper: Mapper[Any]) -> Plan | None:
        listeners = registry.resolve(mapper.class_)
        observed = bool(registry.recorders) and registry.is_recorded(mapper.class_)
        plan = Plan(mapper, listeners, self._version, observed=observed) if listeners or observed else None
        self[mapper] = plan
        return plan


class Routes(dict["Mapper[Any]", Route]):
    """The same for what a flush that begins has to look at.

    Attributes:
        by_mapper: The plans that it was made with.
    """

    def __init__(self, by_mapper: _PlansByMapper) -> None:
        super().__init__()
        self.by_mapper: _PlansByMapper = by_mapper

    def __missing__(self, mapper: Mapper[Any]) -> Route:
        by_mapper = self.by_mapper
        plan = by_mapper[mapper]
        reach = tuple(
            Reach(prop)
            for prop in mapper.relationships
            if (
                prop.direction is RelationshipDirection.ONETOMANY
                or (prop.direction is RelationshipDirection.MANYTOONE and prop.cascade.delete_orphan)
            )
            and not prop.viewonly
            and any(by_mapper[member] is not None for member in prop.mapper.self_and_descendants)
        )
        has_orphans = compatibility.may_have_orphans(mapper)
        route = self[mapper] = (plan, reach, has_orphans, compatibility.listeners_of(mapper))
        return route


class _DeletedByDatabase(dict["Mapper[Any]", "frozenset[object]"]):
    """The tables whose rows the database deletes or changes by itself where a row of a mapper is deleted.

    Those that the unit of work sees to first, and the tables of a joined hierarchy, which share their keys, are none.
    """

    def __missing__(self, mapper: Mapper[Any]) -> frozenset[object]:
        found: set[object] = set()
        left_out = _written_by_unit_of_work(mapper)
        parents: list[Table] = [table for table in mapper.tables if isinstance(table, Table)]
        while parents:
            parent = parents.pop()
            for table in [*parent.metadata.tables.values()]:
                keys = table.foreign_keys - left_out
                if table not in found and any(_follows(key, parent) for key in keys):
                    found.add(table)
                    parents.append(table)
        tables = self[mapper] = frozenset(found)
        return tables


def _written_by_unit_of_work(mapper: Mapper[Any]) -> set[ForeignKey]:
    """Return the foreign keys to a mapper's rows that no row has any more when one of these is deleted."""
    columns = {
        column
        for prop in mapper.relationships
        if prop.direction is RelationshipDirection.ONETOMANY and not (prop.viewonly or prop.passive_deletes)
        for column in prop.remote_side
    }
    hierarchy = mapper.base_mapper.self_and_descendants
    family: list[Table] = [table for member in hierarchy for table in member.tables if isinstance(table, Table)]
    return {
        key
        for table in {column.table for column in columns}.union(family)
        for key in table.foreign_keys
        if key.parent in columns
        or (key.parent.primary_key and any(other is not table and _names(key, other) for other in family))
    }


def _follows(key: ForeignKey, parent: Table) -> bool:
    """Whether a foreign key names a table and does something about its deletions."""
    return (key.ondelete or "NO ACTION").upper() not in {"NO ACTION", "RESTRICT"} and _names(key, parent)


def _names(key: ForeignKey, table: Table) -> bool:
    """Whether a foreign key names a table; asked by name, since its metadata may lack others."""
    return key.target_fullname.rpartition(".")[0] == table.fullname


_COMBINATIONS = 1_000
"""Of how many combinations of mappers that were flushed together the order is kept: there are exponentially many."""


class Plans:
    """The plan of each mapper, made at its first flush, dropped whenever a registration or a new mapper may change it.

    Attributes:
        version: Another object as soon as somebody begins or ceases to listen or to observe; each plan knows its own.
        by_mapper: The plan of each mapper, ``None`` where nobody listens or observes.
        routes: What a flush that begins has to look at in objects of each class.
        deleted_by_database: The tables that change by themselves when a row of a mapper is deleted.
    """

    def __init__(self) -> None:
        """Begin empty and follow the registry."""
        self.clear()
        registry.subscribe(self.clear)

    def clear(self) -> None:
        """Forget everything resolved. New dictionaries, so that what is being resolved now ends in the old ones."""
        self._ranks: dict[frozenset[Mapper[Any]], dict[Mapper[Any], int]] = {}
        self.version: object = object()
        self.by_mapper: _PlansByMapper = _PlansByMapper(self.version)
        self.routes: Routes = Routes(self.by_mapper)
        self.deleted_by_database: _DeletedByDatabase = _DeletedByDatabase()

    def ranks(self, mappers: Collection[Mapper[Any]]) -> dict[Mapper[Any], int]:
        """Return where each mapper stands when tables are ordered parents first, then in order of definition."""
        key = frozenset(mappers)
        ranks = self._ranks.get(key)
        if ranks is None:
            if len(self._ranks) >= _COMBINATIONS:
                self._ranks.clear()
            ranks = self._ranks[key] = _table_ranks(mappers)
        return ranks


plans: Plans = Plans()


@event.listens_for(Mapper, "mapper_configured")
def _forget_all(mapper: Mapper[Any], class_: type) -> None:  # noqa: ARG001 - SQLAlchemy calls it so
    """Let go of classes that are made at run time and dropped: a new one may give others relationships, too."""
    plans.clear()


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
