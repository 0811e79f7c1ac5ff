"""The plugin in the runs of people who only have the library installed."""

from __future__ import annotations

from .suites import Suite

LOADED = """
    import sys

    def pytest_sessionfinish(session):
        ours = [name for name in sys.modules if name.split(".")[0] in ("fastapi_toolsets", "sqlalchemy", "greenlet")]
        print("loaded:", *sorted(ours))
"""

NOTHING = """
    def test_nothing():
        pass
"""


def test_nothing_is_imported_before_a_test_asks_for_it(suite: Suite) -> None:
    """Neither the library nor SQLAlchemy; and nothing warns, with strict settings and without the other plugins."""
    suite.write("conftest.py", LOADED)
    suite.write("test_nothing.py", NOTHING)
    result = suite.run("-s", "-W", "error", "-p", "no:xdist", "--strict-config", "--strict-markers")
    assert result.outcomes == {"passed": 1}, result.output
    assert result.output.split("loaded: ")[1].splitlines()[0] == "fastapi_toolsets fastapi_toolsets.pytest_plugin"


def test_a_test_has_no_fixture_that_it_does_not_ask_for(suite: Suite) -> None:
    suite.write("test_nothing.py", NOTHING)
    result = suite.run("--setup-plan")
    assert [line for line in result.output.splitlines() if "event_" in line] == []
    with_setting = suite.run("--setup-plan", settings="event_listener_scope = true")
    assert "SETUP    F event_listener_scope" in with_setting.output


def test_fixtures_are_listed_with_what_they_do(suite: Suite) -> None:
    suite.write("test_nothing.py", NOTHING)
    listed = suite.run("--fixtures").output
    assert "event_recorder -- " in listed
    assert "Record what is delivered during the test, in order" in listed


def test_it_can_be_switched_off(suite: Suite) -> None:
    suite.write("test_recorder.py", "def test_recorder(event_recorder): pass")
    result = suite.run("-p", "no:fastapi_toolsets")
    assert result.outcomes == {"error": 1}
    assert "fixture 'event_recorder' not found" in result.output


def test_it_can_be_named_where_plugins_are_not_loaded_by_themselves(suite: Suite) -> None:
    suite.write("test_recorder.py", "def test_recorder(event_recorder): assert event_recorder == []")
    result = suite.run("-p", "fastapi_toolsets", environment={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    assert result.outcomes == {"passed": 1}, result.output


def test_program_that_has_imported_the_library_may_call_pytest(suite: Suite) -> None:
    """Of packages that it would rewrite and finds imported it warns; of this one it need not."""
    suite.write("test_nothing.py", NOTHING)
    result = suite.python(
        "-c",
        "import fastapi_toolsets, pytest, sys; sys.exit(pytest.main(['-W', 'error', '-p', 'no:asyncio', '-q']))",
    )
    assert (result.exit_code, result.outcomes) == (0, {"passed": 1}), result.output
