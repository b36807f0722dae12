"""What the commits of a `RoutineTester` have left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from routilux.core import payload
from routilux.core.job_context import JobSnapshot, instant
from routilux.core.message import Job
from routilux.core.outcome import JobEnd, JobIncrement, JobSet, Trace
from routilux.core.states import JobStatus
from routilux.core.worker_state import DetachedState, added
from routilux.engine.clock import SystemClock
from routilux.errors import JobEndedError

now_us = SystemClock().now_us


class Kept(DetachedState):
    """What the commits of a tester have left; the state port and the job port of what it shows."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        self._traces: list[Trace] = []

    # StatePort

    def status(self) -> str:
        return "idle"

    # JobPort

    def job_snapshot(self, job_id: str) -> JobSnapshot | None:
        job = self.job
        if job.job_id != job_id:
            return None
        return JobSnapshot(
            job.job_id,
            job.worker_id,
            job.flow,
            job.status,
            instant(job.created_at),
            instant(job.started_at),
            instant(job.ended_at),
            job.metadata,
            job.data,
            job.error,
            job.result,
        )

    def add_traces(self, traces: Sequence[Trace]) -> None:
        self._traces.extend(traces)

    def job_traces(self, job_id: str) -> list[dict[str, Any]]:
        return [trace.shown() for trace in self._traces]

    def set_job_data(self, job_id: str, key: str, text: str) -> None:
        self.edit_job(JobSet(key, text))

    def increment_job_data(self, job_id: str, key: str, by: float) -> None:
        self.edit_job(JobIncrement(key, by))

    def edit_job(self, edit: JobSet | JobIncrement) -> None:
        before = self.job.data
        text = edit.text if isinstance(edit, JobSet) else added(before.get(edit.key), edit.by)
        self.job.data = {**before, edit.key: text}

    def trace_job(self, job_id: str, routine_id: str, action: str, details: Any) -> None:
        text = None if details is None else payload.encode(details, root="trace.details")
        self._traces.append(Trace("trace", routine_id, action, text, now_us()))

    def complete_job(self, job_id: str, status: str, error: str | None, result: str | None) -> None:
        if self.job.has_ended:
            raise JobEndedError(job_id, str(self.job.status))
        self.end_job(JobEnd(status, error, result))

    def end_job(self, end: JobEnd) -> None:
        job = self.job
        job.status, job.error, job.result, job.ended_at = (
            JobStatus(end.status),
            end.error,
            end.result,
            now_us(),
        )

    def cancel_job(self, job_id: str, reason: str) -> None:
        self.complete_job(job_id, "cancelled", reason or None, None)

    def wait_for_job(self, job_id: str, timeout: float | None) -> bool:
        """Nothing runs between two calls."""
        return self.job.has_ended
