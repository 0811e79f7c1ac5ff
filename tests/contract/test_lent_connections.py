"""Rules T2, E11 and B1 for what is sent on ``session.connection()``, of which no session event tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Sequence, create_engine, delete, event, func, insert, inspect, select, text, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from fastapi_toolsets.errors import BulkEventsError, BulkWriteError
from fastapi_toolsets.events.lent_connections import FollowedConnection
from fastapi_toolsets.models import Changes, ModelEvent, Phase, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from ..session_adapter import resolve
from .event_models import Base, Order, created, deleted, table_of, updated
from .test_bulk_notice import bulk_warnings

ORDERS = table_of(Order)
UNHEARD = {"events": False}


async def three_orders(front: FrontEnd, recorder: EventRecorder) -> list[Order]:
    """Commit the orders 1, 2 and 3, and listen to what becomes of them."""
    orders = [Order(id=number, status="new") for number in (1, 2, 3)]
    await front.add_all(orders)
    await front.commit()
    recorder.listen(Order)
    return orders


async def on_connection(front: FrontEnd, function: Callable[[Connection], object]) -> None:
    """Do something with the connection that the session hands out, as sync code does."""

    def take(session: Session) -> None:
        function(session.connection())

    await front.run_sync(take)


def sent(*statements: Any, **options: Any) -> Callable[[Connection], None]:  # noqa: ANN401 - theirs
    """Execute some statements."""

    def send(connection: Connection) -> None:
        for statement in statements:
            if isinstance(statement, str):
                connection.exec_driver_sql(statement)
            else:
                connection.execute(statement, execution_options=options or UNHEARD)

    return send


DELETIONS = [
    delete(Order).where(Order.id.in_([1, 4])),
    ORDERS.delete().where(ORDERS.c.id.in_([1, 4])),
    text(f"DELETE FROM {ORDERS.name} WHERE id IN (1, 4)"),
    f"DELETE FROM {ORDERS.name} WHERE id IN (1, 4)",
]


@pytest.mark.parametrize("statement", DELETIONS, ids=["orm", "core", "text", "driver"])
@scenario(Base.metadata)
async def test_rows_deleted_on_a_connection(front: FrontEnd, recorder: EventRecorder, statement: object) -> None:
    """T2: rows that are not there any more when the transaction commits are not told of."""
    first, *_ = await three_orders(front, recorder)
    first.status = "paid"
    await front.add_all([Order(id=4, status="new"), Order(id=5, status="new")])
    await front.flush()
    await on_connection(front, sent(statement))
    await front.commit()
    assert recorder.take() == [created(Order, 5)]


@scenario(Base.metadata)
async def test_rows_written_on_a_connection(front: FrontEnd, recorder: EventRecorder) -> None:
    """E11: callbacks read the row as it was committed; also on the connection that an async session hands out."""
    shown: list[tuple[object, ...]] = []
    first, second, _ = await three_orders(front, recorder)

    async def read(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((order.id, order.status, order.quantity, order.note))

    listens_for(Order)(read)
    first.status = second.status = "paid"
    await front.flush()
    connection: Any = await front.connection()
    statement = ORDERS.update().where(ORDERS.c.id == 1).values(note="raw", quantity=9)
    await resolve(connection.execute(statement, execution_options=UNHEARD))
    await front.commit()
    assert shown == [(1, "paid", 9, "raw"), (2, "paid", 1, None)]
    assert recorder.take() == [updated(Order, number, status=("new", "paid")) for number in (1, 2)]


def begin_savepoint(connection: Connection) -> Callable[[], object]:
    return connection.begin_nested().rollback


def begin_in_words(connection: Connection) -> Callable[[], object]:
    connection.execute(text("SAVEPOINT by_hand"))
    return lambda: connection.execute(text("ROLLBACK TO SAVEPOINT by_hand"))


def begin_by_driver(connection: Connection) -> Callable[[], object]:
    connection.exec_driver_sql("SAVEPOINT by_hand")
    return lambda: connection.exec_driver_sql("ROLLBACK TO SAVEPOINT by_hand")


@pytest.mark.parametrize("begin", [begin_savepoint, begin_in_words, begin_by_driver])
@scenario(Base.metadata)
async def test_savepoint_of_the_connection_that_is_rolled_back(
    front: FrontEnd, recorder: EventRecorder, begin: Callable[[Connection], Callable[[], object]]
) -> None:
    """T2: what was flushed in it is not told, whichever kind of event; what was flushed before it is."""
    first, second, third = await three_orders(front, recorder)
    fourth = Order(id=4, status="new")
    await front.add_all([fourth, Order(id=5, status="new")])
    await front.commit()
    assert recorder.take() == [created(Order, number) for number in (4, 5)]
    await front.add(Order(id=6, status="new"))
    await front.delete(third)
    fourth.status = "paid"
    await front.flush()

    def flush_in_savepoint(session: Session) -> None:
        roll_back = begin(session.connection())
        first.status = "paid"
        session.add(Order(id=7, status="new"))
        session.delete(second)
        session.delete(fourth)
        session.flush()
        roll_back()

    await front.run_sync(flush_in_savepoint)
    await front.commit()
    assert recorder.take() == [created(Order, 6), updated(Order, 4, status=("new", "paid")), deleted(Order, 3)]
    assert await front.committed_rows(select(ORDERS.c.id, ORDERS.c.status).order_by(ORDERS.c.id)) == [
        (1, "new"),
        (2, "new"),
        (4, "paid"),
        (5, "new"),
        (6, "new"),
    ]


@pytest.mark.parametrize("begin", [begin_savepoint, begin_in_words, begin_by_driver])
@scenario(Base.metadata)
async def test_changed_after_such_a_savepoint_has_deleted_it(
    front: FrontEnd, recorder: EventRecorder, begin: Callable[[Connection], Callable[[], object]]
) -> None:
    """T2, E1: the deletion was rolled back, so it is one update, with what was changed before it, too."""
    first, second, third = await three_orders(front, recorder)
    first.status = second.note = "a"
    await front.flush()

    def delete_in_savepoint(session: Session) -> None:
        roll_back = begin(session.connection())
        for order in (first, second, third):
            session.delete(order)
        session.flush()
        roll_back()
        for order in session.scalars(select(Order).order_by(Order.id)):
            order.status = "new" if order.id == 1 else "b"
        session.flush()

    await front.run_sync(delete_in_savepoint)
    await front.commit()
    assert recorder.take() == [
        updated(Order, 2, note=(None, "a"), status=("new", "b")),
        updated(Order, 3, status=("new", "b")),
    ]
    assert await front.committed_rows(select(ORDERS.c.id, ORDERS.c.status, ORDERS.c.note).order_by(ORDERS.c.id)) == [
        (1, "new", None),
        (2, "b", "a"),
        (3, "b", None),
    ]


@scenario(Base.metadata)
async def test_savepoint_of_the_connection_that_is_released(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: what was flushed in it is told."""
    first, second, _ = await three_orders(front, recorder)

    def flush_in_savepoint(session: Session) -> None:
        with session.connection().begin_nested():
            first.status = "paid"
            session.add(Order(id=5, status="new"))
            session.delete(second)
            session.flush()

    await front.run_sync(flush_in_savepoint)
    await front.commit()
    assert recorder.take() == [created(Order, 5), updated(Order, 1, status=("new", "paid")), deleted(Order, 2)]


