"""The commits that are measured: so many rows created, updated or deleted by one session."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, insert, select

from .observers import MemoryPeak, StatementCount, Stopwatch
from .tables import TABLES, Base, Row, values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.orm import Session

    from .observers import Observer
    from .stages import Stage

_INSERT_AT_ONCE = 10_000
COLLECT_FROM = 100
"""From how many rows on the garbage collector runs before every commit; below that once per round."""


class Commits:
    """One kind of commit on one stage, repeatable."""

    def __init__(self, stage: Stage, operation: str, rows: int, table: str) -> None:
        """Make the table, with the rows in it that will be updated or deleted."""
        self._stage = stage
        self._model: type[Row] = TABLES[table]
        self._rows = rows
        self._operation = operation
        self._values = [values(self._model, number) for number in range(rows)]
        self._stamps = itertools.count(1)
        stage.write(Base.metadata.drop_all)
        stage.write(lambda connection: Base.metadata.create_all(connection, tables=[_table_of(self._model)]))
        if operation == "update":
            stage.write(self._fill)

    def round(self, variants: Sequence[str], *, expire: bool, repeats: int) -> dict[str, dict[str, Any]]:
        """Time commits of each variant in turn, ``repeats`` times over.

        Returns:
            By variant the nanoseconds of each commit, on the wall and of the processor, and the collector's passes.
        """
        watches = {variant: Stopwatch() for variant in variants}
        gc.collect()
        for turn in range(repeats):
            order = variants if turn % 2 == 0 else variants[::-1]
            for variant in order:
                self.commit(variant, expire=expire, observer=watches[variant])
        return {
            variant: {"wall": watch.wall, "processor": watch.processor, "passes": watch.passes}
            for variant, watch in watches.items()
        }

    def memory(self, variant: str, *, expire: bool) -> dict[str, int]:
        """Return the bytes held at the beginning of a commit, and at its peak, objects included."""
        peak = MemoryPeak()
        gc.collect()
        tracemalloc.start()
        try:
            self.commit(variant, expire=expire, observer=peak)
        finally:
            tracemalloc.stop()
        return {"held": peak.held, "peak": peak.peak}

    def statements(self, variant: str, *, expire: bool) -> dict[str, int]:
        """Return how many statements a commit emits, and how many of them after COMMIT.

        The engine is slower afterwards: SQLAlchemy never forgets that it once had listeners.
        """
        count = StatementCount(self._stage.engine)
        self.commit(variant, expire=expire, observer=count)
        return {"statements": count.statements, "after_commit": count.after_commit}

    def commit(self, variant: str, *, expire: bool, observer: Observer) -> None:
        """Commit once, and let ``observer`` watch that."""
        if self._operation != "update":
            self._stage.write(self._empty if self._operation == "create" else self._fill)
        self._stage.commit(variant, expire=expire, prepare=self._preparation(), observer=observer)

    def _preparation(self) -> Callable[[Session], object]:
        change = {"create": self._create, "update": self._update, "delete": self._delete}[self._operation]

        def prepare(session: Session) -> object:
            objects = change(session)
            if self._rows >= COLLECT_FROM:
                gc.collect()
            return objects

        return prepare

    def _create(self, session: Session) -> list[Row]:
        objects = [self._model(**row) for row in self._values]
        session.add_all(objects)
        return objects

    def _update(self, session: Session) -> list[Row]:
        """Change two columns of each row; a quantity that was never there before, so that every commit writes."""
        stamp = next(self._stamps)
        objects = self._load(session)
        for row in objects:
            row.status = f"changed {stamp}"
            row.quantity = stamp
        return objects

    def _delete(self, session: Session) -> list[Row]:
        objects = self._load(session)
        for row in objects:
            session.delete(row)
        return objects

    def _load(self, session: Session) -> list[Row]:
        return list(session.scalars(select(self._model)))

    def _empty(self, connection: Connection) -> None:
        connection.execute(delete(_table_of(self._model)))

    def _fill(self, connection: Connection) -> None:
        self._empty(connection)
        for start in range(0, self._rows, _INSERT_AT_ONCE):
            connection.execute(insert(_table_of(self._model)), self._values[start : start + _INSERT_AT_ONCE])


def _table_of(model: type[Row]) -> Any:  # noqa: ANN401 - typed as FromClause, is a Table
    return model.__table__
