"""What is built and published: the wheel's files and metadata, and the names that each door shows."""

from __future__ import annotations

import configparser
import importlib
import inspect
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import version as installed_version
from pathlib import Path
from types import ModuleType

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import fastapi_toolsets

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fastapi_toolsets"

# The modules whose names users import. `errors` defines all that it shows, and so needs no list of it.
DOORS = ["fastapi_toolsets.db", "fastapi_toolsets.events", "fastapi_toolsets.models", "fastapi_toolsets.pytest"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    return Path(next(SdistBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


def metadata_of(wheel: Path) -> Message:
    """The METADATA file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*") if path.is_file()}
    assert held == {name for name in there if "__pycache__" not in name}
    assert "fastapi_toolsets/py.typed" in held


def test_wheel_carries_the_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
        assert archive.read(name) == (ROOT / "LICENSE").read_bytes()
    assert metadata_of(wheel)["License-Expression"] == "MIT"


def test_wheel_has_the_entry_points(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        found = configparser.ConfigParser()
        found.read_string(archive.read(name).decode())
    assert dict(found["pytest11"]) == {"fastapi_toolsets": "fastapi_toolsets.pytest_plugin"}


def test_wheel_requires_only_what_the_library_itself_imports(wheel: Path) -> None:
    requirements = metadata_of(wheel).get_all("Requires-Dist") or []
    unconditional = [requirement for requirement in requirements if "extra ==" not in requirement]
    assert unconditional == ["anyio>=4.11", "greenlet>=3.1", "sqlalchemy>=2.0.36"]


def test_version_is_the_same_in_the_module_the_wheel_and_the_installation(wheel: Path) -> None:
    versions = {metadata_of(wheel)["Version"], installed_version("fastapi-toolsets")}
    assert versions == {fastapi_toolsets.__version__}


def test_source_distribution_holds_what_a_packager_needs_and_no_workshop(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 1}
    files = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "mkdocs.yml", "noxfile.py", "pyproject.toml"}
    added_by_the_builder = {".gitignore", "PKG-INFO"}
    folders = {"benchmarks", "changelog.d", "docs", "fastapi_toolsets", "tests", "tools"}
    assert held == files | added_by_the_builder | folders


def shows(door: ModuleType, value: object) -> bool:
    """Whether a class or function is a door's own: defined there, or in the library, where the door is a package."""
    if not (isinstance(value, type) or inspect.isroutine(value)):
        return False
    if hasattr(door, "__path__"):
        return value.__module__.split(".")[0] == fastapi_toolsets.__name__
    return value.__module__ == door.__name__


@pytest.mark.parametrize("name", DOORS)
def test_door_lists_every_name_that_it_shows(name: str) -> None:
    door = importlib.import_module(name)
    listed: list[str] = door.__all__
    public = {key for key, value in vars(door).items() if shows(door, value) and not key.startswith("_")}
    assert sorted(public - set(listed)) == []
    assert [each for each in listed if not hasattr(door, each)] == []
    assert len(listed) == len(set(listed))
