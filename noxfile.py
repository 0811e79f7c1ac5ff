"""The sessions that check the project; ``nox --list`` names them, ``nox`` alone runs those that CI runs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nox

nox.needs_version = ">=2026.8.10"
nox.options.allow_parallel = True  # `nox -j 2` runs two sessions at a time
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "types", "tests", "minimum", "no_greenlet", "demo", "docs"]

PYTHONS = ("3.11", "3.12", "3.13")
OLDEST, NEWEST = PYTHONS[0], PYTHONS[-1]
SQLALCHEMYS = [
    nox.param("sqlalchemy~=2.0.36", id="sqlalchemy-2.0"),
    nox.param("sqlalchemy~=2.1.0", id="sqlalchemy-2.1"),
]


ON_ALL_DATABASES = {f"{OLDEST} sqlalchemy~=2.1.0", f"{NEWEST} sqlalchemy~=2.0.36"}
"""Pairwise, each database meets each SQLAlchemy, and the oldest and the newest Python, in these two cells."""


ONCE = ("tests/test_benchmarks.py", "tests/test_docstrings.py", "tests/test_site.py")
"""What measures processes and builds the documentation: a pairwise run leaves it to whoever runs ``pytest`` alone."""

COMMANDS = ("tests/cli", "tests/migrate", "tests/pytest_plugin", "tests/test_demo.py", "tests/test_live_demo.py")
"""What starts many processes: a pairwise run has it once more, with the lowest versions on the newest Python."""

LARGE = (
    "tests/contract/test_memory.py",
    "tests/faults/test_bulk_scale.py",
    "tests/faults/test_scale.py",
    "tests/models/test_uuid7.py",
    "tests/no_greenlet",
    "tests/test_documentation.py",
    "tests/test_how_to.py",
)
"""What counts many rows, or shows what readers are told: it runs with the oldest and the newest, on all databases."""


ONCE_WITH_EACH_PYTHON = (
    "tests/faults/test_interrupted_at_every_call.py",
    "tests/faults/test_interrupted_programs.py",
)
"""What goes through the interpreter call by call: the cells on all databases have it, and one of the Python between."""

BETWEEN = f"{PYTHONS[1]} sqlalchemy~=2.1.0"

ONE_FRONT_END = {
    f"{OLDEST} sqlalchemy~=2.0.36": ("sqlite-async",),
    f"{PYTHONS[1]} sqlalchemy~=2.0.36": ("sqlite-sync",),
    f"{NEWEST} sqlalchemy~=2.0.36": ("postgresql-sync", "mariadb-sync"),
    f"{NEWEST} sqlalchemy~=2.1.0": ("sqlite-async",),
}
"""The scenarios that a cell leaves out, since its Python, its SQLAlchemy and the database meet them in another one."""


def _pairwise(cell: str) -> list[str]:
    """Return what makes pytest leave out what a pairwise run has elsewhere."""
    if os.environ.get("PAIRWISE", "") in ("", "0"):
        return []
    on_all_databases = cell in ON_ALL_DATABASES
    elsewhere = (*ONCE, *(() if cell == "minimum" else COMMANDS), *(() if on_all_databases else LARGE))
    if not on_all_databases and cell != BETWEEN:
        elsewhere += ONCE_WITH_EACH_PYTHON
    ignored = [f"--ignore={path}" for path in elsewhere]
    scenarios = [*(() if on_all_databases else ("postgresql", "mariadb", "mysql")), *ONE_FRONT_END.get(cell, ())]
    return [*ignored, "-k", f"not ({' or '.join(scenarios)})"] if scenarios else ignored


def _pyenv_interpreters() -> list[Path]:
    """The folders of the newest patch release that pyenv has of each Python, without going through its shims.

    A shim stands on ``PATH`` for every version ever installed and fails for those that are not active in this folder.
    """
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders: list[Path] = []
    for python in PYTHONS:
        installed = {
            int(release[1]): folder / "bin"
            for folder in root.glob(f"versions/{python}.*")
            if (release := re.fullmatch(rf"{re.escape(python)}\.(\d+)", folder.name))
            and os.access(folder / "bin" / f"python{python}", os.X_OK)
        }
        if installed:
            folders.append(installed[max(installed)])
    return folders


os.environ["PATH"] = os.pathsep.join([*map(str, _pyenv_interpreters()), os.environ["PATH"]])
os.environ.setdefault("UV_SYSTEM_CERTS", "1")  # uv reaches what pip reaches, also behind a company's own certificate


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """Rules and format of the code, and the changelog fragments."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("towncrier", "build", "--draft", "--version", "next", "--date", "unreleased")


@nox.session(python=OLDEST)
def types(session: nox.Session) -> None:
    """What mypy and basedpyright say, tests/typing included, and that every public name is typed."""
    session.install("-e", ".[dev]")
    session.run("mypy")
    session.run("basedpyright")
    session.run("basedpyright", "--verifytypes", "fastapi_toolsets", "--ignoreexternal")


