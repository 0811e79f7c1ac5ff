"""Small projects, written to the disk and migrated."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from fastapi_toolsets.migrate.project import migrate


def write_project(folder: Path, files: Mapping[str, str]) -> None:
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source).lstrip("\n"), encoding="utf-8")


def read_project(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))
    }


def migrate_project(folder: Path) -> list[str]:
    """Migrate a folder, and once more, which must change nothing; return what is left to a person, by file and line."""
    first = migrate([str(folder)])
    first.write()
    left = [f"{Path(task.shown).name}:{task.line}: {task.message}" for task in first.tasks]
    second = migrate([str(folder)])
    assert second.changed == ()
    assert [task.message for task in second.tasks] == [task.message for task in first.tasks]
    for path, source in read_project(folder).items():
        compile(source, path, "exec", dont_inherit=True)
    return left


def migrated(folder: Path, source: str) -> str:
    """Return what becomes of one file, of which nothing is left to a person."""
    write_project(folder, {"app.py": source})
    assert migrate_project(folder) == []
    return read_project(folder)["app.py"]
