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


def opening_without(
    opening: WhitespaceT, items: Sequence[cst.Arg | cst.ImportAlias | cst.BaseElement], indexes: Collection[int]
) -> WhitespaceT:
    """Return the space behind the opening bracket, with the comments above the first item that stays.

    A comment above the first that goes stays, too: it may be about them all.
    """
    first = next((index for index in range(len(items)) if index not in indexes), 0)
    behind = _space_behind(items[first - 1]) if first else None
    if isinstance(opening, cst.ParenthesizedWhitespace) and isinstance(behind, cst.ParenthesizedWhitespace):
        return opening.with_changes(empty_lines=[*opening.empty_lines, *behind.empty_lines])
    return opening


def closing_without(
    closing: WhitespaceT, items: Sequence[cst.Arg | cst.ImportAlias | cst.BaseElement], indexes: Collection[int]
) -> WhitespaceT:
    """Return the space before the closing bracket, with the comment beside the last item that stays, if none follows.

    In lists and tuples it is there; in all else it is the space behind the last item.
    """
    last = max((index for index in range(len(items)) if index not in indexes), default=len(items) - 1)
    behind = _space_behind(items[last]) if last < len(items) - 1 else None
    if isinstance(closing, cst.ParenthesizedWhitespace) and isinstance(behind, cst.ParenthesizedWhitespace):
        return closing.with_changes(first_line=behind.first_line)
    return closing


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
        if index:
            all_items[index - 1], separator = _with_comments_moved(items[index - 1], separator)
        all_items.insert(index, new.with_changes(comma=separator))
        return all_items
    if not items:
        return [new]
    last, joined, behind = items[-1], separator, _space_behind(items[-1])
    if isinstance(behind, cst.ParenthesizedWhitespace) and isinstance(
        separator.whitespace_after, cst.ParenthesizedWhitespace
    ):
        between = separator.whitespace_after.with_changes(first_line=behind.first_line)
        joined = separator.with_changes(whitespace_after=between)
        behind = behind.with_changes(first_line=_without_comment(behind).first_line)
    new = _ending(new, last.comma, behind)
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


def _with_comments_moved(item: ItemT, separator: cst.Comma) -> tuple[ItemT, cst.Comma]:
    """Move the lines of comments behind an item, which are about the next one, behind another comma."""
    match item.comma, separator:
        case (
            cst.Comma(whitespace_after=cst.ParenthesizedWhitespace(empty_lines=lines) as behind) as comma,
            cst.Comma(whitespace_after=cst.ParenthesizedWhitespace() as after),
        ):
            emptied = comma.with_changes(whitespace_after=behind.with_changes(empty_lines=()))
            filled = separator.with_changes(whitespace_after=after.with_changes(empty_lines=lines))
            return item.with_changes(comma=emptied), filled
        case _:
            return item, separator


def _ending_as(item: ItemT, last: ItemT) -> ItemT:
    """Return an item laid out as the last one was, with the comment of its own."""
    own, behind = _space_behind(item), _space_behind(last)
    if isinstance(behind, cst.ParenthesizedWhitespace):
        line = own if isinstance(own, cst.ParenthesizedWhitespace) else _without_comment(behind)
        behind = behind.with_changes(first_line=line.first_line)
    return _ending(item, last.comma, behind)


def _ending(
    item: ItemT, comma: cst.Comma | cst.MaybeSentinel, behind: cst.BaseParenthesizableWhitespace | None
) -> ItemT:
    """Return an item that ends with that comma, or with none, and the space behind it."""
    if isinstance(comma, cst.Comma) and behind is not None:
        return item.with_changes(comma=comma.with_changes(whitespace_after=behind))
    if isinstance(item, cst.Arg) and behind is not None:
        return item.with_changes(comma=comma, whitespace_after_arg=behind)
    return item.with_changes(comma=comma)


def _space_behind(item: cst.Arg | cst.ImportAlias | cst.BaseElement) -> cst.BaseParenthesizableWhitespace | None:
    """Return the space, comments included, behind an item and its comma; in some nodes it is not the item's own."""
    if isinstance(item.comma, cst.Comma):
        return item.comma.whitespace_after
    return item.whitespace_after_arg if isinstance(item, cst.Arg) else None


def _without_comment(space: WhitespaceT) -> WhitespaceT:
    if not isinstance(space, cst.ParenthesizedWhitespace):
        return space
    line = space.first_line.with_changes(whitespace=cst.SimpleWhitespace(""), comment=None)
    return space.with_changes(first_line=line, empty_lines=())
