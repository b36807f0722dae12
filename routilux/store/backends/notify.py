"""Postgres: NOTIFY tells other processes of new inbox rows at once, instead of at their next poll.

`writes.inbox.put` inserts the rows, and its commit sends the notification. A commit that notifies waits for
every other commit that notifies. So a process notifies a database at most every `TELL_EVERY_S`, and a process
that was notified polls often for a while. Nothing relies on a notification: listeners poll periodically
anyway, and behind a pooler nobody listens.
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
# per database: each has its own listeners
_notified_at: WeakKeyDictionary[Engine, float] = WeakKeyDictionary()


def may_notify(connection: Connection, *, is_ours: bool) -> bool:
    """Whether this transaction may notify. If it is ours, the answer True counts as a notification."""
    # the caller's transaction commits at an unknown time, and PREPARE TRANSACTION fails after a NOTIFY
    if not is_ours:
        return not hasattr(connection.get_transaction(), "prepare")
    now = time.monotonic()
    is_due = now - _notified_at.get(connection.engine, float("-inf")) >= TELL_EVERY_S
    if is_due:
        _notified_at[connection.engine] = now
    return is_due


def listen(connection: Connection) -> None:
    """Listen from the end of this transaction on. Idempotent.

    Only a connection that stays open can receive notifications. So the server must not close it for being
    idle.
    """
    if _LISTENS not in connection.info:
        connection.exec_driver_sql(f"LISTEN {CHANNEL}")
        if (connection.dialect.server_version_info or (0,)) >= (14,):
            connection.exec_driver_sql("SET idle_session_timeout = 0")
        connection.info[_LISTENS] = True


def listens(connection: Connection) -> bool:
    """Whether this connection is open and listens."""
    return not connection.closed and not connection.invalidated and _LISTENS in connection.info


def heard(connection: Connection) -> bool:
    """Whether a notification arrived since the last call.

    Raises the driver's error if the connection is lost.
    """
    driver: Any = connection.connection.driver_connection
    return bool(list(driver.notifies(timeout=0)))
