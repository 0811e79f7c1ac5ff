"""The migration of a project: all files are read, then planned, then rewritten in memory, and only then written."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TypeVar

import libcst as cst

from .edits import FileEdit, Todo
from .facts import FileFacts
from .finding import find_files, roots_of
from .names import Names
from .planning import plan
from .problems import MigrationError
from .reading import read_facts
from .rewriting import rewrite, todo_lines
from .writing import Rewritten, write_all

PROCESSES_FROM = 200
"""With how many files other processes help: fewer are done before those have started."""

Advance = Callable[[str, int, int], None]
"""Told what is being done, how many files of how many are done."""

_ArgumentT = TypeVar("_ArgumentT")
_ResultT = TypeVar("_ResultT")


@dataclass(frozen=True, slots=True)
class Task:
    """What is left to a person."""

    shown: str
    """The file, as messages name it."""
    line: int
    """Where it is in the file as it is now."""
    line_after: int
    """The line of the comment in the file once it is rewritten."""
    message: str


@dataclass(frozen=True, slots=True)
class Migration:
    """What a migration came to; nothing is written yet."""

    files: int
    """How many were read."""
    changed: tuple[Rewritten, ...]
    tasks: tuple[Task, ...]

    def write(self) -> None:
        """Write the changed files, all or none.

        Raises:
            MigrationError: One of them cannot be written.
        """
        write_all(self.changed)


def migrate(paths: Sequence[str], advance: Advance | None = None) -> Migration:
    """Work out how a project is moved to version 3.

    Args:
        paths: Files and folders.
        advance: Called as the work goes on.

    Raises:
        MigrationError: A path does not exist, or a file cannot be read or is not Python.
    """
    report = advance or _nobody_is_told
    shown = find_files(paths)
    with _pool(len(shown)) as executor:
        files: dict[str, FileFacts] = {}
        for done, facts in enumerate(_map(executor, _read, list(shown.items())), start=1):
            files[facts.path] = facts
            report("Reading", done, len(shown))
        names = Names(files, roots_of(shown, paths), _read_for_context)
        edits = plan(files, frozenset(shown), names)
        changed: list[Rewritten] = []
        tasks: list[Task] = []
        work = [(edit, shown[edit.path]) for edit in edits]
        for done, (rewritten, left) in enumerate(_map(executor, _rewrite, work), start=1):
            if rewritten.after != rewritten.before:
                changed.append(rewritten)
            tasks += left
            report("Rewriting", done, len(work))
    return Migration(len(shown), tuple(changed), tuple(tasks))


def _nobody_is_told(_what: str, _done: int, _total: int) -> None: ...


@contextmanager
def _pool(files: int) -> Generator[Executor | None]:
    processors = os.cpu_count() or 1
    if files < PROCESSES_FROM or processors < 2:  # noqa: PLR2004 -- one processor alone
        yield None
        return
    # A new interpreter for each, since the progress bar has a thread, with which a process must not be forked.
    executor = ProcessPoolExecutor(
        processors, mp_context=get_context("spawn"), initializer=_leave_interrupts_to_the_parent
    )
    try:
        with _interrupts_held_back():
            for _ in range(processors):  # each starts a process, as long as none is idle
                executor.submit(os.getpid)
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held_back() -> Generator[None]:
    """Let Ctrl-C wait for the end of a block; a process that is started in it never sees one, not even at its start."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_interrupts_to_the_parent() -> None:
    """Where signals cannot be held back, ignore them as soon as the process can."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _map(
    executor: Executor | None, function: Callable[[_ArgumentT], _ResultT], arguments: Sequence[_ArgumentT]
) -> Iterable[_ResultT]:
    if executor is None:
        return map(function, arguments)
    return executor.map(function, arguments, chunksize=16)


def _source(path: str, shown: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise MigrationError(f"{shown} cannot be read: {error.strerror or error}") from error


def _read(file: tuple[str, str]) -> FileFacts:
    path, shown = file
    source = _source(path, shown)
    try:
        return read_facts(path, source)
    except SyntaxError as error:
        place = f"{shown}:{error.lineno}" if error.lineno else shown
        raise MigrationError(f"{place}: not valid Python: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise MigrationError(f"{shown}: not valid Python: {error}") from error


def _read_for_context(path: str) -> FileFacts | None:
    """Read a file that was not named, but that a name leads to: whatever is wrong with it is not for us to say."""
    try:
        return _read((path, path))
    except MigrationError:
        return None


def _rewrite(work: tuple[FileEdit, str]) -> tuple[Rewritten, list[Task]]:
    edit, shown = work
    before = _source(edit.path, shown)
    try:
        after = rewrite(before, edit)
    except (cst.ParserSyntaxError, UnicodeError) as error:
        reason = str(error).partition("\n")[0]
        raise MigrationError(f"{shown} cannot be rewritten: {reason}") from error
    return Rewritten(edit.path, shown, before, after), list(_tasks(edit.todos, shown, after))


def _tasks(todos: Sequence[Todo], shown: str, after: bytes) -> Iterator[Task]:
    lines = todo_lines(after)
    for todo in todos:
        comment = next((line for line in lines if line[1] == todo.message), None)
        if comment is not None:
            lines.remove(comment)
        yield Task(shown, todo.line, comment[0] if comment else todo.line, todo.message)
