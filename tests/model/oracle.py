"""The database of the programs, watched over a second connection: what every COMMIT has really done."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Select, bindparam, create_engine, event, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, PoolProxiedConnection, QueuePool

from tests.databases import Database

from .reference import Commit, Entry, Row, Rows
from .tables import (
    MODELS,
    TABLES,
    TRACKED,
    Account,
    Base,
    Line,
    Node,
    Note,
    Order,
    Reminder,
    Tag,
    base_table,
    markers,
    trail,
)

SEED: dict[type[Base], list[dict[str, object]]] = {
    Account: [
        {"id": 1, "name": "name-1", "balance": 1, "details": {"v": 1}, "version": 1},
        {"id": 2, "name": "name-2", "balance": 2, "details": None, "version": 1},
    ],
    Order: [
        {"id": 1, "account_id": 1, "qty": 1, "status": "a", "comment": "a"},
        {"id": 2, "account_id": 1, "qty": 2, "status": None, "comment": None},
    ],
    Line: [{"id": 1, "order_id": 1, "label": "a"}, {"id": 2, "order_id": None, "label": "b"}],
    Node: [{"id": 1, "parent_id": None, "name": "a"}, {"id": 2, "parent_id": 1, "name": "b"}],
    Note: [
        {"id": 1, "kind": "note", "body": "a", "weight": 1},
        {"id": 2, "kind": "reminder", "body": "a", "weight": 1},
    ],
    Reminder: [{"id": 2, "due": 1}],
    Tag: [{"code": "t1", "title": "a"}, {"code": "t2", "title": "b"}],
}
"""Rows that a program may begin with."""


def rows_of(model: type[DeclarativeBase]) -> Select[Any]:
    """Select the rows of a class, by the names of its attributes; not those of its subclasses."""
    mapper = model.__mapper__
    columns = [prop.columns[0].label(prop.key) for prop in mapper.column_attrs]
    statement = select(*columns).select_from(mapper.persist_selectable)
    if mapper.polymorphic_on is not None:
        statement = statement.where(mapper.polymorphic_on == mapper.polymorphic_identity)
    return statement


_STATEMENTS: dict[type[Base], Select[Any]] = {model: rows_of(model) for model in MODELS}


class Oracle:
    """An engine under test and, beside it, a connection of its own that reads what was committed.

    Attributes:
        rows: The rows after the last COMMIT.
        commits: The COMMITs that nobody has taken yet.
        statements: How many statements went through the engine under test.
        statements_at_commit: How many there were at the last COMMIT.
    """

    def __init__(self, database: Database, *, asynchronous: bool) -> None:
        """Create the tables, and watch a new engine."""
        self.database = database
        self.rows: Rows = {}
        self.commits: list[Commit] = []
        self.statements = self.statements_at_commit = 0
        self._engine = create_engine(database.sync_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        self._connection = self._engine.connect()
        self._seen_tokens: set[int] = set()
        self._seen_trail = 0
        self.engine: Engine | AsyncEngine
        if asynchronous:
            self.engine = database.create_async_engine(
                poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0, pool_timeout=2
            )
        else:
            self.engine = database.create_engine(poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=2)
        self._watch(self.sync_engine)

    @property
    def sync_engine(self) -> Engine:
        return self.engine.sync_engine if isinstance(self.engine, AsyncEngine) else self.engine

    @contextmanager
    def tables(self) -> Generator[None]:
        """Create the tables, and drop them in the end."""
        Base.metadata.create_all(self._connection)
        if self.database.name == "postgresql":  # nothing here has to survive a power failure
            self._connection.execute(text(f"ALTER DATABASE {self.database.url.database} SET synchronous_commit = off"))
            self._connection.execute(text("SET synchronous_commit = off"))
        try:
            yield
        finally:
            Base.metadata.drop_all(self._connection)

    def close(self) -> None:
        """Let go of the connection that watches."""
        self._connection.close()
        self._engine.dispose()

    def _watch(self, engine: Engine) -> None:
        dialect = engine.dialect
        send_commit = dialect.do_commit

        def do_commit(dbapi_connection: PoolProxiedConnection) -> None:
            send_commit(dbapi_connection)
            self._note_commit()

        # The one place that is reached after the driver's COMMIT has succeeded, and only then.
        dialect.do_commit = do_commit  # type: ignore[method-assign]

        @event.listens_for(engine, "before_cursor_execute")
        def _count(_connection: Connection, _cursor: object, _statement: str, *_rest: object) -> None:
            self.statements += 1

    def begin(self, *, seeded: bool) -> None:
        """Empty the tables for the next program, and sow what it begins with."""
        connection = self._connection
        connection.execute(text("BEGIN"))
        try:
            self._sow(seeded=seeded)
            connection.execute(text("COMMIT"))
        except BaseException:  # what went wrong before shows here: the next program must not find it, too
            connection.execute(text("ROLLBACK"))
            raise
        if self.database.name == "mariadb":
            connection.execute(text("ALTER TABLE notes AUTO_INCREMENT = 1"))
        self._seen_tokens = set()
        self._seen_trail = 0
        self._read_trail()
        self.rows = self.read_rows()
        self.commits = []
        self.statements = self.statements_at_commit = 0

    def _sow(self, *, seeded: bool) -> None:
        connection = self._connection
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(_DELETES[table])
        if self.database.name == "postgresql":
            connection.execute(text("ALTER SEQUENCE notes_id_seq RESTART"))
        if seeded:
            for model, rows in SEED.items():
                table = TABLES[model]
                columns = TRACKED[table]
                connection.execute(
                    table.insert(), [{columns[key].name: value for key, value in row.items()} for row in rows]
                )

    def read_rows(self) -> Rows:
        """Read every row of every model."""
        rows: Rows = {}
        for model, statement in _STATEMENTS.items():
            base = base_table(model)
            for found in self._connection.execute(statement).mappings():
                values = dict(found)
                key = (base, str(values["code" if model is Tag else "id"]))
                rows[key] = Row(model.__name__, values)
        return rows

    def _read_trail(self) -> tuple[Entry, ...]:
        entries: list[Entry] = []
        for seq, *values in self._connection.execute(_TRAIL, {"seen": self._seen_trail}):
            self._seen_trail = seq
            entries.append(Entry(*values))
        return tuple(entries)

    def _note_commit(self) -> None:
        before, self.rows = self.rows, self.read_rows()
        tokens = tuple(token for (token,) in self._connection.execute(_TOKENS) if token not in self._seen_tokens)
        self._seen_tokens.update(tokens)
        self.commits.append(Commit(before, self.rows, self._read_trail(), tokens))
        self.statements_at_commit = self.statements

    def take_commits(self) -> list[Commit]:
        """Give the COMMITs since the last time."""
        taken, self.commits = self.commits, []
        return taken


_TRAIL = select(trail).where(trail.c.seq > bindparam("seen")).order_by(trail.c.seq)
_TOKENS = select(markers.c.token).order_by(markers.c.token)
_DELETES = {table: table.delete() for table in Base.metadata.tables.values()}
