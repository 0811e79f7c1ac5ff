"""Reads rows that somebody's event needs and no object has loaded: inside the transaction, 500 rows a SELECT."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import ARRAY, Integer, Uuid, and_, bindparam, case, cast, func, or_, select, tuple_, update
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import make_transient_to_detached

from .. import compatibility
from ..plan import state_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import InstanceState, Mapper, Session

    from ..plan import Plan
    from ..records import IdentityKey


class OwnArguments(dict[str, Any]):
    """The ``bind_arguments`` with which the library itself asks a session for a connection."""


ROWS_PER_SELECT = 500
"""More values in one IN list are slower, and drivers have bounds (asyncpg takes 32,767 parameters)."""

_WANTED = "wanted"
_statements: WeakKeyDictionary[Mapper[Any], dict[tuple[tuple[str, ...], bool], Select[Any]]] = WeakKeyDictionary()

_STATEMENTS_OF_MAPPER = 100
"""How many are kept of a mapper; queries that load other columns each time may make thousands."""

_ROWS_AT_ONCE = 100
"""How many rows are fetched at a time: each is some containers, and some hundreds call the garbage collector up."""

_ROWS_FOR_ARRAY = 10
"""From so many rows on PostgreSQL is given the keys as one array: half the time for 100, a third for 500.

``IN (SELECT unnest(...))``, not ``= ANY (...)``, for which it looks through the array again for each row.
"""


def unloaded_columns(state: InstanceState[Any], plan: Plan) -> list[str]:
    """Return the column attributes that reading them from the object would have to load.

    An attribute that an INSERT left out is not among them: SQLAlchemy reads it as ``None`` without asking. One that the
    database makes is, where SQLAlchemy has forgotten that it is expired: reading an expired attribute has flushed, and
    what that flush has expired of the object is taken for loaded with the rest.
    """
    loaded = state.dict
    if not (state.expired_attributes or state.callables) and (not plan.fetched or plan.fetched <= loaded.keys()):
        return []
    return [
        key
        for key in plan.columns
        if key not in loaded and (key in state.expired_attributes or key in state.callables or key in plan.fetched)
    ]


def readable_columns(state: InstanceState[Any], plan: Plan) -> dict[str, Any]:
    """Return what the column attributes of an object show that can be read without loading anything.

    What an INSERT left out is not loaded, and reads as ``None``.
    """
    loaded, columns = state.dict, plan.columns
    readable = {key: loaded[key] for key in columns if key in loaded}
    if len(readable) < len(columns):
        readable.update(dict.fromkeys(columns.keys() - readable.keys() - set(unloaded_columns(state, plan))))
    return readable


def populate(state: InstanceState[Any], values: Mapping[str, object]) -> None:
    """Give an object values as if SQLAlchemy had loaded them."""
    instance = state.obj()
    if instance is None:
        return
    compatibility.set_loaded(state, instance, values)
    compatibility.announce_refresh(state, values.keys())


def detached_copy(plan: Plan, row: Mapping[str, object]) -> object:
    """Return an object of its own, in no session, that shows a row.

    Args:
        plan: The plan of the row's mapper.
        row: The row's column attributes.
    """
    instance = plan.mapper.class_manager.new_instance()
    compatibility.set_loaded(state_of(instance), instance, row)
    make_transient_to_detached(instance)
    compatibility.announce_load(state_of(instance))
    return instance


def read_rows(
    session: Session, mapper: Mapper[Any], identities: Iterable[IdentityKey], keys: Collection[str]
) -> dict[IdentityKey, dict[str, Any]]:
    """Read column attributes of rows, past the session's own loading, so that no loader criteria hide a row.

    Args:
        session: The session in whose transaction to read.
        mapper: The mapper of the rows.
        identities: The identity keys of the rows.
        keys: The column attributes to read.

    Returns:
        The values by attribute, by identity key; a row that is not there is missing.
    """
    names = list(keys)
    by_shard: dict[Any, dict[tuple[Any, ...], IdentityKey]] = {}
    for key in identities:
        by_shard.setdefault(key[2], {})[key[1]] = key
    rows: dict[IdentityKey, dict[str, Any]] = {}
    for shard, wanted in by_shard.items():
        for identity, values in read_values(session, mapper, wanted, names, shard):
            # A key may come back as another value than it was given as: nobody asks for such a row, but it is there.
            key = wanted.get(identity) or mapper.identity_key_from_primary_key(identity, shard)
            rows[key] = dict(zip(names, values, strict=True))
    return rows


def read_values(
    session: Session,
    mapper: Mapper[Any],
    identities: Iterable[tuple[Any, ...]],
    keys: Iterable[str],
    shard: object = None,
    *,
    past_snapshot: bool = False,
) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Read what :func:`read_rows` reads, a row at a time: its primary key and its values in the order of the keys.

    It takes primary keys, too, and in a sharded session the shard that their rows are in.

    Args:
        session: As there.
        mapper: As there.
        identities: The primary keys.
        keys: As there.
        shard: The shard.
        past_snapshot: Whether to read rows, which are locked already, as they are: MariaDB shows a row that an UPDATE
            gave the values that it had as it was when the transaction first read, and not what others have made of it.
    """
    names = tuple(keys)
    connection = writing_connection(session, mapper, shard)
    width = len(mapper.primary_key)
    takes_array = connection.dialect.name == "postgresql" and _fits_array(mapper)
    locks = past_snapshot and connection.dialect.name in ("mysql", "mariadb")
    if width > 1:
        identities = [*identities]
        partial = [identity for identity in identities if None in identity]
        if partial:  # SQLAlchemy takes such keys, of an outer join's rows, where not all of it is NULL
            yield from _read_partial(connection, mapper, partial, names)
            identities = [identity for identity in identities if None not in identity]
    for chunk in chunks(identities):
        by_array = takes_array and len(chunk) >= _ROWS_FOR_ARRAY
        statement = _select_by_identity(mapper, names, by_array=by_array, locks=locks)
        asked = set(chunk)
        strange: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for rows in connection.execute(statement, {_WANTED: _plain(chunk)}).partitions(_ROWS_AT_ONCE):
            columns = [*zip(*rows, strict=True)]
            for identity, values in zip(
                zip(*columns[:width], strict=True), zip(*columns[width:], strict=True), strict=True
            ):
                if identity in asked:
                    asked.discard(identity)
                    yield identity, values
                else:
                    strange[identity] = values
        if strange:
            stored = stored_identities(connection, mapper, [identity for identity in chunk if identity in asked])
            for identity, other in stored.items():
                if other in strange:
                    yield identity, strange[other]


