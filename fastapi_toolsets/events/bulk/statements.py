"""What a bulk statement writes, whether anybody wants to hear of it, and what cannot be told rightly."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from weakref import WeakKeyDictionary

from sqlalchemy import (
    Alias,
    ClauseElement,
    ColumnClause,
    Delete,
    Executable,
    Insert,
    Select,
    Sequence,
    Table,
    TextClause,
    TextualSelect,
    Update,
    event,
)
from sqlalchemy.orm import FromStatement, Mapper
from sqlalchemy.sql import visitors
from sqlalchemy.sql.functions import FunctionElement

from ...errors import BulkEventsError, BulkWriteError, BulkWriteWarning
from .. import compatibility
from ..heard_rows import heard_among, is_unheard, listening_to, roots_of
from ..plans import plans
from ..types import ModelEvent
from ..warn import warn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sqlalchemy import ColumnElement

    from ..plan import Plan
    from ..types import BulkPolicy

DML: TypeAlias = "Insert | Update | Delete"

_warned: WeakKeyDictionary[Mapper[Any], set[str]] = WeakKeyDictionary()
"""The kinds of statement that a warning was given for, by mapper."""


class Subject:
    """What one bulk statement writes.

    Attributes:
        name: The kind of statement, for messages: ``"insert"``, ``"update"`` or ``"delete"``.
        mapper: The mapper of the rows, an ancestor's where rows of several classes are among them; ``None`` where
            nobody listens to any, or where a table has several.
        heard: The mappers of the rows, descendants included, that have listeners.
        is_orm: Whether the statement was given a mapped class, not a table.
    """

    __slots__ = ("heard", "is_orm", "mapper", "name", "reason")

    def __init__(self, name: str, mapper: Mapper[Any] | None, heard: tuple[Mapper[Any], ...], *, is_orm: bool) -> None:
        """Describe a statement."""
        self.name: str = name
        self.mapper: Mapper[Any] | None = mapper
        self.heard: tuple[Mapper[Any], ...] = heard
        self.is_orm: bool = is_orm
        self.reason: str | None = None

    @property
    def described(self) -> str:
        """The statement, for messages."""
        mapper = self.mapper or self.heard[0]
        return f"{self.name}({mapper.class_.__qualname__})"


_READING = ("select", "show", "explain", "pragma", "values", "savepoint", "release")

_BEFORE_WORDS = re.compile(r"(?:[\s(]|--[^\n]*(?:\n|$)|/\*(?!M?!)(?:(?!/\*).)*?\*/)*", re.DOTALL)
"""White space, parentheses and comments; not those that MySQL and MariaDB execute, nor one inside another."""

_WRITING_WORDS = re.compile(r"\b(?:insert|update|delete|merge|replace)\b")


def may_write(statement: object) -> bool:
    """Whether a statement may write rows: of one in words only the first word tells, after WITH the others, too.

    Of a SELECT it is looked at whether it selects from what a CTE has written, not at what is deeper inside.
    """
    if type(statement) is Select:
        return compatibility.writes_in_cte(cast("Select[Any]", statement))
    text = _text(statement)
    if text is not None:
        if text.startswith("with"):
            return _WRITING_WORDS.search(text) is not None
        return not text.startswith(_READING)
    if isinstance(statement, (FromStatement, TextualSelect)):
        return may_write(statement.element)
    if isinstance(statement, (FunctionElement, Sequence)):  # which SQLAlchemy selects
        return False
    return not (isinstance(statement, Executable) and statement.is_select)


def inserts_elsewhere(statement: object) -> bool:
    """Whether a statement only adds rows to tables that nobody hears of: no row that was recorded is another then.

    An upsert or a REPLACE writes rows that are there, and the database may write others along with them. What is inside
    the statement is not looked at.
    """
    if not isinstance(statement, Insert):
        return False
    entity = compatibility.written_entity(statement)
    if not is_unheard((statement.table,) if entity is None else entity.mapper.tables):
        return False
    parts = compatibility.written(statement)
    return not (parts.prefixes or compatibility.conflict_update(parts.conflict))


def inner_writes(statement: object) -> Iterator[DML]:
    """Iterate over the INSERTs, UPDATEs and DELETEs inside another statement, which are in its CTEs.

    Of an INSERT its SELECT is gone through, of others that write their criteria: all there is to a statement on a table
    with many columns would take long.
    """
    for clause in _where_others_may_be(statement):
        for part in visitors.iterate(clause):
            if isinstance(part, (Insert, Update, Delete)):
                yield part


def _where_others_may_be(statement: object) -> Iterator[ClauseElement]:
    if isinstance(statement, (Insert, Update, Delete)):
        yield from compatibility.independent_ctes(statement)
        clause = statement.select if isinstance(statement, Insert) else statement.whereclause
        if clause is not None:
            yield clause
    elif isinstance(statement, ClauseElement):
        yield statement


def may_undo(statement: object) -> bool:
    """Whether a statement in words may take back what the transaction has written."""
    text = _text(statement)
    return text is not None and text.startswith("rollback")


def _text(statement: object) -> str | None:
    """Return a statement in words, ``text()`` or what a driver takes, from the first of them on."""
    words = statement.text if isinstance(statement, TextClause) else statement
    return _BEFORE_WORDS.sub("", words, count=1).lower() if isinstance(words, str) else None


def subject_of(statement: DML) -> Subject:
    """Resolve what a statement writes."""
    name = "insert" if isinstance(statement, Insert) else "update" if isinstance(statement, Update) else "delete"
    entity = compatibility.written_entity(statement)
    if entity is None:
        return _subject_of_table(name, statement.table)
    has_subclasses = len(entity.mapper.self_and_descendants) > 1  # to look for an upsert takes longer
    subject = subject_of_mapper(name, entity.mapper, finds_rows=has_subclasses and may_update(statement))
    if not isinstance(entity, Mapper):
        subject.reason = "it was given an alias"
    return subject


def may_update(statement: DML) -> bool:
    """Whether a statement updates rows that are there: any but an INSERT, and that where it is an upsert."""
    if not isinstance(statement, Insert):
        return True
    return bool(compatibility.conflict_update(compatibility.written(statement).conflict))


def subject_of_mapper(name: str, mapper: Mapper[Any], *, is_orm: bool = True, finds_rows: bool = False) -> Subject:
    """Resolve what writing rows of a mapper writes."""
    # An INSERT makes rows of a subclass only where they have no table of their own, but may find any.
    heard = heard_among(mapper, only_own_table=name == "insert" and is_orm and not finds_rows)
    return Subject(name, mapper if heard else None, heard, is_orm=is_orm)


def _subject_of_table(name: str, target: object) -> Subject:
    named: object = getattr(cast("object", target), "element", None) if isinstance(target, Alias) else target
    table = cast("Table | None", named if isinstance(named, Table) else None)
    members = () if table is None else listening_to(table)
    if table is None or not members:
        return Subject(name, None, (), is_orm=False)
    roots = roots_of(table, members)
    if len(roots) == 1:
        subject = subject_of_mapper(name, roots[0], is_orm=False)
        if isinstance(target, Alias):
            subject.reason = "it was given an alias"
        return subject
    subject = Subject(name, None, members, is_orm=False)
    subject.reason = f"several classes are mapped to the table {name_of(table)!r}, or parts of it"
    return subject


@event.listens_for(Mapper, "mapper_configured")
def _check_bulk_events(mapper: Mapper[Any], class_: type) -> None:  # noqa: ARG001 - SQLAlchemy calls it so
    """Refuse a wrong ``__bulk_events__`` when the mapper is configured."""
    opted_in(mapper)


def opted_in(mapper: Mapper[Any]) -> bool:
    """Return whether the class says that bulk statements on it make events.

    Raises:
        BulkEventsError: ``__bulk_events__`` is no truth value.
    """
    class_ = mapper.class_
    value = getattr(class_, "__bulk_events__", False)
    if not isinstance(value, bool):
        msg = f"{class_.__module__}.{class_.__qualname__}.__bulk_events__ is {value!r}: make it True or False"
        raise BulkEventsError(msg)
    return value


def to_tell(subject: Subject, events: object, hears: Collection[ModelEvent], policy: BulkPolicy) -> dict[Any, Plan]:
    """Return the plans whose listeners are to be told of a statement, and complain about those who are not.

    Args:
        subject: What the statement writes.
        events: The execution option ``events``; ``None`` where the statement has none.
        hears: What rows can become by the statement.
        policy: What the session does about a statement that nobody is told of.

    Raises:
        BulkEventsError: ``events`` is no truth value.
        BulkWriteError: The statement is not opted in, and the policy is to raise.
    """
    _check_events(events)
    told: dict[Any, Plan] = {}
    if events is False:
        return told
    for mapper, plan in _heard(subject):
        if opted_in(mapper) if events is None else events:
            told[mapper] = plan
        elif events is None and policy != "ignore" and _has_listener(plan, hears):
            if subject.name == "insert" and subject.is_orm and mapper is not subject.mapper:
                continue  # what it inserts are mostly rows of the class that it names
            remedy = (
                f"set __bulk_events__ = True on {mapper.class_.__qualname__}, give the statement "
                "execution_options(events=True), or events=False"
            )
            _complain(mapper, f"bulk {subject.name}", remedy, policy)
    return told


def with_relatives(mapper: Mapper[Any], told: dict[Any, Plan], events: object) -> dict[Any, Plan]:
    """Return the plans to tell of rows that are named by their keys, or new: they may be of other classes of the table.

    SQLAlchemy writes a row of a single-table hierarchy for whichever of its classes it is given the key, of a row with
    another part in a table of its own this part, and a column's default may make a new row one of the base class.

    Args:
        mapper: The mapper that the statement was given.
        told: The plans of those of its own rows.
        events: The execution option ``events``.
    """
    if not mapper.single:
        return told
    relatives: dict[Any, Plan] = {}
    for member in mapper.base_mapper.self_and_descendants:
        plan = plans.by_mapper[member] if mapper.local_table in member.tables else None
        if plan is not None and (opted_in(member) if events is None else events):
            relatives[member] = plan
    return {**relatives, **told}


def check_past_session(
    subject: Subject, events: object, hears: Collection[ModelEvent], policy: BulkPolicy, *, is_inside: bool = False
) -> None:
    """Complain about a statement that is sent to a connection, or inside another, where nobody can tell what it does.

    Takes what :func:`to_tell` takes, and whether the statement is inside another.

    Raises:
        BulkEventsError: ``events`` is no truth value.
        BulkWriteError: It was asked for events, or for nothing and the policy is to raise.
    """
    _check_events(events)
    if events and subject.heard:
        where = "it is inside another statement" if is_inside else "it was given to a connection"
        raise refuse(subject, f"{where}: give it to the session's execute()")
    if events is None and policy != "ignore":
        for mapper, plan in _heard(subject):
            if _has_listener(plan, hears):
                remedy = "give it to the session's execute(), or execution_options(events=False)"
                place = "inside another statement" if is_inside else "on a connection"
                _complain(mapper, f"{subject.name} {place}", remedy, policy)


def _check_events(events: object) -> None:
    if events is not None and not isinstance(events, bool):
        msg = f"the execution option events was given {events!r}: give it True or False"
        raise BulkEventsError(msg)


def _heard(subject: Subject) -> Iterator[tuple[Mapper[Any], Plan]]:
    for mapper in subject.heard:
        plan = plans.by_mapper[mapper]
        if plan is not None:
            yield mapper, plan


def _has_listener(plan: Plan, hears: Collection[ModelEvent]) -> bool:
    return any(not listener.events.isdisjoint(hears) for listener in plan.listeners)


def _complain(mapper: Mapper[Any], name: str, remedy: str, policy: BulkPolicy) -> None:
    message = (
        f"{mapper.class_.__qualname__} has listeners, and {'an' if name[0] in 'iu' else 'a'} {name} passes them by: "
        f"{remedy} to say that nobody needs to hear of it"
    )
    if policy == "raise":
        raise BulkWriteError(message)
    known = _warned.setdefault(mapper, set())
    if name not in known:
        known.add(name)
        warn(message, BulkWriteWarning)


def refuse(subject: Subject, reason: str) -> BulkWriteError:
    """Make the error for a statement whose events cannot be told as they are."""
    return BulkWriteError(
        f"{subject.described} cannot make events: {reason}. Write the rows through the unit of work, "
        "or give the statement execution_options(events=False) to do without events"
    )


def check_subject(subject: Subject) -> Mapper[Any]:
    """Return the mapper of the rows that are to be told of.

    Raises:
        BulkWriteError: The statement's rows cannot be told apart.
    """
    mapper = subject.mapper
    if mapper is None or subject.reason is not None:
        raise refuse(subject, subject.reason or "no mapped class was found for it")
    if not isinstance(mapper.local_table, Table):
        raise refuse(subject, "the class is mapped to something that is not a table")
    if any(member.concrete for member in mapper.self_and_descendants if member is not mapper):
        raise refuse(subject, "subclasses of it have tables of their own (concrete inheritance)")
    return mapper


def other_tables(mapper: Mapper[Any]) -> list[object]:
    """Return what else has a part of a class's rows, base tables first; nothing for those of a concrete subclass."""
    return [table for table in mapper.tables if table is not mapper.local_table]


