"""What becomes of classes: before and after, to the letter."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

from .projects import migrated


class Case(NamedTuple):
    name: str
    before: str
    after: str


CASES = [
    Case(
        "the guide's own example",
        """
        from fastapi_toolsets.models import UUIDMixin, WatchedFieldsMixin, watch


        @watch("status")
        class Order(Base, UUIDMixin, WatchedFieldsMixin):
            __tablename__ = "orders"

            status: Mapped[str]

            async def on_create(self):
                await notify_new_order(self.id)

            async def on_update(self, changes):
                if "status" in changes:
                    await notify_status_change(self.id, changes["status"])

            async def on_delete(self):
                await notify_order_cancelled(self.id)
        """,
        """
        from fastapi_toolsets.models import ModelEvent, UUIDMixin, listens_for


        class Order(Base, UUIDMixin):
            __tablename__ = "orders"
            __watched_fields__ = ("status",)

            status: Mapped[str]


        @listens_for(Order, [ModelEvent.CREATE])
        async def on_order_created(order: Order, event_type: ModelEvent, changes: None):
            await notify_new_order(order.id)


        @listens_for(Order, [ModelEvent.UPDATE])
        async def on_order_updated(order: Order, event_type: ModelEvent, changes: dict):
            if "status" in changes:
                await notify_status_change(order.id, changes["status"])


        @listens_for(Order, [ModelEvent.DELETE])
        async def on_order_deleted(order: Order, event_type: ModelEvent, changes: None):
            await notify_order_cancelled(order.id)
        """,
    ),
    Case(
        "comments and layout",
        """
        from fastapi_toolsets.models import (
            ModelEvent,  # kinds
            WatchedFieldsMixin,
            watch,
        )

        # An order.
        @watch(
            "status",  # first
            "price"
        )  # only these
        class Order(
            Base,  # of all
            WatchedFieldsMixin,
        ):
            \"\"\"What somebody
            wants.
            \"\"\"

            # told to all
            def on_update(self, diff: dict[str, dict]) -> None:
                \"\"\"Tell
                them.\"\"\"
                # the difference
                tell(self, diff)  # now

            # the label
            def label(self): return self.status
        # the end
        """,
        """
        from fastapi_toolsets.models import (
            ModelEvent,  # kinds
            listens_for,
        )

        # An order.
        class Order(
            Base,  # of all
        ):
            \"\"\"What somebody
            wants.
            \"\"\"

            __watched_fields__ = (
                "status",  # first
                "price"
            )  # only these

            # the label
            def label(self): return self.status


        # told to all
        @listens_for(Order, [ModelEvent.UPDATE])
        def on_order_updated(order: Order, event_type: ModelEvent, diff: dict[str, dict]) -> None:
            \"\"\"Tell
            them.\"\"\"
            # the difference
            tell(order, diff)  # now
        # the end
        """,
    ),
    Case(
        "comments above what stays and what goes",
        """
        from fastapi_toolsets.models import (
            TimestampMixin,
            # with callbacks
            WatchedFieldsMixin,
            # with a key
            UUIDMixin,
            # and no more
        )


        class Order(
            Base,  # of all
            # with callbacks
            WatchedFieldsMixin,  # no longer
            # with a key
            UUIDMixin
            # and no more
        ):
            pass
        """,
        """
        from fastapi_toolsets.models import (
            TimestampMixin,
            # with a key
            UUIDMixin,
            # and no more
        )


        class Order(
            Base,  # of all
            # with a key
            UUIDMixin
            # and no more
        ):
            pass
        """,
    ),
    Case(
        "what is exported comes from a star import",
        """
        from fastapi_toolsets.models import *

        __all__ = ["Order", "WatchedFieldsMixin", "listens_for"]


        class Order(WatchedFieldsMixin): ...
        """,
        """
        from fastapi_toolsets.models import *

        __all__ = ["Order", "listens_for"]


        class Order: ...
        """,
    ),
    Case(
        "what is exported is put together",
        """
        from fastapi_toolsets.models import UUIDMixin, WatchedFieldsMixin

        __all__ = ["Order", "WatchedFieldsMixin"] + ("Line", "WatchedFieldsMixin") + others.__all__


        class Order(WatchedFieldsMixin): ...
        """,
        """
        from fastapi_toolsets.models import UUIDMixin

        __all__ = ["Order"] + ("Line",) + others.__all__


        class Order: ...
        """,
    ),
    Case(
        "a comment above the name before which another is put",
        """
        from fastapi_toolsets.models import (
            CreatedAtMixin,
            # with a key
            UUIDMixin,
            WatchedFieldsMixin,
        )


        class Order(UUIDMixin, WatchedFieldsMixin):
            def on_create(self): ...
        """,
        """
        from fastapi_toolsets.models import (
            CreatedAtMixin,
            ModelEvent,
            # with a key
            UUIDMixin,
            listens_for,
        )


        class Order(UUIDMixin):
            pass


        @listens_for(Order, [ModelEvent.CREATE])
        def on_order_created(order: Order, event_type: ModelEvent, changes: None): ...
        """,
    ),
    Case(
        "comments above what stays behind the first, and on what becomes another line",
        """
        from fastapi_toolsets.models import (  # of version 2
            # with callbacks
            WatchedFieldsMixin,
            watch,
            # with a key
            UUIDMixin,
            TimestampMixin,
        )

        __all__ = [
            "WatchedFieldsMixin",
            # models
            "Order",  # and its lines
            "watch",
        ]


        class Order(
            # with callbacks
            WatchedFieldsMixin,
            # with a key
            UUIDMixin,
        ):
            # told to all
            def on_update(
                self,  # new
                # the difference
                changes: dict[
                    str,  # by name
                    object,
                ],
                # no more
            ) -> None: ...


        class Line(  # of an order
            WatchedFieldsMixin
        ):
            x = 1


        @watch("x")
        class Part(WatchedFieldsMixin): pass  # of a line


        @watch("x")
        class Whole(WatchedFieldsMixin):
            pass  # nothing else
        """,
        """
        from fastapi_toolsets.models import (  # of version 2
            # with callbacks
            # with a key
            UUIDMixin,
            TimestampMixin,
            ModelEvent,
            listens_for,
        )

        __all__ = [
            # models
            "Order",  # and its lines
        ]


        class Order(
            # with callbacks
            # with a key
            UUIDMixin,
        ):
            pass


        # told to all
        # new
        # the difference
        # no more
        @listens_for(Order, [ModelEvent.UPDATE])
        def on_order_updated(order: Order, event_type: ModelEvent, changes: dict[
                str,  # by name
                object,
            ]) -> None: ...


        class Line:  # of an order
            x = 1


        class Part:  # of a line
            __watched_fields__ = ("x",)


        class Whole:
            __watched_fields__ = ("x",)
            pass  # nothing else
        """,
    ),
    Case(
        "one-line bodies, keywords, and a class of which nothing else is left",
        """
        from fastapi_toolsets.models import WatchedFieldsMixin, watch

        @watch("x")
        class A(WatchedFieldsMixin): pass

        class B(Base, WatchedFieldsMixin, table=True):
            def on_delete(self): gone(self)

        class C(WatchedFieldsMixin):
            def on_create(self): super().on_create()
        """,
        """
        from fastapi_toolsets.models import ModelEvent, listens_for

        class A:
            __watched_fields__ = ("x",)

        class B(Base, table=True):
            pass


        @listens_for(B, [ModelEvent.DELETE])
        def on_b_deleted(b: B, event_type: ModelEvent, changes: None): gone(b)

        class C:
            pass


        @listens_for(C, [ModelEvent.CREATE])
        def on_c_created(c: C, event_type: ModelEvent, changes: None): pass
        """,
    ),
    Case(
        "only what is the object is renamed",
        """
        from fastapi_toolsets.models import WatchedFieldsMixin


        class Line(WatchedFieldsMixin):
            def on_create(self):
                tell(self=self, other=[self for _ in self.parts])
                other.self = f"{self.name} {self!r:>{self.width}}"
                later(lambda: self)

                def inner(line=self):
                    return self.total
        """,
        """
        from fastapi_toolsets.models import ModelEvent, listens_for


        class Line:
            pass


        @listens_for(Line, [ModelEvent.CREATE])
        def on_line_created(obj: Line, event_type: ModelEvent, changes: None):
            tell(self=obj, other=[obj for _ in obj.parts])
            other.self = f"{obj.name} {obj!r:>{obj.width}}"
            later(lambda: obj)

            def inner(line=obj):
                return obj.total
        """,
    ),
    Case(
        "names that are taken",
        """
        from fastapi_toolsets.models import ModelEvent as Kind, WatchedFieldsMixin
        from sqlalchemy.event import listens_for


        def on_import_created(): ...


        class Import(WatchedFieldsMixin):
            def on_create(self):
                obj = changes(event_type)


        class Outer:
            class Import(WatchedFieldsMixin):
                def on_create(self): ...
        """,
        """
        from fastapi_toolsets.models import ModelEvent as Kind, listens_for as toolsets_listens_for
        from sqlalchemy.event import listens_for


        def on_import_created(): ...


        class Import:
            pass


        @toolsets_listens_for(Import, [Kind.CREATE])
        def on_import_created_2(instance: Import, event_type_2: Kind, changes_2: None):
            obj = changes(event_type)


        class Outer:
            class Import:
                pass


        @toolsets_listens_for(Outer.Import, [Kind.CREATE])
        def on_outer_import_created(obj: Outer.Import, event_type: Kind, changes: None): ...
        """,
    ),
    Case(
        "calls of super() that only the mixin answered",
        """
        from fastapi_toolsets.models import WatchedFieldsMixin


        class Order(WatchedFieldsMixin):
            async def on_delete(self):
                # before
                await super().on_delete()  # nothing
                if self.paid:
                    return await super(Order, self).on_delete()
                super().forget()
        """,
        """
        from fastapi_toolsets.models import ModelEvent, listens_for


        class Order:
            pass


        @listens_for(Order, [ModelEvent.DELETE])
        async def on_order_deleted(order: Order, event_type: ModelEvent, changes: None):
            # before
            # nothing
            if order.paid:
                return
            super(Order, order).forget()
        """,
    ),
    Case(
        "what is extended last is two listeners, as listeners are called in that order",
        """
        from fastapi_toolsets.models import WatchedFieldsMixin


        class Item(WatchedFieldsMixin):
            def on_create(self):
                count(self)


        class Book(Item):
            def on_create(self):
                read(self)
                super().on_create()
        """,
        """
        from fastapi_toolsets.models import ModelEvent, listens_for


        class Item:
            pass


        @listens_for(Item, [ModelEvent.CREATE])
        def on_item_created(item: Item, event_type: ModelEvent, changes: None):
            count(item)


        class Book(Item):
            pass


        @listens_for(Book, [ModelEvent.CREATE])
        def on_book_created(book: Book, event_type: ModelEvent, changes: None):
            read(book)
        """,
    ),
    Case(
        "what is extended otherwise, or replaced, stays and is called",
        """
        from fastapi_toolsets.models import WatchedFieldsMixin


        class Item(WatchedFieldsMixin):
            async def on_create(self):
                await count(self)

            def on_update(self, changes):
                write(changes)


        class Book(Item):
            async def on_create(self):
                await super().on_create()
                await read(self)
        """,
        """
        from fastapi_toolsets.models import ModelEvent, listens_for


        class Item:
            async def on_create(self):
                await count(self)

            def on_update(self, changes):
                write(changes)


        @listens_for(Item, [ModelEvent.CREATE])
        async def on_item_created(item: Item, event_type: ModelEvent, changes: None) -> None:
            await item.on_create()


        @listens_for(Item, [ModelEvent.UPDATE])
        def on_item_updated(item: Item, event_type: ModelEvent, changes: dict) -> object:
            return item.on_update(changes)


        class Book(Item):
            async def on_create(self):
                await super().on_create()
                await read(self)
        """,
    ),
    Case(
        "what needs the names of its class stays and is called",
        """
        from fastapi_toolsets.models import WatchedFieldsMixin


        class Order(WatchedFieldsMixin):
            Changes = dict

            def on_update(self, changes: Changes):
                tell(changes)


        class Book(WatchedFieldsMixin):
            nothing = {}

            def on_update(self, changes: dict = nothing):
                tell(changes)


        class Shelf(WatchedFieldsMixin):
            from typing import NoReturn

            async def on_delete(self) -> "None | list[NoReturn]":
                tell(self)

            async def on_create(self) -> None | NoReturn:
                tell(self)


        class Reader(WatchedFieldsMixin):
            async def on_create(self):
                tell(self)

            async def on_delete(self):
                tell(self)

            callbacks = [on_create, on_delete.__name__]
        """,
        """
        from fastapi_toolsets.models import ModelEvent, listens_for


        class Order:
            Changes = dict

            def on_update(self, changes: Changes):
                tell(changes)


        @listens_for(Order, [ModelEvent.UPDATE])
        def on_order_updated(order: Order, event_type: ModelEvent, changes: dict) -> object:
            return order.on_update(changes)


        class Book:
            nothing = {}

            def on_update(self, changes: dict = nothing):
                tell(changes)


        @listens_for(Book, [ModelEvent.UPDATE])
        def on_book_updated(book: Book, event_type: ModelEvent, changes: dict) -> object:
            return book.on_update(changes)


        class Shelf:
            from typing import NoReturn

            async def on_delete(self) -> "None | list[NoReturn]":
                tell(self)

            async def on_create(self) -> None | NoReturn:
                tell(self)


        @listens_for(Shelf, [ModelEvent.CREATE])
        async def on_shelf_created(shelf: Shelf, event_type: ModelEvent, changes: None) -> None:
            await shelf.on_create()


        @listens_for(Shelf, [ModelEvent.DELETE])
        async def on_shelf_deleted(shelf: Shelf, event_type: ModelEvent, changes: None) -> None:
            await shelf.on_delete()


        class Reader:
            async def on_create(self):
                tell(self)

            async def on_delete(self):
                tell(self)

            callbacks = [on_create, on_delete.__name__]


        @listens_for(Reader, [ModelEvent.CREATE])
        async def on_reader_created(reader: Reader, event_type: ModelEvent, changes: None) -> None:
            await reader.on_create()


        @listens_for(Reader, [ModelEvent.DELETE])
        async def on_reader_deleted(reader: Reader, event_type: ModelEvent, changes: None) -> None:
            await reader.on_delete()
        """,
    ),
    Case(
        "what other code calls stays, but FastAPI's on_event is nobody's callback",
        """
        from fastapi_toolsets.models import WatchedFieldsMixin


        class Order(WatchedFieldsMixin):
            def on_event(self, event, changes=None):
                tell(event)


        class Button:
            def press(self):
                self.on_event("pressed")


        @app.on_event("startup")
        def start(): ...


        class Refund(WatchedFieldsMixin):
            def on_create(self): ...


        async def again(refund):
            refund.on_create()
        """,
        """
        from fastapi_toolsets.models import ModelEvent, listens_for


        class Order:
            pass


        @listens_for(Order)
        def on_order_event(order: Order, event: ModelEvent, changes: dict | None):
            tell(event)


        class Button:
            def press(self):
                self.on_event("pressed")


        @app.on_event("startup")
        def start(): ...


        class Refund:
            def on_create(self): ...


        @listens_for(Refund, [ModelEvent.CREATE])
        def on_refund_created(refund: Refund, event_type: ModelEvent, changes: None) -> object:
            return refund.on_create()


        async def again(refund):
            refund.on_create()
        """,
    ),
    Case(
        "what a test replaces by its dotted name, or other code calls with an event's value, stays and is called",
        """
        from fastapi_toolsets.models import WatchedFieldsMixin


        class Order(WatchedFieldsMixin):
            def on_create(self): ...


        class Refund(WatchedFieldsMixin):
            def on_event(self, event, changes=None): ...

            def again(self):
                self.on_event("create")


        def test_order(mocker):
            mocker.patch("app.Order.on_create")
        """,
        """
        from fastapi_toolsets.models import ModelEvent, listens_for


        class Order:
            def on_create(self): ...


        @listens_for(Order, [ModelEvent.CREATE])
        def on_order_created(order: Order, event_type: ModelEvent, changes: None) -> object:
            return order.on_create()


        class Refund:
            def on_event(self, event, changes=None): ...

            def again(self):
                self.on_event("create")


        @listens_for(Refund)
        def on_refund_event(refund: Refund, event_type: ModelEvent, changes: dict | None) -> object:
            return refund.on_event(event_type, changes=changes)


        def test_order(mocker):
            mocker.patch("app.Order.on_create")
        """,
    ),
    Case(
        "methods that work in their class only",
        """
        from functools import partialmethod

        from fastapi_toolsets.models import WatchedFieldsMixin


        class Order(WatchedFieldsMixin):
            on_delete = partialmethod(tell, "gone")

            def on_create(self):
                return self.__secret

            @retried
            def on_update(self, changes): ...
        """,
        """
        from functools import partialmethod

        from fastapi_toolsets.models import ModelEvent, listens_for


        class Order:
            on_delete = partialmethod(tell, "gone")

            def on_create(self):
                return self.__secret

            @retried
            def on_update(self, changes): ...


        @listens_for(Order, [ModelEvent.CREATE])
        def on_order_created(order: Order, event_type: ModelEvent, changes: None) -> object:
            return order.on_create()


        @listens_for(Order, [ModelEvent.UPDATE])
        def on_order_updated(order: Order, event_type: ModelEvent, changes: dict) -> object:
            return order.on_update(changes)


        @listens_for(Order, [ModelEvent.DELETE])
        def on_order_deleted(order: Order, event_type: ModelEvent, changes: None) -> object:
            return order.on_delete()
        """,
    ),
    Case(
        "on_event for what has no method of its own",
        """
        from fastapi_toolsets.models import ModelEvent, WatchedFieldsMixin


        class Order(WatchedFieldsMixin):
            async def on_event(self, event: ModelEvent, *, changes: dict | None = None):
                tell(event, changes)

            async def on_delete(self):
                tell("gone")
        """,
        """
        from fastapi_toolsets.models import ModelEvent, listens_for


        class Order:
            pass


        @listens_for(Order, [ModelEvent.CREATE, ModelEvent.UPDATE])
        async def on_order_event(order: Order, event: ModelEvent, changes: dict | None = None):
            tell(event, changes)


        @listens_for(Order, [ModelEvent.DELETE])
        async def on_order_deleted(order: Order, event_type: ModelEvent, changes: None):
            tell("gone")
        """,
    ),
    Case(
        "classes in functions and blocks",
        """
        from fastapi_toolsets.models import WatchedFieldsMixin

        if postgresql:
            class Order(WatchedFieldsMixin):
                total = 1

                def on_create(self): tell(self)
            orders = Order


        def made(base):
            class Made(base, WatchedFieldsMixin):
                def on_create(self):
                    tell(base)

            return Made
        """,
        """
        from fastapi_toolsets.models import ModelEvent, listens_for

        if postgresql:
            class Order:
                total = 1

            @listens_for(Order, [ModelEvent.CREATE])
            def on_order_created(order: Order, event_type: ModelEvent, changes: None): tell(order)
            orders = Order


        def made(base):
            class Made(base):
                pass

            @listens_for(Made, [ModelEvent.CREATE])
            def on_made_created(made: Made, event_type: ModelEvent, changes: None):
                tell(base)

            return Made
        """,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_class(case: Case, tmp_path: Path) -> None:
    assert migrated(tmp_path, case.before) == textwrap.dedent(case.after).lstrip("\n")
