"""Says where two runs of one program differ in what may not differ."""

from __future__ import annotations

import re
from collections import Counter
from itertools import groupby

from .models import Node
from .truth import untrue
from .twin import Run, Seen, Sent, Step


class _DocumentedError(Exception):
    """The two went different ways for a reason that guarantees.md names: from here on they do not compare."""


class _UndefinedError(Exception):
    """SQLAlchemy itself goes another way each time: from here on nothing compares."""


def differences(plain: Run, events: Run) -> list[str]:
    """Say where a run with events went another way than the one without."""
    before: tuple[Step, Step] | None = None
    has_work = False
    for mine, theirs in zip(events.steps, plain.steps, strict=False):
        if before is not None and (
            before[0].is_ambiguous or _assigns_to_loaded(mine, theirs, *before) or _reads_loaded(mine, theirs, *before)
        ):
            return []
        try:
            problems = [
                f"{mine.op} ({'; '.join(mine.said)}): {problem}"
                for problem in _of_step(theirs, mine, has_work=has_work)
            ]
        except (_DocumentedError, _UndefinedError):
            return []
        if problems:
            return problems
        before = mine, theirs
        has_work = mine.session[3] and (has_work or any(mine.session[:3]) or mine.op.name in FLUSHES)
    if len(plain.steps) != len(events.steps):
        return [f"{len(events.steps)} steps, but {len(plain.steps)} on a plain session"]
    if [commit.after for commit in plain.commits] != [commit.after for commit in events.commits]:
        return ["other rows were committed"]
    return []


def untruths(events: Run) -> list[str]:
    """Say where events do not tell what was committed."""
    return [f"commit {place}: {problem}" for place, commit in enumerate(events.commits) for problem in untrue(commit)]


FLUSHES = {"replace", "merge", "quietly", "failing_block", "mutate", "address", "relate", "readd"}
"""The steps that may change something and then flush it."""


def kind_of(error: str | None) -> str | None:
    return error and error.partition(":")[0]


ASSIGNS = {"change", "address", "mutate", "expression", "relate", "rekey", "merge", "quietly", "failing_block", "readd"}


def _assigns_to_loaded(step: Step, its_twin: Step, mine: Step, plain: Step) -> bool:
    """Whether a step assigns to an object that has loaded more than its twin.

    "What was loaded for callbacks stays in the object, as if you had read it": so an assignment may be no change. A
    step that flushes first, to begin a savepoint, may have loaded it itself.
    """
    if step.op.name in ASSIGNS and any(
        loaded - its_twin.assigned.get(name, loaded) for name, loaded in step.assigned.items()
    ):
        return True
    return step.op.name in ASSIGNS and any(
        mine.objects[name].loaded.keys() - plain.objects[name].loaded.keys()
        for name in (mine.objects if step.op.name == "merge" else step.assigned)
        if name in mine.objects
    )


def _reads_loaded(step: Step, its_twin: Step, mine: Step, plain: Step) -> bool:
    """Whether a step reads what only its twin has to load, and flush for, or to begin a savepoint.

    "A value that was read for callbacks is not loaded once more when you ask for it, and nothing is flushed for that."
    Nor is SAVEPOINT sent, which SQLAlchemy sends before the first statement inside the savepoint.
    """
    sends_more = any(mine.session[:3]) or any(statement.startswith("SAVEPOINT") for statement, _ in its_twin.sent)
    if step.op.name != "touch" or not step.said or not sends_more:
        return False
    name, _, key = step.said[-1].removeprefix("read ").rpartition(".")
    return name in mine.objects and key in mine.objects[name].loaded.keys() - plain.objects[name].loaded.keys()


def _is_select(statement: str) -> bool:
    return statement.lstrip().startswith("SELECT")


def _table(sent: Sent) -> str | None:
    found = re.match(r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)", sent[0])
    return found and found[1]


def _by_table(written: list[Sent]) -> list[Sent]:
    """Put what is written to each table together, between statements that write none, such as SAVEPOINT.

    Where a table that refers to itself is written, too, SQLAlchemy takes whose turn it is from a set, except for what
    depends on each other: ``UOWTransaction.execute``. Otherwise the order stays.
    """
    if not any(_table(sent) == Node.__tablename__ for sent in written):
        return written
    ordered: list[Sent] = []
    for _, alike in groupby(written, key=lambda sent: _table(sent) is None):
        ordered += sorted(alike, key=lambda sent: _table(sent) or "")
    return ordered


