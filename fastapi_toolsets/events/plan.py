"""What to do for the rows of one mapper, resolved once: its listeners, what they hear of, and how it compares."""

from __future__ import annotations

import copy
import operator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from sqlalchemy import ClauseElement, Column, types
from sqlalchemy.orm import LoaderCallableStatus, RelationshipDirection
from sqlalchemy.orm.attributes import instance_state

from . import compatibility
from .types import ONE_VALUE_PER_STATEMENT, ModelEvent, Phase
from .watched_fields import is_of_row, mapper_composites, watched_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import ColumnProperty, CompositeProperty, InstanceState, Mapper

    from .registry import Listener

NO_VALUE = LoaderCallableStatus.NO_VALUE
ATOMS = frozenset((str, bytes, int, float, bool, Decimal, date, datetime, time, timedelta, UUID, type(None)))
"""Types whose values nothing can change and which are no SQL expressions."""

_ATOMIC_TYPES = (
    types.String,
    types.Integer,
    types.Numeric,
    types.Float,  # no Numeric any more from SQLAlchemy 2.1 on
    types.Boolean,
    types.Date,
    types.Time,
    types.DateTime,
    types.Interval,
    types.Enum,
    types.Uuid,
    types.LargeBinary,
)


def copy_value(value: object) -> object:
    """Return a copy that later changes of ``value`` cannot reach; the value itself where it cannot be copied."""
    if type(value) in ATOMS:
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - it holds a lock, a connection: a model must work with listeners as without
        return value


def is_expression(value: object) -> bool:
    """Whether a value that was assigned, or that a statement was given, is an SQL expression."""
    return isinstance(value, ClauseElement) or hasattr(value, "__clause_element__")


