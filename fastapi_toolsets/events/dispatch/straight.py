"""The short way from a COMMIT to the callbacks, which most commits can take: no queue, no records.

It is for what a single flush wrote, where a single callback hears of each row and is told nothing but what everybody is
told. As soon as anything else happens than that a callback returns nothing, a :class:`Dispatch` takes over.
"""

from __future__ import annotations

from inspect import isawaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from .. import compatibility
from ..crossing.crossing import find_crossing, stands_in_bridge, times_cancelled
from ..crossing.outliving import running_task
from ..muting import muted_callbacks
from ..plans import plans
from ..records import EVENT_TYPES
from ..registry import registry
from ..types import Phase
from .delivery import generation
from .dispatch import Dispatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.orm import InstanceState, Session

    from ..crossing.crossing import Crossing
    from ..journal import Frame, Journal
    from ..records import Batch
    from .delivery import Call
    from .host import Host

_AFTER_COMMIT = Phase.AFTER_COMMIT

# The interpreter looks a method of something imported up anew at each call.
_current_generation, _set_generation = generation.get, generation.set


def straight_calls(journal: Journal) -> list[Call] | None:
    """Return what a commit has to tell with the callback that hears of it; ``None`` where there is more to it.

    Either all of the callbacks are sync, or all are async; what nobody hears of is left out.
    """
    root = journal.root
    if not root.writes or root.on_commit or journal.nested or journal.told:
        return None
    if _current_generation() or registry.recorders or muted_callbacks():
        return None
    version = plans.version
    calls: list[Call] = []
    for writes in root.writes:
        plan, event_type = writes.plan, EVENT_TYPES[writes.kind]
        if plan.version is not version:
            return None
        listener = plan.alone[event_type]
        if listener is None:
            if plan.tells(_AFTER_COMMIT, event_type):
                return None
            continue
        if calls and listener.is_async is not calls[0][1].is_async:
            return None
        calls.append((writes, listener, event_type))
    return calls


class Straight:
    """Calls callbacks with what a flush wrote. Runs on the thread or greenlet of whoever committed.

    Attributes:
        states: The states of the objects to expire once all callbacks have run.
    """

    __slots__ = (
        "_calls",
        "_cancelled_before",
        "_crossing",
        "_dispatch",
        "_host",
        "_may_wait",
        "_place",
        "_session",
        "states",
    )

    def __init__(
        self,
        host: Host,
        session: Session,
        states: list[InstanceState[Any]],
        calls: list[Call],
        *,
        may_wait: bool,
    ) -> None:
        """Prepare to call.

        Args:
            host: Who follows the session.
            session: The session.
            states: The states of the objects to expire once all callbacks have run.
            calls: What to tell.
            may_wait: Whether the committer may stand inside the greenlet bridge, as it does with an async driver.
        """
        self.states: list[InstanceState[Any]] = states
        self._host = host
        self._session = session
        self._calls = calls
        self._may_wait = may_wait
        self._place = 0
        self._crossing: Crossing | None = None
        self._dispatch: Dispatch | None = None
        self._cancelled_before = 0

    def run(self, phase: Phase) -> None:
        """Call everybody; see :meth:`Dispatch.run`."""
        try:
            _set_generation(1)
            if self._calls and self._calls[0][1].is_async:
                self._cross()
            elif self._may_wait and stands_in_bridge():
                self._cancelled_before = times_cancelled()
                compatibility.call_with_waits(self._call, self._outlive)
            else:
                self._call()
        finally:
            _set_generation(0)  # elsewhere there is no straight way
        if self._dispatch is not None:
            self._dispatch.run(phase)

    def _cross(self) -> None:
        options = self._host.options
        self._crossing = crossing = find_crossing(options.callback_backend)
        try:
            crossing.run(self._await, options.callback_grace)
        except Exception as error:
            if self._place == len(self._calls):  # all was told: a time limit has struck on the way back
                raise
            self._hand_over_unstarted().could_not_cross(error)
        except BaseException:
            if self._dispatch is not None:
                self._dispatch.log_kept()
            raise
        if self._dispatch is None and self._place < len(self._calls):  # somebody has cancelled it before its first step
            self._hand_over_unstarted()

    async def _await(self) -> None:
        """Call and await each callback with its rows, until something comes in between."""
        _set_generation(1)  # a loop's task has a context of its own
        version = plans.version  # another one as soon as somebody begins or ceases to listen
        # A callback that cancels its own task must not cancel the next one.
        task = running_task() if len(self._calls) > 1 or len(self._calls[0][0].states) > 1 else None
        for writes, listener, event_type in self._calls:
            callback = listener.callback
            failed: BaseException | None = None
            try:
                for index, instance, changes in writes.told():
                    writes.index = index
                    result = callback(instance, event_type, changes)
                    if type(result) is CoroutineType or isawaitable(result):  # the latter takes long to tell
                        await result
                    if (
                        self._dispatch is not None
                        or plans.version is not version
                        or (task is not None and task.cancelling())
                    ):
                        break
                else:
                    self._place += 1
                    continue
            except BaseException as error:  # noqa: BLE001 - as below
                failed = error
            self._hand_over().called(None, failed)
            del failed  # see raise_again
            await self._hand_over().go_on()
            return

    def _call(self) -> None:
        """Call each callback with its rows, until something comes in between."""
        version = plans.version  # another one as soon as somebody begins or ceases to listen
        for writes, listener, event_type in self._calls:
            callback = listener.callback
            for index, instance, changes in writes.told():
                writes.index = index
                try:
                    result = callback(instance, event_type, changes)
                except BaseException as error:  # noqa: BLE001 - the dispatch deals with whatever it is
                    self._hand_over().called(None, error)
                    return
                if result is not None or self._dispatch is not None or plans.version is not version:
                    self._hand_over().called(result, None)
                    return
            self._place += 1

    def _hand_over(self) -> Dispatch:
        """Let a dispatch go on with the row that is being told."""
        if self._dispatch is None:
            self._dispatch = Dispatch(self._host, self._session, self.states)
            self._dispatch.take_over(self._calls, self._place, self._crossing, self._cancelled_before)
            self._host.dispatch = self._dispatch
        return self._dispatch

    def _hand_over_unstarted(self) -> Dispatch:
        """Let a dispatch go on where perhaps nobody has begun to tell the row that is due."""
        if self._dispatch is None:
            due, _, _ = self._calls[self._place]
            due.index = max(due.index, 0)
        return self._hand_over()

    async def _outlive(self, awaitable: Awaitable[Any]) -> object:
        return await self._hand_over().outlive(awaitable)

    # What a session asks of a dispatch while callbacks run.

    def take_snapshots(self) -> None:
        """See :meth:`Queue.take_snapshots`."""
        self._hand_over().take_snapshots()

    def add(self, phase: Phase, before: Batch | None, frame: Frame) -> None:
        """See :meth:`Queue.add`."""
        self._hand_over().add(phase, before, frame)

    def add_hook(self, callback: Callable[..., object], arguments: tuple[object, ...]) -> None:
        """See :meth:`Queue.add_hook`."""
        self._hand_over().add_hook(callback, arguments)

    def report_untold(self) -> None:
        """See :meth:`Reports.report_untold`."""
        if self._dispatch is None and self._place < len(self._calls):
            self._hand_over_unstarted()
        if self._dispatch is not None:
            self._dispatch.report_untold()
