"""What messages say alike wherever they are given."""

from __future__ import annotations


def described(given: object) -> str:
    """Say what was given without its repr, which may be long or hold a password."""
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return f"an object of type {type(given).__name__}"
