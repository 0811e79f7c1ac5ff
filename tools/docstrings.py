"""Docstrings for the reference: what editors and ``help()`` show as it stands becomes links and highlighted code."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from griffe import Docstring, Extension, NameResolutionError, Object

_ROLE = re.compile(r":(?:attr|class|func|meth|mod):`([\w.]+)`")
_EXAMPLE = re.compile(r"(?:^|(?<=\n))(?P<before>[^\n]*)::\n\n(?P<code>(?:(?: {4}[^\n]*)?(?:\n|$))+)")


def examples_of(docstring: str) -> list[str]:
    """Return the Python examples of a docstring, the blocks after ``::``, without their indentation."""
    return [_code_of(match) for match in _EXAMPLE.finditer(docstring)]


def to_markdown(docstring: Docstring) -> str:
    """Return the docstring's text with its roles as links to the reference and its examples as fenced blocks."""

    def link(match: re.Match[str]) -> str:
        path = _resolved(match[1], docstring.parent)
        return f"`{match[1]}`" if path is None else f"[`{match[1]}`][{path}]"

    def fence(match: re.Match[str]) -> str:
        before = f"{match['before']}:\n\n" if match["before"].strip() else ""
        return f"{before}```python\n{_code_of(match)}```\n\n"

    return _ROLE.sub(link, _EXAMPLE.sub(fence, docstring.value)).rstrip()


class SphinxRoles(Extension):
    """The extension of mkdocstrings that rewrites every docstring of the package when it has been read."""

    def on_package(self, *, pkg: Object, **_: Any) -> None:  # noqa: ANN401 -- what else griffe hands over
        """Rewrite the docstrings of everything that the package defines; names are resolved before any has changed."""
        for owner in _objects_in(pkg):
            if owner.docstring is not None:
                owner.docstring.value = to_markdown(owner.docstring)


def _objects_in(owner: Object) -> list[Object]:
    found = [owner]
    for member in owner.members.values():
        if isinstance(member, Object):
            found += _objects_in(member)
    return found


def _code_of(match: re.Match[str]) -> str:
    return textwrap.dedent(match["code"]).strip("\n") + "\n"


def _resolved(name: str, owner: Object | None) -> str | None:
    """Return the full path of what a name means where its docstring stands; ``None`` where it means nothing there."""
    if owner is None:
        return None
    if name.startswith(f"{owner.package.path}."):
        return name
    first, _, rest = name.partition(".")
    try:
        resolved = owner.resolve(first)
    except NameResolutionError:
        return None
    return f"{resolved}.{rest}" if rest else resolved
