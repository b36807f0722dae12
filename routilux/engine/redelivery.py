"""Redelivery: what was parked until a time is requeued when that time has come.

Rows are the truth. The owner of a worker reads what is due, in bounded batches, and requeues it with its next
commit. The engine sleeps no longer than until the next is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from routilux.core.mailbox import WorkerCell
from routilux.core.message import Message
from routilux.engine import requeue, worker_loading
from routilux.engine.batch import Batch
from routilux.engine.clock import Clock
from routilux.engine.transactions import Transactions
from routilux.engine.worker_table import WorkerTable
from routilux.store.reads import parked_rows, worker_reads
from routilux.store.types import Connection, Row

BATCH = 500
Found = tuple[WorkerCell, Row[Any], list[Message]]


class Redelivery:
    """Owns what is due and when to look. `asks_database`: the database's clock says what is due."""

    def __init__(
        self, transactions: Transactions, workers: WorkerTable, clock: Clock, *, asks_database: bool
    ) -> None:
        self._transactions = transactions
        self._workers = workers
        self._clock = clock
        self._asks_database = asks_database
        self._found: list[Found] = []  # for the next commit
        self._full: list[int] = []  # workers with enough in memory: their rows wait
        self.next_at: int | None = None
        self.must_look = False

    def expect(self, due_at: int) -> None:
        """Something comes due at this time, µs since 1970."""
        if self.next_at is None or due_at < self.next_at:
            self.next_at = due_at

    def expect_soon(self) -> None:
        """Look as soon as possible."""
        self.must_look = True

    def in_s(self, now: int) -> float | None:
        """Seconds until something is due. Returns None if that is unknown, or a look is wanted already."""
        return None if self.must_look or self.next_at is None else max(0.0, (self.next_at - now) / 1e6)

    def poll(self) -> None:
        """Read what is due, except for workers with enough requeued batches. Call it between two commits."""
        now = self._clock.now_us()
        if self._full and not all(self._is_full(key) for key in self._full):
            self.must_look = True
        if self._found:  # that commit was refused; jobs may have left memory and been read again since
            self._found, self.must_look = [], True
        if not (self.must_look or (self.next_at is not None and self.next_at <= now)):
            return
        self._full = [key for key in self._workers.keys if self._is_full(key)]
        clock = self._transactions.read_once(lambda connection: self._read(connection, now))
        # more than a batch is due, or what was just read is not settled yet
        self.must_look = self.next_at is not None and self.next_at <= clock
        if self.next_at is not None and not self.must_look:  # this clock is a little ahead of the database's
            self.next_at += self._clock.now_us() - clock

    def _read(self, connection: Connection, now: int) -> int:
        """Returns the time by which rows were due."""
        database = self._transactions.store.database
        clock = database.now_us(connection) if self._asks_database else now
        worker_reads.along_keys(connection)
        me = self._transactions.runtime_key
        rows = parked_rows.due(connection, me, clock, BATCH, self._full)
        self._found = self._with_messages(connection, rows)
        self.next_at = parked_rows.next_due_at(connection, me, self._full)
        return clock

    def _with_messages(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[Found]:
        """The rows of loaded workers, each with its messages.

        Read worker by worker: a burst has hundreds of rows.
        """
        by_worker: dict[int, list[tuple[Row[Any], list[int]]]] = {}
        for row in rows:
            by_worker.setdefault(row.worker, []).append((row, orjson.loads(row.seqs)))
        found = []
        for key, some in by_worker.items():
            cell = self._workers.with_key(key)
            if cell is None:
                continue
            seqs = [seq for _, each in some for seq in each]
            messages = {m.seq: m for m in worker_loading.parked_messages(connection, cell, seqs)}
            found += [
                (cell, row, [messages[seq] for seq in sorted(each) if seq in messages]) for row, each in some
            ]
        return found

    def _is_full(self, key: int) -> bool:
        worker = self._workers.with_key(key)
        return worker is not None and worker.rerun_count >= worker_loading.MOST_RERUNS

    def requeue_due(self, batch: Batch) -> None:
        """What was found joins the line with this commit."""
        found, self._found = self._found, []
        for cell, row, messages in found:
            # a worker that was loaded again has other records of these jobs
            if not cell.is_forgotten:
                cell.unpark_timed()
                batch.touch_worker(cell)
                requeue.bring_back(batch, cell, row, messages)
