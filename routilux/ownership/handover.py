"""Starts workers, resumes and takes them, and gives them back.

It runs in the engine's thread between two commits, in fenced transactions of its own. Each verb can be
repeated: after a lost answer the same call finds what the first one did.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from routilux.core.mailbox import WorkerCell
from routilux.core.states import ENDED_WORKER, WorkerStatus
from routilux.engine.clock import Clock
from routilux.engine.ids import new_id
from routilux.engine.transactions import Transactions
from routilux.engine.worker_table import WorkerTable
from routilux.errors import WorkerEndedError, WorkerNotFoundError
from routilux.store.reads import worker_reads
from routilux.store.writes import ownership
from routilux.store.writes.store import Commit

MOST = 100
CLOSE_AFTER_S = 5.0  # the next post may be on its way


class Registration(Protocol):
    """The lease of this runtime."""

    def drop_sign(self) -> None: ...
    def register(self) -> int: ...


class Handover:
    """Starts, takes and releases workers. Owns which definitions this runtime has published."""

    def __init__(
        self, transactions: Transactions, workers: WorkerTable, clock: Clock, lease: Registration
    ) -> None:
        self._transactions = transactions
        self._workers = workers
        self._flows = workers.flows
        self._clock = clock
        self._lease = lease
        self._published: dict[str, str] = {}  # flow -> hash of the definition that is in the database
        self._closed_at = float("-inf")  # when it looked for finished workers last

    # this runtime

    def come_back(self) -> None:
        """Register this runtime under a new key. Durable on return."""
        self._lease.drop_sign()
        self._transactions.become(self._lease.register())

    def publish(self) -> None:
        """Store the definitions that are registered here. Clients check their posts against them."""
        for name in self._flows.names():
            digest, definition = self._flows.definition(name)
            if self._published.get(name) != digest:
                now = self._clock.now_us()
                self._transactions.fenced(
                    partial(_save_flow, flow=name, digest=digest, definition=definition, now=now)
                )
                self._published[name] = digest

    # workers that somebody asks for

    def start(
        self, flow: str, worker_id: str, *, is_named: bool, state: dict[str, dict[str, str]]
    ) -> WorkerCell | None:
        """Start a worker with its first state.

        Returns None if another runtime has just made it under that name.
        """
        digest, definition = self._flows.definition(flow)
        now, me = self._clock.now_us(), self._transactions.runtime_key

        def work(commit: Commit) -> bool:
            connection = commit.connection
            ownership.save_flow(connection, flow, digest, definition, now)
            ownership.create_worker(connection, worker_id, flow, digest, me, now, is_named=is_named)
            stored = worker_reads.worker_named(connection, worker_id)
            assert stored is not None
            if stored.owner != me:  # it lost the race for the name; the owner runs it
                return False
            if not worker_reads.state_of(connection, stored.key):
                ownership.save_state(connection, stored.key, list(_state_rows(state)))
            return True

        if self._transactions.fenced(work):
            cell: WorkerCell | None = self._workers.load_named(worker_id)
        else:
            cell = self.resume(worker_id, is_named=is_named)
        if cell is not None:
            self._workers.prefer(cell)
        return cell

    def resume(self, worker_id: str, *, is_named: bool = False) -> WorkerCell | None:
        """Run a known worker again. Returns None if it lives in another runtime.

        `is_named`: somebody started it by its name: it stays when its work is done, and is the newest of its
        flow. Raises `WorkerEndedError` if it was cancelled or has failed.
        """
        cell = self._workers.get(worker_id) or self._reopen(worker_id)
        if cell is not None and is_named:
            self._workers.prefer(cell)
            if not cell.is_named:
                key = cell.key
                self._transactions.fenced(lambda commit: ownership.name_worker(commit.connection, key))
                cell.name()
        return cell

    def _reopen(self, worker_id: str) -> WorkerCell | None:
        me = self._transactions.runtime_key

        def work(commit: Commit) -> bool:
            connection = commit.connection
            stored = worker_reads.worker_named(connection, worker_id)
            if stored is None:
                raise WorkerNotFoundError(worker_id)
            if stored.status in (WorkerStatus.CANCELLED, WorkerStatus.FAILED):
                raise WorkerEndedError(worker_id, stored.status)
            if not ownership.take(connection, stored.key, me):
                return False
            digest, definition = self._flows.definition(stored.flow)
            ownership.save_flow(connection, stored.flow, digest, definition, self._clock.now_us())
            ownership.reopen_worker(connection, stored.key, digest)
            return True

        return self._workers.load_named(worker_id) if self._transactions.fenced(work) else None

    # workers that no runtime owns

    def adopt(self) -> int:
        """Take workers of known flows that no runtime owns, at most `MOST`. Returns how many."""
        names = self._flows.names()

        def call() -> list[int]:
            with self._transactions.store.read() as connection:
                return ownership.ownerless(connection, names, self._clock.now_us(), MOST)

        taken = [key for key in self._transactions.retry_transient(call) if self._take(key)]
        for key in taken:
            self._workers.load_taken(key)
        return len(taken)

    def _take(self, key: int) -> bool:
        me = self._transactions.runtime_key
        return self._transactions.fenced(lambda commit: ownership.take(commit.connection, key, me))

    def serve_flows(self, flows: set[str]) -> None:
        """Rows of the inbox need a worker of these flows: start one where there is none here."""
        for flow in sorted(flows):
            if self._workers.newest_of(flow) is None:
                started = self.start(flow, new_id(), is_named=False, state={})
                if started is not None:
                    self._workers.keep(started.worker_id)

    def serve_workers(self, worker_ids: set[str]) -> None:
        """Rows of the inbox need these workers: take those that no runtime owns."""
        for worker_id in sorted(worker_ids):
            if self._workers.get(worker_id) is None:
                try:
                    self.resume(worker_id)
                except WorkerEndedError:
                    self._receive(worker_id)
                except WorkerNotFoundError as error:
                    self._transactions.report_failed_try(error, 1)

    def _receive(self, worker_id: str) -> None:
        """Take a worker that has ended, to refuse what has arrived for it since.

        Otherwise it would stay in the inbox.
        """
        me = self._transactions.runtime_key

        def work(commit: Commit) -> bool:
            stored = worker_reads.worker_named(commit.connection, worker_id)
            return stored is not None and ownership.take(commit.connection, stored.key, me)

        if self._transactions.fenced(work):
            self._workers.load_named(worker_id)

    # giving back

    def close_finished(self) -> None:
        """Release cancelled workers, and recovered workers without a name whose work is done."""
        for cell in self._workers.take_released():
            if not cell.is_forgotten:  # it may have been cancelled twice
                self.release(cell)
        now = self._clock.monotonic()
        # with thousands of workers this loop is slow
        if now - self._closed_at < CLOSE_AFTER_S / 4:
            return
        self._closed_at = now
        for cell in list(self._workers):
            if cell.is_named or cell.worker_id in self._workers.kept or cell.status != WorkerStatus.RUNNING:
                continue
            if cell.idle_for(now) >= CLOSE_AFTER_S:
                self.release(cell)

    def release_all(self) -> None:
        for cell in list(self._workers):
            self.release(cell)

    def release(self, cell: WorkerCell) -> None:
        """Give a worker back. Without work it is idle if somebody named it, else completed."""
        if cell.has_work or cell.status == WorkerStatus.PAUSED:
            status = WorkerStatus.PAUSED if cell.status == WorkerStatus.PAUSED else WorkerStatus.PENDING
        else:
            status = WorkerStatus.IDLE if cell.is_named else WorkerStatus.COMPLETED
        if cell.status in ENDED_WORKER:
            status = WorkerStatus(cell.status)
        self._workers.forget(cell)
        now, me = self._clock.now_us(), self._transactions.runtime_key
        has_ended = status == WorkerStatus.COMPLETED
        self._transactions.fenced(
            lambda commit: ownership.release(
                commit.connection, cell.key, me, status, now, has_ended=has_ended
            )
        )


def _save_flow(commit: Commit, *, flow: str, digest: str, definition: str, now: int) -> None:
    ownership.save_flow(commit.connection, flow, digest, definition, now)


def _state_rows(state: dict[str, dict[str, str]]) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for routine, texts in state.items():
        rows.extend((routine, key, text) for key, text in texts.items())
        if not texts:
            rows.append((routine, "", ""))
    return rows
