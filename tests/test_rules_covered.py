"""Every rule that users may rely on is proven by a test that names it, and told on the page of guarantees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parent.parent
GUARANTEES = ROOT / "docs" / "guarantees.md"


def numbered(letter: str, count: int) -> list[str]:
    return [f"{letter}{number}" for number in range(1, count + 1)]


RULES = [
    *numbered("N", 8),
    *numbered("T", 9),
    *numbered("E", 12),
    *numbered("C", 7),
    *numbered("P", 3),
    *numbered("B", 2),
]
"""About names, transactions, what an event says, callbacks, phases, and bulk writes."""


def rules_in(texts: Iterable[str]) -> list[str]:
    """What looks like the id of a rule. Each is named by itself: of "E1 to E3" only the ends are."""
    return re.findall(r"\b[NTECPB]\d{1,2}\b", " ".join(texts))


def docstrings() -> Iterator[str]:
    """The docstring of each test function in the suite: those that pytest collects, at the top or in a class."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"), str(path))
        classes = (node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test"))
        for node in chain(module.body, *classes):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield ast.get_docstring(node) or ""


PROVEN = frozenset(rules_in(docstrings()))


def test_every_rule_is_proven_by_a_test() -> None:
    assert [rule for rule in RULES if rule not in PROVEN] == []


def test_no_test_names_a_rule_that_does_not_exist() -> None:
    """A misspelt id would prove nothing."""
    assert sorted(PROVEN.difference(RULES)) == []


def test_every_rule_is_told_once_on_the_page_of_guarantees() -> None:
    promises, not_promised = GUARANTEES.read_text(encoding="utf-8").split("\n## What is not promised\n")
    assert [sorted(rules_in(re.findall(r"<small>(.+?)</small>", part))) for part in (promises, not_promised)] == [
        sorted(RULES),
        [],
    ]


def test_every_promise_is_followed_by_an_example() -> None:
    """Each of at most five lines, blank ones not counted."""
    promises = GUARANTEES.read_text(encoding="utf-8").split("\n## What is not promised\n")[0]
    without: list[str] = []
    for promise in re.split(r"^\*\*", promises, flags=re.MULTILINE)[1:]:
        examples = re.findall(r"^```python\n(.*?)^```$", promise, re.MULTILINE | re.DOTALL)
        lengths = [sum(bool(line.strip()) for line in example.splitlines()) for example in examples]
        if not lengths or max(lengths) > 5:
            without.append(promise.partition("**")[0])
    assert without == []
