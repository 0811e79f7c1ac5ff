"""What changes of a class statement itself: its bases, and ``@watch``."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from .commas import opening_without, without
from .edits import ClassEdit


def with_bases(class_: cst.ClassDef, edit: ClassEdit) -> cst.ClassDef:
    """Return a class without the bases that are gone, and with others in place of those that have a successor."""
    if not (edit.removed_bases or edit.replaced_bases):
        return class_
    bases = [
        base.with_changes(value=cst.Name(edit.replaced_bases[index])) if index in edit.replaced_bases else base
        for index, base in enumerate(class_.bases)
    ]
    before = [*bases, *class_.keywords]
    arguments = without(before, edit.removed_bases)
    if not arguments:
        return _without_brackets(class_)
    lpar = class_.lpar
    if isinstance(lpar, cst.LeftParen):
        opening = opening_without(lpar.whitespace_after, before, edit.removed_bases)
        lpar = lpar.with_changes(whitespace_after=opening)
    count = len(bases) - len(edit.removed_bases)
    return class_.with_changes(bases=arguments[:count], keywords=arguments[count:], lpar=lpar)


def _without_brackets(class_: cst.ClassDef) -> cst.ClassDef:
    """Return a class without bases; a comment behind the opening bracket is about the class, and stays in its line."""
    nothing = cst.MaybeSentinel.DEFAULT
    bare = class_.with_changes(bases=(), lpar=nothing, rpar=nothing)
    match class_:
        case cst.ClassDef(
            lpar=cst.LeftParen(whitespace_after=cst.ParenthesizedWhitespace(first_line=line)),
            body=cst.IndentedBlock(header=cst.TrailingWhitespace(comment=None)) as body,
        ) if line.comment is not None:
            return bare.with_changes(body=body.with_changes(header=line))
        case _:
            return bare


def with_watched_fields(class_: cst.ClassDef, index: int) -> cst.ClassDef:
    """Return a class with ``__watched_fields__`` in place of the decorator with that number."""
    decorator = class_.decorators[index]
    call = cst.ensure_type(decorator.decorator, cst.Call)
    fields = cst.Tuple(
        elements=[_element(argument) for argument in call.args],
        lpar=[cst.LeftParen(whitespace_after=call.whitespace_before_args)],
        rpar=[cst.RightParen(whitespace_before=call.args[-1].whitespace_after_arg)],
    )
    assignment = cst.Assign([cst.AssignTarget(cst.Name("__watched_fields__"))], fields)
    statement = cst.SimpleStatementLine(
        [assignment], leading_lines=decorator.leading_lines, trailing_whitespace=decorator.trailing_whitespace
    )
    block = _block(class_.body)
    body = list(block.body)
    position = _after_what_comes_first(body)
    if position == 1 and _is_docstring(body[0]):
        statement = statement.with_changes(leading_lines=[cst.EmptyLine(indent=False), *statement.leading_lines])
    return class_.with_changes(
        decorators=[*class_.decorators[:index], *class_.decorators[index + 1 :]],
        body=block.with_changes(body=[*body[:position], statement, *body[position:]]),
    )


def _element(argument: cst.Arg) -> cst.BaseElement:
    if argument.star:
        return cst.StarredElement(argument.value, comma=argument.comma)
    return cst.Element(argument.value, comma=argument.comma)


def _block(body: cst.BaseSuite) -> cst.IndentedBlock:
    """Return a class's body as a block, without a ``pass`` that something is about to join."""
    if isinstance(body, cst.SimpleStatementSuite):
        small = [each for each in body.body if not isinstance(each, cst.Pass)]
        if not small:
            return cst.IndentedBlock((), header=body.trailing_whitespace)
        return cst.IndentedBlock([cst.SimpleStatementLine(small, trailing_whitespace=body.trailing_whitespace)])
    block = cst.ensure_type(body, cst.IndentedBlock)
    match block.body:
        case [
            cst.SimpleStatementLine(
                body=[cst.Pass()], leading_lines=[], trailing_whitespace=cst.TrailingWhitespace(comment=None)
            )
        ]:
            return block.with_changes(body=())
        case _:
            return block


def _after_what_comes_first(body: Sequence[cst.BaseStatement]) -> int:
    """Return how many statements are a docstring or set names such as ``__tablename__``, from the first on."""
    position = 0
    for index, statement in enumerate(body):
        if index == 0 and _is_docstring(statement):
            position = 1
        elif index == position and _sets_special_name(statement):
            position = index + 1
    return position


def _is_docstring(statement: cst.BaseStatement) -> bool:
    match statement:
        case cst.SimpleStatementLine(body=[cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString())]):
            return True
        case _:
            return False


def _sets_special_name(statement: cst.BaseStatement) -> bool:
    match statement:
        case cst.SimpleStatementLine(body=[cst.Assign(targets=[cst.AssignTarget(target=cst.Name(name))])]):
            return name.startswith("__")
        case cst.SimpleStatementLine(body=[cst.AnnAssign(target=cst.Name(name))]):
            return name.startswith("__")
        case _:
            return False
