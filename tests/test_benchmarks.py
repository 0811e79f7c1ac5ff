"""The benchmarks run, and what they write is complete. Nothing here looks at a time."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import command, instructions
from benchmarks.bars import MET, NOT_MET, WITHIN_NOISE, judge, time_limit, verdicts
from benchmarks.growth import TABLES, judge_growth, judge_slowdown
from benchmarks.instructions import (
    PROGRAMS,
    ROW_GROWTH_LIMIT,
    ROWS,
    Counts,
    growth_of_rows,
    regressions,
    row_name,
)
from benchmarks.matrix import LISTENERS, OPERATIONS, Group, UnknownCellsError, all_groups, select_cells
from benchmarks.picture import draw
from benchmarks.processes import ROOT, WorkerError, WorkerProcess
from benchmarks.results import Comparison, Costs, GrowthRow, Results, Spread, Verdict

from .services import require_service

CELL = {
    "name", "database", "operation", "rows", "table", "expire_on_commit", "listeners", "rounds", "commits_per_round",
    "plain_milliseconds", "again", "noise", "ours", "published", "verdicts",
}  # fmt: skip
COMPARISON = {
    "wall", "processor", "to_untouched", "plain_to_untouched", "microseconds_per_row", "passes", "plain_passes",
    "costs", "plain_costs",
}  # fmt: skip
COSTS = {"statements", "after_commit", "held", "peak"}
SPREAD = {"median", "low", "high"}
VERDICT = {"bar", "limit", "value", "outcome"}
GROWTH_TABLES = [
    "rows-create", "rows-update", "rows-delete", "memory-create", "memory-update", "memory-delete", "listeners",
    "clean-off", "clean-on", "savepoints", "transactions",
    "bulk-passed-update", "bulk-told-update", "bulk-objects-update",
    "bulk-passed-delete", "bulk-told-delete", "bulk-objects-delete",
]  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


def run(*arguments: str) -> None:
    """Run the benchmarks, which must succeed, in this process; what they measure runs in processes of its own."""
    assert command.run(arguments) == 0


def measured(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the benchmarks and return what they wrote."""
    run(*arguments, "--json", str(folder / "results.json"))
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def parse(picture: str) -> ET.Element:
    return ET.fromstring(picture)  # noqa: S314 - the benchmarks' own


def comparison(ratio: float, *, statements: int = 1, after_commit: int = 0) -> Comparison:
    spread = Spread(ratio, ratio, ratio)
    one = Spread(1.0, 1.0, 1.0)
    costs = Costs(statements, after_commit, 1_000, 1_500)
    return Comparison(spread, spread, spread, one, 1.0, 0, 0, costs, Costs(1, 0, 1_000, 1_500))


def outcomes(
    group: Group, listeners: str, ours: Comparison, published: Comparison | None, noise: float = 0.0
) -> list[tuple[str, str]]:
    return [(found.bar, found.outcome) for found in verdicts(group, listeners, ours, published, noise)]


def test_command_as_users_run_it(tmp_path: Path) -> None:
    """Piped, so without colours and progress; sync and async front-end, each kind of listeners."""
    patterns = ["--cells", "sqlite/update/1/10/keep/*", "--cells", "aiosqlite/create/1/40/expire/async"]
    files = ["--json", str(tmp_path / "results.json"), "--svg", str(tmp_path / "picture.svg")]
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks", "cells", *patterns, "--rounds", "2", "--no-published", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    names = [f"sqlite/update/1/10/keep/{listeners}" for listeners in LISTENERS]
    names.append("aiosqlite/create/1/40/expire/async")
    assert set(results) == {"format", "machine", "cells", "growth", "floor", "notes", "finished"}
    assert set(results["machine"]) >= {"python", "sqlalchemy", "processors", "load_before", "load_after"}
    assert (results["finished"], results["growth"], results["floor"]) == (True, [], [])
    assert results["notes"] == ["The published library was left out."]
    assert [cell["name"] for cell in results["cells"]] == names
    for cell in results["cells"]:
        assert set(cell) == CELL
        assert (cell["rounds"], cell["published"]) == (2, None)
        assert set(cell["again"]) == SPREAD
        assert set(cell["ours"]) == COMPARISON
        assert set(cell["ours"]["costs"]) == set(cell["ours"]["plain_costs"]) == COSTS
        assert {key for verdict in cell["verdicts"] for key in verdict} == VERDICT
        assert cell["plain_milliseconds"] > 0
        assert cell["ours"]["costs"]["peak"] > cell["ours"]["costs"]["held"] > 0
    drawn = parse((tmp_path / "picture.svg").read_text(encoding="utf-8"))
    assert len(drawn.findall(f"{SVG}rect[@height='13']")) == len(names)
    for name in names:
        assert re.search(rf"^{name} .* (met|within noise: .*|not met: .*)$", finished.stdout, re.MULTILINE)


