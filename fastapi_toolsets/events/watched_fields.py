"""Which attributes of a class can be watched, and whether its ``__watched_fields__`` names such."""

from __future__ import annotations

import contextlib
import difflib
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from sqlalchemy import ColumnClause, event, inspect
from sqlalchemy.orm import ColumnProperty, CompositeProperty, Mapper
from sqlalchemy.orm.exc import UnmappedClassError

from ..errors import WatchedFieldsError
from . import compatibility
from .registry import registry

if TYPE_CHECKING:
    from sqlalchemy.orm import MapperProperty, RelationshipProperty


def is_of_row(prop: MapperProperty[Any]) -> TypeGuard[ColumnProperty[Any]]:
    """Whether the row alone gives a column attribute its value, and nobody has said that reading it takes asking.

    Not so an SQL expression that is deferred, which may fail or want a parameter, what each query says for itself, the
    discriminator of a union of tables, and one that is an SQL expression, for which no object has an attribute.
    """
    if not isinstance(prop, ColumnProperty) or prop.key not in prop.parent.class_manager:
        return False
    columns = [column for column in prop.columns if isinstance(column, ColumnClause) and not column.is_literal]
    if columns:
        return all(map(prop.parent.persist_selectable.c.contains_column, columns))
    return not prop.deferred and ("query_expression", True) not in prop.strategy_key


def watched_fields(mapper: Mapper[Any]) -> tuple[str, ...] | None:
    """Return the names in ``__watched_fields__`` of the mapper's class, ``None`` where it has none.

    Raises:
        WatchedFieldsError: It is not a tuple of names of mapped attributes.
    """
    class_ = mapper.class_
    names = getattr(class_, "__watched_fields__", None)
    if names is None and not hasattr(class_, "__watched_fields__"):
        return None
    where = f"{class_.__module__}.{class_.__qualname__}.__watched_fields__"
    given = cast("tuple[object, ...]", names) if isinstance(names, tuple) else None
    if given is None or not all(isinstance(name, str) for name in given):
        example = f'("{names}",)' if isinstance(names, str) else '("status",)'
        msg = f"{where} is {names!r}: make it a tuple of attribute names such as {example}"
        raise WatchedFieldsError(msg)
    known = {*mapper.relationships.keys(), *mapper.synonyms.keys()}
    known.update(prop.key for prop in mapper.column_attrs if is_of_row(prop))
    known.update(prop.key for prop in mapper_composites(mapper))
    checked = tuple(str(name) for name in given)
    for name in checked:
        if name not in known and not _may_come(mapper, name):
            if name in mapper.column_attrs:
                msg = (
                    f"{where} names {name!r}, an SQL expression that only queries make: name the columns that it is of"
                )
                raise WatchedFieldsError(msg)
            nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
            hint = f"did you mean {nearest[0]!r}?" if nearest else "the mapper has no attributes"
            msg = f"{where} names {name!r}, which is no mapped attribute of {class_.__qualname__}: {hint}"
            raise WatchedFieldsError(msg)
    return checked


def _may_come(mapper: Mapper[Any], name: str) -> bool:
    """Whether a mapper that is configured later may give this one the name, by its relationship's ``backref``."""
    return any(
        _backref_of(relationship) == name and _may_lead_to(relationship, mapper)
        for other in compatibility.all_mappers()
        if not other.configured
        for relationship in other.relationships
    )


def _backref_of(relationship: RelationshipProperty[Any]) -> str | None:
    """Return the name that a relationship gives the class at its other end, given alone or with arguments."""
    backref = relationship.backref
    return backref[0] if isinstance(backref, tuple) else backref


def _may_lead_to(relationship: RelationshipProperty[Any], mapper: Mapper[Any]) -> bool:
    """Whether the class that a relationship names, perhaps in words, may be the mapper's."""
    named: object = relationship.argument
    if isinstance(named, str):
        return named.rpartition(".")[2] == mapper.class_.__name__
    return not isinstance(named, type) or named is mapper.class_


def mapper_composites(mapper: Mapper[Any]) -> list[CompositeProperty[Any]]:
    """Return the mapper's composites."""
    return [prop for prop in mapper.attrs if isinstance(prop, CompositeProperty)]


def _check_configured(target: type) -> None:
    """Check what was configured before the library was imported, when somebody begins to listen to it."""
    waiting = [target]
    found = {target}  # each once: there may be many ways from one to another
    for class_ in waiting:
        derived: list[type] = type.__subclasses__(class_)
        waiting += [subclass for subclass in derived if subclass not in found]
        found.update(derived)
        with contextlib.suppress(UnmappedClassError):  # its mapping waits for all subclasses, as it may
            mapper = cast("Mapper[Any] | None", inspect(class_, raiseerr=False))
            if mapper is not None and mapper.configured:
                watched_fields(mapper)


registry.checks.append(_check_configured)


@event.listens_for(Mapper, "mapper_configured")
def _check_watched_fields(mapper: Mapper[Any], class_: type) -> None:  # noqa: ARG001 - SQLAlchemy calls it so
    """Refuse a wrong ``__watched_fields__`` when the mapper is configured, long before somebody's flush."""
    watched_fields(mapper)
