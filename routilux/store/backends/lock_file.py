"""Locks that the kernel frees when a process is gone: one file beside a SQLite database, one byte a purpose.

    byte 0          the turn: held around every write transaction and checkpoint
    byte 1          the right to change the schema
    byte 2          next in line for the turn
    byte 1000 + key the life of the runtime of that key

Who wants the turn takes "next in line" first and gives it back when it has the turn. So a process that
commits in a loop finds the place taken and waits behind the other, instead of taking back what it has just
given. Threads of one process stand in the same kind of line before that.

POSIX locks belong to a process and are all dropped when it closes any descriptor of the file: there is one
descriptor per process and file, and it is never closed. They do not pass to a forked child. `flock` would: a
child would keep its dead parent alive.
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
# A blocking F_SETLKW has no timeout, and the kernel, which knows processes but no threads, takes two threads
# that wait for each other's process for a deadlock. While one waits for the turn it is next in line, so a
# pause costs a moment of idleness, never the turn.
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
        self._alive_lock = threading.Lock()  # a probe and a hold of one byte must not mix
        self._alive: set[int] = set()

    @classmethod
    def of(cls, database: str | Path) -> LockFile:
        """The lock file beside a database file: the same object for all of this process."""
        path = os.path.realpath(database) + "-routilux-lock"
        key = (os.getpid(), path)
        known = _files.get(key)
        if known is not None and known._is_current():
            return known
        if known is not None:  # the file was deleted and is another now; the old descriptor stays open
            _files.pop(key, None)
        # of two threads one wins; the other's descriptor stays open too, closing it would drop the winner's
        # locks
        return _files.setdefault(key, cls(path))

    # the turn

    @contextlib.contextmanager
    def turn(self, timeout_s: float = TURN_TIMEOUT_S) -> Iterator[None]:
        """Hold the turn to write; see `take_turn`."""
        self.take_turn(timeout_s)
        try:
            yield
        finally:
            self.give_turn()

    def take_turn(self, timeout_s: float = TURN_TIMEOUT_S) -> None:
        """Wait for the turn to write: in line with the threads of this process, then with other processes.

        Raises `DatabaseUnavailableError` after `timeout_s`, `StateError` when this thread has it already.
        """
        self._check_fork()
        if self.is_my_turn:
            raise StateError(
                f"this thread has an open write transaction on {self._database}; commit it first,"
                " or post inside it: post(transaction=connection)"
            )
        until = time.monotonic() + timeout_s
        if not self._next_thread.acquire(timeout=timeout_s):
            raise self._late("a thread of this process")
        try:
            if not self._turn_thread.acquire(timeout=max(0.0, until - time.monotonic())):
                raise self._late("a thread of this process")
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
        """Give the turn back; any thread may, but only for the one who has it."""
        if self._pid != os.getpid():
            return
        self._holder = None
        self._free(_TURN)
        self._turn_thread.release()

    @property
    def is_my_turn(self) -> bool:
        """Whether this thread has taken the turn: waiting for anybody else's write would be for ever."""
        return self._holder == threading.get_ident()

    @contextlib.contextmanager
    def upgrade(self, timeout_s: float = TURN_TIMEOUT_S) -> Iterator[None]:
        """Hold the right to change the schema, alone among processes. Not for two threads of one process."""
        self._check_fork()
        self._wait(_UPGRADE, time.monotonic() + timeout_s)
        try:
            yield
        finally:
            self._free(_UPGRADE)

    # who lives

    def hold_alive(self, key: int) -> None:
        """Show that the runtime `key` lives, until `release_alive` or the end of this process."""
        self._check_fork()
        with self._alive_lock:
            self._wait(_ALIVE + key, time.monotonic() + 5.0)  # somebody's probe may have it for a moment
            self._alive.add(key)

    def release_alive(self, key: int) -> None:
        """Take the sign away. Idempotent."""
        if self._pid != os.getpid():
            return
        with self._alive_lock:
            if key in self._alive:
                self._alive.discard(key)
                self._free(_ALIVE + key)

    def is_alive(self, key: int) -> bool:
        """Whether the process of the runtime `key` lives and holds its sign."""
        self._check_fork()
        with self._alive_lock:
            if key in self._alive:  # the kernel never tells a process about its own locks
                return True
            if not self._try(_ALIVE + key, fcntl.LOCK_SH):  # shared: probes do not see each other
                return True
            self._free(_ALIVE + key)
            return False

    def is_alone(self) -> bool:
        """Whether no runtime of another process lives on this file."""
        self._check_fork()
        with self._alive_lock:
            if not self._try(_ALIVE, fcntl.LOCK_EX, length=0):  # 0: to the end
                return False
            start = _ALIVE
            for key in sorted(self._alive):
                if _ALIVE + key > start:
                    fcntl.lockf(self._fd, fcntl.LOCK_UN, _ALIVE + key - start, start)
                start = _ALIVE + key + 1
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 0, start)
            return True

    # how

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
                raise self._late("another process")
            time.sleep(next(pause for limit, pause in _PAUSES_S if waited < limit))

    def _late(self, holder: str) -> DatabaseUnavailableError:
        return DatabaseUnavailableError(
            f"no turn to write to {self._database} in time: {holder} is in a write transaction;"
            " end transactions sooner, or look for a stopped process"
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
            f"{path} cannot be written: {error.strerror}; Routilux locks it to write"
        ) from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise DatabaseReadOnlyError(f"{path} cannot be written: {error.strerror}") from error
        raise DatabaseUnavailableError(f"{path} cannot be opened: {error.strerror}") from error
