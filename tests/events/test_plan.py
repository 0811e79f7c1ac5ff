"""What is resolved once for each mapper: which values need a copy, and which columns are NULL when left out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect, types, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_toolsets.models import Changes, Event, ModelEvent, listens_for

from ..contract.event_models import LOCAL, updated
from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario


class Words(types.String):
    """A text to the database, a list of words to Python: a type of one's own whose base has plain values."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Any:  # noqa: ANN401 - the base says text
        return " ".join

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:  # noqa: ANN401 - the base says text
        return str.split


class PlanBase(DeclarativeBase):
    type_annotation_map = TYPES


class Message(PlanBase):
    __tablename__ = "messages"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    words: Mapped[list[str]] = mapped_column(Words(200))
    note: Mapped[str | None] = mapped_column()


@scenario(PlanBase.metadata, databases=LOCAL)
async def test_values_of_own_types_are_copied(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5: changing the old or the new list in place reaches neither the event nor what the next callback gets."""
    message = Message(id=1, words=["hello"])
    await front.add(message)
    await front.commit()
    told: list[Event] = []

    @listens_for(Message)
    def spoil(message: Message, event_type: ModelEvent, changes: Changes | None) -> None:
        assert changes is not None
        message.words.append("spoiled")
        changes["words"]["old"].append("spoiled")

    @listens_for(Message)
    def keep(message: Message, event_type: ModelEvent, changes: Changes | None, *, event: Event) -> None:
        told.append(event)

    recorder.listen(Message)
    old, new = message.words, ["good", "bye"]
    message.words = new
    await front.flush()
    old.append("changed by its holder")
    new.append("changed by its holder")
    await front.commit()
    assert recorder.take() == [updated(Message, 1, words=(["hello"], ["good", "bye"]))]
    (event,) = told
    assert (event.before, event.after) == (
        {"id": 1, "words": ["hello"], "note": None},
        {"id": 1, "words": ["good", "bye"], "note": None},
    )


@scenario(PlanBase.metadata, databases=LOCAL)
async def test_a_column_left_out_of_the_insert(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E12: it was never loaded, and somebody else may have written it since."""
    recorder.listen(Message, ModelEvent.UPDATE)
    first, second = Message(id=1, words=["hello"]), Message(id=2, words=["hello"])
    await front.add_all([first, second])
    await front.commit()
    other = front.plain_session()
    await other.execute(update(Message).where(Message.id == 2).values(note="by others"))
    await other.commit()
    first.note = second.note = "noted"
    with front.statements() as sent:
        await front.commit()
    assert [statement.split()[0] for statement in sent] == ["SELECT", "UPDATE"]
    assert recorder.take() == [
        updated(Message, 1, note=(None, "noted")),
        updated(Message, 2, note=("by others", "noted")),
    ]
