"""Programs: what a user may do with a session, as data; and the strategy that makes them up."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from hypothesis import strategies as st

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OnError: TypeAlias = Literal["innermost", "root", "leave"]
"""What a program does about an error of the database: rolls back the savepoint or everything, or carries on."""

# Each name is a method of the interpreter. The more often one is listed, the more often it is drawn.
OPERATIONS = (
    *("change",) * 7,
    *("add",) * 5,
    *("flush",) * 4,
    *("delete",) * 4,
    *("savepoint",) * 4,
    *("commit",) * 4,
    *("release",) * 3,
    *("undo_savepoint",) * 3,
    *("load",) * 3,
    *("expression",) * 2,
    *("mutate",) * 2,
    *("move",) * 3,
    *("remove",) * 2,
    *("replace",) * 3,
    *("revert",) * 2,
    *("readd",) * 2,
    *("rekey",) * 2,
    *("expire",) * 2,
    *("on_commit",) * 2,
    *("bulk_update",) * 3,
    *("bulk_delete",) * 2,
    *("bulk_insert",) * 2,
    *("upsert",) * 2,
    "bulk_update_by_key",
    "rollback",
    "begin",
    "leave",
    "get",
    "forget",
    "graph",
    "merge",
    "refresh",
    "expire_all",
    "expunge",
    "expunge_all",
    "broken_statement",
    "close",
    "reset",
    "invalidate",
)

REACTIONS = ("raise", "commit", "change", "rollback", "dirty", "broken", "block", "savepoint", "close")
"""What a callback may do, at one of the events that it is called for."""


@dataclass(frozen=True)
class Op:
    """One step: what to do, and three numbers to choose the object, the attribute, the value… from what there is."""

    name: str
    a: int = 0
    b: int = 0
    c: int = 0

    def __repr__(self) -> str:
        numbers = [self.a, self.b, self.c]
        while numbers and numbers[-1] == 0:
            numbers.pop()
        return f"Op({', '.join([repr(self.name), *map(str, numbers)])})"


@dataclass(frozen=True)
class Reaction:
    """What a callback does when it is called for the event number ``at`` of the program."""

    at: int
    kind: str

    def __repr__(self) -> str:
        return f"Reaction({self.at}, {self.kind!r})"


@dataclass(frozen=True)
class Program:
    """Steps for one session, and how the session and its callbacks are made."""

    ops: tuple[Op, ...]
    expire_on_commit: bool = False
    autoflush: bool = True
    async_callbacks: bool = False
    on_error: OnError = "root"
    seeded: bool = True
    reactions: tuple[Reaction, ...] = field(default=())
    phases: bool = False
    """Whether callbacks listen before the COMMIT and after a rollback, too."""
    veto: int | None = None
    """At which event before a COMMIT a callback refuses it."""

    def __repr__(self) -> str:
        return spelled(self)


def spelled(program: DataclassInstance) -> str:
    """Show only what differs from the defaults: ready to be pasted into a regression test."""
    operations, *settings = fields(program)
    parts = [f"({''.join(f'{op!r}, ' for op in getattr(program, operations.name))})"]
    for setting in settings:
        value = getattr(program, setting.name)
        if value != setting.default:
            parts.append(f"{setting.name}={value!r}")
    return f"{type(program).__name__}({', '.join(parts)})"


_NUMBERS = st.integers(0, 7)
_OPS = st.builds(Op, st.sampled_from(OPERATIONS), _NUMBERS, _NUMBERS, _NUMBERS)
_SOME = st.lists(_OPS, max_size=12)  # three of them: long enough on average, and free to shrink to nothing
_REACTIONS = st.builds(Reaction, st.integers(0, 6), st.sampled_from(REACTIONS))


def programs() -> st.SearchStrategy[Program]:
    """Make up programs."""
    return st.builds(
        _join,
        st.tuples(_SOME, _SOME, _SOME),
        st.one_of(st.just([]), st.lists(_REACTIONS, max_size=3)),
        expire_on_commit=st.booleans(),
        autoflush=st.booleans(),
        async_callbacks=st.booleans(),
        on_error=st.sampled_from(_ON_ERROR),
        seeded=st.booleans(),
        phases=st.sampled_from((None, None, False, True)),
        veto=st.integers(0, 8),
    )


_ON_ERROR: tuple[OnError, ...] = ("root", "innermost", "leave")


def _join(
    parts: tuple[list[Op], list[Op], list[Op]],
    reactions: list[Reaction],
    *,
    expire_on_commit: bool,
    autoflush: bool,
    async_callbacks: bool,
    on_error: OnError,
    seeded: bool,
    phases: bool | None,
    veto: int,
) -> Program:
    ops = tuple(op for part in parts for op in part)
    program = Program(ops, expire_on_commit, autoflush, async_callbacks, on_error, seeded, tuple(reactions))
    return program if phases is None else replace(program, phases=True, veto=veto if phases else None)
