"""Carries out the edits of a file on its concrete syntax tree, so that all else stays as it is written."""

from __future__ import annotations

import codecs
import re
import tokenize
from collections.abc import Iterator, Sequence
from io import BytesIO

import libcst as cst

from .classes import with_bases, with_watched_fields
from .commas import inserted
from .edits import ClassEdit, FileEdit, Todo
from .facts import Counts
from .imports import CLAUSES, Counted, counted, with_imports
from .listeners import InClass, Listeners

MARK = "fastapi-toolsets migrate v3:"
"""What a comment that is left for a person says after ``TODO``."""

_BETWEEN_STATEMENTS = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def rewrite(source: bytes, edit: FileEdit) -> bytes:
    """Return a file's source with the edits made.

    Args:
        source: What the file holds.
        edit: What to do, planned with the same source.

    Raises:
        libcst.ParserSyntaxError: libcst cannot read what Python can.
        UnicodeError: What is added cannot be written in the file's encoding.
    """
    module = cst.parse_module(_with_todos(source, edit.todos))
    removed = {number: set(indexes) for number, indexes in edit.removed_imports.items()}
    body = list(_with_classes_and_calls(module, edit))
    if edit.unneeded_imports:
        code = module.with_changes(body=[each.statement for each in body]).code
        for number, names in edit.unneeded_imports.items():
            gone = {index for index, name in names.items() if _occurs_once(name, code)}
            removed.setdefault(number, set()).update(gone)
    return with_imports(module, body, edit, removed).bytes


def _occurs_once(name: str, code: str) -> bool:
    return len(re.findall(rf"(?<![\w.]){re.escape(name)}\b", code)) == 1


def _with_classes_and_calls(module: cst.Module, edit: FileEdit) -> Iterator[Counted]:
    """Yield a module's statements with the classes and calls in them edited; only those with edits are visited."""
    for each in counted(module.body, edit.statements):
        statement, start, end = each
        classes = any(number in edit.classes for number in range(start.classes, end.classes))
        calls = any(number in edit.calls for number in range(start.calls, end.calls))
        if not classes and not calls:
            yield each
            continue
        changed = statement.visit(_Rewriter(module, edit, start, looks_at_calls=calls))
        first, *listeners = changed if isinstance(changed, cst.FlattenSentinel) else [changed]
        yield Counted(cst.ensure_type(first, type(statement)), start, end)
        for listener in listeners:
            yield Counted(cst.ensure_type(listener, cst.FunctionDef), end, end)


def todo_lines(source: bytes) -> list[tuple[int, str]]:
    """Return the comments that are left for a person: line number and message."""
    lines = enumerate(source.splitlines(), start=1)
    marked = ((number, line.partition(MARK.encode() + b" ")[2]) for number, line in lines if MARK.encode() in line)
    return [(number, message.decode(errors="replace").strip()) for number, message in marked]


def _with_todos(source: bytes, todos: Sequence[Todo]) -> bytes:
    """Put a comment above each line that is left for a person, unless one is there."""
    if not todos:
        return source
    mark = codecs.BOM_UTF8 if source.startswith(codecs.BOM_UTF8) else b""
    lines = source[len(mark) :].splitlines(keepends=True)
    encoding, _ = tokenize.detect_encoding(BytesIO(source).readline)
    starts = _starts_of_statements(lines, encoding)
    by_line = {starts.get(todo.line, todo.line): todo for todo in reversed(todos)}
    for number, todo in sorted(by_line.items(), reverse=True):
        index = number - 1
        if _is_marked(lines, index):
            continue
        line = lines[index]
        indent = line[: len(line) - len(line.lstrip())]
        end = next((each for each in (b"\r\n", b"\n", b"\r") if lines[0].endswith(each)), b"\n")
        comment = f"# TODO: {MARK} {todo.message}".encode(encoding.removesuffix("-sig"), "backslashreplace")
        lines.insert(index, indent + comment + end)
    return mark + b"".join(lines)


def _starts_of_statements(lines: Sequence[bytes], encoding: str) -> dict[int, int]:
    """Return where the statement began that a line goes on with: above such a line a comment may be in a string."""
    texts = (line.decode(encoding).rstrip("\r\n") + "\n" for line in lines)
    starts: dict[int, int] = {}
    first: int | None = None
    for token in tokenize.generate_tokens(lambda: next(texts, "")):
        if token.type in _BETWEEN_STATEMENTS:
            continue
        first = first or token.start[0]
        starts |= dict.fromkeys(range(first + 1, token.end[0] + 1), first)
        if token.type == tokenize.NEWLINE:
            first = None
    return starts


def _is_marked(lines: Sequence[bytes], index: int) -> bool:
    """Whether one of the comments right above a line is ours."""
    while index and lines[index - 1].lstrip().startswith(b"#"):
        index -= 1
        if MARK.encode() in lines[index]:
            return True
    return False


