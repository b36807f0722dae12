"""Every kind of database error. Where possible, the driver itself raises it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg
import pytest
from psycopg import errors as postgres
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from routilux.errors import DatabaseFullError, DatabaseReadOnlyError, DatabaseUnavailableError
from routilux.store.errors import Failure, classify


def wrapped(error: Exception, *, invalidated: bool = False) -> DBAPIError:
    return OperationalError("SELECT 1", {}, error, connection_invalidated=invalidated)


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("40001", Failure.RETRY),
        ("40P01", Failure.RETRY),
        ("55P03", Failure.RETRY),
        ("57014", Failure.RETRY),
        ("53100", Failure.FULL),
        ("25006", Failure.READ_ONLY),
        ("25P03", Failure.LOST),
        ("57P01", Failure.LOST),
        ("57P02", Failure.LOST),
        ("57P03", Failure.LOST),
        ("08003", Failure.LOST),
        ("08006", Failure.LOST),
        ("08007", Failure.LOST),
        ("23505", Failure.INTEGRITY),
        ("23514", Failure.INTEGRITY),
        ("22012", Failure.OTHER),
        ("42P01", Failure.OTHER),
        ("25P02", Failure.OTHER),
    ],
)
def test_postgres_says_it_with_a_state(code: str, kind: Failure) -> None:
    error = postgres.lookup(code)("x")
    assert classify(error) is kind
    assert classify(wrapped(error)) is kind


def test_a_psycopg_error_without_a_state_is_a_lost_connection() -> None:
    assert classify(wrapped(psycopg.OperationalError("consuming input failed"))) is Failure.LOST
    assert (
        classify(InterfaceError("x", {}, psycopg.InterfaceError("the connection is closed"))) is Failure.LOST
    )
    assert classify(wrapped(psycopg.ProgrammingError("wrong number of placeholders"))) is Failure.OTHER


def test_a_server_that_is_not_there_is_a_lost_connection() -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect("host=127.0.0.1 port=1 connect_timeout=1")
    assert classify(caught.value) is Failure.LOST


def test_an_invalidated_connection_is_lost_unless_the_driver_knows_better() -> None:
    assert classify(wrapped(Exception("?"), invalidated=True)) is Failure.LOST
    assert classify(wrapped(postgres.DeadlockDetected("x"), invalidated=True)) is Failure.RETRY


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, Failure.RETRY),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Failure.RETRY),
        (sqlite3.SQLITE_LOCKED, Failure.RETRY),
        (sqlite3.SQLITE_FULL, Failure.FULL),
        (sqlite3.SQLITE_IOERR_WRITE, Failure.FULL),
        (sqlite3.SQLITE_IOERR_FSYNC, Failure.LOST),
        (sqlite3.SQLITE_READONLY_DBMOVED, Failure.READ_ONLY),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, Failure.INTEGRITY),
        (sqlite3.SQLITE_ERROR, Failure.OTHER),
        (sqlite3.SQLITE_CORRUPT, Failure.OTHER),
    ],
)
def test_sqlite_says_it_with_a_code(code: int, kind: Failure) -> None:
    assert classify(wrapped(sqlite_error(code))) is kind


def test_sqlite_itself_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    one = sqlite3.connect(path, isolation_level=None)
    one.execute("CREATE TABLE t (a UNIQUE)")
    one.execute("INSERT INTO t VALUES (1)")
    two = sqlite3.connect(path, isolation_level=None, timeout=0)
    one.execute("BEGIN IMMEDIATE")
    assert classify(raised(two, "BEGIN IMMEDIATE")) is Failure.RETRY
    assert classify(raised(one, "INSERT INTO t VALUES (1)")) is Failure.INTEGRITY
    assert classify(raised(one, "INSERT INTO nowhere VALUES (1)")) is Failure.OTHER
    one.execute("ROLLBACK")
    one.execute("PRAGMA max_page_count = 1")
    assert classify(raised(one, "INSERT INTO t VALUES (zeroblob(100000))")) is Failure.FULL
    two.execute("PRAGMA query_only = ON")
    assert classify(raised(two, "INSERT INTO t VALUES (2)")) is Failure.READ_ONLY
    one.close()
    two.close()
    assert classify(raised(one, "SELECT 1")) is Failure.LOST


def raised(connection: sqlite3.Connection, statement: str) -> sqlite3.Error:
    with pytest.raises(sqlite3.Error) as caught:
        connection.execute(statement)
    return caught.value


def test_our_own_errors_have_a_kind() -> None:
    assert classify(DatabaseUnavailableError("no turn")) is Failure.RETRY
    assert classify(DatabaseReadOnlyError("x")) is Failure.READ_ONLY
    assert classify(DatabaseFullError("x")) is Failure.FULL
    assert classify(PoolTimeout()) is Failure.RETRY
    assert classify(ConnectionResetError()) is Failure.LOST
    assert classify(ValueError("logic is wrong")) is Failure.OTHER