def test_statements_are_those_of_a_plain_session(tmp_path: Path) -> None:
    """E12, T7: for 1,000 rows too, and none after COMMIT."""
    pattern = "aiosqlite/*/1000/10/expire/sync"
    cells = measured(tmp_path, "cells", "--cells", pattern, "--rounds", "1", "--no-published")["cells"]
    costs = {
        cell["operation"]: [
            (cell["ours"][side]["statements"], cell["ours"][side]["after_commit"]) for side in ("plain_costs", "costs")
        ]
        for cell in cells
    }
    assert costs == {operation: [(1, 0), (1, 0)] for operation in OPERATIONS}


def test_postgresql(tmp_path: Path) -> None:
    """Also that the database made for the run can be made and dropped; E12: the SELECT comes before COMMIT."""
    require_service("postgresql")
    pattern = "postgresql/update/100/onupdate/keep/sync"
    (cell,) = measured(tmp_path, "cells", "--cells", pattern, "--rounds", "1", "--no-published")["cells"]
    costs = [
        (cell["ours"][side]["statements"], cell["ours"][side]["after_commit"]) for side in ("plain_costs", "costs")
    ]
    assert costs == [(1, 0), (2, 0)]


def test_floor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = measured(tmp_path, "floor", "--rounds", "1")["floor"]
    names = [f"sqlite/{operation}/1/10/{expiry}" for operation in OPERATIONS for expiry in ("expire", "keep")]
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert set(row) == {"name", "plain_microseconds", "again", "hooks", "task"}
        assert all(set(row[variant]) == SPREAD for variant in ("again", "hooks", "task"))
        assert row["plain_microseconds"] > 0
    printed = capsys.readouterr().out
    assert [name for name in names if re.search(rf"^{name}( +[0-9.]+){{2}}", printed, re.MULTILINE)] == names


def test_growth(tmp_path: Path) -> None:
    results = measured(tmp_path, "growth", "--smallest", "--rounds", "1")
    assert [table["name"] for table in results["growth"]] == GROWTH_TABLES
    for table in results["growth"]:
        assert set(table) == {"name", "title", "size", "per", "rows", "verdicts"}
        assert [row["size"] for row in table["rows"]] == ([2, 4] if table["name"] == "transactions" else [1, 2])
        assert all(set(verdict) == VERDICT for verdict in table["verdicts"])


def test_growth_table_by_name(tmp_path: Path) -> None:
    results = measured(tmp_path, "growth", "--smallest", "--rounds", "1", "--tables", "savepoints")
    assert [table["name"] for table in results["growth"]] == ["savepoints"]
    assert set(TABLES) == {name.partition("-")[0] for name in GROWTH_TABLES}


def test_quick_leaves_out_what_it_says() -> None:
    everything = select_cells([], quick=False)
    quick = select_cells([], quick=True)
    assert sum(map(len, everything.values())) == 3 * (3 * 4 * 2 * 2 + 4 * 2) * 4
    assert {group.rows for group in quick} == {1, 1_000}
    assert {group.table for group in quick} == {"10"}
    assert set(quick) < set(everything) == set(all_groups())
    assert {found for listeners in quick.values() for found in listeners} == set(LISTENERS)


def test_cells_by_pattern() -> None:
    found = select_cells(["sqlite/*/1/10/keep/sync", "*/create/10000/40/expire/none"], quick=False)
    assert {group.cell_name(listeners) for group, kinds in found.items() for listeners in kinds} == {
        "sqlite/create/1/10/keep/sync",
        "sqlite/update/1/10/keep/sync",
        "sqlite/delete/1/10/keep/sync",
        "sqlite/create/10000/40/expire/none",
        "aiosqlite/create/10000/40/expire/none",
        "postgresql/create/10000/40/expire/none",
    }
    with pytest.raises(UnknownCellsError, match=r"^no cell matches oracle/\*: cells are named database/"):
        select_cells(["sqlite/*", "oracle/*"], quick=False)


