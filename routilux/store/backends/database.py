"""One database, and how it is written and read. The only place that knows both kinds of connection.

    write()  one write transaction of anybody: heartbeat, post from another process, housekeeping
    Writer   the same for the engine's group commits, on a connection that it keeps
    read()   one short transaction that cannot write

SQLite: all writing of a process goes through one connection, in turns (`sqlite_writers`, `oslocks`). Postgres: a
pool, and one more connection for each `Writer` (`postgres_server`). Errors of the driver pass through as they
are, wrapped by SQLAlchemy; `failures.classify` says what they mean. An error of COMMIT leaves open whether it
happened.
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
    """Where everything is kept. Made by `open`; `close` lets go of the connections."""

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
        """Connect, and refuse at once what cannot work. Changes nothing but an empty SQLite file's modes.

        `database`: a URL, or an Engine, of which only the URL is taken: put connect_args into the URL's
        query.
        `durability`: what a commit survives. `allow_fsync_off`: take a Postgres that may lose all on power
        loss.
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
                event.listen(self._engine, "checkin", self._given_back)
                must_fsync = durability == "power_loss" and not allow_fsync_off
                try:
                    postgres_connection.check(self._engine, self.url, must_fsync=must_fsync)
                except BaseException:
                    self.close()
                    raise
            case other:
                raise DatabaseUnavailableError(
                    f"{other}: only SQLite and Postgres are served; use sqlite:/// or postgresql://"
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

    def _given_back(self, driver: Any, record: object) -> None:
        """By a thread that was still at it when this was closed: nobody else would close it."""
        if self._is_closed and driver is not None:
            driver.close()

    @contextlib.contextmanager
    def write(self, timeout_s: float | None = None) -> Iterator[Connection]:
        """One write transaction: COMMIT at the end of the block, ROLLBACK if it raises. Durable on return.

        `timeout_s`: how long to wait on SQLite for the turn to write, then `DatabaseUnavailableError`.
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
        """One short transaction that cannot write (in memory: one that should not). Keep it short.

        `is_single`: it is one statement, which needs no BEGIN.
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
        """A connection kept for one thread that commits all the time."""
        self._check_usable()
        writer = Writer(self)
        self._writers.append(writer)
        return writer

    def drop_writer(self) -> None:
        """Throw the shared SQLite writing connection away; the next transaction has a new one."""
        if self._shared is not None:
            self._shared.drop()

    def connect_kept(self) -> Connection:
        """Postgres: a connection that stays checked out, for a `Writer`."""
        self._check_usable()
        kept = self._engine.connect().execution_options(**{BEGIN: self.begin_write})
        postgres_connection.prepare_if_direct(kept.connection.driver_connection)
        return kept

    def now_us(self, connection: Connection) -> int:
        """µs since 1970 UTC by the clock of due times: Postgres, the server's; SQLite, the host's."""
        if self.is_sqlite:
            return time.time_ns() // 1000
        return int(connection.execute(postgres_connection.NOW_US).scalar_one())

    def changed_since(self, token: object) -> tuple[object, bool]:
        """SQLite: (new token, whether anybody but this database's `Writer` may have written since `token`).

        `token`: None at first, which counts as changed. Call it before the read that it is for. On Postgres
        nothing can be told: (None, True).
        """
        self._check_usable()
        if self.is_postgres:
            return None, True
        mine = sum(writer.transactions for writer in self._writers)
        if self._shared is None:
            now: object = self._memory_transactions - mine
            return now, now != token
        version = self._shared.foreign_version()
        if version is None:  # a thread is writing: what it commits is seen next time
            return token, token is None
        now = (version, self._shared.transactions - mine)
        return now, now != token

    def may_have_been_written(self) -> bool:
        """SQLite: False if nobody has written the file since this was asked last, but for writes within one tick of the file
        system's clock, which `changed_since` sees. Elsewhere nothing can be told: True."""
        if self.path is None:
            return True
        before, self._written_at = self._written_at, sqlite_connection.written_at(self.path)
        return before != self._written_at

    def checkpoint(self, *, truncate: bool = False) -> tuple[int, int]:
        """SQLite: copy the WAL into the file; with `truncate` also empty it, if no reader needs it.

        Returns (pages in the WAL, pages of them copied); (0, 0) elsewhere.
        """
        self._check_usable()
        return (0, 0) if self._shared is None else self._shared.checkpoint(truncate=truncate)

    @property
    def begin_write(self) -> str:
        """Postgres: what begins a write transaction."""
        return postgres_connection.WRITE[self.durability]

    @property
    def begin_rows(self) -> str:
        """Postgres: what begins one whose plans are always the same."""
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
                # makes the file, sets its modes, and finds out whether it is a database
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
