"""What mappers know of listeners, orphans, and columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy.orm import mapperlib

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Mapper


class MapperListeners(Protocol):
    """Who hears of a mapper's rows as a flush writes them; false for an event that nobody hears of."""

    before_insert: object
    after_insert: object
    before_update: object
    after_update: object
    before_delete: object
    after_delete: object


def listeners_of(mapper: Mapper[Any]) -> MapperListeners:
    """Return who hears of a mapper's rows, from now on always (``Mapper.dispatch``, which a mapper has for life).

    SQLAlchemy shows ``dispatch`` in the code for those who extend it, not in its documentation. Who listens is asked of
    it in each flush, since anybody may begin to at any time, also to all mappers.
    """
    return cast("MapperListeners", mapper.dispatch)


def hears_of_rows(mapper: Mapper[Any]) -> bool:
    """Whether anybody is called with a mapper's rows as a flush writes them; see :func:`listeners_of`."""
    heard = listeners_of(mapper)
    return bool(
        heard.before_insert
        or heard.after_insert
        or heard.before_update
        or heard.after_update
        or heard.before_delete
        or heard.after_delete
    )


def may_have_orphans(mapper: Mapper[Any]) -> bool:
    """Whether an object of the mapper can be deleted for want of a parent (``Mapper._delete_orphans``)."""
    return bool(mapper._delete_orphans)  # noqa: SLF001


def all_mappers() -> list[Mapper[Any]]:
    """Return every mapper of the process (``mapperlib._all_registries``): no table knows its classes.

    ``registry._managers``, since the public ``registry.mappers`` raises as long as the mapping of one class waits for
    its subclasses.
    """
    managers = (manager for registry in mapperlib._all_registries() for manager in registry._managers)  # noqa: SLF001
    return [manager.mapper for manager in managers if manager.is_mapped]


def equivalent_columns(mapper: Mapper[Any]) -> Mapping[ColumnElement[Any], Collection[ColumnElement[Any]]]:
    """Return the columns of each column's value in the other tables of a joined hierarchy.

    ``Mapper._equivalent_columns``; those of one step up or down, so that a grandparent's column takes two.
    """
    return cast("Any", mapper)._equivalent_columns  # type: ignore[no-any-return] # noqa: SLF001
