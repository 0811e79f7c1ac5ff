"""Where the programs of this folder run."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import DATABASES, TestRunDatabases

from .worlds import Worlds, memory_database


@pytest.fixture(scope="module", params=DATABASES)
def worlds(
    request: pytest.FixtureRequest, test_run_databases: TestRunDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worlds]:
    """Both front-ends on one kind of database, kept for all programs of a module."""
    if request.param == "sqlite":
        name = uuid.uuid4().hex
        databases = {front_end: memory_database(f"{front_end}_{name}") for front_end in ("async", "sync")}
    else:
        database = test_run_databases.provide(request.param, Path(tmp_path_factory.mktemp("model")))
        databases = {"async": database, "sync": database}
    worlds = Worlds(databases)
    with worlds.open():
        yield worlds
