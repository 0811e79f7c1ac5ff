"""What becomes of each callback: a function, a method with a listener that calls it, or a task for a person."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .facts import EVENTS, MIXIN, FileFacts, HookUse, SuperCall, SuperForm
from .hierarchy import Hierarchy, HookKey
from .names import ClassKey


@dataclass(frozen=True, slots=True)
class KeptMethod:
    """A listener that calls a method, which stays: overriding or other code needs it where it is."""

    target: ClassKey
    events: tuple[str, ...]
    method: str
    all_async: bool
    """Whether every definition of the method is an async function."""
    added: bool
    """Whether the target gets the method first, which it had from the mixin: one that calls ``on_event``."""


@dataclass(slots=True)
class Decisions:
    """What was decided about the classes of a project."""

    functions: dict[HookKey, tuple[str, ...]] = field(default_factory=dict[HookKey, tuple[str, ...]])
    """Methods that become functions, and the events that each listens to."""
    listeners: dict[ClassKey, list[KeptMethod]] = field(default_factory=dict[ClassKey, list[KeptMethod]])
    """By the class that is listened to, listeners that call a method."""
    dropped_supers: set[tuple[HookKey, str]] = field(default_factory=set[tuple[HookKey, str]])
    """Calls of ``super()`` in a method, and what they call, that did nothing or that the listeners make superfluous."""
    default_supers: set[tuple[HookKey, str]] = field(default_factory=set[tuple[HookKey, str]])
    """Calls of ``super()`` that went to ``on_event`` through the mixin."""
    for_a_person: dict[ClassKey, str] = field(default_factory=dict[ClassKey, str])
    """Classes that are left as they are, each with the reason."""


@dataclass(slots=True)
class _Family:
    """Classes that share callbacks by inheritance: what is done to one has to fit the others."""

    watched: list[ClassKey]
    hooks: list[HookKey]


class CannotDecideError(Exception):
    """A family is left to a person; the message says why."""


def decide(
    files: Mapping[str, FileFacts], hierarchy: Hierarchy, given: frozenset[str], refused: Mapping[ClassKey, str]
) -> Decisions:
    """Decide for each family of classes.

    Args:
        files: The facts of every file.
        hierarchy: The classes in them.
        given: The paths of the files that may be rewritten.
        refused: Classes that have to be left alone anyway, each with the reason.
    """
    decisions = Decisions(for_a_person=dict(refused))
    uses = [(facts.path, use) for facts in files.values() for use in facts.hook_uses]
    for family in _families(hierarchy):
        try:
            _decide(family, decisions, hierarchy, given, uses)
        except CannotDecideError as error:
            for key in {*family.watched, *(hook.owner for hook in family.hooks)}:
                decisions.for_a_person.setdefault(key, str(error))
    return decisions


def _families(hierarchy: Hierarchy) -> Iterator[_Family]:
    leader: dict[ClassKey, ClassKey] = {}

    def leader_of(key: ClassKey) -> ClassKey:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    definers = {
        key: list(dict.fromkeys(hook.owner for hook in hierarchy.hooks_of(key)))
        for key in hierarchy.classes()
        if hierarchy.is_watched(key)
    }
    for owners in definers.values():
        for owner in owners[1:]:
            leader[leader_of(owner)] = leader_of(owners[0])
    families: dict[ClassKey, _Family] = defaultdict(lambda: _Family([], []))
    for key, owners in definers.items():
        if owners:
            family = families[leader_of(owners[0])]
            family.watched.append(key)
            family.hooks.extend(hook for hook in hierarchy.hooks_of(key) if hook not in family.hooks)
    yield from families.values()


def _decide(
    family: _Family,
    decisions: Decisions,
    hierarchy: Hierarchy,
    given: frozenset[str],
    uses: Sequence[tuple[str, HookUse]],
) -> None:
    members = {*family.watched, *(hook.owner for hook in family.hooks)}
    for key in sorted(members & decisions.for_a_person.keys()):
        raise CannotDecideError(decisions.for_a_person[key])
    for hook in family.hooks:
        if hook.owner.path not in given:
            raise CannotDecideError(f"{hook.name} is also defined in {hook.owner.path}, which is not among the paths")
    if not any(_uses_family(path, use, family, hierarchy) for path, use in uses) and _are_functions(family, hierarchy):
        for hook in family.hooks:
            if events := _events(hook, hierarchy):
                decisions.functions[hook] = events
                supers = {(hook, call.hook) for call in hierarchy.hook(hook).super_calls}
                decisions.dropped_supers |= supers
    else:
        _keep_methods(family, decisions, hierarchy)


def _uses_family(path: str, use: HookUse, family: _Family, hierarchy: Hierarchy) -> bool:
    """Whether code besides version 2 itself may call one of the family's methods."""
    if all(hook.name != use.hook for hook in family.hooks):
        return False
    if not use.through_self or use.owner is None:
        return True
    owner = ClassKey(path, use.owner)
    above = hierarchy.order(owner)
    return any(hook.owner in above for hook in family.hooks) or any(
        owner in hierarchy.order(key) for key in family.watched
    )


def _events(hook: HookKey, hierarchy: Hierarchy) -> tuple[str, ...]:
    """Return the events for which version 2 called a method of its own class."""
    return tuple(event for event in EVENTS if hierarchy.called_for(hook.owner, event) == hook)


# Functions.


