"""Calls callbacks with what was committed: in order, first in first out, whatever one of them does."""

from __future__ import annotations

import inspect
import time
from types import CoroutineType
from typing import TYPE_CHECKING, Any, cast

from .. import compatibility
from ..capture.snapshots import restore
from ..crossing.crossing import (
    Bridge,
    Here,
    find_crossing,
    run_to_end,
    stands_in_bridge,
    times_cancelled,
    was_cancelled,
    was_given_up,
)
from ..crossing.failures import is_interrupt, raise_again
from ..crossing.outliving import close_unstarted, go_on_after_cancellation, outlive, raised_meanwhile, running_task
from ..logs import logger
from ..plans import plans
from ..records import EVENT_TYPES, Kind, Record, Writes
from ..types import Phase
from .delivery import Hook, generation, make_changes, make_event, names_of
from .host import caller_of
from .reports import GRACE_OVER, Reports

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable

    from sqlalchemy.orm import InstanceState, Session

    from ..crossing.crossing import Crossing
    from ..registry import Listener
    from .delivery import Call
    from .host import Host

_UPDATED = Kind.UPDATED


class Dispatch(Reports):
    """Everything that follows from one commit of one session, cascades included.

    Runs on the thread, and for an ``EventSession`` inside the greenlet bridge, of whoever committed.

    Attributes:
        states: The states of the objects to expire once all callbacks have run.
    """

    _found: Crossing | None = None
    _grace_ends: float | None = None
    _on_loop = False
    _has_begun = False
    _can_raise = True
    _cancelled_before = 0
    _called: tuple[object, BaseException | None] | None = None

    def __init__(self, host: Host, session: Session, states: list[InstanceState[Any]]) -> None:
        """Begin with nothing to tell."""
        super().__init__(host.options)
        self.states = states
        self._host = host
        self._session = session

    @property
    def _crossing(self) -> Crossing:
        """The way to a loop from where the committer stands, looked for when first needed."""
        if self._found is None:
            self._found = find_crossing(self._options.callback_backend)
        return self._found

    def run(self, phase: Phase) -> None:
        """Call everything that waits, and what it leads to.

        Args:
            phase: The phase that the first of it is told in. After a commit the caller can be told by an exception what
                went wrong; after a rollback it has one of its own.

        Raises:
            CascadeLimitError: Callbacks kept committing.
            BaseExceptionGroup: Callbacks raised, and the session's policy is to raise.
        """
        before = generation.get()
        try:
            generation.set(0)  # every batch sets its own
            if self._has_begun:
                self._enter_generation()
            else:
                self._cancelled_before = times_cancelled()
                self._advance()
            while (listener := self._listener) is not None:
                if self._stop is None:
                    if listener.is_async:
                        self._cross(cancelled=False)
                    else:
                        self._run_in_place()
                elif is_interrupt(self._stop):
                    break
                else:
                    self._cross(cancelled=True)
                    self._report_unstarted()
                    break
        except BaseException:
            self.log_kept()
            raise
        finally:
            generation.set(before)
        if self._stop is not None or self._failures is not None or self.left_out:
            self._report(raises=phase is Phase.AFTER_COMMIT and self._can_raise)

    def _cross(self, *, cancelled: bool) -> None:
        """Run async callbacks where they can run."""
        function = self._run_all if self._crossing.in_bridge else self._run_async
        try:
            left = self._grace_left()
            grace = self._options.callback_grace if left is None else left
            self._crossing.run(function, grace, cancelled=cancelled)
        except Exception as error:  # noqa: BLE001 - it is logged
            self.could_not_cross(error)
        self._enter_generation()  # what was begun there was begun in another context

    def _call(self, listener: Listener) -> object:
        """Call the callback and return what it returned, an awaitable if it is async."""
        delivery = self._single()
        if not isinstance(delivery, Record):
            return listener.callback(*delivery.arguments) if isinstance(delivery, Hook) else None
        restore(delivery)
        kind = delivery.kind
        changes = make_changes(delivery) if kind is _UPDATED else None
        if not (listener.wants_session or listener.wants_event):
            return listener.callback(delivery.obj, EVENT_TYPES[kind], changes)
        keywords: dict[str, object] = {}
        if listener.wants_session:
            keywords["session"] = caller_of(self._session)
        if listener.wants_event:
            keywords["event"] = make_event(delivery)
        return listener.callback(delivery.obj, EVENT_TYPES[kind], changes, **keywords)

    def interrupt(self, error: BaseException) -> None:
        """Take it that the committer was interrupted before anything was told, and goes on with that afterwards.

        Args:
            error: What interrupts it. After a cancellation there is as much time as if it came while callbacks run.
        """
        self._can_raise = False
        if self._crossing.in_bridge and was_cancelled(error):
            self._stop = error
            self._grace_ends = time.monotonic() + self._options.callback_grace

    # Where somebody else has begun.

    def take_over(self, calls: list[Call], place: int, crossing: Crossing | None, cancelled_before: int) -> None:
        """Go on with what is being told already; :meth:`called` says how far the callback has come that is due.

        Args:
            calls: What a commit has to tell, with the only one who hears of it.
            place: Which of it is being told; it knows by itself how far that has come.
            crossing: The way to a loop, where it was found already.
            cancelled_before: How often the committer's task had been cancelled before.
        """
        self._cancelled_before = cancelled_before
        self._has_begun = True
        self._found = crossing
        self._resume(calls, place)

    async def go_on(self) -> None:
        """Go on on the loop on which somebody else has begun."""
        await (self._run_all() if self._crossing.in_bridge else self._run_async())

    def called(self, result: object, error: BaseException | None) -> None:
        """Take what the callback that is due has returned or raised already, to go on from there."""
        self._called = result, error

    def _take_called(self) -> object:
        result, error = self._called or (None, None)
        self._called = None
        if error is not None:
            raised = [error]
            del error
            raise_again(raised)
        return result

    # In the session's own place.

    def _run_in_place(self) -> None:
        """Call sync callbacks; what they wait for inside the greenlet bridge outlives a cancellation, as async ones."""
        if stands_in_bridge():
            compatibility.call_with_waits(self._run_sync, self.outlive)
        else:
            self._run_sync()

    async def outlive(self, awaitable: Awaitable[Any]) -> object:
        """Wait for what a sync callback waits for, although the committer is cancelled."""
        outlived = await outlive(awaitable, self._grace_left(), self._options.callback_grace)
        if outlived.cancellation is not None:
            self._stop = outlived.cancellation
            self._grace_ends = outlived.ends
        try:
            return outlived.result()
        finally:
            del outlived  # it knows what was raised, whose traceback knows this frame; see raise_again

    def _grace_left(self) -> float | None:
        """Return the seconds that are left since the committer was cancelled; ``None`` where it was not."""
        return None if self._grace_ends is None else max(0.0, self._grace_ends - time.monotonic())

    def _run_sync(self) -> None:
        """Call sync callbacks until an async one is due."""
        while (listener := self._listener) is not None and not listener.is_async:
            if self._run_alike(listener) if self._alone else self._run_one(listener):
                return
            self._advance()
            if self._stop is not None and not self._on_loop:
                return

    def _run_one(self, listener: Listener) -> bool:
        """Call a sync callback; return whether that ended everything, or it has outlived its grace."""
        try:
            result = self._call(listener) if self._called is None else self._take_called()
            if result is not None and inspect.isawaitable(result):
                self._wait(result)
        except BaseException as error:  # noqa: BLE001 - nothing that a callback raises may stop the others
            if self._caught_in_place(listener, error):
                return True
        if self._listener is not listener:
            return True  # the session is the caller's again
        if self._session.in_transaction():
            self._tidy(listener)
        return False

    def _run_alike(self, listener: Listener) -> bool:
        """Call a sync callback with the rows of a flush, as most are told; return whether that ended everything.

        Does what :meth:`_run_one` and :meth:`_advance` would, without asking again what cannot have changed.
        """
        writes = cast("Writes", self._delivery)
        version = plans.version  # another one as soon as somebody begins or ceases to listen
        callback, event_type = listener.callback, EVENT_TYPES[writes.kind]
        for index, instance, changes in writes.told():
            writes.index = index
            try:
                result = callback(instance, event_type, changes)
                if result is not None and inspect.isawaitable(result):
                    self._wait(result)
            except BaseException as error:  # noqa: BLE001 - nothing that a callback raises may stop the others
                if self._caught_in_place(listener, error):
                    return True
            if self._delivery is not writes:  # it has used the session
                if self._listener is not listener:
                    return True  # or outlived its grace, and the session is the caller's again
                if self._session.in_transaction():
                    self._tidy(listener)
                return False
            if self._stop is not None or plans.version is not version:
                return False
        if self._waiting:
            return False
        self._end()
        return True

    def _caught_in_place(self, listener: Listener, error: BaseException) -> bool:
        """Take what a sync callback raised; return whether it ends everything."""
        if self._listener is not listener:
            return True  # it has outlived its grace, and was named when that was over
        if is_interrupt(error):
            self._stop = error
            self._report_rest("interrupted")
            return True
        if self._on_loop:
            if self._crossing.in_bridge and was_given_up(error):
                self._report_rest(GRACE_OVER)
                raise error
        elif self._crossing.in_bridge and was_cancelled(error, self._cancelled_before):
            self._stop = self._stop or error
            reason = " by a cancellation; an async callback would have been given callback_grace to finish"
            if self._grace_ends is not None:
                reason = f": {GRACE_OVER}"
            logger.error("%s was cut short%s", names_of(self._current()), reason, extra=self._fields())
            return False
        try:
            handled = self._failed(listener, error)
            if handled is not None:
                self._wait(handled)
        except BaseException as handler_error:  # noqa: BLE001 - the function for errors must not stop the others
            return self._handler_raised(handler_error)
        return False

    def _wait(self, awaitable: Awaitable[object]) -> bool:
        """Wait for what a sync callback has returned, and raise what that raises; return whether it had the time."""
        has_ended = in_time = False
        raised: list[BaseException] = []

        async def wait() -> None:
            nonlocal has_ended
            try:
                await awaitable
            except BaseException as error:
                raised.append(error)
                raise
            finally:
                has_ended = True

        crossing = self._crossing
        if crossing.in_bridge:
            crossing = Here() if self._on_loop else Bridge(self._begin_grace)
        left = self._grace_left()
        try:
            in_time = run_to_end(crossing, wait, self._options.callback_grace if left is None else left)
        except BaseException as error:
            if (
                not has_ended
                or self._on_loop
                or not (crossing.in_bridge and was_cancelled(error, self._cancelled_before))
            ):
                raised.clear()  # see raise_again
                raise
            self._stop = error  # the committer's, whatever the callback has come to in its grace
            if raised:
                raise_again(raised)
            in_time = True
        else:
            if not in_time:  # the grace was over, and a worker thread goes on
                logger.error("%s was cut short: %s", names_of(self._current()), GRACE_OVER, extra=self._fields())
        finally:
            close_unstarted(awaitable)
        return in_time

    def _begin_grace(self) -> None:
        """Take note that the committer was cancelled while it waited for what a sync callback has returned."""
        self._grace_ends = time.monotonic() + self._options.callback_grace

    def _tidy(self, listener: Listener) -> None:
        """Leave the session as the next callback and the caller expect it."""
        try:
            self._host.tidy(self._session, listener)
        except Exception as error:  # noqa: BLE001 - a warning made an error, or a connection that is gone
            logger.error(
                "Cleaning up after %s failed; the other callbacks run. Close the session if it does not work",
                names_of(self._current()),
                exc_info=error,
                extra=self._fields(),
            )

    # On a loop.

    async def _run_async(self) -> None:
        """Await async callbacks until a sync one is due."""
        self._enter_generation()
        in_transaction, task = self._session.in_transaction, running_task()
        while (listener := self._listener) is not None and listener.is_async:
            try:
                if self._alone:
                    await self._await_alike(listener, task)
                else:
                    result = self._call(listener) if self._called is None else self._take_called()
                    if type(result) is CoroutineType or inspect.isawaitable(result):  # the latter takes long to tell
                        await result
            except BaseException as error:  # noqa: BLE001 - nothing that a callback raises may stop the others
                if await self._caught_on_loop(listener, error):
                    return
            if self._listener is not listener:
                return  # it has outlived its grace, and the session is the caller's again
            if task is not None and task.cancelling():  # which is nobody's but the library's to cancel
                await go_on_after_cancellation()
            if in_transaction():
                await self._tidy_on_loop(listener)
            self._advance()

    async def _await_alike(self, listener: Listener, task: asyncio.Task[Any] | None) -> None:
        """Await an async callback with the rows of a flush, until something else has to be looked at."""
        writes = cast("Writes", self._delivery)
        version = plans.version
        callback, event_type = listener.callback, EVENT_TYPES[writes.kind]
        for index, instance, changes in writes.told():
            writes.index = index
            result = callback(instance, event_type, changes)
            if type(result) is CoroutineType or inspect.isawaitable(result):
                await result
            if (
                self._delivery is not writes
                or plans.version is not version
                or (task is not None and task.cancelling())  # which is nobody's but the library's to cancel
            ):
                break

    async def _caught_on_loop(self, listener: Listener, error: BaseException) -> bool:
        """Take what an async callback raised; return whether it ends everything."""
        if self._listener is not listener:
            return True  # it has outlived its grace, and was named when that was over
        if is_interrupt(error):  # out of here it would end the loop; the committer gets it
            self._stop = error
            self._report_rest("interrupted")
            return True
        if was_given_up(error):
            self._report_rest(GRACE_OVER)
            raise error
        try:
            handled = self._failed(listener, raised_meanwhile(error))
            if handled is not None:
                await handled
        except BaseException as handler_error:
            if was_given_up(handler_error):
                raise
            return self._handler_raised(handler_error)
        return False

    async def _tidy_on_loop(self, listener: Listener) -> None:
        if self._crossing.in_bridge:
            await compatibility.spawn_greenlet(lambda: self._tidy(listener))
        else:
            self._tidy(listener)

    async def _run_all(self) -> None:
        """Await async callbacks, and call sync ones inside the greenlet bridge."""
        self._enter_generation()  # greenlets that are made here see the same context
        self._on_loop = True
        task = running_task()
        try:
            while self._listener is not None and not (self._stop is not None and is_interrupt(self._stop)):
                if self._listener.is_async:
                    await self._run_async()
                else:
                    await compatibility.spawn_greenlet(self._run_sync)
                    if task is not None and task.cancelling():
                        await go_on_after_cancellation()
        finally:
            self._on_loop = False
