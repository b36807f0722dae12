"""Counters of what waits and what is parked: counted in memory, written about once a second.

A start reads only what waits, and posts from other processes learn from the counters whether there is room.
What only the database can count is counted there, after the commit.
"""

from __future__ import annotations

from collections.abc import Iterable

from routilux.core.mailbox import WorkerCell
from routilux.core.run import Run
from routilux.core.states import ENDED_WORKER
from routilux.engine.batch import Batch
from routilux.engine.counter_rows import write_slots
from routilux.engine.transactions import Transactions
from routilux.engine.worker_table import WorkerTable
from routilux.store.reads import parked_rows

SLOTS_EVERY_US = 1_000_000


class Counters:
    """Owns which counters are to be written, and which are to be counted again."""

    def __init__(self, transactions: Transactions, workers: WorkerTable) -> None:
        self._transactions = transactions
        self._workers = workers
        self._uncounted: dict[WorkerCell, None] = {}  # did something since their counters were written
        self._miscounted: dict[WorkerCell, None] = {}  # only SQL can count what is parked of them
        self._looked_at = 0

    def write_later(self, workers: Iterable[WorkerCell]) -> None:
        """The counters of these workers are behind."""
        self._uncounted.update(dict.fromkeys(workers))

    def write_soon(self, worker: WorkerCell) -> None:
        """A commit with its counters was refused: write them with the next."""
        self._uncounted[worker] = None
        worker.refresh_at(0)

    def flush(self, batch: Batch) -> None:
        """About once a second, write the counters of workers that did something.

        Once more when they are done.
        """
        behind = self._uncounted
        is_first = False
        for worker in batch.workers.values():
            behind[worker] = None
            is_first = is_first or not worker.refreshed_at
        if not is_first and 0 <= batch.now - self._looked_at < SLOTS_EVERY_US // 4:  # there may be thousands
            return
        self._looked_at = batch.now
        for worker in list(behind):
            if not 0 <= batch.now - worker.refreshed_at < SLOTS_EVERY_US:  # below 0: the clock was set back
                del behind[worker]
                if self._workers.with_key(worker.key) is worker and worker.status not in ENDED_WORKER:
                    worker.refresh_at(batch.now)
                    write_slots(batch, worker)
                    batch.write_worker(worker)

    def delivered(self, batch: Batch, runs: Iterable[Run]) -> None:
        """After a commit: messages that ended jobs took along wait no more. `runs`: what is under way."""
        self._miscounted |= batch.miscounted
        if not batch.changes.swept_counts:
            return
        for key, routine, slot, count in batch.changes.swept_counts:
            cell = self._workers.with_key(key)
            if cell is not None and routine in cell.routines and slot in cell.routines[routine].slots:
                cell.slot(routine, slot).leave(count)
                self._uncounted[cell] = None
        ended = set(batch.ended_jobs)
        for run in runs:  # their messages leave with their outcome
            for activation in run.unsettled if not run.cell.worker.is_forgotten else ():
                for message in activation.messages if activation.rerun is None else ():
                    if message.job in ended:
                        self._uncounted[run.cell.worker] = None
                        run.cell.slots[message.slot].leave(-1)

    def recount(self) -> None:
        """Count in the database what only it can count. Call it between two commits."""
        if self._miscounted:
            with self._transactions.store.read() as connection:
                for cell in self._miscounted:
                    cell.recount(*parked_rows.counts(connection, cell.key))
            self._miscounted = {}
