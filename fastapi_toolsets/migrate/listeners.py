"""The syntax trees of listeners: made of a method, or made to call one that stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import libcst as cst

from .edits import NewFunction, NewListener
from .facts import EVENTS, HOOKS
from .gaps import GONE, LineT, close_block, without_gone

_EMPTY_LINE = cst.EmptyLine(indent=False)


class Listeners:
    """Makes listeners for one file."""

    def __init__(self, module: cst.Module, local_names: Mapping[str, str]) -> None:
        """Know how the file is written.

        Args:
            module: The file, for its indentation and line ends.
            local_names: What the file calls ``listens_for`` and ``ModelEvent``.
        """
        self._module = module
        self._names = local_names

    def of_method(self, method: cst.FunctionDef, new: NewFunction, blank_lines: int, levels: int) -> cst.FunctionDef:
        """Return a method as a listener.

        Args:
            method: The method, as it stands in the class.
            new: What the listener is called and what it listens to.
            blank_lines: How many go before it.
            levels: By how many levels of indentation the method stood deeper.
        """
        own = [*method.params.posonly_params, *method.params.params, *method.params.kwonly_params]
        self_name = own[0].name.value
        body = cst.ensure_type(method.body.visit(_OutOfClass(self_name, new)), type(method.body))
        decorators = [each for each in method.decorators if not _is_override(each.decorator)]
        parameters = self._parameters(own[1:], new)
        comments = [line for line in method.leading_lines if line.comment is not None]
        comments += _comments_lost(method, parameters)
        return method.with_changes(
            name=cst.Name(new.name),
            params=parameters,
            whitespace_before_params=cst.SimpleWhitespace(""),
            body=_tidied(body, self._module.default_indent * levels),
            decorators=[self._decorator(new.target, new.events), *decorators],
            leading_lines=[*[_EMPTY_LINE] * blank_lines, *comments],
        )

    def calling(self, new: NewListener, blank_lines: int) -> cst.FunctionDef:
        """Return a listener that calls a method of the object."""
        if new.method == "on_event":
            arguments = "event_type, changes=changes" if "UPDATE" in new.events else "event_type"
        else:
            arguments = "changes" if new.method == "on_update" else ""
        call = f"{new.object_name}.{new.method}({arguments})"
        changes = _changes_annotation(new.events)
        parameters = f"{new.object_name}: {new.target}, event_type: {self._names['ModelEvent']}, changes: {changes}"
        start, result, statement = ("async ", "None", "await") if new.is_async else ("", "object", "return")
        source = f"{start}def {new.name}({parameters}) -> {result}:\n    {statement} {call}\n"
        function = cst.ensure_type(cst.parse_statement(source, config=self._module.config_for_parsing), cst.FunctionDef)
        return function.with_changes(
            decorators=[self._decorator(new.target, new.events)], leading_lines=[_EMPTY_LINE] * blank_lines
        )

    def of_mixin(self, name: str) -> cst.FunctionDef:
        """Return the method of that name that every model had from the mixin, for a class whose heirs override it."""
        event = f"{self._names['ModelEvent']}.{next(event for event, hook in EVENTS.items() if hook == name)}"
        parameters, arguments = (
            ("self, changes", f"{event}, changes=changes") if name == "on_update" else ("self", event)
        )
        source = f"def {name}({parameters}):\n    return self.on_event({arguments})\n"
        function = cst.ensure_type(cst.parse_statement(source, config=self._module.config_for_parsing), cst.FunctionDef)
        return function.with_changes(leading_lines=[_EMPTY_LINE])

    def _decorator(self, target: str, events: Sequence[str]) -> cst.Decorator:
        arguments = [cst.Arg(dotted(target))]
        if len(events) < len(EVENTS):
            wanted = [cst.Element(dotted(f"{self._names['ModelEvent']}.{event}")) for event in events]
            arguments.append(cst.Arg(cst.List(wanted)))
        return cst.Decorator(cst.Call(dotted(self._names["listens_for"]), arguments))

    def _parameters(self, others: Sequence[cst.Param], new: NewFunction) -> cst.Parameters:
        """Return the three parameters of a listener, with the annotations that the method had."""
        given = {param.name.value: param for param in others}
        wanted = {
            new.object_name: new.target,
            new.event_name: self._names["ModelEvent"],
            new.changes_name: _changes_annotation(new.events),
        }
        params: list[cst.Param] = []
        for name, annotation in wanted.items():
            known = given.get(name)
            if known is not None and known.annotation is not None:
                default = known.default if name == new.changes_name else None
                params.append(cst.Param(cst.Name(name), annotation=known.annotation, default=default))
            else:
                params.append(cst.Param(cst.Name(name), cst.Annotation(_annotation(annotation))))
        return cst.Parameters(params=params)


def _comments_lost(method: cst.FunctionDef, parameters: cst.Parameters) -> list[cst.EmptyLine]:
    """Return the comments between the brackets of a method that are not between those of the listener."""
    before, after = _Comments(), _Comments()
    method.whitespace_before_params.visit(before)
    method.params.visit(before)
    parameters.visit(after)
    return [cst.EmptyLine(comment=comment) for comment in before.found if comment not in after.found]


class _Comments(cst.CSTVisitor):
    """Finds comments."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[cst.Comment] = []

    def visit_Comment(self, node: cst.Comment) -> None:
        self.found.append(node)


def dotted(name: str) -> cst.Name | cst.Attribute:
    """Return the syntax tree of a dotted name; libcst's parser takes far longer to make it."""
    first, *others = name.split(".")
    node: cst.Name | cst.Attribute = cst.Name(first)
    for each in others:
        node = cst.Attribute(node, cst.Name(each))
    return node


