"""How one process connects to one SQLite file: pragmas, engines that read, and the WAL with its checkpoints.

A writer holds the turn of the lock file (`sqlite_writer`). Checkpoints hold the turn, too: if one connection
writes while another one checkpoints, they can hit the WAL-reset bug of SQLite before 3.51.3.

Only SQLite opens the files of the database. If this code closed a descriptor of its own, SQLite would lose
its locks.
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

WAL_BYTES = 16 * 1024 * 1024  # about 4000 pages: checkpoint when the WAL is larger
WAL_RESET_FIXED = (3, 51, 3)
BUSY_MS = 30_000
# a window of waiting messages is read once, so a cache as large as the writer's would be wasted
READ_CACHE_KB = 16_384
_DRIVER: dict[str, Any] = {
    "isolation_level": None,
    "check_same_thread": False,
    "timeout": BUSY_MS / 1000,
    "cached_statements": 512,  # enough for the sizes of `bulk.Values`, for each table
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
    """The write-ahead log of a file, and the decision when to copy it into the file."""

    def __init__(self, path: str) -> None:
        self.path = f"{path}-wal"
        self._limit = WAL_BYTES

    def size_bytes(self) -> int:
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError:
            return 0

    def checkpoint_if_grown(self, driver: sqlite3.Connection) -> None:
        """Call it while holding the turn, after COMMIT. Never raises, because the commit has succeeded."""
        size = self.size_bytes()
        if size <= WAL_BYTES:
            self._limit = WAL_BYTES
        elif size > self._limit:
            # A reader can prevent the WAL from starting over. So try again after the same growth, not after
            # every commit.
            self._limit = size + WAL_BYTES
            with without_waiting(driver), contextlib.suppress(sqlite3.Error):
                driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def connect_file(
    path: str, factory: type[sqlite3.Connection] = sqlite3.Connection, **kw: Any
) -> sqlite3.Connection:
    """A driver connection that can write, with all pragmas.

    If the file is new, call it while holding the turn.
    """
    driver: sqlite3.Connection = sqlite3.connect(path, **{**_DRIVER, **kw}, factory=factory)
    try:
        for pragma in _EVERY:
            driver.execute(pragma).fetchall()
        if driver.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            # auto_vacuum first: it has an effect only before WAL writes the first page
            driver.execute("PRAGMA auto_vacuum = INCREMENTAL")
            driver.execute("PRAGMA journal_mode = WAL").fetchall()
        # a fully copied WAL is cut to this size when it starts over, so its size tells how much it holds
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
    """One connection to a database in memory. The database ends with the connection."""

    def connect() -> sqlite3.Connection:
        driver: sqlite3.Connection = sqlite3.connect(":memory:", **_DRIVER)
        for pragma in _EVERY:
            driver.execute(pragma).fetchall()
        return driver

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    event.listen(engine, "begin", _begin)
    return engine


def written_at(path: Path) -> tuple[int, int] | None:
    """Time (ns) and size of the WAL. Returns None if there is no WAL."""
    try:
        found = os.stat(f"{path}-wal")
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def warn_sqlite_wal_reset() -> None:
    """Log once, at INFO, if this SQLite has the WAL-reset bug, and which programs are safe from it."""
    if sqlite3.sqlite_version_info < WAL_RESET_FIXED and "wal" not in _logged:
        _logged.add("wal")
        log.info(
            "SQLite %s has the WAL-reset bug (fixed in 3.51.3). Routilux is safe from it: its processes write"
            " one at a time. Other programs that write to the same file should use routilux.sqlite_engine()",
            sqlite3.sqlite_version,
        )


_logged: set[str] = set()


def driver_of(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _begin(connection: Connection) -> None:
    if begin := connection.get_execution_options().get(BEGIN, "BEGIN"):
        connection.exec_driver_sql(begin)


@contextlib.contextmanager
def without_waiting(driver: sqlite3.Connection) -> Iterator[None]:
    """No busy timeout in the block: a checkpoint that waits for readers would stop every writer."""
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        yield
    finally:
        driver.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
