"""An event on its way: what each callback is told, made when it is due."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from itertools import groupby
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from ..capture.loading import detached_copy
from ..capture.rows import RowRecord
from ..crossing.failures import log_fields
from ..logs import logger
from ..muting import are_all_muted
from ..plan import NO_VALUE, copy_value, state_of
from ..plans import plans
from ..records import EVENT_TYPES, Batch, Kind, Members, Record, Writes
from ..registry import Listener, registry
from ..types import CallbackFailure, Event, ModelEvent, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..journal import Frame
    from ..plan import CompositeAttribute, Plan
    from ..types import Changes


generation: ContextVar[int] = ContextVar("fastapi_toolsets_generation", default=0)
"""The generation that a commit made here would have: 0, or one more than that of the callback that is running.

A context variable, since callbacks may commit through other sessions, on other threads and loops.
"""


# Looking a member up in its enumeration takes longer than comparing with it.
_CREATED, _UPDATED = Kind.CREATED, Kind.UPDATED
_AFTER_COMMIT, _AFTER_ROLLBACK = Phase.AFTER_COMMIT, Phase.AFTER_ROLLBACK


class Hook:
    """A callback that ``session.on_commit`` was given, with its arguments."""

    __slots__ = ("arguments", "batch", "listeners")

    def __init__(self, batch: Batch, callback: Callable[..., object], arguments: tuple[object, ...]) -> None:
        """Make it look like an event with one listener."""
        self.batch: Batch = batch
        self.arguments: tuple[object, ...] = arguments
        self.listeners: tuple[Listener, ...] = (Listener(callback, frozenset(), frozenset()),)


Delivery: TypeAlias = Record | Writes | Hook
"""What waits to be told: the event of a row, or a flush's events of many rows as long as nothing tells them apart."""

Call: TypeAlias = tuple[Writes, Listener, ModelEvent]
"""What one flush did in one way to rows of one mapper, the only one who hears of it, and as what."""


def deliveries(batch: Batch, frame: Frame) -> list[Delivery]:
    """Return a transaction's net events in the order of their rows, and after a commit its ``on_commit`` hooks."""
    if batch.phase is not _AFTER_COMMIT:
        return [*_told(batch, frame)]
    found: list[Delivery] = []
    if registry.recorders:  # which take note of each row
        found += _told(batch, frame)
    elif (written := _as_written(batch, frame.writes)) is not None:
        found += written
    else:
        found += _folded(batch, _told(batch, frame))
    found += [Hook(batch, callback, arguments) for callback, arguments in frame.on_commit]
    return found


def _as_written(batch: Batch, written: list[Writes]) -> list[Writes] | None:
    """Return what a frame's only flush wrote, as it was written; ``None`` where that does not say what to tell."""
    found: list[Writes] = []
    for writes in written:
        if writes.kind is _UPDATED and not writes.plan.simple:
            return None
        if writes.states and writes.plan.tells(_AFTER_COMMIT, EVENT_TYPES[writes.kind]):
            writes.batch = batch
            found.append(writes)
    return found if written else None


def _folded(batch: Batch, records: Iterable[Record]) -> Iterator[Delivery]:
    """Put together what follows each other and is told alike, as a flush would have written it."""
    for (plan, kind, folds), alike in groupby(records, key=_likeness):
        if not folds:
            yield from alike
            continue
        several = list(alike)
        writes = Writes(kind, plan, [record.state for record in several], [record.obj for record in several])
        writes.origins = [record.origin for record in several]
        writes.keys = [record.key for record in several]
        if kind is not _CREATED:  # a row that was updated, then deleted, tells what it was before both
            writes.set_changes(record.changes for record in several)
        writes.position = several[0].position
        writes.batch = batch
        yield writes


def _likeness(record: Record) -> tuple[Plan, Kind, bool]:
    """Say what rows must have in common to be told together, and whether there is nothing special about this one."""
    plan, kind = record.plan, record.kind
    folds = type(record) is Record and record.snapshot is None and (kind is not _UPDATED or plan.simple)
    return plan, kind, folds


