"""What a name in one file means, followed through imports, star imports and aliases into the other files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from .facts import (
    ASYNC_SESSION,
    ASYNC_SESSIONMAKER,
    EVENT_SESSION,
    LISTENS_FOR,
    MIXIN,
    MODEL_EVENT,
    SESSION,
    SESSIONMAKER,
    SYNC_EVENT_SESSION,
    WATCH,
    Alias,
    Binding,
    ClassFact,
    FileFacts,
    Imported,
    LocalClass,
    binding_of,
)

_MAXIMUM_STEPS = 32
"""From import to import: a project that goes further goes in a circle."""

_MOVED = {
    "fastapi_toolsets.models.watched": "fastapi_toolsets.models",
    "fastapi_toolsets.events": "fastapi_toolsets.models",
    "sqlalchemy.ext.asyncio.session": "sqlalchemy.ext.asyncio",
    "sqlalchemy.orm.session": "sqlalchemy.orm",
}
"""Modules that hold what another one is known for."""

_ALWAYS_OUTSIDE = {"fastapi_toolsets", "sqlalchemy"}
"""Not looked for in the project: a folder of that name beside it is something else."""

_NAMESAKE = "sqlalchemy.event.listens_for"

_KNOWN = {
    MIXIN,
    WATCH,
    MODEL_EVENT,
    LISTENS_FOR,
    EVENT_SESSION,
    SYNC_EVENT_SESSION,
    ASYNC_SESSION,
    SESSION,
    ASYNC_SESSIONMAKER,
    SESSIONMAKER,
}


class ClassKey(NamedTuple):
    """A class of the project."""

    path: str
    number: int


Meaning = ClassKey | str | None
"""A class of the project, the dotted name of something outside it, or nothing that could be found out."""


class Names:
    """Follows names through the files of a project."""

    def __init__(
        self, files: dict[str, FileFacts], roots: Iterable[str], read: Callable[[str], FileFacts | None]
    ) -> None:
        """Know the files.

        Args:
            files: The facts of each, by path; files that names lead to are added.
            roots: The folders from which absolute imports may start, in the order in which they are looked through.
            read: Returns the facts of a file that is not among ``files``, ``None`` where it cannot be read.
        """
        self._files = files
        self._roots = dict.fromkeys(roots)
        self._roots_with = _by_content(self._roots)
        self._read = read
        self._modules: dict[tuple[str, str], str | None] = {}
        self._on_disk: dict[str, tuple[str, ...]] = {}
        self._unreadable: set[str] = set()

    def class_of(self, key: ClassKey) -> ClassFact:
        """Return the facts of a class."""
        return self._files[key.path].classes[key.number]

    def meaning(self, path: str, chain: str, scope: int) -> Meaning:
        """Return what a dotted name means in a scope of a file."""
        return self._in_scope(self._files[path], chain.split("."), scope, _MAXIMUM_STEPS)

    def imported(self, path: str, level: int, module: str, name: str) -> Meaning:
        """Return what ``from module import name`` in a file brings."""
        return self._in_module(self._files[path], level, module, [name], _MAXIMUM_STEPS)

    def exports(self, path: str, name: str) -> Meaning:
        """Return what somebody gets who imports a name from a file."""
        return self._in_scope(self._files[path], [name], 0, _MAXIMUM_STEPS)

    def file_imported(self, path: str, level: int, module: str) -> str | None:
        """Return the file of the project that an import in ``path`` means, if it means one."""
        found = self._folder_or_file(path, level, module)
        return self._file_of(found) if found else None

    def _in_scope(self, facts: FileFacts, parts: list[str], scope: int, steps: int) -> Meaning:
        if steps <= 0:
            return None
        binding = binding_of(facts, parts[0], scope)
        if binding is None:
            return self._through_stars(facts, parts, steps - 1)
        return self._follow(facts, binding, parts[1:], scope, steps - 1)

    def _follow(self, facts: FileFacts, binding: Binding, rest: list[str], scope: int, steps: int) -> Meaning:
        match binding:
            case Imported(level, module, None):
                return self._in_module(facts, level, module, rest, steps)
            case Imported(level, module, str(attribute)):
                return self._in_module(facts, level, module, [attribute, *rest], steps)
            case LocalClass(number):
                return self._in_class(facts, number, rest, steps)
            case Alias(chain):
                return self._in_scope(facts, [*chain.split("."), *rest], scope, steps)
            case _:
                return None

    def _in_class(self, facts: FileFacts, number: int, rest: list[str], steps: int) -> Meaning:
        if not rest:
            return ClassKey(facts.path, number)
        scope = facts.classes[number].body_scope
        binding = facts.scopes[scope].names.get(rest[0])
        return None if binding is None else self._follow(facts, binding, rest[1:], scope, steps - 1)

    def _in_module(self, facts: FileFacts, level: int, module: str, names: list[str], steps: int) -> Meaning:
        """Return what a module's attribute, or an attribute of a module below it, means."""
        place = self._folder_or_file(facts.path, level, module)
        if place is None:
            return _external(".".join(filter(None, [module, *names]))) if not level else None
        while names:
            file = self._file_of(place)
            found = self._facts(file) if file else None
            if found is not None:
                meaning = self._in_scope(found, names, 0, steps - 1)
                if meaning is not None:
                    return meaning
            below = os.path.join(place, names[0])
            if self._file_of(below) is None and not os.path.isdir(below):
                return None
            place, names = below, names[1:]
        return None

    def _through_stars(self, facts: FileFacts, parts: list[str], steps: int) -> Meaning:
        for level, module in facts.stars:
            file = self.file_imported(facts.path, level, module)
            found = self._facts(file) if file else None
            if found is None:
                name = _external(".".join([module, *parts]))
                if not level and name in _KNOWN | {_NAMESAKE}:
                    return name
            elif _is_public(found, parts[0]) and (meaning := self._in_scope(found, parts, 0, steps)) is not None:
                return meaning
        return None

    # From modules to files.

    def _facts(self, file: str) -> FileFacts | None:
        if file not in self._files and file not in self._unreadable:
            facts = self._read(file)
            if facts is None:
                self._unreadable.add(file)
            else:
                self._files[file] = facts
        return self._files.get(file)

    def _folder_or_file(self, path: str, level: int, module: str) -> str | None:
        """Return where a module of the project lies: a folder, or a file without its suffix."""
        if not level and module.partition(".")[0] in _ALWAYS_OUTSIDE:
            return None
        folder = os.path.dirname(path)
        if level:
            for _ in range(level - 1):
                folder = os.path.dirname(folder)
            return os.path.join(folder, *module.split(".")) if module else folder
        key = (folder, module)
        if key not in self._modules:
            self._modules[key] = next(self._absolute(folder, module), None)
        return self._modules[key]

    def _absolute(self, folder: str, module: str) -> Iterator[str]:
        parts = module.split(".")
        for root in (*self._above(folder), *self._roots_with.get(parts[0], ())):
            place = os.path.join(root, *parts)
            if self._file_of(place) or os.path.isdir(place):
                yield place

    def _above(self, folder: str) -> list[str]:
        """Return a folder and those above it, up to the root that is nearest."""
        folders = [folder]
        while folders[-1] not in self._roots:
            above = os.path.dirname(folders[-1])
            if above == folders[-1]:
                return [folder]
            folders.append(above)
        return folders

    def _file_of(self, place: str) -> str | None:
        if place not in self._on_disk:
            self._on_disk[place] = tuple(_files_of(place))
        return next((file for file in self._on_disk[place] if file not in self._unreadable), None)


def _by_content(roots: Iterable[str]) -> dict[str, list[str]]:
    """Return the roots in which each name is, so that an import need not be looked for in all of them."""
    found: dict[str, list[str]] = {}
    for root in roots:
        try:
            names = {name.removesuffix(".py") for name in os.listdir(root)}
        except OSError:  # Python's own import finds nothing in it either
            continue
        for name in names:
            found.setdefault(name, []).append(root)
    return found


def _files_of(place: str) -> Iterator[str]:
    for file in (f"{place}.py", os.path.join(place, "__init__.py")):
        if os.path.isfile(file):
            yield os.path.realpath(file) if os.path.islink(file) else file


def _external(dotted: str) -> str:
    module, _, name = dotted.rpartition(".")
    return f"{_MOVED.get(module, module)}.{name}" if module else name


def _is_public(facts: FileFacts, name: str) -> bool:
    """Whether a star import of a file brings a name."""
    return name in facts.exported if facts.exported is not None else not name.startswith("_")
