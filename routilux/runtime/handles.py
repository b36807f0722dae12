"""What is behind the `WorkerState` and `JobContext` that a runtime or a client hands out.

Reads show what is committed: one indexed read each. Changes go through
the owner: a request to the engine of this process, or a row of the inbox.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol

from sqlalchemy import Transaction

from routilux.core import payload
from routilux.core.job_context import JobSnapshot
from routilux.errors import JobNotFoundError, StateError, WorkerNotFoundError
from routilux.runtime.validation import timeout_s
from routilux.store.reads import history, worker_reads
from routilux.store.records import JobRecord
from routilux.store.writes.store import Store

PERIOD_S = 0.05


class Host(Protocol):
    """The runtime or client that a handle belongs to."""

    store: Store

    def now_us(self) -> int: ...
    def live_status(self, worker_id: str) -> str | None: ...
    def control(self, kind: str, worker_id: str | None, job_id: str | None, body: dict[str, Any]) -> None: ...
    def wait_for(self, job_id: str, timeout: float | None) -> bool: ...
    def encode(self, flow: str, routine: str, slot: str, data: Any, root: str) -> str: ...


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
        self._ask("change_data", job_id, {"key": key, "text": text})

    def increment_job_data(self, job_id: str, key: str, by: float) -> None:
        self._ask("change_data", job_id, {"key": key, "by": by})

    def trace_job(self, job_id: str, routine_id: str, action: str, details: Any) -> None:
        raise StateError(
            "job.trace() belongs to logic: outside of it there is no activation that could keep the line"
        )

    def complete_job(self, job_id: str, status: str, error: str | None, result: str | None) -> None:
        self._ask("complete_job", job_id, {"status": status, "error": error, "result": result})

    def cancel_job(self, job_id: str, reason: str) -> None:
        self._ask("cancel_job", job_id, {"reason": reason})

    def wait_for_job(self, job_id: str, timeout: float | None) -> bool:
        return self._host.wait_for(job_id, timeout)

    def _ask(self, kind: str, job_id: str, body: dict[str, Any]) -> None:
        found = self.job_snapshot(job_id)
        if found is None:
            raise JobNotFoundError(job_id)
        self._host.control(kind, found.worker_id, job_id, body)


class UncommittedJobHandle(JobHandle):
    """The job port of a post in the caller's transaction: `pending` until that ends, then whatever is stored."""

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
        return super().wait_for_job(
            job_id, None if deadline is None else max(0.0, deadline - time.monotonic())
        )


def stored_snapshot(record: JobRecord | None) -> JobSnapshot | None:
    """A history row as the snapshot of a handle."""
    if record is None:
        return None
    return JobSnapshot(
        record.job_id, record.worker_id, record.flow_id, record.status, record.created_at, record.started_at,
        record.ended_at, record.metadata, worker_reads.texts_of(record.data), record.error, record.result,
    )  # fmt: skip


def traces(store: Store, job_id: str) -> list[dict[str, Any]]:
    """The committed trace lines of a job, oldest first."""
    with store.read() as connection:
        return [
            {
                "timestamp": line.at.timestamp(),
                "routine_id": line.routine_id,
                "action": line.action,
                "details": None if line.details is None else payload.decode(line.details),
            }
            for line in history.traces(connection, job_id)
            if line.kind == "trace"
        ]


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
        self._host.control("replace_state", self._worker_id, None, {"routine": routine_id, "texts": texts})

    def increment_state(self, routine_id: str, key: str, by: float) -> None:
        self._host.control(
            "increment_state", self._worker_id, None, {"routine": routine_id, "key": key, "by": by}
        )

    def execution_history(self, routine_id: str | None) -> list[dict[str, Any]]:
        return execution_history(self._host.store, self._worker_id, routine_id)


def execution_history(store: Store, worker_id: str, routine_id: str | None) -> list[dict[str, Any]]:
    """The last activations of a worker, oldest first."""
    with store.read() as connection:
        rows = history.activations(connection, worker_id, routine=routine_id, limit=1000)[::-1]
    return [
        {
            "routine_id": row.routine_id,
            "job_id": row.job_id,
            "attempt": row.attempt,
            "status": row.status,
            "started_at": row.started_at.timestamp(),
            "ended_at": row.ended_at.timestamp(),
            "error": row.error,
        }
        for row in rows
    ]


__all__ = ["Host", "JobHandle", "WorkerHandle", "execution_history", "stored_snapshot", "traces"]
