"""Objects: expired, loaded and announced as SQLAlchemy itself does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import InstanceState, SessionTransaction, attributes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from sqlalchemy.orm import Mapper, Session
    from sqlalchemy.orm.instrumentation import ClassManager


def is_orphan(state: InstanceState[Any]) -> bool:
    """Whether the next flush deletes a modified object of such a mapper (``Mapper._is_orphan``, as it asks)."""
    return bool(state.manager.mapper._is_orphan(state))  # noqa: SLF001


def were_deleted(states: Iterable[InstanceState[Any]]) -> bool:
    """Whether one of the objects was deleted before, and not made anew since (``InstanceState._deleted``).

    To call the public property ``was_deleted`` takes as long as all else that is asked of a row before its deletion.
    Would the attribute go, every flush that deletes would fail.
    """
    for state in states:  # noqa: SIM110 - a generator would take longer than the loop
        if state._deleted:  # noqa: SLF001
            return True
    return False


def expirable_states(session: Session, transaction: SessionTransaction) -> list[InstanceState[Any]]:
    """Return the states that a commit under ``expire_on_commit`` would have expired; detach the deleted ones now.

    The twin of ``SessionTransaction._remove_snapshot``, whose expiry the library puts off until callbacks have run.
    Should SQLAlchemy do more there one day, objects would stay attached or loaded longer than on a plain session.
    """
    deleted = transaction._deleted  # noqa: SLF001
    if deleted:
        states: type[InstanceState[Any]] = InstanceState
        states._detach_states(list(deleted), session)  # noqa: SLF001
        deleted.clear()
    return session.identity_map.all_states()


_NEEDS_MORE = ("_last_known_values", "_pending_mutations", "callables", "parents")
"""Attributes of a state for which ``InstanceState._expire`` does something more; most states have none of them."""


def expire(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Expire states that are still persistent in the session (``Session.expire`` without its walk of cascades).

    Does what ``InstanceState._expire`` does, but finds out once for each class, not once for each object, which keys
    that concerns: it takes a third of the time. States of which more has to be forgotten than columns go through
    ``_expire`` itself. Would ``_expire`` clear yet another attribute one day, that one would stay.
    """
    expired_too = session.identity_map._modified  # noqa: SLF001
    instance_dict = attributes.instance_dict
    session_key = session.hash_key
    manager: ClassManager[Any] | None = None
    loadable: AbstractSet[str] = frozenset()  # a set is merged into another one in half the time of a list
    mapped: AbstractSet[str] = frozenset()
    state_attribute = ""
    is_simple = False
    for state in states:
        if state.session_id != session_key or state.key is None or state._deleted:  # noqa: SLF001
            continue
        if state.manager is not manager:
            manager = state.manager
            loadable = frozenset(attribute.key for attribute in manager._loader_impls)  # noqa: SLF001
            state_attribute = manager.STATE_ATTR
            mapped = manager._all_key_set | {state_attribute}  # noqa: SLF001
            is_simple = not (manager._collection_impl_keys or manager.dispatch.expire)  # noqa: SLF001
        instance = state.obj()
        if instance is None:
            continue
        loaded = instance_dict(instance)
        details = state.__dict__
        if is_simple and not state.modified and details.keys().isdisjoint(_NEEDS_MORE) and loaded.keys() <= mapped:
            state.expired = True
            state._strong_obj = None  # noqa: SLF001
            state.expired_attributes.update(loadable)
            loaded.clear()
            loaded[state_attribute] = state
        else:
            state._expire(loaded, expired_too)  # noqa: SLF001


def set_loaded(state: InstanceState[Any], instance: object, values: Mapping[str, object]) -> None:
    """Give an object values of columns as if SQLAlchemy had loaded them.

    ``InstanceState._commit`` is what the public ``set_committed_value()`` calls for each attribute by itself, in
    several times the time. Would it forget less one day, such attributes would be loaded again when they are read.
    """
    loaded = attributes.instance_dict(instance)
    loaded.update(values)
    state._commit(loaded, values)  # noqa: SLF001


_ADOPT_VALUES = {"sqlalchemy.ext.mutable", "sqlalchemy.orm.descriptor_props"}
"""The modules of SQLAlchemy's whose listeners make mutable values and composites of what was loaded."""


def has_mutable_values(mapper: Mapper[Any]) -> bool:
    """Whether a class has values that tell it when they change (``sqlalchemy.ext.mutable``), whatever their types.

    The same listeners: the extension says nowhere what it follows. Would it listen otherwise, the values of a mutable
    type over a plain one, such as a text, would not be copied.
    """
    return any(listener.__module__ == "sqlalchemy.ext.mutable" for listener in mapper.class_manager.dispatch.refresh)


def announce_load(state: InstanceState[Any]) -> None:
    """Tell the same listeners that an object was loaded, and call the class's ``@reconstructor``.

    ``InstanceState.manager.dispatch.load``: without it a copy that callbacks are shown would lack what the class sets
    on each of its objects.
    """
    for listener in state.manager.dispatch.load:
        if listener.__module__ in _ADOPT_VALUES or listener.__module__ == "sqlalchemy.orm.mapper":
            listener(state, None)


def announce_refresh(state: InstanceState[Any], names: Iterable[str]) -> None:
    """Tell SQLAlchemy's own ``refresh`` listeners that attributes were loaded, so that mutable types adopt the values.

    ``InstanceState.manager.dispatch``: SQLAlchemy's own loading fires the same event. Without it a ``MutableDict``
    loaded by the library would be a plain dict whose changes nobody sees. Those of others may want the query that has
    loaded them, which there is not.
    """
    for listener in state.manager.dispatch.refresh:
        if listener.__module__ in _ADOPT_VALUES:
            listener(state, None, names)