def _read_partial(
    connection: Connection, mapper: Mapper[Any], identities: Iterable[tuple[Any, ...]], names: tuple[str, ...]
) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Do it for primary keys of which a part is NULL, which equals nothing."""
    primary_key = mapper.primary_key
    columns = (mapper.column_attrs[name].columns[0] for name in names)
    statement = select(*primary_key, *columns).select_from(mapper.persist_selectable)
    for chunk in chunks(identities):
        wanted = [
            and_(*(column.is_not_distinct_from(value) for column, value in zip(primary_key, identity, strict=True)))
            for identity in chunk
        ]
        for row in connection.execute(statement.where(or_(*wanted))):
            yield tuple(row[: len(primary_key)]), tuple(row[len(primary_key) :])


def stored_identities(
    connection: Connection, mapper: Mapper[Any], identities: Sequence[tuple[Any, ...]]
) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return what the database has for primary keys, where it has other values than it was given.

    They may be cut, padded, or written otherwise. Which is which only the database can tell: it compares each row with
    one key after another.

    Args:
        connection: Where to ask.
        mapper: The mapper of the rows.
        identities: The keys as they were given, not more than make one SELECT.

    Returns:
        The row's key by the key that was given, in the order in which they were; a row that is not there is missing.
    """
    if not identities:
        return {}
    primary_key = mapper.primary_key
    places = [
        (and_(*(column == value for column, value in zip(primary_key, identity, strict=True))), place)
        for place, identity in enumerate(identities)
    ]
    statement = select(case(*places), *primary_key).select_from(mapper.persist_selectable)
    found: dict[int, tuple[Any, ...]] = {}
    for place, *key in connection.execute(statement.where(has_identity(primary_key, identities))):
        if place is not None:
            found[place] = tuple(key)
    return {identities[place]: found[place] for place in sorted(found)}


