"""Carries out what the edits of a file say about imports and ``__all__``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import libcst as cst

from .commas import closing_without, inserted, opening_without, without
from .edits import FileEdit
from .facts import Counts
from .gaps import GONE, close_block, close_gaps, leading_lines, without_gone

_MODELS = "fastapi_toolsets.models"
CLAUSES = (cst.Else, cst.Finally, cst.ExceptHandler, cst.ExceptStarHandler, cst.MatchCase)
"""What holds statements without being one."""

_STATEMENTS = (cst.BaseStatement, cst.BaseSuite, cst.BaseSmallStatement, *CLAUSES)
_DOTTED = cst.ensure_type(cst.parse_expression(_MODELS), cst.Attribute)


class Counted(NamedTuple):
    """A statement of a module, with what there is in the file before it and up to its end."""

    statement: cst.BaseStatement
    start: Counts
    end: Counts


def counted(body: Sequence[cst.BaseStatement], counts: Sequence[Counts]) -> Iterator[Counted]:
    """Yield each statement of a module with what there is before it.

    Args:
        body: The statements; those between semicolons are one here.
        counts: As the reader of facts counted: for each of those by itself, and for the end.
    """
    index = 0
    for statement in body:
        following = index + (len(statement.body) if isinstance(statement, cst.SimpleStatementLine) else 1)
        yield Counted(statement, counts[index], counts[following])
        index = following


def with_imports(
    module: cst.Module, body: Sequence[Counted], edit: FileEdit, removed: Mapping[int, set[int]]
) -> cst.Module:
    """Return a module with its imports, aliases and ``__all__`` edited.

    Args:
        module: The module as it was.
        body: Its statements, in which classes and calls have been edited.
        edit: The edits of the file.
        removed: By the number of the import, which of its names go.
    """
    numbers = {*removed, *edit.moved_imports, edit.import_to_extend}
    changed: list[cst.BaseStatement] = []
    for statement, start, end in body:
        imports = any(number in numbers for number in range(start.imports, end.imports))
        assignments = any(each in edit.removed_aliases for each in range(start.assignments, end.assignments))
        if imports or assignments or (edit.removed_exports and isinstance(statement, cst.SimpleStatementLine)):
            visited = statement.visit(_ImportRewriter(edit, removed, start))
            changed.append(cst.ensure_type(visited, type(statement)))
        else:
            changed.append(statement)
    changed, comments = close_gaps(changed)
    if edit.added_imports and edit.import_to_extend is None:
        changed = _with_import(changed, edit.added_imports)
    return module.with_changes(body=changed, footer=[*comments, *module.footer])


class _ImportRewriter(cst.CSTTransformer):
    """Changes import statements, which it counts as the reader of facts did, and ``__all__``."""

    def __init__(self, edit: FileEdit, removed: Mapping[int, set[int]], start: Counts) -> None:
        super().__init__()
        self._edit = edit
        self._removed = removed
        self._count = start.imports
        self._assignments = start.assignments
        self._depth = 0

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Go only where statements are."""
        return isinstance(node, _STATEMENTS) and super().on_visit(node)

    def visit_IndentedBlock(self, node: cst.IndentedBlock) -> None:
        """Count the levels."""
        self._depth += 1

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        """Close the gaps."""
        self._depth -= 1
        return close_block(updated_node)

    def leave_SimpleStatementSuite(
        self, original_node: cst.SimpleStatementSuite, updated_node: cst.SimpleStatementSuite
    ) -> cst.SimpleStatementSuite:
        """Leave something in the line."""
        return without_gone(updated_node)

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine:
        """Close the gaps in the line."""
        return without_gone(updated_node)

    def leave_Import(self, original_node: cst.Import, updated_node: cst.Import) -> cst.BaseSmallStatement:
        """Remove names."""
        kept = without(updated_node.names, self._removed.get(self._next(), ()))
        return updated_node.with_changes(names=kept) if kept else GONE

    def leave_ImportFrom(self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom) -> cst.BaseSmallStatement:
        """Remove names and add others."""
        number = self._next()
        if number in self._edit.moved_imports:
            updated_node = updated_node.with_changes(module=_DOTTED)
        if isinstance(updated_node.names, cst.ImportStar):
            return updated_node
        names = list(updated_node.names)
        removed = self._removed.get(number, set())
        lpar = updated_node.lpar
        if lpar is not None:
            lpar = lpar.with_changes(whitespace_after=opening_without(lpar.whitespace_after, names, removed))
        if number == self._edit.import_to_extend:
            opening = updated_node.lpar.whitespace_after if updated_node.lpar else None
            names = _extended(names, removed, self._edit.added_imports, opening)
        else:
            names = without(names, removed)
        return updated_node.with_changes(names=names, lpar=lpar) if names else GONE

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.BaseSmallStatement:
        """Remove other names of what is gone, and take from ``__all__`` what is not there any more."""
        self._assignments += 1
        if self._assignments - 1 in self._edit.removed_aliases:
            return GONE
        match updated_node:
            case cst.Assign(targets=[cst.AssignTarget(target=cst.Name("__all__"))]) if not self._depth:
                return updated_node.with_changes(value=self._exports(updated_node.value))
            case _:
                return updated_node

    def leave_AugAssign(self, original_node: cst.AugAssign, updated_node: cst.AugAssign) -> cst.AugAssign:
        """Take from ``__all__`` what is not there any more."""
        match updated_node:
            case cst.AugAssign(target=cst.Name("__all__")) if not self._depth:
                return updated_node.with_changes(value=self._exports(updated_node.value))
            case _:
                return updated_node

    def _exports(self, value: cst.BaseExpression) -> cst.BaseExpression:
        if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Add):
            return value.with_changes(left=self._exports(value.left), right=self._exports(value.right))
        if not isinstance(value, cst.List | cst.Tuple):
            return value
        gone = {
            index
            for index, element in enumerate(value.elements)
            if isinstance(element.value, cst.SimpleString)
            and element.value.evaluated_value in self._edit.removed_exports
        }
        return _bracketed_without(value, gone).with_changes(elements=without(value.elements, gone))

    def _next(self) -> int:
        self._count += 1
        return self._count - 1