class NoticeBase(DeclarativeBase):
    type_annotation_map = TYPES


NUMBERS = Sequence("lent_numbers", metadata=NoticeBase.metadata)


class Letter(NoticeBase):
    __tablename__ = "lent_letters"
    __bulk_events__ = True
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class Card(NoticeBase):
    __tablename__ = "lent_cards"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


def warning_of(model: type[object], kind: str) -> str:
    article = "a" if kind == "delete" else "an"
    return (
        f"{model.__name__} has listeners, and {article} {kind} on a connection passes them by: give it to the "
        "session's execute(), or execution_options(events=False) to say that nobody needs to hear of it"
    )


STATEMENTS = {
    "insert": insert(Letter).values(id=1, text="a"),
    "update": update(table_of(Letter)).values(text="b"),
    "delete": delete(Letter),
}


@scenario(NoticeBase.metadata)
async def test_each_model_and_kind_of_statement_warns_once(front: FrontEnd, recorder: EventRecorder) -> None:
    """B1: also where the model has opted in, since no events can be made there."""
    recorder.listen(Letter)
    send = sent(*STATEMENTS.values(), insert(Card).values(id=1, text="a"), delete(Card), of="nobody's concern")
    with bulk_warnings() as given:
        await on_connection(front, send)
    if front.database.name == "sqlite" and front.is_async:  # Letter's only warnings in this process
        assert given == [warning_of(Letter, kind) for kind in STATEMENTS]
    with bulk_warnings() as given:
        await on_connection(front, send)
    assert given == []
    await front.commit()
    assert recorder.take() == []


