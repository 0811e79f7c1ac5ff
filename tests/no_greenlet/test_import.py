"""The sync half imports where greenlet does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

# An interpreter of its own, from which greenlet is hidden, so that the tests mean the same where it is installed.
HIDE_GREENLET = """
import sys
sys.modules["greenlet"] = None
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter that cannot import greenlet and takes warnings for errors."""
    command = [sys.executable, "-W", "error", "-c", HIDE_GREENLET + program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_greenlet_is_hidden() -> None:
    """Guards the tests below: were greenlet there, they would prove nothing."""
    assert "ModuleNotFoundError" in run("import greenlet").stderr


@pytest.mark.parametrize("name", ["ModelEvent", "SyncEventSession", "UUIDMixin", "listens_for"])
def test_public_name_of_the_sync_half_imports(name: str) -> None:
    """N8: a sync-only installation can import from ``fastapi_toolsets.models``."""
    finished = run(f"from fastapi_toolsets.models import {name}; print({name}.__name__)")
    assert (finished.stdout, finished.stderr) == (f"{name}\n", "")


@pytest.mark.parametrize("definition", ["def", "async def"])
def test_sync_session_calls_back(definition: str) -> None:
    """N8, C2: a sync-only installation can use ``SyncEventSession``, with sync and async callbacks."""
    finished = run(f"""
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from fastapi_toolsets.models import ModelEvent, SyncEventSession, listens_for

class Base(DeclarativeBase):
    pass

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)

@listens_for(Order, ModelEvent.CREATE)
{definition} on_order_created(order, event_type, changes):
    print(order.id, event_type.value, changes)

engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
with sessionmaker(engine, class_=SyncEventSession)() as session:
    session.add(Order(id=1))
    session.commit()
engine.dispose()
""")
    assert (finished.stdout, finished.stderr) == ("1 create None\n", "")


def test_sync_helpers_for_tests_record_events() -> None:
    """N8: a recorder and a session that is rolled back, in a sync-only installation."""
    finished = run("""
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from fastapi_toolsets.models import capture_events
from fastapi_toolsets.pytest import create_worker_database, created, rolled_back_sync_session

class Base(DeclarativeBase):
    pass

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)

with capture_events() as events, rolled_back_sync_session("sqlite://", Base) as session:
    session.add(Order(id=1))
    session.commit()
print(events == [created(Order, 1)], events)
""")
    assert (finished.stdout, finished.stderr) == ("True EventRecorder([created(Order, 1)])\n", "")