def _annotation(text: str) -> cst.BaseExpression:
    first, _, second = text.partition(" | ")
    return cst.BinaryOperation(dotted(first), cst.BitOr(), dotted(second)) if second else dotted(first)


def _changes_annotation(events: Sequence[str]) -> str:
    if "UPDATE" not in events:
        return "None"
    return "dict" if len(events) == 1 else "dict | None"


class _OutOfClass(cst.CSTTransformer):
    """Makes a method's body that of a function: ``self`` is the object, and ``super()`` needs to be told the class."""

    def __init__(self, self_name: str, new: NewFunction) -> None:
        super().__init__()
        self._self_name = self_name
        self._new = new

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.Name:
        if original_node.value == self._self_name:
            return updated_node.with_changes(value=self._new.object_name)
        return updated_node

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.Attribute:
        return updated_node.with_changes(attr=original_node.attr)

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:
        return updated_node.with_changes(keyword=original_node.keyword)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:
        if isinstance(original_node.func, cst.Name) and original_node.func.value == "super" and not original_node.args:
            arguments = [cst.Arg(dotted(self._new.target)), cst.Arg(cst.Name(self._new.object_name))]
            return updated_node.with_changes(args=arguments)
        return updated_node

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine:
        return _without_supers(original_node, updated_node, HOOKS)

    def leave_SimpleStatementSuite(
        self, original_node: cst.SimpleStatementSuite, updated_node: cst.SimpleStatementSuite
    ) -> cst.SimpleStatementSuite:
        return _without_supers(original_node, updated_node, HOOKS)

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        return close_block(updated_node)


class InClass(cst.CSTTransformer):
    """Takes from a method that stays the calls of ``super()`` that the mixin answered."""

    def __init__(
        self, method: cst.FunctionDef, dropped: Sequence[str], defaults: Sequence[str], model_event: str
    ) -> None:
        """Say which calls are left out, and which become calls of ``on_event``."""
        super().__init__()
        self._method = method
        self._dropped = dropped
        self._defaults = defaults
        self._model_event = model_event
        self._self_name = [*method.params.posonly_params, *method.params.params][0].name.value

    def changed(self) -> cst.FunctionDef:
        """Return the method without these calls."""
        return cst.ensure_type(self._method.visit(self), cst.FunctionDef)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:
        """Call ``on_event`` as the mixin did."""
        hook = _hook_called_through_super(original_node)
        if hook not in self._defaults:
            return updated_node
        event = next(event for event, name in EVENTS.items() if name == hook)
        arguments = [cst.Arg(dotted(f"{self._model_event}.{event}"))]
        if updated_node.args:
            equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
            arguments.append(cst.Arg(updated_node.args[0].value, keyword=cst.Name("changes"), equal=equal))
        return updated_node.with_changes(func=dotted(f"{self._self_name}.on_event"), args=arguments)

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine:
        """Leave out what is to be left out."""
        return _without_supers(original_node, updated_node, self._dropped)

    def leave_SimpleStatementSuite(
        self, original_node: cst.SimpleStatementSuite, updated_node: cst.SimpleStatementSuite
    ) -> cst.SimpleStatementSuite:
        """Leave out what is to be left out."""
        return _without_supers(original_node, updated_node, self._dropped)

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        """Close the gaps."""
        return close_block(updated_node)


def _without_supers(original: LineT, updated: LineT, hooks: Sequence[str]) -> LineT:
    """Leave out of a line what only calls one of ``hooks`` through ``super()``; of a ``return`` the value."""
    kept: list[cst.BaseSmallStatement] = []
    for before, after in zip(original.body, updated.body, strict=True):
        called = _hook_called_through_super(_whole_call(before))
        if called is None or called not in hooks:
            kept.append(after)
        else:
            kept.append(cst.Return() if isinstance(before, cst.Return) else GONE)
    return without_gone(updated.with_changes(body=kept))


def _whole_call(statement: cst.BaseSmallStatement) -> cst.BaseExpression | None:
    """Return the expression that a statement consists of, what is awaited where it only awaits."""
    value = statement.value if isinstance(statement, cst.Expr | cst.Return) else None
    return value.expression if isinstance(value, cst.Await) else value


def _hook_called_through_super(node: cst.BaseExpression | None) -> str | None:
    match node:
        case cst.Call(func=cst.Attribute(value=cst.Call(func=cst.Name("super")), attr=cst.Name(name))):
            return name if name in HOOKS else None
        case _:
            return None


def _is_override(node: cst.BaseExpression) -> bool:
    """Whether a decorator is typing's ``@override``, which means nothing outside a class."""
    match node:
        case cst.Name("override") | cst.Attribute(attr=cst.Name("override")):
            return True
        case _:
            return False


def _tidied(body: cst.BaseSuite, indent: str) -> cst.BaseSuite:
    """Return a body without a ``return`` at its end, and the docstring moved to the left with the rest."""
    if not isinstance(body, cst.IndentedBlock):
        return body
    statements = list(body.body)
    match statements:
        case [*_, cst.SimpleStatementLine(body=[cst.Return(value=None)]) as last]:
            statements[-1] = last.with_changes(body=[GONE])
        case _:
            pass
    match statements:
        case [cst.SimpleStatementLine(body=[cst.Expr(value=cst.SimpleString(text)), *others]) as line, *_]:
            lines = text.splitlines(keepends=True)
            dedented = lines[0] + "".join(each.removeprefix(indent) for each in lines[1:])
            statements[0] = line.with_changes(body=[cst.Expr(cst.SimpleString(dedented)), *others])
        case _:
            pass
    return close_block(body.with_changes(body=statements))
