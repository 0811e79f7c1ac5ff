"""From a file's source to the facts about it, by the syntax tree of Python itself, which is quick to make."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace

from .facts import (
    HOOKS,
    Alias,
    Binding,
    CallFact,
    ClassFact,
    Counts,
    Decorator,
    FileFacts,
    HookAssignment,
    HookUse,
    Imported,
    ImportFact,
    LocalClass,
    Other,
    Reference,
    Role,
    Scope,
    binding_of,
)
from .hooks import Function, hooks_of
from .syntax import (
    chain_of,
    expressions_in,
    first_line,
    is_of_the_application,
    is_super,
    outside_of,
    parameters_of,
    position_of,
    strings_in,
    unsubscripted,
)

_UNINTERESTING = sys.stdlib_module_names - {"functools"}


def read_facts(path: str, source: bytes) -> FileFacts:
    """Read a file's source.

    Args:
        path: The file's absolute path.
        source: What it holds, in the encoding that it declares.

    Raises:
        SyntaxError: It is not Python, or not in its encoding.
        ValueError: It holds a null byte.
        RecursionError: Its expressions are nested too deeply.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the file's literals, which is none of our business
        tree = ast.parse(source, path)
    return _Reader(path).read(tree)


class _Reader(ast.NodeVisitor):
    """Walks a tree once, in the order of the source."""

    def __init__(self, path: str) -> None:
        self.facts = FileFacts(path, scopes=[Scope(None)])
        self._scope = 0
        self._line = 1
        self._enclosing: list[ClassFact] = []
        """The classes around the node, from the outermost on; none where a function stands between."""
        self._owner: int | None = None
        self._calls: list[tuple[ast.Call, CallFact | None]] = []
        self._roles: dict[ast.expr, tuple[Role, int]] = {}
        self._identifiers: set[str] = set()
        self._in_f_string = False
        self._in_handler = False
        self._assignments = 0
        self._top: frozenset[ast.stmt] = frozenset()

    def read(self, tree: ast.Module) -> FileFacts:
        self._top = frozenset(tree.body)
        facts = self.facts
        for statement in tree.body:
            facts.statements.append(self._counts())
            self.visit(statement)
        facts.statements.append(self._counts())
        in_order = sorted(range(len(self._calls)), key=lambda index: position_of(self._calls[index][0]))
        numbers = {index: number for number, index in enumerate(in_order)}
        facts.calls = [
            replace(fact, number=numbers[index])
            for index, (_node, fact) in enumerate(self._calls)
            if fact is not None and self._is_interesting(fact.chain, fact.scope)
        ]
        facts.references = [
            replace(each, owner=numbers[each.owner]) if each.role in {Role.CALLED, Role.SESSION_CLASS} else each
            for each in facts.references
            if self._is_interesting(each.chain, each.scope)
        ]
        facts.identifiers = frozenset(self._identifiers)
        return facts

    def _counts(self) -> Counts:
        return Counts(len(self.facts.classes), len(self._calls), len(self.facts.imports), self._assignments)

    def _is_interesting(self, chain: str, scope: int) -> bool:
        """Whether a name may come from the library, from SQLAlchemy's sessions or from another file."""
        binding = binding_of(self.facts, chain.partition(".")[0], scope)
        if binding is None:
            return bool(self.facts.stars)
        if isinstance(binding, Imported):
            package = binding.module.partition(".")[0]
            return bool(binding.level) or package not in _UNINTERESTING
        return isinstance(binding, Alias | LocalClass)

    # Names.

    def _bind(self, name: str, binding: Binding) -> None:
        self._identifiers.add(name)
        names = self.facts.scopes[self._scope].names
        known = names.get(name)
        if known is None:
            names[name] = binding
        elif self._in_handler:
            return  # what stands in for an import that failed
        elif known != binding and not (isinstance(known, Imported) and isinstance(binding, Imported)):
            names[name] = Other()

    def _refer(self, node: ast.expr) -> bool:
        """Note the use of a dotted name; return whether it is one."""
        chain = chain_of(node)
        if chain is None:
            return False
        role, owner = self._roles.get(node, (Role.OTHER, 0))
        first, *_ = names = chain.split(".")
        self._identifiers.update(names)
        if first in HOOKS and self.facts.scopes[self._scope].is_class:  # as in `handlers = [on_create]`
            self.facts.hook_uses.append(HookUse(first, self._line, through_self=True, owner=self._owner))
        self.facts.references.append(Reference(chain, self._scope, self._line, role, owner))
        return True

    def visit_Name(self, node: ast.Name) -> None:
        self._identifiers.add(node.id)
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id, Other())
        elif isinstance(node.ctx, ast.Load):
            self._refer(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in HOOKS and not is_super(node.value):
            through_self = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            self.facts.hook_uses.append(HookUse(node.attr, self._line, through_self, self._owner))
            chain = chain_of(node.value)
            if isinstance(node.ctx, ast.Store) and chain is not None:
                self.facts.hook_assignments.append(HookAssignment(node.attr, chain, self._scope))
        if not isinstance(node.ctx, ast.Load) or not self._refer(node):
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        hook = node.value.rpartition(".")[2] if isinstance(node.value, str) else ""
        if hook in HOOKS:  # as getattr() is given it, or mock.patch() with what it is an attribute of
            self.facts.hook_uses.append(HookUse(hook, self._line, through_self=False, owner=self._owner))

    # Statements.

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            self._line = first_line(node)
        super().visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            self._bind(name, Imported(0, alias.name if alias.asname else name, None))
        self._note_import(node, 0, None)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.facts.stars.append((node.level, node.module or ""))
            else:
                self._bind(alias.asname or alias.name, Imported(node.level, node.module or "", alias.name))
        self._note_import(node, node.level, node.module or "")

    def _note_import(self, node: ast.Import | ast.ImportFrom, level: int, module: str | None) -> None:
        names = tuple((alias.name, alias.asname) for alias in node.names)
        number, at_top = len(self.facts.imports), node in self._top
        self.facts.imports.append(ImportFact(number, node.lineno, at_top, self._scope, level, module, names))

    def visit_Assign(self, node: ast.Assign) -> None:
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            self._roles[node.value] = (Role.ALIASED, self._assignments)
        self._assignments += 1
        self._assign(node.targets, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._visit_all([node.annotation])
        self._refer_to_quoted([node.annotation])
        self._assign([node.target], node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name) and node.target.id == "__all__" and self._scope == 0:
            self.facts.exported = (*(self.facts.exported or ()), *strings_in(node.value))
        self.generic_visit(node)

    def _assign(self, targets: Sequence[ast.expr], value: ast.expr | None) -> None:
        if value is not None:
            self.visit(value)
        match targets:
            case [ast.Name(id="__all__")] if self._scope == 0 and value is not None:
                self.facts.exported = (*(self.facts.exported or ()), *strings_in(value))
            case [ast.Name(id=name)]:
                chain = chain_of(value)
                self._bind(name, Alias(chain) if chain else Other())
            case _:
                for target in targets:
                    self.visit(target)

    def _refer_to_quoted(self, annotations: Iterable[ast.expr | None]) -> None:
        """Note the names in annotations that are strings. Where they stand, nothing is rewritten."""
        for annotation in annotations:
            for node in ast.walk(annotation) if annotation is not None else ():
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    for name in expressions_in(node.value):
                        self._refer(name)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        outer, self._in_handler = self._in_handler, True
        self.generic_visit(node)
        self._in_handler = outer

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def _function(self, node: Function) -> None:
        self._bind(node.name, Other())
        self._visit_all([*node.decorator_list, *outside_of(node.args), node.returns])
        self._refer_to_quoted([*(argument.annotation for argument in parameters_of(node.args)), node.returns])
        outer, enclosing = self._enter(is_class=False), self._enclosing
        self._enclosing = []
        self._bind_parameters(node.args)
        self._visit_all(node.body)
        self._scope, self._enclosing = outer, enclosing

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_all(outside_of(node.args))
        outer = self._enter(is_class=False)
        self._bind_parameters(node.args)
        self.visit(node.body)
        self._scope = outer

    def _bind_parameters(self, arguments: ast.arguments) -> None:
        for argument in parameters_of(arguments):
            self._bind(argument.arg, Other())

    def _enter(self, *, is_class: bool) -> int:
        outer = self._scope
        self.facts.scopes.append(Scope(outer, is_class))
        self._scope = len(self.facts.scopes) - 1
        return outer

    def _visit_all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        number = len(self.facts.classes)
        self._bind(node.name, LocalClass(number))
        around = self._enclosing
        fact = ClassFact(
            number=number,
            outermost=around[0].number if around else number,
            name=node.name,
            qualname=".".join([*(each.name for each in around), node.name]),
            line=first_line(node),
            scope=self._scope,
            body_scope=len(self.facts.scopes),
            bases=tuple(chain_of(unsubscripted(base)) for base in node.bases),
            decorators=tuple(map(_decorator, node.decorator_list)),
            hooks=tuple(hooks_of(node)),
        )
        self.facts.classes.append(fact)
        for base in node.bases:
            self._roles[unsubscripted(base)] = (Role.BASE, number)
        for decorator in node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            self._roles[called] = (Role.DECORATOR, number)
        self._visit_all([*node.decorator_list, *node.bases, *node.keywords])
        outer, owner = self._enter(is_class=True), self._owner
        self._enclosing, self._owner = [*around, fact], number
        self._visit_all(node.body)
        self._scope, self._enclosing, self._owner = outer, around, owner

    # Expressions.

    def visit_Call(self, node: ast.Call) -> None:
        if self._in_f_string:
            self.generic_visit(node)
            return
        number = len(self._calls)
        self._calls.append((node, None))
        function = unsubscripted(node.func)
        chain = chain_of(function)
        if chain is not None:
            self._calls[number] = (node, self._call_fact(node, number, chain))
            self._roles.setdefault(function, (Role.CALLED, number))
        for keyword in node.keywords:
            if keyword.arg == "class_":
                self._roles[keyword.value] = (Role.SESSION_CLASS, number)
        if chain is not None and chain.endswith(".on_event") and is_of_the_application(node):
            self._visit_all([*node.args, *node.keywords])
        else:
            self.generic_visit(node)

    def _call_fact(self, node: ast.Call, number: int, chain: str) -> CallFact:
        return CallFact(
            number=number,
            chain=chain,
            scope=self._scope,
            line=self._line,
            keywords=tuple((keyword.arg, chain_of(keyword.value)) for keyword in node.keywords if keyword.arg),
            unpacks=any(keyword.arg is None for keyword in node.keywords),
            first_argument=chain_of(node.args[0]) if node.args else None,
        )

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Count no call in an f-string: before Python 3.12 nobody knows where it stands."""
        outer, self._in_f_string = self._in_f_string, True
        self.generic_visit(node)
        self._in_f_string = outer


def _decorator(node: ast.expr) -> Decorator:
    if not isinstance(node, ast.Call):
        return Decorator(chain_of(node), is_call=False, plain_arguments=False, names=frozenset())
    names = {each.id for argument in node.args for each in ast.walk(argument) if isinstance(each, ast.Name)}
    return Decorator(
        chain_of(node.func), is_call=True, plain_arguments=bool(node.args) and not node.keywords, names=frozenset(names)
    )
