"""The demo's page in a real browser; run by ``nox -s browser``, or ``pytest tests/browser`` where Chromium is."""
