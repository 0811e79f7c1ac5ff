"""Little test suites of a user, run by pytest in a process of their own, as the installed plugin finds them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

_bytecode = tempfile.TemporaryDirectory(prefix="fastapi_toolsets_bytecode_")
"""What the suites of this process have compiled, where it may not lie beside the sources."""

MODELS = """
    from sqlalchemy import String
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

    class Base(DeclarativeBase):
        type_annotation_map = {str: String(200)}

    class Order(Base):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        status: Mapped[str] = mapped_column(default="new")
"""


@dataclass(frozen=True)
class Result:
    """What a run of pytest came to."""

    outcomes: dict[str, int]
    """How many tests ``passed``, ``failed`` and so on."""
    output: str
    exit_code: int

    @property
    def errors(self) -> list[str]:
        """What pytest says of failed assertions, line by line, without its ``E``."""
        return [line[1:].strip() for line in self.output.splitlines() if line.startswith("E ")]


class Suite:
    """A folder with tests in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("models.py", MODELS)

    def write(self, name: str, source: str) -> None:
        """Write a file, which may stand indented in the test."""
        (self.folder / name).write_text(textwrap.dedent(source), encoding="utf-8")

    def run(
        self, *arguments: str, settings: str = "", asyncio: bool = False, environment: Mapping[str, str] | None = None
    ) -> Result:
        """Run pytest as a user does, warnings being errors, with pytest-asyncio or as if it were not installed."""
        plugins = "asyncio_default_fixture_loop_scope = function" if asyncio else "addopts = -p no:asyncio"
        self.write("pytest.ini", f"[pytest]\nfilterwarnings = error\npythonpath = .\n{plugins}\n{settings}\n")
        unused = (
            "-p",
            "no:cacheprovider",
            "-p",
            "no:hypothesispytest",
        )  # Hypothesis takes longer to import than the rest
        return self.python("-m", "pytest", *unused, *arguments, environment=environment)

    def python(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Result:
        """Run Python in the folder."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        if sys.dont_write_bytecode:  # a run that compiles everything anew takes twice as long
            inherited.pop("PYTHONDONTWRITEBYTECODE", None)
            inherited["PYTHONPYCACHEPREFIX"] = _bytecode.name
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        (summary,) = re.findall(r"^(?:=+ )?((?:\d+ \w+(?:, )?)+) in [\d.]+s", done.stdout, re.MULTILINE) or [""]
        outcomes = {kind: int(number) for number, kind in re.findall(r"(\d+) (\w+)", summary)}
        return Result(outcomes, done.stdout, done.returncode)
