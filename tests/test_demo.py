"""The demo as a user starts it: in a process of its own, from another folder, piped and on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from rich.console import Console

from fastapi_toolsets.demo import command, over_http
from fastapi_toolsets.demo.callbacks import Delivery
from fastapi_toolsets.demo.orders import OrderRecord, Outcome, Step, read_orders, repeat_orders
from fastapi_toolsets.demo.report import print_summary
from fastapi_toolsets.demo.run import Advance, OrderRow, Run
from fastapi_toolsets.demo.script import run_script
from fastapi_toolsets.models import ModelEvent

ROOT = Path(__file__).parent.parent
PROGRAM = "python -m fastapi_toolsets.demo"
TIMEOUT = 120  # seconds; a demo that hangs ends its test

CREATED = "on_order_created (async)"
UPDATED = "on_order_updated (sync)"
CANCELLED = "on_order_cancelled (async)"

# A-1003 is imported once although the file has it twice: the second line's savepoint is rolled back. Of A-1005 only a
# field that is not watched changes, and the change of A-1006 is refused by the database.
EVENTS = [
    ("create", "A-1001", "", CREATED),
    ("create", "A-1002", "", CREATED),
    ("create", "A-1003", "", CREATED),
    ("create", "A-1004", "", CREATED),
    ("create", "A-1005", "", CREATED),
    ("create", "A-1006", "", CREATED),
    ("create", "A-1007", "", CREATED),
    ("create", "A-1008", "", CREATED),
    ("create", "A-1009", "", CREATED),
    ("create", "A-1010", "", CREATED),
    ("create", "A-1011", "", CREATED),
    ("update", "A-1001", "status: new -> paid", UPDATED),
    ("update", "A-1002", "status: new -> paid", UPDATED),
    ("update", "A-1002", "status: paid -> shipped", UPDATED),
    ("update", "A-1003", "quantity: 4 -> 5, status: new -> paid", UPDATED),
    ("delete", "A-1004", "", CANCELLED),
    ("update", "A-1007", "status: new -> paid", UPDATED),
    ("update", "A-1007", "status: paid -> shipped", UPDATED),
    ("delete", "A-1008", "", CANCELLED),
    ("update", "A-1010", "quantity: 2 -> 3, status: new -> paid", UPDATED),
    ("update", "A-1011", "status: new -> paid", UPDATED),
]
DELIVERED = [[str(position), *event] for position, event in enumerate(EVENTS, start=1)]
ROWS = [
    ["A-1001", "Ada Byron", "notebook", "3", "paid"],
    ["A-1002", "Blaise Roux", "fountain pen", "1", "shipped"],
    ["A-1003", "Carla Neri", "ink bottle", "5", "paid"],
    ["A-1005", "Edith Lund", "paper ream", "10", "new"],
    ["A-1006", "Farid Haddad", "stapler", "2", "new"],
    ["A-1007", "Greta Holm", "notebook", "1", "shipped"],
    ["A-1009", "Ines Prado", "marker set", "5", "new"],
    ["A-1010", "Jan Novak", "desk lamp", "3", "paid"],
    ["A-1011", "Kofi Mensah", "fountain pen", "6", "paid"],
]
TABLES = {
    "Events as delivered: EventSession, FastAPI over HTTP": DELIVERED,
    "Events as delivered: SyncEventSession, plain script": DELIVERED,
    "Orders in the database at the end": ROWS,
}
SUMMARY = [
    f"{front_end}: events delivered: 21, orders left: 9, refused: 1 at import, 1 later, time: ? s"
    for front_end in ("EventSession, FastAPI over HTTP", "SyncEventSession, plain script")
]
VERDICT = "Both front-ends delivered the same events in the same order."

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7])[0-9;]*m")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The process's environment without what would change the output, and with a temporary folder to look into."""
    changed = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM", "PYTHONWARNINGS"}
    (tmp_path / "temporary").mkdir()
    return {
        **{name: value for name, value in os.environ.items() if name not in changed},
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "TERM": "xterm-256color",
        "TMPDIR": str(tmp_path / "temporary"),
    }


def run_piped(
    *arguments: str, cwd: Path, environment: dict[str, str], interpreter_options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, *interpreter_options, "-m", "fastapi_toolsets.demo", *arguments]
    return subprocess.run(
        line, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT, check=False
    )


