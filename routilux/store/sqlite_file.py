"""How one process connects to one SQLite file: pragmas, turns, checkpoints.

Whoever writes holds the turn of the lock file from before BEGIN until after COMMIT: `SharedWriter`, the one
writing connection that all of Routilux in this process shares, and `sqlite_engine`, which users write with.
Checkpoints run within the turn too: two connections that write and checkpoint at once meet the WAL-reset bug
of SQLite before 3.51.3.

No file of the database is opened here other than by SQLite: closing any descriptor of it would drop SQLite's
locks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.pool import NullPool, QueuePool

from routilux.errors import DatabaseUnavailableError, ForkedRuntimeError
from routilux.store import direct
from routilux.store.direct import BEGIN
from routilux.store.oslocks import TURN_TIMEOUT_S, LockFile

log = logging.getLogger("routilux")

WAL_BYTES = 16 * 1024 * 1024  # about 4000 pages: checkpoint when the WAL has grown beyond
WAL_RESET_FIXED = (3, 51, 3)
BUSY_MS = 30_000
READ_CACHE_KB = (
    16_384  # a window of waiting messages is read once, so what the writer has would only be waste
)
READ_ONLY = "routilux_readonly"  # execution option of a connection of sqlite_engine()
_DRIVER: dict[str, Any] = {
    "isolation_level": None,
    "check_same_thread": False,
    "timeout": BUSY_MS / 1000,
    "cached_statements": 512,  # the sizes of `bulk.Values`, for each table
}
_EVERY = (
    f"PRAGMA busy_timeout = {BUSY_MS}",
    "PRAGMA cache_size = -65536",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA mmap_size = 0",
    "PRAGMA wal_autocheckpoint = 0",
)


class TurnConnection(sqlite3.Connection):
    """A driver connection that holds the turn while it is in a write transaction."""

    lock_file: LockFile
    wal: Wal
    turn_timeout_s: float = TURN_TIMEOUT_S
    _has_turn = False
    _is_query_only = False

    def begin(self, *, read_only: bool = False) -> None:
        """BEGIN, as SQLAlchemy never says it."""
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
        if self.in_transaction:  # the COMMIT failed; a rollback follows
            return
        self._give_turn()
        if self._is_query_only:
            self._is_query_only = False
            self.execute("PRAGMA query_only = OFF")

    def _give_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self.lock_file.give_turn()


class Wal:
    """The write-ahead log of a file, and when to copy it into the file."""

    def __init__(self, path: str) -> None:
        self.path = f"{path}-wal"
        self._limit = WAL_BYTES

    def size_bytes(self) -> int:
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError:
            return 0

    def checkpoint_if_grown(self, driver: sqlite3.Connection) -> None:
        """Call it within the turn, after COMMIT. Never raises: the commit is in."""
        size = self.size_bytes()
        if size <= WAL_BYTES:
            self._limit = WAL_BYTES
        elif size > self._limit:
            # a reader can keep the WAL from beginning anew: then not after every commit, but when it has
            # grown again
            self._limit = size + WAL_BYTES
            with _without_waiting(driver), contextlib.suppress(sqlite3.Error):
                driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


class SharedWriter:
    """The one writing connection of a file in this process, and the threads that take turns on it."""

    _known: ClassVar[dict[tuple[int, str], SharedWriter]] = {}
    _known_lock = threading.Lock()

    def __init__(self, path: str, inode: tuple[int, int]) -> None:
        self.path = path
        self.lock_file = LockFile.of(path)
        self.wal = Wal(path)
        self._inode = inode
        self._users = 0
        self._use = threading.Lock()  # the turn keeps writers apart, this keeps `foreign_version` off them
        self.transactions = 0
        self._engine = create_engine("sqlite://", creator=lambda: connect_file(path), poolclass=NullPool)
        self._connection: Connection | None = None
        self._driver: sqlite3.Connection | None = None
        self._synchronous = ""
        self._generation = 0
        event.listen(self._engine, "begin", _begin_immediate)

    @classmethod
    def join(cls, path: str) -> SharedWriter:
        """The writer of a file that exists, for one more user; `leave` gives it back."""
        key = (os.getpid(), os.path.realpath(path))
        found = os.stat(path)
        inode = (found.st_dev, found.st_ino)
        with cls._known_lock:
            known = cls._known.get(key)
            if known is None or known._inode != inode:  # deleted and made anew
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
        """Another value after every commit of any other connection. None: not known just now, ask again.

        A `stat` of the WAL tells less: its time moves in steps of milliseconds and its size not at all once it
        has begun anew.
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
        """Copy the WAL into the file. Returns (pages in the WAL, pages of them copied)."""
        with self.lock_file.turn(), self._use:
            self._ready(self._synchronous or "FULL")
            assert self._driver is not None
            mode = "TRUNCATE" if truncate else "PASSIVE"
            with _without_waiting(self._driver):
                _, pages, copied = self._driver.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            return pages, copied

    def drop(self) -> None:
        """Close the connection; the next transaction has a new one."""
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