@pytest.mark.parametrize(
    ("group", "listeners", "limit"),
    [
        (Group("sqlite", "create", 1, "10", expire=True), "none", 1.02),
        (Group("sqlite", "create", 1, "10", expire=True), "elsewhere", 1.05),
        (Group("postgresql", "create", 1, "10", expire=True), "elsewhere", 1.03),
        (Group("sqlite", "update", 1, "40", expire=False), "async", 1.12),
        (Group("aiosqlite", "update", 1, "40", expire=False), "sync", 1.08),
        (Group("aiosqlite", "create", 100, "10", expire=False), "sync", 1.05),
        (Group("aiosqlite", "delete", 10_000, "10", expire=True), "async", 1.12),
        (Group("postgresql", "update", 1_000, "10", expire=True), "sync", 1.05),
        (Group("postgresql", "update", 1_000, "10", expire=False), "sync", 1.18),
        (Group("postgresql", "update", 100, "onupdate", expire=False), "sync", 1.6),
        (Group("postgresql", "update", 1, "onupdate", expire=False), "sync", float("inf")),
        (Group("postgresql", "update", 1, "onupdate", expire=False), "none", 1.02),
    ],
)
def test_time_bars(group: Group, listeners: str, limit: float) -> None:
    assert time_limit(group, listeners) == limit


def test_verdicts() -> None:
    group = Group("aiosqlite", "update", 1_000, "10", expire=True)
    bars = [
        "time",
        "other number of statements",
        "statements after COMMIT",
        "no slower than the published library",
        "3 times less overhead than it",
    ]
    published = comparison(1.25, statements=2, after_commit=1)
    assert outcomes(group, "sync", comparison(1.04), published) == [(bar, MET) for bar in bars]
    assert outcomes(group, "sync", comparison(1.5, statements=2, after_commit=1), published) == [
        (bar, NOT_MET) for bar in bars
    ]
    assert outcomes(group, "sync", comparison(1.09), published, noise=0.05) == [
        ("time", WITHIN_NOISE),
        *((bar, MET) for bar in bars[1:4]),
        ("3 times less overhead than it", WITHIN_NOISE),
    ]
    assert outcomes(group, "sync", comparison(1.04), None) == [(bar, MET) for bar in bars[:3]]
    assert outcomes(group, "elsewhere", comparison(1.0), published) == [(bar, MET) for bar in bars[:4]]
    stamped = Group("aiosqlite", "update", 1, "onupdate", expire=True)
    assert outcomes(stamped, "sync", comparison(2.0, statements=2), None) == [("statements after COMMIT", MET)]


def always(verdict: Verdict, *_arguments: object) -> list[Verdict]:
    return [verdict]


def test_check_fails_where_a_bar_is_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["cells", "--cells", "sqlite/create/1/10/keep/none", "--rounds", "1", "--no-published"]
    for outcome, code in ((MET, 0), (WITHIN_NOISE, 0), (NOT_MET, 1)):
        limit, noise = {MET: (2.0, 0.0), WITHIN_NOISE: (0.5, 1.0), NOT_MET: (0.5, 0.0)}[outcome]
        verdict = judge("time", 1.0, limit, noise)
        assert verdict.outcome == outcome
        monkeypatch.setattr("benchmarks.comparison.verdicts", partial(always, verdict))
        assert command.run([*arguments, "--check"]) == code
    assert command.run(arguments) == 0


@pytest.mark.parametrize(
    ("extra", "value", "outcome"),
    [
        (Spread(1.5, 1.4, 1.6), 1.5, MET),
        (Spread(2.0, 1.4, 2.6), 2.0, WITHIN_NOISE),
        (Spread(2.0, 1.9, 2.1), 2.0, NOT_MET),
        (Spread(-0.5, -1.0, 0.5), 0.0, MET),
    ],
)
def test_growth_is_judged_by_what_rounds_differ(extra: Spread, value: float, outcome: str) -> None:
    first, last = (GrowthRow(1, 9.0, 10.0, taken, Spread.of([1.1])) for taken in (Spread(1.0, 0.9, 1.1), extra))
    assert judge_growth("overhead", first, last) == Verdict("overhead", 1.5, value, outcome)


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (Spread(1.2, 1.1, 1.3), MET),
        (Spread(1.5, 1.2, 1.6), WITHIN_NOISE),
        (Spread(1.5, 1.4, 1.6), NOT_MET),
    ],
)
def test_slowdown_is_judged_by_what_turns_differ(last: Spread, outcome: str) -> None:
    verdict = judge_slowdown("ratio", Spread(1.2, 1.1, 1.25), last)
    assert (verdict.limit, verdict.value, verdict.outcome) == (1.1, last.median / 1.2, outcome)


