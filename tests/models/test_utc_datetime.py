"""``UTCDateTime``: one instant in, the same instant out, on every database; and nothing that is no instant."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Dialect, create_engine, func, insert, literal, make_url, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_toolsets.errors import ToolsetsError
from fastapi_toolsets.models.columns import UTCDateTime, UTCDateTimeError

from ..front_ends import FrontEnd, scenario

# 01:30 happened twice on this night: only a value that knows its offset says which.
NEW_YORK = ZoneInfo("America/New_York")
FIRST_HALF_PAST_ONE = datetime(2023, 11, 5, 1, 30, 0, 123457, tzinfo=NEW_YORK)
SECOND_HALF_PAST_ONE = FIRST_HALF_PAST_ONE.replace(fold=1)
KOLKATA = timezone(timedelta(hours=5, minutes=30))
MOMENT = datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC)


class Base(DeclarativeBase):
    pass


class Visit(Base):
    __tablename__ = "utc_visits"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    began_at: Mapped[datetime] = mapped_column(UTCDateTime())
    ended_at: Mapped[datetime | None] = mapped_column(UTCDateTime())


def dialect_of(database: str) -> Dialect:
    return make_url(f"{database}://").get_dialect()()


MOMENTS = {
    "UTC": (MOMENT, datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC)),
    "offset": (
        datetime(2024, 1, 1, 0, 0, 0, 999999, tzinfo=KOLKATA),
        datetime(2023, 12, 31, 18, 30, 0, 999999, tzinfo=UTC),
    ),
    "first of a repeated hour": (FIRST_HALF_PAST_ONE, datetime(2023, 11, 5, 5, 30, 0, 123457, tzinfo=UTC)),
    "second of a repeated hour": (SECOND_HALF_PAST_ONE, datetime(2023, 11, 5, 6, 30, 0, 123457, tzinfo=UTC)),
    "before 1970": (datetime(1931, 5, 6, tzinfo=UTC), datetime(1931, 5, 6, tzinfo=UTC)),
    "whole second": (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)),
}


def as_written(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Compare by what the values say, zone included: ``==`` on aware values compares instants only."""
    return [tuple(value.isoformat() if isinstance(value, datetime) else value for value in row) for row in rows]


@scenario(Base.metadata)
async def test_instant_comes_back_in_utc(front: FrontEnd) -> None:
    await front.add_all(
        [Visit(number=number, began_at=given, ended_at=None) for number, (given, _) in enumerate(MOMENTS.values())]
    )
    await front.commit()
    rows = await front.committed_rows(select(Visit.number, Visit.began_at, Visit.ended_at).order_by(Visit.number))
    assert as_written(rows) == as_written(
        [(number, expected, None) for number, (_, expected) in enumerate(MOMENTS.values())]
    )
    ordered = await front.committed_rows(select(Visit.began_at).order_by(Visit.began_at))
    assert ordered == sorted((expected,) for _, expected in MOMENTS.values())


@scenario(Base.metadata)
async def test_same_instant_is_found_whatever_its_zone(front: FrontEnd) -> None:
    await front.add_all(
        [
            Visit(number=1, began_at=FIRST_HALF_PAST_ONE, ended_at=MOMENT),
            Visit(number=2, began_at=SECOND_HALF_PAST_ONE, ended_at=None),
        ]
    )
    await front.commit()
    for condition, expected in (
        (Visit.began_at == FIRST_HALF_PAST_ONE.astimezone(KOLKATA), [(1,)]),
        (Visit.began_at > FIRST_HALF_PAST_ONE.astimezone(KOLKATA), [(2,)]),
        (Visit.began_at.in_([SECOND_HALF_PAST_ONE.astimezone(KOLKATA), MOMENT]), [(2,)]),
        (Visit.ended_at == MOMENT.astimezone(NEW_YORK), [(1,)]),
        (Visit.ended_at == None, [(2,)]),  # noqa: E711 -- SQLAlchemy's spelling of IS NULL
        (Visit.ended_at.is_(None), [(2,)]),
        (literal(MOMENT, UTCDateTime()) == Visit.ended_at, [(1,)]),
    ):
        assert await front.committed_rows(select(Visit.number).where(condition)) == expected


@scenario(Base.metadata)
async def test_functions_give_aware_values_too(front: FrontEnd) -> None:
    await front.add_all([Visit(number=1, began_at=MOMENT), Visit(number=2, began_at=FIRST_HALF_PAST_ONE)])
    await front.commit()
    rows = await front.committed_rows(select(func.min(Visit.began_at), func.max(Visit.began_at)))
    assert as_written(rows) == as_written([(FIRST_HALF_PAST_ONE.astimezone(UTC), MOMENT)])
    rows = await front.committed_rows(select(func.coalesce(Visit.ended_at, MOMENT)).where(Visit.number == 1))
    assert as_written(rows) == as_written([(MOMENT,)])


@scenario(Base.metadata, databases=["postgresql"])
async def test_duration_is_added_by_the_database(front: FrontEnd) -> None:
    """Only PostgreSQL has a type for durations that SQLAlchemy can bind."""
    await front.add(Visit(number=1, began_at=MOMENT))
    await front.commit()
    rows = await front.committed_rows(
        select(Visit.began_at + timedelta(days=1), Visit.began_at - timedelta(hours=1), Visit.began_at - MOMENT)
    )
    assert as_written(rows) == as_written(
        [(MOMENT + timedelta(days=1), MOMENT - timedelta(hours=1), timedelta(0))],
    )


