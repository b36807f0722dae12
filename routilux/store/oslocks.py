"""Locks that the kernel frees when a process is gone: one file beside a SQLite database, one byte a purpose.

Byte 0 is the turn to write, byte 1 the right to change the schema, byte 1000 + key the life of a runtime. POSIX
locks belong to the process and are all dropped when it closes any descriptor of the file, so there is one
descriptor per process and file, and it is never closed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from routilux.errors import DatabaseUnavailableError, ForkedRuntimeError

_TURN, _UPGRADE, _ALIVE = 0, 1, 1000
_files: dict[str, LockFile] = {}
_files_lock = threading.Lock()


class LockFile:
    """The locks of one database in this process."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._pid = os.getpid()
        self._turn = threading.Lock()
        self._mine: set[int] = set()

    @classmethod
    def of(cls, database: str | Path) -> LockFile:
        """The lock file of a database file, the same object for every user in this process."""
        name = os.path.realpath(database) + "-routilux-lock"
        with _files_lock:
            if name not in _files or _files[name]._pid != os.getpid():
                _files[name] = cls(name)
            return _files[name]

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise ForkedRuntimeError

    def _try(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def _free(self, byte: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)

    def take_turn(self, timeout_s: float = 60.0) -> None:
        """Wait for the turn to write: first among the threads of this process, then among processes."""
        self._check()
        if not self._turn.acquire(timeout=timeout_s):
            raise DatabaseUnavailableError(f"no turn to write within {timeout_s:g} s: a thread of this process holds it")
        try:
            if not self._try(_TURN):
                fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _TURN)  # the kernel queues the waiters
        except BaseException:
            self._turn.release()
            raise

    def give_turn(self) -> None:
        self._free(_TURN)
        self._turn.release()

    @contextlib.contextmanager
    def turn(self, timeout_s: float = 60.0) -> Iterator[None]:
        self.take_turn(timeout_s)
        try:
            yield
        finally:
            self.give_turn()

    def hold_alive(self, key: int) -> None:
        """Show that a runtime of this process lives, as long as the process does."""
        self._check()
        self._try(_ALIVE + key)
        self._mine.add(key)

    def release_alive(self, key: int) -> None:
        if key in self._mine and self._pid == os.getpid():
            self._mine.discard(key)
            self._free(_ALIVE + key)

    def is_alive(self, key: int) -> bool:
        """Whether the process of a runtime lives. The kernel cannot tell a process about its own locks."""
        if key in self._mine:
            return True
        if not self._try(_ALIVE + key):
            return True
        self._free(_ALIVE + key)
        return False


__all__ = ["LockFile"]
