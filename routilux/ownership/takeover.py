"""Take-over: finds runtimes that are dead and takes their workers.

A runtime is dead when its lease has expired, by the database's clock on Postgres and by the host's on
SQLite. There are faster signs. SQLite: the OS lock that its process held is free. Postgres: the backend of
its lease connection is gone. An expired lease is proof only for a runtime that has itself renewed for one
whole lease: after an outage every lease looks expired.
"""

from __future__ import annotations

from typing import Any, Protocol

from routilux.engine.clock import Clock
from routilux.engine.facts import Facts
from routilux.engine.transactions import Transactions
from routilux.ownership.handover import Handover
from routilux.store.types import Connection, Row
from routilux.store.writes import ownership, suspects
from routilux.store.writes.store import Commit


class Signs(Protocol):
    """Signs of life of other runtimes, as the lease of this one knows them."""

    def gone_backends(self, connection: Connection, me: int) -> set[int]: ...
    def is_over(self, row: Row[Any], now: int) -> bool: ...
    def clock_us(self, connection: Connection) -> int: ...


class Takeover:
    """`run_once` declares dead runtimes dead and takes what no runtime owns."""

    def __init__(
        self, transactions: Transactions, handover: Handover, signs: Signs, clock: Clock, facts: Facts
    ) -> None:
        self._transactions = transactions
        self._handover = handover
        self._signs = signs
        self._clock = clock
        self._facts = facts

    def run_once(self) -> int:
        """Returns how many workers were taken."""
        for row in self._suspected():
            if self._declare_dead(row):
                self._facts.report("runtime.taken_over", runtime=row.key, pid=row.pid, host=row.host)
        return self._handover.adopt()

    def _suspected(self) -> list[Row[Any]]:
        """Runtimes that look dead."""
        me = self._transactions.runtime_key
        with self._transactions.store.read() as connection:
            others = ownership.others_alive(connection, me)
            if not others:
                return []
            gone = self._signs.gone_backends(connection, me)
            now = self._signs.clock_us(connection)
        return [row for row in others if row.key in gone or self._signs.is_over(row, now)]

    def _declare_dead(self, row: Row[Any]) -> bool:
        """Lock its row, which waits for its commit in flight; look again; mark it dead.

        Returns whether it was.
        """

        def work(commit: Commit) -> bool:
            connection = commit.connection
            locked = ownership.lock(connection, row.key)
            if locked is None:
                return False
            gone = self._signs.gone_backends(connection, self._transactions.runtime_key)
            if row.key not in gone and not self._signs.is_over(locked, self._signs.clock_us(connection)):
                return False
            declare_dead(connection, row.key, self._clock.now_us())
            return True

        return self._transactions.fenced(work)


def declare_dead(connection: Connection, key: int, now: int) -> None:
    """A runtime is dead from this commit on. What it had in flight is suspect."""
    suspects.mark_in_flight(connection, key, now)
    ownership.mark_runtime_dead(connection, key, now)