def column_keys(columns: Iterable[Any]) -> set[str]:
    """Return the keys of columns that are given as columns, attributes or keys."""
    return {str(getattr(plain_column(column), "key", column)) for column in columns}


def assigned_names(columns: Iterable[Any]) -> set[str]:
    """Return the keys and names of columns that are given as columns, attributes or keys, or as parts of them.

    PostgreSQL can set an element of an array, or of JSON.
    """
    names: set[str] = set()
    for given in columns:
        element = plain_column(given)
        if isinstance(element, ClauseElement):
            for part in visitors.iterate(element):
                if isinstance(part, ColumnClause):
                    column = cast("Any", part)
                    names |= {str(column.key), str(column.name)}
        else:
            names.add(str(element))
    return names


def plain_column(given: object) -> object:
    """Return the column that a statement was given as such, as an attribute or by its key."""
    attribute = cast("Any", given)
    element: object = attribute.__clause_element__() if hasattr(attribute, "__clause_element__") else given
    return element


def name_of(table: object) -> object:
    """Return the name of a table, for messages."""
    return getattr(table, "name", table)


def column_of(mapper: Mapper[Any], key: str) -> ColumnElement[Any]:
    """Return the column, or the expression, of a column attribute."""
    return mapper.column_attrs[key].columns[0]
