"""Locks that the kernel releases when a process ends.

One file beside a SQLite database, one byte per purpose:

    byte 0          the write turn: held around every write transaction and checkpoint
    byte 1          the right to change the schema
    byte 2          next in line for the turn
    byte 1000 + key held while the runtime with that key is alive

A process that wants the turn locks "next in line" first, and releases it when it has the turn. So a process
that commits in a loop finds "next in line" locked and waits behind the other process. Otherwise it would take
the turn again at once. The threads of one process wait in the same kind of line before that.

POSIX locks belong to a process. All of them are dropped when the process closes any descriptor of the file.
So there is one descriptor per process and file, and it is never closed. A forked child does not inherit these
locks. It would inherit `flock` locks: then a child would keep its dead parent alive.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from routilux.errors import DatabaseReadOnlyError, DatabaseUnavailableError, ForkedRuntimeError, StateError

TURN_TIMEOUT_S = 60.0
_TURN, _UPGRADE, _NEXT, _ALIVE = 0, 1, 2, 1000
# Polling, because a blocking F_SETLKW has no timeout. Also, the kernel knows processes but not threads: it
# reports a deadlock when two threads wait for each other's process. A process that waits for the turn is next
# in line, so a pause costs a moment of idle time, never the turn.
_PAUSES_S = ((0.05, 0.0001), (1.0, 0.0005), (float("inf"), 0.005))  # (waited less than, pause)

_files: dict[tuple[int, str], LockFile] = {}


class LockFile:
    """The locks of one database file in this process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._pid = os.getpid()
        self._fd = _open(path)
        self._next_thread = threading.Lock()
        self._turn_thread = threading.Lock()
        self._holder: int | None = None
        self._alive_lock = threading.Lock()  # probing and holding one byte must not overlap
        self._alive: set[int] = set()

    @classmethod
    def of(cls, database: str | Path) -> LockFile:
        """The lock file beside a database file. One process gets the same object each time."""
        path = os.path.realpath(database) + "-routilux-lock"
        key = (os.getpid(), path)
        known = _files.get(key)
        if known is not None and known._is_current():
            return known
        if known is not None:  # the file was deleted and created again; the old descriptor stays open
            _files.pop(key, None)
        # If two threads race, one wins. The other's descriptor stays open, too: closing it would drop the
        # winner's locks.
        return _files.setdefault(key, cls(path))

    # the turn

    @contextlib.contextmanager
    def turn(self, timeout_s: float = TURN_TIMEOUT_S) -> Iterator[None]:
        """Hold the write turn during the block; see `take_turn`."""
        self.take_turn(timeout_s)
        try:
            yield
        finally:
            self.give_turn()

    def take_turn(self, timeout_s: float = TURN_TIMEOUT_S) -> None:
        """Wait for the write turn: first behind threads of this process, then behind other processes.

        Raises `DatabaseUnavailableError` after `timeout_s`, `StateError` if this thread has the turn already.
        """
        self._check_fork()
        if self.is_my_turn:
            raise StateError(
                f"this thread has an open write transaction on {self._database}; commit it first,"
                " or post inside it: post(transaction=connection)"
            )
        until = time.monotonic() + timeout_s
        if not self._next_thread.acquire(timeout=timeout_s):
            raise self._timeout_error("a thread of this process")
        try:
            if not self._turn_thread.acquire(timeout=max(0.0, until - time.monotonic())):
                raise self._timeout_error("a thread of this process")
        finally:
            self._next_thread.release()
        try:
            self._wait(_NEXT, until)
            try:
                self._wait(_TURN, until)
            finally:
                self._free(_NEXT)
        except BaseException:
            self._turn_thread.release()
            raise
        self._holder = threading.get_ident()

    def give_turn(self) -> None:
        """Release the turn. Any thread may call it, but only on behalf of the thread that holds the turn."""
        if self._pid != os.getpid():
            return
        self._holder = None
        self._free(_TURN)
        self._turn_thread.release()

    @property
    def is_my_turn(self) -> bool:
        """Whether this thread holds the turn.

        If so, waiting for a write of another thread would never end.
        """
        return self._holder == threading.get_ident()

    @contextlib.contextmanager
    def upgrade(self, timeout_s: float = TURN_TIMEOUT_S) -> Iterator[None]:
        """Hold the right to change the schema.

        It excludes other processes, but not threads of this process.
        """
        self._check_fork()
        self._wait(_UPGRADE, time.monotonic() + timeout_s)
        try:
            yield
        finally:
            self._free(_UPGRADE)

    # which runtimes are alive

    def hold_alive(self, key: int) -> None:
        """Show that the runtime `key` is alive, until `release_alive` or the end of this process."""
        self._check_fork()
        with self._alive_lock:
            self._wait(_ALIVE + key, time.monotonic() + 5.0)  # a probe may hold it for a moment
            self._alive.add(key)

    def release_alive(self, key: int) -> None:
        """Release the lock of `hold_alive`. Idempotent."""
        if self._pid != os.getpid():
            return
        with self._alive_lock:
            if key in self._alive:
                self._alive.discard(key)
                self._free(_ALIVE + key)

    def is_alive(self, key: int) -> bool:
        """Whether the process of the runtime `key` is alive and holds its lock."""
        self._check_fork()
        with self._alive_lock:
            if key in self._alive:  # the kernel does not report a process's own locks to it
                return True
            if not self._try(_ALIVE + key, fcntl.LOCK_SH):  # shared: probes do not block each other
                return True
            self._free(_ALIVE + key)
            return False

    def is_alone(self) -> bool:
        """Whether no runtime of another process is alive on this file."""
        self._check_fork()
        with self._alive_lock:
            if not self._try(_ALIVE, fcntl.LOCK_EX, length=0):  # 0: to the end of the file
                return False
            start = _ALIVE
            for key in sorted(self._alive):
                if _ALIVE + key > start:
                    fcntl.lockf(self._fd, fcntl.LOCK_UN, _ALIVE + key - start, start)
                start = _ALIVE + key + 1
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 0, start)
            return True

    # internals

    @property
    def _database(self) -> str:
        return self.path.removesuffix("-routilux-lock")

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _check_fork(self) -> None:
        if self._pid != os.getpid():
            raise ForkedRuntimeError

    def _wait(self, byte: int, until: float) -> None:
        if self._try(byte):
            return
        began = time.monotonic()
        while not self._try(byte):
            waited = time.monotonic() - began
            if began + waited >= until:
                raise self._timeout_error("another process")
            time.sleep(next(pause for limit, pause in _PAUSES_S if waited < limit))

    def _timeout_error(self, holder: str) -> DatabaseUnavailableError:
        return DatabaseUnavailableError(
            f"timed out waiting for the write turn on {self._database}: {holder} is in a write transaction;"
            " keep transactions shorter, or look for a stopped process"
        )

    def _try(self, byte: int, kind: int = fcntl.LOCK_EX, length: int = 1) -> bool:
        try:
            fcntl.lockf(self._fd, kind | fcntl.LOCK_NB, length, byte)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def _free(self, byte: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError as error:
        raise DatabaseReadOnlyError(
            f"{path} cannot be written: {error.strerror}; Routilux must lock this file to write"
        ) from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise DatabaseReadOnlyError(f"{path} cannot be written: {error.strerror}") from error
        raise DatabaseUnavailableError(f"{path} cannot be opened: {error.strerror}") from error
