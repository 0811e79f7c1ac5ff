"""Scenarios that need no server each to themselves: one by one on SQLite, one after another on a server's tables.

To make tables and engines anew for each of them on a server takes longer than all of them together::

    clause = Clauses(Base.metadata)

    @clause
    async def test_something(front: FrontEnd, recorder: EventRecorder) -> None: ...

    test_on_servers = clause.on_servers()
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from sqlalchemy import MetaData

from fastapi_toolsets.events import listener_scope

from ..front_ends import EventRecorder, FrontEnd, Scenario, entered, resolve, scenario

SERVERS = ("postgresql", "mariadb")


class Clauses:
    """Collects the scenarios of one module."""

    def __init__(self, metadata: MetaData) -> None:
        self._metadata = metadata
        self._scenarios: list[Scenario] = []

    def __call__(self, function: Scenario) -> Callable[..., None]:
        """Collect the scenario on SQLite, and remember it for the servers."""
        self._scenarios.append(function)
        return scenario(self._metadata, databases=("sqlite",))(function)

    def on_servers(self) -> Callable[..., None]:
        """Make one test of all that were collected, each with a session, listeners and rows of its own, on servers."""
        return scenario(self._metadata, databases=SERVERS)(self._all())

    def on_expiring_sessions(self) -> Callable[..., None]:
        """Make one test of them all with ``expire_on_commit``, on the front-end that may load at any time."""
        decorate = scenario(self._metadata, databases=("sqlite",), front_ends=("sync",), expire_on_commit=True)
        return decorate(self._all())

    def _all(self) -> Scenario:
        async def run_all(front: FrontEnd, recorder: EventRecorder, caplog: pytest.LogCaptureFixture) -> None:
            fixtures = {"front": front, "recorder": recorder, "caplog": caplog}
            for function in self._scenarios:
                with listener_scope():
                    print(function.__name__)  # noqa: T201 - says which one failed
                    await function(**{name: fixtures[name] for name in inspect.signature(function).parameters})
                await self._clean(front, recorder)
                caplog.clear()

        run_all.__doc__ = "".join(f"{function.__doc__}\n" for function in self._scenarios)
        return run_all

    async def _clean(self, front: FrontEnd, recorder: EventRecorder) -> None:
        recorder.take()
        await front.close_all()
        async with entered(front.engine.begin()) as connection:
            for table in reversed(self._metadata.sorted_tables):
                await resolve(connection.execute(table.delete()))
