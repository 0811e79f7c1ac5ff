"""The fixtures ``event_recorder`` and ``event_listener_scope``, with each plugin that runs async tests."""

from __future__ import annotations

import pytest

from .suites import Suite

ASYNC_CONFTEST = """
    import pytest
    {imports}
    from fastapi_toolsets.pytest import create_db_session
    from models import Base

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @{fixture}
    async def db_session():
        async with create_db_session("sqlite+aiosqlite:///:memory:", Base) as session:
            yield session
"""

ASYNC_TESTS = """
    import anyio
    import pytest
    from fastapi_toolsets.models import ModelEvent, listens_for
    from fastapi_toolsets.pytest import created, deleted, updated
    from models import Order

    {mark}

    called = []

    @listens_for(Order, ModelEvent.UPDATE)
    async def on_update(order, event_type, changes):
        called.append(changes)

    async def test_first(event_recorder, db_session):
        order = Order(id=1)
        db_session.add(order)
        await db_session.commit()
        event_recorder.clear()
        order.status = "paid"
        await db_session.commit()
        await db_session.delete(order)
        await db_session.commit()
        assert event_recorder == [updated(Order, 1, status=("new", "paid")), deleted(Order, 1)]
        assert called == [{{"status": {{"old": "new", "new": "paid"}}}}]

    async def test_second(db_session, event_recorder):
        assert event_recorder == []
        with event_recorder.muted():
            db_session.add(Order(id=1))
            await db_session.commit()
        async def elsewhere():
            db_session.add(Order(id=2))
            await db_session.commit()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(elsewhere)
        assert event_recorder == [created(Order, 1), created(Order, 2)]

    async def test_shows_what_differs(db_session, event_recorder):
        db_session.add(Order(id=1))
        await db_session.commit()
        assert event_recorder == [created(Order, 7)]
"""

MODES = {
    "anyio": ("", "pytest.fixture", "pytestmark = pytest.mark.anyio", ()),
    "anyio without pytest-asyncio": ("", "pytest.fixture", "pytestmark = pytest.mark.anyio", None),
    "strict": ("import pytest_asyncio", "pytest_asyncio.fixture", "pytestmark = pytest.mark.asyncio", ()),
    "auto": ("", "pytest.fixture", "", ("--asyncio-mode=auto",)),
    "one loop for the module": (
        "import pytest_asyncio",
        'pytest_asyncio.fixture(loop_scope="module")',
        'pytestmark = pytest.mark.asyncio(loop_scope="module")',
        (),
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_recorder_in_async_tests(suite: Suite, mode: str) -> None:
    imports, fixture, mark, arguments = MODES[mode]
    suite.write("conftest.py", ASYNC_CONFTEST.format(imports=imports, fixture=fixture))
    suite.write("test_orders.py", ASYNC_TESTS.format(mark=mark))
    result = suite.run(*(arguments or ()), asyncio=arguments is not None)
    assert result.outcomes == {"passed": 2, "failed": 1}, result.output
    assert result.errors == [
        "assert what was delivered is not what was expected",
        "(- expected and not delivered, + delivered and not expected)",
        "- created(Order, 7)",
        "+ created(Order, 1)",
    ]


SYNC_TESTS = """
    import pytest
    from fastapi_toolsets.models import listens_for, remove_listener
    from fastapi_toolsets.pytest import create_sync_db_session, created
    from models import Base, Order

    heard = []

    @listens_for(Order)
    def of_the_module(order, event_type, changes):
        heard.append("module")

    @pytest.fixture
    def session():
        with create_sync_db_session("sqlite://", Base) as session:
            yield session

    @pytest.mark.parametrize("round", [1, 2])
    def test_listeners_of_a_test(session, event_recorder, round, {fixture}):
        listens_for(Order)(lambda order, event_type, changes: heard.append("test"))
        heard.clear()
        session.add(Order(id=1))
        session.commit()
        assert heard == ["module", "test"]
        assert event_recorder == [created(Order, 1)]
"""


@pytest.mark.parametrize(
    ("fixture", "settings", "outcomes"),
    [
        ("request", "", {"passed": 1, "failed": 1}),
        ("event_listener_scope", "", {"passed": 2}),
        ("request", "event_listener_scope = true", {"passed": 2}),
        ("request", "event_listener_scope = false", {"passed": 1, "failed": 1}),
    ],
)
def test_scope_of_listeners_for_a_test(suite: Suite, fixture: str, settings: str, outcomes: dict[str, int]) -> None:
    """N5: a test that asks for it has listeners of its own; with the setting every test has."""
    suite.write("test_orders.py", SYNC_TESTS.format(fixture=fixture))
    result = suite.run(settings=settings)
    assert result.outcomes == outcomes, result.output


COMPARISONS = """
    from fastapi_toolsets.events import EventRecorder
    from fastapi_toolsets.pytest import created
    from models import Order

    def test_reversed(event_recorder):
        assert [created(Order, 1)] == event_recorder

    def test_of_tuple(event_recorder):
        assert event_recorder == (created(Order, 1),)

    def test_with_another_kind(event_recorder):
        assert event_recorder == {"created": 1}

    def test_unequal(event_recorder):
        assert event_recorder != []

    def test_lists_of_others():
        assert [1] == [2]

    def test_assert_delivered(event_recorder):
        event_recorder.assert_delivered([created(Order, 1)])
"""


def test_only_comparisons_with_a_recorder_are_explained(suite: Suite) -> None:
    suite.write("test_orders.py", COMPARISONS)
    result = suite.run("--tb=short")
    assert result.outcomes == {"failed": 6}, result.output
    explained = [index for index, line in enumerate(result.errors) if "what was delivered" in line]
    assert [result.errors[index : index + 3] for index in explained] == [
        [
            f"{assertion} what was delivered is not what was expected",
            "(- expected and not delivered, + delivered and not expected)",
            "- created(Order, 1)",
        ]
        for assertion in ("assert", "assert", "AssertionError:")
    ]
