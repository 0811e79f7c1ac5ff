"""Every way to get at a name."""

import fastapi_toolsets.models as toolsets
from fastapi_toolsets import models
from fastapi_toolsets.models import WatchedFieldsMixin as Watched, watch as only
from fastapi_toolsets.models.watched import ModelEvent as What
from vocabulary import *
from vocabulary import listens_for as on_mapper, told as heard

FIELDS = ("status", "price")


class Base(DeclarativeBase):
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]


@only(
    *FIELDS,  # as the shop has them
    "name",
)
class Article(Base, Watched):
    __tablename__ = "articles"
    price: Mapped[int] = mapped_column(default=1)
    name: Mapped[str] = mapped_column(default="n")
    stock: Mapped[int] = mapped_column(default=1)

    async def on_event(this, event: What, changes=None):
        heard.append(["article", this.status, event is What.UPDATE, changes])


@toolsets.watch("status")
class Basket(Base, toolsets.WatchedFieldsMixin):
    __tablename__ = "baskets"

    class Line(Base, models.WatchedFieldsMixin):
        __tablename__ = "lines"

        async def on_create(self):
            heard.append(["line", self.status])

    def on_create(self): heard.append(["basket", self.status])


class Invoice(Notifying, Base):
    __tablename__ = "invoices"

    async def on_delete(self):
        invoice = "a name that the object would have"
        obj = "the next one"
        heard.append(["invoice", self.status, invoice, obj])


def make_model(table: str):
    prefix = f"{table}:"

    class Made(Base, WatchedFieldsMixin):
        __tablename__ = table

        async def on_create(self):
            heard.append([prefix + self.status])

    return Made


@on_mapper(Article, "before_insert")
def of_sqlalchemy(mapper, connection, article):
    heard.append(["SQLAlchemy's own"])
