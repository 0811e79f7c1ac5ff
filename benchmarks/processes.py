"""The measuring processes: one for each library and kind of listeners, asked in turn and never two at a time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

ROOT = Path(__file__).parent.parent
# The checkout is the last place to look for imports, so that a library installed for the interpreter comes first.
_START = "import sys; sys.path.append(sys.argv.pop(1)); from benchmarks.worker.main import main; main(sys.argv[1:])"
_TIMEOUT = 10.0


class WorkerError(RuntimeError):
    """A measuring process failed; the message has its traceback."""


class WorkerProcess:
    """A measuring process, started on first use."""

    def __init__(self, library: str, listeners: str, *, python: str = sys.executable, others: int = 0) -> None:
        """Describe it.

        Args:
            library: ``"none"``, ``"ours"``, ``"published"`` or ``"least"``.
            listeners: What is listened to in it.
            python: The interpreter, which has the library.
            others: How many listeners more to register, on tables that nobody writes.
        """
        self.name = f"{library} ({listeners})"
        self._command = [python, "-P", "-c", _START, str(ROOT), library, listeners, str(others)]
        self._process: subprocess.Popen[str] | None = None

    def ask(self, do: str, **arguments: object) -> Any:  # noqa: ANN401 - what JSON can hold
        """Send a request and wait for the answer.

        Raises:
            WorkerError: It could not be answered, or the process has ended.
        """
        process = self._process or self._start()
        pipe_in, pipe_out = process.stdin, process.stdout
        if pipe_in is None or pipe_out is None:
            msg = f"{self.name} was started without pipes"
            raise WorkerError(msg)
        try:
            pipe_in.write(json.dumps({"do": do, **arguments}) + "\n")
            pipe_in.flush()
            line = pipe_out.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = process.wait(_TIMEOUT)
            msg = f"the measuring process {self.name} ended with {code} while asked to {do}; see above why"
            raise WorkerError(msg)
        answer = json.loads(line)
        if "error" in answer:
            msg = f"the measuring process {self.name} could not {do}:\n{answer['error']}"
            raise WorkerError(msg)
        return answer["answer"]

    def _start(self) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._process = subprocess.Popen(  # noqa: S603 - an interpreter of ours
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**environment, "PYTHONHASHSEED": "0"},
        )
        return self._process

    def close(self) -> None:
        """End the process."""
        process = self._process
        if process is None:
            return
        self._process = None
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended already, and left a request unread
                process.stdin.close()
        try:
            process.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
