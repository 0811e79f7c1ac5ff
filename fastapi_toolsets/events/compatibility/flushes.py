"""Flushes: what is to be flushed, what was, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sqlalchemy
from sqlalchemy.orm import InstanceState, SessionTransaction
from sqlalchemy.orm.state_changes import _StateChangeStates

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.orm import Mapper, ORMExecuteState, Session
    from sqlalchemy.orm.attributes import History
    from sqlalchemy.orm.unitofwork import UOWTransaction


def flushed_states(flush: UOWTransaction) -> Mapping[Mapper[Any], Collection[InstanceState[Any]]]:
    """Return the states that a flush deals with, by mapper.

    ``UOWTransaction.mappers``: there is no public way to go by mapper; ``session.new``, ``dirty`` and ``deleted`` have
    no orphans and cost a set per call. Would it go, every flush would have to be read object by object.
    """
    return flush.mappers


def flush_fate(flush: UOWTransaction) -> Mapping[InstanceState[Any], tuple[bool, bool]]:
    """Return ``(is_delete, list_only)`` for each state of a flush.

    ``UOWTransaction.states``. A state that is ``list_only`` is not written; a deleted one that is ``list_only`` had its
    row taken over by another object in the same flush (a row switch).
    """
    return flush.states  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - it says no types


def deletes_what_was_taken_over(flush: UOWTransaction, mapper: Mapper[Any]) -> bool:
    """Whether a flush deletes a mapper's row although another object has taken it over: a row switch that fails.

    ``UOWTransaction.cycles``, the actions in which it goes object by object, since rows refer to others of their own
    table, or to each other. SQLAlchemy (2.0 and 2.1) then deletes each object that was to be deleted when it began,
    without a look at what has become of its row. Should it look one day, such rows were told of as deleted and are
    there.
    """
    return any(
        action.sort_key[0] == "DeleteAll" and action.mapper is mapper.base_mapper
        for action in cast("Any", flush).cycles
    )


def savepoint_of_flush(flush: UOWTransaction) -> SessionTransaction | None:
    """Return the savepoint in which a flush writes, if any (``UOWTransaction.transaction``).

    ``Session.get_nested_transaction()`` would not do: SQLAlchemy gives it that only once listeners of its creation were
    called, which may flush into it.
    """
    transaction: SessionTransaction | None = flush.transaction.parent
    while transaction is not None and not transaction.nested:
        transaction = transaction.parent
    return transaction


def flush_history(flush: UOWTransaction, state: InstanceState[Any], key: str) -> History:
    """Return the history that a relationship had when a flush began to write, of states instead of objects.

    ``UOWTransaction.get_attribute_history``, which keeps what the flush has asked. Asked anew, a relationship that was
    not loaded when it was assigned looks for what it led to, and finds the rows as they are now.
    """
    history: History = cast("Any", flush).get_attribute_history(state, key)
    return history


def unflushed_states(
    session: Session,
) -> tuple[Collection[InstanceState[Any]], Collection[InstanceState[Any]], Collection[InstanceState[Any]]]:
    """Return the persistent states with changes, those to be deleted, and the new ones, that await a flush.

    ``IdentityMap._modified``, ``Session._deleted`` and ``_new``: ``session.dirty``, ``deleted`` and ``new`` give the
    same as objects, at the price of sets that are made at each call.
    """
    return session.identity_map._modified, session._deleted, session._new  # noqa: SLF001


def is_clean(session: Session) -> bool:
    """Whether the session has nothing to flush (:func:`unflushed_states`), as ``Session._is_clean`` asks."""
    return not (session.identity_map._modified or session._deleted or session._new)  # noqa: SLF001


def in_flush(session: Session) -> bool:
    """Whether a flush is under way, its listeners included (``Session._flushing``): another one would be refused."""
    return session._flushing  # noqa: SLF001


def is_flushing(session: Session) -> bool:
    """Whether the unit of work is sending its statements right now.

    ``Session._warn_on_events``, by which SQLAlchemy warns of what has no place there; it is off while the listeners of
    ``before_flush`` and ``after_flush`` run. Without it what they send on a connection could not be told from a flush.
    """
    return session._warn_on_events  # noqa: SLF001


def is_of_unit_of_work(options: Mapping[str, Any]) -> bool:
    """Whether a statement that is sent during a flush has the execution options of one for a mapper's own rows.

    ``compiled_cache``, the cache of statements that each mapper has for its flushes. Without it what the listeners of a
    mapper's events send meanwhile could not be told from the flush that calls them.
    """
    return options.get("compiled_cache") is not None


_FLUSHES_BEFORE_CORE = not sqlalchemy.__version__.startswith("2.0.")


def autoflush(execution: ORMExecuteState) -> None:
    """Flush if SQLAlchemy would before it runs a statement (``Session._autoflush``): an error says what it comes from.

    The execution option ``autoflush`` is for statements on mapped classes. Those on tables are flushed for from 2.1 on.
    """
    options = execution.execution_options
    if options.get("autoflush", True) if execution.is_orm_statement else _FLUSHES_BEFORE_CORE:
        execution.session._autoflush()  # noqa: SLF001


def roll_back_flush(flush: SessionTransaction) -> None:
    """Roll back a flush, given the transaction that it is, from within the event of its creation.

    ``SessionTransaction.rollback(_capture_exception=True)``, as ``Session._flush`` does with whatever is raised later:
    until somebody rolls back, too, the session refuses to be used, and says what was raised. Without it the session
    would be left in a transaction that nobody can end. And since the flush's parent is in ``_begin()`` meanwhile, which
    is done for (``_StateChange._next_state``), listeners of ``after_soft_rollback`` could not end that.
    """
    begins = cast("Any", flush.parent)
    begins._next_state = _StateChangeStates.ANY  # noqa: SLF001
    flush.rollback(_capture_exception=True)
