"""Sessions and databases for tests. The functions are context managers, for any test runner and for scripts.

The fixtures that pytest finds by itself are in ``fastapi_toolsets.pytest_plugin``.
"""

from ..events import EventRecorder, created, deleted, updated
from .engines import DatabaseURLError
from .rollback import (
    SavepointsError,
    rolled_back_session,
    rolled_back_sessionmaker,
    rolled_back_sync_session,
    rolled_back_sync_sessionmaker,
)
from .sessions import ModelBaseError, create_db_session, create_sync_db_session
from .tables import TablesInUseError
from .worker_databases import WorkerDatabaseError, create_worker_database

__all__ = [
    "DatabaseURLError",
    "EventRecorder",
    "ModelBaseError",
    "SavepointsError",
    "TablesInUseError",
    "WorkerDatabaseError",
    "create_db_session",
    "create_sync_db_session",
    "create_worker_database",
    "created",
    "deleted",
    "rolled_back_session",
    "rolled_back_sessionmaker",
    "rolled_back_sync_session",
    "rolled_back_sync_sessionmaker",
    "updated",
]