@scenario(Base.metadata, databases=["postgresql"])
async def test_zone_of_the_connection_does_not_show(front: FrontEnd) -> None:
    await front.execute(text("SET TIME ZONE 'Asia/Kolkata'"))
    await front.add(Visit(number=1, began_at=FIRST_HALF_PAST_ONE))
    await front.flush()
    rows = await front.execute(select(Visit.began_at))
    assert as_written([tuple(row) for row in rows]) == [("2023-11-05T05:30:00.123457+00:00",)]


@scenario(Base.metadata, databases=["mariadb"])
async def test_zone_of_the_connection_does_not_matter(front: FrontEnd) -> None:
    await front.execute(text("SET time_zone = '+05:30'"))
    await front.add(Visit(number=1, began_at=FIRST_HALF_PAST_ONE))
    await front.commit()
    rows = await front.committed_rows(select(Visit.began_at))
    assert as_written(rows) == [("2023-11-05T05:30:00.123457+00:00",)]


NAIVE = (
    "A UTCDateTime column was given a datetime without a time zone, so which instant it means is unknown; "
    "give it one with a time zone: datetime.now(UTC), or value.replace(tzinfo=...) if you know its zone."
)
NO_DATETIME = (
    "A UTCDateTime column was given a {}, which is no instant; "
    "give it a datetime with a time zone, such as datetime.now(UTC)."
)
OUTSIDE = (
    "A UTCDateTime column was given a datetime that in UTC lies outside the years 1 to 9999; "
    "use None, or a value within them, for a moment that never comes."
)


class Nowhere(tzinfo):
    """A zone that does not know its offset, which makes a value as naive as none."""

    def utcoffset(self, dt: datetime | None, /) -> None: ...
    def dst(self, dt: datetime | None, /) -> None: ...
    def tzname(self, dt: datetime | None, /) -> None: ...


REFUSED = {
    "naive": (datetime(2024, 1, 1), NAIVE),  # noqa: DTZ001 -- what is refused
    "zone without offset": (datetime(2024, 1, 1, tzinfo=Nowhere()), NAIVE),
    "date": (date(2024, 1, 1), NO_DATETIME.format("date")),
    "text": ("2024-01-01T00:00:00+00:00", NO_DATETIME.format("str")),
    "number": (1704067200, NO_DATETIME.format("int")),
    "far future": (datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), OUTSIDE),
    "far past": (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), OUTSIDE),
}


@pytest.mark.parametrize(("value", "message"), REFUSED.values(), ids=REFUSED)
@scenario(Base.metadata)
async def test_value_that_is_no_instant_is_refused(front: FrontEnd, value: object, message: str) -> None:
    """The error comes as it is, not inside SQLAlchemy's, whose message would show the row's values."""
    visit = Visit(number=1)
    setattr(visit, "began_at", value)  # noqa: B010 -- a type checker would refuse the assignment
    await front.add(visit)
    with pytest.raises(UTCDateTimeError) as of_flush:
        await front.flush()
    await front.rollback()
    with pytest.raises(UTCDateTimeError) as of_insert:
        await front.execute(insert(Visit), [{"number": 1, "began_at": value}])
    await front.rollback()
    with pytest.raises(UTCDateTimeError) as of_query:
        await front.execute(select(Visit).where(Visit.began_at < value))
    assert [str(caught.value) for caught in (of_flush, of_insert, of_query)] == [message] * 3
    await front.rollback()
    assert await front.committed_rows(select(Visit.number)) == []


def test_error_is_of_the_librarys_own() -> None:
    assert issubclass(UTCDateTimeError, ToolsetsError)
    assert issubclass(UTCDateTimeError, ValueError)


@pytest.mark.parametrize(
    ("database", "name"),
    [
        ("postgresql", "TIMESTAMP WITH TIME ZONE"),
        ("mariadb", "DATETIME(6)"),
        ("mysql", "DATETIME(6)"),
        ("sqlite", "DATETIME"),
    ],
)
def test_column_type(database: str, name: str) -> None:
    assert UTCDateTime().compile(dialect_of(database)) == name


@pytest.mark.parametrize(
    ("database", "shown"),
    [
        ("postgresql", "'2023-11-05 05:30:00.123457+00:00'"),
        ("mysql", "'2023-11-05 05:30:00.123457'"),
        ("sqlite", "'2023-11-05 05:30:00.123457'"),
    ],
)
def test_value_in_a_statement_that_is_shown_with_its_values(database: str, shown: str) -> None:
    statement = select(Visit.number).where(Visit.began_at < FIRST_HALF_PAST_ONE)
    compiled = str(statement.compile(dialect=dialect_of(database), compile_kwargs={"literal_binds": True}))
    assert compiled.split("WHERE ")[1] == f"utc_visits.began_at < {shown}"


def test_type_can_be_copied_and_pickled() -> None:
    for copied in (UTCDateTime().copy(), pickle.loads(pickle.dumps(UTCDateTime()))):  # noqa: S301 -- its own bytes
        assert (type(copied), repr(copied), copied.compile(dialect_of("mysql"))) == (
            UTCDateTime,
            "UTCDateTime()",
            "DATETIME(6)",
        )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(moment=st.datetimes(timezones=st.timezones() | st.just(UTC)))
def test_any_instant_survives(moment: datetime) -> None:
    try:
        expected = moment.astimezone(UTC)
    except OverflowError:
        return
    engine = create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            found = connection.scalar(select(literal(moment, UTCDateTime())))
    finally:
        engine.dispose()
    assert found is not None
    assert found.isoformat() == expected.isoformat()
