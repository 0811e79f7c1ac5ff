"""Lifecycle events for SQLAlchemy sessions, delivered after the commit that made them true."""

__version__ = "3.0.0.dev0"
