"""The types of SQLAlchemy that modules outside the store may name.

Only the store sends statements. Other modules pass a connection on, hold a row, or catch an error. They
import the type from here, so one contract can forbid `sqlalchemy` everywhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, Row, Transaction
from sqlalchemy import Engine as SqlEngine
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session  # the ORM takes 5 MB; only a caller that has a Session has loaded it

__all__ = ["Connection", "Row", "SQLAlchemyError", "Session", "SqlEngine", "Transaction"]
