"""One database, and how it is written and read. The only place that knows both kinds of connection.

    write()  one write transaction of anybody: heartbeat, post from another process, housekeeping
    Writer   the same for the engine's group commits, on a connection that it keeps
    read()   one short transaction that cannot write

SQLite: all writing of a process goes through one connection, in turns (`sqlite_file`, `oslocks`). Postgres: a
pool, and one more connection for each `Writer` (`postgres_server`). Errors of the driver pass through as they
are, wrapped by SQLAlchemy; `failures.classify` says what they mean. An error of COMMIT leaves open whether it
happened.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError

from routilux.errors import (
    DatabaseFullError,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    ForkedRuntimeError,
)
from routilux.store import listening, postgres_server, sqlite_file
from routilux.store.direct import BEGIN
from routilux.store.failures import Failure, classify
from routilux.store.oslocks import TURN_TIMEOUT_S, LockFile
from routilux.store.sqlite_file import SharedWriter, sqlite_engine

__all__ = ["Database", "Durability", "Writer", "boot_time_us", "host_boot_id", "sqlite_engine"]

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
        url = _url_of(database)
        match url.get_backend_name():
            case "sqlite":
                self = cls(url.set(drivername="sqlite"), durability)
                self._open_memory() if self.is_memory else self._open_file()
            case "postgresql":
                self = cls(postgres_server.with_psycopg(url), durability)
                self._engine = postgres_server.pooled_engine(self.url, application_name)
                must_fsync = durability == "power_loss" and not allow_fsync_off
                try:
                    postgres_server.check(self._engine, self.url, must_fsync=must_fsync)
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
                self._engine.connect().execution_options(**self._begin_write) as connection,
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

    def now_us(self, connection: Connection) -> int:
        """µs since 1970 UTC by the clock of due times: Postgres, the server's; SQLite, the host's."""
        if self.is_sqlite:
            return time.time_ns() // 1000
        return int(connection.execute(postgres_server.NOW_US).scalar_one())

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
        before, self._written_at = self._written_at, sqlite_file.written_at(self.path)
        return before != self._written_at

    def checkpoint(self, *, truncate: bool = False) -> tuple[int, int]:
        """SQLite: copy the WAL into the file; with `truncate` also empty it, if no reader needs it.

        Returns (pages in the WAL, pages of them copied); (0, 0) elsewhere.
        """
        self._check_usable()
        return (0, 0) if self._shared is None else self._shared.checkpoint(truncate=truncate)

    @property
    def _begin_write(self) -> dict[str, str]:
        return {BEGIN: postgres_server.WRITE[self.durability]}

    def _connect_kept(self) -> Connection:
        """Postgres: a connection that stays checked out."""
        self._check_usable()
        kept = self._engine.connect().execution_options(**self._begin_write)
        postgres_server.prepare_if_direct(kept.connection.driver_connection)
        return kept

    def _open_memory(self) -> None:
        self._engine = sqlite_file.memory_engine()
        self._memory = self._engine.connect()

    def _open_file(self) -> None:
        path = Path(sqlite_file.file_of(self.url))
        self.path = path
        self._engine = sqlite_file.reading_engine(str(path))
        _check_place(path)
        with _named_errors(path):
            self.lock_file = LockFile.of(path)
            with self.lock_file.turn():
                # makes the file, sets its modes, and finds out whether it is a database
                driver = sqlite_file.connect_file(str(path))
                try:
                    driver.execute("BEGIN IMMEDIATE")
                    driver.execute("SELECT count(*) FROM sqlite_schema").fetchone()
                    driver.execute("ROLLBACK")
                finally:
                    driver.close()
        self._shared = SharedWriter.join(str(path))
        sqlite_file.warn_sqlite_wal_reset()

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


class Writer:
    """The engine's own connection. For one thread at a time.

    `before_commit(connection)` and `after_commit()` are called around COMMIT if set: tests let them raise.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self.before_commit: Callable[[Connection], None] | None = None
        self.after_commit: Callable[[], None] | None = None
        self.transactions = 0

    @contextlib.contextmanager
    def transaction(self, ask: str = "") -> Iterator[Connection]:
        """One write transaction, as `Database.write`. After an error `classify` it; if LOST, `drop`.

        `ask`: on Postgres a SELECT of one row that may travel with BEGIN; see `postgres_server.ANSWER`.
        """
        with self._begun(ask) as connection:
            self.transactions += 1
            yield connection
            if self.before_commit is not None:
                self.before_commit(connection)
        if self.after_commit is not None:
            self.after_commit()

    @property
    def ear(self) -> Connection | None:
        """The connection, if it listens (`listening.listen`)."""
        connection = self._connection
        return connection if connection is not None and listening.listens(connection) else None

    def drop(self) -> None:
        """Throw the connection away; the next transaction has a new one."""
        self._database.drop_writer()
        self.close()

    def close(self) -> None:
        """Let go of its own connection, not of the one that it shares."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.invalidate()
            with contextlib.suppress(Exception):
                connection.close()

    @contextlib.contextmanager
    def _begun(self, ask: str) -> Iterator[Connection]:
        if self._database.is_sqlite:
            with self._database.write() as connection:
                yield connection
            return
        if self._connection is None or self._connection.closed or self._connection.invalidated:
            self.drop()
            self._connection = self._database._connect_kept()
        if ask:
            self._connection.info[postgres_server.ASK] = ask
        with self._connection.begin():
            yield self._connection


def boot_time_us() -> int:
    """The clock of SQLite leases: µs since the host booted, time asleep included (macOS: excluded)."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


