"""Taking statements out of a block without taking the comments that stand with them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import libcst as cst

LineT = TypeVar("LineT", cst.SimpleStatementLine, cst.SimpleStatementSuite)

GONE = cst.Pass()
"""Stands for a statement that is taken out until its block is closed. libcst itself would take the comments too."""


def without_gone(line: LineT) -> LineT:
    """Return a line without what is gone from it, if something else stands in it."""
    kept = [statement for statement in line.body if statement is not GONE]
    if not kept or len(kept) == len(line.body):
        return line
    kept[-1] = kept[-1].with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
    return line.with_changes(body=kept)


def close_block(block: cst.IndentedBlock) -> cst.IndentedBlock:
    """Return a block without the lines of which nothing is left; it says ``pass`` if it has no others."""
    if not any(map(_is_gone, block.body)):
        return block
    body, comments = close_gaps(block.body)
    return block.with_changes(body=body, footer=[*comments, *block.footer])


def close_gaps(body: Sequence[cst.BaseStatement]) -> tuple[list[cst.BaseStatement], list[cst.EmptyLine]]:
    """Leave out the lines of which nothing is left.

    Returns:
        The statements, each with the comments of what went before it, and the comments behind the last one.
    """
    kept: list[cst.BaseStatement] = []
    blank: list[cst.EmptyLine] = []
    comments: list[cst.EmptyLine] = []
    for statement in body:
        lines = leading_lines(statement)
        if _is_gone(statement):
            if not comments:
                blank = max(blank, list(itertools.takewhile(_is_blank, lines)), key=len)
            comments += [line for line in lines if not _is_blank(line)]
            trailing = cst.ensure_type(statement, cst.SimpleStatementLine).trailing_whitespace.comment
            comments += [cst.EmptyLine(comment=trailing)] if trailing is not None else []
            continue
        if comments:
            statement = statement.with_changes(leading_lines=[*blank, *comments, *lines])  # noqa: PLW2901
        elif blank and not (lines and _is_blank(lines[0])):
            statement = statement.with_changes(leading_lines=[*blank, *lines])  # noqa: PLW2901
        kept.append(statement)
        blank, comments = [], []
    return kept, comments


def leading_lines(statement: cst.BaseStatement) -> Sequence[cst.EmptyLine]:
    """Return the blank lines and comments before a statement."""
    lines: Sequence[cst.EmptyLine] = getattr(statement, "leading_lines", ())
    return lines


def _is_gone(statement: cst.BaseStatement) -> bool:
    return isinstance(statement, cst.SimpleStatementLine) and all(each is GONE for each in statement.body)


def _is_blank(line: cst.EmptyLine) -> bool:
    return line.comment is None
