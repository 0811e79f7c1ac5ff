"""SQLModel: its models, its two session classes with ``exec``, and FastAPI over a real HTTP server."""

import gc
from typing import Annotated, Any, ClassVar

import httpx
import pytest
import sqlmodel
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import registry, sessionmaker
from sqlalchemy.pool import NullPool
from sqlmodel import Field, Relationship, SQLModel, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fastapi_toolsets.db import create_db_dependency
from fastapi_toolsets.models import (
    Changes,
    EventSession,
    ModelEvent,
    SyncEventSession,
    TimestampMixin,
    UUIDMixin,
    listens_for,
)

from ..contract.event_models import created, deleted, updated
from ..databases import Database, tables
from ..front_ends import EventRecorder, FrontEnd, resolve, scenario
from ..http_server import NO_CERTIFICATES, serving


class Base(SQLModel, registry=registry()):
    """Tables of these tests alone."""


class HeroInput(SQLModel):
    """What a client sends."""

    name: str = Field(max_length=50)
    age: int | None = None
    team_id: int | None = Field(default=None, foreign_key="team.id")


class Team(Base, table=True):
    __watched_fields__ = ("name", "heroes")
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    heroes: list["Hero"] = Relationship(back_populates="team")


class Hero(HeroInput, Base, table=True):
    __watched_fields__: ClassVar[tuple[str, ...]] = ("name", "team_id")  # as one may write it, too
    id: int | None = Field(default=None, primary_key=True)
    team: Team | None = Relationship(back_populates="heroes")


class Mission(UUIDMixin, TimestampMixin, Base, table=True):
    name: str = Field(max_length=50)


class ShopSession(SyncEventSession, sqlmodel.Session):
    """SQLModel's session, with events."""


class ShopAsyncSession(EventSession, AsyncSession):
    """SQLModel's async session, with events."""


CLASSES: dict[str, type[Any]] = {"async": ShopAsyncSession, "sync": ShopSession}


async def execute(session: Any, statement: Any) -> Any:  # noqa: ANN401 - SQLModel's method, on either class
    """What ``exec`` gives, on either side."""
    return await resolve(session.session.exec(statement))


@scenario(Base.metadata, expire_on_commit=True)
async def test_sqlmodel_sessions_deliver(front: FrontEnd, recorder: EventRecorder) -> None:
    """T1, E1, E7, N7: net events of SQLModel's models, through what SQLModel's sessions have and others have not."""
    recorder.listen(Base, asynchronous=True)
    session = front.new_session(class_=CLASSES[front.name])
    await session.add(Team(id=1, name="Preventers", heroes=[Hero(id=7, name="Deadpond", age=28)]))
    await session.commit()
    assert recorder.take() == [created(Team, 1), created(Hero, 7)]

    hero = (await execute(session, select(Hero).where(Hero.name == "Deadpond"))).one()
    team = (await execute(session, select(Team))).one()
    (await execute(session, select(Hero.name))).all()
    hero.sqlmodel_update({"name": "Dive Wilson", "age": 30})
    await session.commit()
    assert recorder.take() == [updated(Hero, 7, name=("Deadpond", "Dive Wilson"))]

    hero.age = 31  # not watched
    await session.commit()
    assert recorder.take() == []

    await session.refresh(hero, ["team"])
    hero.team = None
    await session.commit()
    assert recorder.take() == [updated(Team, 1, heroes=([hero], [])), updated(Hero, 7, team_id=(1, None))]
    await session.delete(hero)
    await session.delete(team)
    await session.commit()
    assert recorder.take() == [deleted(Team, 1), deleted(Hero, 7)]


