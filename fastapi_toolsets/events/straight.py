"""The short way from a COMMIT to the callbacks, which most commits can take: no queue, no records.

It is for what a single flush wrote, where a single callback hears of each row and is told nothing but what everybody is
told. As soon as anything else happens than that a callback returns nothing, a :class:`Dispatch` takes over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import compatibility
from .crossing import stands_in_bridge
from .delivery import EVENT_TYPES, generation
from .dispatch import Dispatch
from .muting import anything_muted
from .plans import plans
from .records import Kind
from .registry import registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.orm import InstanceState, Session

    from .dispatch import Host
    from .journal import Frame
    from .records import Batch, Writes
    from .registry import Listener
    from .types import Phase

_UPDATED = Kind.UPDATED


def straight_calls(frame: Frame) -> list[tuple[Writes, Listener]] | None:
    """Return what a commit has to tell with the callback that hears of it; ``None`` where there is more to it."""
    if not frame.writes or frame.on_commit or registry.recorders or generation.get() or anything_muted():
        return None
    by_mapper = plans.by_mapper
    calls: list[tuple[Writes, Listener]] = []
    for writes in frame.writes:
        plan, kind = writes.plan, writes.kind
        if by_mapper.get(plan.mapper) is not plan or (kind is _UPDATED and not plan.simple):
            return None
        listener = plan.alone[EVENT_TYPES[kind]]
        if listener is None or listener.is_async:
            return None
        calls.append((writes, listener))
    return calls


class Straight:
    """Calls sync callbacks with what a flush wrote. Runs on the thread or greenlet of whoever committed.

    Attributes:
        states: The states of the objects to expire once all callbacks have run.
    """

    __slots__ = ("_calls", "_dispatch", "_host", "_place", "_session", "states")

    def __init__(
        self,
        host: Host,
        session: Session,
        states: list[InstanceState[Any]],
        calls: list[tuple[Writes, Listener]],
    ) -> None:
        """Prepare to call."""
        self.states = states
        self._host = host
        self._session = session
        self._calls = calls
        self._place = 0
        self._dispatch: Dispatch | None = None

    def run(self, *, raises: bool) -> None:
        """Call everybody; see :meth:`Dispatch.run`."""
        token = generation.set(1)
        try:
            if stands_in_bridge():
                compatibility.call_with_waits(self._call, self._outlive)
            else:
                self._call()
        finally:
            generation.reset(token)
        if self._dispatch is not None:
            self._dispatch.run(raises=raises)

    def _call(self) -> None:
        by_mapper = plans.by_mapper  # another one as soon as somebody begins or ceases to listen
        for writes, listener in self._calls:
            callback = listener.callback
            writes.index = 0
            for arguments in writes.arguments():
                try:
                    result = callback(*arguments)
                except BaseException as error:  # noqa: BLE001 - the dispatch deals with whatever it is
                    self._hand_over().called(None, error)
                    return
                if result is not None or self._dispatch is not None or plans.by_mapper is not by_mapper:
                    self._hand_over().called(result, None)
                    return
            self._place += 1

    def _hand_over(self) -> Dispatch:
        """Let a dispatch go on with the row that is being told."""
        if self._dispatch is None:
            self._dispatch = Dispatch(self._host, self._session, self.states)
            self._dispatch.take_over(self._calls, self._place)
            self._host.dispatch = self._dispatch
        return self._dispatch

    async def _outlive(self, awaitable: Awaitable[Any]) -> object:
        return await self._hand_over().outlive(awaitable)

    # What a session asks of a dispatch while callbacks run.

    def take_snapshots(self) -> None:
        """See :meth:`Dispatch.take_snapshots`."""
        self._hand_over().take_snapshots()

    def add(self, phase: Phase, before: Batch | None, frame: Frame) -> None:
        """See :meth:`Dispatch.add`."""
        self._hand_over().add(phase, before, frame)

    def add_hook(self, callback: Callable[..., object], arguments: tuple[object, ...]) -> None:
        """See :meth:`Dispatch.add_hook`."""
        self._hand_over().add_hook(callback, arguments)
