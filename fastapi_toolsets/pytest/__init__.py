"""Sessions on fresh tables, for tests. The functions are context managers, for any test runner and for scripts."""

from .engines import DatabaseURLError
from .sessions import ModelBaseError, create_db_session, create_sync_db_session
from .tables import TablesInUseError

__all__ = ["DatabaseURLError", "ModelBaseError", "TablesInUseError", "create_db_session", "create_sync_db_session"]
