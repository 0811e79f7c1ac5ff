"""A sync session in a task of a real Celery worker: a process of its own that forks the process which runs tasks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import celery.exceptions
import pytest
import redis
from celery import Celery

from .services import require_service

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 90


@dataclass(frozen=True)
class Worker:
    """A running worker and the client that gives it tasks."""

    process: subprocess.Popen[bytes]
    client: Celery
    output: Path

    def run(self, task: str, *arguments: object) -> Any:  # noqa: ANN401 - what the task returns
        """Have a task run and give its result; raise what it raised."""
        try:
            return self.client.send_task(task, args=arguments).get(timeout=PATIENCE_SECONDS)
        except celery.exceptions.TimeoutError:
            pytest.fail(
                f"no result of {task} in {PATIENCE_SECONDS} seconds; the worker wrote:\n{self.output.read_text()}"
            )

    def stop(self) -> int:
        """Stop the worker as an operator would, and give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE_SECONDS)
        finally:
            self.process.kill()


def delete_keys(broker: str, prefix: str) -> None:
    """Delete the queues and results of this test, and nobody else's."""
    client: Any = redis.Redis  # whose annotations are incomplete
    with client.from_url(broker) as connection:
        for key in connection.scan_iter(f"{prefix}*"):
            connection.delete(key)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Generator[Worker]:
    broker, folder = require_service("redis"), tmp_path_factory.mktemp("celery")
    prefix = f"toolsets-{os.getpid()}-{uuid.uuid4().hex[:12]}-"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TEST_CELERY_BROKER": broker,
        "TEST_CELERY_PREFIX": prefix,
        "TEST_CELERY_DATABASE_URL": f"sqlite:///{folder / 'orders.sqlite'}",
    }
    command = [sys.executable, "-m", "celery", "--app", "tests.celery_app", "worker", "--pool", "prefork"]
    options = ["--concurrency", "1", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    keys = {"global_keyprefix": prefix}
    client = Celery(
        "client",
        broker=broker,
        backend=broker,
        broker_transport_options=keys,
        result_backend_transport_options=keys,
        task_default_queue=prefix,
    )
    output = folder / "worker.log"
    with output.open("wb") as log:
        process = subprocess.Popen([*command, *options], cwd=ROOT, env=environment, stdout=log, stderr=log)
    worker = Worker(process, client, output)
    try:
        yield worker
        assert worker.stop() == 0, output.read_text()
        assert "never awaited" not in output.read_text()
    finally:
        process.kill()
        client.close()
        delete_keys(broker, prefix)


def test_async_callbacks_run_in_tasks_on_one_loop_that_is_kept(worker: Worker) -> None:
    """C2: in a Celery task async callbacks run on a loop of the library's, which is reused from task to task."""
    (created,) = worker.run("create_order", 10)
    paid, shipped = worker.run("pay_order", 10)
    (other,) = worker.run("create_order", 11)

    assert len({os.getpid(), worker.process.pid, created["process"]}) == 3
    where = {name: created[name] for name in ("process", "in_the_task_thread", "loop")}
    assert created == {"event": "create", "order_id": 10, "changes": None, "task": "create 10", **where}
    assert paid == {
        "event": "update",
        "order_id": 10,
        "changes": {"status": {"old": "new", "new": "paid"}},
        "task": "pay 10",
        **where,
    }
    assert shipped == {**paid, "changes": {"status": {"old": "paid", "new": "shipped"}}}
    assert other == {**created, "order_id": 11, "task": "create 11"}


def test_task_that_fails_delivers_nothing(worker: Worker) -> None:
    """T2: neither from the task that raised nor from it with the next one."""
    with pytest.raises(ZeroDivisionError):
        worker.run("fail", 20)
    (call,) = worker.run("create_order", 20)
    assert (call["event"], call["order_id"], call["task"]) == ("create", 20, "create 20")


def test_what_the_parent_left_before_the_fork_does_not_disturb_its_children(worker: Worker) -> None:
    """C2: the parent has had a loop of the library's; the child, forked after that, has one of its own."""
    (parent,) = worker.run("tell_calls_before_fork")
    (child,) = worker.run("create_order", 30)
    assert (parent["task"], parent["loop"], parent["process"]) == ("parent", 0, worker.process.pid)
    assert (child["task"], child["loop"]) == ("create 30", 1)
    assert child["process"] != worker.process.pid