@scenario(NoticeBase.metadata, on_bulk_write="raise")
async def test_the_strict_setting_raises_before_the_statement_runs(front: FrontEnd, recorder: EventRecorder) -> None:
    """B1: nothing reaches the database, and the transaction goes on; a statement that says so runs."""
    recorder.listen(Letter)
    await front.add(Letter(id=2, text="a"))
    await front.flush()
    with front.statements() as statements:
        for kind, statement in STATEMENTS.items():
            with pytest.raises(BulkWriteError) as raised:
                await on_connection(front, sent(statement, of="nobody's concern"))
            assert str(raised.value) == warning_of(Letter, kind)
    assert statements == []
    await on_connection(front, sent(insert(Letter).values(id=3, text="b")))
    await front.commit()
    assert recorder.take() == [created(Letter, 2)]
    assert await front.committed_rows(select(Letter.id)) == [(2,), (3,)]


@scenario(NoticeBase.metadata)
async def test_events_cannot_be_asked_for_there(front: FrontEnd, recorder: EventRecorder) -> None:
    """B2: the error says where they can; and what the option takes is the same as everywhere."""
    recorder.listen(Letter)
    with pytest.raises(BulkWriteError) as raised:
        await on_connection(front, sent(STATEMENTS["update"], events=True))
    assert str(raised.value) == (
        "update(Letter) cannot make events: it was given to a connection: give it to the session's execute(). Write "
        "the rows through the unit of work, or give the statement execution_options(events=False) to do without events"
    )
    with pytest.raises(BulkEventsError, match="execution option events was given 'no': give it True or False"):
        await on_connection(front, sent(STATEMENTS["update"], events="no"))
    await on_connection(front, sent(insert(Card).values(id=1, text="a"), events=True))
    await front.commit()


@scenario(NoticeBase.metadata, on_bulk_write="raise")
async def test_what_the_session_sends_itself_is_not_taken_for_somebody_elses(
    front: FrontEnd, recorder: EventRecorder
) -> None:
    """E12, B2: flushes, savepoints and statements that make events, where a connection was handed out, too."""
    recorder.listen(Letter)
    first, second, third = (Letter(id=number, text="new") for number in (1, 2, 3))
    await front.add_all([first, second, third])
    await front.commit()
    assert recorder.take() == [created(Letter, number) for number in (1, 2, 3)]

    def work(session: Session) -> None:
        session.connection().execute(select(1))
        session.connection().exec_driver_sql("SELECT 2")
        first.text = "sent"
        session.flush()
        with session.begin_nested():
            second.text = "sent"
        savepoint = session.begin_nested()
        third.text = "sent"
        session.flush()
        savepoint.rollback()

    with front.statements() as statements:
        await front.run_sync(work)
        await front.commit()
    assert [statement.split()[0] for statement in statements] == [
        "SELECT",
        "SELECT",
        "UPDATE",
        "SAVEPOINT",
        "UPDATE",
        "RELEASE",
        "SAVEPOINT",
        "UPDATE",
        "ROLLBACK",
    ]
    assert recorder.take() == [updated(Letter, number, text=("new", "sent")) for number in (1, 2)]

    def write_in_bulk(session: Session) -> None:
        session.connection()
        session.execute(update(Letter).where(Letter.id == 1).values(text="read"))
        session.execute(delete(Letter).where(Letter.id == 2))
        session.execute(insert(Letter), [{"id": 4, "text": "new"}])
        session.bulk_insert_mappings(Letter, [{"id": 5, "text": "new"}])
        session.bulk_update_mappings(Letter, [{"id": 3, "text": "read"}])
        session.bulk_save_objects([Letter(id=6, text="new")])

    await front.run_sync(write_in_bulk)
    await front.commit()
    assert recorder.take() == [
        updated(Letter, 1, text=("sent", "read")),
        deleted(Letter, 2),
        created(Letter, 4),
        created(Letter, 5),
        updated(Letter, 3, text=("new", "read")),
        created(Letter, 6),
    ]


