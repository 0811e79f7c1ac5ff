"""Rule T4's other half: transactions with an error in them that commit all the same, and those beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psycopg.errors import DivisionByZero
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from fastapi_toolsets.events import outcome
from fastapi_toolsets.models import SyncEventSession

from ..contract.event_models import LOCAL, created
from ..contract.transaction_models import ORDERS, Base, Order
from ..databases import Database, tables
from ..front_ends import EventRecorder, FrontEnd, scenario


def swallow_error(session: Session) -> None:
    with pytest.raises(DBAPIError):
        session.execute(text("SELECT no_such_column FROM orders"))


@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_swallowed_errors_where_every_statement_commits(database: Database, recorder: EventRecorder) -> None:
    """T4: in autocommit there is no transaction that an error could have ended: what was written is told."""
    engine = create_engine(database.sync_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    recorder.listen(Order)
    with tables(database, Base.metadata), sessionmaker(engine, class_=SyncEventSession)() as session:
        swallow_error(session)
        session.add(Order(id=1))
        session.commit()
        assert recorder.take() == [created(Order, 1)]
    engine.dispose()


@pytest.mark.parametrize("database", LOCAL, indirect=True)
def test_swallowed_errors_of_another_session(database: Database, recorder: EventRecorder) -> None:
    """T4, C7: are none of this one's, although the driver has begun no transaction for it."""
    engine = create_engine(database.sync_url, poolclass=NullPool)  # as the driver is by default: BEGIN before a write
    factory = sessionmaker(engine, class_=SyncEventSession)
    called: list[str] = []
    with tables(database, Base.metadata), factory() as other, factory() as session:
        swallow_error(other)
        session.on_commit(called.append, "called")
        session.execute(text("SELECT 1"))
        session.commit()
        assert called == ["called"]
    engine.dispose()


@scenario(Base.metadata, databases=["postgresql"], front_ends=["sync"])
async def test_swallowed_errors_that_the_driver_knows_of(front: FrontEnd, recorder: EventRecorder) -> None:
    """T4, T7: psycopg tells the state of the transaction by itself; nobody asks the server."""
    recorder.listen(Order)
    async with front.begin_nested() as savepoint:
        swallow_error(front.sync_session)
        await savepoint.rollback()
    await front.add(Order(id=1))
    await front.flush()
    with front.statements() as sent:
        await front.commit()
    assert sent == []
    assert recorder.take() == [created(Order, 1)]


@pytest.mark.filterwarnings("ignore:an error inside this transaction")
@scenario(Base.metadata, databases=["postgresql"], front_ends=["sync"])
async def test_swallowed_errors_that_nobody_but_the_driver_knows_of(
    front: FrontEnd, recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T4: a statement fails past SQLAlchemy, in a process where none has failed before; its COMMIT commits nothing."""
    monkeypatch.setattr(outcome, "a_statement_failed", False)
    recorder.listen(Order)
    await front.add(Order(id=1))
    await front.flush()
    driver: Any = front.sync_session.connection().connection.driver_connection
    with pytest.raises(DivisionByZero):
        driver.execute("SELECT 1/0")
    await front.commit()
    assert recorder.take() == []
    assert await front.committed_rows(ORDERS) == []


def test_a_database_that_cannot_be_reached(tmp_path: Path, recorder: EventRecorder) -> None:
    """T4: what the driver says of it comes through, although there is no connection on which to note it."""
    recorder.listen(Order)
    engine = create_engine(f"sqlite:///{tmp_path / 'nowhere' / 'database.sqlite'}")
    with sessionmaker(engine, class_=SyncEventSession)() as session:
        session.add(Order(id=1))
        with pytest.raises(OperationalError, match="unable to open database file"):
            session.commit()
    assert recorder.take() == []
    engine.dispose()
