"""The vocabulary: what an event is, what a callback looks like, what a session may be told to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Never, ParamSpec, Protocol, TypeAlias, TypedDict, TypeVar, overload

if TYPE_CHECKING:
    from uuid import UUID

    from _typeshed import DataclassInstance

ModelT_contra = TypeVar("ModelT_contra", contravariant=True)
Parameters = ParamSpec("Parameters")
ResultT_co = TypeVar("ResultT_co", covariant=True)


class ModelEvent(StrEnum):
    """What happened to a row, net of everything the transaction did to it."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Phase(StrEnum):
    """When a callback is called, in the life of the outermost transaction."""

    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT = "after_commit"
    AFTER_ROLLBACK = "after_rollback"


class FieldChange(TypedDict):
    """One attribute's true value before the transaction and its value after it.

    For a watched collection ``old`` is the list of members removed and ``new`` the list of members added.
    """

    # The values are the attributes' own Python values: their type is known to the model, not here.
    old: Any
    new: Any


Changes: TypeAlias = dict[str, FieldChange]
"""What an UPDATE changed, by attribute name as mapped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Everything there is to say about one row's part in one transaction.

    Handed to callbacks that declare a keyword-only parameter ``event``. It is immutable: the mappings are read-only.
    It can be pickled and deep-copied where the values in it can.

    Attributes:
        model: The mapped class of the row.
        identity: The primary key values, in the order of the mapper's primary key columns; of a deleted row those that
            it had before the transaction.
        type: What happened to the row.
        changes: For an UPDATE what changed, else ``None``.
        before: The column values at the start of the transaction, by attribute name; ``None`` for a CREATE.
        after: The column values as written, by attribute name; ``None`` for a DELETE.
        transaction_id: The same for all events of one transaction in every phase, different for every other.
        position: The event's place among the events of its transaction and phase, counted from 0.
    """

    model: type[object]
    identity: tuple[Any, ...]
    type: ModelEvent
    changes: Mapping[str, Mapping[str, Any]] | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    transaction_id: UUID
    position: int

    def __reduce__(self) -> Reduced:
        """Let ``pickle`` and ``copy`` make it again."""
        return reduced(self)


Reduced: TypeAlias = tuple[Callable[..., object], tuple[object, ...]]
"""What ``pickle`` and ``copy`` ask an object for: a function and its arguments, which make the object again."""


def reduced(event: DataclassInstance) -> Reduced:
    """Return how to make an event again: read-only mappings can be neither pickled nor deep-copied, dicts can."""
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    changes, before, after = (values.pop(name) for name in ("changes", "before", "after"))
    plain_changes = None if changes is None else {key: dict(change) for key, change in changes.items()}
    plain_rows = (None if row is None else dict(row) for row in (before, after))
    return _made_again, (type(event), values, plain_changes, *plain_rows)


def _made_again(
    event_class: Callable[..., object],
    values: dict[str, Any],
    changes: dict[str, dict[str, Any]] | None,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> object:
    """Make an event of what :func:`reduced` has returned."""
    return event_class(
        **values,
        changes=None if changes is None else _read_only({key: _read_only(each) for key, each in changes.items()}),
        before=_read_only(before),
        after=_read_only(after),
    )


def _read_only(values: dict[str, Any] | None) -> Mapping[str, Any] | None:
    return None if values is None else MappingProxyType(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackFailure:
    """A callback that raised, as handed to a session's ``on_callback_error`` function.

    Attributes:
        callback: The callback's qualified name, module included.
        model: The name of the event's model; ``None`` for a ``session.on_commit`` callback.
        event_type: What had happened to the row; ``None`` for a ``session.on_commit`` callback.
        error: What the callback raised.
    """

    callback: str
    model: str | None
    event_type: ModelEvent | None
    error: BaseException

    def __str__(self) -> str:
        """Say which callback failed on what, without any field value."""
        if self.model is None or self.event_type is None:
            return f"on_commit callback {self.callback}"
        return f"callback {self.callback} for {self.event_type.value} of {self.model}"


class CallbackFor(Protocol[ModelT_contra, Parameters, ResultT_co]):  # pyright: ignore[reportInvalidTypeVarUse] - below
    """A callback that can be called with a ``ModelT_contra``, as type checkers understand it.

    A function matches when it matches both overloads: it can be called as the library calls it, and it takes what it
    takes and returns what it returns, which gives the decorator its own type back. Neither could be said alone.
    Pyright thinks the model covariant: between two such types, not functions, the second overload would match alone.
    """

    @overload
    def __call__(
        self,
        instance: ModelT_contra,
        event_type: Literal[ModelEvent.CREATE],  # narrower than ModelEvent, or mypy would settle for this overload
        changes: Never,  # so that a callback may call it a dict, None or both
        /,
        *args: Any,  # noqa: ANN401 - with **kwargs: and whatever else it declares
        **kwargs: Any,  # noqa: ANN401 - as above
    ) -> object: ...
    @overload
    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> ResultT_co: ...


ONE_VALUE_PER_STATEMENT = "fastapi_toolsets.one_value_per_statement"
"""Key of ``Column.info`` for a column whose ``onupdate`` function gives all rows of a statement the same value.

Where it gives each row its own, SQLAlchemy (2.0 and 2.1) shows every object of a batched UPDATE the first row's value.
"""

ErrorPolicy: TypeAlias = Literal["log", "raise"] | Callable[[CallbackFailure], Awaitable[None] | None]
"""What a session does with callbacks that raise: log each, raise one group at the end, or call a function."""

BulkPolicy: TypeAlias = Literal["warn", "raise", "ignore"]
"""What a session does with a bulk statement on a model with listeners that are not told of it."""

Backend: TypeAlias = Literal["asyncio", "trio"]
"""The event loop that async callbacks get where the caller of a ``SyncEventSession`` has none."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What a session factory was told about delivery.

    Attributes:
        on_callback_error: ``"log"`` each error (default), ``"raise"`` one exception group after all callbacks have
            run, or a function, sync or async, that is called with a :class:`CallbackFailure` for each.
        callback_grace: How many seconds the callbacks that are left may still take once the committer was cancelled.
        cascade_limit: How many commits in a row callbacks may cause before the chain is cut.
        dispatch_on_joined_commit: Whether the session's own commit counts when it has joined a transaction that
            somebody else began on its connection, as in a test that rolls everything back at the end.
        callback_backend: The event loop to run async callbacks on where there is none; ``None`` takes the library's
            default (see :func:`fastapi_toolsets.events.set_callback_backend`).
        on_bulk_write: ``"warn"`` once for each model and kind of statement (default), ``"raise"`` before the statement
            runs, or ``"ignore"``.
    """

    on_callback_error: ErrorPolicy = "log"
    callback_grace: float = 10.0
    cascade_limit: int = 20
    dispatch_on_joined_commit: bool = False
    callback_backend: Backend | None = None
    on_bulk_write: BulkPolicy = "warn"