@scenario(Base.metadata, databases=("sqlite",), front_ends=("sync",))
async def test_connection_that_outlives_the_transaction(front: FrontEnd, recorder: EventRecorder) -> None:
    """T9: a connection that is not the session's own is followed only as long as the transaction lasts."""
    recorder.listen(Order)
    with front.sync_engine.connect() as connection:
        session = front.new_session(bind=connection, dispatch_on_joined_commit=True)
        for end in (session.commit, session.rollback, session.close):
            await session.connection()
            await session.connection()
            assert isinstance(connection, FollowedConnection)
            await end()
            assert type(connection) is Connection
        connection.execute(ORDERS.insert().values(id=1, status="new"))
        connection.commit()
    assert recorder.take() == []


@scenario(Base.metadata, databases=("sqlite",), front_ends=("sync",))
async def test_two_sessions_on_one_connection(front: FrontEnd, recorder: EventRecorder) -> None:
    """B1: where a test suite rolls everything back, what one flushes passes nobody by, although the other lent it."""
    options: dict[str, object] = {"dispatch_on_joined_commit": True, "on_bulk_write": "raise"}
    recorder.listen(Order)
    with front.sync_engine.connect() as connection, connection.begin():
        first, second = front.new_session(bind=connection, **options), front.new_session(bind=connection, **options)
        await first.add(Order(id=1, status="new"))
        await first.flush()
        assert await first.connection() is connection
        await second.add(Order(id=2, status="new"))
        await second.commit()
        await second.execute(update(Order).where(Order.id == 1).values(status="paid"), execution_options=UNHEARD)
        await first.commit()
        await first.close()
        await second.close()
    assert recorder.take() == [created(Order, 2), created(Order, 1)]


