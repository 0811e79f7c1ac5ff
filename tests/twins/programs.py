"""Programs: what a user may do with a session, as data, made up from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from tests.model.programs import Op, spelled

OPERATIONS: dict[str, int] = {
    "change": 8,
    "add": 4,
    "relate": 6,
    "delete": 4,
    "flush": 4,
    "commit": 5,
    "load": 3,
    "get": 3,
    "touch": 3,
    "savepoint": 3,
    "release": 2,
    "undo_savepoint": 2,
    "failing_block": 1,
    "rollback": 2,
    "expression": 2,
    "mutate": 2,
    "address": 1,
    "rekey": 2,
    "merge": 3,
    "expunge": 1,
    "refresh": 2,
    "expire": 3,
    "expire_some": 2,
    "expire_all": 1,
    "forget_identity": 1,
    "readd": 3,
    "replace": 2,
    "quietly": 2,
    "stale": 1,
    "bulk_update": 2,
    "bulk_delete": 1,
    "bulk_insert": 1,
    "core_update": 1,
    "close": 1,
    "reset": 1,
    "new_session": 1,
    "expunge_all": 1,
}
"""The steps, each a method of ``Steps``, and how often they are drawn."""

HOOKS = (
    "before_flush",
    "before_flush_deletes",
    "after_flush",
    "after_flush_postexec",
    "before_commit",
    "before_insert",
    "before_update",
    "before_update_elsewhere",
    "after_insert_connection",
)
"""Listeners of the user's own, which change things; see ``hooks``."""


@dataclass(frozen=True)
class Program:
    """Steps for one session, and how the session is made."""

    ops: tuple[Op, ...]
    expire_on_commit: bool = False
    autoflush: bool = True
    on_error: str = "root"
    hooks: tuple[str, ...] = ()
    phases: bool = False

    def __repr__(self) -> str:
        return spelled(self)


def make_program(seed: int) -> Program:
    """Make up a program: the same seed makes the same one."""
    chance = random.Random(seed)  # noqa: S311 - nothing is to be kept secret
    names, weights = [*OPERATIONS], [*OPERATIONS.values()]
    length = chance.choice((6, 12, 20, 30))
    ops = tuple(
        Op(name, chance.randrange(12), chance.randrange(12), chance.randrange(12))
        for name in chance.choices(names, weights, k=length)
    )
    hooks = tuple(sorted(chance.sample(HOOKS, chance.choice((1, 2))))) if chance.random() < 0.35 else ()
    return Program(
        (*ops, Op("commit")),
        expire_on_commit=chance.random() < 0.5,
        autoflush=chance.random() < 0.6,
        on_error=chance.choice(("root", "root", "innermost", "leave")),
        hooks=hooks,
        phases=chance.random() < 0.2,
    )


def shrink(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Leave out of a program that fails whatever it also fails without."""
    found = True
    while found:
        found = False
        for smaller in _smaller(program):
            if fails(smaller):
                program, found = smaller, True
                break
    return program


def _smaller(program: Program) -> Iterator[Program]:
    ops = program.ops
    size = len(ops)
    while size:
        for start in range(0, len(ops), size):
            yield replace(program, ops=ops[:start] + ops[start + size :])
        size //= 2
    for hook in program.hooks:
        yield replace(program, hooks=tuple(other for other in program.hooks if other != hook))
    for field in fields(program)[1:]:
        if getattr(program, field.name) != field.default and field.name != "hooks":
            changed: dict[str, Any] = {field.name: field.default}
            yield replace(program, **changed)
    for place, op in enumerate(ops):
        for name in ("a", "b", "c"):
            for value in (0, getattr(op, name) // 2):
                if value < getattr(op, name):
                    smaller: dict[str, Any] = {name: value}
                    yield replace(program, ops=(*ops[:place], replace(op, **smaller), *ops[place + 1 :]))
