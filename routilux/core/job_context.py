"""`JobContext`: what users see of a job. They get it from `post`, from `get_job`, and inside logic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from routilux.core import payload
from routilux.core.names import check_key, check_number
from routilux.core.states import ENDED_JOB, JobStatus
from routilux.errors import JobFailedError, JobNotFoundError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(us: int | None) -> datetime | None:
    """Convert microseconds since 1970 to an aware datetime in UTC."""
    return None if us is None else _EPOCH + timedelta(microseconds=us)


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A job at one moment. JSON columns are texts."""

    job_id: str
    worker_id: str | None
    flow_id: str
    status: str
    created_at: datetime | None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    metadata: str | None = None
    data: Mapping[str, str] | None = None
    error: str | None = None
    result: str | None = None


class JobPort(Protocol):
    """Where a `JobContext` reads and writes."""

    def job_snapshot(self, job_id: str) -> JobSnapshot | None: ...
    def job_traces(self, job_id: str) -> list[dict[str, Any]]: ...
    def set_job_data(self, job_id: str, key: str, text: str) -> None: ...
    def increment_job_data(self, job_id: str, key: str, by: float) -> None: ...
    def trace_job(self, job_id: str, routine_id: str, action: str, details: Any) -> None: ...
    def complete_job(self, job_id: str, status: str, error: str | None, result: str | None) -> None: ...
    def cancel_job(self, job_id: str, reason: str) -> None: ...
    def wait_for_job(self, job_id: str, timeout: float | None) -> bool: ...


class JobContext:
    """One request on its way through one worker.

    Reads return the latest value: from memory for a live job of this runtime, else from one indexed read.
    Inside logic, changes are part of the activation.
    """

    __slots__ = ("_port", "flow_id", "job_id", "worker_id")

    def __init__(self, job_id: str, flow_id: str, worker_id: str | None, port: JobPort) -> None:
        self.job_id = job_id
        self.flow_id = flow_id
        self.worker_id = worker_id
        self._port = port

    def __repr__(self) -> str:
        return f"<JobContext {self.job_id} of flow {self.flow_id!r}>"

    def _now(self) -> JobSnapshot:
        found = self._port.job_snapshot(self.job_id)
        if found is None:
            raise JobNotFoundError(self.job_id)
        if self.worker_id is None:
            self.worker_id = found.worker_id
        return found

    @property
    def status(self) -> str:
        """`pending running paused completed failed cancelled`."""
        return str(self._now().status)

    @property
    def created_at(self) -> datetime | None:
        return self._now().created_at

    @property
    def started_at(self) -> datetime | None:
        return self._now().started_at

    @property
    def completed_at(self) -> datetime | None:
        """When the job ended: completed, failed or cancelled."""
        return self._now().ended_at

    @property
    def metadata(self) -> dict[str, Any]:
        text = self._now().metadata
        return {} if text is None else dict(payload.decode(text))

    @property
    def data(self) -> dict[str, Any]:
        """A copy of the values from `set_data` and `increment`."""
        return {key: payload.decode(text) for key, text in (self._now().data or {}).items()}

    @property
    def error(self) -> str | None:
        return self._now().error

    @property
    def trace_log(self) -> list[dict[str, Any]]:
        """The trace entries, oldest first: `{"timestamp", "routine_id", "action", "details"}`."""
        return self._port.job_traces(self.job_id)

    def is_running(self) -> bool:
        return self.status in (JobStatus.PENDING, JobStatus.RUNNING)

    def is_paused(self) -> bool:
        return self.status == JobStatus.PAUSED

    def is_completed(self) -> bool:
        return self.status == JobStatus.COMPLETED

    def is_cancelled(self) -> bool:
        return self.status == JobStatus.CANCELLED

    def set_data(self, key: str, value: Any) -> None:
        """Store a JSON value with the job. Raises `PayloadError` with the path of a bad value."""
        check_key(key, "key")
        self._port.set_job_data(self.job_id, key, payload.encode(value, root=f"data.{key}"))

    def get_data(self, key: str, default: Any = None) -> Any:
        """Return a copy of a stored value, or `default` if there is none."""
        text = (self._now().data or {}).get(key)
        return default if text is None else payload.decode(text)

    def increment(self, key: str, by: float = 1) -> None:
        """Add `by` to a number in the job's data. A missing key counts as 0. Exact at any concurrency."""
        check_key(key, "key")
        check_number(by)
        self._port.increment_job_data(self.job_id, key, by)

    def trace(self, routine_id: str, action: str, details: Any = None) -> None:
        """Add an entry to the trace log of this job. It is kept even when the activation fails."""
        self._port.trace_job(self.job_id, routine_id, action, details)

    def complete(self, status: str = "completed", error: str | None = None, result: Any = None) -> None:
        """End the job now. Its waiting messages are cancelled.

        `status` is `completed`, `failed` or `cancelled`. Inside logic it takes effect with the activation's
        commit. Outside logic it is durable on return. Raises `JobEndedError` if the job has already ended,
        `ValueError` for another status.
        """
        if status not in ENDED_JOB:
            raise ValueError(f"status must be completed, failed or cancelled, not {status!r}")
        if error is not None and not isinstance(error, str):
            raise TypeError(f"error must be a string, not {type(error).__name__}")
        text = None if result is None else payload.encode(result, root="result")
        self._port.complete_job(self.job_id, status, error, text)

    def cancel(self, reason: str = "") -> None:
        """End the job as cancelled. Running logic finishes, and its outcome is recorded as discarded."""
        self._port.cancel_job(self.job_id, reason)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended. Returns False after `timeout` seconds; a timeout raises nothing.

        Keeps waiting while the database does not answer. Raises `DatabaseUnavailableError` if it still does
        not answer after `timeout`.
        """
        return self._port.wait_for_job(self.job_id, timeout)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end, and return the result that `complete(result=…)` stored, or None.

        Raises `TimeoutError` after `timeout` seconds, `JobFailedError` if the job failed or was cancelled.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"job {self.job_id} has not ended after {timeout} s")
        end = self._now()
        if end.status != JobStatus.COMPLETED:
            raise JobFailedError(self.job_id, end.error or end.status)
        return None if end.result is None else payload.decode(end.result)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of job_id, worker_id, flow_id, status, times, metadata, data, error, trace_log."""
        now = self._now()
        return {
            "job_id": self.job_id,
            "worker_id": now.worker_id,
            "flow_id": now.flow_id,
            "status": str(now.status),
            "created_at": now.created_at,
            "started_at": now.started_at,
            "completed_at": now.ended_at,
            "metadata": self.metadata,
            "data": self.data,
            "error": now.error,
            "trace_log": self.trace_log,
        }
