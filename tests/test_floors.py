"""The package's modules stand on floors: each imports only from below, and none imports in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "fastapi_toolsets"
ROOT = Path(__file__).parent.parent

# Each module's floor; a package stands for all of its modules unless they are named themselves. A module may import
# from lower floors, and from its own where that makes no circle. A package's `__init__` is written with a closing dot.
FLOORS = {
    "fastapi_toolsets.": 0,
    "fastapi_toolsets.errors": 0,
    "fastapi_toolsets.messages": 0,
    "fastapi_toolsets.events.compatibility": 0,
    "fastapi_toolsets.events.logs": 0,
    "fastapi_toolsets.events.process_lock": 0,
    "fastapi_toolsets.events.types": 0,
    "fastapi_toolsets.events.callbacks": 1,
    "fastapi_toolsets.events.journal": 1,
    "fastapi_toolsets.events.muting": 1,
    "fastapi_toolsets.events.observation": 1,
    "fastapi_toolsets.events.options": 1,
    "fastapi_toolsets.events.plan": 1,
    "fastapi_toolsets.events.plans": 1,
    "fastapi_toolsets.events.records": 1,
    "fastapi_toolsets.events.registry": 1,
    "fastapi_toolsets.events.warn": 1,
    "fastapi_toolsets.events.watched_fields": 1,
    "fastapi_toolsets.events.capture": 2,
    "fastapi_toolsets.events.crossing": 2,
    "fastapi_toolsets.events.differences": 2,
    "fastapi_toolsets.events.heard_rows": 2,
    "fastapi_toolsets.events.lost_commits": 2,
    "fastapi_toolsets.events.outcome": 2,
    "fastapi_toolsets.events.recorded_events": 2,
    "fastapi_toolsets.events.recording": 2,
    "fastapi_toolsets.events.transaction": 2,
    "fastapi_toolsets.events.bulk": 3,
    "fastapi_toolsets.events.dispatch": 3,
    "fastapi_toolsets.events.lent_connections": 3,
    "fastapi_toolsets.events.passing_by": 3,
    "fastapi_toolsets.events.asyncio": 4,
    "fastapi_toolsets.events.session": 4,
    "fastapi_toolsets.events.tracker": 4,
    "fastapi_toolsets.events.": 5,
    "fastapi_toolsets.models": 5,
    "fastapi_toolsets.cli": 6,
    "fastapi_toolsets.db": 6,
    "fastapi_toolsets.migrate": 6,
    "fastapi_toolsets.observability": 6,
    "fastapi_toolsets.pytest": 6,
    "fastapi_toolsets.sqlite": 6,
    "fastapi_toolsets.demo": 7,
    "fastapi_toolsets.pytest_plugin": 7,
}


def name_of(path: Path) -> str:
    """The module's dotted name, a package's own with a closing dot."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix("__init__")


MODULES = {name_of(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def module_named(dotted: str) -> str | None:
    """The module of this package that a dotted name means, where it means one."""
    return next((name for name in (dotted, f"{dotted}.") if name in MODULES), None)


def imports_of(module: str) -> set[str]:
    """The package's own modules that a module imports: at its top, inside functions and for type checkers alike."""
    package = module.rsplit(".", 1)[0].split(".")
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name for alias in node.names if (name := module_named(alias.name))}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            targets = {module_named(f"{origin}.{alias.name}") or module_named(origin) for alias in node.names}
            found |= {name for name in targets if name}
    return found - {module}


def floor_of(module: str) -> int:
    """The floor of a module, or of the nearest package above it that the table names."""
    name = module
    while name not in FLOORS:
        name, dot, _ = name.rpartition(".")
        if not dot:
            pytest.fail(f"{module} stands on no floor: add it to FLOORS in tests/test_floors.py")
    return FLOORS[name]


def part_of(module: str) -> str:
    """What one sees in the package, or in ``events``, and of which a module is a part: a module, or a whole package."""
    depth = 3 if module.startswith(f"{PACKAGE}.events.") else 2
    return ".".join(module.split(".")[:depth])


IMPORTS = {module: imports_of(module) for module in MODULES}


def test_every_module_imports_only_from_its_own_floor_or_below() -> None:
    upward = [
        f"{module} (floor {floor_of(module)}) imports {imported} (floor {floor_of(imported)})"
        for module, imports in IMPORTS.items()
        for imported in sorted(imports)
        if floor_of(imported) > floor_of(module)
    ]
    assert upward == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        order = list(TopologicalSorter(IMPORTS).static_order())
    except CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])))
    assert sorted(order) == sorted(MODULES)


def test_no_parts_import_each_other_in_a_circle() -> None:
    """Nor does one package need another that needs it, by other modules."""
    parts: dict[str, set[str]] = {}
    for module, imports in IMPORTS.items():
        parts.setdefault(part_of(module), set()).update(part_of(imported) for imported in imports)
    try:
        TopologicalSorter({part: others - {part} for part, others in parts.items()}).prepare()
    except CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])))


def test_the_table_names_only_what_is_there() -> None:
    packages = {name.removesuffix(".") for name in MODULES}
    assert sorted(set(FLOORS) - set(MODULES) - packages) == []


def test_relative_absolute_and_inner_imports_are_all_seen() -> None:
    """Guards the reading itself: an import that it overlooked would make the two tests above prove nothing."""
    assert "fastapi_toolsets.events.session" in IMPORTS["fastapi_toolsets.events.asyncio"]
    assert "fastapi_toolsets.events.asyncio" in IMPORTS["fastapi_toolsets.models."]
    assert "fastapi_toolsets.models." in IMPORTS["fastapi_toolsets.demo.models"]