@nox.session(python=PYTHONS)
@nox.parametrize("sqlalchemy", SQLALCHEMYS)
def tests(session: nox.Session, sqlalchemy: str) -> None:
    """All tests, on each Python with each SQLAlchemy; with ``PAIRWISE=1`` less in most cells."""
    session.install("-e", ".[test]", sqlalchemy)
    session.run("pytest", *session.posargs, *_pairwise(f"{session.python} {sqlalchemy}"))


@nox.session(python=[OLDEST, NEWEST], venv_backend="uv")
def minimum(session: nox.Session) -> None:
    """All tests, with the lowest version of everything that pyproject.toml names."""
    session.install("--resolution", "lowest-direct", "-e", ".[test]")
    session.run("pytest", *session.posargs, *_pairwise("minimum"))
    # The demo wants a newer FastAPI than the library.
    project = nox.project.load_toml("pyproject.toml")["project"]
    (fastapi,) = [each for each in project["optional-dependencies"]["fastapi"] if each.startswith("fastapi>=")]
    session.install(fastapi.replace(">=", "=="))
    session.run("pytest", "tests/test_fastapi.py", "tests/test_db.py")


@nox.session(python=OLDEST)
def no_greenlet(session: nox.Session) -> None:
    """The sync half, where greenlet is not installed."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    required = [requirement for requirement in project["dependencies"] if not requirement.startswith("greenlet")]
    session.install(*required, *project["optional-dependencies"]["pytest"], "sqlalchemy>=2.1")
    session.install("--no-deps", "-e", ".")
    session.run("python", "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('greenlet') is not None)")
    session.run("pytest", "--confcutdir=tests/no_greenlet", "tests/no_greenlet", *session.posargs)


@nox.session(python=OLDEST)
def demo(session: nox.Session) -> None:
    """The demo, from an installed wheel and away from the checkout, as a new user runs it."""
    session.install(".[demo]")
    session.chdir(session.create_tmp())
    session.run("python", "-m", "fastapi_toolsets.demo", *session.posargs)


@nox.session(python=OLDEST)
def browser(session: nox.Session) -> None:
    """The demo's page in headless Chromium, which has to be installed with its driver."""
    session.install("-e", ".[browser]")
    session.run("pytest", "tests/browser", *session.posargs, env={"REQUIRE_SERVICES": "1"})


@nox.session(python=OLDEST)
def docs(session: nox.Session) -> None:
    """The documentation site, into `site`: built strictly, with its links and the examples on its pages tested."""
    session.install("-e", ".[test]")
    session.run("zensical", "build", "--strict", "--clean")
    pages = ("tests/test_site.py", "tests/test_docstrings.py", "tests/test_documentation.py", "tests/test_how_to.py")
    session.run("pytest", *pages, *session.posargs)


@nox.session(python=OLDEST)
def coverage(session: nox.Session) -> None:
    """All tests under coverage, branches included; fails below the bound in pyproject.toml."""
    session.install("-e", ".[test]")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(python=OLDEST)
def bench(session: nox.Session) -> None:
    """The benchmarks."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=OLDEST)
def mutation(session: nox.Session) -> None:
    """Small changes to the core, each of which some test should notice: a sample; ``-- --all`` tries every one."""
    session.install("-e", ".[mutation]")
    session.run("python", "-m", "tests.mutation", *session.posargs)


@nox.session(python=OLDEST)
def model(session: nox.Session) -> None:
    """50,000 random programs, judged by the database; ``MODEL_PROGRAMS`` and ``MODEL_SEED`` choose others."""
    session.install("-e", ".[test]")
    programs = os.environ.get("MODEL_PROGRAMS", "50000")
    # The programs are one test: it may take longer than a test that hangs.
    pytest = ("pytest", "-o", "faulthandler_timeout=0", "tests/model", *session.posargs)
    session.run(*pytest, env={"MODEL_PROGRAMS": programs})


@nox.session(python=OLDEST)
def twins(session: nox.Session) -> None:
    """20,000 random programs, compared with plain sessions; ``TWIN_PROGRAMS`` and ``TWIN_SEED`` choose others."""
    session.install("-e", ".[test]")
    programs = os.environ.get("TWIN_PROGRAMS", "10000")  # for each front-end; on PostgreSQL a tenth of them
    pytest = ("pytest", "-o", "faulthandler_timeout=0", "tests/twins", *session.posargs)
    session.run(*pytest, env={"TWIN_PROGRAMS": programs})


@nox.session(python=OLDEST)
def interrupts(session: nox.Session) -> None:
    """12,000 random programs, interrupted anywhere; ``INTERRUPTED_PROGRAMS`` and ``INTERRUPTED_SEED`` choose others."""
    session.install("-e", ".[test]")
    programs = os.environ.get("INTERRUPTED_PROGRAMS", "2000")  # for each of three databases and both front-ends
    pytest = ("pytest", "-o", "faulthandler_timeout=0", "tests/faults/test_interrupted_programs.py", *session.posargs)
    session.run(*pytest, env={"INTERRUPTED_PROGRAMS": programs})