_HOLDS_CLASSES = (cst.BaseCompoundStatement, cst.IndentedBlock, *CLAUSES)


class _Rewriter(cst.CSTTransformer):
    """Changes classes and calls. It counts them as the reader of facts did: in the order of the source."""

    def __init__(self, module: cst.Module, edit: FileEdit, start: Counts, *, looks_at_calls: bool) -> None:
        super().__init__()
        self._looks_at_calls = looks_at_calls
        self._edit = edit
        self._listeners = Listeners(module, edit.local_names)
        self._class_count = start.classes
        self._call_count = start.calls
        self._open_calls: list[int] = []
        self._classes: list[tuple[int, int]] = []
        """The classes around the node up to the next function: number, and levels of indentation."""
        self._functions: list[cst.FunctionDef] = []
        """Listeners that wait for the end of the outermost class."""
        self._around: list[tuple[list[tuple[int, int]], list[cst.FunctionDef]]] = []
        """What these two were outside each of the functions around the node."""
        self._depth = 0

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FormattedString | cst.SimpleWhitespace | cst.ParenthesizedWhitespace):
            return False  # the reader counts no calls in f-strings
        if not self._looks_at_calls and not isinstance(node, _HOLDS_CLASSES):
            return False
        return super().on_visit(node)

    def visit_IndentedBlock(self, node: cst.IndentedBlock) -> None:
        self._depth += 1

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        self._depth -= 1
        return updated_node

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self._around.append((self._classes, self._functions))
        self._classes, self._functions = [], []

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        self._classes, self._functions = self._around.pop()
        return updated_node

    # Classes.

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self._classes.append((self._class_count, self._depth))
        self._class_count += 1

    def leave_ClassDef(
        self, original_node: cst.ClassDef, updated_node: cst.ClassDef
    ) -> cst.BaseStatement | cst.FlattenSentinel[cst.BaseStatement]:
        edit = self._edit.classes.get(self._classes[-1][0])
        class_ = updated_node if edit is None else self._edited(updated_node, edit)
        self._classes.pop()
        if self._classes or not self._functions:
            return class_
        functions, self._functions = self._functions, []
        return cst.FlattenSentinel([class_, *functions])

    def _edited(self, class_: cst.ClassDef, edit: ClassEdit) -> cst.ClassDef:
        class_ = with_bases(class_, edit)
        if edit.watch_decorator is not None:
            class_ = with_watched_fields(class_, edit.watch_decorator)
        outermost = self._classes[0][1]
        blank_lines = 1 if outermost else 2
        for function in edit.functions:
            method = _method(class_, function.method)
            levels = self._classes[-1][1] + 1 - outermost
            self._functions.append(self._listeners.of_method(method, function, blank_lines, levels))
            class_ = _with_statements(class_, [each for each in class_.body.body if each is not method])
        for listener in edit.listeners:
            self._functions.append(self._listeners.calling(listener, blank_lines))
        for name in edit.added_methods:
            added = self._listeners.of_mixin(name)
            class_ = _with_statements(class_, [*class_.body.body, added])
        for name in sorted({name for name, _ in edit.dropped_supers | edit.default_supers}):
            method = _method(class_, name)
            dropped = [called for name_, called in edit.dropped_supers if name_ == name]
            defaults = [called for name_, called in edit.default_supers if name_ == name]
            staying = InClass(method, dropped, defaults, self._edit.local_names.get("ModelEvent", ""))
            changed = [staying.changed() if each is method else each for each in class_.body.body]
            class_ = _with_statements(class_, changed)
        return class_

    # Calls.

    def visit_Call(self, node: cst.Call) -> None:
        self._open_calls.append(self._call_count)
        self._call_count += 1

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:
        edit = self._edit.calls.get(self._open_calls.pop()) if self._open_calls else None
        if edit is None:
            return updated_node
        if edit.callee is not None:
            updated_node = updated_node.with_changes(func=cst.Name(edit.callee))
        if edit.session_class is not None:
            updated_node = _with_session_class(updated_node, edit.session_class)
        return updated_node


def _method(class_: cst.ClassDef, name: str) -> cst.FunctionDef:
    methods = [each for each in class_.body.body if isinstance(each, cst.FunctionDef) and each.name.value == name]
    return methods[-1]


def _with_statements(class_: cst.ClassDef, statements: Sequence[cst.CSTNode]) -> cst.ClassDef:
    return class_.with_changes(body=class_.body.with_changes(body=statements))


def _with_session_class(call: cst.Call, session_class: str) -> cst.Call:
    value = cst.Name(session_class)
    for index, argument in enumerate(call.args):
        if argument.keyword is not None and argument.keyword.value == "class_":
            changed = argument.with_changes(value=value)
            return call.with_changes(args=[*call.args[:index], changed, *call.args[index + 1 :]])
    equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    added = cst.Arg(value, keyword=cst.Name("class_"), equal=equal)
    return call.with_changes(args=inserted(call.args, len(call.args), added, call.whitespace_before_args))