def _bracketed_without(value: cst.List | cst.Tuple, gone: set[int]) -> cst.List | cst.Tuple:
    """Return a list or tuple with the comments in its brackets where they are without some of the elements."""
    match value:
        case cst.List(lbracket=left, rbracket=right):
            before = opening_without(left.whitespace_after, value.elements, gone)
            after = closing_without(right.whitespace_before, value.elements, gone)
            left, right = left.with_changes(whitespace_after=before), right.with_changes(whitespace_before=after)
            return value.with_changes(lbracket=left, rbracket=right)
        case cst.Tuple(lpar=[left, *lefts], rpar=[*rights, right]):
            before = opening_without(left.whitespace_after, value.elements, gone)
            after = closing_without(right.whitespace_before, value.elements, gone)
            left, right = left.with_changes(whitespace_after=before), right.with_changes(whitespace_before=after)
            return value.with_changes(lpar=[left, *lefts], rpar=[*rights, right])
        case _:
            return value


def _extended(
    names: list[cst.ImportAlias],
    removed: set[int],
    added: Mapping[str, str],
    opening: cst.BaseParenthesizableWhitespace | None,
) -> list[cst.ImportAlias]:
    """Return the names without some and with others, in the order that the names have."""
    before = [name.evaluated_name for name in names]
    kept = [name for index, name in enumerate(before) if index not in removed]
    keys = (_order_by_type, str.casefold, str)
    key = next((key for key in keys if len(kept) > 1 and kept == sorted(kept, key=key)), None) or next(
        (key for key in keys if before == sorted(before, key=key)), None
    )
    # Before others go, so that there is always one whose layout can be followed.
    for name in sorted(added, key=_order_by_type):
        known = [alias.evaluated_name for alias in names]
        index = len(known)
        if key is not None:
            index = next((at for at, each in enumerate(known) if key(each) > key(name)), len(known))
        names = inserted(names, index, _alias(name, added[name]), opening)
        removed = {each + (each >= index) for each in removed}
    return without(names, removed)


def _order_by_type(name: str) -> str:
    """Sort as formatters do: constants, classes, then all else."""
    return f"{0 if name.isupper() else 1 if name[:1].isupper() else 2}{name}"


def _alias(name: str, local: str) -> cst.ImportAlias:
    return cst.ImportAlias(cst.Name(name), asname=None if name == local else cst.AsName(cst.Name(local)))


def _with_import(body: Sequence[cst.BaseStatement], added: Mapping[str, str]) -> list[cst.BaseStatement]:
    """Return a module's statements with an import of ``added`` at the place where a formatter would sort it."""
    names: list[cst.ImportAlias] = []
    for name in sorted(added, key=_order_by_type):
        names = inserted(names, len(names), _alias(name, added[name]), None)
    new = cst.SimpleStatementLine([cst.ImportFrom(_DOTTED, names)])
    place = _place(body)
    statements = list(body)
    if place < len(statements) and _module(statements[place]) is not None:
        following = cst.ensure_type(statements[place], cst.SimpleStatementLine)
        if all(line.comment is None for line in following.leading_lines):
            new = new.with_changes(leading_lines=following.leading_lines)
            statements[place] = following.with_changes(leading_lines=())
    elif place and _module(statements[place - 1]) in {None, "__future__"}:  # after a docstring, for one
        new = new.with_changes(leading_lines=[cst.EmptyLine()])
    statements.insert(place, new)
    return statements


def _place(body: Sequence[cst.BaseStatement]) -> int:
    """Return before which statement an import of the library goes."""
    imports = [index for index, statement in enumerate(body) if _module(statement)]
    anchors = [index for index in imports if (_module(body[index]) or "").startswith("sqlalchemy")]
    if not anchors:
        others = [index for index in imports if not (_module(body[index]) or "").startswith(".")]
        if others:
            return others[-1] + 1
        return 1 if body and _is_docstring(body[0]) else 0
    start = anchors[0]
    while start - 1 in imports and not _begins_section(body[start]):
        start -= 1
    place = start
    while _sorts_before(body[place]):
        place += 1
        if place not in imports or _begins_section(body[place]):
            break
    return place


def _begins_section(statement: cst.BaseStatement) -> bool:
    return any(line.comment is None for line in leading_lines(statement))


def _sorts_before(statement: cst.BaseStatement) -> bool:
    """Whether a formatter puts it before an import from the library: plain imports first, then by name."""
    match statement:
        case cst.SimpleStatementLine(body=[cst.ImportFrom()]):
            return (_module(statement) or "") < _MODELS
        case _:
            return True


def _module(statement: cst.BaseStatement) -> str | None:
    """Return what a statement imports from, as it is written; of ``import …`` the first module."""
    match statement:
        case cst.SimpleStatementLine(body=[cst.ImportFrom() as small, *_]):
            name = "" if small.module is None else _code(small.module)
            return "." * len(small.relative) + name
        case cst.SimpleStatementLine(body=[cst.Import() as small, *_]):
            return small.names[0].evaluated_name
        case _:
            return None


def _code(node: cst.BaseExpression) -> str:
    return cst.Module(body=()).code_for_node(node)


def _is_docstring(statement: cst.BaseStatement) -> bool:
    match statement:
        case cst.SimpleStatementLine(body=[cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString())]):
            return True
        case _:
            return False