def unfolded(found: Iterable[Delivery]) -> list[Record | Hook]:
    """Return the deliveries with a record for each row."""
    items: list[Record | Hook] = []
    for item in found:
        if isinstance(item, Writes):
            items += item.told_records()
        else:
            items.append(item)
    return items


def _told(batch: Batch, frame: Frame) -> list[Record]:
    """Return the records of a frame that are told in a phase, in the order of their rows."""
    phase = batch.phase
    told: list[Record] = []
    plan: Any = None
    kind: Any = None
    is_heard = False
    for record in (*frame.gone.values(), *frame.rows.values()):
        if record.plan is not plan or record.kind is not kind:  # looked up once where many alike follow each other
            plan, kind = record.plan, record.kind
            is_heard = plan.tells(phase, EVENT_TYPES[kind])
        # A callback for an UPDATE shall find something in its changes.
        if is_heard and (kind is not _UPDATED or (record.changes and (plan.simple or make_changes(record)))):
            record.batch = batch
            told.append(record)
    if len(told) > 1:
        told.sort(key=_position)
    if phase is _AFTER_ROLLBACK:
        for record in told:
            _show_copy(record)
    return told


_position = attrgetter("position")


def _show_copy(record: Record) -> None:
    """Tell of a copy of the row that would have been: the object itself shows what it was before, or nothing."""
    if isinstance(record, RowRecord):
        record.attach(None)
        return
    record.obj = detached_copy(record.plan, record.row)
    record.state = state_of(record.obj)


def listeners_of(delivery: Delivery) -> tuple[Listener, ...]:
    """Return who is to be called now, in order; what was removed or registered meanwhile counts."""
    if isinstance(delivery, Hook):
        return delivery.listeners
    plan = delivery.plan
    if plan.version is not plans.version:
        if is_only_recorded(delivery):
            return ()
        current = plans.by_mapper[plan.mapper]
        if current is None:
            return ()
        plan = current
    return plan.by_phase[delivery.batch.phase][EVENT_TYPES[delivery.kind]]


def is_only_recorded(delivery: Delivery) -> bool:
    """Whether nobody listened when the row was written: no callback is called for it, and it takes no place."""
    if isinstance(delivery, Hook):
        return False
    return not delivery.plan.by_phase[delivery.batch.phase][EVENT_TYPES[delivery.kind]]


def make_changes(record: Record) -> Changes:
    """Return ``changes`` as one callback gets them: nobody else's, so that editing them changes nothing."""
    plan = record.plan
    if plan.simple:
        return {key: {"old": old, "new": new} for key, old, new in record.changes}
    changes: Changes = {}
    for key, old, new in record.changes:
        if isinstance(new, Members):
            members = new.net()
            if members:
                changes[key] = {"old": list(members.removed), "new": list(members.added)}
        elif key in plan.relationships:
            changes[key] = {"old": old, "new": new}
        elif key in plan.reported:
            copies = plan.columns[key].copies
            changes[key] = {"old": copy_value(old), "new": copy_value(new)} if copies else {"old": old, "new": new}
    for composite in plan.composites:
        if any(key in composite.parts for key, _, _ in record.changes):
            _add_composite(changes, record, composite)
    return changes


def _add_composite(changes: Changes, record: Record, composite: CompositeAttribute) -> None:
    """Add what has become of a composite, unless that is equal to what it was."""
    try:
        values = _values(record)
        before, after = composite.value(_before(record, values)), composite.value(values)
        if before != after:
            changes[composite.key] = {"old": before, "new": after}
    except Exception as error:  # noqa: BLE001 - the class refuses what the row holds: its columns are told
        model = record.plan.mapper.class_.__qualname__
        logger.warning(
            "%s.%s cannot be made of what its row holds (%s) and is left out of changes, where its columns stand; let "
            "its class accept such rows",
            model,
            composite.key,
            type(error).__name__,
            extra={"model": model, "field": composite.key},
        )


