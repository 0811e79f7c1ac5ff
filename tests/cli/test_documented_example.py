"""The page about the command shows what the command really does."""

from __future__ import annotations

import re
from pathlib import Path

from .test_migrate_command import ROOT, run


def test_diff_on_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    (diff,) = re.findall(r"^```diff\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    before = [line[1:] for line in diff.splitlines()[3:] if not line.startswith("+")]
    (tmp_path / "orders.py").write_text("\n".join(before) + "\n", encoding="utf-8")
    code, output, _errors = run("migrate", "v3", "orders.py", cwd=tmp_path)
    assert (code, output) == (1, diff)
