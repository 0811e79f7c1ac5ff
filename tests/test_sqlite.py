"""What ``fastapi_toolsets.db`` makes of SQLite, and of no other database."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fastapi_toolsets.db import enable_sqlite_foreign_keys, enable_sqlite_savepoints
from fastapi_toolsets.errors import SessionClassError

from .databases import TYPES, Database


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]


def rolled_back_and_checked(engine: Engine) -> tuple[list[int], int]:
    """Return the rows that a rollback has left which a released savepoint had made, and whether keys are checked."""
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        savepoint = session.begin_nested()
        session.execute(text("INSERT INTO orders (id, status) VALUES (1, 'dropped')"))
        savepoint.commit()
        session.rollback()
    with engine.connect() as connection:
        found = list(connection.scalars(select(Order.id))), connection.scalar(text("PRAGMA foreign_keys"))
    engine.dispose()
    return found


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_sqlite_functions_change_what_sqlite_does(database: Database) -> None:
    """Without the first, releasing a savepoint commits it, whatever becomes of the transaction around it."""

    def outcome(*enable: Callable[[Engine], None]) -> tuple[list[int], int]:
        engine = create_engine(database.sync_url)
        for function in enable:
            function(engine)
        return rolled_back_and_checked(engine)

    assert outcome(enable_sqlite_savepoints, enable_sqlite_foreign_keys) == ([], 1)
    assert outcome(enable_sqlite_savepoints) == ([], 0)
    both = (enable_sqlite_savepoints, enable_sqlite_foreign_keys)
    assert outcome(*both, *both) == ([], 1)
    assert outcome() == ([1], 0)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_autocommit_begins_nothing(database: Database) -> None:
    """VACUUM refuses to run in a transaction; the same connection rolls back again when it is used without."""
    engine = create_engine(database.sync_url, pool_size=1)
    enable_sqlite_savepoints(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM")
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("VACUUM")
    assert rolled_back_and_checked(engine) == ([], 0)
    for_maintenance = create_engine(database.sync_url, isolation_level="AUTOCOMMIT")
    enable_sqlite_savepoints(for_maintenance)
    with for_maintenance.connect() as connection:
        connection.exec_driver_sql("VACUUM")
    for_maintenance.dispose()


# The driver knows of modes from Python 3.12 on. SQLAlchemy recommends the second, in which the driver begins by itself:
# BEGIN is an error then, and a pragma inside the transaction does nothing.
MODES: list[dict[str, bool]] = [{}, {"autocommit": False}] if sys.version_info >= (3, 12) else [{}]


@pytest.mark.anyio
@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_driver_that_begins_by_itself_is_left_so(database: Database, mode: dict[str, bool]) -> None:
    engine = create_engine(database.sync_url, connect_args=mode)
    async_engine = create_async_engine(database.async_url, connect_args=mode)
    for function in (enable_sqlite_savepoints, enable_sqlite_foreign_keys):
        function(engine)
        function(async_engine)
    assert rolled_back_and_checked(engine) == ([], 1)
    async with async_engine.connect() as connection:
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1
        savepoint = await connection.begin_nested()
        await connection.execute(text("INSERT INTO orders (id, status) VALUES (1, 'dropped')"))
        await savepoint.commit()
        await connection.rollback()
        assert list(await connection.scalars(select(Order.id))) == []
    await async_engine.dispose()


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_sqlite_functions_leave_other_databases_alone(database: Database) -> None:
    engine = database.create_engine()
    enable_sqlite_savepoints(engine)
    enable_sqlite_foreign_keys(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


@pytest.mark.parametrize("function", [enable_sqlite_savepoints, enable_sqlite_foreign_keys])
@pytest.mark.parametrize(("given", "name"), [("sqlite://", "an object of type str"), (Engine, "the class Engine")])
def test_what_is_no_engine_is_refused(function: Callable[[Any], object], given: object, name: str) -> None:
    message = rf"^{function.__name__}\(\) was given {name}, which is no engine: give it what create_engine\(\) or "
    with pytest.raises(SessionClassError, match=message):
        function(given)
