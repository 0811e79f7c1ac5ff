"""Counts what the library does, where a test is about work that must not grow faster than what there is to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import fastapi_toolsets

LIBRARY = str(Path(fastapi_toolsets.__file__).parent)


def library_calls(function: Callable[[], object]) -> int:
    """Return how often functions of the library are called, or call functions that are made in C."""
    counted = 0

    def count(frame: FrameType, event: str, _called: object) -> None:
        nonlocal counted
        counted += event in {"call", "c_call"} and frame.f_code.co_filename.startswith(LIBRARY)

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return counted
