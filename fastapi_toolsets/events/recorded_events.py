"""An event as a recorder keeps it, and as a test expects it: compared by what matters, written as a test writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from ..errors import ExpectedChangeError
from .registry import check_target
from .types import ModelEvent, reduced

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from .types import Reduced


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RecordedEvent:
    """An event that was delivered, or one that a test expects: :func:`created`, :func:`updated`, :func:`deleted`.

    Two are equal where model, type, identity and changes are. What an expectation leaves out (``None``) is not
    compared, and neither are ``before``, ``after`` and ``transaction_id``. It is immutable, and can be pickled and
    deep-copied where the values in it can.

    Attributes:
        model: The mapped class of the row.
        type: What happened to the row.
        identity: The primary key values, in the order of the mapper's primary key columns.
        changes: For an UPDATE what changed, ``{"status": {"old": …, "new": …}}``, as callbacks are told; else ``None``.
        before: The column values at the start of the transaction, by attribute name; ``None`` for a CREATE.
        after: The column values as committed, by attribute name; ``None`` for a DELETE.
        transaction_id: The same for all events of one transaction.
    """

    model: type[object]
    type: ModelEvent
    identity: tuple[Any, ...] | None = None
    changes: Mapping[str, Mapping[str, Any]] | None = None
    before: Mapping[str, Any] | None = field(default=None, kw_only=True)
    after: Mapping[str, Any] | None = field(default=None, kw_only=True)
    transaction_id: UUID | None = field(default=None, kw_only=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RecordedEvent):
            return NotImplemented
        return (
            self.model is other.model
            and self.type is other.type
            and (self.identity is None or other.identity is None or self.identity == other.identity)
            and (self.changes is None or other.changes is None or self.changes == other.changes)
        )

    def __hash__(self) -> int:
        return hash((self.model, self.type))

    def __reduce__(self) -> Reduced:
        """Let ``pickle`` and ``copy`` make it again."""
        return reduced(self)

    def __repr__(self) -> str:
        """Write it as the call that makes it, so that what was delivered can be copied into a test."""
        parts = [self.model.__qualname__.rpartition("<locals>.")[2]]
        parts += map(shown_value, self.identity or ())
        for key, change in (self.changes or {}).items():
            parts.append(f"{key}=({shown_value(change['old'])}, {shown_value(change['new'])})")
        return f"{self.type.value}d({', '.join(parts)})"


def created(model: type[object], /, *identity: object) -> RecordedEvent:
    """Describe the CREATE of a row, to compare what was recorded with.

    Args:
        model: The mapped class.
        *identity: The primary key, one value for each column. Left out, any row of the model will do.

    Raises:
        ListenerError: ``model`` is no class that has rows. It is a ``TypeError``.
    """
    check_target(model, "created()")
    return RecordedEvent(model, ModelEvent.CREATE, identity or None)


def updated(model: type[object], /, *identity: object, **changes: tuple[object, object]) -> RecordedEvent:
    """Describe the UPDATE of a row, to compare what was recorded with: ``updated(Order, 1, status=("new", "paid"))``.

    Args:
        model: The mapped class.
        *identity: The primary key, one value for each column. Left out, any row of the model will do.
        **changes: Everything that has changed, as ``attribute=(old, new)``. Left out, any change will do.

    Raises:
        ListenerError: ``model`` is no class that has rows. It is a ``TypeError``.
        ExpectedChangeError: One of the changes is no pair. It is a ``TypeError``.
    """
    check_target(model, "updated()")
    told = {key: _checked_change(key, change) for key, change in changes.items()}
    return RecordedEvent(model, ModelEvent.UPDATE, identity or None, MappingProxyType(told) if told else None)


def deleted(model: type[object], /, *identity: object) -> RecordedEvent:
    """Describe the DELETE of a row, to compare what was recorded with.

    Args:
        model: The mapped class.
        *identity: The primary key, one value for each column. Left out, any row of the model will do.

    Raises:
        ListenerError: ``model`` is no class that has rows. It is a ``TypeError``.
    """
    check_target(model, "deleted()")
    return RecordedEvent(model, ModelEvent.DELETE, identity or None)


def _checked_change(key: str, change: object) -> Mapping[str, Any]:
    given = f"an object of type {type(change).__name__}"
    pair = cast("Sequence[object]", change) if isinstance(change, (tuple, list)) else ()  # two letters are no pair
    if len(pair) != 2:  # noqa: PLR2004 - as above
        msg = f"updated() was given {given} as the change of {key}: give it a pair, {key}=(old, new)"
        raise ExpectedChangeError(msg)
    old, new = pair
    return MappingProxyType({"old": old, "new": new})


def shown_value(value: object) -> str:
    """Return the value's repr, or a plain one where that fails: a detached object may try to load what it shows."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - whatever a repr raises, the message it was for must arrive
        return object.__repr__(value)
