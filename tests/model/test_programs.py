"""Random programs against both front-ends and a plain session; what they find goes to ``test_regressions.py``."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from .programs import Program, programs
from .worlds import Worlds

PROGRAMS = int(os.environ.get("MODEL_PROGRAMS", "2000"))
"""How many programs run on SQLite; on each server a twentieth of them."""

SEED = int(os.environ.get("MODEL_SEED", "0"))
"""Which programs: the same seed makes the same programs."""


AT_A_TIME = 2000
"""Hypothesis remembers every program of one run: more of them are several runs, each with the next seed."""


PARTS = 8
"""In how many tests they run on SQLite: none takes long on a slow machine, and several processes share them."""


def run_programs(worlds: Worlds, number: int, part: int = 0) -> None:
    for run, done in enumerate(range(0, number, AT_A_TIME)):

        @seed(SEED + run + part * 1_000_000)
        @settings(
            max_examples=min(AT_A_TIME, number - done),
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large),
        )
        @given(programs())
        def agree(program: Program) -> None:
            problems = worlds.disagreements(program)
            assert problems == [], program

        agree()


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("worlds", ["sqlite"], indirect=True)
def test_random_programs_on_sqlite(worlds: Worlds, part: int) -> None:
    """T1, T2, T3, T4, T7, E1, E2, E3, E4, E5, E6, E8, E9, E10, E11, E12, C4, C6, C7, B2: what was committed is told."""
    run_programs(worlds, (PROGRAMS + part) // PARTS, part)  # some have one more where it cannot be divided


@pytest.mark.parametrize("worlds", ["postgresql", "mariadb"], indirect=True)
def test_random_programs_on_servers(worlds: Worlds) -> None:
    """T1, T2, T3, T4, T7, E1, E2, E3, E4, E5, E6, E8, E9, E10, E11, E12, C4, C6, C7, B2: the same on servers."""
    run_programs(worlds, PROGRAMS // 20)
