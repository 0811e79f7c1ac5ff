"""Classes that version 2 may have watched through a base that is not among the files: nobody can say from here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .facts import LISTENS_FOR, MIXIN, WATCH, FileFacts, Role
from .hierarchy import Hierarchy
from .names import ClassKey, Names


def perhaps_watched(
    files: Mapping[str, FileFacts], given: frozenset[str], names: Names, hierarchy: Hierarchy
) -> Iterator[tuple[ClassKey, str]]:
    """Yield the classes with callbacks that may have got the mixin out of sight, each with the reason to ask a person.

    Only where something says that there is a mixin: ``@watch`` on the class, or code in the project that names the
    mixin in a way that is not followed, as ``declarative_base(cls=WatchedFieldsMixin)`` does.
    """
    paths = sorted(given)
    mixin_goes_elsewhere = any(
        each.role is Role.OTHER and names.meaning(path, each.chain, each.scope) == MIXIN
        for path in paths
        for each in files[path].references
    )
    listened_to = {
        names.meaning(path, call.first_argument, call.scope)
        for path, facts in files.items()
        for call in facts.calls
        if call.first_argument is not None and names.meaning(path, call.chain, call.scope) == LISTENS_FOR
    }
    for path in paths:
        for fact in files[path].classes:
            key = ClassKey(path, fact.number)
            hook = next(hierarchy.hooks_of(key), None)
            if hook is None or hierarchy.is_watched(key) or listened_to & {*hierarchy.order(key)}:
                continue
            base = hierarchy.base_out_of_sight(key)
            says_so = (mixin_goes_elsewhere and fact.hooks) or any(
                each.chain is not None and names.meaning(path, each.chain, fact.scope) == WATCH
                for each in fact.decorators
            )
            if base is not None and says_so:
                yield key, f"{hook.name} was a callback if {base} brings WatchedFieldsMixin, which cannot be seen here"
