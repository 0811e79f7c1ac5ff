"""What is to be done to one file: decided with the whole project in view, carried out without it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .facts import Counts


@dataclass(frozen=True, slots=True)
class NewFunction:
    """A method that becomes a listener."""

    method: str
    name: str
    target: str
    """The class listened to, as code after it names it."""
    events: tuple[str, ...]
    object_name: str
    event_name: str
    changes_name: str


@dataclass(frozen=True, slots=True)
class NewListener:
    """A listener that calls a method, which stays."""

    method: str
    name: str
    target: str
    events: tuple[str, ...]
    object_name: str
    is_async: bool


@dataclass(slots=True)
class ClassEdit:
    """What is done to a class."""

    removed_bases: set[int] = field(default_factory=set[int])
    replaced_bases: dict[int, str] = field(default_factory=dict[int, str])
    watch_decorator: int | None = None
    functions: list[NewFunction] = field(default_factory=list[NewFunction])
    listeners: list[NewListener] = field(default_factory=list[NewListener])
    added_methods: list[str] = field(default_factory=list[str])
    """Methods that the mixin had, and that a subclass overrides: they call ``on_event``."""
    dropped_supers: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """In methods that stay: the method, and what it calls through ``super()``."""
    default_supers: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """The same, where the call becomes one of ``on_event``."""


@dataclass(frozen=True, slots=True)
class CallEdit:
    """What is done to a call."""

    callee: str | None
    """What is called instead."""
    session_class: str | None
    """What ``class_`` is given."""


@dataclass(frozen=True, slots=True)
class Todo:
    """What is left to a person."""

    line: int
    """Above which line the comment goes."""
    message: str


@dataclass(slots=True)
class FileEdit:
    """What is done to a file."""

    path: str
    classes: dict[int, ClassEdit] = field(default_factory=dict[int, ClassEdit])
    calls: dict[int, CallEdit] = field(default_factory=dict[int, CallEdit])
    local_names: dict[str, str] = field(default_factory=dict[str, str])
    """What the file calls the library's own names, as ``{"ModelEvent": "ModelEvent"}``."""
    added_imports: dict[str, str] = field(default_factory=dict[str, str])
    """What has to be imported from ``fastapi_toolsets.models``, and as what."""
    import_to_extend: int | None = None
    """The number of the import statement that they are added to; a new one is made where there is none."""
    removed_imports: dict[int, set[int]] = field(default_factory=dict[int, set[int]])
    """By the number of the import, which of its names go."""
    unneeded_imports: dict[int, dict[int, str]] = field(default_factory=dict[int, dict[int, str]])
    """By the number of the import, names that go if nothing in the file mentions them any more."""
    moved_imports: set[int] = field(default_factory=set[int])
    """Imports from a module that version 3 does not have, whose names are in ``fastapi_toolsets.models``."""
    removed_aliases: set[int] = field(default_factory=set[int])
    """By their number, assignments that only gave another name to what is gone."""
    removed_exports: set[str] = field(default_factory=set[str])
    """What ``__all__`` does not list any more."""
    todos: list[Todo] = field(default_factory=list[Todo])

    statements: list[Counts] = field(default_factory=list[Counts])
    """What there is before each statement of the module itself, and before its end."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is done."""
        return self == FileEdit(self.path, statements=self.statements)
