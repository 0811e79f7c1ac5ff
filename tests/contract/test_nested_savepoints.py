"""Rule T3: three savepoints deep, in every order in which they can end, against a list of what nothing took back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product

from ..front_ends import EventRecorder, FrontEnd, RecordedEvent, SessionAdapter, Transaction, scenario
from .event_models import created, deleted, updated
from .transaction_models import ORDERS, Base, ExpectedError, Order


@dataclass
class Program:
    """A transaction with three savepoints, and beside it a list of the steps that no rollback has taken back.

    Every step updates row 1, creates a row of its own, and deletes row 2 or creates it again.
    """

    session: SessionAdapter
    steps: int = 0
    surviving: list[int] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)

    async def step(self) -> None:
        self.steps += 1
        order = await self.session.get_one(Order, 1)
        order.status = f"step {self.steps}"
        await self.session.add(Order(id=100 + self.steps))
        second = await self.session.get(Order, 2)
        if second is None:
            await self.session.add(Order(id=2))
        else:
            await self.session.delete(second)
        await self.session.flush()
        self.surviving.append(self.steps)

    def enter(self) -> None:
        self.marks.append(len(self.surviving))

    def leave(self, level: int, *, release: bool) -> None:
        """End the savepoint of a level, counted from 0, and those inside it."""
        mark = self.marks[level]
        del self.marks[level:]
        if not release:
            del self.surviving[mark:]

    def expected(self, status: str) -> tuple[list[RecordedEvent], list[tuple[object, ...]]]:
        """Return the events, and the rows afterwards, given the status of row 1 before."""
        events = [created(Order, 100 + step) for step in self.surviving]
        rows: list[tuple[object, ...]] = [(100 + step, "new") for step in self.surviving]
        if not self.surviving:
            return [], [(1, status), (2, "new")]
        last = f"step {self.surviving[-1]}"
        events += [deleted(Order, 2), updated(Order, 1, status=(status, last))]
        if len(self.surviving) % 2 == 0:
            events.append(created(Order, 2))
            rows.append((2, "new"))
        return events, [*rows, (1, last)]


def endings() -> Iterator[dict[int, str]]:
    """Give every way to end three savepoints: each by its own object or, left out, with what is around it."""
    for chosen in product(("commit", "rollback", None), repeat=3):
        yield {level: action for level, action in zip((2, 1, 0), chosen, strict=True) if action is not None}


async def run_with_objects(session: SessionAdapter, ending: dict[int, str]) -> Program:
    """End savepoints by their transaction objects, inner ones sometimes with the outer one."""
    program = Program(session)
    root = await session.begin()
    await program.step()
    savepoints: list[Transaction] = []
    for _ in range(3):
        savepoints.append(await session.begin_nested())
        program.enter()
        await program.step()
    for level, action in ending.items():
        release = action == "commit"
        await (savepoints[level].commit() if release else savepoints[level].rollback())
        program.leave(level, release=release)
        await program.step()
    await root.commit()
    return program


async def run_with_blocks(session: SessionAdapter, actions: tuple[str, ...]) -> Program:
    """End savepoints by leaving their blocks, with an exception where one is to be rolled back."""
    program = Program(session)

    async def nest(level: int) -> None:
        if level == len(actions):
            return
        release = actions[level] == "commit"
        with suppress(ExpectedError):
            async with session.begin_nested():
                program.enter()
                await program.step()
                await nest(level + 1)
                if not release:
                    raise ExpectedError
        program.leave(level, release=release)
        await program.step()

    async with session.begin():
        await program.step()
        await nest(0)
    return program


async def check(front: FrontEnd, recorder: EventRecorder, session: SessionAdapter, program: Program) -> list[object]:
    """Compare events and rows with the program's; put the rows back."""
    events, rows = program.expected("seed")
    told = recorder.take()
    for order in (await session.scalars(Order.__table__.select().with_only_columns(Order.id))).all():
        if order > 2:
            await session.delete(await session.get_one(Order, order))
    (await session.get_one(Order, 1)).status = "seed"
    differences: list[object] = []
    if sorted(map(repr, told)) != sorted(map(repr, events)):
        differences.append((told, events))
    found = await front.committed_rows(ORDERS)
    if found != sorted(rows):
        differences.append((found, rows))
    if await session.get(Order, 2) is None:
        await session.add(Order(id=2))
    await session.commit()
    recorder.take()
    return differences


@scenario(Base.metadata)
async def test_three_deep_by_objects_in_every_order(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: all 27 ways to end three savepoints, each explicitly or with its parent, on one session."""
    await front.add_all([Order(id=1, status="seed"), Order(id=2)])
    await front.commit()
    recorder.listen(Order)
    differing = {}
    for ending in endings():
        program = await run_with_objects(front, ending)
        if differences := await check(front, recorder, front, program):
            differing[str(ending)] = differences
    assert differing == {}


@scenario(Base.metadata)
async def test_three_deep_by_blocks_in_every_order(front: FrontEnd, recorder: EventRecorder) -> None:
    """T3: all 8 ways to leave three nested blocks, each with or without an exception, on one session."""
    await front.add_all([Order(id=1, status="seed"), Order(id=2)])
    await front.commit()
    recorder.listen(Order)
    differing = {}
    for actions in product(("commit", "rollback"), repeat=3):
        program = await run_with_blocks(front, actions)
        if differences := await check(front, recorder, front, program):
            differing[str(actions)] = differences
    assert differing == {}
