"""The migration guide and the codemod agree on what becomes of what."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.test_documentation import BEFORE, MIGRATION_GUIDE, NOW, PYTHON_BLOCKS, Block

from .projects import migrated

BLOCKS = [block for block in PYTHON_BLOCKS if block.page == MIGRATION_GUIDE]
PAIRS = [
    (before, now)
    for before, now in pairwise(BLOCKS)
    if before.tab == BEFORE and now.tab == NOW and "import " in before.source
]
"""Before and after, of the examples that say where their names come from."""


def essentials(source: str) -> list[str]:
    """What the codemod is about: the listeners that are registered, watched fields and session classes."""
    return re.findall(r"@listens_for\(.+?\]\)|__watched_fields__ = .+|class_=\w+|class Ticket\(.+\)", source)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: str(pair[0]))
def test_codemod_does_what_the_guide_shows(pair: tuple[Block, Block], tmp_path: Path) -> None:
    before, now = pair
    result = migrated(tmp_path, before.source)
    assert essentials(result) == essentials(now.source)
    assert essentials(result) != []
    assert "WatchedFieldsMixin" not in result
