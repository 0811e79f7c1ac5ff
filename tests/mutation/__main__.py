"""Runs the mutation run and reports, per module, how many mutants the tests have killed.

``python -m tests.mutation`` tries every mutant of the core, ``--sample 40`` so many of each module. It fails where
fewer than nine of ten mutants are killed, and where one survives that ``survivors.toml`` does not explain. The wording
of messages is left as it is: any is as good as another.
"""

# ruff: noqa: T201 - it is a command, and reports on the terminal

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from .mutants import MODULES, Mutant, prepare, sample
from .plugin import MET_BY_IMPORTS, RESULTS, TO_TRY
from .survivors import Explanation, outdated, read_explanations

PROJECT = Path(__file__).parents[2]
LEAST_KILLED = 0.9
"""The share of the mutants that the tests must kill; those that are explained count as not killed."""
ON_SERVERS = ("test_failed_commits", "test_swallowed_errors", "test_statements_that_only_read")
LEFT_OUT = ("test_scale", "test_concurrency", "test_interrupts")
CHOICE = f"{' or '.join(ON_SERVERS)} or not ({' or '.join(('postgresql', 'mariadb', *LEFT_OUT))})"
TESTS = ("tests/contract", "tests/events", "tests/faults", "tests/model/test_regressions.py", "-k", CHOICE)
"""What runs against each mutant: SQLite, and the servers only where the core has something to ask of them."""
OPTIONS = ("-p", "no:cacheprovider", "-q", "-o", "tmp_path_retention_policy=failed", "-o", "tmp_path_retention_count=0")
ONCE = ("session.install", "outcome.install")
"""Functions that do something the first time only, which is before the first fork."""

Outcomes = dict[str, str]


def run_forks(workspace: Path, to_try: Collection[Mutant], results: Path) -> Outcomes:
    """Try mutants in forks of one pytest run; return what became of each, by name."""
    names = workspace / "to_try.json"
    names.write_text(json.dumps([mutant.name for mutant in to_try]), "utf-8")
    results.unlink(missing_ok=True)
    environment = {TO_TRY: str(names), RESULTS: str(results), "MUTANT_UNDER_TEST": "stats"}
    if run_pytest(workspace, "-x", "-p", "tests.mutation.plugin", **environment):
        sys.exit("the tests fail on the original: mend them first")
    entries = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    return {entry["name"]: entry["outcome"] for entry in entries}


def run_afresh(workspace: Path, mutant: Mutant) -> str:
    """Try a mutant of code that runs on import, which forks have behind them, in a process of its own."""
    return "killed" if run_pytest(workspace, "-x", "--tb=no", MUTANT_UNDER_TEST=mutant.name) else "survived"


def run_pytest(workspace: Path, *options: str, **environment: str) -> int:
    """Run the tests in the workspace."""
    command = [sys.executable, "-m", "pytest", *OPTIONS, *options, *TESTS]
    defaults = {"PYTHONDONTWRITEBYTECODE": "1", "MUTMUT_DEPENDENCY_DEPTH": "-1"}
    completed = subprocess.run(command, cwd=workspace, env={**os.environ, **defaults, **environment}, check=False)
    return completed.returncode


def report(outcomes: Outcomes, mutants: Collection[Mutant], explanations: Collection[Explanation]) -> bool:
    """Print a table, and each survivor that nobody has explained; return whether all is well."""
    columns = ("mutants", "killed", "timeout", "explained", "survived", "not covered")
    totals: Counter[str] = Counter()
    unexplained: list[Mutant] = []
    print(f"{'module':<15}" + "".join(f"{column:>13}" for column in columns) + f"{'killed %':>11}")
    for module in MODULES:
        counts: Counter[str] = Counter()
        for mutant in mutants:
            if mutant.module == module and mutant.name in outcomes:
                outcome = outcomes[mutant.name]
                if outcome in ("survived", "not covered"):
                    if is_explained(mutant, explanations):
                        outcome = "explained"
                    else:
                        unexplained.append(mutant)
                counts.update((outcome, "mutants"))
        totals += counts
        if counts:
            print_row(module, counts, columns)
    print_row("all", totals, columns)
    for mutant in unexplained:
        print(f"\n{outcomes[mutant.name]}, unexplained: {mutant.name}\n  - {mutant.was}\n  + {mutant.now}")
    enough = totals["killed"] + totals["timeout"] >= LEAST_KILLED * totals["mutants"]
    return enough and not unexplained


def is_explained(mutant: Mutant, explanations: Collection[Explanation]) -> bool:
    """Whether ``survivors.toml`` says why the mutant may survive."""
    return any(explanation.covers(mutant) for explanation in explanations)


def print_row(name: str, counts: Counter[str], columns: Collection[str]) -> None:
    """Print one line of the table; the percentage is rounded down."""
    share = (counts["killed"] + counts["timeout"]) * 1000 // max(1, counts["mutants"]) / 10
    print(f"{name:<15}" + "".join(f"{counts[column]:>13}" for column in columns) + f"{share:>11}")


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--sample", type=int, metavar="N", help="try N mutants of each module, always the same")
    parser.add_argument("--modules", nargs="+", choices=MODULES, default=MODULES, metavar="MODULE", help="only these")
    parser.add_argument("--survivors", action="store_true", help="try only what survived the last time")
    parser.add_argument("--explained", action="store_true", help="try what survivors.toml explains, too")
    parser.add_argument("--workspace", type=Path, default=PROJECT / "build" / "mutation", help="where to work")
    arguments = parser.parse_args()
    workspace, results = arguments.workspace.resolve(), arguments.workspace.resolve() / "results.jsonl"
    survived = read_survivors(results) if arguments.survivors else None

    os.chdir(PROJECT)  # where mutmut looks for its configuration
    mutants = prepare(PROJECT, workspace)
    explanations = read_explanations()
    chosen = [mutant for mutant in mutants if not mutant.only_wording and mutant.module in arguments.modules]
    if arguments.sample:
        chosen = sample(chosen, arguments.sample)
    if survived is not None:
        chosen = [mutant for mutant in chosen if mutant.name in survived]
    outcomes = {mutant.name: "survived" for mutant in chosen}
    # Those that are explained would cost most: every test passes.
    to_try = [mutant for mutant in chosen if arguments.explained or not is_explained(mutant, explanations)]
    outcomes |= run_forks(workspace, to_try, results)
    met_by_imports = set(json.loads((workspace / MET_BY_IMPORTS).read_text("utf-8")))
    for mutant in to_try:
        once = mutant.switch in met_by_imports or f"{mutant.module}.{mutant.function}" in ONCE
        if once and outcomes[mutant.name] in ("survived", "not covered"):
            outcomes[mutant.name] = run_afresh(workspace, mutant)
    good = report(outcomes, mutants, explanations)
    for explanation in outdated(explanations, mutants):
        print(f"\noutdated explanation of {explanation.function}: {explanation.was}")
        good = False
    return 0 if good else 1


def read_survivors(results: Path) -> set[str]:
    """Return the names of what survived, or was not covered, in an earlier run."""
    entries = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    return {entry["name"] for entry in entries if entry["outcome"] in ("survived", "not covered")}


if __name__ == "__main__":
    sys.exit(main())