@scenario(Base.metadata, databases=("sqlite",), front_ends=("sync",))
async def test_connection_of_somebody_elses_class(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2: it goes on to do what its class does, is followed, and is what it was in the end."""
    executed: list[object] = []

    class Tracing(Connection):
        def execute(self, statement: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - SQLAlchemy's own
            executed.append(statement)
            return super().execute(statement, *arguments, **options)

    recorder.listen(Order)
    for number in (1, 2):
        with Tracing(front.sync_engine) as connection:
            session = front.new_session(bind=connection, dispatch_on_joined_commit=True)
            await session.add(Order(id=number, status="new"))
            await session.flush()
            assert await session.connection() is connection
            connection.execute(statement := delete(Order), execution_options=UNHEARD)
            await session.commit()
            assert executed.count(statement) == 1
            assert type(connection) is Tracing
    assert recorder.take() == []


UPDATE_ONE = ORDERS.update().values(status="sent")
WAYS: dict[str, Callable[[Connection], object]] = {
    "scalar": lambda connection: connection.scalar(UPDATE_ONE.returning(ORDERS.c.id), execution_options=UNHEARD),
    "scalars": lambda connection: connection.scalars(
        UPDATE_ONE.returning(ORDERS.c.id), execution_options=UNHEARD
    ).all(),
    "its own options": lambda connection: connection.execute(UPDATE_ONE.execution_options(**UNHEARD)),
    "the connection's": lambda connection: connection.execution_options(**UNHEARD).execute(UPDATE_ONE),
    "of the driver": lambda connection: connection.exec_driver_sql(f"UPDATE {ORDERS.name} SET status = 'sent'"),
}


@pytest.mark.parametrize("way", WAYS)
@scenario(Base.metadata, databases=("sqlite", "postgresql"), on_bulk_write="raise")
async def test_ways_to_execute(front: FrontEnd, recorder: EventRecorder, way: str) -> None:
    """E11, B1: the same by each method of a connection, and wherever its options come from."""
    await front.add(Order(id=1, status="new"))
    recorder.listen(Order)
    await front.flush()
    shown: list[str] = []

    @listens_for(Order)
    def read(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append(order.status)

    await on_connection(front, WAYS[way])
    await front.commit()
    assert (shown, recorder.take()) == (["sent"], [created(Order, 1)])


@scenario(NoticeBase.metadata, databases=("sqlite",), front_ends=("sync",), on_bulk_write="raise")
async def test_arguments_of_each_way_to_execute(front: FrontEnd, recorder: EventRecorder) -> None:
    """T8: parameters and options reach the statement as on any connection; B1: which is looked at in each."""
    recorder.listen(Letter)
    seen: list[tuple[object, object]] = []

    def note(_connection: object, _cursor: object, _words: object, _values: object, context: Any, _: object) -> None:  # noqa: ANN401 - SQLAlchemy's own
        seen.append((context.parameters, context.execution_options.get("mine")))

    event.listen(front.sync_engine, "before_cursor_execute", note)
    statement = text("SELECT :number").bindparams(number=0)

    def read(connection: Connection) -> None:
        mine = {"mine": True}
        assert [
            connection.execute(statement, {"number": 1}, execution_options=mine).scalar(),
            connection.scalar(statement, {"number": 2}, execution_options=mine),
            *connection.scalars(statement, {"number": 3}, execution_options=mine),
            connection.exec_driver_sql("SELECT ?", (4,), mine).scalar(),
        ] == [1, 2, 3, 4]

    await on_connection(front, read)
    assert [given for given in seen if given[0] != [()]] == [([(number,)], True) for number in (1, 2, 3, 4)]
    event.remove(front.sync_engine, "before_cursor_execute", note)
    ways: list[Callable[[Connection], object]] = [
        lambda connection: connection.execute(delete(Letter)),
        lambda connection: connection.scalar(delete(Letter).returning(Letter.id)),
        lambda connection: connection.scalars(delete(Letter).returning(Letter.id)),
    ]
    for way in ways:
        with pytest.raises(BulkWriteError):
            await on_connection(front, way)


@scenario(Base.metadata, databases=("sqlite",), front_ends=("sync",))
async def test_connection_lent_by_two_sessions(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2: both are told of what is sent on it, and the second also when the first has ended."""
    recorder.listen(Order)
    with front.sync_engine.connect() as connection, connection.begin():
        first, second, third = (front.new_session(bind=connection, dispatch_on_joined_commit=True) for _ in range(3))
        for number, session in enumerate((first, second, third), start=1):
            await session.add(Order(id=number, status="new"))
            await session.flush()
            assert await session.connection() is connection
        connection.execute(delete(Order).where(Order.id < 3), execution_options=UNHEARD)
        await first.commit()
        await second.commit()
        connection.execute(delete(Order), execution_options=UNHEARD)
        await third.commit()
        assert type(connection) is Connection
        for session in (first, second, third):
            await session.close()
    assert recorder.take() == []


@scenario(NoticeBase.metadata, databases=("postgresql",), on_bulk_write="raise")
async def test_what_only_reads(front: FrontEnd, recorder: EventRecorder) -> None:
    """E12: after it nothing is read again."""
    recorder.listen(Letter)
    await front.add(Letter(id=1, text="new"))
    await front.flush()

    def read(connection: Connection) -> None:
        connection.execute(select(Letter.id))
        connection.execute(text("SELECT 1"))
        connection.execute(func.now())
        connection.scalar(func.now())
        connection.scalar(NUMBERS)
        connection.scalars(text("SELECT 2"))

    with front.statements() as statements:
        await on_connection(front, read)
        await front.commit()
    assert [statement.split()[1] for statement in statements] == [
        "lent_letters.id",
        "1",
        "now()",
        "now()",
        "nextval('lent_numbers')",
        "2",
    ]
    assert recorder.take() == [created(Letter, 1)]


@scenario(Base.metadata, databases=("sqlite",))
async def test_upsert_on_a_connection(front: FrontEnd, recorder: EventRecorder) -> None:
    """E11: an INSERT may write a row that has an event."""
    first, *_ = await three_orders(front, recorder)
    first.status = "paid"
    await front.flush()
    upsert = sqlite_insert(Order).values(id=1, status="sent")
    upsert = upsert.on_conflict_do_update(index_elements=["id"], set_={"status": upsert.excluded.status})
    await on_connection(front, sent(upsert))
    await front.commit()
    assert recorder.take() == [updated(Order, 1, status=("new", "sent"))]


@scenario(Base.metadata, databases=("sqlite",), front_ends=("sync",))
async def test_two_connections_of_one_session(front: FrontEnd, recorder: EventRecorder) -> None:
    """T2: what is sent on either is noticed."""
    other = create_engine("sqlite://", poolclass=StaticPool)
    NoticeBase.metadata.create_all(other)
    session = front.new_session(bind=None, binds={Base: front.engine, NoticeBase: other})
    recorder.listen(Order)
    recorder.listen(Letter)
    await session.add_all([Order(id=1, status="new"), Letter(id=1, text="new")])
    await session.flush()

    def write(session: Session) -> None:
        session.connection(bind_arguments={"mapper": inspect(Order)})
        connection = session.connection(bind_arguments={"mapper": inspect(Letter)})
        connection.execute(delete(Letter), execution_options=UNHEARD)

    await session.run_sync(write)
    await session.commit()
    assert recorder.take() == [created(Order, 1)]
    other.dispose()


@pytest.mark.parametrize("name", ["before_flush", "after_flush", "after_flush_postexec"])
@scenario(Base.metadata)
async def test_listener_of_a_flush_that_writes_on_a_connection(
    front: FrontEnd, recorder: EventRecorder, name: str
) -> None:
    """E11, P2: what it writes before the flush sends its own, or after, is read before the COMMIT."""
    shown: list[tuple[object, ...]] = []
    first, *_ = await three_orders(front, recorder)
    recorder.listen(Order, phase=Phase.AFTER_ROLLBACK)  # for which rows are kept as the flush has written them

    @listens_for(Order)
    async def read(order: Order, event_type: ModelEvent, changes: Changes | None) -> None:
        shown.append((order.id, order.note))

    def write(session: Session, *_: object) -> None:
        session.connection().execute(ORDERS.update().values(note="raw"), execution_options=UNHEARD)

    event.listen(front.sync_session, name, write)
    first.status = "paid"
    await front.commit()
    assert shown == [(1, "raw")]
    assert recorder.take() == [updated(Order, 1, status=("new", "paid"))]


@pytest.mark.parametrize("name", ["before_flush", "after_flush"])
@scenario(NoticeBase.metadata, databases=("sqlite",), on_bulk_write="raise")
async def test_listener_of_a_flush_is_not_taken_for_the_flush(
    front: FrontEnd, recorder: EventRecorder, name: str
) -> None:
    """B1: what it sends on the session's connection passes its model's listeners by."""
    recorder.listen(Letter)

    def write(session: Session, *_: object) -> None:
        session.connection().execute(update(Letter).values(text="raw"))

    event.listen(front.sync_session, name, write)
    await front.add_all([Letter(id=1, text="new")])
    with pytest.raises(BulkWriteError):
        await front.commit()
    assert recorder.take() == []


def execute_insert(session: Session) -> None:
    session.execute(insert(Card).values(id=1, text="card"))


def save_what_is_read(session: Session) -> None:
    def cards() -> Iterator[Card]:
        for number in session.scalars(select(Letter.id)):
            yield Card(id=number, text="card")

    session.bulk_save_objects(cards())


@pytest.mark.parametrize("autoflushes", [execute_insert, save_what_is_read])
@pytest.mark.parametrize("name", ["before_flush", "after_insert"])
@scenario(NoticeBase.metadata, on_bulk_write="ignore")
async def test_listener_of_a_flush_that_a_statement_of_the_session_begins(
    front: FrontEnd, recorder: EventRecorder, autoflushes: Callable[[Session], None], name: str
) -> None:
    """E1, E11: what it sends is not taken for the session's own statement, which flushes before it is sent."""
    await front.add_all([Letter(id=1, text="new")])
    await front.commit()
    recorder.listen(Letter)
    letter = await front.get(Letter, 1)
    assert letter is not None
    letter.text = "sent"
    await front.flush()

    def write(*_: object) -> None:
        front.sync_session.connection().execute(update(Letter).values(text="raw"))

    target = Card if name == "after_insert" else front.sync_session
    event.listen(target, name, write)
    await front.add(Card(id=2, text="card"))

    def work(session: Session) -> None:
        session.connection()
        autoflushes(session)

    await front.run_sync(work)
    await front.commit()
    event.remove(target, name, write)
    assert recorder.take() == [updated(Letter, 1, text=("new", "raw"))]
