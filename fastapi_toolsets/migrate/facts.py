"""What the codemod knows of one Python file: its names, classes, hooks, calls and imports, all of it picklable."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

MIXIN = "fastapi_toolsets.models.WatchedFieldsMixin"
WATCH = "fastapi_toolsets.models.watch"
MODEL_EVENT = "fastapi_toolsets.models.ModelEvent"
LISTENS_FOR = "fastapi_toolsets.models.listens_for"
EVENT_SESSION = "fastapi_toolsets.models.EventSession"
SYNC_EVENT_SESSION = "fastapi_toolsets.models.SyncEventSession"
ASYNC_SESSION = "sqlalchemy.ext.asyncio.AsyncSession"
SESSION = "sqlalchemy.orm.Session"
ASYNC_SESSIONMAKER = "sqlalchemy.ext.asyncio.async_sessionmaker"
SESSIONMAKER = "sqlalchemy.orm.sessionmaker"

HOOKS = ("on_create", "on_update", "on_delete", "on_event")
EVENTS = {"CREATE": "on_create", "UPDATE": "on_update", "DELETE": "on_delete"}
"""The method of version 2 for each member of ``ModelEvent``; ``on_event`` stands in for those that are not there."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A name that an import binds."""

    level: int
    """How many dots the import begins with."""
    module: str
    attribute: str | None
    """What is imported from the module; ``None`` where the name is the module itself."""


@dataclass(frozen=True, slots=True)
class LocalClass:
    """A name that a ``class`` statement binds."""

    number: int


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that is assigned another one, possibly dotted."""

    chain: str


@dataclass(frozen=True, slots=True)
class Other:
    """A name bound in any other way, or in several: nothing is known of it."""


Binding = Imported | LocalClass | Alias | Other


class Counts(NamedTuple):
    """How many there are before a place in the file."""

    classes: int
    calls: int
    imports: int
    assignments: int


@dataclass(slots=True)
class Scope:
    """The names of a module, a class body or a function, and the scope around it."""

    parent: int | None
    is_class: bool = False
    names: dict[str, Binding] = field(default_factory=dict[str, Binding])


class SuperForm(Enum):
    """Where a call of ``super().on_…()`` stands in its method."""

    LAST = "the last statement"
    STATEMENT = "a statement, or a return, of its own"
    PART = "part of an expression"


@dataclass(frozen=True, slots=True)
class SuperCall:
    """A call of a hook through ``super()``."""

    hook: str
    form: SuperForm


@dataclass(frozen=True, slots=True)
class Hook:
    """A callback method of version 2."""

    name: str
    line: int
    is_async: bool
    stays: str | None
    """Why it cannot become a function, where it cannot."""
    parameters: tuple[str, ...]
    super_calls: tuple[SuperCall, ...]
    identifiers: frozenset[str]
    """Every name in it, so that a new one can be chosen that means nothing there."""


@dataclass(frozen=True, slots=True)
class Decorator:
    """A decorator of a class, with the call's arguments where it is a call."""

    chain: str | None
    is_call: bool
    plain_arguments: bool
    """Whether there are arguments, and none of them is given by name."""
    names: frozenset[str]
    """The names that the arguments are made of."""


@dataclass(frozen=True, slots=True)
class ClassFact:
    """A ``class`` statement."""

    number: int
    """How many there are before it in the file."""
    outermost: int
    """The class around all classes around it, or itself."""
    name: str
    qualname: str
    """Its name below the scope of the outermost class."""
    line: int
    """The line of its first decorator, or of ``class``."""
    scope: int
    body_scope: int
    bases: tuple[str | None, ...]
    decorators: tuple[Decorator, ...]
    hooks: tuple[Hook, ...]


@dataclass(frozen=True, slots=True)
class CallFact:
    """A call that may make a session or a session factory."""

    number: int
    """How many calls there are before it in the file, f-strings not counted."""
    chain: str
    scope: int
    line: int
    """The line of its statement."""
    keywords: tuple[tuple[str, str | None], ...]
    """Its named arguments, each with the dotted name that it is given."""
    unpacks: bool
    """Whether it has a ``**`` argument."""
    first_argument: str | None


@dataclass(frozen=True, slots=True)
class ImportFact:
    """An import statement."""

    number: int
    line: int
    at_top: bool
    """Whether it is a statement of the module itself, in no ``if``, ``try`` or function."""
    scope: int
    level: int
    module: str | None
    """``None`` for ``import …``."""
    names: tuple[tuple[str, str | None], ...]
    """What is imported, each with the name behind ``as``."""


class Role(Enum):
    """How a name is used."""

    BASE = "base"
    DECORATOR = "decorator"
    CALLED = "called"
    SESSION_CLASS = "class_"
    ALIASED = "aliased"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Reference:
    """A use of a name that the file imports or gets from a star import."""

    chain: str
    scope: int
    line: int
    role: Role
    owner: int
    """The number of the class, call or assignment that it belongs to."""


@dataclass(frozen=True, slots=True)
class HookUse:
    """A hook that code names other than by defining it or calling ``super()``."""

    hook: str
    line: int
    through_self: bool
    owner: int | None
    """The number of the class in which it stands."""


@dataclass(frozen=True, slots=True)
class HookAssignment:
    """A hook that is assigned to a class from outside it."""

    hook: str
    chain: str
    """The class."""
    scope: int


@dataclass(slots=True)
class FileFacts:
    """What is known of one file."""

    path: str
    """Its absolute path, symbolic links resolved."""
    scopes: list[Scope] = field(default_factory=list[Scope])
    stars: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    exported: tuple[str, ...] | None = None
    """What ``__all__`` lists."""
    classes: list[ClassFact] = field(default_factory=list[ClassFact])
    calls: list[CallFact] = field(default_factory=list[CallFact])
    imports: list[ImportFact] = field(default_factory=list[ImportFact])
    references: list[Reference] = field(default_factory=list[Reference])
    hook_uses: list[HookUse] = field(default_factory=list[HookUse])
    hook_assignments: list[HookAssignment] = field(default_factory=list[HookAssignment])
    identifiers: frozenset[str] = frozenset()
    """Every name in the file."""
    statements: list[Counts] = field(default_factory=list[Counts])
    """What there is before each statement of the module itself, and before its end."""


def binding_of(facts: FileFacts, name: str, scope: int) -> Binding | None:
    """Return what a name means in a scope: class bodies are seen by what stands in them, not by their functions."""
    where = scope_binding(facts, name, scope)
    return None if where is None else facts.scopes[where].names[name]


def scope_binding(facts: FileFacts, name: str, scope: int) -> int | None:
    """Return the scope in which a name that is used in ``scope`` is bound."""
    where: int | None = scope
    while where is not None:
        known = facts.scopes[where]
        if name in known.names and (where == scope or not known.is_class):
            return where
        where = known.parent
    return None
