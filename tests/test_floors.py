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
    "fastapi_toolsets.events.compatibility": 0,
    "fastapi_toolsets.events.logs": 0,
    "fastapi_toolsets.events.process_lock": 0,
    "fastapi_toolsets.events.types": 0,
    "fastapi_toolsets.events.journal": 1,
    "fastapi_toolsets.events.muting": 1,
    "fastapi_toolsets.events.observation": 1,
    "fastapi_toolsets.events.callbacks": 1,
    "fastapi_toolsets.events.plan": 1,
    "fastapi_toolsets.events.plans": 1,
    "fastapi_toolsets.events.records": 1,
    "fastapi_toolsets.events.registry": 1,
    "fastapi_toolsets.events.transaction": 2,
    "fastapi_toolsets.events.warn": 1,
    "fastapi_toolsets.events.before_commit": 2,
    "fastapi_toolsets.events.bulk": 2,
    "fastapi_toolsets.events.at_hand": 2,
    "fastapi_toolsets.events.bulk_conflicts": 2,
    "fastapi_toolsets.events.bulk_following": 2,
    "fastapi_toolsets.events.bulk_inserts": 2,
    "fastapi_toolsets.events.bulk_keys": 2,
    "fastapi_toolsets.events.bulk_reading": 2,
    "fastapi_toolsets.events.bulk_sending": 2,
    "fastapi_toolsets.events.bulk_criteria": 2,
    "fastapi_toolsets.events.bulk_statements": 2,
    "fastapi_toolsets.events.capture": 2,
    "fastapi_toolsets.events.completion": 2,
    "fastapi_toolsets.events.crossing": 2,
    "fastapi_toolsets.events.delivery": 2,
    "fastapi_toolsets.events.dispatch": 2,
    "fastapi_toolsets.events.eager": 2,
    "fastapi_toolsets.events.expiring": 2,
    "fastapi_toolsets.events.failures": 2,
    "fastapi_toolsets.events.heard_rows": 2,
    "fastapi_toolsets.events.helper_threads": 2,
    "fastapi_toolsets.events.host": 2,
    "fastapi_toolsets.events.kept_loop": 2,
    "fastapi_toolsets.events.lent_connections": 2,
    "fastapi_toolsets.events.loading": 2,
    "fastapi_toolsets.events.observing": 2,
    "fastapi_toolsets.events.old_values": 2,
    "fastapi_toolsets.events.ordering": 2,
    "fastapi_toolsets.events.outcome": 2,
    "fastapi_toolsets.events.outliving": 2,
    "fastapi_toolsets.events.passing_by": 2,
    "fastapi_toolsets.events.queue": 2,
    "fastapi_toolsets.events.recording": 2,
    "fastapi_toolsets.events.reports": 2,
    "fastapi_toolsets.events.rows": 2,
    "fastapi_toolsets.events.straight": 2,
    "fastapi_toolsets.events.telling": 2,
    "fastapi_toolsets.events.voting": 2,
    "fastapi_toolsets.events.asyncio": 3,
    "fastapi_toolsets.events.session": 3,
    "fastapi_toolsets.events.tracker": 3,
    "fastapi_toolsets.events.": 4,
    "fastapi_toolsets.models": 4,
    "fastapi_toolsets.cli": 5,
    "fastapi_toolsets.db": 5,
    "fastapi_toolsets.observability": 5,
    "fastapi_toolsets.migrate": 5,
    "fastapi_toolsets.pytest": 5,
    "fastapi_toolsets.pytest_plugin": 6,
    "fastapi_toolsets.demo": 6,
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


def test_the_table_names_only_what_is_there() -> None:
    packages = {name.removesuffix(".") for name in MODULES}
    assert sorted(set(FLOORS) - set(MODULES) - packages) == []


def test_relative_absolute_and_inner_imports_are_all_seen() -> None:
    """Guards the reading itself: an import that it overlooked would make the two tests above prove nothing."""
    assert "fastapi_toolsets.events.session" in IMPORTS["fastapi_toolsets.events.asyncio"]
    assert "fastapi_toolsets.events.asyncio" in IMPORTS["fastapi_toolsets.models."]
    assert "fastapi_toolsets.models." in IMPORTS["fastapi_toolsets.demo.models"]
