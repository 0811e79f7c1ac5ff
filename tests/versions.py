"""The SQLAlchemy that the tests run with, for what its older versions get wrong."""

import sqlalchemy

SQLALCHEMY = tuple(int(part) for part in sqlalchemy.__version__.split(".")[:3])
