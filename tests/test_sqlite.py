"""What ``fastapi_toolsets.db`` makes of SQLite, and of no other database."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from fastapi_toolsets.db import enable_sqlite_foreign_keys, enable_sqlite_savepoints

from .databases import TYPES, Database


class Base(DeclarativeBase):
    type_annotation_map = TYPES


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_sqlite_functions_change_what_sqlite_does(database: Database) -> None:
    """Without the first, releasing a savepoint commits it, whatever becomes of the transaction around it."""

    def outcome(*enable: Callable[[Engine], None]) -> tuple[list[int], int]:
        engine = create_engine(database.sync_url)
        for function in enable:
            function(engine)
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

    assert outcome(enable_sqlite_savepoints, enable_sqlite_foreign_keys) == ([], 1)
    assert outcome(enable_sqlite_savepoints) == ([], 0)
    assert outcome() == ([1], 0)


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_sqlite_functions_leave_other_databases_alone(database: Database) -> None:
    engine = database.create_engine()
    enable_sqlite_savepoints(engine)
    enable_sqlite_foreign_keys(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()