def test_instruction_counts_that_regress() -> None:
    versions = {"python": "3.11.7"}
    reference = Counts(versions, {"plain": 1_000, "events": 1_100, "gone": 5}, {"events": 1.1})
    assert regressions(reference, Counts(versions, {"plain": 1_000, "events": 1_120}, {"events": 1.12})) == {}
    assert regressions(reference, Counts(versions, {"plain": 1_050, "events": 1_155}, {"events": 1.1})) == {
        "plain": 1.05,
        "events": 1.05,
    }
    other = {"python": "3.12.1"}
    assert regressions(reference, Counts(other, {"plain": 2_000, "events": 2_200}, {"events": 1.1})) == {}
    assert set(regressions(reference, Counts(other, {"plain": 500, "events": 600}, {"events": 1.2}))) == {"events"}


def test_reference_of_instruction_counts_is_complete() -> None:
    reference = instructions.read_reference()
    assert reference is not None
    each_row = [
        (variant, row_name(operation, rows, variant))
        for operation in OPERATIONS
        for variant in ("plain", "events")
        for rows in ROWS
    ]
    assert list(reference.instructions) == [program.name for program in PROGRAMS] + [name for _, name in each_row]
    ratios = [program.name for program in PROGRAMS if program.plain]
    assert list(reference.ratios) == ratios + [name for variant, name in each_row if variant == "events"]


def test_instructions_for_a_row_are_the_same_in_a_large_commit() -> None:
    """Linear in rows, where a processor's caches cannot blur it."""
    reference = instructions.read_reference()
    assert reference is not None
    growth = growth_of_rows(reference)
    assert list(growth) == list(OPERATIONS)
    assert {operation: ratio for operation, ratio in growth.items() if ratio > ROW_GROWTH_LIMIT} == {}


def test_instructions_need_valgrind(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert command.run(["instructions"]) == 1
    assert capsys.readouterr() == (
        "",
        "instructions are counted by valgrind, which is not installed: install the package of that name\n",
    )


@pytest.mark.parametrize("front_end", ["sync", "async"])
@pytest.mark.parametrize("listeners", ["none", "sync", "async"])
def test_program_whose_instructions_are_counted(front_end: str, listeners: str) -> None:
    assert _run_worker("one_row", front_end, "ours", listeners, "events", "2", "3") == (0, "", "")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_program_whose_instructions_for_a_row_are_counted(operation: str) -> None:
    assert _run_worker("many_rows", "events", operation, "2", "3") == (0, "", "")


def _run_worker(module: str, *arguments: str) -> tuple[int, str, str]:
    program = f"import sys; from benchmarks.worker.{module} import main; main(sys.argv[1:])"
    finished = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return finished.returncode, finished.stdout, finished.stderr


def test_measuring_process_that_fails_says_why() -> None:
    with WorkerProcess("none", "none") as process:
        assert process.ask("hello")["variants"] == {"sync": ["plain", "plain again"], "async": ["plain", "plain again"]}
        with pytest.raises(
            WorkerError, match=r"(?s)^the measuring process none \(none\) could not round:.*send 'open'"
        ):
            process.ask("round", variants=["plain"], expire=True, repeats=1)
        assert "sqlalchemy" in process.ask("hello")["versions"]


def test_measuring_process_that_ends(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        WorkerProcess("none", "none", python=shutil.which("true") or "true") as process,
        pytest.raises(WorkerError, match=r"^the measuring process none \(none\) ended with 0 while asked to hello"),
    ):
        process.ask("hello")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "argument --rounds: '0' is not a whole number of 1 or more"),
        (["--rounds", "many"], "argument --rounds: 'many' is not a whole number of 1 or more"),
        (["--tables", "rows-create"], "argument --tables: invalid choice: 'rows-create'"),
        (["cells", "--cells", "oracle/*", "--no-published"], "no cell matches oracle/*: cells are named "),
        (["everything"], "argument part: invalid choice: 'everything'"),
    ],
)
def test_arguments_that_cannot_be_used(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        command.run(arguments)
    assert exited.value.code == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert output.err.startswith(f"python -m benchmarks: {message}")


def test_postgresql_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TEST_POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:1/postgres")
    assert command.run(["cells", "--cells", "postgresql/create/1/10/keep/none", "--no-published"]) == 1
    assert capsys.readouterr().err.startswith("PostgreSQL at 127.0.0.1:1 gave no database to measure on (")


def test_picture_without_cells_is_a_picture() -> None:
    machine = {"python": "3.11.7", "sqlalchemy": "2.1.9", "published": None, "load_before": 0.1, "load_after": 0.2}
    assert parse(draw(Results(machine))).tag == f"{SVG}svg"
