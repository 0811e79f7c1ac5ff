"""Callbacks that are added on the way: a model's parent in another module has none of its own."""

from sqlalchemy.orm import Mapped

from . import base
from .base import Room as Space


class Vault(Space):
    code: Mapped[str | None]

    async def on_delete(self):
        await base.tell("vault deleted", self.name)
