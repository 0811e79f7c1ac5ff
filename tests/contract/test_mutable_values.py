"""Rule E5: values that change in place, and whom copies of them belong to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    PickleType,
    func,
)
from sqlalchemy.ext.mutable import MutableDict, MutableList, MutableSet
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
)

from fastapi_toolsets.models import Changes, Event, ModelEvent, listens_for

from ..databases import TYPES
from ..front_ends import EventRecorder, FrontEnd, scenario
from .event_models import LOCAL, updated


class MutableBase(DeclarativeBase):
    type_annotation_map = TYPES


class Profile(MutableBase):
    __tablename__ = "profiles"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    settings: Mapped[dict[str, Any]] = mapped_column(MutableDict.as_mutable(JSON), default=dict)
    tags: Mapped[list[str]] = mapped_column(MutableList.as_mutable(JSON), default=list)
    document: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    pickled: Mapped[set[str]] = mapped_column(MutableSet.as_mutable(PickleType()), default=set)
    other: Mapped[str | None]


def json_of(words: str) -> Any:  # noqa: ANN401 - assigned where a document belongs
    """Have SQLite make a document."""
    return func.json(words, type_=JSON)


def settings_of(_: Session, profile: Profile) -> dict[str, Any]:
    """Read the settings where I/O is possible on either front-end."""
    return dict(profile.settings)


async def stored_profile(front: FrontEnd, recorder: EventRecorder | None, **values: object) -> Profile:
    profile = Profile(id=1, **values)
    await front.add(profile)
    await front.commit()
    if recorder is not None:
        recorder.listen(Profile)
    return profile


@scenario(MutableBase.metadata)
async def test_in_place_changes_have_a_true_old(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5: ``MutableDict``, ``MutableList`` and ``MutableSet``, changed in place."""
    profile = await stored_profile(front, recorder, settings={"a": 1}, tags=["x"], pickled={"s"})
    profile.settings["b"] = 2
    profile.tags.append("y")
    profile.pickled.add("t")
    await front.commit()
    assert recorder.take() == [
        updated(
            Profile,
            1,
            settings=({"a": 1}, {"a": 1, "b": 2}),
            tags=(["x"], ["x", "y"]),
            pickled=({"s"}, {"s", "t"}),
        )
    ]


@scenario(MutableBase.metadata)
async def test_in_place_changes_over_several_flushes(front: FrontEnd, recorder: EventRecorder) -> None:
    """E1, E2, E5: first old to last new; taken back is no change."""
    profile = await stored_profile(front, recorder, settings={"a": 1}, tags=["x"])
    profile.settings["b"] = 2
    await front.flush()
    profile.settings.pop("a")
    profile.tags.append("y")
    await front.flush()
    profile.settings["c"] = 3
    profile.tags.remove("y")
    await front.commit()
    assert recorder.take() == [updated(Profile, 1, settings=({"a": 1}, {"b": 2, "c": 3}))]