def _are_functions(family: _Family, hierarchy: Hierarchy) -> bool:
    """Whether listeners are called for the same classes, in the same order, as the methods were."""
    for hook in family.hooks:
        if not _events(hook, hierarchy):
            continue
        facts = hierarchy.hook(hook)
        if facts.stays is not None or not all(_can_go(hook, call, family, hierarchy) for call in facts.super_calls):
            return False
    if any(_is_used_unwatched(hook.owner, hierarchy) for hook in family.hooks):
        return False
    return all(
        _called_in_v2(key, event, hierarchy) == _called_in_v3(key, event, hierarchy)
        for key in family.watched
        for event in EVENTS
    )


def _can_go(hook: HookKey, call: SuperCall, family: _Family, hierarchy: Hierarchy) -> bool:
    """Whether a call of ``super()`` can be left out where its method has become a listener."""
    targets = _targets(hook, call, family, hierarchy)
    if all(target is None for target in targets):
        return call.form is not SuperForm.PART and not _reaches_on_event(hook, call, family, hierarchy)
    return call.form is SuperForm.LAST


def _called_in_v2(key: ClassKey, event: str, hierarchy: Hierarchy) -> list[HookKey]:
    hook = hierarchy.called_for(key, event)
    called: list[HookKey] = []
    while hook is not None:
        called.append(hook)
        last = any(call.form is SuperForm.LAST for call in hierarchy.hook(hook).super_calls)
        hook = hierarchy.found(key, hook.name, after=hook.owner) if last else None
    return called


def _called_in_v3(key: ClassKey, event: str, hierarchy: Hierarchy) -> list[HookKey]:
    names = (EVENTS[event], "on_event")
    return [
        hook
        for owner in hierarchy.order(key)
        if isinstance(owner, ClassKey)
        for name in names
        if hierarchy.defines(owner, name) and event in _events(hook := HookKey(owner, name), hierarchy)
    ]


def _is_used_unwatched(owner: ClassKey, hierarchy: Hierarchy) -> bool:
    """Whether a class brings its callbacks to classes for which version 2 never called them."""
    if hierarchy.is_watched(owner):
        return False
    below = [key for key in hierarchy.classes() if owner in hierarchy.order(key)[1:]]
    watched = [key for key in below if hierarchy.is_watched(key)]
    return any(
        not hierarchy.is_watched(key) and not any(key in hierarchy.order(each) for each in watched) for key in below
    )


# Methods that stay.


def _keep_methods(family: _Family, decisions: Decisions, hierarchy: Hierarchy) -> None:
    dropped: set[tuple[HookKey, str]] = set()
    defaults: set[tuple[HookKey, str]] = set()
    for hook in family.hooks:
        for call in hierarchy.hook(hook).super_calls:
            targets = _targets(hook, call, family, hierarchy)
            if all(target is not None for target in targets):
                continue
            if call.form is SuperForm.PART or any(target is not None for target in targets):
                raise CannotDecideError(f"{hook.name} calls super().{call.hook}(), which the mixin answered")
            reaches = _reaches_on_event(hook, call, family, hierarchy)
            (defaults if reaches else dropped).add((hook, call.hook))
    listeners = list(_listeners(family, hierarchy))
    decisions.dropped_supers |= dropped
    decisions.default_supers |= defaults
    for listener in listeners:
        decisions.listeners.setdefault(listener.target, []).append(listener)


def _listeners(family: _Family, hierarchy: Hierarchy) -> Iterator[KeptMethod]:
    found: dict[tuple[ClassKey, str, bool], list[str]] = defaultdict(list)
    for event, method in EVENTS.items():
        calling = {key: hook for key in family.watched if (hook := hierarchy.called_for(key, event)) is not None}
        tops = [key for key in calling if not any(each in calling for each in hierarchy.order(key)[1:])]
        overridden: set[ClassKey] = set()
        for key, hook in calling.items():
            above = [top for top in tops if top in hierarchy.order(key)]
            if len(above) != 1:
                raise CannotDecideError(f"it gets {hook.name} from more than one base")
            if calling[above[0]].name != hook.name:
                overridden.add(above[0])
        for top in tops:
            name = method if top in overridden else calling[top].name
            found[top, name, top in overridden].append(event)
    for (target, method, added), events in found.items():
        yield KeptMethod(
            target, tuple(events), method, _all_async(family, method, added=added, hierarchy=hierarchy), added
        )


def _all_async(family: _Family, method: str, *, added: bool, hierarchy: Hierarchy) -> bool:
    """Whether what a call returns can always be awaited."""
    names = {method, "on_event"} if added else {method}
    definitions = [hierarchy.hook(hook) for hook in family.hooks if hook.name in names]
    unsure = {"it is a generator", "it is decorated", "it is not a plain method"}
    return all(each.is_async and each.stays not in unsure for each in definitions)


def _targets(hook: HookKey, call: SuperCall, family: _Family, hierarchy: Hierarchy) -> list[HookKey | None]:
    """Return what a call of ``super()`` reaches in each class; ``None`` stands for the mixin."""
    return [hierarchy.found(key, call.hook, after=hook.owner) for key in _heirs(hook, family, hierarchy)]


def _reaches_on_event(hook: HookKey, call: SuperCall, family: _Family, hierarchy: Hierarchy) -> bool:
    """Whether the mixin's answer to a call of ``super()`` was to call an ``on_event`` that somebody wrote."""
    if call.hook == "on_event":
        return False
    reached = [hierarchy.found(key, "on_event") is not None for key in _heirs(hook, family, hierarchy)]
    if any(reached) and not all(reached):
        raise CannotDecideError(f"{hook.name} calls super(), which leads to on_event in some classes only")
    return any(reached)


def _heirs(hook: HookKey, family: _Family, hierarchy: Hierarchy) -> Iterable[ClassKey]:
    """Return the classes whose callback a definition can be part of."""
    return [key for key in family.watched if hook.owner in hierarchy.order(key) and MIXIN in hierarchy.order(key)]
