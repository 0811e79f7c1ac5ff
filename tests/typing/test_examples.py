"""The files here are read by type checkers; this proves that what they read also runs."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith(("__", "test_")))


def test_there_are_examples() -> None:
    assert EXAMPLES != []


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs_and_asserts_types(example: str) -> None:
    module = importlib.import_module(f"{__package__}.{example}")
    assert "assert_type" in vars(module)
