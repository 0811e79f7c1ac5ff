"""The pytest plugin that tries mutants: runs all tests once, then forks for each mutant and runs those that meet it.

A fork has everything imported and collected, so that a mutant costs little more than the tests that it survives. Give
it to pytest with ``-p tests.mutation.plugin`` in the workspace; :mod:`tests.mutation.__main__` does.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pytest
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.format_utils import mangled_name_from_mutant_name

LEAST_LIMIT = 20.0
"""Seconds after which a test hangs, at the least; a slower one has ten times what it took on the original."""
MEMORY = 4 << 30
"""Bytes that a mutant may take besides what it inherits: one that loops for ever fills the machine otherwise."""

TO_TRY, RESULTS, JOBS = "MUTATION_TO_TRY", "MUTATION_RESULTS", "MUTATION_JOBS"
"""Environment variables: the file that names the mutants to try, a JSON list; the file to append results to; how many
mutants to try at a time."""

MET_BY_IMPORTS = "met_by_imports.json"
"""The file, in the workspace, for the names of the functions that importing the tests has called."""

ORIGINAL = "original"
"""The name, among the results, of the original itself: what the tests that kill say without any mutant."""


@dataclass(frozen=True)
class Trial:
    """A fork that runs tests against a mutant."""

    name: str
    function: str
    meeting: int
    """How many tests meet the function."""
    began: float
    pipe: int
    """Where the fork writes which test has failed."""


class MutantRun:
    """One pytest run that tries mutants instead of reporting tests."""

    def __init__(self, to_try: list[str], results: Path, jobs: int) -> None:
        """Remember what to try."""
        self._to_try = to_try
        self._results = results
        self._jobs = jobs
        self._items: dict[str, pytest.Item] = {}
        self._durations: dict[str, float] = {}
        self._meets: defaultdict[str, list[pytest.Item]] = defaultdict(list)
        self._killers: Counter[str] = Counter()
        self._killers_of: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._failed: str | None = None
        self._shown = ""
        self._in_fork = False
        self._started_process = False
        self._start_processes: list[pytest.Item] = []
        sys.addaudithook(self._note_process)

    def _note_process(self, event: str, arguments: object) -> None:
        """Notice that a test starts a process, where nobody sees which functions it meets."""
        self._started_process = self._started_process or event == "subprocess.Popen"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notice a failure."""
        if report.failed:
            self._failed = f"{report.nodeid} ({report.when})"
            self._shown = report.longreprtext

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Run all tests on the original, which notes the functions that each meets; then try the mutants."""
        met = state()._stats  # noqa: SLF001 - where mutmut's trampolines note the functions that were called
        Path(MET_BY_IMPORTS).write_text(json.dumps(sorted(met)), "utf-8")
        met.clear()
        result = yield
        if self._failed is None:
            set_mutant_under_test("none")
            gc.collect()
            gc.freeze()
            self._try_all(session)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measure a test on the original, and note what it meets."""
        began = time.monotonic()
        self._started_process = False
        result = yield
        if not self._in_fork:
            if self._started_process:
                self._start_processes.append(item)
            self._items[item.nodeid] = item
            self._durations[item.nodeid] = time.monotonic() - began
            met = state()._stats  # noqa: SLF001
            for function in met:
                self._meets[function].append(item)
            met.clear()
        return result

    def _try_all(self, session: pytest.Session) -> None:
        """Try the mutants, several at a time, and in the end run on the original what has killed any of them."""
        waiting = deque(self._to_try)
        running: dict[int, Trial] = {}
        with self._results.open("a", encoding="utf-8") as results:
            while waiting or running:
                if waiting and len(running) < self._jobs:
                    process, trial = self._begin(session, waiting.popleft())
                    running[process] = trial
                else:
                    process, status = os.wait()
                    if process in running:
                        self._end(process, status, running.pop(process), results)
            killers = [self._items[item] for item, _ in self._killers.most_common() if item in self._items]
            process, trial = self._fork(session, ORIGINAL, killers)
            self._end(process, os.waitpid(process, 0)[1], trial, results)

    def _begin(self, session: pytest.Session, name: str) -> tuple[int, Trial]:
        """Run the tests that meet a mutant in a fork; those first that have killed others of the same function."""
        function = mangled_name_from_mutant_name(name)
        meeting = self._meets[function]
        killers = self._killers_of[function]
        own_tests = f"tests/events/test_{function.split('.')[-2]}.py"
        items = sorted(
            {item.nodeid: item for item in (*meeting, *self._start_processes)}.values(),
            key=lambda item: (
                -killers[item.nodeid],
                not item.nodeid.startswith(own_tests),
                -self._killers[item.nodeid],
                self._durations[item.nodeid],
            ),
        )
        return self._fork(session, name, items, function, len(meeting))

    def _fork(
        self, session: pytest.Session, name: str, items: list[pytest.Item], function: str = "", meeting: int = 0
    ) -> tuple[int, Trial]:
        """Run tests in a fork until one fails."""
        reading, writing = os.pipe()
        began = time.monotonic()
        process = os.fork()
        if not process:
            os.close(reading)
            self._run_fork(session, name, items, writing)
        os.close(writing)
        return process, Trial(name, function, meeting, began, reading)

    def _end(self, process: int, status: int, trial: Trial, results: TextIO) -> None:
        """Write down what became of a mutant, and which test it was."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)  # what the fork has started and left behind, which holds the pipe open
        with os.fdopen(trial.pipe, "rb") as pipe:
            by = pipe.read().decode()
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGALRM:
            outcome = "timeout"
        elif code:
            outcome, by = "killed", by or f"exit code {code}"
        else:
            outcome = "survived" if trial.meeting or trial.name == ORIGINAL else "not covered"
        if outcome == "killed" and trial.name != ORIGINAL:
            test = by.rpartition(" (")[0]
            self._killers[test] += 1
            self._killers_of[trial.function][test] += 1
        entry = {
            "name": trial.name,
            "outcome": outcome,
            "by": by,
            "tests": trial.meeting,
            "seconds": round(time.monotonic() - trial.began, 2),
        }
        results.write(json.dumps(entry) + "\n")
        results.flush()

    def _run_fork(self, session: pytest.Session, name: str, items: list[pytest.Item], writing: int) -> None:
        """Run tests until one fails, and end the process."""
        code = 1
        try:
            os.setsid()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            self._in_fork = True
            session.config.pluginmanager.unregister(name="terminalreporter")
            set_mutant_under_test("none" if name == ORIGINAL else name)
            code = 0
            for item, following in zip(items, [*items[1:], None], strict=True):
                signal.setitimer(signal.ITIMER_REAL, max(LEAST_LIMIT, 10 * self._durations[item.nodeid]))
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self._failed is not None or session.shouldstop or session.shouldfail:
                    shown = f": {self._shown[-20_000:]}" if name == ORIGINAL else ""
                    os.write(writing, f"{self._failed or 'interrupted'}{shown}".encode())
                    code = 1
                    session._setupstate.teardown_exact(None)  # noqa: SLF001 - drops the fork's databases on servers
                    break
        except BaseException as error:  # noqa: BLE001 - an interrupt that a mutant lets through has been noticed, too
            os.write(writing, repr(error).encode())
            code = 1
        finally:
            os._exit(code)


def pytest_configure(config: pytest.Config) -> None:
    """Begin the run that the environment describes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it runs in the background ignore it
    to_try = json.loads(Path(os.environ[TO_TRY]).read_text("utf-8"))
    config.pluginmanager.register(MutantRun(to_try, Path(os.environ[RESULTS]), int(os.environ[JOBS])), "mutants")
