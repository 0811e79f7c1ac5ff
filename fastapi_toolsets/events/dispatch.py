"""Calls callbacks with what was committed: in order, first in first out, whatever one of them does."""

from __future__ import annotations

import inspect
import logging
import time
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import CascadeLimitError
from . import compatibility
from .crossing import find_crossing, outlive, was_cancelled
from .delivery import (
    EVENT_TYPES,
    Hook,
    describe,
    listeners_of,
    make_changes,
    make_event,
    names_of,
    observe,
    restore,
    take_snapshot,
)
from .journal import Batch, Kind, Record
from .registry import Listener, anything_muted, is_muted, registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy.orm import InstanceState

    from .crossing import Crossing
    from .delivery import Delivery
    from .types import CallbackFailure, SessionOptions

logger: logging.Logger = logging.getLogger("fastapi_toolsets.events")

# The generation that a commit made here would have: 0, or one more than that of the callback that is running. A context
# variable, since callbacks may commit through other sessions, on other threads and loops.
_generation: ContextVar[int] = ContextVar("fastapi_toolsets_generation", default=0)


class Host(Protocol):
    """The session's side of a dispatch."""

    def caller(self) -> object:
        """Return the session that committed, of the caller's kind."""
        ...

    def in_transaction(self) -> bool:
        """Whether a callback left the session in a transaction."""
        ...

    def tidy(self, callback: str) -> None:
        """End the transaction that a callback left behind, and warn if that discards changes."""
        ...


