"""How one process connects to one SQLite file: pragmas, engines that read, and the WAL with its checkpoints.

Whoever writes holds the turn of the lock file (`sqlite_writers`). Checkpoints run within the turn too: two connections
that write and checkpoint at once meet the WAL-reset bug of SQLite before 3.51.3.

No file of the database is opened here other than by SQLite: closing any descriptor of it would drop SQLite's
locks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool, QueuePool

from routilux.store.backends.driver_sql import BEGIN

log = logging.getLogger("routilux")

WAL_BYTES = 16 * 1024 * 1024  # about 4000 pages: checkpoint when the WAL has grown beyond
WAL_RESET_FIXED = (3, 51, 3)
BUSY_MS = 30_000
READ_CACHE_KB = (
    16_384  # a window of waiting messages is read once, so what the writer has would only be waste
)
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
            with without_waiting(driver), contextlib.suppress(sqlite3.Error):
                driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


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


@contextlib.contextmanager
def without_waiting(driver: sqlite3.Connection) -> Iterator[None]:
    """A checkpoint that waits for readers would stop every writer of the file."""
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        yield
    finally:
        driver.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
