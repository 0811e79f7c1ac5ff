"""Lifecycle events for SQLAlchemy sessions, delivered after the commit that made them true.

PYTEST_DONT_REWRITE: pytest would rewrite the asserts of a plugin's package, and warn where a program has imported it
before it calls pytest. There are none.
"""

__version__ = "3.0.0.dev0"
