"""The demo's ``--serve``: its stream of events over a real server, and its process as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from fastapi_toolsets.demo import command
from fastapi_toolsets.demo.live.feed import EventFeed, OrderEvent
from fastapi_toolsets.demo.orders import read_orders

from .http_server import NO_CERTIFICATES
from .live_desk import Desk, Message, messages, open_desk

ROOT = Path(__file__).parent.parent
PROGRAM = "python -m fastapi_toolsets.demo"
PAGE = ROOT / "fastapi_toolsets" / "demo" / "live"
TIMEOUT = 60  # seconds; a server that does not stop ends its test

RECORDS = {record.number: record for record in read_orders()}


def order(number: str, **changed: object) -> dict[str, object]:
    """An order of the demo's file as the page gets it."""
    record = RECORDS[number]
    values = {"number": number, "customer": record.customer, "item": record.item, "quantity": record.quantity}
    return {**values, "status": "new", **changed}


AT_FIRST = [order(number) for number in sorted(RECORDS)]


@pytest.fixture
def desk(tmp_path: Path) -> Generator[Desk]:
    with open_desk(tmp_path) as opened:
        yield opened


def told(message: Message) -> tuple[str, str, dict[str, Any]]:
    """What a message about an order says, without its time."""
    assert message.event == "order"
    assert set(message.data) == {"type", "order", "changes", "delivered_at"}
    return message.data["type"], message.data["order"]["number"], message.data["changes"]


def statuses(received: list[Message]) -> list[tuple[str, str]]:
    """Of each message about an order its number and new status."""
    return [(told(message)[1], told(message)[2]["status"]["new"]) for message in received]


def test_table_and_then_each_event(desk: Desk) -> None:
    """N1, E1, T2: what was committed is told with old and new values; a change that the database refused is not."""
    with desk.stream() as stream:
        table = next(stream)
        assert (table.event, table.data) == ("table", {"reason": "opened", "orders": AT_FIRST})
        assert desk.change("A-1001", status="paid", quantity=4) == 200
        assert desk.change("A-1002", status="paid", quantity=0) == 409
        assert desk.change("A-1002", note="not watched") == 200
        assert desk.create("A-2000", quantity=0) == ["A-2000"]
        assert desk.create("A-2000") == []
        assert desk.cancel("A-1003") == 204
        received = list(islice(stream, 3))
    assert [told(message) for message in received] == [
        ("update", "A-1001", {"quantity": {"old": 3, "new": 4}, "status": {"old": "new", "new": "paid"}}),
        ("create", "A-2000", {}),
        ("delete", "A-1003", {}),
    ]
    assert [message.data["order"] for message in received] == [
        order("A-1001", status="paid", quantity=4),
        {"number": "A-2000", "customer": "Lena Ohm", "item": "lamp", "quantity": 1, "status": "new"},
        order("A-1003"),
    ]
    assert [message.position - table.position for message in received] == [1, 2, 3]


def test_client_that_was_away(desk: Desk) -> None:
    """It names the last message it has seen and is given exactly what came after, then what comes."""
    with desk.stream() as stream:
        next(stream)
        desk.change("A-1001", status="paid")
        seen = next(stream)
    desk.change("A-1002", status="paid")
    desk.change("A-1007", status="paid")
    with desk.stream(seen.identifier) as stream:
        missed = list(islice(stream, 2))
        desk.change("A-1008", status="paid")
        missed.append(next(stream))
    assert statuses(missed) == [("A-1002", "paid"), ("A-1007", "paid"), ("A-1008", "paid")]
    assert [message.position - seen.position for message in missed] == [1, 2, 3]


def test_server_that_ends_the_connection(desk: Desk) -> None:
    """The stream ends for all, in the middle of nothing; those who come back have missed nothing."""
    with desk.stream() as first, desk.stream() as second:
        tables = [next(first), next(second)]
        desk.drop_connections()
        assert [list(first), list(second)] == [[], []]
    desk.change("A-1001", status="paid")
    for table in tables:
        with desk.stream(table.identifier) as stream:
            assert statuses([next(stream)]) == [("A-1001", "paid")]


@pytest.mark.parametrize("missed", [2, 3])
def test_gap_that_is_too_large(tmp_path: Path, missed: int) -> None:
    """As many events as are kept are told one by one; one more, and the table is sent anew, with the reason."""
    with open_desk(tmp_path, capacity=2) as desk:
        with desk.stream() as stream:
            table = next(stream)
        for quantity in range(10, 10 + missed):
            desk.change("A-1001", quantity=quantity)
        with desk.stream(table.identifier) as stream:
            first = next(stream)
            if missed == 2:
                changes = [told(first)[2], told(next(stream))[2]]
                assert changes == [{"quantity": {"old": 3, "new": 10}}, {"quantity": {"old": 10, "new": 11}}]
            else:
                orders = [order("A-1001", quantity=12), *AT_FIRST[1:]]
                assert (first.event, first.data) == ("table", {"reason": "gap", "orders": orders})
            desk.change("A-1002", status="paid")
            following = next(stream)
    assert statuses([following]) == [("A-1002", "paid")]
    assert following.position == table.position + missed + 1


