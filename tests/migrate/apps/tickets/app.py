"""One file: a watched model with all three callbacks, and one with none of its own."""

import asyncio
import json

from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_toolsets.models import WatchedFieldsMixin, watch

engine = create_async_engine("sqlite+aiosqlite:///app.db")
SessionLocal = async_sessionmaker(engine, expire_on_commit=False)

told: list[list[object]] = []


async def announce(what: str, title: str, **details: object) -> None:
    told.append([what, title, details])


class Base(DeclarativeBase):
    pass


# Only these two matter to anybody.
@watch("status", "assignee")
class Ticket(Base, WatchedFieldsMixin):
    """Something to be done
    by somebody.
    """

    __tablename__ = "tickets"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    status: Mapped[str] = mapped_column(default="open")
    assignee: Mapped[str | None]
    note: Mapped[str | None]

    @property
    def heading(self) -> str:
        return f"#{self.id} {self.title}"

    # Whoever wants to know is told.
    async def on_create(self) -> None:
        """Announce it,
        with its number.
        """
        event_type = "new"  # a name that the listener has for something else
        await announce(event_type, self.heading, status=self.status)

    async def on_update(self, changes: dict[str, dict[str, object]]) -> None:
        for field, change in sorted(changes.items()):
            before, after = change["old"], change["new"]
            await announce(f"{field} changed", self.title, old=before, new=after)

    async def on_delete(self) -> None:
        def title() -> str:
            return self.title.upper()

        parts = [part for part in (title(), *(letter for letter in self.status[:1]))]
        await announce("gone", f"{self.title}", parts=parts, watched=sorted(f"{self.status}"))


class Comment(Base, WatchedFieldsMixin):
    __tablename__ = "comments"

    id: Mapped[int] = mapped_column(primary_key=True)
    ticket_id: Mapped[int] = mapped_column(ForeignKey("tickets.id"))
    text: Mapped[str]

    def on_create(self):
        told.append(["comment", self.text, {}])

    def on_update(self, diff): told.append(["comment edited", self.text, diff])


async def settle(step: str) -> list[object]:
    """Wait for the callbacks that version 2 started, and return what they told."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
    found, told[:] = sorted(told, key=repr), []
    return [step, found]


async def main() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    steps = []
    async with SessionLocal() as session:
        ticket = Ticket(title="It leaks", assignee=None, note="a")
        session.add(ticket)
        await session.commit()
        steps.append(await settle("created"))
        ticket.note = "b"
        await session.commit()
        steps.append(await settle("unwatched"))
        ticket.status, ticket.assignee = "busy", "Ada"
        await session.commit()
        steps.append(await settle("updated"))
        ticket.status = "done"
        await session.flush()
        await session.rollback()
        steps.append(await settle("rolled back"))
        await session.refresh(ticket)
        comment = Comment(ticket_id=ticket.id, text="still?")
        session.add(comment)
        await session.commit()
        steps.append(await settle("commented"))
        comment.text = "yes, still"
        ticket.status = "stuck"
        await session.commit()
        steps.append(await settle("both"))
        await session.delete(comment)
        await session.commit()
        steps.append(await settle("comment gone"))
        await session.delete(ticket)
        await session.commit()
        steps.append(await settle("ticket gone"))
    await engine.dispose()
    print(json.dumps(steps))


if __name__ == "__main__":
    asyncio.run(main())
