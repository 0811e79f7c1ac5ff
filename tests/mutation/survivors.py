"""The mutants that survive and may: each with the reason why no test can, or need, notice it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .mutants import Mutant

LIST = Path(__file__).with_name("survivors.toml")


@dataclass(frozen=True)
class Explanation:
    """Why changes to one line of one function may survive."""

    function: str
    """The module and the function, such as ``journal.Frame.absorb``."""
    was: str
    now: tuple[str, ...]
    reason: str

    def covers(self, mutant: Mutant) -> bool:
        """Whether it is about this mutant."""
        place = f"{mutant.module}.{mutant.function}"
        return self.function == place and self.was == mutant.was and mutant.now in self.now


def read_explanations() -> list[Explanation]:
    """Read the list."""
    entries = tomllib.loads(LIST.read_text("utf-8"))["explained"]
    return [Explanation(entry["function"], entry["was"], tuple(entry["now"]), entry["reason"]) for entry in entries]


def outdated(explanations: Iterable[Explanation], mutants: Iterable[Mutant]) -> list[Explanation]:
    """Return the explanations of changes that mutmut does not make any more, since the code is another."""
    possible = {(f"{mutant.module}.{mutant.function}", mutant.was, mutant.now) for mutant in mutants}
    return [
        explanation
        for explanation in explanations
        if any((explanation.function, explanation.was, now) not in possible for now in explanation.now)
    ]
