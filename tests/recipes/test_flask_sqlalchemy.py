"""Flask-SQLAlchemy: real requests to a real application, its scoped session, and its binds."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, abort, request
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session
from sqlalchemy import String, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_toolsets.db import enable_sqlite_savepoints
from fastapi_toolsets.models import Changes, ModelEvent, SyncEventSession, listens_for

from ..contract.event_models import created, deleted, updated
from ..databases import Database
from ..front_ends import EventRecorder


class Base(DeclarativeBase):
    """What Flask-SQLAlchemy makes its own base of."""


class Keyed:
    """A mixin with the key, and for type checkers the constructor that SQLAlchemy gives to each model."""

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)

    if TYPE_CHECKING:

        def __init__(self, **values: object) -> None: ...


class ShopSession(SyncEventSession, Session):
    """Flask-SQLAlchemy's session, which chooses the database, with events."""


db: SQLAlchemy = SQLAlchemy(model_class=Base, session_options={"class_": ShopSession})


class Order(Keyed, db.Model):  # type: ignore[name-defined, misc]
    __tablename__ = "orders"
    status: Mapped[str] = mapped_column(String(20), default="new")


class AuditEntry(Keyed, db.Model):  # type: ignore[name-defined, misc]
    __tablename__ = "audit_entries"
    __bind_key__ = "audit"
    text: Mapped[str] = mapped_column(String(20))


request_name: contextvars.ContextVar[str] = contextvars.ContextVar("request_name", default="none")


def shop_of(database: Database, folder: Path) -> Flask:
    """Make the application: orders in the database under test, audit entries in a file of their own."""
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = database.sync_url
    app.config["SQLALCHEMY_BINDS"] = {"audit": f"sqlite:///{folder / 'audit.sqlite'}"}
    db.init_app(app)

    @app.put("/orders/<int:key>")
    def put_order(key: int) -> dict[str, str]:
        request_name.set(f"put {key}")
        order = db.session.get(Order, key)
        if order is None:
            db.session.add(order := Order(id=key))
        order.status = request.args["status"]
        db.session.flush()
        if order.status == "unheard of":
            abort(422)
        db.session.commit()
        return {"status": order.status}

    @app.delete("/orders/<int:key>")
    def delete_order(key: int) -> str:
        db.session.delete(db.get_or_404(Order, key))
        db.session.commit()
        return ""

    return app


@pytest.fixture
def app(database: Database, tmp_path: Path) -> Generator[Flask]:
    app = shop_of(database, tmp_path)
    with app.app_context():
        for engine in db.engines.values():
            enable_sqlite_savepoints(engine)
        db.create_all()
    try:
        yield app
    finally:
        with app.app_context():
            db.drop_all()
            for engine in db.engines.values():
                engine.dispose()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_requests_deliver_what_they_committed(app: Flask, recorder: EventRecorder, *, asynchronous: bool) -> None:
    """T1, T2, C2: before the response; a request that is refused after its flush tells nothing, nor does the next."""
    recorder.listen(Order, asynchronous=asynchronous)
    client = app.test_client()
    assert client.put("/orders/1?status=paid").json == {"status": "paid"}
    assert recorder.take() == [created(Order, 1)]
    assert client.put("/orders/2?status=unheard of").status_code == 422
    assert client.put("/orders/1?status=unheard of").status_code == 422
    assert recorder.take() == []
    assert client.put("/orders/1?status=sent").status_code == 200
    assert recorder.take() == [updated(Order, 1, status=("paid", "sent"))]
    assert client.delete("/orders/1").status_code == 200
    assert recorder.take() == [deleted(Order, 1)]


def test_each_model_is_read_from_its_own_database(app: Flask, recorder: EventRecorder) -> None:
    """T1, E3, E6: one commit over two databases; what has to be read for callbacks comes from where the row is."""
    recorder.listen(db.Model)
    with app.app_context():
        order, entry = Order(id=1), AuditEntry(id=2, text="a")
        db.session.add_all([order, entry])
        db.session.commit()
        assert sorted(recorder.take()) == [created(AuditEntry, 2), created(Order, 1)]
        order.status, entry.text = "paid", "b"  # expired by the commit: the old values have to be read
        db.session.commit()
        assert sorted(recorder.take()) == [
            updated(AuditEntry, 2, text=("a", "b")),
            updated(Order, 1, status=("new", "paid")),
        ]
        db.session.delete(order)
        savepoint = db.session.begin_nested()
        db.session.delete(entry)
        savepoint.rollback()
        db.session.commit()
        assert recorder.take() == [deleted(Order, 1)]


def test_callbacks_use_the_session_of_the_request(app: Flask, recorder: EventRecorder) -> None:
    """N1, C1, C2, C6: ``db.session`` is the one that committed, in sync and async callbacks; its commits tell more."""
    seen: list[tuple[bool, bool, str, bool]] = []

    def look(session: Session) -> None:
        here = threading.get_ident() == caller
        seen.append((db.session() is session, session.in_transaction(), request_name.get(), here))

    @listens_for(Order, ModelEvent.CREATE)
    def write_audit(order: Any, event_type: ModelEvent, changes: None, *, session: Session) -> None:  # noqa: ANN401 - Flask's models have no type
        look(session)
        db.session.add(AuditEntry(id=order.id, text="new order"))
        db.session.commit()

    @listens_for(Order, ModelEvent.CREATE)
    async def look_asynchronously(order: object, event_type: ModelEvent, changes: None, *, session: Session) -> None:
        look(session)

    caller = threading.get_ident()
    recorder.listen(AuditEntry)
    assert app.test_client().put("/orders/4?status=new").status_code == 200
    assert seen == [(True, False, "put 4", True)] * 2
    assert recorder.take() == [created(AuditEntry, 4)]
    with app.app_context():
        assert db.session.scalars(select(AuditEntry.text)).all() == ["new order"]


def test_on_commit_and_options(app: Flask) -> None:
    """C4, C7: methods of the library's session are on the session behind ``db.session``."""
    called: list[str] = []

    @listens_for(Order)
    def fail(order: object, event_type: ModelEvent, changes: Changes | None) -> None:
        raise ZeroDivisionError

    with app.app_context():
        session = db.session()
        assert isinstance(session, ShopSession)
        session.on_commit(called.append, "committed")
        db.session.add(Order(id=1))
        db.session.commit()  # the failure is logged, as it is by default
        session.on_commit(called.append, "dropped")
        db.session.remove()
        db.session.commit()
    assert called == ["committed"]


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)  # SQLite has one writer at a time
def test_requests_at_the_same_time(app: Flask, recorder: EventRecorder) -> None:
    """T1, C2: each in a thread and an application context of its own, with async callbacks."""

    def put(key: int) -> int:
        return app.test_client().put(f"/orders/{key}?status=new").status_code

    recorder.listen(Order, asynchronous=True)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(put, range(20))) == [200] * 20
    assert sorted(recorder.take(), key=str) == sorted((created(Order, key) for key in range(20)), key=str)
