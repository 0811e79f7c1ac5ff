"""Files as they lie on the disk: encodings, line ends, modes and links stay, and nothing is ever half written."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastapi_toolsets.migrate.problems import MigrationError
from fastapi_toolsets.migrate.project import migrate

_NOBODY = 65534
BEFORE = b"from sqlalchemy.orm import sessionmaker\nS = sessionmaker()\n"
AFTER = (
    b"from fastapi_toolsets.models import SyncEventSession\n"
    b"from sqlalchemy.orm import sessionmaker\nS = sessionmaker(class_=SyncEventSession)\n"
)


def write(path: Path, content: bytes = BEFORE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def everything_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BEFORE, AFTER),
        (BEFORE.replace(b"\n", b"\r\n"), AFTER.replace(b"\n", b"\r\n")),
        (BEFORE.rstrip(b"\n"), AFTER.rstrip(b"\n")),
        (b"\xef\xbb\xbf" + BEFORE, b"\xef\xbb\xbf" + AFTER),
        (b"# coding: latin-1\n" + BEFORE + b"# \xe9\n", b"# coding: latin-1\n" + AFTER + b"# \xe9\n"),
        (BEFORE + b'text = "\xe2\x80\xa8\x0c"\n', AFTER + b'text = "\xe2\x80\xa8\x0c"\n'),
        (b"", b""),
    ],
    ids=["plain", "CRLF", "no line end", "byte order mark", "latin-1", "separators in a string", "empty"],
)
def test_encoding_and_line_ends_stay(before: bytes, after: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "app.py", before)
    migrate([str(path)]).write()
    assert everything_in(tmp_path) == {"app.py": after}


def test_todo_in_a_file_with_another_encoding(tmp_path: Path) -> None:
    source = '# coding: latin-1\r\nfrom fastapi_toolsets.models import watch\r\n\r\nif x:\r\n\tl = ["é", watch]\r\n'
    path = write(tmp_path / "app.py", source.encode("latin-1"))
    migrate([str(path)]).write()
    comment = "\t# TODO: fastapi-toolsets migrate v3: watch does not exist in version 3\r\n"
    assert path.read_bytes().decode("latin-1") == source.replace("\tl =", f"{comment}\tl =")


def test_todo_above_the_first_line_of_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    mark, source = b"\xef\xbb\xbf", b"from fastapi_toolsets.models import watch; names = [watch]\n"
    path = write(tmp_path / "app.py", mark + source)
    migrate([str(path)]).write()
    again = migrate([str(path)])
    comment = b"# TODO: fastapi-toolsets migrate v3: watch does not exist in version 3\n"
    assert (path.read_bytes(), again.changed) == (mark + comment + source, ())


def test_mode_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "app.py")
    path.chmod(0o754)
    migrate([str(path)]).write()
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (AFTER, 0o754)


def test_links_are_followed_where_they_are_named(tmp_path: Path) -> None:
    target = write(tmp_path / "real" / "app.py")
    link = tmp_path / "link.py"
    link.symlink_to(target)
    folder = tmp_path / "folder"
    folder.symlink_to(tmp_path / "real")
    migration = migrate([str(link), str(folder), str(target)])
    migration.write()
    assert (migration.files, target.read_bytes(), link.is_symlink(), folder.is_symlink()) == (1, AFTER, True, True)


def test_links_in_folders_lead_nowhere_else(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.py")
    inside = write(tmp_path / "project" / "app.py")
    (tmp_path / "project" / "link.py").symlink_to(outside)
    (tmp_path / "project" / "circle").symlink_to(tmp_path / "project")
    migrate([str(tmp_path / "project")]).write()
    assert (outside.read_bytes(), inside.read_bytes()) == (BEFORE, AFTER)


def test_what_is_passed_by(tmp_path: Path) -> None:
    for name in ("app.py", ".hidden/a.py", "venv/b.py", "node_modules/c.py", "__pycache__/d.py", "data.txt"):
        write(tmp_path / name)
    write(tmp_path / "venv" / "pyvenv.cfg", b"")
    migrate([str(tmp_path)]).write()
    changed = [name for name, content in everything_in(tmp_path).items() if content == AFTER]
    assert changed == ["app.py"]


def test_file_is_changed_in_between(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.py"), write(tmp_path / "b.py")
    migration = migrate([str(tmp_path)])
    second.write_bytes(b"x = 1\n")
    with pytest.raises(MigrationError, match=r"b\.py was changed since it was read: run the command again$"):
        migration.write()
    assert everything_in(tmp_path) == {first.name: BEFORE, second.name: b"x = 1\n"}


def test_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three files have been written beside the old ones when the third cannot be."""
    for name in ("a.py", "b.py", "c.py"):
        write(tmp_path / name)
    migration = migrate([str(tmp_path)])
    synchronised: list[int] = []

    def full(descriptor: int) -> None:
        synchronised.append(descriptor)
        if len(synchronised) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastapi_toolsets.migrate.writing.os.fsync", full)
    with pytest.raises(MigrationError, match=r"c\.py cannot be written: No space left on device$"):
        migration.write()
    assert everything_in(tmp_path) == dict.fromkeys(("a.py", "b.py", "c.py"), BEFORE)


