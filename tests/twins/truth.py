"""What was committed, read over a connection of its own, and whether the events of a commit say just that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import Connection

from tests.model.oracle import rows_of

from .models import MODELS, Club, Visit

Key: TypeAlias = tuple[str, tuple[Any, ...]]
"""The table of the base class, and the primary key."""

Row: TypeAlias = tuple[str, dict[str, Any]]
"""The class, and the values by attribute."""

Rows: TypeAlias = dict[Key, Row]


@dataclass(frozen=True)
class Told:
    """An event as a callback was given it."""

    type: str
    model: str
    key: Key
    changes: dict[str, tuple[Any, Any]] | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    shown: dict[str, Any]
    """What the object showed."""


@dataclass
class Commit:
    """A COMMIT: the rows before and after it, and what was told of it.

    Attributes:
        unwatched: The tables into which the transaction has written past the unit of work.
    """

    before: Rows
    after: Rows
    unwatched: frozenset[str]
    told: list[Told] = field(default_factory=list)


_STATEMENTS = {model: rows_of(model) for model in MODELS}


def read_rows(connection: Connection) -> Rows:
    """Read every row of every model."""
    rows: Rows = {}
    for model, statement in _STATEMENTS.items():
        mapper = model.__mapper__
        names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
        for found in connection.execute(statement).mappings():
            values = dict(found)
            rows[table_of(model), tuple(values[name] for name in names)] = (model.__name__, values)
    return rows


def table_of(model: type[Any]) -> str:
    return str(model.__mapper__.base_mapper.local_table.name)


def key_before(told: Told) -> Key:
    """Return the key that an event's row had before the transaction."""
    changes = told.changes or {}
    mapper = _BY_NAME[told.model].__mapper__
    names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    old = tuple(changes[name][0] if name in changes else value for name, value in zip(names, told.key[1], strict=True))
    return told.key[0], old


_BY_NAME = {model.__name__: model for model in MODELS}


def untrue(commit: Commit) -> list[str]:
    """Say where the events of a commit and the rows disagree."""
    problems: list[str] = []
    rows = dict(commit.before)
    written: Rows = {}
    seen: dict[Key, list[str]] = {}
    for told in commit.told:
        if told.key[0] in commit.unwatched:
            problems += _false_object(told, commit)
            continue
        seen.setdefault(told.key, []).append(told.type)
        problems += _false_rows(told, commit)
        if told.type != "create":
            rows.pop(key_before(told), None)
        if told.type != "delete" and told.key in commit.after:
            written[told.key] = commit.after[told.key]
    rows.update(written)
    for key in rows.keys() | commit.after.keys():
        was, now = rows.get(key), commit.after.get(key)
        if was != now and key[0] not in commit.unwatched and not _is_documented(key, was, now, commit):
            problems.append(f"not told: {key} was {was} and is {now}")
    problems += [
        f"{key} was told {types}" for key, types in seen.items() if len(types) > 1 and types != ["delete", "create"]
    ]
    return problems


def _false_object(told: Told, commit: Commit) -> list[str]:
    """Say whether a callback read something else than was committed; changes past the unit of work may be missing."""
    after = commit.after.get(told.key)
    return [f"{told}: but the row is {after}"] if told.type != "delete" and after and told.shown != after[1] else []


def _false_rows(told: Told, commit: Commit) -> list[str]:
    """Say where an event gives a row other values than it had or has."""
    problems: list[str] = []
    before, after = commit.before.get(key_before(told)), commit.after.get(told.key)
    if told.type != "create" and (before is None or told.before != before[1]):
        problems.append(f"{told}: but before it was {before}")
    if told.type != "delete":
        if after is None:
            return [*problems, f"{told}: there is no such row"]
        if told.after != after[1] or told.shown != after[1] or told.model != after[0]:
            problems.append(f"{told}: but the row is {after}")
    if told.type == "update" and before is not None and after is not None:
        problems += _false_changes(told, before[1], after[1])
    return problems


def _false_changes(told: Told, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    watched = getattr(_BY_NAME[told.model], "__watched_fields__", None)
    expected = {
        name: (before[name], value)
        for name, value in after.items()
        if before.get(name) != value and (watched is None or name in watched)
    }
    return [] if told.changes == expected else [f"{told}: the changes were {expected}"]


def _is_documented(key: Key, was: Row | None, now: Row | None, commit: Commit) -> bool:
    """Whether it is one of the gaps that guarantees.md names."""
    if key[0] == table_of(Visit) and now is None and was is not None:
        # "Children that go by ON DELETE CASCADE are not seen where passive_deletes keeps SQLAlchemy from looking."
        # Any owner that is deleted may be the one: the transaction itself may have given it the child.
        parent = "twin_owners", (was[1]["owner_id"],)
        return parent not in commit.after or any(
            told.key[0] == parent[0] and told.type == "delete" for told in commit.told
        )
    if key[0] == table_of(Club) and was is not None and now is not None:
        return bool(was[1]["title"] == now[1]["title"])  # nobody watches the rest
    return False
