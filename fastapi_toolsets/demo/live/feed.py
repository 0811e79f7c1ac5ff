"""What browsers follow: the latest events, numbered, so that one that was away can be given what it has missed."""

from collections import deque
from datetime import UTC, datetime
from itertools import islice
from secrets import token_hex
from typing import Literal

import anyio
from pydantic import BaseModel, Field

from fastapi_toolsets.models import ModelEvent

from ..app import OrderOut

CAPACITY = 200
"""How many events are kept for browsers that were away."""

Reason = Literal["opened", "gap", "restarted"]
"""Why a browser is sent the whole table: it has just come; it has missed more than is kept; the server is another."""


class FieldValues(BaseModel):
    """What a field was before the transaction and is now."""

    old: str | int
    new: str | int


class OrderEvent(BaseModel):
    """One event as a callback was told it.

    Attributes:
        type: What happened.
        order: The order as committed; as it was last if it was deleted.
        changes: The fields that an update changed, by name; empty otherwise.
        delivered_at: When the callback was called, in UTC.
    """

    type: ModelEvent
    order: OrderOut
    changes: dict[str, FieldValues]
    delivered_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


class TooOldError(Exception):
    """Some of the events after a position are not kept any more."""


class EventFeed:
    """The latest events and those who wait for the next. Belongs to one event loop, on which all of it is used.

    Attributes:
        position: The number of the latest event; the first is 1.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        """Begin without an event.

        Args:
            capacity: How many events are kept.
        """
        self.position: int = 0
        self._kept: deque[OrderEvent] = deque(maxlen=capacity)
        self._run = token_hex(4)
        self._changed = anyio.Event()
        self._connections = object()
        self._closed = False

    def publish(self, event: OrderEvent) -> None:
        """Keep an event, and wake up who waits for it."""
        self._kept.append(event)
        self.position += 1
        self._wake()

    def after(self, position: int) -> list[tuple[int, OrderEvent]]:
        """Return the events after a position with their own positions.

        Raises:
            TooOldError: Not all of them are kept.
        """
        missed = self.position - position
        if missed > len(self._kept):
            raise TooOldError
        return list(enumerate(islice(self._kept, len(self._kept) - missed, None), start=position + 1))

    async def beyond(self, position: int) -> None:
        """Wait until there is an event after a position, or connections are to end."""
        while self.position <= position and not self._closed:
            changed, connections = self._changed, self._connections
            await changed.wait()
            if self._connections is not connections:
                return

    # Connections

    def connection(self) -> object:
        """Return what stands for a connection that is made now; see :meth:`is_open`."""
        return self._connections

    def is_open(self, connection: object) -> bool:
        """Whether a connection may go on."""
        return not self._closed and connection is self._connections

    def disconnect(self) -> None:
        """End the connections that there are; new ones are welcome."""
        self._connections = object()
        self._wake()

    def close(self) -> None:
        """End all connections for good: the server stops."""
        self._closed = True
        self._wake()

    # Ids, as browsers send them back

    def identifier(self, position: int) -> str:
        """Return the id of a message, which says what its reader has seen, and from which run of the server."""
        return f"{self._run}-{position}"

    def position_of(self, identifier: str) -> int | None:
        """Return the position that an id stands for; ``None`` where it is from another run, or nobody's."""
        run, _, number = identifier.partition("-")
        if run != self._run or not (number.isascii() and number.isdecimal()) or int(number) > self.position:
            return None
        return int(number)

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