def not_allowed(_path: str, _mode: int) -> bool:
    return False


def test_folder_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "app.py")
    migration = migrate([str(path)])
    monkeypatch.setattr("fastapi_toolsets.migrate.writing.os.access", not_allowed)
    with pytest.raises(MigrationError, match=r"app\.py cannot be written: it is read-only$"):
        migration.write()
    assert everything_in(tmp_path) == {"app.py": BEFORE}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"def f(:\n", r"bad\.py:1: not valid Python: invalid syntax"),
        (b"x = 1\n  y = 2\n", r"bad\.py:2: not valid Python: unexpected indent"),
        (b'x = "\xff"\n', r"bad\.py(:\d+)?: not valid Python: "),
        (b"# coding: nonsense\n", r"bad\.py(:\d+)?: not valid Python: (unknown encoding|encoding problem)"),
        (b"x = 1\x00\n", r"bad\.py(:\d+)?: not valid Python: source code .*null bytes"),
        (b"x = " + b"(" * 300 + b")" * 300, r"bad\.py(:\d+)?: not valid Python: "),
        (b"x = " + b"-" * 100_000 + b"1\n", r"bad\.py(:\d+)?: not valid Python: "),
    ],
    ids=["syntax", "indentation", "not UTF-8", "no such encoding", "null byte", "parentheses", "nested too deeply"],
)
def test_file_is_not_python(content: bytes, message: str, tmp_path: Path) -> None:
    write(tmp_path / "app.py")
    write(tmp_path / "bad.py", content)
    with pytest.raises(MigrationError, match=message) as caught:
        migrate([str(tmp_path)])
    assert "\n" not in str(caught.value)


def test_notebook_that_is_named_is_refused(tmp_path: Path) -> None:
    """Most are Python to the letter: a dictionary, in which there is nothing to do."""
    notebook = write(tmp_path / "orders.ipynb", b'{"cells": []}')
    with pytest.raises(
        MigrationError, match=r"orders\.ipynb is a notebook, which cannot be rewritten: save its code as"
    ):
        migrate([str(notebook)])
    assert migrate([str(tmp_path)]).files == 0


def test_file_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop.py").symlink_to("loop.py")
    with pytest.raises(MigrationError, match=r"loop\.py does not exist$"):
        migrate([str(tmp_path / "loop.py")])
    with pytest.raises(MigrationError, match=r"pipe is not a file$"):
        migrate([str(tmp_path / "pipe")])
    with pytest.raises(MigrationError, match=r"^'' does not exist$"):
        migrate([""])


@contextmanager
def as_anybody() -> Generator[None]:
    """Have no more rights than others have, where the tests are run by somebody who may do everything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_folder_may_not_be_entered(tmp_path: Path) -> None:
    path = write(tmp_path / "folder" / "app.py")
    path.parent.chmod(0)
    try:
        with as_anybody(), pytest.raises(MigrationError, match=r"app\.py cannot be read: Permission denied$"):
            migrate([str(path)])
    finally:
        path.parent.chmod(0o755)


def test_what_is_no_file_in_a_folder_is_passed_by(tmp_path: Path) -> None:
    """Whoever opens a pipe waits for somebody to write into it."""
    write(tmp_path / "app.py")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    migration = migrate([str(tmp_path)])
    assert [(file.path, file.after) for file in migration.changed] == [(str(tmp_path / "app.py"), AFTER)]


@pytest.mark.parametrize("number", [1, 250])
def test_many_files_are_as_one(number: int, tmp_path: Path) -> None:
    """Other processes read and rewrite large projects, and bring back the same."""
    for index in range(number):
        write(tmp_path / f"app{index}.py")
    told: list[tuple[str, int, int]] = []

    def advance(what: str, done: int, total: int) -> None:
        told.append((what, done, total))

    migration = migrate([str(tmp_path)], advance)
    migration.write()
    assert set(everything_in(tmp_path).values()) == {AFTER}
    assert told == [(what, done, number) for what in ("Reading", "Rewriting") for done in range(1, number + 1)]


def test_error_in_another_process(tmp_path: Path) -> None:
    for index in range(250):
        write(tmp_path / f"app{index}.py")
    write(tmp_path / "bad.py", b"def\n")
    with pytest.raises(MigrationError, match=r"bad\.py:1: not valid Python: invalid syntax$"):
        migrate([str(tmp_path)])
