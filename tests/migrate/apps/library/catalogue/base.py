"""What the models of this package share."""

from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from fastapi_toolsets.models import ModelEvent, WatchedFieldsMixin

told: list[list[object]] = []
engine = create_async_engine("sqlite+aiosqlite:///app.db")
SessionLocal = sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


async def tell(*what: object) -> None:
    told.append(list(what))


class Base(DeclarativeBase):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Audited(WatchedFieldsMixin):
    """A mixin with a callback for everything."""

    async def on_event(self, event, changes=None):
        await tell("audit", type(self).__name__, event.value, changes)


class Labelled:
    """A mixin of our own, with a callback that only watched models have called."""

    async def on_delete(self) -> None:
        await tell("label gone", self.name)


class Item(Base, WatchedFieldsMixin):
    __tablename__ = "items"

    kind: Mapped[str] = mapped_column(default="item")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "item"}

    async def on_create(self) -> None:
        await tell("item created", self.name)

    async def on_update(self, changes) -> None:
        await tell("item updated", self.name, changes)

    async def on_delete(self) -> None:
        await tell("item deleted", self.name)


class Shelf(Base, Audited):
    __tablename__ = "shelves"


class Room(Base, Audited):
    """Has a callback for one event; the others go to the mixin's."""

    __tablename__ = "rooms"


class Box(Base, Labelled, WatchedFieldsMixin):
    __tablename__ = "boxes"

    def on_event(self, event: ModelEvent, *, changes: dict | None = None):
        if event is ModelEvent.UPDATE:
            return tell("box", self.name, changes)
        return tell("box", self.name, event)
