"""What kind of failure a database error is: does it pass, is the answer lost, is it about the data."""

from __future__ import annotations

import sqlite3
from enum import StrEnum

from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError, InterfaceError, ResourceClosedError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class Failure(StrEnum):
    LOST = "lost"  # the connection is gone: a COMMIT may or may not have happened
    RETRY = "retry"  # deadlock, lock timeout, serialization, busy
    FULL = "full"  # the disk is full
    READ_ONLY = "read_only"
    INTEGRITY = "integrity"
    OTHER = "other"


_SQLITE = {
    sqlite3.SQLITE_BUSY: Failure.RETRY,
    sqlite3.SQLITE_LOCKED: Failure.RETRY,
    sqlite3.SQLITE_FULL: Failure.FULL,
    sqlite3.SQLITE_IOERR: Failure.FULL,
    sqlite3.SQLITE_READONLY: Failure.READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: Failure.LOST,
    sqlite3.SQLITE_CONSTRAINT: Failure.INTEGRITY,
}
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRES = {
    "40001": Failure.RETRY, "40P01": Failure.RETRY, "55P03": Failure.RETRY, "57014": Failure.RETRY,
    "53100": Failure.FULL, "53200": Failure.RETRY, "53300": Failure.LOST, "25006": Failure.READ_ONLY,
    "25P03": Failure.LOST, "57P01": Failure.LOST, "57P02": Failure.LOST, "57P03": Failure.LOST, "57P05": Failure.LOST,
}  # fmt: skip


def classify(error: BaseException) -> Failure:
    """The kind of an error raised through SQLAlchemy."""
    if isinstance(error, (PoolTimeout, DisconnectionError, ConnectionError)):
        return Failure.LOST
    if not isinstance(error, DBAPIError):
        return Failure.OTHER
    origin = error.orig
    code = getattr(origin, "sqlite_errorcode", None)
    if isinstance(code, int):
        return _SQLITE.get(code & 0xFF, Failure.OTHER)
    if isinstance(origin, sqlite3.Error):
        return Failure.LOST if "closed" in str(origin) else Failure.OTHER
    state = getattr(origin, "sqlstate", None)
    if state is None:
        return Failure.LOST if error.connection_invalidated or isinstance(error, (InterfaceError, *_OPERATIONAL)) else Failure.OTHER
    if state.startswith("08"):
        return Failure.LOST
    if isinstance(error, IntegrityError):
        return Failure.INTEGRITY
    return _POSTGRES.get(state, Failure.OTHER)


from sqlalchemy.exc import OperationalError  # noqa: E402

_OPERATIONAL = (OperationalError, ResourceClosedError)
