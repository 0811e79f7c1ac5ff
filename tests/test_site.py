"""The documentation site: built strictly, complete, and loading nothing from anywhere else."""

from __future__ import annotations

import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from subprocess import run
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from griffe import Module, load

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
INPUTS = ("CONTRIBUTING.md", "changelog.d", "docs", "fastapi_toolsets", "mkdocs.yml", "tools")
PUBLIC_MODULES = ("db", "errors", "models", "pytest")

LOADING_ATTRIBUTES = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
RELATIONS_WITHOUT_LOADING = {"alternate", "author", "canonical", "help", "license", "next", "prev", "search"}
LAZY_LIBRARIES = ("mermaid", "glightbox", "pyodide", "arithmatex")
"""What the theme's script fetches from elsewhere, but only for a page that has an element of that class."""


class Page(HTMLParser):
    """What a built page links to, loads, and can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.classes: set[str] = set()
        self.styles: list[str] = []
        self._in_style = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        self.anchors.update(attributes[name] for name in ("id", "name") if name in attributes)
        self.classes.update(attributes.get("class", "").split())
        self.loads += [attributes[name] for name in LOADING_ATTRIBUTES.get(tag, ()) if name in attributes]
        if tag == "link" and not set(attributes.get("rel", "").split()) <= RELATIONS_WITHOUT_LOADING:
            self.loads.append(attributes["href"])
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        self.styles.append(attributes.get("style", ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.styles.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False


def is_elsewhere(address: str) -> bool:
    return re.match(r"(?:https?:)?//", address.strip()) is not None


def copy_of_the_sources(folder: Path) -> Path:
    """Copy what the site is built from, so that building it leaves nothing in the checkout."""
    for name in INPUTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def build(folder: Path) -> tuple[int, str]:
    """Build the site of a folder as `nox -s docs` does; return the exit code and what was said."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    finished = run(command, cwd=folder, capture_output=True, text=True, check=False)
    return finished.returncode, finished.stdout + finished.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_of_the_sources(tmp_path_factory.mktemp("site"))
    code, said = build(folder)
    assert (code, "No issues found" in said) == (0, True), said
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_of_the_docs_is_built_and_in_the_navigation(site: Path, pages: dict[Path, Page]) -> None:
    """A page that nobody can find is as good as none; a new file needs a line under ``nav`` in mkdocs.yml."""
    expected: set[Path] = set()
    for source in DOCS.rglob("*.md"):
        page = source.relative_to(DOCS)
        folder = page.parent if page.stem == "index" else page.with_suffix("")
        expected.add(site / folder / "index.html")
    home = site / "index.html"
    linked = {(home.parent / unquote(urldefrag(link).url) / "index.html").resolve() for link in pages[home].links}
    assert sorted(expected - set(pages)) == []
    assert sorted(expected - linked - {home}) == []


def test_links_lead_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    """Every link inside the site, to a page or to a place on it, also those that mkdocstrings makes."""
    dead: list[str] = []
    for path, page in pages.items():
        base = "/" + path.relative_to(site).as_posix()
        for link in page.links:
            if is_elsewhere(link) or link.startswith(("mailto:", "javascript:")):
                continue
            address, anchor = urldefrag(urljoin(base, link))
            target = site / unquote(address).lstrip("/")
            target = target / "index.html" if target.is_dir() else target
            known = pages[target].anchors if target in pages else set[str]()
            if not target.is_file() or (anchor and unquote(anchor) not in known):
                dead.append(f"{base}: {link}")
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    """No script, style, font or picture of another server, not even one that is merely announced."""
    loads = {path: list(page.loads) for path, page in pages.items()}
    styles = {path: page.styles for path, page in pages.items()}
    styles |= {path: [path.read_text(encoding="utf-8")] for path in site.rglob("*.css")}
    for path, texts in styles.items():
        for text in texts:
            found: list[str] = re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""", text)
            loads.setdefault(path, []).extend(found)
    assert [(path.name, address) for path in loads for address in loads[path] if is_elsewhere(address)] == []


def test_no_page_asks_for_what_the_theme_fetches_on_demand(pages: dict[Path, Page]) -> None:
    asking = [(path.name, name) for path, page in pages.items() for name in LAZY_LIBRARIES if name in page.classes]
    assert asking == []


def test_what_pages_load_is_there(site: Path, pages: dict[Path, Page]) -> None:
    missing: list[str] = []
    for path, page in pages.items():
        base = "/" + path.relative_to(site).as_posix()
        for address in page.loads:
            target = site / unquote(urldefrag(urljoin(base, address)).url).lstrip("/")
            if not address.startswith("data:") and not target.is_file():
                missing.append(f"{base}: {address}")
    assert missing == []


def names_in(door: str) -> set[str]:
    """Return what one of the package's doors exports; an error class, which `errors` has no list of, too."""
    module = load("fastapi_toolsets", search_paths=[ROOT]).members[door]
    assert isinstance(module, Module)
    exported = module.exports if module.exports is not None else [n for n in module.members if n[0].isupper()]
    return set(map(str, exported))


def public_names() -> set[str]:
    """Return the full names of what the doors export; of what `events` exports, what no other door does."""
    names = {door: names_in(door) for door in PUBLIC_MODULES}
    names["events"] = names_in("events").difference(*names.values())
    return {f"fastapi_toolsets.{door}.{name}" for door, exported in names.items() for name in exported}


def test_reference_has_every_public_name(pages: dict[Path, Page], site: Path) -> None:
    shown: set[str] = set()
    for path in (site / "reference").rglob("*.html"):
        shown |= pages[path].anchors
    assert sorted(public_names() - shown) == []


def test_reference_shows_no_markup(site: Path) -> None:
    """Roles that nobody turned into links, and references that nobody resolved, would be shown as they are."""
    markup = re.compile(r":(?:class|func|meth|attr|mod):|\]\[fastapi_toolsets|<p>::")
    texts = {path.parent.name: path.read_text(encoding="utf-8") for path in (site / "reference").rglob("*.html")}
    assert {name: markup.findall(text) for name, text in texts.items()} == {name: [] for name in texts}


def test_reference_describes_what_is_returned_as_one_thing(site: Path) -> None:
    """A description of several lines would otherwise be torn into one of several values."""
    section = re.compile(r">(?:Returns|Yields):</span></p>\s*<ul>(.*?)</ul>", re.DOTALL)
    texts = {path.parent.name: path.read_text(encoding="utf-8") for path in (site / "reference").rglob("*.html")}
    items = {name: [found.count("doc-section-item") for found in section.findall(text)] for name, text in texts.items()}
    assert items["db"]
    assert items == {name: [1] * len(counts) for name, counts in items.items()}


@pytest.mark.parametrize(
    ("page", "text"),
    [
        pytest.param("index.md", "[Gone](gone.md)", id="page"),
        pytest.param("index.md", "[Gone](events.md#gone)", id="place on a page"),
        pytest.param("reference/errors.md", "[Gone][fastapi_toolsets.errors.Gone]", id="name"),
    ],
)
def test_a_dead_link_fails_the_build(tmp_path: Path, page: str, text: str) -> None:
    """The strict build is what keeps links alive: it has to notice."""
    folder = copy_of_the_sources(tmp_path)
    with (folder / "docs" / page).open("a", encoding="utf-8") as file:
        file.write(f"\n\n{text}\n")
    code, said = build(folder)
    assert (code != 0, "1 issue found" in said) == (True, True), said
