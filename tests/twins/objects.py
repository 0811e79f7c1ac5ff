"""The objects of a program, and what its steps need to choose and make them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Session, SessionTransaction

from .models import COLUMNS, Base
from .truth import table_of


class Skip(Exception):  # noqa: N818 - not an error: there is nothing for the step to act on
    """The step does not apply to what there is."""


class DeliberateError(Exception):
    """What a block raises because its program says so."""


def state_of(instance: object) -> InstanceState[Any]:
    state: InstanceState[Any] = inspect(instance)
    return state


class Objects:
    """The objects and savepoints of one program."""

    def __init__(self, session: Session, replace_session: Callable[[], Session]) -> None:
        self.session = session
        self.objects: list[Base] = []
        self.savepoints: list[SessionTransaction] = []
        self.said: list[str] = []
        self.assigned: dict[str, frozenset[str]] = {}
        """The objects to which the step assigns, and what they had loaded when it chose them."""
        self.unwatched: set[str] = set()
        """The tables into which the transaction has written past the unit of work, with nobody opting in."""
        self._replace_session = replace_session
        self._nodes = 10
        self._numbers = 0

    def name(self, instance: object) -> str:
        """Name an object by its number among those of the program."""
        for place, known in enumerate(self.objects):
            if known is instance:
                return f"{type(instance).__name__}_{place}"
        state = state_of(instance)
        return f"{type(instance).__name__}{state.key and state.key[1]}"

    def begin(self) -> None:
        """Begin a transaction, as loading would: a session with events may have loaded it already."""
        if not self.session.in_transaction():
            self.session.begin()

    def say(self, text: str) -> None:
        self.said.append(text)

    def keep(self, *instances: Base) -> None:
        self.objects += [new for new in instances if not any(new is known for known in self.objects)]

    def pick(self, number: int, model: type[Base] = Base, *kinds: str) -> Any:  # noqa: ANN401 - of any class
        """Choose an object that is in one of these states (``pending``, ``persistent``…; none given: any)."""
        chosen = [
            found
            for found in self.objects
            if isinstance(found, model) and (not kinds or any(getattr(state_of(found), kind) for kind in kinds))
        ]
        if not chosen:
            raise Skip
        picked = chosen[number % len(chosen)]
        self.assigned[self.name(picked)] = frozenset(vars(picked))
        return picked

    def make(self, model: type[Base], key: tuple[Any, ...] | None, variant: int) -> Base:
        """Make an object, with some attributes left out in some variants."""
        attributes: dict[str, Any] = {}
        for place, (name, values) in enumerate(COLUMNS[model].items()):
            if (variant + place) % 3:
                attributes[name] = values[(variant + place) % len(values)]
        if key is not None:
            attributes.update(zip(key_names(model), key, strict=True))
        return model(**attributes)

    def is_uncommitted(self, instance: Base) -> bool:
        """Whether an object's row is new in this transaction.

        Were it to leave the session, and another object loaded for the row, that would stay after a rollback.
        """
        transaction = self.session.get_nested_transaction() or self.session.get_transaction()
        while transaction is not None:
            if state_of(instance) in transaction._new:  # noqa: SLF001 - nobody else knows
                return True
            transaction = transaction.parent
        return False

    def is_ambiguous(self) -> bool:
        """Whether two new objects are to take over the row of one that is to be deleted, or have a key partly NULL.

        SQLAlchemy takes from a set which of them is first: the other one's values stay, or it is the one that the
        session goes on to know. Of other keys the database refuses the second.
        """
        deleted = {
            (table_of(type(each)), state_of(each).identity) for each in cast("list[Base]", [*self.session.deleted])
        }
        new = Counter(map(_row_to_be, cast("list[Base]", [*self.session.new])))
        return any(count > 1 and (row in deleted or _is_partly_null(row[1])) for row, count in new.items())

    def expire_reached(self, instance: Base) -> None:
        """Expire what has come into the session with an object: it was loaded in another age, and others have written.

        "An old value that the session had loaded is taken for the row's", and what was loaded for callbacks stays.
        """
        state = state_of(instance)
        for reached in [state, *(found[2] for found in state.mapper.cascade_iterator("save-update", state))]:
            if reached.persistent:
                self.session.expire(reached.obj())

    def write_past(self, model: type[Base]) -> None:
        if not getattr(model, "__bulk_events__", False):
            self.unwatched.add(table_of(model))

    def row_of(self, model: type[Base], key: tuple[Any, ...], variant: int) -> dict[str, Any]:
        values = {name: values[variant % len(values)] for name, values in COLUMNS[model].items()}
        values.pop("box_code", None)
        return {**values, **dict(zip(key_names(model), key, strict=True))}


def key_names(model: type[Base]) -> list[str]:
    mapper = model.__mapper__
    return [mapper.get_property_by_column(column).key for column in mapper.primary_key]


def _row_to_be(instance: Base) -> tuple[str, tuple[Any, ...] | None]:
    return table_of(type(instance)), tuple(vars(instance).get(name) for name in key_names(type(instance)))


def _is_partly_null(key: tuple[Any, ...] | None) -> bool:
    return key is not None and None in key and key.count(None) < len(key)


def shown(instance: Base) -> str:
    """Spell what an object has loaded, but for relationships."""
    state = state_of(instance)
    return ", ".join(f"{key}={value!r}" for key, value in state.dict.items() if key in state.mapper.column_attrs)
