"""Twice the project is twice the work: what is looked up for one file does not grow with the number of others."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType

from fastapi_toolsets.migrate.project import PROCESSES_FROM, migrate

MODELS = """\
import datetime
import decimal

from sqlalchemy.orm import sessionmaker

from elsewhere import Base, notify
from other.place import register


class Order(Base):
    placed = register(datetime.datetime, decimal.Decimal)


Session = sessionmaker()
notify(Order, Session)
"""


def lookups(folder: Path, services: int) -> int:
    """Return how often the disk is asked for a file while a project of many services is migrated."""
    for number in range(services):
        path = folder / f"service{number}" / "app" / "models.py"
        path.parent.mkdir(parents=True)
        path.write_text(MODELS)
    asked = 0

    def count(_frame: FrameType, event: str, called: object) -> None:
        nonlocal asked
        asked += event == "c_call" and called in {os.stat, os.lstat, os.listdir}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        migration = migrate([str(folder)])
    finally:
        sys.setprofile(before)
    assert (migration.files, len(migration.changed)) == (services, services)
    return asked


def test_work_grows_with_the_project_and_not_faster(tmp_path: Path) -> None:
    assert PROCESSES_FROM > 2 * 60  # so that all of it is done here
    few, many = lookups(tmp_path / "few", 60), lookups(tmp_path / "many", 120)
    assert few <= many <= 2.1 * few
