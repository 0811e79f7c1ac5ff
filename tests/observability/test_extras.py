"""Instruments are extras: nothing imports what they need, and each says which one is missing."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

PACKAGES = {"opentelemetry": "opentelemetry", "prometheus": "prometheus_client"}


def test_nothing_is_imported_unasked() -> None:
    """Whoever does not instrument has neither package loaded, even where they are installed."""
    imports = "import fastapi_toolsets.models, fastapi_toolsets.db, fastapi_toolsets.observability.instrumentation, sys"
    program = f"{imports}; print(sorted({set(PACKAGES.values())!r} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout == "[]\n"


@pytest.mark.parametrize("name", PACKAGES)
def test_extra_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra to install."""
    module = f"fastapi_toolsets.observability.{name}"
    importlib.import_module(module)
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(ImportError, match=rf'run pip install "fastapi-toolsets\[{name}\]"$') as raised:
        importlib.import_module(module)
    assert raised.value.name == PACKAGES[name]