def _without_errors(equal: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Take values that refuse to be compared for different: a plain session may have had no reason to compare them.

    It does not know what was not loaded, nor what earlier flushes have overwritten.
    """

    def is_equal(old: object, new: object) -> bool:
        try:
            return equal(old, new)
        except Exception:  # noqa: BLE001 - a model must work with listeners as without
            return False

    return is_equal


class ColumnAttribute:
    """A mapped column: compares as its type does, copied where its values can be changed in place."""

    __slots__ = ("copies", "equal", "key")

    def __init__(self, prop: ColumnProperty[Any]) -> None:
        """Resolve the comparison and whether values need a copy."""
        column_type = prop.columns[0].type
        self.key: str = prop.key
        self.equal: Callable[[Any, Any], bool] = column_type.compare_values
        if type(column_type).compare_values is cast("Any", types.TypeEngine).compare_values:
            self.equal = operator.eq  # which is all that the method does, and takes half the time
        self.copies: bool = (
            not type(column_type).__module__.startswith("sqlalchemy.")
            or not isinstance(column_type, _ATOMIC_TYPES)
            or compatibility.has_mutable_values(prop.parent)
        )
        if self.copies:
            self.equal = _without_errors(self.equal)


class CompositeAttribute:
    """A composite: an attribute of its own, made from the values of its columns."""

    __slots__ = ("key", "make", "parts")

    def __init__(self, prop: CompositeProperty[Any]) -> None:
        """Resolve the class to make and the attributes it is made of."""
        self.key: str = prop.key
        self.make: Callable[..., object] = cast("Any", prop.composite_class)
        self.parts: tuple[str, ...] = tuple(attribute.key for attribute in prop.props)

    def value(self, parts: Mapping[str, Any]) -> object:
        """Return the composite value of these attribute values; ``None`` where they all are."""
        values = [parts.get(key) for key in self.parts]
        return None if all(value is None for value in values) else self.make(*values)


class Plan:
    """Everything that the flushes and commits of one mapper's rows need to know.

    Attributes:
        mapper: The mapper.
        version: Which of all plans this is one of (``Plans.version``).
        listeners: Who listens, in any phase, in the order of calling.
        by_phase: Who hears of each event type in each phase.
        alone: The one who hears of each event type after a commit, where it is a single callback that is told nothing
            but what was recorded, as it was recorded.
        shown: The event types that somebody hears of before or after the commit.
        follows_rollback: Whether somebody hears of what was rolled back.
        columns: Every mapped column attribute, by key.
        watched_columns: Those whose changes are recorded: the reported ones, the parts of watched composites, and all
            where a callback wants the event with its values before and after.
        reported: The keys of ``watched_columns`` that may appear in ``changes``.
        composites: The composites that may appear in ``changes``.
        relationships: The watched relationships, by key; true for a collection.
        copied_keys: Those of ``columns`` whose values can be changed in place.
        has_mutable: Whether any of their values tell it when they change in place.
        deferred: Column attributes that loading an object leaves out.
        made: Column attributes, not deferred, whose values the database makes in every INSERT that is given none.
        fetched: Both: an object that is without them has not loaded them. What else an object is without, and is not
            expired, an INSERT has left out: SQLAlchemy reads it as ``None`` without asking.
        volatile: Watched column attributes that an UPDATE sets by itself.
        volatile_keys: The same as a set.
        misread: Those that an UPDATE sets and that SQLAlchemy gets wrong when one statement updates several rows.
        follows_updates: Whether updates are recorded: somebody listens to them, or wants all values before.
        observed: Whether a recorder hears of the mapper's events, listened to or not.
        wants_event: Whether anybody wants the immutable event, with all values before and after.
        passed_by: Whether a plain session has flushed the mapper's rows, so that none of the listeners was called.
        primary_key: The keys of the attributes that make up the identity.
        key_names: The same as a set.
        self_references: Pairs of attributes by which a row refers to another row of the same table.
        foreign_keys: The column attributes that the unit of work sets for each many-to-one relationship.
        gives_keys_early: Whether SQLAlchemy may give a new object its key within the flush, where it loads what an
            INSERT has not given back.
        keeps_more: Whether a flush that begins has more to look at than the columns that were assigned.
        simple: Whether ``changes`` are what was recorded, as it was recorded.
        comparisons: How to compare the values of each of ``watched_columns``.
        compares_only: Whether comparing values with those that were there tells all that a flush has changed.
    """

    def __init__(
        self, mapper: Mapper[Any], listeners: tuple[Listener, ...], version: object = None, *, observed: bool = False
    ) -> None:
        """Resolve the plan from the mapper and the listeners of its class."""
        self.mapper = mapper
        self.version: object = version
        self.passed_by = False
        self._resolve_listeners(listeners, observed=observed)
        properties = [prop for prop in mapper.column_attrs if is_of_row(prop)]
        self._resolve_columns(properties)
        self._resolve_watched(watched_fields(mapper))
        self._resolve_updates(properties)
        self._resolve_short_ways()

    def _resolve_listeners(self, listeners: tuple[Listener, ...], *, observed: bool) -> None:
        """Find out who hears of what."""
        self.listeners: tuple[Listener, ...] = listeners
        self.observed: bool = observed
        self.by_phase: dict[Phase, dict[ModelEvent, tuple[Listener, ...]]] = {
            phase: {
                kind: tuple(listener for listener in listeners if listener.phase is phase and kind in listener.events)
                for kind in ModelEvent
            }
            for phase in Phase
        }
        self.shown: frozenset[ModelEvent] = frozenset(
            kind for kind in ModelEvent if self.tells(Phase.BEFORE_COMMIT, kind) or self.tells(Phase.AFTER_COMMIT, kind)
        )
        self.follows_rollback: bool = any(self.by_phase[Phase.AFTER_ROLLBACK].values())
        self.wants_event: bool = observed or any(listener.wants_event for listener in listeners)
        self.follows_updates: bool = self.wants_event or any(
            ModelEvent.UPDATE in listener.events for listener in listeners
        )

    def _resolve_columns(self, properties: list[ColumnProperty[Any]]) -> None:
        """Find out what the row is made of, and how objects come to know it."""
        mapper = self.mapper
        self.columns: dict[str, ColumnAttribute] = {prop.key: ColumnAttribute(prop) for prop in properties}
        self.copied_keys: frozenset[str] = frozenset(key for key, column in self.columns.items() if column.copies)
        self.has_mutable: bool = compatibility.has_mutable_values(mapper)
        self.deferred: frozenset[str] = frozenset(prop.key for prop in properties if prop.deferred)
        self.made: frozenset[str] = frozenset(
            prop.key for prop in properties if not prop.deferred and _made_by_insert(prop)
        )
        self.fetched: frozenset[str] = self.deferred | self.made
        self.primary_key: tuple[str, ...] = tuple(
            mapper.get_property_by_column(column).key for column in mapper.primary_key
        )
        self.key_names: frozenset[str] = frozenset(self.primary_key)
        self.gives_keys_early: bool = mapper.base_mapper.eager_defaults is True or (
            mapper.version_id_col is not None and mapper.version_id_generator is False
        )
        self.self_references: tuple[tuple[str, str], ...] = _self_references(mapper)

    def _resolve_watched(self, names: tuple[str, ...] | None) -> None:
        """Find out whose changes are recorded, and which of them are told."""
        composites = [CompositeAttribute(prop) for prop in mapper_composites(self.mapper)]
        watched = None if names is None else {_canonical(self.mapper, name) for name in names}
        self.reported: frozenset[str] = frozenset(self.columns if watched is None else watched & self.columns.keys())
        self.composites: tuple[CompositeAttribute, ...] = tuple(
            item for item in composites if watched is None or item.key in watched
        )
        keys = self.reported.union(*(item.parts for item in self.composites))
        self.watched_columns: dict[str, ColumnAttribute] = {
            key: column for key, column in self.columns.items() if self.wants_event or key in keys
        }
        self.relationships: dict[str, bool] = {
            prop.key: bool(prop.uselist) for prop in self.mapper.relationships if watched and prop.key in watched
        }

    def _resolve_updates(self, properties: list[ColumnProperty[Any]]) -> None:
        """Find out what an UPDATE sets that nobody has assigned."""
        mapper = self.mapper
        self.volatile: tuple[str, ...] = tuple(
            prop.key for prop in properties if prop.key in self.watched_columns and _set_by_update(prop, mapper)
        )
        self.volatile_keys: frozenset[str] = frozenset(self.volatile)
        self.misread: tuple[str, ...] = tuple(
            prop.key for prop in properties if _set_by_update(prop, mapper) and _is_misread(prop)
        )
        self.foreign_keys: dict[str, tuple[str, ...]] = {
            prop.key: mapped_keys(mapper, (local for local, _ in prop.local_remote_pairs or ()))
            for prop in mapper.relationships
            if prop.direction is RelationshipDirection.MANYTOONE and not prop.viewonly
        }
        self.keeps_more: bool = bool(self.volatile or self.foreign_keys)

    def _resolve_short_ways(self) -> None:
        """Find out which of the short ways flushes and commits can take: most can."""
        copies = any(column.copies for column in self.watched_columns.values())
        self.comparisons: dict[str, Callable[[Any, Any], bool]] = {
            key: column.equal for key, column in self.watched_columns.items()
        }
        self.compares_only: bool = not copies and not self.relationships
        self.simple: bool = (
            not self.composites
            and not self.relationships
            and not copies
            and self.reported == self.watched_columns.keys()
        )
        self.alone: dict[ModelEvent, Listener | None] = {
            kind: _plain(heard) if kind is not ModelEvent.UPDATE or self.simple else None
            for kind, heard in self.by_phase[Phase.AFTER_COMMIT].items()
        }

    def tells(self, phase: Phase, event_type: ModelEvent) -> bool:
        """Whether anybody hears of events of this type in a phase; recorders do of what was committed."""
        return bool(self.by_phase[phase][event_type]) or (self.observed and phase is Phase.AFTER_COMMIT)

    def copied(self, key: str, value: object) -> object:
        """Return a column attribute's value so that later changes of the object cannot reach it."""
        column = self.columns.get(key)
        return copy_value(value) if column is not None and column.copies else value


def _plain(listeners: tuple[Listener, ...]) -> Listener | None:
    if len(listeners) == 1 and not (listeners[0].wants_session or listeners[0].wants_event):
        return listeners[0]
    return None


def state_of(obj: object) -> InstanceState[Any]:
    """Return SQLAlchemy's state of a mapped object."""
    return instance_state(obj)


def mapped_keys(mapper: Mapper[Any], columns: Iterable[ColumnElement[Any]]) -> tuple[str, ...]:
    """Return the attributes of those of the columns that the mapper maps."""
    wanted = set(columns)
    return tuple(prop.key for prop in mapper.column_attrs if any(column in wanted for column in prop.columns))


def _canonical(mapper: Mapper[Any], name: str) -> str:
    """Return the name behind a synonym."""
    while name in mapper.synonyms:
        name = mapper.synonyms[name].name
    return name


def _set_by_update(prop: ColumnProperty[Any], mapper: Mapper[Any]) -> bool:
    """Whether an UPDATE gives the column a value that nobody assigned."""
    for column in prop.columns:
        if not isinstance(column, Column):
            return True  # an SQL expression over the row
        if column is mapper.version_id_col or column.computed is not None:
            return True
        if column.onupdate is not None or column.server_onupdate is not None:
            return True
    return False


def _made_by_insert(prop: ColumnProperty[Any]) -> bool:
    """Whether the database gives the column a value in an INSERT that has none for it."""
    for column in prop.columns:
        if not isinstance(column, Column):
            return True  # an SQL expression over the row
        if column.computed is not None or column.server_default is not None:
            return True
        if column.default is not None and column.default.is_clause_element:
            return True
    return False


def _is_misread(prop: ColumnProperty[Any]) -> bool:
    column = prop.columns[0]
    default = getattr(column, "onupdate", None)
    return default is not None and default.is_callable and ONE_VALUE_PER_STATEMENT not in column.info


def _self_references(mapper: Mapper[Any]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of attributes by which rows of the table refer to rows of the same table."""
    pairs: list[tuple[str, str]] = []
    for table in mapper.tables:
        for key in getattr(table, "foreign_keys", ()):
            child, parent = key.parent, key.column
            if parent.table in mapper.tables and child is not parent and not child.primary_key:
                pairs += zip(mapped_keys(mapper, [child]), mapped_keys(mapper, [parent]), strict=False)
    return tuple(sorted(pairs))
