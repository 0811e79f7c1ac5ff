"""Adding to and taking from what commas separate, in the way it is laid out: on one line, or one to a line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

import libcst as cst

ItemT = TypeVar("ItemT", cst.Arg, cst.ImportAlias, cst.BaseElement)
WhitespaceT = TypeVar("WhitespaceT", bound=cst.BaseParenthesizableWhitespace)


def without(items: Sequence[ItemT], indexes: Collection[int]) -> list[ItemT]:
    """Return the items but for some, with the comments above the others; the last ends as the last did before."""
    kept: list[ItemT] = []
    for index, item in enumerate(items):
        if index not in indexes:
            kept.append(item)
        elif kept:
            kept[-1] = _with_comments_behind(kept[-1], item)
    if kept and len(items) - 1 in indexes:
        kept[-1] = _ending_as(kept[-1], items[-1])
    return kept


def inserted(
    items: Sequence[ItemT], index: int, new: ItemT, opening: cst.BaseParenthesizableWhitespace | None
) -> list[ItemT]:
    """Return the items and a new one among them.

    Args:
        items: What is there.
        index: How many of them come before the new one.
        new: The new one.
        opening: The space between the opening bracket and the first item, where there is a bracket.
    """
    separator = _separator(items, opening)
    if index < len(items):
        all_items = list(items)
        all_items.insert(index, new.with_changes(comma=separator))
        return all_items
    if not items:
        return [new]
    last = items[-1]
    joined = separator
    if isinstance(last.comma, cst.Comma):
        ending, after = last.comma, last.comma.whitespace_after
        if isinstance(after, cst.ParenthesizedWhitespace) and isinstance(
            joined.whitespace_after, cst.ParenthesizedWhitespace
        ):
            joined = joined.with_changes(
                whitespace_after=joined.whitespace_after.with_changes(first_line=after.first_line)
            )
            line = _without_comment(after).first_line
            ending = ending.with_changes(whitespace_after=after.with_changes(first_line=line))
        new = new.with_changes(comma=ending)
    else:
        new = _ending_as(new, last)
    if isinstance(last, cst.Arg):
        last = last.with_changes(whitespace_after_arg=cst.SimpleWhitespace(""))
    all_items = list(items[:-1])
    all_items += [last.with_changes(comma=joined), new]
    return all_items


def _separator(items: Sequence[ItemT], opening: cst.BaseParenthesizableWhitespace | None) -> cst.Comma:
    for item in items[:-1]:
        if isinstance(item.comma, cst.Comma):
            after = item.comma.whitespace_after
            return item.comma.with_changes(whitespace_after=_without_comment(after))
    if isinstance(opening, cst.ParenthesizedWhitespace):
        return cst.Comma(whitespace_after=_without_comment(opening))
    return cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))


def _with_comments_behind(item: ItemT, gone: ItemT) -> ItemT:
    """Return an item before the lines of comments that stood between one that goes and the next."""
    match item.comma, gone.comma:
        case (
            cst.Comma(whitespace_after=cst.ParenthesizedWhitespace() as after) as comma,
            cst.Comma(whitespace_after=cst.ParenthesizedWhitespace(empty_lines=lines)),
        ):
            return item.with_changes(comma=comma.with_changes(whitespace_after=after.with_changes(empty_lines=lines)))
        case _:
            return item


def _ending_as(item: ItemT, last: ItemT) -> ItemT:
    """Return an item laid out as the last one was, with the comment of its own."""
    comma = last.comma
    if isinstance(comma, cst.Comma) and isinstance(comma.whitespace_after, cst.ParenthesizedWhitespace):
        line = _without_comment(comma.whitespace_after).first_line
        own = item.comma.whitespace_after if isinstance(item.comma, cst.Comma) else None
        if isinstance(own, cst.ParenthesizedWhitespace):
            line = own.first_line
        comma = comma.with_changes(whitespace_after=comma.whitespace_after.with_changes(first_line=line))
    if isinstance(item, cst.Arg) and isinstance(last, cst.Arg):
        return item.with_changes(comma=comma, whitespace_after_arg=last.whitespace_after_arg)
    return item.with_changes(comma=comma)


def _without_comment(space: WhitespaceT) -> WhitespaceT:
    if not isinstance(space, cst.ParenthesizedWhitespace):
        return space
    line = space.first_line.with_changes(whitespace=cst.SimpleWhitespace(""), comment=None)
    return space.with_changes(first_line=line, empty_lines=())
