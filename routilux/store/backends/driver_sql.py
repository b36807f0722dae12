"""Statements that go past SQLAlchemy, whose part of a small one is ten times the driver's. Only the engine's own: fixed texts
that the driver takes as they are.

If somebody listens to statements SQLAlchemy tells them as ever. An error is a `DBAPIError` either way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

BEGIN = "routilux_begin"  # execution option: the statement that begins a transaction; empty: none is needed


def is_watched(connection: Connection) -> bool:
    """Whether somebody listens to the statements of this connection."""
    dispatch = connection.engine.dispatch
    return bool(dispatch.before_cursor_execute or dispatch.after_cursor_execute)


def send(connection: Connection, statement: str, parameters: Sequence[object] = ()) -> Any:
    """SQLite: execute, and return a cursor or a result, which both have `fetchone`."""
    if is_watched(connection):
        return connection.exec_driver_sql(statement, tuple(parameters))
    driver: Any = connection.connection.driver_connection
    try:
        return driver.execute(statement, parameters)
    except sqlite3.Error as error:
        raise DBAPIError(statement, None, error) from error


def send_whole(connection: Connection, statements: str, parameters: Sequence[object]) -> None:
    """Postgres: a transaction from BEGIN to COMMIT in one go, `%s` and the values brought together by the driver. An error of
    the server leaves nothing of it; whether it is in when the connection is lost is not known.
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
    """Postgres: several statements in one go; the first row of the last."""
    driver: Any = connection.connection.driver_connection
    try:
        with driver.execute(statements) as cursor:
            while cursor.nextset():
                pass
            return cursor.fetchone()
    except connection.dialect.loaded_dbapi.Error as error:
        raise DBAPIError(statements, None, error) from error
