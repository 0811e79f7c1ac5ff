"""Runs the mutation run and reports, per module, how many mutants the tests have killed.

``python -m tests.mutation`` tries a sample, the same every time; ``--all`` tries every mutant of the core. The exit
status is 1 where fewer than nine of ten mutants are killed (a sample stands for its module), where one survives that
``survivors.toml`` does not explain, where an explanation is about code that is no longer there or a mutant that is
killed, and where the tests fail on the original. The wording of messages is left as it is: any is as good as another.
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
from .plugin import JOBS, MET_BY_IMPORTS, ORIGINAL, RESULTS, TO_TRY
from .survivors import Explanation, outdated, read_explanations

PROJECT = Path(__file__).parents[2]
LEAST_KILLED = 0.9
"""The share of the mutants that the tests must kill; those that are explained count as not killed."""
SAMPLE = 50
"""How many mutants of each module are tried unless told otherwise: about an hour on two cores."""
ON_SERVERS = ("test_failed_commits", "test_swallowed_errors", "test_statements_that_only_read")
LEFT_OUT = ("test_scale", "test_bulk_scale", "test_concurrency", "test_the_line_that_wrote", "statement_warns_once")
"""What takes long, sees the functions that mutmut puts in between (their frames, and what these hold on to), or passes
but once in a process."""
CHOICE = f"{' or '.join(ON_SERVERS)} or not ({' or '.join(('postgresql', 'mariadb', *LEFT_OUT))})"
PLACES = (
    *("tests/contract", "tests/events", "tests/faults", "tests/model/test_regressions.py"),
    "tests/observability/test_log_fields.py",
)
TESTS = (*PLACES, "-k", CHOICE)
"""What runs against each mutant: SQLite, and the servers only where the core has something to ask of them."""
OPTIONS = ("-p", "no:cacheprovider", "-q", "-o", "tmp_path_retention_policy=failed")
ONCE = ("session.install", "passing_by.notice_plain_session", "passing_by._described", "outcome.install")
"""Functions that do something the first time only, or for a model, which is before the first fork."""

Outcomes = dict[str, str]
SURVIVED = ("survived", "not covered")


def run_forks(workspace: Path, to_try: Collection[Mutant], results: Path, jobs: int) -> Outcomes:
    """Try mutants in forks of one pytest run, so many at a time; return what became of each, by name."""
    names = workspace / "to_try.json"
    names.write_text(json.dumps([mutant.name for mutant in to_try]), "utf-8")
    results.unlink(missing_ok=True)
    environment = {TO_TRY: str(names), RESULTS: str(results), JOBS: str(jobs), "MUTANT_UNDER_TEST": "stats"}
    if run_pytest(workspace, "-x", "-p", "tests.mutation.plugin", **environment):
        sys.exit("the tests fail on the original: mend them first")
    entries = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    outcomes: Outcomes = {entry["name"]: entry["outcome"] for entry in entries}
    if outcomes.pop(ORIGINAL) != "survived":
        sys.exit(f"a test that killed mutants fails on the original as well: {entries[-1]['by']}")
    return outcomes


def run_afresh(workspace: Path, mutant: Mutant) -> str:
    """Try a mutant of code that runs on import, which forks have behind them, in a process of its own."""
    return "killed" if run_pytest(workspace, "-x", "--tb=no", MUTANT_UNDER_TEST=mutant.name) else "survived"


def run_pytest(workspace: Path, *options: str, **environment: str) -> int:
    """Run the tests in the workspace."""
    # Beside others' temporary files another pytest run would tidy them away, and every test would fail from then on.
    command = [sys.executable, "-m", "pytest", *OPTIONS, f"--basetemp={workspace / 'temporary'}", *options, *TESTS]
    defaults = {"PYTHONDONTWRITEBYTECODE": "1", "MUTMUT_DEPENDENCY_DEPTH": "-1"}
    completed = subprocess.run(command, cwd=workspace, env={**os.environ, **defaults, **environment}, check=False)
    return completed.returncode


def report(
    outcomes: Outcomes, chosen: Collection[Mutant], population: Counter[str], explanations: Collection[Explanation]
) -> float:
    """Print a table; return the share of killed mutants, with what was tried of each module standing for all of it."""
    columns = ("mutants", "tried", "killed", "timeout", "explained", "survived", "not covered")
    totals: Counter[str] = Counter()
    estimate = 0.0
    print(f"\n{'module':<15}" + "".join(f"{column:>13}" for column in columns) + f"{'killed %':>11}")
    for module in MODULES:
        counts: Counter[str] = Counter()
        for mutant in chosen:
            if mutant.module == module:
                outcome = outcomes[mutant.name]
                explained = outcome in SURVIVED and is_explained(mutant, explanations)
                counts.update(("explained" if explained else outcome, "tried"))
        if counts:
            counts["mutants"] = population[module]
            estimate += population[module] * noticed(counts) / counts["tried"]
            totals += counts
            print_row(module, counts, columns)
    print_row("all", totals, columns)
    share = estimate / max(1, totals["mutants"])
    print(f"each module weighed by its mutants: {share:.1%} killed")
    return share


def judge(outcomes: Outcomes, chosen: Collection[Mutant], explanations: Collection[Explanation]) -> list[str]:
    """Print each survivor that nobody has explained; return what is wrong with survivors and explanations."""
    unexplained = 0
    complaints: list[str] = []
    for mutant in chosen:
        outcome, explained = outcomes[mutant.name], is_explained(mutant, explanations)
        if outcome in SURVIVED and not explained:
            unexplained += 1
            print(f"\n{outcome}, unexplained: {mutant.name}\n  - {mutant.was}\n  + {mutant.now}")
        elif explained and outcome not in SURVIVED:
            complaints.append(f"explained, but {outcome}: {mutant.module}.{mutant.function}: {mutant.now}")
    return [f"{unexplained} unexplained survivors", *complaints] if unexplained else complaints


def is_explained(mutant: Mutant, explanations: Collection[Explanation]) -> bool:
    """Whether ``survivors.toml`` says why the mutant may survive."""
    return any(explanation.covers(mutant) for explanation in explanations)


def noticed(counts: Counter[str]) -> int:
    """How many mutants some test has noticed: one that runs for ever is noticed, too."""
    return counts["killed"] + counts["timeout"]


def print_row(name: str, counts: Counter[str], columns: Collection[str]) -> None:
    """Print one line of the table; the percentage is rounded down."""
    share = noticed(counts) * 1000 // max(1, counts["tried"]) / 10
    print(f"{name:<15}" + "".join(f"{counts[column]:>13}" for column in columns) + f"{share:>11}")


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument(
        "--sample", type=int, default=SAMPLE, metavar="N", help="try N mutants of each module (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="which sample; the same seed gives the same one (%(default)s)"
    )
    parser.add_argument("--all", action="store_true", help="try every mutant")
    parser.add_argument("--modules", nargs="+", choices=MODULES, default=MODULES, metavar="MODULE", help="only these")
    parser.add_argument("--survivors", action="store_true", help="try only what survived the last time")
    parser.add_argument("--outdated", action="store_true", help="try nothing: only look for outdated explanations")
    parser.add_argument("--explained", action="store_true", help="try what survivors.toml explains, too")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="so many at a time (%(default)s)"
    )
    parser.add_argument("--workspace", type=Path, default=PROJECT / "build" / "mutation", help="where to work")
    arguments = parser.parse_args()
    workspace, results = arguments.workspace.resolve(), arguments.workspace.resolve() / "results.jsonl"
    survived = read_survivors(results) if arguments.survivors else None

    os.chdir(PROJECT)  # where mutmut looks for its configuration
    mutants = prepare(PROJECT, workspace)
    explanations = read_explanations()
    complaints = [
        f"outdated explanation of {explanation.function}: {explanation.was}"
        for explanation in outdated(explanations, mutants)
    ]
    if arguments.outdated:
        return conclude(complaints)
    chosen = [mutant for mutant in mutants if not mutant.only_wording and mutant.module in arguments.modules]
    population = Counter(mutant.module for mutant in chosen)
    if survived is not None:
        chosen = [mutant for mutant in chosen if mutant.name in survived]
    elif not arguments.all:
        chosen = sample(chosen, arguments.sample, arguments.seed)
    outcomes = {mutant.name: "survived" for mutant in chosen}
    # Those that are explained would cost most: every test passes.
    to_try = [mutant for mutant in chosen if arguments.explained or not is_explained(mutant, explanations)]
    outcomes |= run_forks(workspace, to_try, results, arguments.jobs)
    met_by_imports = set(json.loads((workspace / MET_BY_IMPORTS).read_text("utf-8")))
    for mutant in to_try:
        once = mutant.switch in met_by_imports or f"{mutant.module}.{mutant.function}" in ONCE
        if once and outcomes[mutant.name] in SURVIVED:
            outcomes[mutant.name] = run_afresh(workspace, mutant)
    share = report(outcomes, chosen, population, explanations)
    complaints += judge(outcomes, chosen, explanations)
    if share < LEAST_KILLED and not arguments.survivors:
        complaints.append(f"less than {LEAST_KILLED:.0%} killed")
    return conclude(complaints)


def conclude(complaints: Collection[str]) -> int:
    """Print what is not well; return the exit status."""
    for complaint in complaints:
        print(f"FAILED: {complaint}")
    if not complaints:
        print("All is well.")
    return 1 if complaints else 0


def read_survivors(results: Path) -> set[str]:
    """Return the names of what survived, or was not covered, in an earlier run."""
    entries = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    return {entry["name"] for entry in entries if entry["outcome"] in SURVIVED} - {ORIGINAL}


if __name__ == "__main__":
    sys.exit(main())