def make_event(record: Record) -> Event:
    """Return the immutable event."""
    event_type = EVENT_TYPES[record.kind]
    changes = make_changes(record) if event_type is ModelEvent.UPDATE else None
    values = _values(record)
    return Event(
        model=record.plan.mapper.class_,
        identity=tuple((record.origin if event_type is ModelEvent.DELETE else record.key)[1]),
        type=event_type,
        changes=None
        if changes is None
        else MappingProxyType({key: MappingProxyType(dict(change)) for key, change in changes.items()}),
        before=None if event_type is ModelEvent.CREATE else MappingProxyType(_before(record, values)),
        after=None if event_type is ModelEvent.DELETE else MappingProxyType(values),
        transaction_id=record.batch.identifier,
        position=record.batch.position,
    )


def observe(delivery: Record | Hook | None) -> None:
    """Let recorders take note of a committed event that is about to be told, unless everything was muted for it."""
    if not isinstance(delivery, Record) or delivery.batch.phase is not _AFTER_COMMIT:
        return
    if are_all_muted(delivery.batch.muted):
        return
    model = delivery.plan.mapper.class_
    recorders = [recorder for recorder in registry.recorders if recorder.follows(model)]
    if recorders:
        event = make_event(delivery)
        for recorder in recorders:
            recorder.note(event)


def _values(record: Record) -> dict[str, Any]:
    """Return the row's values as committed; those that it had last for a deleted row."""
    if isinstance(record, RowRecord):
        loaded = record.values()
    else:
        loaded = record.state.dict if record.snapshot is None else record.snapshot
    changed = {key: new for key, _, new in record.changes} if record.kind is _UPDATED else {}
    return {key: copy_value(changed[key] if key in changed else loaded.get(key)) for key in record.plan.columns}


def _before(record: Record, values: dict[str, Any]) -> dict[str, Any]:
    """Return the row's values at the start of the transaction, given those that it has: what is the same is shared."""
    before = values.copy()
    for key, old, _ in record.changes:
        if key in before:
            before[key] = None if old is NO_VALUE else copy_value(old)
    return before


def subject_of(delivery: Delivery | None) -> tuple[str, ModelEvent] | tuple[None, None]:
    """Return the name of the model and the type of the event; neither where it is no event."""
    if delivery is None or isinstance(delivery, Hook):
        return None, None
    return delivery.plan.mapper.class_.__qualname__, EVENT_TYPES[delivery.kind]


def describe(delivery: Delivery, listener: Listener, error: BaseException) -> CallbackFailure:
    """Describe that a callback raised."""
    model, event_type = subject_of(delivery)
    return CallbackFailure(callback=listener.name, model=model, event_type=event_type, error=error)


def names_of(items: Iterable[tuple[Delivery, Listener]]) -> str:
    """Name each callback with what it is called for, without any field value, and how often."""
    counted = Counter(str(describe(delivery, listener, RuntimeError())) for delivery, listener in items)
    return ", ".join(name if count == 1 else f"{name} (x{count})" for name, count in counted.items()) or "nobody"


def counted_log_fields(items: Iterable[tuple[Delivery, Listener]]) -> list[dict[str, object]]:
    """Return what a log record says of callbacks in fields of its own: names, no field values, and how often."""
    counted = Counter((listener.name, subject_of(delivery)) for delivery, listener in items)
    return [{**log_fields(name, *subject), "count": count} for (name, subject), count in counted.items()]


def report_unfinished(frame: Frame) -> None:
    """Log by name whom a COMMIT that raised would have called."""
    found = unfolded(deliveries(Batch(0), frame))
    items = [(item, listener) for item in found for listener in listeners_of(item)]
    logger.warning(
        "COMMIT did not succeed, or its outcome is unknown; not called: %s. Read what the database holds before you "
        "repeat the transaction",
        names_of(items),
        extra={"not_called": counted_log_fields(items)},
    )
