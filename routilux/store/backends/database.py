"""One database, and how to write and read it. The only module that knows both kinds of connection.

    write()  one write transaction for any caller: heartbeat, post from another process, maintenance
    Writer   the same for the engine's group commits, on a connection that it keeps
    read()   one short transaction that cannot write

SQLite: all writes of a process go through one connection, one at a time (`sqlite_writer`, `lock_file`).
Postgres: a pool, and one more connection for each `Writer` (`postgres_connection`). Driver errors pass
through unchanged, wrapped by SQLAlchemy; `errors.classify` says what they mean. After an error of COMMIT it
is unknown whether the commit happened.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import URL, Connection, Engine, event

from routilux.errors import DatabaseUnavailableError, ForkedRuntimeError
from routilux.store.backends import postgres_connection, sqlite_connection
from routilux.store.backends.database_url import check_place, file_of, named_errors, url_of
from routilux.store.backends.driver_sql import BEGIN
from routilux.store.backends.lock_file import TURN_TIMEOUT_S, LockFile
from routilux.store.backends.sqlite_writer import SharedWriter, sqlite_engine
from routilux.store.backends.writer import Writer

__all__ = ["Database", "Durability", "sqlite_engine"]

Durability = Literal["power_loss", "process_crash"]
_SYNCHRONOUS = {"power_loss": "FULL", "process_crash": "NORMAL"}


class Database:
    """One database. Created by `open`; `close` closes the connections."""

    def __init__(self, url: URL, durability: Durability) -> None:
        self.url = url
        self.durability: Durability = durability
        self.safe_url = url.render_as_string(hide_password=True)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.is_postgres = not self.is_sqlite
        self.is_memory = self.is_sqlite and url.database in (None, "", ":memory:")
        self.path: Path | None = None
        self.lock_file: LockFile | None = None
        self._pid = os.getpid()
        self._is_closed = False
        self._shared: SharedWriter | None = None
        self._memory: Connection | None = None
        self._memory_lock = threading.RLock()
        self._memory_transactions = 0
        self._written_at: tuple[int, int] | None = (-1, -1)
        self._engine: Engine
        self._writers: list[Writer] = []

    @classmethod
    def open(
        cls,
        database: str | URL | Engine,
        *,
        durability: Durability = "power_loss",
        application_name: str = "routilux",
        allow_fsync_off: bool = False,
    ) -> Database:
        """Connect, or refuse at once what cannot work. Changes nothing but the modes of an empty SQLite file.

        `database`: a URL or an Engine. Of an Engine only the URL is used: put connect_args into the URL's
        query.
        `durability`: what a commit survives.
        `allow_fsync_off`: accept a Postgres server that may lose everything on power loss.
        Raises `DatabaseUnavailableError`, `DatabaseReadOnlyError`, `DatabaseFullError`.
        """
        if durability not in _SYNCHRONOUS:
            raise ValueError(f'durability must be "power_loss" or "process_crash", not {durability!r}')
        url = url_of(database)
        match url.get_backend_name():
            case "sqlite":
                self = cls(url.set(drivername="sqlite"), durability)
                self._open_memory() if self.is_memory else self._open_file()
            case "postgresql":
                self = cls(postgres_connection.with_psycopg(url), durability)
                self._engine = postgres_connection.pooled_engine(self.url, application_name)
                event.listen(self._engine, "checkin", self._close_if_returned_late)
                must_fsync = durability == "power_loss" and not allow_fsync_off
                try:
                    postgres_connection.check(self._engine, self.url, must_fsync=must_fsync)
                except BaseException:
                    self.close()
                    raise
            case other:
                raise DatabaseUnavailableError(
                    f"{other}: only SQLite and Postgres are supported; use sqlite:/// or postgresql://"
                )
        return self

    def close(self) -> None:
        """Close the connections. Idempotent; waits for an open write transaction on SQLite."""
        if self._is_closed or self._pid != os.getpid():
            return
        self._is_closed = True
        for writer in self._writers:
            writer.close()
        if self._memory is not None:
            self._memory.close()
        self._engine.dispose()
        if self._shared is not None:
            self._shared.leave()

    def _close_if_returned_late(self, driver: Any, record: object) -> None:
        """A thread returned a connection to the pool.

        If the pool was closed meanwhile, nobody else would close it.
        """
        if self._is_closed and driver is not None:
            driver.close()

    @contextlib.contextmanager
    def write(self, timeout_s: float | None = None) -> Iterator[Connection]:
        """One write transaction: COMMIT at the end of the block, ROLLBACK if it raises. Durable on return.

        `timeout_s`: SQLite: how long to wait for the write turn, before `DatabaseUnavailableError` is raised.
        """
        self._check_usable()
        if self._shared is not None:
            wait_s = TURN_TIMEOUT_S if timeout_s is None else timeout_s
            with self._shared.transaction(_SYNCHRONOUS[self.durability], wait_s) as connection:
                yield connection
        elif self._memory is not None:
            with self._memory_lock:
                self._memory_transactions += 1
                with self._memory.begin():
                    yield self._memory
        else:
            with (
                self._engine.connect().execution_options(**{BEGIN: self.begin_write}) as connection,
                connection.begin(),
            ):
                yield connection

    @contextlib.contextmanager
    def read(self, *, is_single: bool = False) -> Iterator[Connection]:
        """One transaction that cannot write (in memory: that should not write). Keep it short.

        `is_single`: the block sends one statement, which needs no BEGIN.
        """
        self._check_usable()
        if self._memory is not None:
            with self._memory_lock, self._read_memory(self._memory) as connection:
                yield connection
        else:
            options = {BEGIN: ""} if is_single else {}
            with self._engine.connect().execution_options(**options) as connection:
                yield connection

    def connect_writer(self) -> Writer:
        """A connection for one thread that commits all the time. It stays open."""
        self._check_usable()
        writer = Writer(self)
        self._writers.append(writer)
        return writer

    def drop_writer(self) -> None:
        """SQLite: close the shared write connection. The next transaction opens a new one."""
        if self._shared is not None:
            self._shared.drop()

    def connect_kept(self) -> Connection:
        """Postgres: a connection for a `Writer`. It stays checked out."""
        self._check_usable()
        kept = self._engine.connect().execution_options(**{BEGIN: self.begin_write})
        postgres_connection.prepare_if_direct(kept.connection.driver_connection)
        return kept

    def now_us(self, connection: Connection) -> int:
        """Now, in µs since 1970 UTC, by the clock of due times.

        Postgres: the server's. SQLite: the host's.
        """
        if self.is_sqlite:
            return time.time_ns() // 1000
        return int(connection.execute(postgres_connection.NOW_US).scalar_one())

    def changed_since(self, token: object) -> tuple[object, bool]:
        """SQLite: (new token, whether anything but a `Writer` of this object may have written since `token`).

        `token`: None at first, which counts as changed. Call this before the read that depends on it. On
        Postgres the answer is not known: returns (None, True).
        """
        self._check_usable()
        if self.is_postgres:
            return None, True
        mine = sum(writer.transactions for writer in self._writers)
        if self._shared is None:
            now: object = self._memory_transactions - mine
            return now, now != token
        version = self._shared.foreign_version()
        if version is None:  # a thread is writing: the next call sees its commit
            return token, token is None
        now = (version, self._shared.transactions - mine)
        return now, now != token

    def may_have_been_written(self) -> bool:
        """SQLite: whether the file may have been written since the last call. Elsewhere not known: True.

        It misses writes within one tick of the file system's clock; `changed_since` sees those.
        """
        if self.path is None:
            return True
        before, self._written_at = self._written_at, sqlite_connection.written_at(self.path)
        return before != self._written_at

    def checkpoint(self, *, truncate: bool = False) -> tuple[int, int]:
        """SQLite: copy the WAL into the file. With `truncate` also empty the WAL, if no reader needs it.

        Returns (pages in the WAL, pages copied), or (0, 0) for other databases.
        """
        self._check_usable()
        return (0, 0) if self._shared is None else self._shared.checkpoint(truncate=truncate)

    @property
    def begin_write(self) -> str:
        """Postgres: the text that begins a write transaction."""
        return postgres_connection.WRITE[self.durability]

    @property
    def begin_rows(self) -> str:
        """Postgres: the same for a transaction whose plans are always the same."""
        return postgres_connection.WRITE_ROWS[self.durability]

    def _open_memory(self) -> None:
        self._engine = sqlite_connection.memory_engine()
        self._memory = self._engine.connect()

    def _open_file(self) -> None:
        path = Path(file_of(self.url))
        self.path = path
        self._engine = sqlite_connection.reading_engine(str(path))
        check_place(path)
        with named_errors(path):
            self.lock_file = LockFile.of(path)
            with self.lock_file.turn():
                # creates the file, sets its modes, and checks that it is a database
                driver = sqlite_connection.connect_file(str(path))
                try:
                    driver.execute("BEGIN IMMEDIATE")
                    driver.execute("SELECT count(*) FROM sqlite_schema").fetchone()
                    driver.execute("ROLLBACK")
                finally:
                    driver.close()
        self._shared = SharedWriter.join(str(path))
        sqlite_connection.warn_sqlite_wal_reset()

    @contextlib.contextmanager
    def _read_memory(self, connection: Connection) -> Iterator[Connection]:
        is_inner = connection.in_transaction()  # a read inside a write of the same thread
        try:
            yield connection
        finally:
            if not is_inner and connection.in_transaction():
                connection.rollback()

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise ForkedRuntimeError
        if self._is_closed:
            raise DatabaseUnavailableError(f"{self.safe_url} was closed; open it again")
