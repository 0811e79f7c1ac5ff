"""The steps of a program. Each is called with the sync session, and says in words what it has done."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import make_transient
from sqlalchemy.orm.exc import DetachedInstanceError, ObjectDeletedError

from .models import (
    COLUMNS,
    FAMILIES,
    KEYS,
    MODELS,
    Address,
    Base,
    Box,
    Club,
    Content,
    Letter,
    Node,
    Owner,
    Pet,
    Slot,
    Visit,
    core_table,
)
from .objects import DeliberateError, Objects, Skip, key_names, shown, state_of

FIRST_UNUSED = 100
"""A number above all keys that programs use."""

WITHOUT_BEGIN = {"commit", "rollback", "close", "reset", "new_session", "savepoint", "flush"}
"""The steps that do not load, and so need no transaction that is the same for both."""


class Steps(Objects):
    """What may be done to the objects of a program, and to their session."""

    # New objects.

    def add(self, a: int, b: int, c: int) -> None:
        model = MODELS[a % len(MODELS)]
        keys = KEYS[model]
        key = None if b == 11 and model not in (Slot, Box) else keys[b % len(keys)]
        if model is Node:
            # SQLAlchemy switches the row of a self-referential mapper as any other, and then deletes it all the same.
            self._nodes += 1
            key = (self._nodes,)
        if key is not None:
            key = self._alone(key)
        instance = self.make(model, key, c)
        self.keep(instance)
        self.session.add(instance)
        self.say(f"add {self.name(instance)} = {model.__name__}({shown(instance)})")

    def merge(self, a: int, b: int, c: int) -> None:
        if c % 3 == 2:
            # Not detached ones: guarantees.md, "What is loaded for callbacks", says that it writes what was loaded.
            given = self.pick(a, Base, "transient", "pending", "persistent")
            if given in self.session.deleted or state_of(given).was_deleted:
                raise Skip  # it shows its last row: CONTRACT.md, E11
        else:
            model = MODELS[a % len(MODELS)]
            given = self.make(model, KEYS[model][b % len(KEYS[model])], c)
        self.say(f"merge {self.name(given)}")
        self.keep(self.session.merge(given))

    def readd(self, a: int, b: int, c: int) -> None:
        instance = self.pick(a, Base, "transient", "detached")
        if state_of(instance).was_deleted or (isinstance(instance, Node) and state_of(instance).transient):
            raise Skip  # it shows its last row: CONTRACT.md, E11; of nodes see ``add``
        was_detached = state_of(instance).detached
        if b % 4 == 3 and state_of(instance).detached:
            self.say(f"make_transient {self.name(instance)}")
            make_transient(instance)
        self.say(f"add again {self.name(instance)}")
        self.session.add(instance)
        if was_detached:
            self.expire_reached(instance)

    def replace(self, a: int, b: int, c: int) -> None:
        """Delete a row and make a new one with the same key: in one flush (a row switch), or in two."""
        old = self.pick(a, Base, "persistent")
        self.skip_taken_back(old)
        key = state_of(old).identity
        new = self.make(type(cast("Base", old)), key, b)
        if c % 2 == 0:
            if isinstance(old, Node):
                raise Skip  # as in ``add``
            for name, values in COLUMNS[type(old)].items():
                if name not in vars(new):  # it would show the row's value: "What is loaded for callbacks"
                    setattr(new, name, values[b % len(values)])
        self.keep(new)
        self.session.delete(old)
        if c % 2:
            self.session.flush()
        self.session.add(new)
        self.say(f"replace {self.name(old)} by {self.name(new)} {shown(new)}, flush between: {bool(c % 2)}")

    # Objects there are.

    def load(self, a: int, b: int, c: int) -> None:
        model = MODELS[a % len(MODELS)]
        statement = select(model).order_by(*model.__mapper__.primary_key)
        if c % 4 == 3:
            statement = statement.execution_options(populate_existing=True)
        self.say(f"load {model.__name__} populate_existing={c % 4 == 3}")
        self.keep(*self.session.scalars(statement))

    def get(self, a: int, b: int, c: int) -> None:
        model = MODELS[a % len(MODELS)]
        key = KEYS[model][b % len(KEYS[model])]
        self.say(f"get {model.__name__} {key}, populate_existing={c % 4 == 3}")
        found = self.session.get(model, key, populate_existing=c % 4 == 3)
        if found is not None:
            self.keep(found)

    def touch(self, a: int, b: int, c: int) -> None:
        """Read an attribute, which may load it."""
        instance = self.pick(a)
        keys = [*state_of(instance).mapper.attrs.keys()]
        key = keys[b % len(keys)]
        self.say(f"read {self.name(instance)}.{key}")
        try:
            value = getattr(instance, key)
        except (DetachedInstanceError, KeyError, ObjectDeletedError):
            return  # "What was loaded for callbacks stays in the object": only the other session raises it
        members = cast("list[object]", value) if isinstance(value, list) else [value]
        self.keep(*(found for found in members if isinstance(found, Base)))

    def delete(self, a: int, b: int, c: int) -> None:
        instance = self.pick(a, Base, "persistent")
        self.skip_taken_back(instance)
        self.say(f"delete {self.name(instance)}")
        self.session.delete(instance)

    def skip_taken_back(self, instance: Base) -> None:
        """Skip the deletion of what a flush keeps, when it loads a parent that has been told of a new member.

        The member is put into the session again then, which ends its deletion, after its row was read for callbacks:
        so what was assigned to it may be no change.
        """
        if isinstance(instance, Letter) and state_of(instance).modified:
            raise Skip

    def expunge(self, a: int, b: int, c: int) -> None:
        instance = self.pick(a, Base, "persistent", "pending")
        if self.is_uncommitted(instance):
            raise Skip
        self.say(f"expunge {self.name(instance)}")
        self.session.expunge(instance)

    def expunge_all(self, a: int, b: int, c: int) -> None:
        if any(map(self.is_uncommitted, self.objects)):
            raise Skip
        self.say("expunge_all")
        self.session.expunge_all()

    def refresh(self, a: int, b: int, c: int) -> None:
        instance = self.pick(a, Base, "persistent")
        keys = [*state_of(instance).mapper.column_attrs.keys()]
        chosen = [keys[b % len(keys)]] if c % 3 == 2 else None
        self.say(f"refresh {self.name(instance)} {chosen}")
        self.session.refresh(instance, chosen)

    def expire(self, a: int, b: int, c: int) -> None:
        instance = self.pick(a, Base, "persistent")
        self.say(f"expire {self.name(instance)}")
        self.session.expire(instance)

    def expire_some(self, a: int, b: int, c: int) -> None:
        instance = self.pick(a, Base, "persistent")
        keys = [*state_of(instance).mapper.attrs.keys()]
        key = keys[b % len(keys)]
        self.say(f"expire {self.name(instance)}.{key}")
        self.session.expire(instance, [key])

    def expire_all(self, a: int, b: int, c: int) -> None:
        self.say("expire_all")
        self.session.expire_all()

    def forget_identity(self, a: int, b: int, c: int) -> None:
        instance = self.pick(a, Base, "persistent", "detached")
        if state_of(instance).was_deleted or self.is_uncommitted(instance):
            raise Skip  # as above
        self.say(f"make_transient {self.name(instance)}")
        make_transient(instance)

    # Their values.

    def change(self, a: int, b: int, c: int) -> None:
        instance = self.pick(a) if b == 11 else self.pick(a, Base, "persistent", "pending")
        columns = COLUMNS[type(instance)]
        name = [*columns][b % len(columns)]
        value = columns[name][c % len(columns[name])]
        self.say(f"{self.name(instance)}.{name} = {value!r}")
        setattr(instance, name, value)

    def address(self, a: int, b: int, c: int) -> None:
        instance = self.pick(a, Owner)
        value = None if c == 7 else Address(("a", "b", None)[b % 3], (0, 1, None)[c % 3])
        self.say(f"{self.name(instance)}.address = {value}")
        instance.address = value

    def mutate(self, a: int, b: int, c: int) -> None:
        """Change a value in place."""
        instance = self.pick(a, Owner, "persistent", "pending")
        self.say(f"mutate {self.name(instance)}.settings")
        settings = instance.settings
        if settings is None:
            raise Skip
        if b % 3 == 0:
            settings.clear()
        else:
            settings["v"] = c % 3

    def expression(self, a: int, b: int, c: int) -> None:
        model, name = ((Owner, "rank"), (Pet, "weight"), (Box, "size"), (Node, "name"), (Content, "name"))[b % 5]
        instance = self.pick(a, model, "persistent", "pending")
        column = getattr(model, name)
        value = select(func.max(column)).scalar_subquery() if c % 3 == 2 or name == "name" else column + c % 2
        self.say(f"{self.name(instance)}.{name} = {value}")
        setattr(instance, name, value)

    def _alone(self, key: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the key, or another one where a part of it is NULL.

        The database lets several rows have one of those: nobody could tell which is which.
        """
        if None not in key:
            return key
        self._numbers += 1
        return (FIRST_UNUSED + self._numbers, *key[1:])

    def rekey(self, a: int, b: int, c: int) -> None:
        """Change a primary key."""
        instance = self.pick(a, (Box, Content, Slot, Letter, Visit)[c % 5], "persistent")
        keys = KEYS[type(instance)]
        key = self._alone(keys[b % len(keys)])
        self.say(f"{self.name(instance)}: key = {key}")
        for name, value in zip(key_names(type(cast("Base", instance))), key, strict=True):
            getattr(instance, name)  # SQLAlchemy does not load by itself what only the mapper calls a primary key
            setattr(instance, name, value)

    def relate(self, a: int, b: int, c: int) -> None:
        """Assign a relationship, or change a collection."""
        model, name, target, to_many = FAMILIES[b % len(FAMILIES)]
        instance = self.pick(a, model, "persistent", "pending") if a < 11 else self.pick(a, model)
        try:
            other = None if c == 6 else self.pick(c, target)
        except Skip:
            other = None
        if not to_many:
            self.say(f"{self.name(instance)}.{name} = {other and self.name(other)}")
            setattr(instance, name, other)
            return
        if c == 7:
            self.say(f"{self.name(instance)}.{name} = []")
            setattr(instance, name, [])
            return
        self.say(f"append {other and self.name(other)} to, or remove from, {self.name(instance)}.{name}")
        members = getattr(instance, name)
        if other is None:
            if not members:
                raise Skip
            members.pop()
        elif other in members and c % 2:
            members.remove(other)
        elif other not in members:
            members.append(other)

    def quietly(self, a: int, b: int, c: int) -> None:
        """Change and query with autoflush off."""
        self.say("no_autoflush:")
        with self.session.no_autoflush:
            self.change(a, b, c)
            self.load(b, c, a)

    # Past the unit of work.

    def stale(self, a: int, b: int, c: int) -> None:
        """Write a version that the session does not know of, so that its next UPDATE or DELETE finds nothing."""
        self.say("UPDATE twin_pets SET version = version + 1 WHERE id = 1")
        table = core_table(Pet)
        self.unwatched.add("twin_pets")
        self.session.execute(update(table).where(table.c.id == 1).values(version=table.c.version + 1))

    def core_update(self, a: int, b: int, c: int) -> None:
        self.say("core update of clubs' seats")
        table = core_table(Club)
        self.unwatched.add("twin_clubs")
        self.session.connection().execute(update(table).where(table.c.id == b % 2 + 1).values(seats=c % 3))

    def bulk_update(self, a: int, b: int, c: int) -> None:
        model, name = ((Box, "size"), (Content, "name"), (Club, "seats"), (Pet, "weight"), (Owner, "name"))[a % 5]
        key = getattr(model, key_names(model)[0])
        self.write_past(model)
        values = COLUMNS[model][name]
        criterion = key == KEYS[model][b % 5][0] if b % 2 else key >= KEYS[model][b % 5][0]
        synchronize = ("auto", "fetch", "evaluate", False)[c % 4]
        self.say(f"bulk update of {model.__name__}.{name} = {values[c % len(values)]!r} where {b}, {synchronize}")
        statement = update(model).where(criterion).values({name: values[c % len(values)]})
        self.session.execute(statement, execution_options={"synchronize_session": synchronize})

    def bulk_delete(self, a: int, b: int, c: int) -> None:
        model = (Content, Club, Box, Slot)[a % 4]
        key = getattr(model, key_names(model)[0])
        self.write_past(model)
        synchronize = ("auto", "fetch", "evaluate", False)[c % 4]
        self.say(f"bulk delete of {model.__name__} where {b}, {synchronize}")
        statement = delete(model).where(key == KEYS[model][b % 5][0])
        self.session.execute(statement, execution_options={"synchronize_session": synchronize})

    def bulk_insert(self, a: int, b: int, c: int) -> None:
        model = (Content, Club, Box)[a % 3]
        rows = [self.row_of(model, KEYS[model][(b + number) % 5], c) for number in range(c % 2 + 1)]
        self.say(f"bulk insert into {model.__name__} of {rows}, returning: {c % 3 == 0}")
        self.write_past(model)
        statement = insert(model)
        if c % 3 == 0:
            self.keep(*self.session.scalars(statement.returning(model), rows))
        else:
            self.session.execute(statement, rows)

    # The session.

    def flush(self, a: int, b: int, c: int) -> None:
        self.say("flush")
        self.session.flush()

    def commit(self, a: int, b: int, c: int) -> None:
        self.say("commit")
        self.savepoints.clear()
        self.session.commit()

    def rollback(self, a: int, b: int, c: int) -> None:
        self.say("rollback")
        self.savepoints.clear()
        self.session.rollback()

    def savepoint(self, a: int, b: int, c: int) -> None:
        if len(self.savepoints) > 2:
            raise Skip
        self.say("begin_nested")
        self.savepoints.append(self.session.begin_nested())

    def release(self, a: int, b: int, c: int) -> None:
        if not self.savepoints:
            raise Skip
        self.say("commit the savepoint")
        self.savepoints.pop().commit()

    def undo_savepoint(self, a: int, b: int, c: int) -> None:
        if not self.savepoints:
            raise Skip
        self.say("roll the savepoint back")
        self.savepoints.pop().rollback()

    def failing_block(self, a: int, b: int, c: int) -> None:
        """Leave a ``begin_nested`` block by an exception."""
        self.say("with begin_nested():")
        with self.session.begin_nested():
            self.change(a, b, c)
            if c % 2:
                self.session.flush()
            if c % 3:
                self.say("raise")
                raise DeliberateError

    def close(self, a: int, b: int, c: int) -> None:
        self.say("close")
        self.savepoints.clear()
        self.session.close()

    def reset(self, a: int, b: int, c: int) -> None:
        self.say("reset")
        self.savepoints.clear()
        self.session.reset()

    def new_session(self, a: int, b: int, c: int) -> None:
        self.close(a, b, c)
        self.say("a new session")
        self.session = self._replace_session()
        # SQLAlchemy leaves an object in the old session whose row another one has taken over.
        self.objects = [found for found in self.objects if state_of(found).session is None]

    def recover(self, policy: str) -> None:
        """Do what a program does about an error: roll the savepoint back or everything, or carry on."""
        if policy == "leave":
            return
        if policy == "innermost" and self.savepoints:
            self.savepoints.pop().rollback()
        else:
            self.savepoints.clear()
            self.session.rollback()
