"""Session factories and sessions are given the library's classes, and imports follow."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from .projects import migrate_project, migrated, read_project, write_project

CASES = {
    "the guide's factory": (
        """
        from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

        engine = create_async_engine("sqlite+aiosqlite:///tickets.db")
        SessionLocal = async_sessionmaker(engine, expire_on_commit=False)
        """,
        """
        from fastapi_toolsets.models import EventSession
        from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

        engine = create_async_engine("sqlite+aiosqlite:///tickets.db")
        SessionLocal = async_sessionmaker(engine, expire_on_commit=False, class_=EventSession)
        """,
    ),
    "a sync factory, on several lines": (
        """
        import logging
        import sqlalchemy.orm as orm
        from pathlib import Path
        from sqlalchemy.orm import sessionmaker

        First = sessionmaker(
            engine,  # the one
        )
        Second = sessionmaker(
            autoflush=False
        )
        Third = orm.sessionmaker()
        """,
        """
        import logging
        import sqlalchemy.orm as orm
        from fastapi_toolsets.models import SyncEventSession
        from pathlib import Path
        from sqlalchemy.orm import sessionmaker

        First = sessionmaker(
            engine,  # the one
            class_=SyncEventSession,
        )
        Second = sessionmaker(
            autoflush=False,
            class_=SyncEventSession
        )
        Third = orm.sessionmaker(class_=SyncEventSession)
        """,
    ),
    "comments before the closing bracket": (
        """
        from sqlalchemy.orm import sessionmaker

        First = sessionmaker(
            engine,  # the one
            # and nothing else
        )
        Second = sessionmaker(engine, # the other
            # at first
        )
        Third = sessionmaker(
            engine  # the third
            # at last
        )
        """,
        """
        from fastapi_toolsets.models import SyncEventSession
        from sqlalchemy.orm import sessionmaker

        First = sessionmaker(
            engine,  # the one
            class_=SyncEventSession,
            # and nothing else
        )
        Second = sessionmaker(engine, class_=SyncEventSession, # the other
            # at first
        )
        Third = sessionmaker(
            engine,  # the third
            class_=SyncEventSession
            # at last
        )
        """,
    ),
    "classes that were named, sessions without a factory, and imports that nothing needs any more": (
        """
        from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
        from sqlalchemy.orm import Session as Plain, sessionmaker


        class Ours(AsyncSession):
            async def mine(self): ...


        old_style = sessionmaker(engine, class_=AsyncSession, autoflush=False)
        ours = async_sessionmaker(engine, class_=Ours)
        with Plain(engine) as session:
            print(f"{sessionmaker(engine)}")
        """,
        """
        from fastapi_toolsets.models import EventSession, SyncEventSession
        from sqlalchemy.ext.asyncio import async_sessionmaker
        from sqlalchemy.orm import sessionmaker


        class Ours(EventSession):
            async def mine(self): ...


        old_style = sessionmaker(engine, class_=EventSession, autoflush=False)
        ours = async_sessionmaker(engine, class_=Ours)
        with SyncEventSession(engine) as session:
            print(f"{sessionmaker(engine)}")
        """,
    ),
    "what is still needed stays": (
        """
        from __future__ import annotations

        from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

        maker: async_sessionmaker[AsyncSession] = async_sessionmaker[AsyncSession](engine, class_=AsyncSession)


        def sessionmaker(engine): ...


        mine = sessionmaker(engine)
        """,
        """
        from __future__ import annotations

        from fastapi_toolsets.models import EventSession
        from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

        maker: async_sessionmaker[AsyncSession] = async_sessionmaker[AsyncSession](engine, class_=EventSession)


        def sessionmaker(engine): ...


        mine = sessionmaker(engine)
        """,
    ),
    "a factory of version 3": (
        """
        from fastapi_toolsets.models import EventSession, SyncEventSession as Sync
        from sqlalchemy.ext.asyncio import async_sessionmaker

        First = async_sessionmaker(engine, class_=EventSession)
        Second = async_sessionmaker(engine, sync_session_class=Sync, class_=EventSession)
        """,
        """
        from fastapi_toolsets.models import EventSession, SyncEventSession as Sync
        from sqlalchemy.ext.asyncio import async_sessionmaker

        First = async_sessionmaker(engine, class_=EventSession)
        Second = async_sessionmaker(engine, sync_session_class=Sync, class_=EventSession)
        """,
    ),
    "in a function, and through partial": (
        """
        \"\"\"Makes sessions.\"\"\"
        from functools import partial


        def factory():
            from sqlalchemy.orm import sessionmaker as make

            return make(bind=engine), partial(make, autoflush=False)
        """,
        """
        \"\"\"Makes sessions.\"\"\"
        from functools import partial
        from fastapi_toolsets.models import SyncEventSession


        def factory():
            from sqlalchemy.orm import sessionmaker as make

            return make(bind=engine, class_=SyncEventSession), partial(make, autoflush=False, class_=SyncEventSession)
        """,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_sessions(name: str, tmp_path: Path) -> None:
    before, after = CASES[name]
    assert migrated(tmp_path, before) == textwrap.dedent(after).lstrip("\n")


def test_names_are_followed_from_module_to_module(tmp_path: Path) -> None:
    files = {
        "shop/__init__.py": "from .base import *\n",
        "shop/base.py": """
            from fastapi_toolsets.models import UUIDMixin, WatchedFieldsMixin, watch
            from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker as maker

            __all__ = ["Hooked", "WatchedFieldsMixin", "maker", "AsyncSession"]

            Hooked = WatchedFieldsMixin
            session = maker(class_=AsyncSession)
        """,
        "shop/models/order.py": """
            import shop.base
            from shop import Hooked, maker
            from ..base import watch as limited


            @limited("status")
            class Order(Hooked):
                def on_create(self): tell(self)


            class Note(shop.base.Hooked): ...


            session = maker()
        """,
        "tests/test_order.py": """
            from shop.models.order import Order


            class Special(Order):
                def on_create(self):
                    super().on_create()
                    tell("special")
        """,
    }
    write_project(tmp_path, files)
    assert migrate_project(tmp_path) == []
    expected = {
        "shop/__init__.py": "from .base import *\n",
        "shop/base.py": """
            from fastapi_toolsets.models import EventSession, UUIDMixin
            from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker as maker

            __all__ = ["maker", "AsyncSession"]

            session = maker(class_=EventSession)
        """,
        "shop/models/order.py": """
            import shop.base
            from shop import maker
            from fastapi_toolsets.models import EventSession, ModelEvent, listens_for


            class Order:
                __watched_fields__ = ("status",)
                def on_create(self): tell(self)


            @listens_for(Order, [ModelEvent.CREATE])
            def on_order_created(order: Order, event_type: ModelEvent, changes: None) -> object:
                return order.on_create()


            class Note: ...


            session = maker(class_=EventSession)
        """,
        "tests/test_order.py": files["tests/test_order.py"],
    }
    assert read_project(tmp_path) == {name: textwrap.dedent(source).lstrip("\n") for name, source in expected.items()}


def test_bases_are_read_in_files_that_were_not_named(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "app/__init__.py": "",
            "app/base.py": "from fastapi_toolsets.models import WatchedFieldsMixin as W\nclass Base(W): ...\n",
            "app/models.py": "from .base import Base\nclass Order(Base):\n    def on_create(self): tell(self)\n",
        },
    )
    before = (tmp_path / "app/base.py").read_text(encoding="utf-8")
    assert migrate_project(tmp_path / "app/models.py") == []
    assert (tmp_path / "app/base.py").read_text(encoding="utf-8") == before
    assert (tmp_path / "app/models.py").read_text(encoding="utf-8") == textwrap.dedent(
        """\
        from fastapi_toolsets.models import ModelEvent, listens_for
        from .base import Base
        class Order(Base):
            pass


        @listens_for(Order, [ModelEvent.CREATE])
        def on_order_created(order: Order, event_type: ModelEvent, changes: None): tell(order)
        """
    )
