"""What one session does over its life: many clean objects, savepoints, transactions. Sync front-end, processor time."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update

from .library import EVENTS, PLAIN
from .observers import Stopwatch
from .stages import SyncStage
from .tables import TABLES, Base, values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Delete, Update
    from sqlalchemy.orm import Session

    from .tables import Row

MODEL = TABLES["10"]
_OPTIONS: dict[str, dict[str, object]] = {
    "plain": {"synchronize_session": False},
    "passed by": {"synchronize_session": False},
    "told": {"synchronize_session": False, "events": True},
}
_UNCOUNTED = 1
"""The first time compiles statements and resolves listeners."""


class LongSessions:
    """Sessions on rows of ten columns in memory."""

    def __init__(self, classes: dict[str, type[Session]], rows: int) -> None:
        """Make the table with so many rows."""
        self._stage = SyncStage(classes, savepoints=True)
        self._stamp = 0
        self._stage.write(Base.metadata.create_all)
        self._written = [values(MODEL, number) for number in range(rows)]
        self._fill()

    def close(self) -> None:
        """Close the connection."""
        self._stage.close()

    def clean_objects(self, variants: Sequence[str], *, expire: bool, repeats: int) -> dict[str, list[int]]:
        """Commit the change of one row in a session that has loaded all others; nanoseconds of each commit."""
        taken: dict[str, list[int]] = {}
        for variant in variants:
            watch = Stopwatch()
            with self._stage.session(variant, expire=expire) as session:
                for _ in range(_UNCOUNTED + repeats):
                    objects = list(session.scalars(select(MODEL)))
                    self._change(objects[0])
                    gc.collect()
                    with watch:
                        session.commit()
            taken[variant] = watch.processor[_UNCOUNTED:]
        return taken

    def savepoints(self, variants: Sequence[str], *, count: int, repeats: int) -> dict[str, list[int]]:
        """Change one row in each of ``count`` savepoints, then commit; nanoseconds of all of it together."""
        taken: dict[str, list[int]] = {}
        for variant in variants:
            watch = Stopwatch()
            gc.collect()
            for _ in range(_UNCOUNTED + repeats):
                with self._stage.session(variant, expire=False) as session:
                    objects = list(session.scalars(select(MODEL).limit(count)))
                    with watch:
                        for row in objects:
                            with session.begin_nested():
                                self._change(row)
                        session.commit()
            taken[variant] = watch.processor[_UNCOUNTED:]
        return taken

    def transactions(
        self, variants: Sequence[str], *, count: int, blocks: int, turns: int
    ) -> dict[str, dict[str, list[list[int]]]]:
        """Commit ``count`` times in one session of each variant, in blocks, and in so many turns in each block.

        Returns:
            By variant and block, for each turn, the nanoseconds of its commits, and how many objects the garbage
            collector knows of after it more than before.
        """
        sessions = {variant: self._stage.session(variant, expire=False) for variant in variants}
        rows: dict[str, Row] = {}
        taken: dict[str, dict[str, list[list[int]]]] = {
            variant: {"processor": [[] for _ in range(blocks)], "objects": [[] for _ in range(blocks)]}
            for variant in variants
        }
        for variant, session in sessions.items():
            rows[variant] = session.scalars(select(MODEL).limit(1)).one()
            for _ in range(_UNCOUNTED):
                self._change(rows[variant])
                session.commit()  # all sessions share the one connection that memory has
        for turn in range(blocks * turns):
            block = turn // turns
            for variant in variants if turn % 2 else reversed(variants):
                before = _tracked_objects()
                watch = Stopwatch()
                with watch:
                    for _ in range(count // blocks // turns):
                        self._change(rows[variant])
                        sessions[variant].commit()
                taken[variant]["processor"][block] += watch.processor
                taken[variant]["objects"][block].append(_tracked_objects() - before)
        for session in sessions.values():
            session.close()
        return taken

    def bulk(self, ways: Sequence[str], *, operation: str, repeats: int) -> dict[str, list[int]]:
        """Write every row and commit; nanoseconds of each time.

        Args:
            ways: ``"plain"``: one statement on a plain session; ``"passed by"`` and ``"told"``: the same on an event
                session that makes no events of it, and all; ``"objects"``: rows that an event session loads and writes.
            operation: ``"update"`` or ``"delete"``.
            repeats: How often.
        """
        taken: dict[str, list[int]] = {}
        for way in ways:
            watch = Stopwatch()
            for _ in range(_UNCOUNTED + repeats):
                gc.collect()
                session = self._stage.session(PLAIN if way == "plain" else EVENTS, expire=False)
                with session, watch:
                    if way == "objects":
                        self._write_objects(session, operation)
                    else:
                        session.execute(self._statement(operation), execution_options=_OPTIONS[way])
                    session.commit()
                if operation == "delete":
                    self._fill()
            taken[way] = watch.processor[_UNCOUNTED:]
        return taken

    def _fill(self) -> None:
        self._stage.write(lambda connection: connection.execute(insert(MODEL), self._written))

    def _statement(self, operation: str) -> Update | Delete:
        return delete(MODEL) if operation == "delete" else update(MODEL).values(quantity=MODEL.quantity + 1)

    def _write_objects(self, session: Session, operation: str) -> None:
        for row in session.scalars(select(MODEL)).all():
            if operation == "delete":
                session.delete(row)
            else:
                row.quantity += 1

    def _change(self, row: Row) -> None:
        self._stamp += 1
        row.quantity = self._stamp


def _tracked_objects() -> int:
    gc.collect()
    return len(gc.get_objects())