def _asked(sent: Sent) -> Sent:
    """Return of which rows a SELECT asks, whatever of them: what callbacks have read is not loaded once more."""
    statement, parameters = sent
    return statement[statement.find("FROM") :] if _is_select(statement) else statement, parameters


def _of_step(plain: Step, mine: Step, *, has_work: bool) -> list[str]:
    problems: list[str] = []
    if mine.op != plain.op or mine.said != plain.said:
        return [f"but a plain session is at {plain.op} ({plain.said})"]
    if kind_of(mine.error) == kind_of(plain.error) == "CircularDependencyError":
        # It spells a set, and so do later errors that quote it; how much of the flush was sent before depends on one.
        raise _UndefinedError
    if mine.op.name.startswith("bulk"):
        # Opted in, they are other statements: bulk.md, "What it costs". Not opted in, they come after the same flush.
        if kind_of(mine.error) != kind_of(plain.error):
            problems.append(f"raised {mine.error}, but plain {plain.error}")
    else:
        if mine.error != plain.error:
            problems.append(f"raised {mine.error}, but plain {plain.error}")
        problems += _of_statements(plain, mine, has_work=has_work or mine.op.name in FLUSHES)
    for name, seen in mine.objects.items():
        problems += _of_object(name, plain.objects[name], seen, is_past=mine.is_past)
    if mine.session != plain.session:
        problems.append(f"session is {mine.session}, but plain {plain.session}")
    return problems


def _of_statements(plain: Step, mine: Step, *, has_work: bool) -> list[str]:
    """Writes are the same, one by one; nothing is read after a COMMIT, nor where nothing was changed.

    CONTRACT.md, T7 and E12: reading for callbacks costs SELECTs inside the transaction, none where there is nothing to
    tell; a value that was read for them is not loaded once more when the user asks for it.
    """
    mine_written = [sent for sent in mine.sent if not _is_select(sent[0])]
    plain_written = [sent for sent in plain.sent if not _is_select(sent[0])]
    if _by_table(mine_written) != _by_table(plain_written):
        if mine.error and any(name.startswith(Node.__name__) for name in mine.objects):
            raise _UndefinedError  # as in _by_table; what came before the error need not be what would have come
        return [f"sent {mine_written}, but plain {plain_written}"]
    last = max((place for place, sent in enumerate(mine.sent) if sent[0] == "COMMIT"), default=-1)
    after = [sent for sent in mine.sent[last + 1 :] if _is_select(sent[0])] if last >= 0 else []
    plain_last = max((place for place, sent in enumerate(plain.sent) if sent[0] == "COMMIT"), default=-1)
    more = Counter(after) - Counter(plain.sent[plain_last + 1 :])
    if more:
        return [f"read after COMMIT: {[*more]}"]
    if not has_work and not mine_written:
        more = Counter(map(_asked, mine.sent)) - Counter(map(_asked, plain.sent))
        if more:
            return [f"read where nothing was written: {[*more]}"]
    return []


def _of_object(name: str, plain: Seen, mine: Seen, *, is_past: bool) -> list[str]:
    if (mine.state, mine.is_modified) != (plain.state, plain.is_modified):
        return [f"{name} is {mine.state}, modified: {mine.is_modified}, but plain {plain.state}, {plain.is_modified}"]
    missing = plain.loaded.keys() - mine.loaded.keys() - {"address"}  # a composite is made when it is read
    wrong = {
        key: (value, mine.loaded[key])
        for key, value in plain.loaded.items()
        if key in mine.loaded and mine.loaded[key] != value
    }
    if not missing and "deleted" in mine.state:
        return []  # it shows its last row: CONTRACT.md, E11
    if wrong and is_past and all(mine.committed.get(key) == shown for key, (_, shown) in wrong.items()):
        # "The callback reads the row as it was committed", and it stays in the object.
        raise _DocumentedError
    if missing or wrong:
        return [f"{name} lacks {sorted(missing)}, and shows otherwise (plain, mine): {wrong}"]
    return []
