"""The picture for the docs: bars of how much longer a commit takes than on a plain session. Plain SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .results import Cell, Results

_PREFERRED = {"listeners": "sync", "table": "10"}
_WIDTH, _LEFT, _RIGHT = 480, 16, 60
_LINE, _LABEL, _BAR, _TOP, _BOTTOM = 64, 20, 13, 76, 52
_SMALLEST_SCALE = 1.5
# A page that shows the picture inline names the colours, so that they follow its own switch of light and dark; alone,
# the picture follows the system's.
_STYLE = """
  .commit-times { --text: #24292f; --quiet: #57606a; --ours: #1a7f37; --published: #9a6700 }
  @media (prefers-color-scheme: dark) {
    .commit-times { --text: #e6edf3; --quiet: #9198a1; --ours: #3fb950; --published: #d29922 }
  }
  .commit-times text { font: 14px system-ui, sans-serif; fill: var(--diagram-text, var(--text)) }
  .commit-times .title { font-size: 16px; font-weight: 600 }
  .commit-times .small { font-size: 12.5px; fill: var(--diagram-quiet, var(--quiet)) }
  .commit-times .ours { fill: var(--diagram-ours, var(--ours)) }
  .commit-times .published { fill: var(--diagram-published, var(--published)) }
  .commit-times .plain { stroke: var(--diagram-text, var(--text)); stroke-width: 1.5; stroke-dasharray: 4 3 }
"""


def chosen_cells(results: Results) -> list[Cell]:
    """Return the cells to draw: a sync listener and ten columns, one front-end and size of each kind.

    Where none of those was measured, all that were.
    """
    found = [
        cell
        for cell in results.cells
        if all(getattr(cell, name) == value for name, value in _PREFERRED.items())
        and cell.database != "sqlite"
        and cell.rows in (1, 1_000)
    ]
    return found or results.cells


def draw(results: Results) -> str:
    """Return the picture as SVG."""
    cells = chosen_cells(results)
    ratios = [1.0] + [ratio for cell in cells for ratio, _ in _bars(cell)]
    largest = max(*ratios, _SMALLEST_SCALE)
    height = _TOP + _LINE * len(cells) + _BOTTOM
    scale = (_WIDTH - _LEFT - _RIGHT) / largest
    parts = [
        f'<svg class="commit-times" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        "<title>Time of commit() compared with a plain session</title>",
        f"<style>{_STYLE}</style>",
        '<text class="title" x="16" y="28">Time of commit(), plain session = 1</text>',
        *_legend(results),
        *(line for index, cell in enumerate(cells) for line in _cell(cell, _TOP + index * _LINE, scale)),
        *_caption(results, height),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bars(cell: Cell) -> Sequence[tuple[float, str]]:
    found = [(cell.ours.wall.median, "ours")]
    if cell.published is not None:
        found.append((cell.published.wall.median, "published"))
    return found


def _legend(results: Results) -> list[str]:
    published = results.machine.get("published") or "published"
    return [
        f'<rect class="ours" x="{_LEFT}" y="44" width="12" height="12"/>',
        f'<text x="{_LEFT + 18}" y="55">this library</text>',
        f'<rect class="published" x="{_LEFT + 120}" y="44" width="12" height="12"/>',
        f'<text x="{_LEFT + 138}" y="55">fastapi-toolsets {escape(published)}</text>',
    ]


def _cell(cell: Cell, top: int, scale: float) -> list[str]:
    rows = f"{cell.rows:,} {'row' if cell.rows == 1 else 'rows'}"
    expiry = "" if cell.expire_on_commit else ", expire_on_commit off"
    lines = [f'<text x="{_LEFT}" y="{top + 12}">{escape(f"{cell.database}: {cell.operation} {rows}{expiry}")}</text>']
    for number, (ratio, side) in enumerate(_bars(cell)):
        y = top + _LABEL + number * (_BAR + 2)
        width = ratio * scale
        lines.append(f'<rect class="{side}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}"/>')
        lines.append(f'<text class="small" x="{_LEFT + width + 6:.1f}" y="{y + _BAR - 2}">{ratio:.2f}</text>')
    plain, bottom = f"{_LEFT + scale:.1f}", top + _LABEL + 2 * _BAR + 6
    return [*lines, f'<line class="plain" x1="{plain}" x2="{plain}" y1="{top + _LABEL - 2}" y2="{bottom}"/>']


def _caption(results: Results, height: int) -> list[str]:
    machine = results.machine
    versions = f"Python {machine['python']}, SQLAlchemy {machine['sqlalchemy']}"
    lines = (
        "Dashed: the plain session. Medians; one sync listener that does nothing.",
        f"{versions}, load average {machine['load_before']} at the start.",
    )
    return [
        f'<text class="small" x="{_LEFT}" y="{height - 30 + 18 * number}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
