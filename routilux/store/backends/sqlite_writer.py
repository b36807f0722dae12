"""Connections that write to a SQLite file. They hold the write turn from before BEGIN until after COMMIT.

`SharedWriter` is the one write connection that all of Routilux in this process shares. `sqlite_engine` is for
users who write their own rows.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool, QueuePool

from routilux.errors import ForkedRuntimeError
from routilux.store.backends import driver_sql
from routilux.store.backends.database_url import file_of
from routilux.store.backends.lock_file import TURN_TIMEOUT_S, LockFile
from routilux.store.backends.sqlite_connection import Wal, connect_file, driver_of, without_waiting

READ_ONLY = "routilux_readonly"  # execution option of a connection of sqlite_engine()


class SharedWriter:
    """The one write connection of a file in this process. Its threads use it one at a time."""

    _known: ClassVar[dict[tuple[int, str], SharedWriter]] = {}
    _known_lock = threading.Lock()

    def __init__(self, path: str, inode: tuple[int, int]) -> None:
        self.path = path
        self.lock_file = LockFile.of(path)
        self.wal = Wal(path)
        self._inode = inode
        self._users = 0
        self._use = threading.Lock()  # the turn excludes other writers; this excludes `foreign_version`
        self.transactions = 0
        self._engine = create_engine("sqlite://", creator=lambda: connect_file(path), poolclass=NullPool)
        self._connection: Connection | None = None
        self._driver: sqlite3.Connection | None = None
        self._synchronous = ""
        self._generation = 0
        event.listen(self._engine, "begin", _begin_immediate)

    @classmethod
    def join(cls, path: str) -> SharedWriter:
        """The writer of an existing file, for one more user. The user calls `leave` at the end."""
        key = (os.getpid(), os.path.realpath(path))
        found = os.stat(path)
        inode = (found.st_dev, found.st_ino)
        with cls._known_lock:
            known = cls._known.get(key)
            if known is None or known._inode != inode:  # the file was deleted and created again
                known = cls._known[key] = cls(key[1], inode)
            known._users += 1
            return known

    def leave(self) -> None:
        with self._known_lock:
            self._users -= 1
            if self._users:
                return
            key = (os.getpid(), self.path)
            if self._known.get(key) is self:
                del self._known[key]
        self.drop()

    @contextlib.contextmanager
    def transaction(self, synchronous: str, timeout_s: float) -> Iterator[Connection]:
        with self.lock_file.turn(timeout_s), self._use:
            try:
                connection = self._ready(synchronous)
                with connection.begin():
                    yield connection
            except BaseException:
                self._drop_unless_clean()
                raise
            finally:
                self.transactions += 1
            if self._driver is not None:
                self.wal.checkpoint_if_grown(self._driver)

    def foreign_version(self) -> tuple[int, int] | None:
        """A value that changes with every commit of any other connection. Returns None if busy: call again.

        A `stat` of the WAL tells less: its time moves in steps of milliseconds, and its size does not change
        once the WAL has started over.
        """
        if not self._use.acquire(blocking=False):
            return None
        try:
            self._ready(self._synchronous or "FULL")
            assert self._driver is not None
            return self._generation, self._driver.execute("PRAGMA data_version").fetchone()[0]
        finally:
            self._use.release()

    def checkpoint(self, *, truncate: bool) -> tuple[int, int]:
        """Copy the WAL into the file. Returns (pages in the WAL, pages copied)."""
        with self.lock_file.turn(), self._use:
            self._ready(self._synchronous or "FULL")
            assert self._driver is not None
            mode = "TRUNCATE" if truncate else "PASSIVE"
            with without_waiting(self._driver):
                _, pages, copied = self._driver.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            return pages, copied

    def drop(self) -> None:
        """Close the connection. The next transaction opens a new one."""
        if self._connection is None:
            return
        with self.lock_file.turn(), self._use:  # the last connection to close copies the WAL
            self._drop()

    def _ready(self, synchronous: str) -> Connection:
        if self._connection is None or self._connection.closed or self._connection.invalidated:
            self._drop()
            self._connection = self._engine.connect()
            self._driver = driver_of(self._connection)
            self._generation += 1
            self._synchronous = ""
        if self._synchronous != synchronous:
            assert self._driver is not None
            self._driver.execute(f"PRAGMA synchronous = {synchronous}")
            self._synchronous = synchronous
        return self._connection

    def _drop_unless_clean(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._driver is not None and not self._driver.in_transaction:
                return
        self._drop()

    def _drop(self) -> None:
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()


def _begin_immediate(connection: Connection) -> None:
    driver_sql.send(connection, "BEGIN IMMEDIATE")


class TurnConnection(sqlite3.Connection):
    """A driver connection that holds the turn while it is in a write transaction."""

    lock_file: LockFile
    wal: Wal
    turn_timeout_s: float = TURN_TIMEOUT_S
    _has_turn = False
    _is_query_only = False

    def begin(self, *, read_only: bool = False) -> None:
        """Send BEGIN: SQLAlchemy never sends it."""
        if read_only:
            self.execute("PRAGMA query_only = ON")
            self._is_query_only = True
            self.execute("BEGIN")
            return
        self.lock_file.take_turn(self.turn_timeout_s)
        self._has_turn = True
        try:
            self.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._end()
            raise

    def commit(self) -> None:
        try:
            super().commit()
            if self._has_turn:
                self.wal.checkpoint_if_grown(self)
        finally:
            self._end()

    def rollback(self) -> None:
        try:
            super().rollback()
        finally:
            self._end()

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._give_turn()

    def _end(self) -> None:
        if self.in_transaction:  # COMMIT failed; a rollback follows
            return
        self._give_turn()
        if self._is_query_only:
            self._is_query_only = False
            self.execute("PRAGMA query_only = OFF")

    def _give_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self.lock_file.give_turn()


def sqlite_engine(database: str | Path | URL, *, turn_timeout_s: float = TURN_TIMEOUT_S, **kw: Any) -> Engine:
    """An SQLAlchemy engine for your own rows in a SQLite file of Routilux, as `post(transaction=…)` needs.

    `database`: `sqlite:///path` or a path. `turn_timeout_s`: how long a transaction waits to begin. `kw`:
    passed to `create_engine`.

    A transaction begins with BEGIN IMMEDIATE. It holds the write turn, among all threads and processes of
    Routilux on that file, until it is committed, rolled back or closed. Keep it short, and end it before you
    wait for anything that Routilux does. A commit survives power loss. With
    `execution_options(routilux_readonly=True)` a transaction reads a snapshot, waits for nobody, and cannot
    write.
    """
    path = file_of(database)
    pid = os.getpid()
    wal = Wal(path)
    arguments = kw.pop("connect_args", {})

    def connect() -> sqlite3.Connection:
        lock_file = LockFile.of(path)
        with contextlib.nullcontext() if os.path.exists(path) else lock_file.turn(turn_timeout_s):
            driver = connect_file(path, TurnConnection, **arguments)
        assert isinstance(driver, TurnConnection)
        driver.lock_file, driver.wal, driver.turn_timeout_s = lock_file, wal, turn_timeout_s
        driver.execute("PRAGMA synchronous = FULL")
        return driver

    def begin(connection: Connection) -> None:
        if os.getpid() != pid:
            raise ForkedRuntimeError
        driver = driver_of(connection)
        assert isinstance(driver, TurnConnection)
        driver.begin(read_only=bool(connection.get_execution_options().get(READ_ONLY)))

    # the path in the URL is for people, and for Routilux if it gets this engine as its database
    engine = create_engine(
        URL.create("sqlite", database=path), creator=connect, **{"poolclass": QueuePool, **kw}
    )
    event.listen(engine, "begin", begin)
    return engine
