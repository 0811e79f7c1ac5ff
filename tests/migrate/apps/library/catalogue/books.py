"""Models that inherit callbacks from another module: as they are, extended, replaced."""

import functools

from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, Item, WatchedFieldsMixin, tell
from fastapi_toolsets.models import ModelEvent, watch


def counted(method):
    @functools.wraps(method)
    def wrapper(self, *arguments):
        wrapper.calls += 1
        return method(self, *arguments)

    wrapper.calls = 0
    return wrapper


class Book(Item):
    """Calls what it extends first, and last."""

    __mapper_args__ = {"polymorphic_identity": "book"}

    async def on_create(self) -> None:
        await super().on_create()
        await tell("book created", self.name)

    async def on_update(self, changes) -> None:
        await tell("book updated", sorted(changes))
        return await super().on_update(changes)


@watch("name")
class Map(Item):
    """Replaces a callback, inherits the others."""

    __mapper_args__ = {"polymorphic_identity": "map"}

    scale: Mapped[int | None] = mapped_column(use_existing_column=True)

    def on_delete(self):
        return tell("map deleted", self.name)


class Film(Base, WatchedFieldsMixin):
    __tablename__ = "films"
    minutes: Mapped[int | None]

    async def on_event(self, event, changes=None):
        await tell("film", event.value, changes)

    async def on_create(self):
        await tell("film is new", self.name)
        await super().on_create()

    @counted
    async def on_delete(self):
        await tell("film goes", self.name)


class Record(Base, WatchedFieldsMixin):
    __tablename__ = "records"

    async def on_create(self):
        await self.publish()

    async def on_update(self, changes):
        if not changes:
            return
        await tell("record updated", changes)
        super().on_update(changes)

    async def publish(self):
        await tell("published", self.name, self.rating())

    def rating(self) -> int:
        return 1


class Single(Record):
    """Its record's callback finds the method of this class."""

    __tablename__ = None
    side_b: Mapped[str | None]

    def rating(self) -> int:
        return super().rating() + 1


class Series(Base, WatchedFieldsMixin):
    """Somebody else calls the callback, too."""

    __tablename__ = "series"

    async def on_create(self):
        await tell("series", self.name)

    async def announce_again(self):
        await self.on_create()
