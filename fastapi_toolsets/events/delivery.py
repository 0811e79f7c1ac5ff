"""An event on its way: what each callback is told, made when it is due."""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from .journal import Batch, Kind, Members, Record
from .loading import populate
from .plan import NO_VALUE, copy_value, plans
from .registry import Listener, callback_name, everything_muted, registry
from .types import CallbackFailure, Event, ModelEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .journal import Frame
    from .types import Changes

logger: logging.Logger = logging.getLogger("fastapi_toolsets.events")

EVENT_TYPES = {
    Kind.CREATED: ModelEvent.CREATE,
    Kind.UPDATED: ModelEvent.UPDATE,
    Kind.DELETED: ModelEvent.DELETE,
}


class Hook:
    """A callback that ``session.on_commit`` was given, with its arguments."""

    __slots__ = ("arguments", "batch", "listeners")

    def __init__(self, batch: Batch, callback: Callable[..., object], arguments: tuple[object, ...]) -> None:
        """Make it look like an event with one listener."""
        self.batch: Batch = batch
        self.arguments: tuple[object, ...] = arguments
        self.listeners: tuple[Listener, ...] = (Listener(callback, frozenset(), frozenset()),)


Delivery: TypeAlias = Record | Hook


def deliveries(batch: Batch, frame: Frame) -> list[Delivery]:
    """Return the net events of a committed transaction in the order of their rows, then its ``on_commit`` hooks."""
    told: list[tuple[int, Record]] = []
    for record in (*frame.gone, *frame.rows.values()):
        kind = record.kind
        if kind is Kind.UPDATED and not _has_changes(record):
            continue
        if record.plan.tells(EVENT_TYPES[kind]):
            told.append((record.position, record))
    told.sort(key=_position)
    found: list[Delivery] = []
    position = 0
    for _, record in told:
        record.position, record.batch = position, batch
        position += bool(record.plan.listeners[EVENT_TYPES[record.kind]])  # what is only observed has no place
        found.append(record)
    found += [Hook(batch, callback, arguments) for callback, arguments in frame.on_commit]
    return found


def _has_changes(record: Record) -> bool:
    """Whether a callback would find anything in ``changes``."""
    plan = record.plan
    return bool(record.changes) and (plan.simple or bool(make_changes(record)))


def _position(entry: tuple[int, Record]) -> int:
    return entry[0]


def listeners_of(delivery: Delivery) -> tuple[Listener, ...]:
    """Return who is to be called now, in order; what was removed or registered meanwhile counts."""
    if isinstance(delivery, Hook):
        return delivery.listeners
    plan = delivery.plan
    if plans.by_mapper.get(plan.mapper) is not plan:
        current = plans.get(plan.mapper)
        if current is None:
            return ()
        plan = current
    return plan.listeners[EVENT_TYPES[delivery.kind]]


def make_changes(record: Record) -> Changes:
    """Return ``changes`` as one callback gets them: nobody else's, so that editing them changes nothing."""
    plan = record.plan
    if plan.simple:
        return {key: {"old": old, "new": new} for key, old, new in record.changes}
    changes: Changes = {}
    for key, old, new in record.changes:
        if isinstance(new, Members):
            changes[key] = {"old": list(new.removed), "new": list(new.added)}
        elif key in plan.relationships:
            changes[key] = {"old": old, "new": new}
        elif key in plan.reported:
            copies = plan.columns[key].copies
            changes[key] = {"old": copy_value(old), "new": copy_value(new)} if copies else {"old": old, "new": new}
    for composite in plan.composites:
        if any(key in composite.parts for key, _, _ in record.changes):
            try:
                before, after = composite.value(_values_before(record)), composite.value(_values(record))
                if before != after:
                    changes[composite.key] = {"old": before, "new": after}
            except Exception as error:  # noqa: BLE001 - the class refuses what the row holds: its columns are told
                name = f"{plan.mapper.class_.__qualname__}.{composite.key}"
                logger.warning("The composite %s cannot be made: %s; left out", name, type(error).__name__)
    return changes


def make_event(record: Record) -> Event:
    """Return the immutable event."""
    event_type = EVENT_TYPES[record.kind]
    changes = make_changes(record) if event_type is ModelEvent.UPDATE else None
    return Event(
        model=record.plan.mapper.class_,
        identity=tuple(record.key[1]),
        type=event_type,
        changes=None
        if changes is None
        else MappingProxyType({key: MappingProxyType(dict(change)) for key, change in changes.items()}),
        before=None if event_type is ModelEvent.CREATE else MappingProxyType(_values_before(record)),
        after=None if event_type is ModelEvent.DELETE else MappingProxyType(_values(record)),
        transaction_id=record.batch.identifier,
        position=record.position,
    )


def observe(delivery: Delivery) -> None:
    """Let observers take note of an event that is about to be told, unless the context has muted everything."""
    if isinstance(delivery, Hook) or everything_muted():
        return
    model = delivery.plan.mapper.class_
    observers = [observer for observer in registry.observers if observer.follows(model)]
    if observers:
        event = make_event(delivery)
        for observer in observers:
            observer.note(event)


def _values(record: Record) -> dict[str, Any]:
    """Return the row's values as committed; those that it had last for a deleted row."""
    loaded = record.state.dict if record.snapshot is None else record.snapshot
    values = {key: copy_value(loaded.get(key)) for key in record.plan.columns}
    if record.kind is Kind.UPDATED:
        values.update((key, copy_value(new)) for key, _, new in record.changes if key in values)
    return values


def _values_before(record: Record) -> dict[str, Any]:
    values = _values(record)
    for key, old, _ in record.changes:
        if key in values:
            values[key] = None if old is NO_VALUE else copy_value(old)
    return values


def take_snapshot(record: Record) -> None:
    """Keep the object's column values, since a callback is about to use the session."""
    if record.snapshot is None:
        loaded = record.state.dict
        record.snapshot = {key: loaded[key] for key in record.plan.columns if key in loaded}


def restore(record: Record) -> None:
    """Give an object back what its snapshot has: another callback's rollback may have expired it since."""
    snapshot, state = record.snapshot, record.state
    if snapshot is None:
        return
    if record.kind is Kind.DELETED:
        if state.committed_state or state.expired_attributes:  # assigned to, or expired by a cascade, since its DELETE
            _show_last_row(record, snapshot)
        return
    loaded = state.dict
    missing = {key: value for key, value in snapshot.items() if key not in loaded}
    if missing:
        populate(state, missing)


def _show_last_row(record: Record, snapshot: dict[str, Any]) -> None:
    for key in record.plan.columns:
        if key in snapshot:
            record.state.dict[key] = snapshot[key]
            record.state.expired_attributes.discard(key)


def describe(delivery: Delivery, listener: Listener, error: BaseException) -> CallbackFailure:
    """Describe that a callback raised."""
    if isinstance(delivery, Hook):
        return CallbackFailure(callback=callback_name(listener.callback), model=None, event_type=None, error=error)
    model = delivery.plan.mapper.class_.__qualname__
    return CallbackFailure(callback=listener.name, model=model, event_type=EVENT_TYPES[delivery.kind], error=error)


def names_of(items: Iterable[tuple[Delivery, Listener]]) -> str:
    """Name each callback with what it is called for, without any field value, and how often."""
    counted: dict[str, int] = {}
    for delivery, listener in items:
        name = str(describe(delivery, listener, RuntimeError()))
        counted[name] = counted.get(name, 0) + 1
    return ", ".join(name if count == 1 else f"{name} (x{count})" for name, count in counted.items()) or "nobody"
