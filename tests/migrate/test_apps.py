"""Whole applications for version 2: migrated and run, they tell what version 2 told.

What version 2 told is recorded in ``recorded/``, by the last release of it: ``pip install "fastapi-toolsets<3"
aiosqlite`` in an environment of its own, then ``python app.py`` in each folder of ``apps/``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .projects import migrate_project

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
APPS = sorted(path.name for path in (HERE / "apps").iterdir() if path.is_dir())
TIMEOUT = 120


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "app.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.mark.parametrize("app", APPS)
def test_migrated_app_tells_what_version_2_told(app: str, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    shutil.copytree(HERE / "apps" / app, folder)
    assert migrate_project(folder) == []
    finished = run(folder)
    assert (finished.returncode, finished.stderr) == (0, "")
    recorded = json.loads((HERE / "recorded" / f"{app}.json").read_text(encoding="utf-8"))
    assert json.loads(finished.stdout) == recorded


@pytest.mark.parametrize("app", APPS)
def test_app_says_what_is_missing_before_it_is_migrated(app: str, tmp_path: Path) -> None:
    """Guards the comparison: an application that ran unchanged would prove nothing."""
    shutil.copytree(HERE / "apps" / app, tmp_path / "app")
    finished = run(tmp_path / "app")
    assert finished.returncode == 1
    assert "fastapi_toolsets" in finished.stderr.splitlines()[-1] or "WatchedFieldsMixin" in finished.stderr
