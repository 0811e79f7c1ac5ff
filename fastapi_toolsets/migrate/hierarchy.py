"""Which method version 2 calls for which class and event, by Python's own method resolution order."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from .facts import EVENTS, MIXIN, FileFacts, Hook
from .names import ClassKey, Meaning, Names

_WITHOUT_THE_MIXIN = sys.stdlib_module_names | {"fastapi_toolsets", "sqlalchemy"}
"""Packages whose classes do not bring it, unless they are it."""


class HookKey(NamedTuple):
    """A callback that a class of the project defines."""

    owner: ClassKey
    name: str


class Hierarchy:
    """The classes of a project and their bases."""

    def __init__(self, files: Mapping[str, FileFacts], names: Names) -> None:
        """Resolve the bases of every class in ``files``, and of those that they lead to."""
        self._names = names
        self._stand_ins: dict[ClassKey | str, type | None] = {}
        self._keys: dict[type, ClassKey | str] = {}
        self._orders: dict[ClassKey, tuple[ClassKey | str, ...]] = {}
        for facts in list(files.values()):
            for fact in facts.classes:
                self.order(ClassKey(facts.path, fact.number))

    def order(self, key: ClassKey) -> tuple[ClassKey | str, ...]:
        """Return a class's method resolution order, itself first; empty where Python would refuse the class."""
        if key not in self._orders:
            stand_in = self._stand_in(key, frozenset())
            classes = () if stand_in is None else stand_in.__mro__
            self._orders[key] = tuple(self._keys[each] for each in classes if each in self._keys)
        return self._orders[key]

    def bases(self, key: ClassKey) -> tuple[Meaning, ...]:
        """Return what the bases of a class mean, as they are written."""
        fact = self._names.class_of(key)
        return tuple(self._names.meaning(key.path, base, fact.scope) if base else None for base in fact.bases)

    def classes(self) -> Iterable[ClassKey]:
        """Return every class that was looked at."""
        return list(self._orders)

    def is_watched(self, key: ClassKey) -> bool:
        """Whether version 2 calls the class's callbacks."""
        return MIXIN in self.order(key)

    def base_out_of_sight(self, key: ClassKey) -> str | None:
        """Return a base of a class, or of its bases, that nobody can look into here, as it is written."""
        for each in self.order(key):
            if isinstance(each, ClassKey):
                written = self._names.class_of(each).bases
                for base, meaning in zip(written, self.bases(each), strict=True):
                    package = meaning.partition(".")[0] if isinstance(meaning, str) else ""
                    if not isinstance(meaning, ClassKey) and package not in _WITHOUT_THE_MIXIN:
                        return base or "an expression"
        return None

    def hook(self, key: HookKey) -> Hook:
        """Return the facts of a callback."""
        hooks = self._names.class_of(key.owner).hooks
        return next(hook for hook in reversed(hooks) if hook.name == key.name)

    def defines(self, key: ClassKey, name: str) -> bool:
        """Whether a class itself defines a callback."""
        return any(hook.name == name for hook in self._names.class_of(key).hooks)

    def found(self, key: ClassKey, name: str, after: ClassKey | None = None) -> HookKey | None:
        """Return the definition that a class has of a method, or that ``super()`` finds in the class ``after``.

        ``None`` means the mixin's own, or nothing.
        """
        order = self.order(key)
        start = order.index(after) + 1 if after is not None else 0
        for each in order[start:]:
            if each == MIXIN:
                return None
            if isinstance(each, ClassKey) and self.defines(each, name):
                return HookKey(each, name)
        return None

    def called_for(self, key: ClassKey, event: str) -> HookKey | None:
        """Return what version 2 calls for an event of a class."""
        return self.found(key, EVENTS[event]) or self.found(key, "on_event")

    def hooks_of(self, key: ClassKey) -> Iterator[HookKey]:
        """Yield the callbacks that a class can have, its own and inherited ones."""
        for each in self.order(key):
            if each == MIXIN:
                return
            if isinstance(each, ClassKey):
                yield from (HookKey(each, hook.name) for hook in self._names.class_of(each).hooks)

    # Python itself says what the order is: of classes with the same bases.

    def _stand_in(self, key: ClassKey, below: frozenset[ClassKey]) -> type | None:
        if key in self._stand_ins:
            return self._stand_ins[key]
        made = None
        if key not in below:
            bases = [self._base(base, below | {key}) for base in self.bases(key)]
            if None not in bases:
                made = self._made("Class", tuple(base for base in bases if base is not None))
        self._stand_ins[key] = made
        if made is not None:
            self._keys[made] = key
        return made

    def _base(self, base: Meaning, below: frozenset[ClassKey]) -> type | None:
        if isinstance(base, ClassKey):
            return self._stand_in(base, below)
        if base is None:
            return self._made("Unknown", ())
        if base not in self._stand_ins:
            made = self._made("Outside", ())
            self._stand_ins[base] = made
            if made is not None:
                self._keys[made] = base
        return self._stand_ins[base]

    def _made(self, name: str, bases: tuple[type, ...]) -> type | None:
        try:
            return type(name, bases, {})
        except TypeError:  # no consistent order
            return None
