"""What is behind the `WorkerState` and `JobContext` that a runtime or a client hands out.

Reads show what is committed: one indexed read each. Changes are commands for the owner of the worker.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from routilux.core.job_context import JobContext, JobSnapshot
from routilux.core.worker_state import WorkerState
from routilux.engine.commands import (
    CancelJob,
    Command,
    CompleteJob,
    IncrementJobData,
    IncrementState,
    ReplaceState,
    SetJobData,
)
from routilux.errors import JobNotFoundError, StateError, WorkerNotFoundError
from routilux.runtime.host import Host
from routilux.runtime.stored_history import execution_history, traces
from routilux.runtime.validation import timeout_s
from routilux.store.reads import history, worker_reads
from routilux.store.records import JobRecord
from routilux.store.types import Transaction

PERIOD_S = 0.05


class JobHandle:
    """The job port of everything outside logic."""

    __slots__ = ("_host",)

    def __init__(self, host: Host) -> None:
        self._host = host

    def job_snapshot(self, job_id: str) -> JobSnapshot | None:
        with self._host.store.read() as connection:
            return stored_snapshot(history.job(connection, job_id))

    def job_traces(self, job_id: str) -> list[dict[str, Any]]:
        return traces(self._host.store, job_id)

    def set_job_data(self, job_id: str, key: str, text: str) -> None:
        self._command(SetJobData(self._worker_of(job_id), job_id, key, text))

    def increment_job_data(self, job_id: str, key: str, by: float) -> None:
        self._command(IncrementJobData(self._worker_of(job_id), job_id, key, by))

    def trace_job(self, job_id: str, routine_id: str, action: str, details: Any) -> None:
        raise StateError(
            "job.trace() belongs to logic: outside of it there is no activation that could keep the line"
        )

    def complete_job(self, job_id: str, status: str, error: str | None, result: str | None) -> None:
        self._command(CompleteJob(self._worker_of(job_id), job_id, status, error, result))

    def cancel_job(self, job_id: str, reason: str) -> None:
        self._command(CancelJob(self._worker_of(job_id), job_id, reason))

    def wait_for_job(self, job_id: str, timeout: float | None) -> bool:
        return self._host.wait_for(job_id, timeout)

    def _worker_of(self, job_id: str) -> str | None:
        found = self.job_snapshot(job_id)
        if found is None:
            raise JobNotFoundError(job_id)
        return found.worker_id

    def _command(self, command: Command) -> None:
        self._host.command(command)


class UncommittedJobHandle(JobHandle):
    """The job port of a post in the caller's transaction: `pending` until that ends, then what is stored."""

    __slots__ = ("_pending", "_transaction")

    def __init__(self, host: Host, transaction: Transaction, pending: JobSnapshot) -> None:
        super().__init__(host)
        self._transaction = transaction
        self._pending = pending

    def job_snapshot(self, job_id: str) -> JobSnapshot | None:
        is_open = self._transaction.is_active  # asked first: it may end between the two
        found = super().job_snapshot(job_id)
        return self._pending if found is None and is_open else found

    def wait_for_job(self, job_id: str, timeout: float | None) -> bool:
        wait_s = timeout_s(timeout)
        deadline = None if wait_s is None else time.monotonic() + wait_s
        pause = threading.Event()
        while self._transaction.is_active:
            left = PERIOD_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            pause.wait(min(PERIOD_S, left))
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        return super().wait_for_job(job_id, left_s)


def stored_snapshot(record: JobRecord | None) -> JobSnapshot | None:
    """A history row as the snapshot of a handle. Returns None for None."""
    if record is None:
        return None
    return JobSnapshot(
        record.job_id,
        record.worker_id,
        record.flow_id,
        record.status,
        record.created_at,
        record.started_at,
        record.ended_at,
        record.metadata,
        worker_reads.texts_of(record.data),
        record.error,
        record.result,
    )


class WorkerHandle:
    """The state port of everything outside logic."""

    __slots__ = ("_host", "_worker_id")

    def __init__(self, host: Host, worker_id: str) -> None:
        self._host = host
        self._worker_id = worker_id

    def status(self) -> str:
        live = self._host.live_status(self._worker_id)
        if live is not None:
            return live
        with self._host.store.read() as connection:
            stored = worker_reads.worker_named(connection, self._worker_id)
        if stored is None:
            raise WorkerNotFoundError(self._worker_id)
        return stored.status

    def _states(self) -> dict[str, dict[str, str]]:
        with self._host.store.read() as connection:
            stored = worker_reads.worker_named(connection, self._worker_id)
            return {} if stored is None else worker_reads.state_of(connection, stored.key)

    def read_state(self, routine_id: str) -> dict[str, str] | None:
        return self._states().get(routine_id)

    def state_routines(self) -> list[str]:
        return list(self._states())

    def replace_state(self, routine_id: str, texts: dict[str, str]) -> None:
        self._host.command(ReplaceState(self._worker_id, None, routine_id, texts))

    def increment_state(self, routine_id: str, key: str, by: float) -> None:
        self._host.command(IncrementState(self._worker_id, None, routine_id, key, by))

    def execution_history(self, routine_id: str | None) -> list[dict[str, Any]]:
        return execution_history(self._host.store, self._worker_id, routine_id)


class Posted(tuple[WorkerState | None, JobContext]):
    """`(worker_state, job_context)`; what it does not know itself it asks the job."""

    __slots__ = ()

    @property
    def worker(self) -> WorkerState | None:
        """None until a post in the caller's transaction is accepted."""
        return self[0]

    @property
    def job(self) -> JobContext:
        return self[1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self[1], name)


def job_context(host: Host, job_id: str, flow: str, worker_id: str | None) -> JobContext:
    """The handle of a job."""
    return JobContext(job_id, flow, worker_id, JobHandle(host))


def worker_state(host: Host, flow: str, worker_id: str) -> WorkerState:
    """The handle of a worker."""
    return WorkerState(flow, worker_id, port=WorkerHandle(host, worker_id))


def posted(host: Host, flow: str, worker_id: str | None, job_id: str) -> Posted:
    """What a post returns."""
    worker = None if worker_id is None else worker_state(host, flow, worker_id)
    return Posted((worker, job_context(host, job_id, flow, worker_id)))


__all__ = ["JobHandle", "Posted", "WorkerHandle", "job_context", "posted", "stored_snapshot", "worker_state"]
