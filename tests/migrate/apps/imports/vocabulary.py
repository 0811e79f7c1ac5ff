"""Names that other modules get from here."""

from fastapi_toolsets.models import *
from sqlalchemy.event import listens_for
from sqlalchemy.orm import *

Notifying = WatchedFieldsMixin
told: list[list[object]] = []