@scenario(MutableBase.metadata)
async def test_in_place_changes_after_loading(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E5: expired, refreshed, or loaded by another session; changed in place again after a commit."""
    profile = await stored_profile(front, recorder, settings={"a": 1})
    await front.expire(profile)
    await front.refresh(profile)
    profile.settings["b"] = 2
    await front.commit()
    assert recorder.take() == [updated(Profile, 1, settings=({"a": 1}, {"a": 1, "b": 2}))]
    profile.settings["c"] = 3
    await front.commit()
    assert recorder.take() == [updated(Profile, 1, settings=({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}))]
    session = front.new_session()
    other = await session.get_one(Profile, 1)
    other.settings.clear()
    await session.commit()
    assert recorder.take() == [updated(Profile, 1, settings=({"a": 1, "b": 2, "c": 3}, {}))]


@scenario(MutableBase.metadata, expire_on_commit=True)
async def test_mutable_values_stay_mutable_after_a_commit(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5, E11: a value that a commit expired, or that the library loaded, still notices changes in place."""
    profile = await stored_profile(front, recorder, settings={"a": 1})
    await front.refresh(profile)
    profile.other = "x"
    await front.commit()
    await front.refresh(profile)
    profile.settings["b"] = 2
    await front.commit()
    assert recorder.take() == [
        updated(Profile, 1, other=(None, "x")),
        updated(Profile, 1, settings=({"a": 1}, {"a": 1, "b": 2})),
    ]
    await front.expire(profile)
    profile.other = "y"
    await front.flush()
    assert await front.run_sync(settings_of, profile) == {"a": 1, "b": 2}
    profile.settings["c"] = 3
    await front.commit()
    assert recorder.take() == [
        updated(Profile, 1, other=("x", "y"), settings=({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}))
    ]


@scenario(MutableBase.metadata)
async def test_replacing_a_mutable_value(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5: a new dict instead of the old one, changed in place before and after."""
    profile = await stored_profile(front, recorder, settings={"a": 1})
    profile.settings["lost"] = True
    profile.settings = {"b": 2}
    profile.settings["c"] = 3
    await front.commit()
    assert recorder.take() == [updated(Profile, 1, settings=({"a": 1}, {"b": 2, "c": 3}))]


@scenario(MutableBase.metadata)
async def test_documents_flagged_as_modified(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5: a plain JSON value changed in place and flagged: ``new`` is what was written."""
    profile = await stored_profile(front, recorder, document={"a": [1]})
    profile.document = {**profile.document, "b": 2}
    await front.commit()
    assert recorder.take() == [updated(Profile, 1, document=({"a": [1]}, {"a": [1], "b": 2}))]


@scenario(MutableBase.metadata, databases=LOCAL)
async def test_later_mutation_does_not_reach_the_event(front: FrontEnd) -> None:
    """E5: old and new are copies, deep ones: neither the object nor its nested values reach them."""
    seen: list[dict[str, Any]] = []

    @listens_for(Profile, ModelEvent.UPDATE)
    def keep(profile: Profile, event_type: ModelEvent, changes: dict[str, Any]) -> None:
        seen.append(changes)

    profile = await stored_profile(front, None, settings={"a": {"deep": 1}}, document={"list": [1]})
    profile.settings = {"a": {"deep": 2}}
    document = {"list": [1, 2]}
    profile.document = document
    await front.flush()
    document["list"].append(3)
    profile.settings["a"]["deep"] = 99
    await front.commit()
    profile.settings["a"]["deep"] = 100
    document["list"].append(4)
    assert seen == [
        {
            "settings": {"old": {"a": {"deep": 1}}, "new": {"a": {"deep": 2}}},
            "document": {"old": {"list": [1]}, "new": {"list": [1, 2]}},
        }
    ]


@scenario(MutableBase.metadata, databases=LOCAL)
async def test_later_mutation_after_a_row_switch(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5, E8: neither the object that had the row before nor the one that has it now reaches the event."""
    before = await stored_profile(front, recorder, document={"list": [1]})
    after = Profile(id=1, document={"list": [2]})
    await front.delete(before)
    await front.add(after)
    await front.flush()
    before.document["list"].append("later")
    after.document["list"].append("later")
    await front.commit()
    assert recorder.take() == [updated(Profile, 1, document=({"list": [1]}, {"list": [2]}))]


@scenario(MutableBase.metadata, databases=LOCAL)
async def test_each_callback_has_its_own_changes(front: FrontEnd) -> None:
    """E5, N1: a callback that edits ``changes``, or a value in it, changes nothing for the next or for the object."""
    seen: list[object] = []

    def vandal(profile: Profile, event_type: ModelEvent, changes: dict[str, Any], *, event: Event) -> None:
        changes["settings"]["new"]["a"] = "vandal"
        changes["settings"]["old"].clear()
        changes["other"]["old"] = "vandal"
        changes["added"] = {"old": 1, "new": 2}
        del changes["tags"]

    def witness(profile: Profile, event_type: ModelEvent, changes: dict[str, Any], *, event: Event) -> None:
        assert event.changes is not None
        seen.append((changes, {key: dict(change) for key, change in event.changes.items()}, profile.settings["a"]))

    for callback in (vandal, witness):
        listens_for(Profile, ModelEvent.UPDATE)(callback)
    profile = await stored_profile(front, None, settings={"a": 0})
    profile.settings["a"] = 1
    profile.other = "x"
    profile.tags.append("t")
    await front.commit()
    expected = {
        "settings": {"old": {"a": 0}, "new": {"a": 1}},
        "other": {"old": None, "new": "x"},
        "tags": {"old": [], "new": ["t"]},
    }
    assert seen == [(expected, expected, 1)]


@scenario(MutableBase.metadata, databases=LOCAL)
async def test_values_in_events_are_copies_too(front: FrontEnd) -> None:
    """N1, E5: ``event.before`` and ``event.after`` of one callback are out of reach of another."""
    seen: list[tuple[object, object]] = []

    def vandal(profile: Profile, event_type: ModelEvent, changes: Changes, *, event: Event) -> None:
        assert event.before is not None
        assert event.after is not None
        event.before["settings"]["a"] = "vandal"
        event.after["document"]["x"] = "vandal"

    def witness(profile: Profile, event_type: ModelEvent, changes: Changes, *, event: Event) -> None:
        assert event.before is not None
        assert event.after is not None
        seen.append((event.before["settings"], event.after["document"]))

    for callback in (vandal, witness):
        listens_for(Profile, ModelEvent.UPDATE)(callback)
    profile = await stored_profile(front, None, settings={"a": 0}, document={"d": 0})
    profile.settings["a"] = 1
    await front.commit()
    assert seen == [({"a": 0}, {"d": 0})]
    assert profile.document == {"d": 0}


@scenario(MutableBase.metadata)
async def test_in_place_changes_in_a_savepoint(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5, T3: rolled back, they are gone; what was before and after has its true old value."""
    profile = await stored_profile(front, recorder, settings={"a": 1})
    profile.settings["b"] = 2
    savepoint = await front.begin_nested()
    profile.settings["c"] = 3
    await front.flush()
    await savepoint.rollback()
    await front.commit()
    assert recorder.take() == [updated(Profile, 1, settings=({"a": 1}, {"a": 1, "b": 2}))]
    await front.refresh(profile)
    profile.settings["d"] = 4
    await front.commit()
    assert recorder.take() == [updated(Profile, 1, settings=({"a": 1, "b": 2}, {"a": 1, "b": 2, "d": 4}))]


@scenario(MutableBase.metadata, databases=LOCAL)
async def test_an_old_value_that_goes_on_to_change(front: FrontEnd, recorder: EventRecorder) -> None:
    """E3, E5: it is what the row had, whatever becomes of the value after the flush of an SQL expression."""
    profile = await stored_profile(front, recorder, document={"a": 1})
    document = profile.document
    profile.document = json_of('{"b": 2}')
    await front.flush()
    document["a"] = 2
    await front.commit()
    assert recorder.take() == [updated(Profile, 1, document=({"a": 1}, {"b": 2}))]


@scenario(MutableBase.metadata, databases=LOCAL)
async def test_a_new_value_that_a_callback_changes(front: FrontEnd, recorder: EventRecorder) -> None:
    """E5: the next one is told what the database has made of an SQL expression."""
    profile = await stored_profile(front, None, document={"a": 1})

    @listens_for(Profile, ModelEvent.UPDATE)
    def vandal(told: Profile, event_type: ModelEvent, changes: Changes) -> None:
        told.document["c"] = 3

    recorder.listen(Profile)
    profile.document = json_of('{"b": 2}')
    await front.commit()
    assert recorder.take() == [updated(Profile, 1, document=({"a": 1}, {"b": 2}))]
