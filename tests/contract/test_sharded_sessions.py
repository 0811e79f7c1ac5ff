"""Rules B1, B2, E3, E4, E7 and E11 for sessions that keep the rows of one model in several databases."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, ForeignKey, func, inspect, select, text, update
from sqlalchemy.engine import URL
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, ORMExecuteState, mapped_column, relationship

from fastapi_toolsets.errors import BulkWriteError
from fastapi_toolsets.models import Changes, ModelEvent, SyncEventSession, listens_for

from ..databases import TYPES, Database
from ..front_ends import FrontEnd, SessionAdapter, entered, resolve, scenario
from .event_models import LOCAL, listening_to

SHARDS = ("asia", "europe")

Told = list[tuple[str, object, Changes | None]]
"""What happened, in which shard, and what changed."""


class ShardedBase(DeclarativeBase):
    type_annotation_map = TYPES


class Station(ShardedBase):
    """Chooses its shard by an attribute, as in SQLAlchemy's documentation."""

    __tablename__ = "stations"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    continent: Mapped[str]


class Report(ShardedBase):
    """Chooses it by the object that it belongs to, which has to be there."""

    __tablename__ = "reports"
    __watched_fields__ = ("degrees", "memo", "touched", "station")
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    degrees: Mapped[int]
    memo: Mapped[str | None] = mapped_column(deferred=True)
    touched: Mapped[str | None] = mapped_column(onupdate=func.lower("YES"))
    station_id: Mapped[int | None] = mapped_column(ForeignKey("stations.id"))
    station: Mapped[Station | None] = relationship()


class ShardedEventSession(SyncEventSession, ShardedSession): ...


def choose_shard(mapper: Mapper[Any] | None, instance: Any, clause: object = None) -> str:  # noqa: ANN401 - as SQLAlchemy asks
    """Tell where a new row goes."""
    continent: str = instance.continent if isinstance(instance, Station) else instance.station.continent
    return continent


def choose_by_identity(
    mapper: Mapper[Any],
    primary_key: object,
    *,
    lazy_loaded_from: Any,  # noqa: ANN401 - as SQLAlchemy asks
    **options: object,
) -> Collection[str]:
    """Tell where a row with a key may be."""
    return SHARDS if lazy_loaded_from is None else [lazy_loaded_from.identity_token]


def choose_by_statement(_execution: ORMExecuteState) -> Collection[str]:
    """Tell where rows of a statement may be."""
    return SHARDS


@asynccontextmanager
async def sharded(front: FrontEnd, directory: Path) -> AsyncGenerator[SessionAdapter]:
    """Open a session whose second shard is another database, with a row of the same key in each."""
    other = Database("sqlite", URL.create("sqlite", database=str(directory / "other.sqlite")))
    second: Any = other.create_async_engine() if front.is_async else other.create_engine()
    shards = dict(zip(SHARDS, (front.sync_engine, second.sync_engine if front.is_async else second), strict=True))
    session = front.new_session(
        bind=None,
        **{"sync_session_class" if front.is_async else "class_": ShardedEventSession},
        shards=shards,
        shard_chooser=choose_shard,
        identity_chooser=choose_by_identity,
        execute_chooser=choose_by_statement,
    )
    try:
        async with entered(second.begin()) as connection:
            if front.is_async:
                await connection.run_sync(ShardedBase.metadata.create_all)
            else:
                ShardedBase.metadata.create_all(connection)
        for continent, degrees in (("asia", 30), ("europe", 20)):
            station = Station(id=1, continent=continent)
            await session.add(Report(id=1, degrees=degrees, memo=f"in {continent}", station=station))
        await session.commit()
        yield session
    finally:
        await session.close()
        await resolve(second.dispose())


def record() -> Told:
    """Register a callback that keeps what it is told."""
    told: Told = []

    @listens_for(Report)
    def keep(report: Report, event_type: ModelEvent, changes: Changes | None) -> None:
        told.append((event_type.value, inspect(report).identity_token, changes))

    return told


async def reports(session: SessionAdapter) -> list[Report]:
    """Give the reports of all shards."""
    return [*await session.scalars(select(Report))]


@scenario(ShardedBase.metadata, databases=LOCAL)
async def test_rows_of_one_key_in_two_shards(front: FrontEnd, tmp_path: Path) -> None:
    """E3, E4, E11: old values, and those that the database makes, are read from the shard that has the row."""
    async with sharded(front, tmp_path) as session:
        await session.expire_all()
        told = record()
        for report in await reports(session):
            report.memo = "new"
        await session.commit()
        assert told == [
            (
                "update",
                shard,
                {"memo": {"old": f"in {shard}", "new": "new"}, "touched": {"old": None, "new": "yes"}},
            )
            for shard in SHARDS
        ]
        told.clear()
        for report in await reports(session):
            report.degrees = Report.degrees + 1
        await session.commit()
        assert told == [
            ("update", "asia", {"degrees": {"old": 30, "new": 31}}),
            ("update", "europe", {"degrees": {"old": 20, "new": 21}}),
        ]
        told.clear()
        await session.expire_all()
        for report in await reports(session):
            await session.delete(report)
        await session.commit()
        assert told == [("delete", "asia", None), ("delete", "europe", None)]


@scenario(ShardedBase.metadata, databases=LOCAL)
async def test_a_watched_relationship_leads_to_its_own_shard(front: FrontEnd, tmp_path: Path) -> None:
    """E7: the object that it led to is that of the row's shard."""
    async with sharded(front, tmp_path) as session:
        await session.close()
        led_to: list[tuple[object, object]] = []

        @listens_for(Report)
        def keep(report: Report, _event_type: ModelEvent, changes: Changes) -> None:
            led_to.append((inspect(report).identity_token, inspect(changes["station"]["old"]).identity_token))

        for report in await reports(session):
            report.station = None
        await session.commit()
        assert led_to == [("asia", "asia"), ("europe", "europe")]


@scenario(ShardedBase.metadata, databases=LOCAL)
async def test_what_mappers_listeners_write_on_a_shard(front: FrontEnd, tmp_path: Path) -> None:
    """E4, E11: the connections that listeners are given are not known before the flush, so all is read again."""

    def write(_mapper: Mapper[Any], connection: Connection, report: Report) -> None:
        connection.execute(text("UPDATE reports SET degrees = degrees + 5 WHERE id = :id"), {"id": report.id})

    async with sharded(front, tmp_path) as session:
        told = record()
        with listening_to(Report, "after_update", write):
            for report in await reports(session):
                report.degrees += 1
            await session.commit()
        touched = {"touched": {"old": None, "new": "yes"}}
        assert told == [
            ("update", "asia", {"degrees": {"old": 30, "new": 36}, **touched}),
            ("update", "europe", {"degrees": {"old": 20, "new": 26}, **touched}),
        ]


@scenario(ShardedBase.metadata, databases=LOCAL)
async def test_bulk_statements_over_all_shards(front: FrontEnd, tmp_path: Path) -> None:
    """B1, B2: they cannot make events, which is said before anything is written; without events they run."""
    async with sharded(front, tmp_path) as session:
        told = record()
        with pytest.raises(BulkWriteError, match="its session is sharded"):
            await session.execute(update(Report).values(degrees=1).execution_options(events=True))
        for report in await reports(session):
            report.memo = "new"
        await session.execute(update(Report).values(degrees=1).execution_options(events=False))
        await session.commit()
        assert [(kind, shard) for kind, shard, _ in told] == [("update", "asia"), ("update", "europe")]
        assert [report.degrees for report in await reports(session)] == [1, 1]