def host_boot_id() -> str:
    """Names this boot of this host: a lease of another boot is over."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        done = subprocess.run(["sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=True)
        return done.stdout.strip()


def _url_of(database: str | URL | Engine) -> URL:
    if not isinstance(database, Engine):
        try:
            return _checked(make_url(database))
        except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
            raise DatabaseUnavailableError(
                f"{_shown(database)} is no URL of a database; use sqlite:///path or postgresql://host/name"
            ) from error
    if database.dialect.name == "sqlite" and database.url.database in (None, "", ":memory:"):
        raise DatabaseUnavailableError(
            "an Engine in memory has a database of its own that cannot be shared; pass 'sqlite://' or a file"
        )
    return database.url


def _checked(url: URL) -> URL:
    """Raises `ValueError` for a URL that no file and no server can have."""
    for part in (url.username, url.password, url.host, url.database):
        if (
            part is not None and "\x00" in str(part).encode().decode()
        ):  # a lone surrogate is a ValueError as well
            raise ValueError("it contains U+0000")
    if url.host is not None:
        url.host.encode("idna")
    return url


def _shown(database: object) -> str:
    """What was given, without what may be a password."""
    if not isinstance(database, str):
        return f"a database of type {type(database).__name__}"
    shown = re.sub(r"^([\w+]+://)?.*@", r"\1***@", database, flags=re.DOTALL)
    shown = re.sub(r"(password=)[^&]*", r"\1***", shown)
    return repr(shown if len(shown) <= 200 else shown[:200] + "…")


def check_named(error: BaseException, url: URL) -> None:
    """Raises an error of the driver that tells what is wrong with the whole database as one of ours."""
    reason = str(getattr(error, "orig", error)).partition("\n")[0]
    match classify(error):
        case Failure.READ_ONLY:
            raise DatabaseReadOnlyError(f"{url.render_as_string()} takes no writes: {reason}") from error
        case Failure.FULL:
            message = f"{url.render_as_string()}: the disk is full; make room ({reason})"
            raise DatabaseFullError(message) from error
    if getattr(getattr(error, "orig", None), "sqlstate", None) == "42501":  # insufficient_privilege
        message = f"{url.render_as_string()} takes no writes from this user: {reason}"
        raise DatabaseReadOnlyError(message) from error


def _check_place(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long, a loop of links, a parent that may not be looked into
        raise DatabaseUnavailableError(f"{path} cannot be opened: {error.strerror}") from error
    if not path.parent.is_dir():
        raise DatabaseUnavailableError(f"{path}: the directory {path.parent} does not exist; create it first")
    if path.is_dir():
        raise DatabaseUnavailableError(f"{path} is a directory; name a file in it")
    for place in (path, path.parent):  # SQLite makes the -wal and -shm files beside the database
        if place.exists() and not os.access(place, os.W_OK):
            raise DatabaseReadOnlyError(f"{path} cannot be written: no permission to write {place}")


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """What is wrong with a file, as errors that say what to do."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
            raise DatabaseUnavailableError(f"{path} is not a SQLite database; name another file") from error
        match classify(error):
            case Failure.READ_ONLY:
                raise DatabaseReadOnlyError(f"{path} cannot be written: {error}") from error
            case Failure.FULL:
                raise DatabaseFullError(f"{path}: the disk is full; make room ({error})") from error
        raise DatabaseUnavailableError(f"{path} cannot be opened: {error}") from error
