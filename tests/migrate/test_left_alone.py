"""What cannot be done safely is left as it is, with a comment and a message that names file and line."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from .projects import migrate_project, read_project, write_project

MARK = "# TODO: fastapi-toolsets migrate v3: "
IMPORT = "from fastapi_toolsets.models import WatchedFieldsMixin, watch\n"

CASES = {
    "a class that uses what the mixin returned": (
        """
        class Order(WatchedFieldsMixin):
            def on_create(self):
                return print(super().on_create())
        """,
        ["app.py:3: Order: on_create calls super().on_create(), which the mixin answered"],
    ),
    "two decorators": (
        """
        @watch("a")
        @watch("b")
        class Order(WatchedFieldsMixin): ...
        """,
        ["app.py:3: Order: it has several @watch decorators, of which only the first counted"],
    ),
    "a decorator whose argument the class redefines": (
        """
        @watch(STATUS)
        class Order(WatchedFieldsMixin):
            STATUS = 1
        """,
        ["app.py:3: Order: what @watch is given means something else inside the class"],
    ),
    "a decorator without names": (
        """
        @watch
        class Order: ...
        """,
        ["app.py:3: Order: @watch is not given names"],
    ),
    "both ways at once": (
        """
        @watch("a")
        class Order:
            __watched_fields__ = ("a",)
        """,
        ["app.py:3: Order: it has both @watch and __watched_fields__"],
    ),
    "callbacks from two bases": (
        """
        class A(WatchedFieldsMixin):
            def on_create(self): ...
        class B(WatchedFieldsMixin):
            def on_create(self): ...
        class Order(A, B): ...
        """,
        [
            f"app.py:{line}: {name}: it gets on_create from more than one base"
            for line, name in ((3, "A"), (5, "B"), (7, "Order"))
        ],
    ),
    "callbacks that are assigned from outside": (
        """
        class Base: ...
        class Order(WatchedFieldsMixin, Base): ...
        class Note: ...
        def tell(self): ...
        Order.on_create = Note.on_create = Other.on_create = tell
        Base.on_delete, notes = tell, []
        notes[0].on_update = tell
        """,
        ["app.py:4: Order: on_delete is assigned to Base from outside the class"],
    ),
    "callbacks of a class whose base is another package's": (
        """
        from company.database import Model
        @watch("a")
        class Order(Model):
            def on_update(self, changes): ...
        class Note(Model):
            def on_update(self, changes): ...
        """,
        [
            "app.py:4: Order: on_update was a callback if Model brings WatchedFieldsMixin, which cannot be seen here",
        ],
    ),
    "a mixin that is given to a base which is made": (
        """
        from sqlalchemy.orm import DeclarativeBase, declarative_base
        Base = declarative_base(cls=WatchedFieldsMixin)
        class Order(Base):
            def on_create(self): ...
        class Book(Order): ...
        class Plain(DeclarativeBase):
            def on_create(self): ...
        """,
        [
            "app.py:4: WatchedFieldsMixin does not exist in version 3",
            "app.py:5: Order: on_create was a callback if Base brings WatchedFieldsMixin, which cannot be seen here",
        ],
    ),
    "names of version 2 anywhere else": (
        """
        def is_hooked(order):
            return isinstance(order, WatchedFieldsMixin)
        Order = watch("status")(Order)
        """,
        ["app.py:4: WatchedFieldsMixin does not exist in version 3", "app.py:5: watch does not exist in version 3"],
    ),
    "annotations in quotes": (
        """
        from typing import Optional
        def first(order: "WatchedFieldsMixin") -> Optional["list[WatchedFieldsMixin]"]: ...
        last: "WatchedFieldsMixin | None" = None
        text: "a WatchedFieldsMixin" = "WatchedFieldsMixin"
        """,
        [f"app.py:{line}: WatchedFieldsMixin does not exist in version 3" for line in (4, 5)],
    ),
    "factories that say what they make elsewhere": (
        """
        from sqlalchemy.orm import sessionmaker
        from somewhere import Special
        a = sessionmaker(**options)
        b = sessionmaker(class_=Special)
        c = sessionmaker(class_=choose())
        d = sessionmaker(sync_session_class=Special)
        """,
        [
            "app.py:5: see that this session factory is given class_=SyncEventSession",
            "app.py:6: give this session factory a class_ that is derived from SyncEventSession",
            "app.py:7: give this session factory a class_ that is derived from SyncEventSession",
            "app.py:8: derive the sync_session_class of this factory from SyncEventSession",
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_left_to_a_person(name: str, tmp_path: Path) -> None:
    """Nothing but the comments is added, and each stands right above the line that its message names."""
    source, messages = CASES[name]
    names = [name for name in ("WatchedFieldsMixin", "watch") if re.search(rf"\b{name}\b", source)]
    imports = f"from fastapi_toolsets.models import {', '.join(names)}\n" if names else "# of version 2\n"
    source = imports + textwrap.dedent(source)
    write_project(tmp_path, {"app.py": source})
    before = (tmp_path / "app.py").read_text(encoding="utf-8").splitlines()
    assert migrate_project(tmp_path) == messages
    expected: list[str] = []
    texts = {int(message.split(":")[1]): message.split(": ", 1)[1] for message in messages}
    for number, line in enumerate(before, start=1):
        if number in texts:
            expected.append(f"{MARK}{texts[number]}")
        expected.append(line)
    after = [line.lstrip() if MARK in line else line for line in read_project(tmp_path)["app.py"].splitlines()]
    assert after == expected


def test_comments_stand_above_the_statement_that_a_line_goes_on_with(tmp_path: Path) -> None:
    """In a string they would be part of its value, and after a backslash they are a syntax error."""
    before = """\
        from fastapi_toolsets.models import watch
        text = '''
        a'''; first = [watch]
        number = 1 + \\
            2; second = [watch]
        if number == 3: third = [watch]
        else: fourth = [watch]
        """
    todo = f"{MARK}watch does not exist in version 3"
    after = f"""\
        from fastapi_toolsets.models import watch
        {todo}
        text = '''
        a'''; first = [watch]
        {todo}
        number = 1 + \\
            2; second = [watch]
        {todo}
        if number == 3: third = [watch]
        {todo}
        else: fourth = [watch]
        """
    write_project(tmp_path, {"app.py": before})
    assert migrate_project(tmp_path) == [f"app.py:{line}: watch does not exist in version 3" for line in (3, 5, 6, 7)]
    assert read_project(tmp_path)["app.py"] == textwrap.dedent(after)


def test_a_family_is_left_together(tmp_path: Path) -> None:
    """A callback in a file that may not be changed keeps all that share it as they are."""
    write_project(
        tmp_path,
        {
            "base.py": f"{IMPORT}class Item(WatchedFieldsMixin):\n    def on_create(self): ...\n",
            "app.py": "from base import Item\nclass Book(Item):\n    def on_delete(self): ...\n",
        },
    )
    base = (tmp_path / "base.py").resolve()
    message = f"Book: on_create is also defined in {base}, which is not among the paths"
    assert migrate_project(tmp_path / "app.py") == [f"app.py:2: {message}"]
    assert (tmp_path / "app.py").read_text(encoding="utf-8") == (
        f"from base import Item\n{MARK}{message}\nclass Book(Item):\n    def on_delete(self): ...\n"
    )


def test_base_out_of_sight_brings_nothing_to_a_class_that_is_listened_to(tmp_path: Path) -> None:
    """It was migrated before: what names the mixin elsewhere is about something else."""
    source = """\
        from company.database import Model
        from fastapi_toolsets.models import WatchedFieldsMixin, listens_for
        class Order(Model):
            def on_create(self): ...
        @listens_for(Order)
        def on_order_created(order, event_type, changes):
            order.on_create()
        assert not issubclass(Order, WatchedFieldsMixin)
        """
    write_project(tmp_path, {"app.py": source})
    assert migrate_project(tmp_path) == ["app.py:8: WatchedFieldsMixin does not exist in version 3"]


def test_what_else_is_in_the_file_is_done(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "app.py": f"""
                {IMPORT}
                class Left(WatchedFieldsMixin):
                    def on_create(self):
                        if super().on_create(): ...


                class Done(WatchedFieldsMixin): ...
                """
        },
    )
    assert migrate_project(tmp_path) == [
        "app.py:3: Left: on_create calls super().on_create(), which the mixin answered"
    ]
    assert "class Done: ..." in read_project(tmp_path)["app.py"]
    assert "import WatchedFieldsMixin\n" in read_project(tmp_path)["app.py"]


def test_code_without_version_2_is_left_alone(tmp_path: Path) -> None:
    """Names that are the same and mean something else; a comment in another's words."""
    source = """
        from sqlalchemy.event import listens_for

        # TODO: migrate on_create
        def watch(*names): return lambda cls: cls


        @watch("a")
        class WatchedFieldsMixin:
            def on_create(self): super().on_create()


        class Order(WatchedFieldsMixin):
            def on_create(self): ...
        """
    write_project(tmp_path, {"app.py": source})
    assert migrate_project(tmp_path) == []
    assert read_project(tmp_path)["app.py"] == textwrap.dedent(source).lstrip("\n")
