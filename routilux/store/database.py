"""How Routilux connects: one writing connection per SQLite file and process, a small pool on Postgres."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from routilux.errors import DatabaseUnavailableError, ForkedRuntimeError
from routilux.store.oslocks import LockFile

Durability = Literal["power_loss", "process_crash"]
CHECKPOINT_BYTES = 16 * 1024 * 1024
_PRAGMAS = (
    "PRAGMA busy_timeout = 30000", "PRAGMA cache_size = -65536", "PRAGMA temp_store = MEMORY", "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF", "PRAGMA cell_size_check = ON", "PRAGMA mmap_size = 0", "PRAGMA wal_autocheckpoint = 4000",
)  # fmt: skip


def boot_time_us() -> int:
    """The clock of SQLite leases: time since the host booted, sleep included."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


def host_boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import subprocess

        return subprocess.run(["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=True).stdout.strip()


class _Writing:
    """The one writing connection of a SQLite file in this process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.lock = threading.RLock()
        self.connection: Connection | None = None


_writing: dict[str, _Writing] = {}


class Database:
    """One database, and how it is written and read."""

    def __init__(self, url: URL, durability: Durability) -> None:
        self.url = url
        self.durability = durability
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.is_postgres = not self.is_sqlite
        self.is_memory = self.is_sqlite and url.database in (None, "", ":memory:")
        self.path = Path(str(url.database)) if self.is_sqlite and not self.is_memory else None
        self.lock_file: LockFile | None = None
        self._pid = os.getpid()

    @classmethod
    def open(cls, database: str | URL | Engine, *, durability: Durability = "power_loss") -> Database:
        url = database.url if isinstance(database, Engine) else make_url(database)
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise DatabaseUnavailableError(f"{url.render_as_string()}: only SQLite and Postgres are served")
        self = cls(url, durability)
        if self.is_sqlite:
            self._open_sqlite()
        else:
            self.url = url.set(drivername="postgresql+psycopg")
            self._write_engine = self._read_engine = create_engine(
                self.url, poolclass=QueuePool, pool_size=5, max_overflow=10, pool_pre_ping=True,
                connect_args={"prepare_threshold": None, "connect_timeout": 10, "application_name": "routilux"},
            )  # fmt: skip
            try:
                with self._read_engine.connect() as connection:
                    connection.execute(text("SELECT 1"))
            except Exception as error:
                raise DatabaseUnavailableError(f"{self.url.render_as_string()}: {error}") from error
        return self

    def _open_sqlite(self) -> None:
        def connect() -> Any:
            return sqlite3.connect(str(self.url.database or ":memory:"), isolation_level=None, check_same_thread=False, timeout=30)

        if self.is_memory:
            engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)
            self._set_up(engine, "BEGIN")
            self._write_engine = self._read_engine = engine
            self._writer_state = _Writing(engine)
            return
        assert self.path is not None
        if not self.path.parent.exists():
            raise DatabaseUnavailableError(f"{self.path.parent} does not exist")
        self.lock_file = LockFile.of(self.path)
        key = os.path.realpath(self.path)
        if key not in _writing:
            engine = create_engine(f"sqlite:///{self.path}", creator=connect, poolclass=NullPool)
            self._set_up(engine, "BEGIN IMMEDIATE")
            _writing[key] = _Writing(engine)
        self._writer_state = _writing[key]
        self._write_engine = self._writer_state.engine
        self._read_engine = create_engine(f"sqlite:///{self.path}", creator=connect, poolclass=QueuePool, pool_size=5, max_overflow=20)
        self._set_up(self._read_engine, "BEGIN", read_only=True)

    def _set_up(self, engine: Engine, begin: str, *, read_only: bool = False) -> None:
        synchronous = "FULL" if self.durability == "power_loss" else "NORMAL"

        @event.listens_for(engine, "connect")
        def _connected(driver: Any, record: object) -> None:
            for pragma in _PRAGMAS:
                driver.execute(pragma)
            if read_only:
                driver.execute("PRAGMA query_only = ON")
            else:
                if not self.is_memory:
                    driver.execute("PRAGMA journal_mode = WAL")
                driver.execute(f"PRAGMA synchronous = {synchronous}")

        @event.listens_for(engine, "begin")
        def _begun(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise ForkedRuntimeError

    @contextlib.contextmanager
    def write(self, timeout_s: float = 60.0) -> Iterator[Connection]:
        self._check()
        if self.is_postgres:
            with self._write_engine.begin() as connection:
                connection.exec_driver_sql(_SYNC[self.durability])
                yield connection
            return
        state = self._writer_state
        with state.lock:
            turn = contextlib.nullcontext() if self.lock_file is None else self.lock_file.turn(timeout_s)
            with turn:
                if state.connection is None or state.connection.closed:
                    state.connection = state.engine.connect()
                with state.connection.begin():
                    yield state.connection

    def drop_writer(self) -> None:
        if self.is_sqlite and not self.is_memory:
            state = self._writer_state
            with state.lock:
                if state.connection is not None:
                    with contextlib.suppress(Exception):
                        state.connection.close()
                    state.connection = None

    def connect_writer(self) -> Writer:
        return Writer(self)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        self._check()
        if self.is_memory:
            with self._writer_state.lock, self._read_engine.connect() as connection:
                yield connection
            return
        with self._read_engine.connect() as connection:
            yield connection

    def now_us(self, connection: Connection) -> int:
        if self.is_sqlite:
            return time.time_ns() // 1000
        return int(connection.execute(_NOW).scalar_one())

    def changed_since(self, token: object) -> tuple[object, bool]:
        if self.path is None:
            return None, False
        try:
            found = os.stat(f"{self.path}-wal")
        except OSError:
            return None, token is not None
        now = (found.st_size, found.st_mtime_ns)
        return now, now != token

    def close(self) -> None:
        self._read_engine.dispose()


class Writer:
    """The engine's own connection for group commits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self.before_commit: Any = None
        self.after_commit: Any = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        if self._database.is_sqlite:
            with self._database.write() as connection:
                yield connection
                if self.before_commit is not None:
                    self.before_commit(connection)
            if self.after_commit is not None:
                self.after_commit()
            return
        if self._connection is None or self._connection.closed or self._connection.invalidated:
            self.drop()
            self._connection = self._database._write_engine.connect()
        with self._connection.begin():
            self._connection.exec_driver_sql(_SYNC[self._database.durability])
            yield self._connection
            if self.before_commit is not None:
                self.before_commit(self._connection)
        if self.after_commit is not None:
            self.after_commit()

    def drop(self) -> None:
        if self._database.is_sqlite:
            self._database.drop_writer()
            return
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.invalidate()
            with contextlib.suppress(Exception):
                connection.close()


_SYNC = {"power_loss": "SET LOCAL synchronous_commit = on", "process_crash": "SET LOCAL synchronous_commit = off"}
_NOW = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")
