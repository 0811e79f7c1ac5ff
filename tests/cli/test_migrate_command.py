"""``fastapi-toolsets migrate v3`` from outside: what it prints, what it exits with, what it leaves on the disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fastapi_toolsets import __version__

ROOT = Path(__file__).parent.parent.parent
TIMEOUT = 120

BEFORE = """\
from fastapi_toolsets.models import WatchedFieldsMixin


class Order(WatchedFieldsMixin):
    def on_create(self):
        print(self)
"""
AFTER = """\
from fastapi_toolsets.models import ModelEvent, listens_for


class Order:
    pass


@listens_for(Order, [ModelEvent.CREATE])
def on_order_created(order: Order, event_type: ModelEvent, changes: None):
    print(order)
"""
DIFF = """\
--- a/orders.py
+++ b/orders.py
@@ -1,6 +1,10 @@
-from fastapi_toolsets.models import WatchedFieldsMixin
+from fastapi_toolsets.models import ModelEvent, listens_for
 
 
-class Order(WatchedFieldsMixin):
-    def on_create(self):
-        print(self)
+class Order:
+    pass
+
+
+@listens_for(Order, [ModelEvent.CREATE])
+def on_order_created(order: Order, event_type: ModelEvent, changes: None):
+    print(order)
"""  # noqa: W293 -- a line of context that is empty begins with a space
PERSON = "from fastapi_toolsets.models import watch\n\nprint(watch)\n"
MESSAGE = "needs a person: watch does not exist in version 3"


def run(*arguments: str, cwd: Path, interpreter_options: Sequence[str] = ()) -> tuple[int, str, str]:
    finished = subprocess.run(
        [sys.executable, *interpreter_options, "-m", "fastapi_toolsets.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    return finished.returncode, finished.stdout, finished.stderr


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    path = tmp_path / "orders.py"
    path.write_text(BEFORE, encoding="utf-8")
    return path


def test_diff_is_shown_and_nothing_written(orders: Path) -> None:
    assert run("migrate", "v3", "orders.py", cwd=orders.parent) == (1, DIFF, "1 of 1 file would change.\n")
    assert orders.read_text(encoding="utf-8") == BEFORE


def test_diff_can_be_applied(orders: Path) -> None:
    """Also to a file without a line end at its end."""
    (orders.parent / "other.py").write_bytes(BEFORE.rstrip("\n").encode())
    _code, diff, _errors = run("migrate", "v3", ".", cwd=orders.parent)
    subprocess.run(["git", "apply", "-"], cwd=orders.parent, input=diff.encode(), check=True, timeout=TIMEOUT)  # noqa: S607 -- whichever git is there
    assert orders.read_text(encoding="utf-8") == AFTER
    assert (orders.parent / "other.py").read_text(encoding="utf-8") == AFTER.rstrip("\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"if x:\n\tS = sessionmaker()\n", b"if x:\n\tS = sessionmaker(class_=SyncEventSession)\n"),
        (b"S = sessionmaker()\r\n", b"S = sessionmaker(class_=SyncEventSession)\r\n"),
        (b"\x0c\nS = sessionmaker()\n", b"\x0c\nS = sessionmaker(class_=SyncEventSession)\n"),
        (b"# \xe9\nS = sessionmaker()\n", b"# \xe9\nS = sessionmaker(class_=SyncEventSession)\n"),
        (b"# \xe2\x80\xa8\nS = sessionmaker()\n", b"# \xe2\x80\xa8\nS = sessionmaker(class_=SyncEventSession)\n"),
    ],
    ids=["tab", "CRLF", "form feed", "latin-1", "separator"],
)
def test_diff_has_every_byte(before: bytes, after: bytes, tmp_path: Path) -> None:
    end = b"\r\n" if before.endswith(b"\r\n") else b"\n"
    coding = b"# coding: latin-1" + end if b"\xe9" in before else b""
    imported = b"from sqlalchemy.orm import sessionmaker" + end
    path = tmp_path / "with space.py"
    path.write_bytes(coding + imported + before)
    diff = subprocess.run(
        [sys.executable, "-m", "fastapi_toolsets.cli", "migrate", "v3", path.name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        timeout=TIMEOUT,
        check=False,
    ).stdout
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=diff, check=True, timeout=TIMEOUT)  # noqa: S607 -- as above
    assert path.read_bytes() == (
        coding + b"from fastapi_toolsets.models import SyncEventSession" + end + imported + after
    )


def test_check_names_the_files(orders: Path) -> None:
    (orders.parent / "clean.py").touch()
    assert run("migrate", "v3", ".", "--check", cwd=orders.parent) == (
        1,
        "would rewrite orders.py\n",
        "1 of 2 files would change.\n",
    )
    assert orders.read_text(encoding="utf-8") == BEFORE


def test_write_and_once_more(orders: Path) -> None:
    assert run("migrate", "v3", "--write", "orders.py", cwd=orders.parent) == (
        0,
        "rewrote orders.py\n",
        "1 of 1 file changed.\n",
    )
    assert orders.read_text(encoding="utf-8") == AFTER
    for mode, verb in ((["--check"], "would change"), (["--write"], "changed"), ([], "would change")):
        assert run("migrate", "v3", *mode, "orders.py", cwd=orders.parent) == (0, "", f"0 of 1 file {verb}.\n")
    assert sorted(path.name for path in orders.parent.iterdir()) == ["orders.py"]


def test_message_names_file_and_line(tmp_path: Path) -> None:
    """The line is where it stands now; once it is written, that of the comment, also of one that was there."""
    (tmp_path / "app.py").write_text(PERSON, encoding="utf-8")
    code, _diff, errors = run("migrate", "v3", "app.py", cwd=tmp_path)
    assert (code, errors) == (1, f"app.py:3: {MESSAGE}\n1 of 1 file would change; 1 place needs a person.\n")
    assert run("migrate", "v3", "--write", "app.py", cwd=tmp_path) == (
        1,
        "rewrote app.py\n",
        f"app.py:3: {MESSAGE}\n1 of 1 file changed; 1 place needs a person.\n",
    )
    assert (tmp_path / "app.py").read_text(encoding="utf-8").splitlines()[2:] == [
        "# TODO: fastapi-toolsets migrate v3: watch does not exist in version 3",
        "print(watch)",
    ]
    assert run("migrate", "v3", "--write", "app.py", cwd=tmp_path) == (
        1,
        "",
        f"app.py:3: {MESSAGE}\n0 of 1 file changed; 1 place needs a person.\n",
    )


@pytest.mark.parametrize("mode", [[], ["--check"], ["--write"]], ids=str)
def test_path_does_not_exist(mode: list[str], orders: Path) -> None:
    assert run("migrate", "v3", *mode, "orders.py", "nowhere", cwd=orders.parent) == (
        2,
        "",
        "fastapi-toolsets: nowhere does not exist\n",
    )
    assert orders.read_text(encoding="utf-8") == BEFORE


@pytest.mark.parametrize("mode", [[], ["--check"], ["--write"]], ids=str)
def test_syntax_error(mode: list[str], orders: Path) -> None:
    (orders.parent / "bad.py").write_text("x = 1\ndef f(:\n", encoding="utf-8")
    assert run("migrate", "v3", *mode, ".", cwd=orders.parent) == (
        2,
        "",
        "fastapi-toolsets: bad.py:2: not valid Python: invalid syntax\n",
    )
    assert orders.read_text(encoding="utf-8") == BEFORE


def test_folder_without_python(tmp_path: Path) -> None:
    assert run("migrate", "v3", ".", cwd=tmp_path) == (0, "", "0 of 0 files would change.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "fastapi-toolsets: the following arguments are required: {migrate,listeners}"),
        (["migrate"], "fastapi-toolsets migrate: the following arguments are required: {v3}"),
        (["migrate", "v3"], "fastapi-toolsets migrate v3: the following arguments are required: PATH"),
        (["listeners"], "fastapi-toolsets listeners: the following arguments are required: MODULE"),
        (
            ["migrate", "v3", "--write", "--check", "."],
            "fastapi-toolsets migrate v3: argument --check: not allowed with argument --write",
        ),
        (["migrate", "v3", ".", "--colour"], "fastapi-toolsets: unrecognized arguments: --colour"),
    ],
    ids=["no command", "no version", "no path", "no module", "two modes", "unknown option"],
)
def test_arguments_that_cannot_be_used(arguments: list[str], message: str, tmp_path: Path) -> None:
    program = message.partition(": ")[0]
    assert run(*arguments, cwd=tmp_path) == (2, "", f"{message} (see {program} --help)\n")


def test_help_and_version(tmp_path: Path) -> None:
    code, text, errors = run("migrate", "v3", "--help", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert {"--write", "--check", "PATH"} <= set(re.findall(r"--\w+|PATH", text))
    assert run("--version", cwd=tmp_path) == (0, f"fastapi-toolsets {__version__}\n", "")


def test_extra_is_missing(tmp_path: Path) -> None:
    """Without site-packages nothing but the standard library and the package itself can be imported."""
    assert run("migrate", "v3", ".", cwd=tmp_path, interpreter_options=["-S"]) == (
        2,
        "",
        (
            "fastapi-toolsets needs libcst and rich, not installed here: "
            'run pip install "fastapi-toolsets[cli]" and start it again.\n'
        ),
    )


def test_nobody_reads_the_output(orders: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    finished = subprocess.run(
        [sys.executable, "-m", "fastapi_toolsets.cli", "migrate", "v3", "."],
        cwd=orders.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=TIMEOUT,
        check=False,
    )
    os.close(writing)
    assert (finished.returncode, b"Traceback" in finished.stderr) == (141, False)


def test_console_script_starts_the_command(tmp_path: Path) -> None:
    """As ``pip`` installs it: the entry point of the distribution."""
    scripts = re.search(
        r'^\[project\.scripts\]\nfastapi-toolsets = "([\w.]+):(\w+)"$',
        (ROOT / "pyproject.toml").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert scripts is not None
    code = f"import sys; sys.argv[1:] = ['--version']; from {scripts[1]} import {scripts[2]}; sys.exit({scripts[2]}())"
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (finished.returncode, finished.stdout) == (0, f"fastapi-toolsets {__version__}\n")