def connect_file(
    path: str, factory: type[sqlite3.Connection] = sqlite3.Connection, **kw: Any
) -> sqlite3.Connection:
    """A driver connection that can write, with all pragmas; within the turn if the file is new."""
    driver: sqlite3.Connection = sqlite3.connect(path, **{**_DRIVER, **kw}, factory=factory)
    try:
        for pragma in _EVERY:
            driver.execute(pragma).fetchall()
        if driver.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            driver.execute("PRAGMA auto_vacuum = INCREMENTAL")  # counts only before WAL writes the first page
            driver.execute("PRAGMA journal_mode = WAL").fetchall()
        # a WAL that was read to its end is cut to this when it begins anew, so its size tells what is in it
        driver.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}").fetchall()
    except BaseException:
        driver.close()
        raise
    return driver


def reading_engine(path: str) -> Engine:
    """A pool of connections that cannot write."""

    def connect() -> sqlite3.Connection:
        driver: sqlite3.Connection = sqlite3.connect(path, **_DRIVER)
        for pragma in (*_EVERY, f"PRAGMA cache_size = -{READ_CACHE_KB}", "PRAGMA query_only = ON"):
            driver.execute(pragma).fetchall()
        return driver

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=5, max_overflow=20)
    event.listen(engine, "begin", _begin)
    return engine


def memory_engine() -> Engine:
    """One connection to a database that lives as long as it does."""

    def connect() -> sqlite3.Connection:
        driver: sqlite3.Connection = sqlite3.connect(":memory:", **_DRIVER)
        for pragma in _EVERY:
            driver.execute(pragma).fetchall()
        return driver

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    event.listen(engine, "begin", _begin)
    return engine


def sqlite_engine(database: str | Path | URL, *, turn_timeout_s: float = TURN_TIMEOUT_S, **kw: Any) -> Engine:
    """An SQLAlchemy engine for your own rows in a SQLite file of Routilux, as `post(transaction=…)` needs.

    `database`: `sqlite:///path` or a path. `turn_timeout_s`: how long a transaction waits to begin. `kw`: for
    `create_engine`. A transaction begins with BEGIN IMMEDIATE and holds the turn to write, among all threads
    and processes of Routilux on that file, until it is committed, rolled back or closed: keep it short, and
    end it before you wait for anything that Routilux does. What it committed survives power loss. With
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

    # the path in the URL is for people, and for Routilux when it is given this engine
    engine = create_engine(
        URL.create("sqlite", database=path), creator=connect, **{"poolclass": QueuePool, **kw}
    )
    event.listen(engine, "begin", begin)
    return engine


def file_of(database: str | Path | URL) -> str:
    """The absolute path in a SQLite URL. Raises `DatabaseUnavailableError` if it names no plain file."""
    if isinstance(database, str) and "://" in database:
        database = make_url(database)
    if isinstance(database, URL):
        if database.get_backend_name() != "sqlite":
            raise DatabaseUnavailableError(
                f"{database.render_as_string()} is no SQLite URL; use create_engine()"
            )
        database = database.database or ""
    name = str(database)
    if name in ("", ":memory:") or name.startswith("file:"):
        raise DatabaseUnavailableError(
            f"{name or ':memory:'!r} names no plain file; use sqlite:///path/to/file.db"
        )
    return os.path.abspath(name)


def written_at(path: Path) -> tuple[int, int] | None:
    """Time (ns) and size of the WAL; None: there is none."""
    try:
        found = os.stat(f"{path}-wal")
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def warn_sqlite_wal_reset() -> None:
    """Say once, at INFO, that this SQLite has the WAL-reset bug, and who is safe from it."""
    if sqlite3.sqlite_version_info < WAL_RESET_FIXED and "wal" not in _said:
        _said.add("wal")
        log.info(
            "SQLite %s has the WAL-reset bug (fixed in 3.51.3). Routilux is safe from it: its processes take"
            " turns to write. Others that write to the same file should use routilux.sqlite_engine()",
            sqlite3.sqlite_version,
        )


_said: set[str] = set()


def driver_of(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _begin(connection: Connection) -> None:
    if begin := connection.get_execution_options().get(BEGIN, "BEGIN"):
        connection.exec_driver_sql(begin)


def _begin_immediate(connection: Connection) -> None:
    direct.send(connection, "BEGIN IMMEDIATE")


@contextlib.contextmanager
def _without_waiting(driver: sqlite3.Connection) -> Iterator[None]:
    """A checkpoint that waits for readers would stop every writer of the file."""
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        yield
    finally:
        driver.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
