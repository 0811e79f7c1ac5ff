"""The README and the docs: Python blocks run as they stand and print what the page says, links lead somewhere."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, sessionmaker
from sybil import Document
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from fastapi_toolsets.models import SyncEventSession, listener_scope

from .pytest_plugin.suites import Suite
from .services import require_service

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
MIGRATION_GUIDE = ROOT / "docs" / "migration" / "v3.md"
HOW_TO = ROOT / "docs" / "how-to"
LANGUAGES = {"python", "text", "console", "toml", "html", "diff", "json"}
BEFORE, NOW = "Before (v2)", "Now (v3)"
OTHERS = {BEFORE, "Before (Django)"}
"""Tabs with code for something that is not installed here."""
ONE_PROGRAM = {ROOT / "docs" / name for name in ("bulk.md", "events.md", "guarantees.md", "phases.md", "tutorial.md")}
"""Pages that say of their blocks that they belong together; everywhere else each block stands for itself."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    source: str
    tab: str | None
    """The title of the content tab that it is in."""
    output: str
    """What the page says that it prints: the ``text`` block right after it, if there is one."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    def run(self, module: ModuleType | None = None) -> dict[str, Any]:
        """Run it in a module, or one of its own, and return the module's names; tracebacks show the page's lines."""
        code = compile("\n" * self.line + self.source, str(self.page), "exec", dont_inherit=True)
        module = module or ModuleType("block_of_documentation")
        sys.modules[module.__name__] = module
        try:
            exec(code, module.__dict__)  # noqa: S102 -- running the page's code is what this test is for
        finally:
            del sys.modules[module.__name__]
        return module.__dict__


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    document = Document(text, str(page))
    regions = sorted(FencedCodeBlockLexer(r"\S+")(document), key=lambda region: region.start)
    for index, region in enumerate(regions):
        following = regions[index + 1] if index + 1 < len(regions) else None
        output = ""
        # Only a sentence of one line, such as "It prints:", may stand between a block and its output.
        if following is not None and following.lexemes["language"] == "text":
            between = text[region.end : following.start].strip()
            if not between or (between.endswith(":") and "\n" not in between):
                output = str(following.lexemes["source"])
        language = str(region.lexemes["language"])
        source = str(region.lexemes["source"])
        yield Block(
            page, text.count("\n", 0, region.start) + 1, language, source, tab_around(text, region.start), output
        )


def tab_around(text: str, position: int) -> str | None:
    """Return the title of the content tab whose indented content is at ``position``."""
    if not text[position:].startswith("    "):
        return None
    for line in reversed(text[:position].splitlines()):
        if title := re.fullmatch(r'=== "(.+)"', line):
            return title[1]
        if line and not line.startswith("    "):
            break
    return None


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON_BLOCKS = [block for block in BLOCKS if block.language == "python"]
RUNNING_BLOCKS = [block for block in PYTHON_BLOCKS if block.tab not in OTHERS and block.page not in ONE_PROGRAM]


@pytest.mark.parametrize("block", RUNNING_BLOCKS, ids=str)
def test_block_runs_as_it_stands(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each block alone, in an empty folder; a test function in it, as a reader's pytest would find it, is run too."""
    monkeypatch.chdir(tmp_path)
    if "REDIS_URL" in block.source:
        monkeypatch.setenv("REDIS_URL", require_service("redis"))
    with listener_scope(inherit=False):  # what other tests have imported listens, too
        names = block.run()
        tests = [function for name, function in names.items() if name.startswith("test_")]
        if any(inspect.signature(function).parameters for function in tests):
            run_as_a_suite(block, tmp_path)
        else:
            for function in tests:
                anyio.run(function)
    assert capsys.readouterr().out == block.output


def run_as_a_suite(block: Block, folder: Path) -> None:
    """Let pytest run a block whose tests have fixtures, with the plugins that are installed."""
    suite = Suite(folder)
    suite.write("test_block.py", block.source)
    result = suite.run()
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("page", sorted(ONE_PROGRAM), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_run_as_one_program(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """C1, C2, C3, C4, E1, E2, N1, N3, N4, N5, T2, T3: what the page shows each of its blocks to print."""
    monkeypatch.chdir(tmp_path)
    module = ModuleType("program_of_documentation")
    for block in [block for block in PYTHON_BLOCKS if block.page == page]:
        block.run(module)
        assert (str(block), capsys.readouterr().out) == (str(block), block.output)
    engine: Engine | AsyncEngine = module.engine
    if isinstance(engine, Engine):
        engine.dispose()


@pytest.mark.parametrize("block", [block for block in PYTHON_BLOCKS if block.tab in OTHERS], ids=str)
def test_block_about_something_else_is_python(block: Block) -> None:
    compile(block.source, str(block), "exec", dont_inherit=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_block_escapes_the_tests(page: Path) -> None:
    """A fence that the parser does not recognise, or a language nobody runs, would be a block that nobody tests."""
    fences = re.findall(r"^[ \t]*```.*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    found = [block for block in BLOCKS if block.page == page]
    assert len(fences) == 2 * len(found)
    assert {block.language for block in found} <= LANGUAGES


def test_guide_shows_both_versions_of_everything() -> None:
    tabs = [block.tab for block in PYTHON_BLOCKS if block.page == MIGRATION_GUIDE]
    assert tabs == [BEFORE, NOW] * (len(tabs) // 2)
    assert len(tabs) >= 2


def test_guide_block_calls_its_listeners(capsys: pytest.CaptureFixture[str]) -> None:
    """N1, C1: the guide's first block, pasted and used by a program that commits, calls its three callbacks."""
    names = next(block for block in RUNNING_BLOCKS if block.page == MIGRATION_GUIDE).run()
    engine = create_engine("sqlite://")
    names["Base"].metadata.create_all(engine)
    session_factory: sessionmaker[Session] = sessionmaker(engine, class_=SyncEventSession)
    with session_factory() as session:
        ticket = names["Ticket"](title="It leaks", status="open")
        session.add(ticket)
        session.commit()
        ticket.status = "done"
        session.commit()
        session.delete(ticket)
        session.commit()
    engine.dispose()
    assert capsys.readouterr().out.splitlines() == [
        "new ticket: It leaks",
        "It leaks: status was open, is done",
        "closed: It leaks",
    ]


def slugs_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as both GitHub and MkDocs make them."""
    text = re.sub(r"^[ \t]*```.*?^[ \t]*```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    dead: list[str] = []
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.is_file() or (anchor and anchor not in slugs_of(linked)):
            dead.append(target)
    assert dead == []