class Dispatch:
    """Everything that follows from one commit of one session, cascades included.

    Runs on the thread, and for an ``EventSession`` inside the greenlet bridge, of whoever committed.

    Attributes:
        states: The states of the objects to expire once all callbacks have run.
    """

    def __init__(self, options: SessionOptions, host: Host, states: set[InstanceState[Any]]) -> None:
        """Begin with nothing to tell."""
        self.states = states
        self._host = host
        self._options = options
        self._found: Crossing | None = None
        self._mutes = anything_muted()
        self._waiting: deque[Delivery] = deque()
        # The callback that is due: of the event's listeners the one at the index.
        self._delivery: Delivery | None = None
        self._listeners: tuple[Listener, ...] = ()
        self._index = 0
        self._listener: Listener | None = None
        self._batch: Batch | None = None
        self._failures: list[CallbackFailure] = []
        self._left_out: list[str] = []
        self._stop: BaseException | None = None
        self._grace_ends: float | None = None
        self._on_loop = False

    @property
    def _crossing(self) -> Crossing:
        """The way to a loop from where the committer stands, looked for when first needed."""
        if self._found is None:
            self._found = find_crossing(self._options.callback_backend)
        return self._found

    def new_batch(self) -> Batch:
        """Begin the batch of a commit made now, by the first committer or by a callback."""
        return Batch(_generation.get() if self._batch is None else self._batch.generation + 1)

    def add(self, batch: Batch, found: list[Delivery]) -> None:
        """Queue what a commit has to tell behind what waits, unless callbacks have fed themselves for too long."""
        if batch.generation <= self._options.cascade_limit:
            self._waiting.extend(found)
        elif left := [(item, listener) for item in found for listener in listeners_of(item)]:
            self._left_out.append(names_of(left))

    def add_hook(self, callback: Callable[..., object], arguments: tuple[object, ...]) -> None:
        """Queue what a callback has given to ``on_commit`` outside of any transaction of its own."""
        if self._batch is not None:
            self._waiting.append(Hook(self._batch, callback, arguments))

    def take_snapshots(self) -> None:
        """Keep the objects of this and the waiting events as they are: a callback is about to use the session."""
        if isinstance(self._delivery, Record):
            take_snapshot(self._delivery)
        for item in self._waiting:
            if isinstance(item, Record):
                take_snapshot(item)

    def run(self) -> None:
        """Call everything that waits, and what it leads to.

        Raises:
            CascadeLimitError: Callbacks kept committing.
            BaseExceptionGroup: Callbacks raised, and the session's policy is to raise.
        """
        token = _generation.set(_generation.get())
        try:
            self._advance()
            while self._listener is not None and not isinstance(self._stop, (KeyboardInterrupt, SystemExit)):
                cancelled = self._stop is not None
                if not self._listener.is_async and not cancelled:
                    self._run_in_place()
                    continue
                self._cross(cancelled=cancelled)
                if cancelled:
                    self._report_unstarted()
                    break
        except BaseException:
            self._log_failures()
            raise
        finally:
            _generation.reset(token)
        if self._stop is not None:
            self._log_failures()
            raise self._stop
        self._raise_errors()

    def _cross(self, *, cancelled: bool) -> None:
        """Run async callbacks where they can run."""
        function = self._run_all if self._crossing.in_bridge else self._run_async
        try:
            left = self._grace_left()
            grace = self._options.callback_grace if left is None else left
            self._crossing.run(function, grace, cancelled=cancelled)
        except Exception as error:
            logger.error("Async callbacks could not run", exc_info=error)  # noqa: TRY400 - the error is at hand
            self._report_rest("no event loop could be reached")

    def _advance(self, *, tell: bool = True) -> None:
        """Move on to the callback that is due next, or to name it only, where nothing is told any more."""
        while True:
            self._index += 1
            if self._index >= len(self._listeners):
                if not self._waiting:
                    self._delivery = self._listener = None
                    self._listeners = ()
                    return
                self._delivery = delivery = self._waiting.popleft()
                self._listeners = listeners_of(delivery)
                self._index = -1
                if delivery.batch is not self._batch:
                    self._batch = delivery.batch
                    _generation.set(delivery.batch.generation + 1)
                if tell and registry.observers:
                    observe(delivery)
                continue
            self._listener = self._listeners[self._index]
            if not (self._mutes and is_muted(self._listener)):
                return

    def _call(self, listener: Listener) -> object:
        """Call the callback and return what it returned, an awaitable if it is async."""
        delivery = self._delivery
        if isinstance(delivery, Hook):
            return listener.callback(*delivery.arguments)
        if delivery is None:  # _advance sets both or neither
            return None
        if delivery.snapshot is not None:
            restore(delivery)
        kind = delivery.kind
        changes = make_changes(delivery) if kind is Kind.UPDATED else None
        if not (listener.wants_session or listener.wants_event):
            return listener.callback(delivery.obj, EVENT_TYPES[kind], changes)
        keywords: dict[str, object] = {}
        if listener.wants_session:
            keywords["session"] = self._host.caller()
        if listener.wants_event:
            keywords["event"] = make_event(delivery)
        return listener.callback(delivery.obj, EVENT_TYPES[kind], changes, **keywords)

    # In the session's own place.

    def _run_in_place(self) -> None:
        """Call sync callbacks; what they wait for inside the greenlet bridge outlives a cancellation, as async ones."""
        if self._crossing.in_bridge:
            compatibility.call_with_waits(self._run_sync, self._outlive)
        else:
            self._run_sync()

    def _outlive(self, awaitable: Awaitable[Any]) -> object:
        outlived = compatibility.await_in_greenlet(outlive(awaitable, self._grace_left(), self._options.callback_grace))
        if outlived.cancellation is not None:
            self._stop = outlived.cancellation
            self._grace_ends = outlived.ends
        return outlived.result()

    def _grace_left(self) -> float | None:
        """Return the seconds that are left since the committer was cancelled; ``None`` where it was not."""
        return None if self._grace_ends is None else max(0.0, self._grace_ends - time.monotonic())

    def _run_sync(self) -> None:
        """Call sync callbacks until an async one is due."""
        self._enter_generation()
        in_transaction = self._host.in_transaction
        while (listener := self._listener) is not None and not listener.is_async:
            try:
                result = self._call(listener)
                if result is not None and inspect.isawaitable(result):
                    self._wait(result)
            except BaseException as error:  # noqa: BLE001 - nothing that a callback raises may stop the others
                if self._caught_in_place(listener, error):
                    return
            if in_transaction():
                self._tidy(listener)
            self._advance()
            if self._stop is not None and not self._on_loop:
                return

    def _caught_in_place(self, listener: Listener, error: BaseException) -> bool:
        """Take what a sync callback raised; return whether it ends everything."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._stop = error
            self._report_rest("interrupted")
            return True
        if self._crossing.in_bridge and was_cancelled(error):
            if self._on_loop:
                self._report_rest("the grace after a cancellation was over")
                raise error
            self._stop = self._stop or error
            logger.error("%s was cut short by a cancellation", names_of(self._current()))
            return False
        try:
            handled = self._failed(listener, error)
            if handled is not None:
                self._wait(handled)
        except BaseException as handler_error:  # noqa: BLE001 - the function for errors must not stop the others
            return self._handler_raised(handler_error)
        return False

    def _wait(self, awaitable: Awaitable[object]) -> None:
        outcome: list[BaseException | None] = []

        async def wait() -> None:
            try:
                await awaitable
                outcome.append(None)
            except BaseException as error:
                if was_cancelled(error):
                    raise
                outcome.append(error)  # out of here some kinds would end the loop

        self._crossing.run(wait, self._options.callback_grace)
        if not outcome:  # the grace was over, and a worker thread goes on
            logger.error("%s was cut short by a cancellation", names_of(self._current()))
        elif outcome[0] is not None:
            raise outcome[0]

    def _tidy(self, listener: Listener) -> None:
        """Leave the session as the next callback and the caller expect it."""
        try:
            self._host.tidy(listener.name)
        except Exception as error:
            # A warning made an error, or a connection that is gone.
            logger.error("Cleaning up after %s failed", names_of(self._current()), exc_info=error)  # noqa: TRY400 - same

    # On a loop.

    async def _run_async(self) -> None:
        """Await async callbacks until a sync one is due."""
        self._enter_generation()
        in_transaction = self._host.in_transaction
        while (listener := self._listener) is not None and listener.is_async:
            try:
                result = self._call(listener)
                if inspect.isawaitable(result):
                    await result
            except (KeyboardInterrupt, SystemExit) as error:
                # Out of here it would end the loop; the committer gets it.
                self._stop = error
                self._report_rest("interrupted")
                return
            except BaseException as error:
                if was_cancelled(error):
                    self._report_rest("the grace after a cancellation was over")
                    raise
                if await self._caught_on_loop(listener, error):
                    return
            if in_transaction():
                await self._tidy_on_loop(listener)
            self._advance()

    async def _caught_on_loop(self, listener: Listener, error: BaseException) -> bool:
        """Take what an async callback raised; return whether it ends everything."""
        try:
            handled = self._failed(listener, error)
            if handled is not None:
                await handled
        except BaseException as handler_error:
            if was_cancelled(handler_error):
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
        self._on_loop = True
        try:
            while self._listener is not None and not isinstance(self._stop, (KeyboardInterrupt, SystemExit)):
                if self._listener.is_async:
                    await self._run_async()
                else:
                    await compatibility.spawn_greenlet(self._run_sync)
        finally:
            self._on_loop = False

    def _enter_generation(self) -> None:
        """Set the generation in this context, too: a loop's task has its own."""
        if self._batch is not None:
            _generation.set(self._batch.generation + 1)

    # Errors.

    def _failed(self, listener: Listener, error: BaseException) -> Awaitable[None] | None:
        """Deal with an error as the session's policy says; return what has to be awaited for it."""
        if self._delivery is None:
            return None
        failure = describe(self._delivery, listener, error)
        policy = self._options.on_callback_error
        if policy == "raise":
            self._failures.append(failure)
        elif policy == "log":
            self._log(failure)
        else:
            return policy(failure)
        return None

    def _log_failures(self) -> None:
        """Log what was collected to be raised, since something else is raised instead."""
        for failure in self._failures:
            self._log(failure)

    def _log(self, failure: CallbackFailure) -> None:
        logger.error("%s raised; the commit stands and the other callbacks run", failure, exc_info=failure.error)

    def _handler_raised(self, error: BaseException) -> bool:
        """Take what the session's function for errors raised; return whether it ends everything."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._stop = error
            self._report_rest("interrupted")
            return True
        logger.error("The on_callback_error function raised for %s", names_of(self._current()), exc_info=error)
        return False

    def _current(self) -> Iterator[tuple[Delivery, Listener]]:
        if self._delivery is not None and self._listener is not None:
            yield self._delivery, self._listener

    def _report_unstarted(self) -> None:
        """Log what was not even begun, since no grace was left when it was due."""
        if self._listener is not None:
            self._report_rest("the grace after a cancellation was over")

    def _report_rest(self, reason: str) -> None:
        """Log by name what was interrupted and what is not called any more, and forget it."""
        interrupted = names_of(self._current())
        rest: list[tuple[Delivery, Listener]] = []
        self._advance(tell=False)
        while self._listener is not None:
            rest += self._current()
            self._advance(tell=False)
        logger.error("Committed, but %s: interrupted %s; not called: %s", reason, interrupted, names_of(rest))

    def _raise_errors(self) -> None:
        errors = [failure.error for failure in self._failures]
        if self._left_out:
            message = (
                f"callbacks have committed {self._options.cascade_limit} times in a row, each time calling callbacks "
                f"again; not called any more: {', '.join(self._left_out)}. Let a callback commit only what ends the "
                "chain, or raise cascade_limit on the session factory"
            )
            logger.error(message)
            if not errors:
                raise CascadeLimitError(message)
            errors.append(CascadeLimitError(message))
        if errors:
            names = ", ".join(str(failure) for failure in self._failures)
            message = f"the commit stands, but callbacks raised: {names}"
            raise BaseExceptionGroup(message, errors)
