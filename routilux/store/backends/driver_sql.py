"""Statements that bypass SQLAlchemy, which takes ten times as long for a small one as the driver.

Only the engine's own statements go this way: fixed texts in the driver's format. If a listener is registered
for statements, they go through SQLAlchemy as usual. Errors are a `DBAPIError` either way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

BEGIN = "routilux_begin"  # execution option: the statement that begins a transaction; empty if none is needed


class Literal(NamedTuple):
    """A statement with `%s` for each value.

    `is_plain`: its plan is always the same, and it is short enough to be kept prepared.
    """

    statement: str
    values: list[object]
    is_plain: bool


def is_watched(connection: Connection) -> bool:
    """Whether a listener is registered for the statements of this connection."""
    dispatch = connection.engine.dispatch
    return bool(dispatch.before_cursor_execute or dispatch.after_cursor_execute)


def send(connection: Connection, statement: str, parameters: Sequence[object] = ()) -> Any:
    """SQLite: execute, and return a cursor or a result. Both have `fetchone`."""
    if is_watched(connection):
        return connection.exec_driver_sql(statement, tuple(parameters))
    driver: Any = connection.connection.driver_connection
    try:
        return driver.execute(statement, parameters)
    except sqlite3.Error as error:
        raise DBAPIError(statement, None, error) from error


def send_whole(connection: Connection, statements: str, parameters: Sequence[object]) -> None:
    """Postgres: a whole transaction, from BEGIN to COMMIT, in one text. The driver fills in the `%s` values.

    After an error of the server, nothing of it is stored. After a lost connection it is unknown whether it
    was committed.
    """
    dbapi: Any = connection.dialect.loaded_dbapi
    driver: Any = connection.connection.driver_connection
    try:
        with dbapi.ClientCursor(driver) as cursor:
            cursor.execute(statements, parameters)
    except dbapi.Error as error:
        if not driver.closed:
            driver.rollback()
        raise DBAPIError(statements, None, error, connection_invalidated=driver.closed) from error


def send_many(connection: Connection, statements: str) -> Any:
    """Postgres: send several statements in one text. Returns the first row of the last one."""
    driver: Any = connection.connection.driver_connection
    try:
        with driver.execute(statements) as cursor:
            while cursor.nextset():
                pass
            return cursor.fetchone()
    except connection.dialect.loaded_dbapi.Error as error:
        raise DBAPIError(statements, None, error) from error
