"""What stops a migration before anything is written."""

from __future__ import annotations

from ..errors import ToolsetsError


class MigrationError(ToolsetsError):
    """A path, a file's content or the disk stands in the way; the message is one line that names the file."""
