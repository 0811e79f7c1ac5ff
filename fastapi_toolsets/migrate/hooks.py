"""The callback methods of a class, and which of them can become functions outside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from .facts import HOOKS, Hook, SuperCall, SuperForm

Function = ast.FunctionDef | ast.AsyncFunctionDef

_FRAME_READERS = {"locals", "vars", "eval", "exec", "dir", "__class__"}
_EXTRA_PARAMETERS = {"on_create": 0, "on_delete": 0, "on_update": 1, "on_event": 2}
"""How many parameters version 2 had arguments for, besides the object."""


def hooks_of(class_: ast.ClassDef) -> Iterator[Hook]:
    """Yield the callbacks that a class defines: methods, and whatever else is assigned to such a name."""
    seen: set[str] = set()
    in_class = _names_of_the_class(class_)
    for statement in class_.body:
        if isinstance(statement, Function):
            if statement.name in HOOKS:
                method = _method(statement, in_class)
                yield replace(method, stays="it is defined twice") if statement.name in seen else method
                seen.add(statement.name)
            continue
        if isinstance(statement, ast.ClassDef):
            continue
        for name in dict.fromkeys(_names_defined_in(statement)):
            yield Hook(name, statement.lineno, False, "it is not a plain method", (), (), frozenset())  # noqa: FBT003


def is_override(decorator: ast.expr) -> bool:
    """Whether it is typing's ``@override``, which means nothing outside a class."""
    match decorator:
        case ast.Name(id="override"):
            return True
        case ast.Attribute(attr="override", value=ast.Name(id="typing" | "typing_extensions" | "t")):
            return True
        case _:
            return False


def _names_defined_in(statement: ast.stmt) -> Iterator[str]:
    return (name for node in ast.walk(statement) if (name := _name_defined_by(node)) in HOOKS)


def _name_defined_by(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.alias(asname=str(name)) | ast.alias(name=name, asname=None):
            return name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case _:
            return ""


def _names_of_the_class(class_: ast.ClassDef) -> frozenset[str]:
    """Return what has a meaning of its own in a class's body, which is lost outside it."""
    return frozenset(map(_name_defined_by, _own_nodes(class_)))


def _method(method: Function, in_class: frozenset[str]) -> Hook:
    parameters = _parameters(method)
    own = list(_own_nodes(method))
    everything = [node for statement in method.body for node in ast.walk(statement)]
    identifiers = {node.id for node in everything if isinstance(node, ast.Name)}
    identifiers |= {node.arg for node in everything if isinstance(node, ast.arg)}
    return Hook(
        name=method.name,
        line=min([method.lineno, *(decorator.lineno for decorator in method.decorator_list)]),
        is_async=isinstance(method, ast.AsyncFunctionDef),
        stays=_reason_to_stay(method, parameters, everything, own) or _reason_outside_the_body(method, in_class),
        parameters=parameters or (),
        super_calls=tuple(_super_calls(method, parameters or (), own)),
        identifiers=frozenset(identifiers | set(parameters or ())),
    )


def _parameters(method: Function) -> tuple[str, ...] | None:
    """Return the names of the parameters, or ``None`` where they are not those of version 2."""
    arguments = method.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    extra = _EXTRA_PARAMETERS[method.name]
    if method.name == "on_event" and [argument.arg for argument in arguments.kwonlyargs] == ["changes"]:
        names.append("changes")
    elif arguments.kwonlyargs:
        return None
    required = 1 + extra - (method.name == "on_event")
    if arguments.vararg or arguments.kwarg or not required <= len(names) <= 1 + extra:
        return None
    return tuple(names)


def _own_nodes(definition: Function | ast.ClassDef) -> Iterator[ast.AST]:
    """Walk the body of a function or class without what is inside the functions and classes in it."""
    waiting: list[ast.AST] = list(definition.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function | ast.Lambda | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(node))


def _reason_to_stay(
    method: Function, parameters: tuple[str, ...] | None, everything: list[ast.AST], own: list[ast.AST]
) -> str | None:
    if not all(is_override(decorator) for decorator in method.decorator_list):
        return "it is decorated"
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own):
        return "it is a generator"
    if parameters is None:
        return "its parameters are not those of version 2"
    inner = {node.arg for node in everything if isinstance(node, ast.arg)}
    supers = sum(isinstance(node, ast.Name) and node.id == "super" for node in everything)
    if (
        inner & set(parameters)
        or any(_is_bound_to_the_class(node, parameters[0]) for node in everything)
        or supers != sum(_is_plain_super(node) for node in own)
    ):
        return "its body only works in the class"
    return None


def _reason_outside_the_body(method: Function, in_class: frozenset[str]) -> str | None:
    """Look at annotations and defaults: they are the only part of a method that sees the names of its class."""
    outside = [method.args, *([] if method.returns is None else [method.returns])]
    names = {node.id for part in outside for node in ast.walk(part) if isinstance(node, ast.Name)}
    return "its annotations or defaults are names of the class" if names & in_class else None


def _is_bound_to_the_class(node: ast.AST, self_name: str) -> bool:
    match node:
        case ast.Name(id=name) if _is_mangled(name) or name in _FRAME_READERS:
            return True
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return name == self_name
        case ast.Attribute(attr=name):
            return _is_mangled(name)
        case ast.Nonlocal(names=names):
            return self_name in names
        case _:
            return False


def _is_mangled(name: str) -> bool:
    return name.startswith("__") and not name.endswith("__")


def _is_plain_super(node: ast.AST) -> bool:
    """Whether it is ``super().name`` or ``super(Class, self).name``."""
    return isinstance(node, ast.Attribute) and _called_super(node.value) is not None


def _called_super(node: ast.expr) -> ast.Call | None:
    match node:
        case ast.Call(func=ast.Name(id="super"), args=[] | [ast.Name(), ast.Name()], keywords=[]):
            return node
        case _:
            return None


def _super_calls(method: Function, parameters: tuple[str, ...], own: list[ast.AST]) -> Iterator[SuperCall]:
    statements = {call: statement for statement in own if (call := _call_that_is_all_of(statement)) is not None}
    returns = [node for node in own if isinstance(node, ast.Return)]
    last = method.body[-1]
    for node in (each for statement in method.body for each in ast.walk(statement)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name)) if name in HOOKS:
                statement = statements.get(node)
                form = SuperForm.PART if statement is None else SuperForm.STATEMENT
                passes_on = name == method.name and _passes_on(node, parameters)
                if statement is last and passes_on and all(each is last for each in returns):
                    form = SuperForm.LAST
                yield SuperCall(name, form)
            case _:
                pass


def _call_that_is_all_of(statement: ast.AST) -> ast.Call | None:
    match statement:
        case (
            ast.Expr(value=ast.Await(value=ast.Call() as call)) | ast.Return(value=ast.Await(value=ast.Call() as call))
        ):
            return call
        case ast.Expr(value=ast.Call() as call) | ast.Return(value=ast.Call() as call):
            return call
        case _:
            return None


def _passes_on(call: ast.Call, parameters: tuple[str, ...]) -> bool:
    """Whether a call is given the parameters of the method, all of them and in their order."""
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return [each.id for each in given if isinstance(each, ast.Name)] == list(parameters[1:])
