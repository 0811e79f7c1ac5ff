"""Tables on a server that stand from one test to the next: to make them takes longer than most tests."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, MetaData, Table, text

_SCHEMAS = {
    "postgresql": """SELECT (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_attribute),
        (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_constraint)""",
    "mysql": """SELECT
        (SELECT count(*) FROM information_schema.columns WHERE table_schema = DATABASE()),
        (SELECT count(*) FROM information_schema.statistics WHERE table_schema = DATABASE()),
        (SELECT count(*) FROM information_schema.triggers WHERE trigger_schema = DATABASE())""",
}
"""What of a schema a test may have changed, by the dialect's name."""


class StandingTables:
    """Gives each test of a module the same tables, empty and with keys from one on; or others, if it asks for such.

    A test that leaves a transaction open on one of them fails at its end.
    """

    def __init__(self, engine: Engine) -> None:
        """Work on the engine's database, which has no tables yet."""
        self._engine = engine
        self._name = "mysql" if engine.dialect.name == "mariadb" else engine.dialect.name
        self._metadata: MetaData | None = None
        self._tables: Sequence[Table] = ()
        self._schema: tuple[object, ...] = ()

    @contextmanager
    def emptied(self, metadata: MetaData) -> Generator[None]:
        """Have these tables, and no others, until the block ends; then empty them."""
        if metadata is not self._metadata or set(self._tables) != set(metadata.tables.values()):
            self.drop()
            self._create(metadata)
        try:
            yield
        finally:
            self._empty()

    def drop(self) -> None:
        """Drop the tables that stand."""
        metadata, self._metadata = self._metadata, None
        if metadata is not None:
            with self._engine.begin() as connection:
                bound_lock_waits(connection)
                metadata.drop_all(connection, tables=self._tables)

    def close(self) -> None:
        """Give the connections back; the database goes, and the tables with it."""
        self._engine.dispose()

    def _create(self, metadata: MetaData) -> None:
        self._metadata, self._tables = metadata, list(metadata.tables.values())  # first: half of them may be made
        with self._engine.begin() as connection:
            metadata.create_all(connection)
        with self._engine.begin() as connection:
            self._schema = self._look_at_schema(connection)

    def _empty(self) -> None:
        with self._engine.begin() as connection:
            bound_lock_waits(connection)
            changed = self._look_at_schema(connection) != self._schema
            if not changed and self._tables:
                quoted = connection.dialect.identifier_preparer.quote_identifier  # also where a name needs none
                _EMPTY[self._name](connection, [quoted(table.name) for table in self._tables])
        if changed:  # by the test itself: a trigger, a column
            self.drop()

    def _look_at_schema(self, connection: Connection) -> tuple[object, ...]:
        return tuple(connection.execute(text(_SCHEMAS[self._name])).one())


def bound_lock_waits(connection: Connection) -> None:
    """Fail, instead of hang, where a test left a transaction open on a table."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET lock_timeout = '10s'"))
    elif connection.dialect.name in {"mysql", "mariadb"}:
        connection.execute(text("SET SESSION lock_wait_timeout = 10"))


def _empty_on_postgresql(connection: Connection, names: Sequence[str]) -> None:
    """Delete all rows: to truncate takes as long as to create."""
    connection.exec_driver_sql(f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE")
    # In one statement, at whose end foreign keys are looked at: in any order, and without a superuser's rights.
    deletes = ", ".join(f"deleted_{number} AS (DELETE FROM {name})" for number, name in enumerate(names))
    connection.exec_driver_sql(f"WITH {deletes} SELECT 1")
    connection.exec_driver_sql(
        """SELECT setval((quote_ident(schemaname) || '.' || quote_ident(sequencename))::regclass, start_value, false)
        FROM pg_sequences WHERE last_value IS NOT NULL"""
    )


def _empty_on_mariadb(connection: Connection, names: Sequence[str]) -> None:
    """Truncate those that were written, which takes a millisecond for each, and is no part of a transaction there."""
    connection.exec_driver_sql(f"LOCK TABLES {', '.join(f'{name} WRITE' for name in names)}")
    connection.exec_driver_sql("UNLOCK TABLES")
    with_rows = [f"SELECT '{name}' FROM DUAL WHERE EXISTS (SELECT 1 FROM {name})" for name in names]
    with_keys = """SELECT concat('`', table_name, '`') FROM information_schema.tables
        WHERE table_schema = DATABASE() AND auto_increment > 1"""
    written = connection.exec_driver_sql(" UNION ".join([*with_rows, with_keys])).scalars()
    connection.exec_driver_sql("SET SESSION foreign_key_checks = 0")
    for name in written.all():
        connection.exec_driver_sql(f"TRUNCATE {name}")
    connection.exec_driver_sql("SET SESSION foreign_key_checks = 1")


_EMPTY = {"postgresql": _empty_on_postgresql, "mysql": _empty_on_mariadb}
