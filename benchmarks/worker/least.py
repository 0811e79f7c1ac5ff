"""The least that sessions with events could cost: SQLAlchemy's hooks and asyncio's task, and nothing done in them."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, cast

from sqlalchemy import event
from sqlalchemy.orm import Session

from fastapi_toolsets.events.crossing.kept_loop import KeptLoop, make_loop

if TYPE_CHECKING:
    from collections.abc import Callable

HOOKS, TASK = "hooks", "task"
"""The variants: listeners of SQLAlchemy's own that do nothing, and with them a coroutine that does nothing."""

_HOOKS = (
    "before_flush", "after_flush", "before_commit", "after_commit", "after_transaction_create", "after_transaction_end",
)  # fmt: skip


class HookedSession(Session):
    """Is told of its flushes and transactions, and takes no interest."""


class TaskSession(Session):
    """The same, and runs a coroutine that does nothing in a task of asyncio's when it has committed."""


def least_classes() -> dict[str, type[Session]]:
    """Return the session classes, with their listeners."""
    for session_class in (HookedSession, TaskSession):
        for name in _HOOKS:
            event.listen(session_class, name, _ignore)
    event.listen(TaskSession, "after_commit", _run_on(cast("KeptLoop", make_loop())))
    return {HOOKS: HookedSession, TASK: TaskSession}


def _ignore(*_arguments: object) -> None:
    """Do nothing."""


async def _nothing() -> None:
    """Do nothing."""


def _run_on(loop: KeptLoop) -> Callable[[Session], None]:
    """Return what runs a coroutine as the library does: in a task, on a loop that says it runs, without a turn."""

    def run(_session: Session) -> None:
        task = loop.begin(_nothing(), contextvars.copy_context())
        loop.advance()
        task.result()

    return run
