"""Makes the mutants of the core: a copy of the project whose functions mutmut has given switchable variants."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from difflib import ndiff
from pathlib import Path

from mutmut.mutation.file_mutation import MutatedFile, mutate_file_contents
from mutmut.utils.format_utils import mangled_name_from_mutant_name, orig_function_and_class_names_from_key

CORE = Path("fastapi_toolsets", "events")
MODULES = (
    "records",
    "journal",
    "capture.capture",
    "capture.corrections",
    "capture.expiring",
    "capture.snapshots",
    "dispatch.queue",
    "dispatch.dispatch",
    "dispatch.reports",
    "dispatch.straight",
    "dispatch.delivery",
    "capture.at_hand",
    "capture.old_values",
    "capture.related",
    "capture.completion",
    "dispatch.telling",
    "tracker",
    "dispatch.voting",
    "lent_connections",
    "passing_by",
    "transaction",
    "plan",
    "watched_fields",
    "plans",
    "callbacks",
    "registry",
    "capture.loading",
    "capture.ordering",
    "crossing.crossing",
    "crossing.helper_threads",
    "outcome",
    "session",
    "options",
    "asyncio",
    "compatibility.flushes",
    "compatibility.greenlets",
    "compatibility.instances",
    "compatibility.mappers",
    "compatibility.statements",
    "compatibility.transactions",
)
"""The modules of the core; ``types`` declares and computes nothing."""

COPIED = ("fastapi_toolsets", "tests", "pyproject.toml")
_LITERAL = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass(frozen=True)
class Mutant:
    """One change to one function."""

    name: str
    """mutmut's name of the mutant, which switches it on."""
    module: str
    function: str
    """The function's name, with its class."""
    was: str
    """The lines that the mutant changes, without indentation."""
    now: str
    """What stands there instead."""

    @property
    def switch(self) -> str:
        """The name under which mutmut notes that a test calls the function."""
        return mangled_name_from_mutant_name(self.name)

    @property
    def only_wording(self) -> bool:
        """Whether only prose differs: the text of a message, in which any change is as good as the original."""
        before, after = _LITERAL.findall(self.was), _LITERAL.findall(self.now)
        changed = [(old, new) for old, new in zip(before, after, strict=False) if old != new]
        same_code = len(before) == len(after) and _LITERAL.sub("''", self.was) == _LITERAL.sub("''", self.now)
        return same_code and bool(changed) and all(" " in old and "{" not in old + new for old, new in changed)


def prepare(project: Path, workspace: Path) -> list[Mutant]:
    """Copy the project into the workspace, the core mutated, and return the mutants in order.

    Args:
        project: The checkout.
        workspace: A directory of this run's own; whatever was copied there before is replaced.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source, target = project / name, workspace / name
        if target.is_dir():
            shutil.rmtree(target)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    mutants: list[Mutant] = []
    for module in MODULES:
        path = CORE / f"{module.replace('.', '/')}.py"
        mutated = mutate_file_contents(str(path), (project / path).read_text("utf-8"))
        (workspace / path).write_text(mutated.code, "utf-8")
        mutants += _read(module, mutated)
    return mutants


def sample(mutants: Collection[Mutant], per_module: int, seed: int) -> list[Mutant]:
    """Choose at most so many mutants of each module.

    A mutant is chosen for what it changes, so that the choice is the same in every run and hardly another when the code
    around it changes.
    """

    def lot(mutant: Mutant) -> bytes:
        words = (str(seed), mutant.module, mutant.function, mutant.was, mutant.now)
        return hashlib.sha256("\0".join(words).encode()).digest()

    chosen: set[Mutant] = set()
    for module in MODULES:
        chosen.update(sorted((mutant for mutant in mutants if mutant.module == module), key=lot)[:per_module])
    return [mutant for mutant in mutants if mutant in chosen]


def _read(module: str, mutated: MutatedFile) -> Iterator[Mutant]:
    lines = mutated.code.splitlines()
    spans = mutated.line_span_by_function_name
    for name in mutated.mutant_names:
        full_name = f"{'.'.join(CORE.parts)}.{module}.{name}"
        function, class_name = orig_function_and_class_names_from_key(full_name)
        original, variant = (
            [line.replace(generated, function) for line in lines[spans[generated].start - 1 : spans[generated].end]]
            for generated in (f"{mangled_name_from_mutant_name(name)}__mutmut_orig", name)
        )
        changes = list(ndiff(original, variant))
        was, now = (
            "\n".join(line[2:].strip() for line in changes if line.startswith(f"{sign} ")) for sign in ("-", "+")
        )
        yield Mutant(full_name, module, f"{class_name}.{function}" if class_name else function, was, now)
