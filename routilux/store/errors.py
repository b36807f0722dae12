"""The store's own exceptions, and the kind of failure of a database error.

`classify` tells whether an error is transient, whether the answer was lost, or whether the data is at fault.
The commit loop repeats transient failures. For all others it takes the batch apart. So a wrong OTHER blames
innocent work, and a wrong RETRY repeats without end. Codes:
https://www.postgresql.org/docs/current/errcodes-appendix.html and https://www.sqlite.org/rescode.html
"""

from __future__ import annotations

import sqlite3
from enum import StrEnum

from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from routilux.errors import DatabaseFullError, DatabaseReadOnlyError, DatabaseUnavailableError


class Fenced(Exception):
    """The database says that this runtime is dead: another one took over. This transaction must not commit.

    `was_in`: an earlier try of the same commit, whose answer was lost, was committed before the take-over.
    """

    def __init__(self, *, was_in: bool = False) -> None:
        super().__init__()
        self.was_in = was_in


class AlreadyIn(Exception):
    """The commit of this number is stored already: an earlier try succeeded, and its answer was lost."""


class TransactionEnded(Exception):
    """A user statement ended the shared transaction of the group commit."""


class Failure(StrEnum):
    """Kinds of failure, by what to do about them."""

    LOST = "lost"  # the connection is gone; a COMMIT may or may not have happened
    RETRY = "retry"  # deadlock, lock timeout, serialization, busy: nothing happened
    FULL = "full"
    READ_ONLY = "read_only"
    INTEGRITY = "integrity"
    OTHER = "other"


# Transient: the same transaction is sent again until it succeeds.
PASSING = frozenset({Failure.LOST, Failure.RETRY, Failure.FULL, Failure.READ_ONLY})

_SQLITE = {
    sqlite3.SQLITE_BUSY: Failure.RETRY,
    sqlite3.SQLITE_LOCKED: Failure.RETRY,
    sqlite3.SQLITE_PROTOCOL: Failure.RETRY,  # a race for the WAL locks
    sqlite3.SQLITE_NOMEM: Failure.RETRY,
    sqlite3.SQLITE_INTERRUPT: Failure.RETRY,
    sqlite3.SQLITE_FULL: Failure.FULL,
    # the fsync of a COMMIT can fail after the commit record was written
    sqlite3.SQLITE_IOERR: Failure.LOST,
    sqlite3.SQLITE_CANTOPEN: Failure.LOST,
    sqlite3.SQLITE_READONLY: Failure.READ_ONLY,
    sqlite3.SQLITE_CONSTRAINT: Failure.INTEGRITY,
}
_SQLITE_EXTENDED = {
    sqlite3.SQLITE_IOERR_WRITE: Failure.FULL,  # EDQUOT and EFBIG arrive as this code; ENOSPC as SQLITE_FULL
    sqlite3.SQLITE_IOERR_SHMSIZE: Failure.FULL,  # the -shm file could not grow
}
_POSTGRES = {
    "40001": Failure.RETRY,  # serialization_failure
    "40P01": Failure.RETRY,  # deadlock_detected
    "55P03": Failure.RETRY,  # lock_not_available: lock_timeout
    "55006": Failure.RETRY,  # object_in_use
    "57014": Failure.RETRY,  # query_canceled: statement_timeout
    "53200": Failure.RETRY,  # out_of_memory
    "53300": Failure.LOST,  # too_many_connections
    "53100": Failure.FULL,  # disk_full
    "25006": Failure.READ_ONLY,  # read_only_sql_transaction: a standby
    "25P03": Failure.LOST,  # idle_in_transaction_session_timeout
    "25P04": Failure.LOST,  # transaction_timeout
    "57P01": Failure.LOST,  # admin_shutdown
    "57P02": Failure.LOST,  # crash_shutdown
    "57P03": Failure.LOST,  # cannot_connect_now
    "57P05": Failure.LOST,  # idle_session_timeout
    "40003": Failure.LOST,  # statement_completion_unknown
    "58030": Failure.LOST,  # io_error
}


def classify(error: BaseException) -> Failure:
    """The kind of an error of SQLAlchemy, of a driver, or of `routilux.store.backends.database`."""
    match error:
        case DatabaseReadOnlyError():
            return Failure.READ_ONLY
        case DatabaseFullError():
            return Failure.FULL
        case DatabaseUnavailableError():
            return Failure.RETRY  # raised before anything was sent
        case PoolTimeout():
            return Failure.RETRY
        case DisconnectionError() | ConnectionError():
            return Failure.LOST
        case DBAPIError(orig=BaseException() as origin):
            found = _of_driver(origin)
            return Failure.LOST if found is Failure.OTHER and error.connection_invalidated else found
    return _of_driver(error)


def _of_driver(error: BaseException) -> Failure:
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(error)
    kinds = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("psycopg")}
    if not kinds:
        return Failure.OTHER
    state: str | None = getattr(error, "sqlstate", None)
    if state is None:
        # the driver itself raised it: the socket is closed, or was never opened
        return Failure.LOST if kinds & {"OperationalError", "InterfaceError"} else Failure.OTHER
    match state[:2]:
        case "08":
            return Failure.LOST
        case "23":
            return Failure.INTEGRITY
    return _POSTGRES.get(state, Failure.OTHER)


def _of_sqlite(error: sqlite3.Error) -> Failure:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:  # the module raised it; it never closes a connection by itself
        return Failure.LOST if "closed database" in str(error) else Failure.OTHER
    return _SQLITE_EXTENDED.get(code) or _SQLITE.get(code & 0xFF, Failure.OTHER)
