"""``fastapi-toolsets listeners`` from outside: a table, JSON, and modules that cannot be imported."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from .test_migrate_command import run

MODELS = """
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


    class Base(DeclarativeBase):
        id: Mapped[int] = mapped_column(primary_key=True)


    class Order(Base):
        __tablename__ = "orders"


    class Audited: ...
    """
LISTENERS = """
    import functools

    from app.models import Audited, Base, Order
    from fastapi_toolsets.models import ModelEvent, Phase, listens_for

    print("importing")


    def reported(function):
        @functools.wraps(function)
        def wrapper(*arguments):
            return function(*arguments)

        return wrapper


    @listens_for(Order, [ModelEvent.UPDATE, ModelEvent.CREATE])
    async def on_order_changed(order, event_type, changes): ...


    @listens_for(Audited, ModelEvent.DELETE)
    @listens_for(Order)
    @reported
    def on_anything(obj, event_type, changes): ...


    class Index:
        async def __call__(self, obj, event_type, changes): ...

        def refresh(self, obj, event_type, changes): ...


    listens_for(Base)(Index())
    listens_for(Base, ModelEvent.CREATE)(functools.partial(Index().refresh))
    listens_for(Base, ModelEvent.DELETE, phase=Phase.BEFORE_COMMIT)(print)
    """


@pytest.fixture
def app(tmp_path: Path) -> Path:
    files = {"__init__": "", "models": MODELS, "listeners": LISTENERS}
    (tmp_path / "app").mkdir()
    for name, source in files.items():
        (tmp_path / "app" / f"{name}.py").write_text(textwrap.dedent(source).lstrip("\n"), encoding="utf-8")
    return tmp_path


def test_json(app: Path) -> None:
    """Nothing but JSON is on standard output, whatever the module prints."""
    code, output, errors = run("listeners", "app.listeners", "--json", cwd=app)
    assert (code, errors) == (0, "importing\n")
    lines = (app / "app" / "listeners.py").read_text(encoding="utf-8").splitlines()
    found = json.loads(output)
    for each in found:
        if each["file"] is not None:
            assert each.pop("file") == str((app / "app" / "listeners.py").resolve())
            each["line"] = lines[each["line"] - 1]
    assert [each.pop("phase") for each in found] == [*["after_commit"] * 5, "before_commit"]
    every = ["create", "update", "delete"]
    order, base, audited = "app.models.Order", "app.models.Base", "app.models.Audited"
    name = "app.listeners."
    on_anything = {"callback": f"{name}on_anything", "async": False, "line": "@listens_for(Audited, ModelEvent.DELETE)"}
    refresh = "    def refresh(self, obj, event_type, changes): ..."
    assert found == [
        {
            "model": order,
            "events": ["create", "update"],
            "callback": f"{name}on_order_changed",
            "async": True,
            "line": "@listens_for(Order, [ModelEvent.UPDATE, ModelEvent.CREATE])",
        },
        {"model": order, "events": every, **on_anything},
        {"model": audited, "events": ["delete"], **on_anything},
        {
            "model": base,
            "events": every,
            "callback": f"{name}Index",
            "async": True,
            "line": "    async def __call__(self, obj, event_type, changes): ...",
        },
        {"model": base, "events": ["create"], "callback": f"{name}Index.refresh", "async": False, "line": refresh},
        {
            "model": base,
            "events": ["delete"],
            "callback": "builtins.print",
            "async": False,
            "file": None,
            "line": None,
        },
    ]


def test_table(app: Path) -> None:
    code, output, _errors = run("listeners", "app.listeners", cwd=app)
    rows = [[cell.strip() for cell in line.split("|")] for line in output.splitlines() if "|" in line]
    assert (code, rows) == (
        0,
        [
            ["listens to", "events", "phase", "callback", "kind", "where"],
            [
                "app.models.Order",
                "create, update",
                "after commit",
                "app.listeners.on_order_changed",
                "async",
                "app/listeners.py:17",
            ],
            [
                "app.models.Order",
                "create, update, delete",
                "after commit",
                "app.listeners.on_anything",
                "sync",
                "app/listeners.py:21",
            ],
            [
                "app.models.Audited",
                "delete",
                "after commit",
                "app.listeners.on_anything",
                "sync",
                "app/listeners.py:21",
            ],
            [
                "app.models.Base",
                "create, update, delete",
                "after commit",
                "app.listeners.Index",
                "async",
                "app/listeners.py:28",
            ],
            ["app.models.Base", "create", "after commit", "app.listeners.Index.refresh", "sync", "app/listeners.py:30"],
            ["app.models.Base", "delete", "before commit", "builtins.print", "sync", ""],
        ],
    )


def test_nothing_is_registered(app: Path) -> None:
    assert run("listeners", "app.models", cwd=app) == (0, "No callback is registered.\n", "")
    assert run("listeners", "app.models", "--json", cwd=app) == (0, "[]\n", "")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("x = = 1", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("raise RuntimeError('first\\nsecond')", "RuntimeError: first second"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (
            "from fastapi_toolsets.models import ModelEvent, listens_for\nlistens_for(int)",
            (
                "ListenerError: listens_for() was given <class 'int'>, which is no model: "
                "give it a mapped class, an abstract base or a mixin"
            ),
        ),
    ],
    ids=["import", "syntax", "two lines", "exit", "listener"],
)
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_module_that_cannot_be_imported(source: str, reason: str, options: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(source, encoding="utf-8")
    message = f"fastapi-toolsets: broken cannot be imported: {reason}\n"
    assert run("listeners", "broken", *options, cwd=tmp_path) == (2, "", message)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("nowhere.at_all", "ModuleNotFoundError: No module named 'nowhere'"),
        ("", "ValueError: Empty module name"),
        (
            ".models",
            (
                "TypeError: the 'package' argument is required to perform a relative import for '.models' "
                "(give its dotted name: models)"
            ),
        ),
        (
            ".",
            (
                "TypeError: the 'package' argument is required to perform a relative import for '.' "
                "(give the dotted name of a module)"
            ),
        ),
        (
            "app/models.py",
            "ModuleNotFoundError: No module named 'app/models' (give its dotted name: app.models)",
        ),
    ],
)
def test_module_that_does_not_exist(module: str, reason: str, app: Path) -> None:
    message = f"fastapi-toolsets: {module or repr('')} cannot be imported: {reason}\n"
    assert run("listeners", module, cwd=app) == (2, "", message)
