"""The measuring half: runs in processes of its own, with whichever ``fastapi_toolsets`` (or none) is installed there.

Nothing here imports from the rest of ``benchmarks``, nor anything but SQLAlchemy and the library under measurement.
"""
