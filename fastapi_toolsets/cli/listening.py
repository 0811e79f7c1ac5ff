"""``fastapi-toolsets listeners``: imports modules and lists what is registered then."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType
from typing import NamedTuple

from rich import box
from rich.table import Table

from ..events import ModelEvent, RegisteredListener, registered_listeners
from .terminal import fail, output


class Place(NamedTuple):
    """Where a callback is written."""

    file: str
    line: int
    """That of its first decorator."""


def list_listeners(modules: Sequence[str], *, as_json: bool) -> int:
    """Import modules and print every callback that is registered then.

    Args:
        modules: Dotted names; they are looked for in the current folder too.
        as_json: Whether to print JSON instead of a table.

    Returns:
        The exit code: 0, or 2 when a module cannot be imported.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    for module in modules:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what it prints is not part of the list
                importlib.import_module(module)
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- whatever a module raises, it cannot be imported
            return fail(f"{module or repr(module)} cannot be imported: {type(error).__name__}: {error}{_hint(module)}")
    listeners = registered_listeners()
    if as_json:
        sys.stdout.write(json.dumps([_as_json(each) for each in listeners], indent=2) + "\n")
    else:
        _print_table(listeners)
    return 0


def place_of(callback: Callable[..., object]) -> Place | None:
    """Return where a callback is written, through partials, wrappers and ``__call__``; ``None`` for one made in C."""
    function: object = callback
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else function
    for candidate in (getattr(function, "__func__", function), getattr(type(function), "__call__", None)):  # noqa: B004
        code = getattr(candidate, "__code__", None)
        if isinstance(code, CodeType):
            return Place(code.co_filename, code.co_firstlineno)
    return None


def _hint(module: str) -> str:
    if not module.endswith(".py") and os.sep not in module and not module.startswith("."):
        return ""
    dotted = os.path.normpath(module).removesuffix(".py").replace(os.sep, ".").strip(".")
    if not dotted:
        return " (give the dotted name of a module)"
    return f" (give its dotted name: {dotted})"


def _model(listener: RegisteredListener) -> str:
    return f"{listener.target.__module__}.{listener.target.__qualname__}"


def _events(listener: RegisteredListener) -> list[str]:
    return [event.value for event in ModelEvent if event in listener.events]


def _as_json(listener: RegisteredListener) -> dict[str, object]:
    place = place_of(listener.callback)
    return {
        "model": _model(listener),
        "events": _events(listener),
        "phase": listener.phase.value,
        "callback": listener.name,
        "async": listener.is_async,
        "file": place.file if place else None,
        "line": place.line if place else None,
    }


def _print_table(listeners: Sequence[RegisteredListener]) -> None:
    console = output()
    if not listeners:
        console.print("No callback is registered.")
        return
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII, show_edge=False)
    for heading in ("listens to", "events", "phase", "callback", "kind", "where"):
        table.add_column(heading, overflow="fold")
    for listener in listeners:
        place = place_of(listener.callback)
        table.add_row(
            _model(listener),
            ", ".join(_events(listener)),
            listener.phase.value.replace("_", " "),
            listener.name,
            "async" if listener.is_async else "sync",
            f"{_shown(place.file)}:{place.line}" if place else "",
        )
    console.print(table)


def _shown(file: str) -> str:
    """Return a path relative to the current folder where it lies in it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
