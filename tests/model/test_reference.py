"""The judge judged: what the reference says of commits that were told wrongly, and how it follows rows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from .programs import Op, Program
from .recorder import Recorder
from .reference import Commit, Entry, Row, Told, Values, courses_of, disagreements, expected_events, replay
from .worlds import Worlds


def tag(code: str, title: str) -> Values:
    return {"code": code, "title": title}


def inserted(key: str) -> Entry:
    return Entry("I", "tags", None, key, None, None)


def updated(old: Values, new: Values) -> Entry:
    return Entry("U", "tags", old["code"], new["code"], json.dumps(old), json.dumps(new))


def deleted(row: Values) -> Entry:
    return Entry("D", "tags", row["code"], None, json.dumps(row), None)


FLUSHED = Entry("F", None, None, None, None, None)
A, B, C = tag("a", "one"), tag("b", "two"), tag("c", "three")

COMMIT = Commit(
    before={("tags", "a"): Row("Tag", A), ("tags", "b"): Row("Tag", B)},
    after={("tags", "a"): Row("Tag", tag("a", "new")), ("tags", "c"): Row("Tag", C)},
    trail=(updated(A, tag("a", "new")), FLUSHED, inserted("c"), FLUSHED, deleted(B), FLUSHED),
    tokens=(),
)
UPDATE = Told("update", "Tag", ("a",), {"title": {"old": "one", "new": "new"}}, tag("a", "new"), A, tag("a", "new"))
CREATE = Told("create", "Tag", ("c",), None, C, None, C)
DELETE = Told("delete", "Tag", ("b",), None, B, B, None)


def test_expected_events_are_the_difference() -> None:
    assert [item.told for item in expected_events(COMMIT)] == [UPDATE, DELETE, CREATE]
    assert disagreements(expected_events(COMMIT), [UPDATE, CREATE, DELETE]) == []
    assert replay(COMMIT.before, [UPDATE, CREATE, DELETE]) == COMMIT.after


@pytest.mark.parametrize(
    "told",
    [
        pytest.param([UPDATE, CREATE], id="an event is missing"),
        pytest.param([UPDATE, CREATE, DELETE, DELETE], id="an event comes twice"),
        pytest.param([CREATE, UPDATE, DELETE], id="the order is another"),
        pytest.param([replace(UPDATE, changes={"title": {"old": None, "new": "new"}}), CREATE, DELETE], id="old"),
        pytest.param([replace(UPDATE, changes={}), CREATE, DELETE], id="a change is missing"),
        pytest.param([replace(UPDATE, row=A), CREATE, DELETE], id="obj is stale"),
        pytest.param([replace(UPDATE, before=tag("a", "new")), CREATE, DELETE], id="before"),
        pytest.param([UPDATE, replace(CREATE, after=None), DELETE], id="after"),
        pytest.param([UPDATE, CREATE, replace(DELETE, identity=("a",))], id="another row"),
    ],
)
def test_what_was_told_wrongly_is_noticed(told: list[Told]) -> None:
    assert disagreements(expected_events(COMMIT), told) != []


def test_parents_come_first_where_one_flush_wrote_both() -> None:
    parent, child = {"id": 1, "parent_id": None, "name": "a"}, {"id": 2, "parent_id": 1, "name": "b"}
    commit = Commit(
        before={},
        after={("nodes", "1"): Row("Node", parent), ("nodes", "2"): Row("Node", child)},
        trail=(Entry("I", "nodes", None, "1", None, None), Entry("I", "nodes", None, "2", None, None), FLUSHED),
        tokens=(),
    )
    first = Told("create", "Node", (1,), None, parent, None, parent)
    then = Told("create", "Node", (2,), None, child, None, child)
    assert disagreements(expected_events(commit), [first, then]) == []
    assert disagreements(expected_events(commit), [then, first]) != []


def test_a_row_is_followed_through_its_keys() -> None:
    """E8: a changed key is one row; a row made anew with an old key is another."""
    moved = tag("b", "one")
    trail = (updated(A, moved), FLUSHED, inserted("a"), FLUSHED, deleted(moved), FLUSHED, inserted("b"), FLUSHED)
    courses = courses_of({("tags", "a"): Row("Tag", A)}, trail)
    assert [(course.began, course.now, course.last_row) for course in courses] == [
        (("tags", "a"), None, moved),
        (None, ("tags", "a"), {}),
        (None, ("tags", "b"), {}),
    ]


@pytest.mark.parametrize("worlds", ["sqlite"], indirect=True)
def test_lost_events_are_noticed(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorder that hears nothing stands for a library that tells nothing."""
    program = Program((Op("graph"), Op("commit")), seeded=False)
    assert worlds.disagreements(program) == []

    def forget(*_: object) -> None: ...

    monkeypatch.setattr(Recorder, "_write_down", forget)
    missing = "events: expected [('Account', '(1,)', 'create'), ('Order', '(1,)', 'create')], told []"
    assert worlds.disagreements(program) == [
        f"sync: after step 1, Op('commit'): {missing}",
        f"async: after step 1, Op('commit'): {missing}",
    ]