def test_reader_that_falls_behind_while_connected(tmp_path: Path) -> None:
    """One that reads slower than events come, and loses some, is told so instead of going on with a hole."""
    with open_desk(tmp_path, capacity=2) as desk, desk.stream() as stream:
        opened = next(stream)
        desk.create(*(f"B-{number:03}" for number in range(20)))
        desk.change("A-1001", status="paid")
        table, following = islice(stream, 2)
    new = [
        {"number": f"B-{number:03}", "customer": "Lena Ohm", "item": "lamp", "quantity": 1, "status": "new"}
        for number in range(20)
    ]
    assert (table.event, table.data["reason"], table.data["orders"][1:]) == ("table", "gap", [*AT_FIRST[1:], *new])
    assert told(following) == ("update", "A-1001", {"status": {"old": "new", "new": "paid"}})
    assert [message.position - opened.position for message in (table, following)] == [20, 21]


def test_server_that_was_started_anew(tmp_path: Path) -> None:
    """It knows nothing of the ids of the one before, and sends the table, with the reason; the orders are there."""
    with open_desk(tmp_path) as desk, desk.stream() as stream:
        next(stream)
        desk.change("A-1001", status="paid")
        seen = next(stream)
    with open_desk(tmp_path) as desk, desk.stream(seen.identifier) as stream:
        table = next(stream)
        assert table.data == {"reason": "restarted", "orders": [order("A-1001", status="paid"), *AT_FIRST[1:]]}
        assert table.position == 0
        desk.change("A-1001", status="shipped")
        assert told(next(stream)) == ("update", "A-1001", {"status": {"old": "paid", "new": "shipped"}})


@pytest.mark.parametrize(
    "identifier", ["", "-", "nonsense", "{run}", "{run}-", "{run}-x", "{run}--1", "{run}-999", "{run}-²"]
)
def test_ids_that_nobody_was_given(desk: Desk, identifier: str) -> None:
    """Whatever a client sends, it gets the table."""
    with desk.stream() as stream:
        run = next(stream).identifier.partition("-")[0]
    headers = {b"Last-Event-ID": identifier.format(run=run).encode()}
    with httpx.stream(
        "GET", f"{desk.address}/events", headers=headers, trust_env=False, verify=NO_CERTIFICATES
    ) as response:
        table = next(messages(response.iter_lines()))
    assert table.data == {"reason": "restarted", "orders": AT_FIRST}


def read_to_the_end(desk: Desk, count: int, opened: threading.Barrier) -> list[str]:
    """Follow until so many orders have come, however often the stream ends; return their numbers."""
    numbers: list[str] = []
    identifier: str | None = None
    with another_client(desk) as own:
        while len(numbers) < count:
            with own.stream(identifier) as stream:
                for message in stream:
                    if identifier is None:
                        opened.wait()
                    identifier = message.identifier
                    if message.event == "order":
                        numbers.append(message.data["order"]["number"])
                    if len(numbers) == count:
                        break
    return numbers


def test_nobody_loses_an_event_however_often_connections_end(desk: Desk) -> None:
    """Five readers that come back again and again, each with all the events once and in order."""
    numbers = [f"B-{number:03}" for number in range(40)]
    opened = threading.Barrier(6)
    with ThreadPoolExecutor(5) as readers:
        reading = [readers.submit(read_to_the_end, desk, len(numbers), opened) for _ in range(5)]
        opened.wait()
        for index, number in enumerate(numbers):
            desk.create(number)
            if index % 4 == 0:
                desk.drop_connections()
        assert [each.result() for each in reading] == [numbers] * 5


@contextmanager
def another_client(desk: Desk) -> Generator[Desk]:
    """A client of its own on the same desk, for another thread."""
    with httpx.Client(base_url=desk.address, timeout=30, trust_env=False, verify=NO_CERTIFICATES) as client:
        yield Desk(desk.address, client)


def test_feed_keeps_no_more_than_it_is_told(desk: Desk) -> None:
    """T9: a server that runs for long does not grow."""
    feed = EventFeed(capacity=3)
    with desk.stream() as stream:
        next(stream)
        desk.change("A-1001", status="paid")
        data = next(stream).data
    event = OrderEvent.model_validate(data)
    for _ in range(10):
        feed.publish(event)
    assert feed.after(7) == [(8, event), (9, event), (10, event)]
    assert feed.after(10) == []


# The page


def test_page_loads_nothing_from_elsewhere(desk: Desk) -> None:
    """Its files name no other host, and its policy would not let a browser ask one."""
    for path, media_type in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        response = desk.get(path)
        assert (response.status_code, response.headers["content-type"]) == (200, f"{media_type}; charset=utf-8")
        assert response.headers["content-security-policy"].startswith("default-src 'self';")
        assert re.findall(r"(?:https?:)?//\w[^\s\"')]*", re.sub(r"(?m)^\s*// .*$|\s// .*$", "", response.text)) == []
        assert response.content == (PAGE / ("page.html" if path == "/" else path[1:])).read_bytes()