@scenario(Base.metadata, expire_on_commit=True)
async def test_models_dump_themselves_in_callbacks(front: FrontEnd) -> None:
    """E10, E11: the whole row, although the session expires it, and when the object is gone before the commit."""
    dumped: list[tuple[str, dict[str, object]]] = []

    @listens_for(Hero)
    async def dump(hero: Hero, event_type: ModelEvent, changes: Changes | None) -> None:
        dumped.append((event_type.value, hero.model_dump()))

    session = front.new_session(class_=CLASSES[front.name])
    hero = Hero(id=1, name="Rusty-Man", age=48)
    await session.add(hero)
    await session.commit()
    hero.name = "Rusty"
    await session.commit()
    gone = Hero(id=2, name="Spider-Boy")
    await session.add(gone)
    await session.flush()
    await session.expunge(gone)
    del gone
    gc.collect()
    await session.delete(hero)
    await session.commit()
    assert dumped == [
        ("create", {"id": 1, "name": "Rusty-Man", "age": 48, "team_id": None}),
        ("update", {"id": 1, "name": "Rusty", "age": 48, "team_id": None}),
        ("create", {"id": 2, "name": "Spider-Boy", "age": None, "team_id": None}),
        ("delete", {"id": 1, "name": "Rusty", "age": 48, "team_id": None}),
    ]


@scenario(Base.metadata)
async def test_column_mixins(front: FrontEnd, recorder: EventRecorder) -> None:
    """E4: the columns are SQLAlchemy's, made when the row is written, and in the event like the others."""
    recorder.listen(Mission)
    session = front.new_session(class_=CLASSES[front.name])
    mission = Mission(name="Dawn")
    await session.add(mission)
    await session.commit()
    created_at, identity = mission.created_at, mission.id
    mission.name = "Dusk"
    await session.commit()
    assert recorder.take() == [
        created(Mission, identity),
        updated(Mission, identity, name=("Dawn", "Dusk"), updated_at=(created_at, mission.updated_at)),
    ]


def application(front_end: str, database: Database) -> FastAPI:
    """SQLModel's tutorial in short, with one kind of session."""
    app = FastAPI()
    options: dict[str, Any] = {"expire_on_commit": False}
    if front_end == "async":
        async_engine = database.create_async_engine(poolclass=NullPool)
        get_async_db = create_db_dependency(async_sessionmaker(async_engine, class_=ShopAsyncSession, **options))

        @app.post("/heroes")
        async def create_hero(hero: HeroInput, session: Annotated[ShopAsyncSession, Depends(get_async_db)]) -> Hero:
            added = Hero.model_validate(hero)
            session.add(added)
            await session.flush()
            if (await session.exec(select(func.count()).where(Hero.name == hero.name))).one() > 1:
                raise HTTPException(409)
            return added
    else:
        engine = database.create_engine(poolclass=NullPool)
        get_db = create_db_dependency(sessionmaker(engine, class_=ShopSession, **options))

        @app.post("/heroes")
        def create_hero_in_a_thread(hero: HeroInput, session: Annotated[ShopSession, Depends(get_db)]) -> Hero:
            added = Hero.model_validate(hero)
            session.add(added)
            session.flush()
            if session.exec(select(func.count()).where(Hero.name == hero.name)).one() > 1:
                raise HTTPException(409)
            return added

    return app


@pytest.mark.parametrize("front_end", ["async", "sync"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_fastapi_with_sqlmodel(front_end: str, database: Database, recorder: EventRecorder) -> None:
    """T1, T2: a hero that is answered was told; one that was refused was not."""
    recorder.listen(Hero, asynchronous=True)
    with tables(database, Base.metadata), serving(application(front_end, database)) as address:
        answers = [
            httpx.post(f"{address}/heroes", json={"name": name}, verify=NO_CERTIFICATES)
            for name in ("Deadpond", "Deadpond", "Rusty")
        ]
    assert [answer.status_code for answer in answers] == [200, 409, 200]
    first, last = answers[0].json(), answers[2].json()
    assert first == {"id": first["id"], "name": "Deadpond", "age": None, "team_id": None}
    assert recorder.take() == [created(Hero, first["id"]), created(Hero, last["id"])]