def _fits_array(mapper: Mapper[Any]) -> bool:
    """Whether an array of primary keys compares as the keys do; texts may not, nor what types of one's own make."""
    return len(mapper.primary_key) == 1 and isinstance(mapper.primary_key[0].type, Integer | Uuid)


def _select_by_identity(mapper: Mapper[Any], keys: tuple[str, ...], *, by_array: bool, locks: bool) -> Select[Any]:
    """Return the SELECT of columns by primary key, kept since to build it takes half as long as a small one runs."""
    statements = _statements.setdefault(mapper, {})
    statement = statements.get((keys, by_array))
    if statement is None:
        primary_key = mapper.primary_key
        wanted: ColumnElement[Any] | Select[Any] = bindparam(_WANTED, expanding=True)
        if by_array:
            array = ARRAY(primary_key[0].type)
            wanted = select(func.unnest(cast(bindparam(_WANTED, type_=array), array)))  # not all drivers tell the type
        statement = select(*primary_key, *(mapper.column_attrs[name].columns[0] for name in keys))
        statement = statement.select_from(mapper.persist_selectable).where(_identity(primary_key).in_(wanted))
        if len(statements) >= _STATEMENTS_OF_MAPPER:
            statements.clear()
        statements[keys, by_array] = statement
    return statement.with_for_update() if locks else statement


def is_sharded(session: Session) -> bool:
    """Whether the session writes rows of one mapper to several databases, which the identity token of each tells."""
    return isinstance(session, ShardedSession)


def writing_connection(session: Session, mapper: Mapper[Any], shard: object = None) -> Connection:
    """Return the connection on which the session writes the mapper's rows, in its transaction."""
    # The clause tells a routing ``get_bind`` to take the connection that writes: the rows are not elsewhere yet.
    arguments = OwnArguments(mapper=mapper, clause=update(mapper.tables[0]))
    if is_sharded(session):
        arguments["shard_id"] = shard
    with compatibility.usable_in_begin_block(session):
        return session.connection(bind_arguments=arguments)


def read_objects(
    session: Session, mapper: Mapper[Any], identities: Collection[tuple[Any, ...]], token: object
) -> dict[tuple[Any, ...], object]:
    """Return the session's objects with an identity token by primary key, loading those that it has not."""
    found: dict[tuple[Any, ...], object] = {}
    missing: list[tuple[Any, ...]] = []
    for identity in identities:
        known = session.identity_map.get(mapper.identity_key_from_primary_key(identity, token))
        if known is None:
            missing.append(identity)
        else:
            found[identity] = known
    for chunk in chunks(missing):
        with compatibility.usable_in_begin_block(session):
            statement = select(mapper).where(has_identity(mapper.primary_key, chunk))
            loaded = session.scalars(statement, execution_options={"identity_token": token}).unique().all()
        for instance in loaded:
            found[tuple(mapper.primary_key_from_instance(instance))] = instance
    return found


def has_identity(
    primary_key: Sequence[ColumnElement[Any]], identities: Sequence[tuple[Any, ...]]
) -> ColumnElement[bool]:
    """Return the criterion that a row has one of the primary keys."""
    return _identity(primary_key).in_(_plain(identities))


def _identity(primary_key: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]:
    """Return what a row is told apart by: its key's only column, or a tuple of them."""
    return primary_key[0] if len(primary_key) == 1 else tuple_(*primary_key)


def _plain(identities: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
    """Return primary keys as they are compared with :func:`_identity`: without the tuple around a single value."""
    return identities if len(identities[0]) > 1 else [value for (value,) in identities]


def chunks(identities: Iterable[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Cut into pieces of which each makes one SELECT."""
    iterator = iter(identities)
    while chunk := list(islice(iterator, ROWS_PER_SELECT)):
        yield chunk
