"""The steps of a program that act on objects. Each is called with the sync session, where lazy loading is allowed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Executable, delete, insert, inspect, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import InstanceState, Session

from .oracle import Oracle
from .tables import MODELS, Account, Base, Line, Node, Note, Order, Reminder, Tag, base_table, trail

T = TypeVar("T", bound=Base)

COLUMNS: dict[type[Base], dict[str, tuple[object, ...]]] = {
    Account: {
        "name": ("name-1", "name-2", "x", None),
        "balance": (0, 1, 2, -1),
        "details": (None, {}, {"v": 1}, {"v": {"deep": [1]}}),
    },
    Order: {
        "qty": (0, 1, 2, -1),
        "price": (1, 2, 3),
        "status": ("a", "b", None),
        "comment": ("a", "b", None),
        "account_id": (1, 2, 3),
    },
    Line: {"label": ("a", "b", None), "order_id": (None, 1, 2, 3)},
    Node: {"name": ("a", "b", None), "parent_id": (None, 1, 2, 9)},
    Note: {"body": ("a", "b", None), "weight": (1, 2, None)},
    Reminder: {"body": ("a", "b", None), "due": (1, 2, None), "weight": (1, 2, None)},
    Tag: {"title": ("a", "b", None)},
}
"""The attributes that programs assign, and the values: few, so that they come back to where they were."""

EXPRESSIONS: tuple[tuple[type[Base], str, Callable[[int], object]], ...] = (
    (Order, "qty", lambda number: Order.qty + number),
    (Order, "price", lambda number: Order.price - number),
    (Account, "balance", lambda number: Account.balance - number),
    (Tag, "title", lambda number: Tag.title + "x" * number),
    (Note, "body", lambda number: Note.body + "x" * number),
    (Line, "label", lambda number: select(Tag.title).where(Tag.code == f"t{number}").scalar_subquery()),
)

BULK_VALUES: tuple[tuple[type[Base], str, Callable[[int], object]], ...] = (
    (Order, "qty", lambda number: Order.qty + number % 4 - 1),
    (Order, "status", lambda number: ("a", "b", None)[number % 3]),
    (Line, "label", lambda number: ("a", "b", None)[number % 3]),
    (Tag, "title", lambda number: Tag.title + "x" * (number % 3)),
    (Note, "body", lambda number: ("a", "b", None)[number % 3]),
    (Reminder, "due", lambda number: Reminder.due + number % 3),
    (Account, "balance", lambda number: Account.balance + number % 3 - 1),
)
"""The attributes that bulk statements set, and what to."""


def key_of(model: type[Base], number: int) -> object:
    """The primary key with a number."""
    return f"t{number}" if model is Tag else number


def mark_flush(session: Session) -> None:
    """Note in the trail that what comes next was written later."""
    Session.connection(session).execute(insert(trail).values(op="F"))  # see interpreter


FAMILIES: tuple[tuple[type[Base], str, type[Base], str], ...] = (
    (Order, "account", Account, "orders"),
    (Line, "order", Order, "lines"),
    (Node, "parent", Node, "children"),
)
"""A child, its parent's name, the parent, the children's name."""

Step: TypeAlias = Callable[[Session, int, int, int], None]


class Skip(Exception):  # noqa: N818 - not an error: there is nothing for the step to act on
    """The step does not apply to what there is."""


def state_of(instance: object) -> InstanceState[Any]:
    state: InstanceState[Any] = inspect(instance)
    return state


def detached_with(instance: Base, cascade: str) -> list[Base]:
    """Return the detached objects that a cascade reaches, the object itself included.

    Nobody can know the true old value of a row behind an object that was loaded in another age: no guarantee holds for
    it until it is loaded again.
    """
    state = state_of(instance)
    states = [state, *(found[2] for found in state.mapper.cascade_iterator(cascade, state))]
    instances: list[Base | None] = [found.obj() for found in states if found.detached]
    return [instance for instance in instances if instance is not None]


def is_ambiguous(session: Session, instance: Base, *, is_new: bool) -> bool:
    """Whether a flush would have to give one row to several new objects, once this one is added (or deleted).

    That is not for anybody to decide. Nor is it for a self-referential mapper, whose row SQLAlchemy switches as any
    other and then deletes all the same, to have even one successor.
    """
    successors = int(is_new) + sum(_is_same_row(new, instance) for new in session.new)
    is_deleted = not is_new or any(_is_same_row(gone, instance) for gone in session.deleted)
    return is_deleted and successors > (0 if isinstance(instance, Node) else 1)


def _is_same_row(one: Base, other: Base) -> bool:
    mapper = type(one).__mapper__
    same = mapper.base_mapper is type(other).__mapper__.base_mapper and one is not other
    return same and mapper.primary_key_from_instance(one) == mapper.primary_key_from_instance(other)


class Steps:
    """The objects of one program, and what may be done to them."""

    def __init__(self, oracle: Oracle) -> None:
        self.is_comparable = True
        """Whether a plain session, too, must come to where this run has come."""
        self._nodes = 10
        self._oracle = oracle
        self._objects: list[Base] = []

    def states(self) -> str:
        """Spell the state of every object: transient, pending, persistent (small), deleted (small) or detached."""
        return "".join(_letter(state_of(instance)) for instance in self._objects)

    def pick(self, number: int, model: type[T], *, persistent: bool = False, in_session: bool = False) -> T:
        """Choose an object, or raise ``Skip``."""
        chosen: list[Any] = []
        for instance in self._objects:
            state = state_of(instance)
            if (
                isinstance(instance, model)
                and (not persistent or state.persistent)
                and (not in_session or state.persistent or state.pending)
            ):
                chosen.append(instance)
        if not chosen:
            raise Skip
        picked: T = chosen[number % len(chosen)]
        return picked

    def _pick_or_none(self, number: int, model: type[T]) -> T | None:
        try:
            return self.pick(number, model, in_session=True)
        except Skip:
            return None

    def _keep(self, *instances: Base) -> None:
        self._objects += [new for new in instances if not any(new is known for known in self._objects)]

    def make(self, model: type[Base], key: int, variant: int) -> Base:
        """Make a new object, with some attributes left out in some variants."""
        attributes: dict[str, object] = {}
        for place, (name, values) in enumerate(COLUMNS[model].items()):
            if (variant + place) % 4 or name == "details":  # the step ``mutate`` depends on these
                attributes[name] = values[(variant * place) % len(values)]
        identity: dict[str, object] = {"code": f"t{key}"} if model is Tag else {"id": key}
        if model is Node:
            # SQLAlchemy switches the row of a self-referential mapper as any other, and then deletes it all the same.
            self._nodes += 1
            identity = {"id": self._nodes}
        if issubclass(model, Note):
            # No key serves two classes: which of them a row switch would leave is not for anybody to say.
            identity = {} if variant % 2 else {"id": key + 10 if model is Reminder else key + 2}
        if model is Account:
            attributes["name"] = f"name-{key}" if variant % 4 else "name-1"
        for child, parent_name, parent_model, _ in FAMILIES:
            if model is child and variant % 3:
                parent = self._pick_or_none(variant, parent_model)
                if parent is not None:
                    attributes.pop(f"{parent_name}_id", None)
                    attributes[parent_name] = parent
        if model is Order and "account" not in attributes:
            attributes["account_id"] = variant % 3 + 1
        return model(**identity, **attributes)

    # New objects.

    def add(self, session: Session, a: int, b: int, c: int) -> None:
        instance = self.make(MODELS[a % len(MODELS)], b % 5 + 1, c)
        if is_ambiguous(session, instance, is_new=True):
            raise Skip
        self._keep(instance)
        session.add(instance)

    def graph(self, session: Session, a: int, b: int, c: int) -> None:
        lines = [Line(id=c % 5 + 1 + number, label="a") for number in range(b % 3)]
        order = Order(id=b % 5 + 1, qty=c % 3, lines=lines)
        account = Account(id=a % 5 + 1, name=f"name-{a}", orders=[order])
        self._keep(account, order, *lines)
        session.add(account)

    def merge(self, session: Session, a: int, b: int, c: int) -> None:
        model = MODELS[a % len(MODELS)]
        identity = {"code": f"t{b % 5 + 1}"} if model is Tag else {"id": b % 5 + 1}
        names = list(COLUMNS[model])
        name = names[c % len(names)]
        known = session.get(model.__mapper__.base_mapper.class_, next(iter(identity.values())))
        if known is not None and type(known) is not model:
            raise Skip
        self._keep(session.merge(model(**identity, **{name: COLUMNS[model][name][b % 3]})))

    def readd(self, session: Session, a: int, b: int, c: int) -> None:
        chosen = [found for found in self._objects if state_of(found).transient or state_of(found).detached]
        if not chosen:
            raise Skip
        instance = chosen[a % len(chosen)]
        if is_ambiguous(session, instance, is_new=state_of(instance).transient):
            raise Skip
        detached = detached_with(instance, "save-update")
        session.add(instance)
        for found in detached:
            session.expire(found)
            self.is_comparable = False  # an event session loads again what it will tell of

    def replace(self, session: Session, a: int, b: int, c: int) -> None:
        """Delete a row and make a new one with the same key: in one flush (a row switch), or in two."""
        old = self.pick(a, Base, persistent=True)
        model = type(old)
        key = state_of(old).identity
        assert key is not None
        new = self.make(model, 1, b)
        setattr(new, "code" if model is Tag else "id", key[0])
        if (
            detached_with(old, "delete")
            or is_ambiguous(session, old, is_new=False)
            or is_ambiguous(session, new, is_new=True)
        ):
            raise Skip
        self._keep(new)
        if c % 4 == 3 and model is not Node:
            session.add(new)
        session.delete(old)
        if c % 2 or model is Node:
            session.flush()
        if c % 4 != 1:
            self.is_comparable = False  # what the new object leaves out is read back in an event session only
        session.add(new)

    # Objects there are.

    def load(self, session: Session, a: int, b: int, c: int) -> None:
        model = MODELS[a % len(MODELS)]
        statement = select(model).order_by(*model.__mapper__.primary_key)
        if c % 4 == 3:
            statement = statement.execution_options(populate_existing=True)
        self._keep(*session.scalars(statement))

    def get(self, session: Session, a: int, b: int, c: int) -> None:
        model = MODELS[a % len(MODELS)]
        found = session.get(model, f"t{b % 5 + 1}" if model is Tag else b % 5 + 1)
        if found is not None:
            self._keep(found)

    def forget(self, session: Session, a: int, b: int, c: int) -> None:
        """Let go of an object: unless the session needs it, it is gone."""
        if not self._objects:
            raise Skip
        del self._objects[a % len(self._objects)]
        self.is_comparable = False  # an event session keeps what it will tell of
        gc.collect(1)  # the young generations, where this program's objects are; all of pytest's would take too long

    # Their values.

    def change(self, session: Session, a: int, b: int, c: int) -> None:
        instance = self.pick(a, Base, in_session=b != 7)
        if state_of(instance).deleted:
            raise Skip
        columns = COLUMNS[type(instance)]
        name = list(columns)[b % len(columns)]
        setattr(instance, name, columns[name][c % len(columns[name])])

    def revert(self, session: Session, a: int, b: int, c: int) -> None:
        """Give an object the values that its row had at the last commit."""
        instance = self.pick(a, Base, persistent=True)
        identity = state_of(instance).identity
        assert identity is not None
        row = self._oracle.rows.get((base_table(type(instance)), str(identity[0])))
        if row is None:
            raise Skip
        for name in COLUMNS[type(instance)]:
            if name in row.values:
                setattr(instance, name, row.values[name])

    def expression(self, session: Session, a: int, b: int, c: int) -> None:
        model, name, make = EXPRESSIONS[b % len(EXPRESSIONS)]
        setattr(self.pick(a, model, in_session=True), name, make(c % 3))

    def mutate(self, session: Session, a: int, b: int, c: int) -> None:
        """Change a value in place."""
        details = self.pick(a, Account, in_session=True).details
        if details is None:
            raise Skip
        if b % 4 == 0:
            details.clear()
        elif b % 4 == 1:
            details.pop("v", None)
        elif b % 4 == 2:
            details.update(v=c % 3, w=[c])
        else:
            details["v"] = c % 3

    def rekey(self, session: Session, a: int, b: int, c: int) -> None:
        """Change a primary key."""
        model = (Tag, Line, Tag, Account)[c % 4]
        instance = self.pick(a, model, persistent=True)
        setattr(instance, "code" if model is Tag else "id", f"t{b % 5 + 1}" if model is Tag else b % 5 + 1)

    # Past the unit of work.

    def bulk_update(self, session: Session, a: int, b: int, c: int) -> None:
        """Update rows by criteria, with values or expressions, however the session is synchronized."""
        model, name, make = BULK_VALUES[a % len(BULK_VALUES)]
        key = next(iter(model.__mapper__.local_table.primary_key))
        statement = update(model).where(key > key_of(model, b % 3)).values({name: make(c)})
        self._execute(session, statement, synchronize_session=("auto", "fetch", "evaluate")[c % 3])

    def bulk_update_by_key(self, session: Session, a: int, b: int, c: int) -> None:
        """Update rows by primary key."""
        model = (Tag, Order, Line)[a % 3]
        name, values = list(COLUMNS[model].items())[0 if model is Tag else 2 if model is Order else 0]
        key = "code" if model is Tag else "id"
        rows = [{key: key_of(model, number), name: values[(c + number) % 2]} for number in (1, 2)]
        present = {row[0] for row in session.execute(select(getattr(model, key)))}
        rows = [row for row in rows if row[key] in present]  # SQLAlchemy takes a row that is not there for an error
        if not rows:
            raise Skip
        self._execute(session, update(model), rows)

    def bulk_delete(self, session: Session, a: int, b: int, c: int) -> None:
        """Delete rows by criteria."""
        model = (Line, Tag, Line, Tag, Order)[a % 5]
        key = next(iter(model.__mapper__.local_table.primary_key))
        statement = delete(model).where(key > key_of(model, b % 3))
        self._execute(session, statement, synchronize_session=("auto", "fetch", "evaluate")[c % 3])

    def bulk_insert(self, session: Session, a: int, b: int, c: int) -> None:
        """Insert rows: with keys of their own that may be taken, from the database, in two tables."""
        if a % 4 == 0:
            self._execute(session, insert(Tag), [{"code": f"t{b % 5 + 1}", "title": "b"}, {"code": f"u{c}"}])
        elif a % 4 == 1:
            self._execute(
                session, insert(Line).values([{"id": b % 5 + 1, "label": "a"}, {"id": c + 20, "label": None}])
            )
        elif a % 4 == 2:
            self._execute(session, insert(Note), [{"body": "a", "weight": b}, {"body": None, "weight": None}])
        else:
            self._execute(session, insert(Reminder), [{"body": "a", "due": b}, {"body": "b", "due": c}])

    def upsert(self, session: Session, a: int, b: int, c: int) -> None:
        """Insert tags, and update those that there are."""
        rows = [{"code": f"t{b % 5 + 1}", "title": ("a", "b", None)[c % 3]}, {"code": f"t{b % 5 + 2}", "title": "b"}]
        statement: Any
        if self._oracle.database.name == "mariadb":
            statement = mysql.insert(Tag)
            statement = statement.on_duplicate_key_update(title=statement.inserted.title)
        else:
            statement = (sqlite if self._oracle.database.name == "sqlite" else postgresql).insert(Tag)
            statement = statement.on_conflict_do_update(
                index_elements=["code"], set_={"title": statement.excluded.title}
            )
        self._execute(session, statement.values(rows) if a % 2 else statement, None if a % 2 else rows)
        if not session.in_nested_transaction():
            session.expire_all()  # an upsert leaves objects behind that show what was
            self.is_comparable = False  # an event session loads again what it will tell of

    def _execute(self, session: Session, statement: Executable, parameters: Any = None, **options: object) -> None:  # noqa: ANN401 - SQLAlchemy's
        try:
            session.execute(statement, parameters, execution_options={"events": True, **options})
        except InvalidRequestError:  # SQLAlchemy refuses it, when an event session has begun a transaction to read in
            self.is_comparable = False
            raise
        mark_flush(session)

    # Their relations.

    def move(self, session: Session, a: int, b: int, c: int) -> None:
        """Give a child to another parent, from either side."""
        child_model, parent_name, parent_model, children_name = FAMILIES[c % 3]
        child = self.pick(a, child_model, in_session=True)
        parent = self.pick(b, parent_model, in_session=True)
        if c == 7:
            setattr(child, parent_name, None)
        elif c >= 5:
            setattr(parent, children_name, [child])
        elif c >= 3:
            children = getattr(parent, children_name)
            if child not in children:
                children.append(child)
        else:
            setattr(child, parent_name, parent)

    def remove(self, session: Session, a: int, b: int, c: int) -> None:
        """Take a child from its parent; an order becomes an orphan."""
        _, _, parent_model, children_name = FAMILIES[c % 3]
        children = getattr(self.pick(a, parent_model, in_session=True), children_name)
        if not children:
            raise Skip
        children.remove(children[b % len(children)])


def _letter(state: InstanceState[Any]) -> str:
    if state.transient:
        return "T"
    if state.pending:
        return "P"
    if state.persistent:
        return "p"
    return "d" if state.deleted else "D"
