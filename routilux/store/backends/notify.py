"""Postgres: a process that wants something of another says so, and is heard at once instead of at the next look.

`put` writes rows of the inbox and tells of them with the commit of its transaction. A commit that tells waits for every
other that does, so a process tells a database at most every `TELL_EVERY_S`; whoever has just heard looks often for a while. What is
said is never relied on: those who listen look now and then all the same, and behind a pooler nobody listens.
Source: https://www.postgresql.org/docs/current/sql-notify.html
"""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine

CHANNEL = "routilux_inbox"
TELL_EVERY_S = 0.1
_LISTENS = "routilux_listens"  # in `Connection.info`
_told_at: WeakKeyDictionary[Engine, float] = (
    WeakKeyDictionary()
)  # each database of a process has listeners of its own


def may_notify(connection: Connection, *, is_ours: bool) -> bool:
    if not is_ours:  # committed some time, or prepared, which a transaction that tells cannot be
        return not hasattr(connection.get_transaction(), "prepare")
    now = time.monotonic()
    may_tell = now - _told_at.get(connection.engine, float("-inf")) >= TELL_EVERY_S
    if may_tell:
        _told_at[connection.engine] = now
    return may_tell


def listen(connection: Connection) -> None:
    """From the end of this transaction on, if it has not been done yet. Only a connection that is kept hears anything; the server
    does not end it because it is silent."""
    if _LISTENS not in connection.info:
        connection.exec_driver_sql(f"LISTEN {CHANNEL}")
        if (connection.dialect.server_version_info or (0,)) >= (14,):
            connection.exec_driver_sql("SET idle_session_timeout = 0")
        connection.info[_LISTENS] = True


def listens(connection: Connection) -> bool:
    return not connection.closed and not connection.invalidated and _LISTENS in connection.info


def heard(connection: Connection) -> bool:
    """Whether anything was told since this was asked last. Raises the driver's error if the connection is lost."""
    driver: Any = connection.connection.driver_connection
    return bool(list(driver.notifies(timeout=0)))
