"""Whether a session can do with what its factory was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import SessionOptionError

if TYPE_CHECKING:
    from .types import SessionOptions


def check_options(options: SessionOptions) -> None:
    """Say what is wrong with an option: types alone do not stop a factory's keyword arguments.

    Raises:
        SessionOptionError: An option has a value that it cannot have.
    """
    policy, grace, limit = options.on_callback_error, options.callback_grace, options.cascade_limit
    if policy not in ("log", "raise") and not callable(policy):
        msg = f"on_callback_error was given {policy!r}: give it 'log', 'raise' or a function taking a CallbackFailure"
        raise SessionOptionError(msg)
    if options.on_bulk_write not in ("warn", "raise", "ignore"):
        msg = f"on_bulk_write was given {options.on_bulk_write!r}: give it 'warn', 'raise' or 'ignore'"
        raise SessionOptionError(msg)
    if not _is_number(grace, float) or not grace >= 0:
        msg = f"callback_grace was given {grace!r}: give it a number of seconds, 0 or more"
        raise SessionOptionError(msg)
    if not _is_number(limit, int) or limit < 0:
        msg = f"cascade_limit was given {limit!r}: give it a number of commits, 0 or more"
        raise SessionOptionError(msg)
    joined: object = options.dispatch_on_joined_commit
    if not isinstance(joined, bool):
        msg = f"dispatch_on_joined_commit was given {joined!r}: give it True or False"
        raise SessionOptionError(msg)


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, (int, kind)) and not isinstance(value, bool)
