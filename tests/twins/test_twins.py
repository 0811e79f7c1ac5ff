"""Random programs on a plain session and on one with events: what both do, show and raise is the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import DATABASES, TestRunDatabases

from .pairs import Pair
from .programs import make_program

PROGRAMS = int(os.environ.get("TWIN_PROGRAMS", "40"))
"""How many programs run on SQLite with either front-end; on each server a tenth of them."""

SEED = int(os.environ.get("TWIN_SEED", "0"))
"""Which programs: the same seed makes the same programs."""


@pytest.fixture(params=DATABASES)
def pair(
    request: pytest.FixtureRequest, front_end: str, test_run_databases: TestRunDatabases, tmp_path: Path
) -> Iterator[Pair]:
    databases = [test_run_databases.provide(request.param, tmp_path) for _ in range(2)]
    with Pair(databases, asynchronous=front_end == "async").open() as pair:
        yield pair


@pytest.mark.parametrize("front_end", ["sync", "async"])
def test_random_programs(pair: Pair, front_end: str) -> None:
    """T1, T2, T3, T4, T7, E1, E2, E3, E4, E5, E6, E8, E10, E11, E12, B2: nothing but events tells them apart."""
    number = PROGRAMS if pair.is_local else PROGRAMS // 10
    for seed in range(SEED, SEED + number):
        problems = pair.problems(make_program(seed))
        assert not problems, pair.report(make_program(seed))
