"""The cells of the comparison: which commits are measured, on what, with which listeners."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SQLITE, AIOSQLITE, POSTGRESQL = "sqlite", "aiosqlite", "postgresql"
DATABASES = (SQLITE, AIOSQLITE, POSTGRESQL)
"""Sync front-end on SQLite in memory; async front-end on the same by aiosqlite, and on PostgreSQL by asyncpg."""

OPERATIONS = ("create", "update", "delete")
SIZES = (1, 100, 1_000, 10_000)
TABLES = ("10", "40", "onupdate")
"""Tables of so many columns; the third, measured for updates only, has ten and the database sets one on UPDATE."""

EXPIRY = (True, False)
LISTENERS = ("none", "elsewhere", "sync", "async")

_QUICK_SIZES = (1, 1_000)
_QUICK_TABLES = ("10",)


class UnknownCellsError(ValueError):
    """A pattern names no cell at all."""


@dataclass(frozen=True)
class Group:
    """Cells that are measured in the same rounds: they differ in their listeners only.

    Attributes:
        database: One of ``DATABASES``.
        operation: One of ``OPERATIONS``.
        rows: How many rows the commit writes.
        table: One of ``TABLES``.
        expire: The sessions' ``expire_on_commit``.
    """

    database: str
    operation: str
    rows: int
    table: str
    expire: bool

    @property
    def name(self) -> str:
        """The group's part of its cells' names."""
        return f"{self.database}/{self.operation}/{self.rows}/{self.table}/{'expire' if self.expire else 'keep'}"

    def cell_name(self, listeners: str) -> str:
        """Name one cell, such as ``aiosqlite/update/1000/10/keep/sync``."""
        return f"{self.name}/{listeners}"


def all_groups() -> Iterator[Group]:
    """Give every group of the comparison."""
    for database, operation, rows, table, expire in product(DATABASES, OPERATIONS, SIZES, TABLES, EXPIRY):
        if table != "onupdate" or operation == "update":
            yield Group(database, operation, rows, table, expire)


def is_quick(group: Group) -> bool:
    """Whether ``--quick`` measures it: one row and 1,000, ten columns, ``expire_on_commit`` off for updates only."""
    return group.rows in _QUICK_SIZES and group.table in _QUICK_TABLES and (group.expire or group.operation == "update")


def select_cells(patterns: Sequence[str], *, quick: bool) -> dict[Group, tuple[str, ...]]:
    """Return the listeners to measure for each group.

    Args:
        patterns: Shell patterns of cell names, such as ``*/update/1000/*``; any one is enough. All cells where empty.
        quick: Whether to leave out all but a few cells; with patterns it changes nothing.

    Raises:
        UnknownCellsError: A pattern matches no cell.
    """
    chosen: dict[Group, tuple[str, ...]] = {}
    unmatched = set(patterns)
    for group in all_groups():
        found: list[str] = []
        for listeners in LISTENERS:
            name = group.cell_name(listeners)
            matching = [pattern for pattern in patterns if fnmatchcase(name, pattern)]
            unmatched.difference_update(matching)
            if matching or (not patterns and (not quick or is_quick(group))):
                found.append(listeners)
        if found:
            chosen[group] = tuple(found)
    if unmatched:
        msg = (
            f"no cell matches {', '.join(sorted(unmatched))}: cells are named "
            "database/operation/rows/table/expiry/listener, such as aiosqlite/update/1000/10/keep/sync"
        )
        raise UnknownCellsError(msg)
    return chosen
