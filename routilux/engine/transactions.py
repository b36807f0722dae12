"""Transactions of this runtime: its identity, the number of its commits, and how long it tries.

Every error that passes (connection lost, deadlock, busy, disk full) is tried again with growing pauses, until
a stop has reached its deadline. Everything else belongs to the caller.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from routilux.engine.facts import Facts
from routilux.errors import RuntimeShutDownError
from routilux.store.errors import PASSING, Fenced, classify
from routilux.store.types import Connection
from routilux.store.writes.store import Commit, Store

T = TypeVar("T")
PAUSES_S = (0.01, 0.05, 0.2, 0.5, 1.0)  # before the second, the third … try


class Transactions:
    """Owns the store's writing side, the runtime's key and its commit number. The engine's thread uses it."""

    def __init__(self, store: Store, facts: Facts) -> None:
        self.store = store
        self.runtime_key = 0
        self.commit_n = 0
        self.is_postgres = store.database.is_postgres
        self._facts = facts
        self._give_up_at: float | None = None

    # identity

    def become(self, runtime_key: int) -> None:
        """This runtime has registered under a new key; its commits count from 1 again."""
        self.runtime_key = runtime_key
        self.commit_n = 0

    def next_commit(self) -> int:
        """Take the next commit number."""
        self.commit_n += 1
        return self.commit_n

    def use_up(self, n: int) -> None:
        """The numbers up to `n` are taken, whether their commits went in or not."""
        self.commit_n = max(self.commit_n, n)

    # one transaction

    def fenced(self, work: Callable[[Commit], T]) -> T:
        """Run `work` in one transaction behind the fence. Raises `Fenced` if another runtime took over."""

        def call() -> T:
            with self.store.commit(self.runtime_key) as commit:
                commit.fence()
                return work(commit)

        return self.retry_transient(call)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Read what a decision must know.

        `work` may run several times; it leaves the same in memory each time.
        """

        def call() -> T:
            with self.store.read() as connection:
                return work(connection)

        return self.retry_transient(call, drops=False)

    def read_once(self, work: Callable[[Connection], T]) -> T:
        """Read between two commits. An error is the caller's."""
        with self.store.read() as connection:
            return work(connection)

    # patience

    def retry_transient(self, call: Callable[[], T], *, drops: bool = True) -> T:
        """Repeat a call while its errors pass. `drops`: each try has a new connection for writing.

        Raises `RuntimeShutDownError` when a stop has reached its deadline, and every error that does not
        pass.
        """
        attempt = 0
        while True:
            try:
                return call()
            except Fenced:
                raise
            except Exception as error:
                if classify(error) not in PASSING:
                    raise
                attempt += 1
                if drops:
                    self.store.drop_connection()
                self.pause_after(error, attempt, "the database could not be reached")

    def pause_after(self, error: BaseException, attempt: int, reason: str) -> None:
        """Report a failed try and wait before the next. Raises `RuntimeShutDownError` for `reason`."""
        self.report_failed_try(error, attempt)
        if self.gives_up(PAUSES_S[min(attempt, len(PAUSES_S)) - 1]):
            raise RuntimeShutDownError(f"Runtime is shut down: {reason}") from error

    def report_failed_try(self, error: BaseException, attempt: int) -> None:
        self._facts.report("database.retried", attempt=attempt, error=error)

    def give_up_at(self, deadline_s: float) -> None:
        """A stop waits no longer than this, on `time.monotonic`."""
        self._give_up_at = deadline_s

    def gives_up(self, pause_s: float) -> bool:
        """Wait before another try. Returns True, without waiting, if the stop's deadline would pass."""
        if self._give_up_at is not None and time.monotonic() + pause_s > self._give_up_at:
            return True
        threading.Event().wait(pause_s)
        return False
