"""From the facts about all files to the edits of each."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable, Iterator, Mapping

from .deciding import Decisions, KeptMethod, decide
from .edits import CallEdit, ClassEdit, FileEdit, NewFunction, NewListener, Todo
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
    CallFact,
    ClassFact,
    FileFacts,
    ImportFact,
    Reference,
    Role,
    scope_binding,
)
from .hierarchy import Hierarchy, HookKey
from .names import ClassKey, Meaning, Names
from .out_of_sight import perhaps_watched

_SESSIONS = {ASYNC_SESSION: EVENT_SESSION, SESSION: SYNC_EVENT_SESSION}
_FACTORIES = {ASYNC_SESSIONMAKER: EVENT_SESSION, SESSIONMAKER: SYNC_EVENT_SESSION}
_GONE_MODULE = "fastapi_toolsets.models.watched"
_VERBS = {"on_create": "created", "on_update": "updated", "on_delete": "deleted", "on_event": "event"}


def plan(files: dict[str, FileFacts], given: frozenset[str], names: Names) -> list[FileEdit]:
    """Plan the edits of a project.

    Args:
        files: The facts of every file by path; what imports lead to is added.
        given: The paths of the files that may be rewritten.
        names: What names in the files mean.

    Returns:
        The edits of each file in which there is something to do, sorted by path.
    """
    hierarchy = Hierarchy(files, names)
    refused = dict(perhaps_watched(files, given, names, hierarchy))
    for path in sorted(given):
        refused |= dict(_refused(files[path], names))
    refused |= dict(_assigned(files, names, hierarchy))
    decisions = decide(files, hierarchy, given, refused)
    imported = _imported_elsewhere(files, names)
    plans = (
        _FilePlan(files[path], names, hierarchy, decisions, imported.get(path, frozenset())) for path in sorted(given)
    )
    return [edit for each in plans if not (edit := each.make()).is_empty]


def _refused(facts: FileFacts, names: Names) -> Iterator[tuple[ClassKey, str]]:
    """Yield the classes that cannot be rewritten, each with the reason."""
    for fact in facts.classes:
        key = ClassKey(facts.path, fact.number)
        watches = [
            each
            for each in fact.decorators
            if each.chain is not None and names.meaning(facts.path, each.chain, fact.scope) == WATCH
        ]
        in_body = facts.scopes[fact.body_scope].names
        if not watches:
            continue
        if len(watches) > 1:
            yield key, "it has several @watch decorators, of which only the first counted"
        elif not watches[0].is_call or not watches[0].plain_arguments:
            yield key, "@watch is not given names"
        elif watches[0].names & in_body.keys():
            yield key, "what @watch is given means something else inside the class"
        elif "__watched_fields__" in in_body:
            yield key, "it has both @watch and __watched_fields__"


def _assigned(files: Mapping[str, FileFacts], names: Names, hierarchy: Hierarchy) -> Iterator[tuple[ClassKey, str]]:
    """Yield the classes that are given a callback from outside, each with the place."""
    for facts in files.values():
        for each in facts.hook_assignments:
            owner = names.meaning(facts.path, each.chain, each.scope)
            for key in hierarchy.classes():
                if owner in hierarchy.order(key) and hierarchy.is_watched(key):
                    where = "" if key.path == facts.path else f", in {facts.path}"
                    yield key, f"{each.hook} is assigned to {each.chain} from outside the class{where}"


def _imported_elsewhere(files: Mapping[str, FileFacts], names: Names) -> dict[str, frozenset[str]]:
    """Return, by file, which of its names other files import; ``*`` stands for all."""
    found: dict[str, set[str]] = {}
    for facts in files.values():
        for each in facts.imports:
            if each.module is None:
                continue
            file = names.file_imported(facts.path, each.level, each.module)
            if file is not None:
                found.setdefault(file, set()).update(name for name, _alias in each.names)
    return {path: frozenset(imported) for path, imported in found.items()}


class _FilePlan:
    """Makes the edits of one file."""

    def __init__(
        self,
        facts: FileFacts,
        names: Names,
        hierarchy: Hierarchy,
        decisions: Decisions,
        imported_elsewhere: frozenset[str],
    ) -> None:
        self._facts = facts
        self._names = names
        self._hierarchy = hierarchy
        self._decisions = decisions
        self._imported_elsewhere = imported_elsewhere
        self._taken = set(facts.identifiers)
        self._converted_calls: set[tuple[int, Role]] = set()
        self._edit = FileEdit(facts.path, statements=facts.statements)

    def make(self) -> FileEdit:
        for fact in self._facts.classes:
            self._plan_class(fact)
        for call in self._facts.calls:
            self._plan_call(call)
        converted: list[Reference] = []
        staying: list[Reference] = []
        for reference in self._facts.references:
            (converted if self._is_converted(reference) else staying).append(reference)
        for reference in staying:
            self._plan_leftover(reference)
        self._edit.removed_aliases = {each.owner for each in converted if each.role is Role.ALIASED}
        if self._edit.removed_aliases:
            aliases = [name for name, bound in self._facts.scopes[0].names.items() if isinstance(bound, Alias)]
            self._edit.removed_exports |= {name for name in aliases if self._meaning(name, 0) in {MIXIN, WATCH}}
        from_stars = set(self._facts.exported or ()) - self._facts.scopes[0].names.keys()
        self._edit.removed_exports |= {name for name in from_stars if self._meaning(name, 0) in {MIXIN, WATCH}}
        for each in self._facts.imports:
            self._plan_import(each, converted, staying)
        self._edit.todos = list({todo.line: todo for todo in reversed(self._edit.todos)}.values())
        self._edit.todos.sort(key=lambda todo: todo.line)
        return self._edit

    def _meaning(self, chain: str, scope: int) -> Meaning:
        return self._names.meaning(self._facts.path, chain, scope)

    def _todo(self, line: int, message: str) -> None:
        self._edit.todos.append(Todo(line, message))

    # Classes.

    def _plan_class(self, fact: ClassFact) -> None:
        key = ClassKey(self._facts.path, fact.number)
        bases = self._hierarchy.bases(key)
        if key in self._decisions.for_a_person:
            self._todo(fact.line, f"{fact.qualname}: {self._decisions.for_a_person[key]}")
            return
        edit = ClassEdit()
        edit.removed_bases = {index for index, base in enumerate(bases) if base == MIXIN}
        for index, base in enumerate(bases):
            if isinstance(base, str) and base in _SESSIONS:
                edit.replaced_bases[index] = self._local_name(_SESSIONS[base])
        for index, decorator in enumerate(fact.decorators):
            if decorator.chain is not None and self._meaning(decorator.chain, fact.scope) == WATCH:
                edit.watch_decorator = index
        for hook in fact.hooks:
            self._plan_hook(HookKey(key, hook.name), fact, edit)
        for listener in self._decisions.listeners.get(key, ()):
            edit.listeners.append(self._new_listener(listener, fact))
            if listener.added:
                edit.added_methods.append(listener.method)
        if edit != ClassEdit():
            self._edit.classes[fact.number] = edit

    def _plan_hook(self, hook: HookKey, fact: ClassFact, edit: ClassEdit) -> None:
        if hook in self._decisions.functions:
            edit.functions.append(self._new_function(hook, fact))
            return
        calls = {(hook, call.hook) for call in self._hierarchy.hook(hook).super_calls}
        edit.dropped_supers |= {(hook.name, called) for _, called in calls & self._decisions.dropped_supers}
        defaults = {(hook.name, called) for _, called in calls & self._decisions.default_supers}
        edit.default_supers |= defaults
        if defaults:
            self._local_name(MODEL_EVENT)

    def _new_function(self, hook: HookKey, fact: ClassFact) -> NewFunction:
        facts = self._hierarchy.hook(hook)
        taken = set(facts.identifiers)
        _, *others = facts.parameters
        if hook.name == "on_event":
            event_name = others[0]
            changes_name = others[1] if len(others) > 1 else _free("changes", taken)
        else:
            event_name = _free("event_type", taken)
            changes_name = others[0] if others else _free("changes", taken)
        object_name = _object_name(fact.name, taken | {event_name, changes_name})
        self._local_name(LISTENS_FOR)
        self._local_name(MODEL_EVENT)
        return NewFunction(
            method=hook.name,
            name=self._function_name(hook.name, fact),
            target=fact.qualname,
            events=self._decisions.functions[hook],
            object_name=object_name,
            event_name=event_name,
            changes_name=changes_name,
        )

    def _new_listener(self, listener: KeptMethod, fact: ClassFact) -> NewListener:
        self._local_name(LISTENS_FOR)
        self._local_name(MODEL_EVENT)
        first, *others = listener.events
        return NewListener(
            method=listener.method,
            name=self._function_name("on_event" if others else f"on_{first.lower()}", fact),
            target=fact.qualname,
            events=listener.events,
            object_name=_object_name(fact.name, {"event_type", "changes"}),
            is_async=listener.all_async,
        )

    def _function_name(self, method: str, fact: ClassFact) -> str:
        short, long = (f"on_{_snake(name)}_{_VERBS[method]}" for name in (fact.name, fact.qualname))
        name = short if short not in self._taken else _free(long, self._taken)
        self._taken.add(name)
        return name

    def _local_name(self, known: str) -> str:
        """Return what the file calls one of the library's names, and see to its import."""
        name = known.rpartition(".")[2]
        if name not in self._edit.local_names:
            self._edit.local_names[name] = self._imported_as(known, name)
        return self._edit.local_names[name]

    def _imported_as(self, known: str, name: str) -> str:
        path, binds = self._facts.path, self._facts.scopes[0].names
        at_top = {
            alias or imported
            for each in self._facts.imports
            if each.at_top and each.module is not None
            for imported, alias in each.names
        }
        for candidate in (name, *sorted(at_top)):
            if candidate in at_top and self._names.exports(path, candidate) == known:
                return candidate
        means = self._names.exports(path, name)
        if means == known and name not in binds:  # a star import brings it
            return name
        prefix = "toolsets_" if name[0].islower() else "Toolsets"
        is_free = means == known or (means is None and name not in self._taken)
        local = name if is_free else _free(f"{prefix}{name}", self._taken)
        self._taken.add(local)
        self._edit.added_imports[name] = local
        self._edit.import_to_extend = next((each.number for each in self._facts.imports if _is_extensible(each)), None)
        return local

    # Calls.

    def _plan_call(self, call: CallFact) -> None:
        meaning = self._meaning(call.chain, call.scope)
        if meaning == "functools.partial" and call.first_argument is not None:
            meaning = self._meaning(call.first_argument, call.scope)
            meaning = meaning if isinstance(meaning, str) and meaning in _FACTORIES else None
        if not isinstance(meaning, str):
            return
        if meaning in _SESSIONS:
            self._convert(call, CallEdit(self._local_name(_SESSIONS[meaning]), None), Role.CALLED)
        elif meaning in _FACTORIES:
            self._plan_factory(call, _FACTORIES[meaning])

    def _plan_factory(self, call: CallFact, session_class: str) -> None:
        keywords = dict(call.keywords)
        if "class_" in keywords:
            chain = keywords["class_"]
            meaning = self._meaning(chain, call.scope) if chain else None
            if isinstance(meaning, str) and meaning in _SESSIONS:
                self._convert(call, CallEdit(None, self._local_name(_SESSIONS[meaning])), Role.SESSION_CLASS)
            elif not self._is_event_session(meaning):
                self._todo(call.line, f"give this session factory a class_ that is derived from {_last(session_class)}")
        elif call.unpacks:
            self._todo(call.line, f"see that this session factory is given class_={_last(session_class)}")
        elif "sync_session_class" in keywords and not self._is_event_session(
            self._meaning(keywords["sync_session_class"] or "?", call.scope)
        ):
            self._todo(call.line, "derive the sync_session_class of this factory from SyncEventSession")
        else:
            self._convert(call, CallEdit(None, self._local_name(session_class)), Role.SESSION_CLASS)

    def _convert(self, call: CallFact, edit: CallEdit, role: Role) -> None:
        self._edit.calls[call.number] = edit
        self._converted_calls.add((call.number, role))

    def _is_event_session(self, meaning: Meaning) -> bool:
        """Whether it is one of the library's session classes, or will be when the project is rewritten."""
        if isinstance(meaning, ClassKey):
            return any(each in {*_SESSIONS, *_SESSIONS.values()} for each in self._hierarchy.order(meaning))
        return meaning in _SESSIONS.values()

    # Imports.

    def _is_converted(self, reference: Reference) -> bool:
        meaning = self._meaning(reference.chain, reference.scope)
        match reference.role:
            case Role.BASE:
                return meaning in {MIXIN, *_SESSIONS} and not self._is_left(reference.owner)
            case Role.DECORATOR:
                return meaning == WATCH and not self._is_left(reference.owner)
            case Role.CALLED | Role.SESSION_CLASS:
                return (reference.owner, reference.role) in self._converted_calls
            case Role.ALIASED:
                return meaning in {MIXIN, WATCH}
            case Role.OTHER:
                return False

    def _is_left(self, number: int) -> bool:
        return ClassKey(self._facts.path, number) in self._decisions.for_a_person

    def _plan_leftover(self, reference: Reference) -> None:
        """Leave to a person what names something of version 2 in a way that no rule covers."""
        meaning = self._meaning(reference.chain, reference.scope)
        if reference.role in {Role.BASE, Role.DECORATOR} and self._is_left(reference.owner):
            return
        for gone in (MIXIN, WATCH):
            if isinstance(meaning, str) and (meaning == gone or meaning.startswith(f"{gone}.")):
                self._todo(reference.line, f"{_last(gone)} does not exist in version 3")

    def _plan_import(self, each: ImportFact, converted: list[Reference], staying: list[Reference]) -> None:
        if each.level == 0 and each.module == _GONE_MODULE:
            self._edit.moved_imports.add(each.number)
        for index, (name, alias) in enumerate(each.names):
            bound = alias or (name if each.module is not None else name.partition(".")[0])
            still_used = [reference for reference in staying if self._is_of(reference, bound, each.scope)]
            if name == _GONE_MODULE and each.module is None and still_used:
                self._todo(still_used[0].line, f"{_GONE_MODULE} does not exist in version 3")
            if name == "*" or still_used:
                continue
            meaning = self._meaning(bound, each.scope)
            gone = each.module is not None and self._imports_what_is_gone(each, each.module, name)
            if gone and meaning not in {MIXIN, WATCH}:
                self._todo(each.line, f"{name} does not exist in version 3")
            elif meaning in {MIXIN, WATCH}:
                self._edit.removed_imports.setdefault(each.number, set()).add(index)
                self._edit.removed_exports.add(bound)
            elif any(self._is_of(reference, bound, each.scope) for reference in converted) and not (
                self._is_wanted_elsewhere(bound)
            ):
                self._edit.unneeded_imports.setdefault(each.number, {})[index] = bound

    def _imports_what_is_gone(self, each: ImportFact, module: str, name: str) -> bool:
        return self._names.imported(self._facts.path, each.level, module, name) in {MIXIN, WATCH}

    def _is_of(self, reference: Reference, name: str, scope: int) -> bool:
        root = reference.chain.partition(".")[0]
        return root == name and scope_binding(self._facts, root, reference.scope) == scope

    def _is_wanted_elsewhere(self, name: str) -> bool:
        return bool({name, "*"} & self._imported_elsewhere) or name in (self._facts.exported or ())


def _is_extensible(each: ImportFact) -> bool:
    known = each.module in {"fastapi_toolsets.models", _GONE_MODULE}
    return known and each.at_top and each.level == 0 and each.names[0][0] != "*"


def _last(dotted: str) -> str:
    return dotted.rpartition(".")[2]


def _snake(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.replace(".", "_"))
    return re.sub(r"_+", "_", words).strip("_").lower()


def _free(name: str, taken: Iterable[str]) -> str:
    """Return a name that nothing has yet: with an underscore before it or a number behind it if need be."""
    known = set(taken)
    candidates = [name, *(f"{name}_{number}" for number in range(2, len(known) + 3))]
    return next(candidate for candidate in candidates if candidate not in known)


def _object_name(class_name: str, taken: set[str]) -> str:
    """Return what the object is called in a listener to a class."""
    snake = _snake(class_name)
    usable = [snake] if snake.isidentifier() and not keyword.iskeyword(snake) and not hasattr(builtins, snake) else []
    return next((name for name in (*usable, "obj", "instance") if name not in taken), _free(f"the_{snake}", taken))
