"""Column mixins: primary keys and timestamps whose values are made in Python, so every database gives the same.

A value made in Python is on the object as soon as it is flushed, without a second SELECT and without an expired
attribute that an async session could not load; INSERTs batch; and no database needs a function or an extension.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, Protocol

from sqlalchemy import DateTime, Dialect, Uuid
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.orm import Mapped, MappedColumn, declared_attr, mapped_column
from sqlalchemy.types import TypeDecorator

from ..errors import ToolsetsError
from ..events.types import ONE_VALUE_PER_STATEMENT

if TYPE_CHECKING:
    from sqlalchemy.engine.default import DefaultExecutionContext
    from sqlalchemy.sql.operators import OperatorType
    from sqlalchemy.types import TypeEngine

__all__ = [
    "CreatedAtMixin",
    "TimestampMixin",
    "UTCDateTime",
    "UTCDateTimeError",
    "UUIDMixin",
    "UUIDv7Mixin",
    "UpdatedAtMixin",
    "render_item",
    "uuid7",
]

# Before and after a model's own columns, which SQLAlchemy sorts at 0.
_KEY_SORT_ORDER = -100
_CREATED_AT_SORT_ORDER = 100
_UPDATED_AT_SORT_ORDER = 101

_NANOSECONDS_PER_MILLISECOND = 1_000_000
_FRACTION_BITS = 12
_RANDOM_BITS = 62
_VERSION_7 = 0x7 << 76
_RFC_9562_VARIANT = 0b10 << 62

_DIALECTS_WITH_WHOLE_SECONDS = frozenset({"mariadb", "mysql"})  # unless the column asks for a fraction
_DIALECTS_WITHOUT_TIME_ZONE = frozenset({"mariadb", "mysql", "sqlite"})


class UTCDateTimeError(ToolsetsError, DontWrapMixin, ValueError):
    """A value that does not name one instant was given to a :class:`UTCDateTime` column."""


class Version7Generator:
    """Makes version 7 UUIDs, each greater than every one that it made before.

    The layout is RFC 9562's with the increased clock precision of its section 6.2, method 3: 48 bits of milliseconds
    since 1970, 12 bits of fraction of the millisecond, 62 random bits. Clock and fraction together count 244-nanosecond
    ticks; where the clock has not moved since the last UUID, or was set back, the tick after the last one is taken.

    One generator serves any number of threads. A forked process goes on from its parent's last tick, and the random
    bits, which come from the operating system anew for each UUID, keep the two apart.

    Args:
        clock: The time in nanoseconds since 1970.
        random_bits: Gives that many unpredictable bits.
    """

    def __init__(
        self, clock: Callable[[], int] = time.time_ns, random_bits: Callable[[int], int] = secrets.randbits
    ) -> None:
        self._clock = clock
        self._random_bits = random_bits
        self._lock = threading.Lock()
        self._last_tick = 0

    def __call__(self) -> uuid.UUID:
        """Make the next UUID, in any thread.

        Raises:
            ValueError: The clock is beyond the year 10889, where 48 bits of milliseconds end.
        """
        milliseconds, rest = divmod(self._clock(), _NANOSECONDS_PER_MILLISECOND)
        tick = (milliseconds << _FRACTION_BITS) + (rest << _FRACTION_BITS) // _NANOSECONDS_PER_MILLISECOND
        with self._lock:
            tick = self._last_tick = max(tick, self._last_tick + 1)
        milliseconds, fraction = divmod(tick, 1 << _FRACTION_BITS)
        return uuid.UUID(
            int=milliseconds << 80 | _VERSION_7 | fraction << 64 | _RFC_9562_VARIANT | self._random_bits(_RANDOM_BITS)
        )

    def replace_lock(self) -> None:
        """Forget, in a forked child, a lock that a thread of the parent held: that thread is not here to release it."""
        self._lock = threading.Lock()


# Not `uuid.uuid7` of Python 3.14 either: it takes no lock, so that two threads may take the same counter and a thread
# may see its own UUIDs go backwards. One implementation also means one behaviour on every Python version.
_generate_uuid7 = Version7Generator()
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_generate_uuid7.replace_lock)


def uuid7() -> uuid.UUID:
    """Make a time-ordered UUID (RFC 9562, version 7), greater than every one made before in this process.

    Thread-safe and safe across ``os.fork()``; it does not go backwards when the system's clock does.

    Returns:
        The UUID. Its first 48 bits are the milliseconds since 1970.
    """
    return _generate_uuid7()


class UTCDateTime(TypeDecorator[datetime]):
    """An instant: stored in UTC, returned as an aware ``datetime`` in UTC, with microseconds, on every database.

    It is ``TIMESTAMP WITH TIME ZONE`` on PostgreSQL, ``DATETIME(6)`` on MariaDB and MySQL, ``DATETIME`` on SQLite. The
    latter keep no zone, so what they hold is UTC by this type's promise, also where something else wrote the row.

    Raises:
        UTCDateTimeError: On execution, where a bound value is no ``datetime`` or has no time zone.
    """

    impl: TypeEngine[datetime] | type[TypeEngine[datetime]] = DateTime
    cache_ok: bool | None = True

    def __init__(self) -> None:
        super().__init__(timezone=True)

    def __repr__(self) -> str:
        # What Alembic writes into a migration: the inherited one would repeat the arguments of `DateTime`.
        return f"{type(self).__name__}()"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        """Choose the database's own type."""
        if dialect.name in _DIALECTS_WITH_WHOLE_SECONDS:
            return dialect.type_descriptor(DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=True))

    def coerce_compared_value(
        self, op: OperatorType | None, value: object
    ) -> TypeEngine[datetime] | TypeEngine[timedelta]:
        """Bind the other side of an operator as an instant too, but for a duration to add or subtract."""
        if isinstance(value, timedelta):
            return self.impl_instance.coerce_compared_value(op, value)
        return self

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a value for the database: to UTC, and without the zone where the database keeps none."""
        if value is None:
            return None
        instant = _in_utc(value)
        return instant.replace(tzinfo=None) if dialect.name in _DIALECTS_WITHOUT_TIME_ZONE else instant

    def process_result_value(
        self,
        value: datetime | str | None,
        dialect: Dialect,  # noqa: ARG002 -- SQLAlchemy gives it by position
    ) -> datetime | None:
        """Convert the database's value: PostgreSQL gives the connection's zone, the others give none and mean UTC."""
        if value is None:
            return None
        if isinstance(value, str):  # MariaDB's answer for a function of a column and a bound value, such as coalesce()
            value = datetime.fromisoformat(value)
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _in_utc(value: object) -> datetime:
    if not isinstance(value, datetime):
        raise UTCDateTimeError(
            f"A UTCDateTime column was given a {type(value).__qualname__}, which is no instant; "
            "give it a datetime with a time zone, such as datetime.now(UTC)."
        )
    if value.utcoffset() is None:
        raise UTCDateTimeError(
            "A UTCDateTime column was given a datetime without a time zone, so which instant it means is unknown; "
            "give it one with a time zone: datetime.now(UTC), or value.replace(tzinfo=...) if you know its zone."
        )
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise UTCDateTimeError(
            "A UTCDateTime column was given a datetime that in UTC lies outside the years 1 to 9999; "
            "use None, or a value within them, for a moment that never comes."
        ) from error


def _now() -> datetime:
    return datetime.now(UTC)


def _time_of_update(context: DefaultExecutionContext) -> datetime:
    """Give all rows of one UPDATE the same time, as a database's own CURRENT_TIMESTAMP does.

    Where a flush updates several rows with one statement, SQLAlchemy puts the first row's value on every object.
    """
    first_row, column = context.compiled_parameters[0], context.current_column
    time_of_first_row = None if column is None else first_row.get(column.key)
    return time_of_first_row if isinstance(time_of_first_row, datetime) else _now()


def _created_at_or_now(context: DefaultExecutionContext) -> datetime:
    """Give a new row the ``updated_at`` that equals its ``created_at``, whether given or just made."""
    # Not get_current_parameters(): it looks for names that an ORM INSERT of several VALUES does not have, and fails.
    parameters, column = context.current_parameters or {}, context.current_column
    # In an INSERT of several VALUES the second and later rows have a number after the column's name, and the first has
    # one where its value was given: updated_at beside created_at or created_at_m0, updated_at_m1 beside created_at_m1.
    row = "" if column is None else column.key.removeprefix("updated_at")
    created_at = parameters.get(f"created_at{row}")
    if created_at is None and not row:
        created_at = parameters.get("created_at_m0")
    if isinstance(created_at, datetime) and created_at.utcoffset() is not None:
        return created_at
    return _now()


def _key_column(make_key: Callable[[], uuid.UUID]) -> MappedColumn[uuid.UUID]:
    return mapped_column(Uuid(), primary_key=True, default=make_key, sort_order=_KEY_SORT_ORDER)


def _created_at_column() -> MappedColumn[datetime]:
    return mapped_column(UTCDateTime(), nullable=False, default=_now, sort_order=_CREATED_AT_SORT_ORDER)


def _updated_at_column() -> MappedColumn[datetime]:
    return mapped_column(
        UTCDateTime(),
        nullable=False,
        default=_created_at_or_now,
        onupdate=_time_of_update,
        sort_order=_UPDATED_AT_SORT_ORDER,
        info={ONE_VALUE_PER_STATEMENT: True},
    )


# Each mixin shows an annotated column to type checkers and a `declared_attr` without annotation to SQLAlchemy: that way
# it fits plain models and dataclass models alike. An annotated column of a mixin that is no dataclass itself is refused
# under MappedAsDataclass, and a mixin that is one would make every model a dataclass. So the columns are no dataclass
# fields, which is what `init=False` would ask for: the values are the library's to make.


class UUIDMixin:
    """A primary key ``id``: a random UUID (version 4), made in Python when the row is inserted.

    The column is ``UUID`` where the database has the type, else 32 characters. A value given by the user stays.
    """

    if TYPE_CHECKING:
        id: Mapped[uuid.UUID] = mapped_column()
    else:
        id = declared_attr(lambda _model: _key_column(uuid.uuid4))


class UUIDv7Mixin:
    """A primary key ``id``: a time-ordered UUID (version 7, see :func:`uuid7`), made when the row is inserted.

    New rows go to the end of the index, and ``ORDER BY id`` is the order in which a process inserted them. The time of
    the INSERT can be read from the key: use :class:`UUIDMixin` where it must not be known.
    """

    if TYPE_CHECKING:
        id: Mapped[uuid.UUID] = mapped_column()
    else:
        id = declared_attr(lambda _model: _key_column(uuid7))


class CreatedAtMixin:
    """``created_at``: when the row was inserted, an aware ``datetime`` in UTC with microseconds."""

    if TYPE_CHECKING:
        created_at: Mapped[datetime] = mapped_column()
    else:
        created_at = declared_attr(lambda _model: _created_at_column())


class UpdatedAtMixin:
    """``updated_at``: when the row was last inserted or updated, an aware ``datetime`` in UTC with microseconds.

    Every UPDATE sets it, the unit of work's and ``session.execute(update(Model))`` alike, unless it gives a value
    itself. A new row's equals its ``created_at``, where the model has one.
    """

    if TYPE_CHECKING:
        updated_at: Mapped[datetime] = mapped_column()
    else:
        updated_at = declared_attr(lambda _model: _updated_at_column())


class TimestampMixin(CreatedAtMixin, UpdatedAtMixin):
    """``created_at`` and ``updated_at``, equal until the row's first UPDATE."""


class _AutogenerateContext(Protocol):
    """What :func:`render_item` needs of Alembic's ``AutogenContext``, which is not a dependency."""

    imports: set[str]


def render_item(type_: str, obj: object, autogen_context: _AutogenerateContext) -> str | Literal[False]:
    """Render :class:`UTCDateTime` in an Alembic migration as SQLAlchemy's own types, so that it runs as it stands.

    Pass it to ``context.configure(render_item=render_item)`` in Alembic's ``env.py``.

    Args:
        type_: Alembic's name for the kind of item, such as ``"type"`` or ``"column"``.
        obj: The item.
        autogen_context: Alembic's context, whose imports get what the rendered code needs.

    Returns:
        Python code, or ``False`` where Alembic shall render the item itself.
    """
    if type_ != "type" or not isinstance(obj, UTCDateTime):
        return False
    autogen_context.imports.add("from sqlalchemy.dialects import mysql")
    return "sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), 'mysql', 'mariadb')"