class Terminal:
    """The demo on a pseudo-terminal of 120 columns."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self._shown = b""

    def read_until(self, pattern: str) -> None:
        while not re.search(pattern, ESCAPE.sub("", self._shown.decode(errors="replace"))):
            self._shown += os.read(self._descriptor, 65536)

    def read_to_end(self) -> str:
        while chunk := self._read():
            self._shown += chunk
        return self._shown.decode()

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            return b""


@contextmanager
def on_terminal(*arguments: str, cwd: Path, environment: dict[str, str]) -> Generator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "fastapi_toolsets.demo", *arguments],
            cwd=cwd,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            try:
                yield Terminal(process, ours)
            finally:
                if process.poll() is None:
                    process.kill()
    finally:
        os.close(ours)


def tables_in(output: str) -> dict[str, list[list[str]]]:
    """Return the rows of each table by its title."""
    tables: dict[str, list[list[str]]] = {}
    title = ""
    for line in output.splitlines():
        if line.startswith(("Events as delivered: ", "Orders in ")):
            title = line.strip()
            tables[title] = []
        elif line.startswith(("|", "│")):
            cells = [cell.strip() for cell in re.split("[|│]", line)[1:-1]]
            if cells[0] not in {"#", "number"} and not set("".join(cells)) <= set("-+"):
                tables[title].append(cells)
    return tables


def closing_lines(output: str) -> list[str]:
    """Return the summary without its times."""
    return [re.sub(r"\d+\.\d\d s$", "? s", line.strip()) for line in output.splitlines()[-3:]]


def test_piped(tmp_path: Path, environment: dict[str, str]) -> None:
    """C1, C2, C3, E1, N1, N3, T1, T2, T3: the same callbacks are told the same on both front-ends."""
    finished = run_piped(cwd=tmp_path, environment=environment)
    assert finished.stderr == ""
    assert tables_in(finished.stdout) == TABLES
    assert closing_lines(finished.stdout) == [*SUMMARY, VERDICT]
    assert ESCAPE.findall(finished.stdout) == []
    assert finished.stdout.isascii()
    assert max(map(len, finished.stdout.splitlines()[:-3])) <= 100
    assert finished.returncode == 0
    assert list(Path(environment["TMPDIR"]).iterdir()) == []
    assert list(tmp_path.iterdir()) == [tmp_path / "temporary"]


def test_on_terminal(tmp_path: Path, environment: dict[str, str]) -> None:
    with on_terminal(cwd=tmp_path, environment=environment) as terminal:
        shown = terminal.read_to_end()
    assert terminal.process.returncode == 0
    assert set(COLOR.findall(shown)) >= {"\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[1;32m"}
    assert "0/15 transactions" in ESCAPE.sub("", shown)
    printed = ESCAPE.sub("", shown)[ESCAPE.sub("", shown).index("Events as delivered") :]
    assert tables_in(printed) == TABLES
    assert closing_lines(printed) == [*SUMMARY, VERDICT]


@pytest.mark.parametrize(("variables", "arguments"), [({"NO_COLOR": "1"}, ()), ({}, ("--no-color",))])
def test_on_terminal_without_colors(
    variables: dict[str, str], arguments: tuple[str, ...], tmp_path: Path, environment: dict[str, str]
) -> None:
    with on_terminal(*arguments, cwd=tmp_path, environment=environment | variables) as terminal:
        shown = terminal.read_to_end()
    assert terminal.process.returncode == 0
    assert COLOR.findall(shown) == []
    assert VERDICT in ESCAPE.sub("", shown)


def test_interrupted(tmp_path: Path, environment: dict[str, str]) -> None:
    with on_terminal("--rows", "10000", cwd=tmp_path, environment=environment) as terminal:
        terminal.read_until(r"[1-9]\d*/\d+ transactions")
        terminal.process.send_signal(signal.SIGINT)
        shown = terminal.read_to_end()
    assert terminal.process.returncode == 130
    assert shown.endswith("The demo was interrupted.\r\n")
    assert "Traceback" not in shown
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


def test_more_rows_than_the_file_has(tmp_path: Path, environment: dict[str, str]) -> None:
    finished = run_piped("--rows", "13", cwd=tmp_path, environment=environment)
    assert finished.returncode == 0, finished.stderr
    tables = tables_in(finished.stdout)
    events = [*EVENTS, ("update", "A-1001-2", "status: new -> paid", UPDATED)]
    events.insert(11, ("create", "A-1001-2", "", CREATED))
    delivered = [[str(position), *event] for position, event in enumerate(events, start=1)]
    rows = [ROWS[0], ["A-1001-2", "Ada Byron", "notebook", "3", "paid"], *ROWS[1:]]
    assert list(tables.values()) == [delivered, delivered, rows]


def test_output_that_knows_only_ascii(tmp_path: Path, environment: dict[str, str]) -> None:
    finished = run_piped("--rows", "1", cwd=tmp_path, environment=environment | {"PYTHONIOENCODING": "ascii"})
    assert (finished.returncode, finished.stderr) == (0, "")


def test_help(tmp_path: Path, environment: dict[str, str]) -> None:
    finished = run_piped("--help", cwd=tmp_path, environment=environment)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith(f"usage: {PROGRAM} [-h] [--rows N] [--no-color]\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "0"], "argument --rows: '0' is not a whole number from 1 to 10000"),
        (["--rows", "-3"], "argument --rows: '-3' is not a whole number from 1 to 10000"),
        (["--rows", "10001"], "argument --rows: '10001' is not a whole number from 1 to 10000"),
        (["--rows", "many"], "argument --rows: 'many' is not a whole number from 1 to 10000"),
        (["--rows"], "argument --rows: expected one argument"),
        (["--port", "0"], "argument --port: needs --serve"),
        (["--host", "::1", "--database", "sqlite+aiosqlite://"], "argument --database: needs --serve"),
        (["--serve", "--rows", "12"], "argument --rows: not allowed with --serve"),
        (["--serve", "--no-color"], "argument --no-color: not allowed with --serve"),
        (["--colour"], "unrecognized arguments: --colour"),
        (["orders.csv"], "unrecognized arguments: orders.csv"),
    ],
)
def test_arguments_that_cannot_be_used(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        command.run(arguments)
    assert exited.value.code == 2
    assert capsys.readouterr() == ("", f"{PROGRAM}: {message} (see {PROGRAM} --help)\n")


def test_process_ends_with_2_on_bad_arguments(tmp_path: Path, environment: dict[str, str]) -> None:
    finished = run_piped("--rows", "0", cwd=tmp_path, environment=environment)
    assert (finished.returncode, finished.stdout, finished.stderr.count("\n")) == (2, "", 1)


def test_extra_is_missing(tmp_path: Path, environment: dict[str, str]) -> None:
    """Without site-packages nothing but the standard library and the package itself can be imported."""
    finished = run_piped(cwd=tmp_path, environment=environment, interpreter_options=["-S"])
    assert (finished.returncode, finished.stdout, finished.stderr) == (
        2,
        "",
        (
            "The demo needs aiosqlite, fastapi, greenlet, httpx, rich, uvicorn, not installed here: "
            'run pip install "fastapi-toolsets[demo]" and start it again.\n'
        ),
    )


def test_temporary_folder_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert command.run([]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("The demo needs a temporary folder and a port on 127.0.0.1, and had to stop: ")
    assert output.err.count("\n") == 1


def test_application_that_does_not_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def lifespan(_app: FastAPI) -> AbstractAsyncContextManager[None]:
        raise RuntimeError("no table today")

    def application(_engine: object) -> FastAPI:
        return FastAPI(lifespan=lifespan)

    monkeypatch.setattr(over_http, "create_app", application)
    assert command.run([]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "RuntimeError: no table today" in output.err
    assert output.err.splitlines()[-1].startswith("The demo's application did not answer as it should, ")


def test_application_that_answers_with_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def application(_engine: object) -> FastAPI:
        return FastAPI()

    monkeypatch.setattr(over_http, "create_app", application)
    assert command.run([]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert re.sub(r":\d+/", ":?/", output.err) == (
        "The demo's application did not answer as it should, see above if it said why: "
        "Client error '404 Not Found' for url 'http://127.0.0.1:?/orders/import'\n"
    )


def test_front_ends_that_differ(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo compares what really happened: a script that leaves out the last step is found out."""

    def run_without_last_step(
        orders: Sequence[OrderRecord], steps: Sequence[Step], database: Path, advance: Advance
    ) -> Run:
        return run_script(orders, steps[:-1], database, advance)

    monkeypatch.setattr(command, "run_script", run_without_last_step)
    assert command.run([]) == 1
    assert capsys.readouterr().out.endswith("\nThe front-ends differ in: deliveries, rows.\n")


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"deliveries": ()}, "deliveries"),
        ({"rows": ()}, "rows"),
        ({"refused_orders": 1}, "refused_orders"),
        ({"refused_changes": 1}, "refused_changes"),
    ],
)
def test_every_difference_is_named(changed: dict[str, object], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    delivery = Delivery(ModelEvent.CREATE, "A-1", "", CREATED)
    run = Run("one", (delivery,), (OrderRow("A-1", "Ada Byron", "notebook", 1, "new"),), 0, 0, 0.5)
    other = replace(run, front_end="other", seconds=0.25)
    assert print_summary(Console(), run, other) is True
    capsys.readouterr()
    assert print_summary(Console(), run, replace(other, **changed)) is False  # type: ignore[arg-type]
    assert capsys.readouterr().out.endswith(f"The front-ends differ in: {name}.\n")


def test_orders_start_over_with_new_numbers() -> None:
    orders = read_orders()
    repeated = repeat_orders(orders, 2 * len(orders) + 1)
    assert repeated[: len(orders)] == orders
    assert [order.number for order in repeated[len(orders) : -1]] == [f"{order.number}-2" for order in orders]
    assert repeated[-1] == OrderRecord("A-1001-3", "Ada Byron", "notebook", 3, Outcome.PAID)