# The process


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "temporary").mkdir()
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "TMPDIR": str(tmp_path / "temporary"),
    }


@contextmanager
def serving_process(
    *arguments: str, cwd: Path, environment: dict[str, str]
) -> Generator[tuple[subprocess.Popen[str], str]]:
    """The demo in a process of its own, on a free port, and its address."""
    line = [sys.executable, "-m", "fastapi_toolsets.demo", "--serve", "--port", "0", *arguments]
    with subprocess.Popen(
        line, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            opened = re.fullmatch(r"The order desk is open at (http://\S+)/ \(Ctrl\+C closes it\)\n", said)
            assert opened, (said, process.stderr and process.stderr.read())
            yield process, opened[1]
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize(
    ("signal_number", "exit_code", "says"),
    [(signal.SIGINT, 0, "\nThe order desk is closed.\n"), (signal.SIGTERM, 128 + signal.SIGTERM, "")],
)
def test_stopped_while_somebody_follows(
    tmp_path: Path, environment: dict[str, str], signal_number: int, exit_code: int, says: str
) -> None:
    """Streams end, the process too, and nothing is left behind."""
    with serving_process(cwd=tmp_path, environment=environment) as (process, address):
        with (
            httpx.Client(base_url=address, timeout=TIMEOUT, trust_env=False, verify=NO_CERTIFICATES) as client,
            Desk(address, client).stream() as stream,
        ):
            assert next(stream).data == {"reason": "opened", "orders": AT_FIRST}
            process.send_signal(signal_number)
            assert list(stream) == []
        output = process.communicate(timeout=TIMEOUT)
    assert (output, process.returncode) == ((says, ""), exit_code)
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


def test_database_of_ones_own(tmp_path: Path, environment: dict[str, str]) -> None:
    """Orders that are there are kept, also across runs; the demo's own come only to an empty table."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'mine.sqlite'}"
    for expected in (AT_FIRST, AT_FIRST[1:]):
        with serving_process("--database", url, cwd=tmp_path, environment=environment) as (process, address):
            with httpx.Client(base_url=address, timeout=TIMEOUT, trust_env=False, verify=NO_CERTIFICATES) as client:
                desk = Desk(address, client)
                assert desk.orders() == expected
                desk.cancel("A-1001")
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=TIMEOUT)


def test_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert command.run(["--serve", "--port", str(port)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert re.sub(r"\(while.*?\)\)", "", output.err).startswith(f"Port {port} of 127.0.0.1 cannot be opened: ")
    assert output.err.endswith(". Choose another with --port or --host.\n")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "exit_code", "says"),
    [
        ("orders.sqlite", 2, "The database's URL cannot be used: Could not parse SQLAlchemy URL from "),
        (
            "sqlite:///orders.sqlite",
            2,
            (
                "The database's URL cannot be used: The asyncio extension requires an async driver to be used. "
                "The loaded 'pysqlite' is not async. Give one with an async driver: "
            ),
        ),
        ("oracle+nothing://here", 2, "The database's URL cannot be used: Can't load plugin: "),
        ("sqlite+aiosqlite:////nowhere/at/all.sqlite", 1, "The database does not answer: "),
        ("postgresql+asyncpg://127.0.0.1:1/orders", 1, "The database does not answer: "),
    ],
)
def test_database_that_cannot_be_used(url: str, exit_code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what is wrong, and nothing is served."""
    assert command.run(["--serve", "--port", "0", "--database", url]) == exit_code
    output = capsys.readouterr()
    assert (output.out, output.err[: len(says)], output.err.count("\n")) == ("", says, 1)


@pytest.mark.parametrize("port", ["-1", "65536", "http", "8000.5", "²"])
def test_port_that_is_none(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        command.run(["--serve", f"--port={port}"])
    assert exited.value.code == 2
    message = f"argument --port: {port!r} is not a port from 0 to 65535"
    assert capsys.readouterr() == ("", f"{PROGRAM}: {message} (see {PROGRAM} --help)\n")


def test_fastapi_that_is_too_old(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo without the page runs with an older one; the page says what it needs."""
    monkeypatch.setitem(sys.modules, "fastapi.sse", None)
    assert command.run(["--serve"]) == 2
    assert capsys.readouterr() == (
        "",
        (
            'The page needs FastAPI 0.135 or later: run pip install --upgrade "fastapi-toolsets[demo]" '
            "and start it again.\n"
        ),
    )


def test_help_names_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        command.run(["--help"])
    assert exited.value.code == 0
    usage = capsys.readouterr().out.splitlines()[:2]
    assert usage == [
        f"usage: {PROGRAM} [-h] [--rows N] [--no-color]",
        f"       {PROGRAM} --serve [--host HOST] [--port PORT] [--database URL]",
    ]
