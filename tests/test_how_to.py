"""The how-to pages' applications at work: with a real Celery worker, and with a real HTTP server and its clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from .http_server import NO_CERTIFICATES, serving
from .services import require_service
from .test_documentation import HOW_TO, ROOT, Block, blocks_of

PATIENCE_SECONDS = 90


def block_with(page: str, text: str) -> Block:
    """Return the one Python block of a how-to page that has this text in it."""
    (found,) = [block for block in blocks_of(HOW_TO / page) if block.language == "python" and text in block.source]
    return found


@dataclass(frozen=True)
class Redis:
    """The server, and a prefix that keeps what a test puts there apart from everything else."""

    url: str
    prefix: str


@pytest.fixture
def redis_server() -> Generator[Redis]:
    server = Redis(require_service("redis"), f"toolsets-{os.getpid()}-{uuid.uuid4().hex[:12]}-")
    yield server
    client: Any = redis.Redis  # whose annotations are incomplete
    with client.from_url(server.url) as connection:
        for key in connection.scan_iter(f"{server.prefix}*"):
            connection.delete(key)


ISOLATED = """
from shop import *

prefix = {prefix!r}
app.conf.update(
    broker_transport_options={{"global_keyprefix": prefix}},
    result_backend_transport_options={{"global_keyprefix": prefix}},
    task_default_queue=prefix,
)
"""
"""The page's module with keys of its own in a Redis that others use as well."""

CLIENT = """
from isolated import *

Base.metadata.create_all(engine)
with db_context() as session:
    session.add(Order(id=1, item="notebook", status="new"))
    session.add(Order(id=2, item="ink", status="new"))
    with session.begin_nested() as savepoint:
        session.add(Order(id=3, item="never", status="new"))
        session.flush()
        savepoint.rollback()
print(pack.delay(2).get(timeout={patience}))  # the one worker process takes tasks in order, so all are done by now
with db_context() as session:
    print([(order.id, order.status) for order in session.query(Order).order_by(Order.id)])
"""


def test_celery_task_starts_when_its_row_is_there(redis_server: Redis, tmp_path: Path) -> None:
    """T1, T3, C2: the page's module, with a worker that finds each order, and is not told of what was rolled back."""
    (tmp_path / "shop.py").write_text(block_with("scripts-and-celery.md", "Celery(").source, encoding="utf-8")
    (tmp_path / "isolated.py").write_text(ISOLATED.format(prefix=redis_server.prefix), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "REDIS_URL": redis_server.url,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'shop.sqlite'}",
    }
    log = tmp_path / "worker.log"
    command = [sys.executable, "-m", "celery", "--app", "isolated", "worker", "--concurrency", "1"]
    options = ["--loglevel", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    with log.open("wb") as output:
        worker = subprocess.Popen([*command, *options], cwd=tmp_path, env=environment, stdout=output, stderr=output)
    try:
        client = subprocess.run(
            [sys.executable, "-c", CLIENT.format(patience=PATIENCE_SECONDS)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        worker.terminate()
        worker.wait(PATIENCE_SECONDS)
    finally:
        worker.kill()
        worker.wait()
    assert client.stdout.splitlines() == ["ink is packed", "[(1, 'packed'), (2, 'packed')]"], client.stderr
    told = [line.rsplit("] ", 1)[1] for line in log.read_text(encoding="utf-8").splitlines() if "] order " in line]
    change = {"status": {"old": "new", "new": "packed"}}
    assert told == [f"order 1: {change}", f"order 2: {change}"]


Message = tuple[str, str, dict[str, Any]]


def next_message(lines: Any) -> Message:  # noqa: ANN401 -- httpx's iterator over lines
    """Read one event of a stream: its id, its kind and its data; comments keep the connection open and say nothing."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if fields:
                break
            continue
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.strip()
    return fields["id"], fields["event"], json.loads(fields["data"])


@pytest.mark.parametrize("feed", ["class Feed", "STREAM ="], ids=["in the process", "in Redis"])
def test_live_updates_arrive_and_survive_a_reconnect(
    feed: str, redis_server: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T1: each commit arrives while the browser is connected, and what it missed when it is connected again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("ORDERS_STREAM", f"{redis_server.prefix}orders")
    app = block_with("live-updates.md", feed).run()["app"]
    told: list[tuple[str, dict[str, Any]]] = []
    with (
        serving(app) as address,
        httpx.Client(base_url=address, timeout=PATIENCE_SECONDS, verify=NO_CERTIFICATES) as client,
    ):

        def put(status: str) -> None:
            client.put("/orders/1", params={"status": status}).raise_for_status()

        def follow(last: str, *, meanwhile: str | None, messages: int) -> str:
            with client.stream("GET", "/orders/events", headers={"Last-Event-ID": last}) as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                lines = response.iter_lines()
                for _ in range(messages):
                    last, kind, data = next_message(lines)
                    told.append((kind, data))
                    if meanwhile is not None:
                        put(meanwhile)
                        meanwhile = None
            return last

        put("new")
        last = follow("0", meanwhile="paid", messages=2)
        put("packed")
        put("shipped")
        follow(last, meanwhile=None, messages=2)
    statuses = ["new", "paid", "packed", "shipped"]
    assert told == [
        ("create", {"id": 1, "status": "new", "changes": None}),
        *(
            ("update", {"id": 1, "status": new, "changes": {"status": {"old": old, "new": new}}})
            for old, new in pairwise(statuses)
        ),
    ]


@pytest.mark.anyio
async def test_reader_that_falls_behind_is_sent_back_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's feed ends the stream of a browser that is too slow, which then asks for what it has not seen."""
    monkeypatch.chdir(tmp_path)
    feed = block_with("live-updates.md", "class Feed").run()["feed"]
    slow = feed.follow(after=0)
    feed.publish("create", 0)
    seen = [(await anext(slow)).data]
    for number in range(1, 1_003):
        feed.publish("update", number)
    last = 0
    async for message in slow:
        seen.append(message.data)
        last = int(message.id)
    assert seen == list(range(1_001))
    again = feed.follow(after=last)
    assert [(await anext(again)).data for _ in range(2)] == [1_001, 1_002]
    await again.aclose()
    assert feed.queues == set()
