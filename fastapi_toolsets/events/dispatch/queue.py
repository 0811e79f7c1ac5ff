"""What waits to be told, and of it the one callback that is due."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..capture.snapshots import take_snapshot
from ..crossing.failures import log_fields
from ..muting import is_muted, muted_callbacks
from ..records import Batch, Record, Writes
from ..registry import registry
from .delivery import (
    Hook,
    deliveries,
    generation,
    is_only_recorded,
    listeners_of,
    observe,
    subject_of,
    unfolded,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..journal import Frame
    from ..registry import Listener
    from ..types import Phase, SessionOptions
    from .delivery import Call, Delivery


class Queue:
    """The events and hooks of one dispatch, first in first out.

    Attributes:
        left_out: What came after callbacks had committed too often in a row.
    """

    left_out: Sequence[tuple[Delivery, Listener]] = ()
    # The callback that is due: of the event's listeners the one at the index.
    _delivery: Delivery | None = None
    _listeners: tuple[Listener, ...] = ()
    _index = -1
    _listener: Listener | None = None
    # What was muted where the transaction ended that the event belongs to.
    _muted: tuple[object, ...] = ()
    # Whether nobody else hears of the rows that are being told, nor anything but what a flush wrote.
    _alone = False
    _batch: Batch | None = None
    # The last of those that have waited when a callback used the session: up to it, all have their snapshots.
    _kept: Delivery | None = None

    def __init__(self, options: SessionOptions) -> None:
        """Begin empty.

        Args:
            options: The session's.
        """
        self._options = options
        self._waiting: deque[Delivery] = deque()

    def add(self, phase: Phase, before: Batch | None, frame: Frame) -> None:
        """Queue what a transaction that ends now has to tell: the first committer's or a callback's.

        Args:
            phase: When callbacks are called for it.
            before: The batch of an earlier phase of the same transaction, where there was one.
            frame: What the transaction did.
        """
        number = generation.get() if self._batch is None else self._batch.generation + 1
        batch = Batch(number, phase, before, muted_callbacks())
        found = deliveries(batch, frame)
        if found:
            self._add(batch, found)

    def _add(self, batch: Batch, found: list[Delivery]) -> None:
        """Queue it behind what waits, unless callbacks have fed themselves for too long."""
        if batch.generation <= self._options.cascade_limit:
            self._waiting.extend(found)
        else:
            self.left_out = [
                *self.left_out,
                *((item, listener) for item in unfolded(found) for listener in listeners_of(item)),
            ]

    def add_hook(self, callback: Callable[..., object], arguments: tuple[object, ...]) -> None:
        """Queue what a callback has given to ``on_commit`` outside of any transaction of its own."""
        if self._batch is not None:  # as if it had committed: one that adds itself again must not go on for ever
            batch = Batch(self._batch.generation + 1, self._batch.phase, None, muted_callbacks())
            self._add(batch, [Hook(batch, callback, arguments)])

    def take_snapshots(self) -> None:
        """Keep the objects of this and the waiting events as they are: a callback is about to use the session."""
        told = self._single()
        newest: list[Delivery] = []
        for item in reversed(self._waiting):  # what came since this was last done stands at the end
            if item is self._kept:
                break
            newest.append(item)
        waiting = unfolded(reversed(newest))
        if newest:
            known = len(self._waiting) - len(newest)
            try:
                self._replace_from(known, waiting)
            except BaseException:  # an interrupt, which the callback may catch: nothing shall be lost
                self._replace_from(known, waiting)
                raise
            self._kept = waiting[-1] if waiting else self._kept
        for record in (told, *waiting):
            if isinstance(record, Record):
                take_snapshot(record)

    def _replace_from(self, place: int, deliveries: Sequence[Delivery]) -> None:
        """Replace what waits from a place on; done twice, it is as if it were done once."""
        while len(self._waiting) > place:
            self._waiting.pop()
        self._waiting.extend(deliveries)

    def _single(self) -> Record | Hook | None:
        """Return what is being told with a record of its own; what the same flush wrote besides waits again."""
        delivery = self._delivery
        if isinstance(delivery, Writes):
            record = delivery.record(delivery.index)
            record.batch = delivery.batch
            waiting = self._waiting
            if not delivery.all_told() and not (waiting and waiting[0] is delivery):  # where a time limit struck before
                waiting.appendleft(delivery)
            self._delivery = record
            return record
        return delivery

    def _resume(self, calls: list[Call], place: int) -> None:
        """Begin with what is being told already.

        Args:
            calls: What a commit has to tell, with the only one who hears of it.
            place: Which of it is being told; it knows by itself how far that has come.
        """
        written = [writes for writes, _, _ in calls]
        batch = self._batch = Batch(0)  # a callback's own commit does not begin that way
        for writes in written:
            writes.batch = batch
        self._delivery = current = written[place]
        current.start = sum(len(writes.states) for writes in written[:place])
        batch.position = current.start + current.index
        self._waiting.extend(writes for writes in written[place + 1 :] if writes.states)
        self._index, self._listener = 0, calls[place][1]
        self._listeners = (self._listener,)

    def _advance(self, *, tell: bool = True) -> None:
        """Move on to the callback that is due next, or to name it only, where nothing is told any more."""
        index, listeners = self._index + 1, self._listeners
        while True:
            muted = self._muted
            while index < len(listeners):
                listener = listeners[index]
                if not (muted and is_muted(listener, muted)):
                    self._index, self._listener = index, listener
                    return
                index += 1
            self._listener = None  # as long as nobody knows who it is: see Reports.report_untold
            delivery = self._delivery
            waiting = self._waiting
            if waiting and waiting[0] is delivery:  # an interrupt came as it was put here, or taken from there
                waiting.popleft()
            if type(delivery) is not Writes or delivery.all_told():
                if not waiting:
                    self._end()
                    return
                self._delivery = delivery = waiting[0]
                waiting.popleft()
            listeners = self._tell_next(delivery, tell=tell)
            index = 0

    def _tell_next(self, delivery: Delivery, *, tell: bool) -> tuple[Listener, ...]:
        """Find out who hears of the next row, or of the hook."""
        batch = delivery.batch
        batch.position += 1
        if type(delivery) is Writes:
            delivery.tell_next()
        if batch is not self._batch:
            self._batch, self._muted = batch, batch.muted
            if tell:
                generation.set(batch.generation + 1)
        self._listeners = listeners = listeners_of(delivery)
        self._alone = False
        if tell and registry.recorders:
            observe(self._single())
        elif type(delivery) is Writes and len(listeners) == 1 and not batch.muted:
            self._alone = not (listeners[0].wants_session or listeners[0].wants_event)
        if not listeners and is_only_recorded(delivery):
            batch.position -= 1
        return listeners

    def _end(self) -> None:
        """Nothing waits any more."""
        self._delivery = self._listener = None
        self._listeners = ()

    def _current(self) -> Iterator[tuple[Delivery, Listener]]:
        if self._delivery is not None and self._listener is not None:
            yield self._delivery, self._listener

    def _fields(self) -> dict[str, object]:
        """Return the callback that is due as the fields of a log record."""
        listener = self._listener
        return {} if listener is None else log_fields(listener.name, *subject_of(self._delivery))

    def _take_rest(self, reason: str) -> list[tuple[Delivery, Listener]]:  # noqa: ARG002 - for those who observe
        """Forget the callback that is due and those that follow; return these."""
        rest: list[tuple[Delivery, Listener]] = []
        self._advance(tell=False)
        while self._listener is not None:
            rest += self._current()
            self._advance(tell=False)
        return rest

    def _enter_generation(self) -> None:
        """Set the generation in this context, too: a loop's task has its own."""
        if self._batch is not None:
            generation.set(self._batch.generation + 1)
