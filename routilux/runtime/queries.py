"""Jobs and dead letters, read for people."""

from __future__ import annotations

from routilux.core.job_context import JobContext
from routilux.core.states import JobStatus
from routilux.runtime.dead_letter import DeadLetter
from routilux.runtime.handles import job_context
from routilux.runtime.host import Host
from routilux.runtime.validation import count
from routilux.store.reads import dead_letter_rows, history
from routilux.store.records import JobRecord


def get_job(host: Host, job_id: str) -> JobContext | None:
    with host.store.read() as connection:
        record = history.job(connection, job_id)
    return None if record is None else _context(host, record)


def _context(host: Host, record: JobRecord) -> JobContext:
    return job_context(host, record.job_id, record.flow_id, record.worker_id)


def list_jobs(
    host: Host, status: str | None, flow: str | None, worker_id: str | None, limit: int, before: str | None
) -> list[JobContext]:
    if status is not None and status not in list(JobStatus):
        raise ValueError(f"status must be one of {', '.join(JobStatus)}, not {status!r}")
    with host.store.read() as connection:
        records = history.jobs(
            connection, status=status, flow=flow, worker_id=worker_id, limit=count(limit), before=before
        )
    return [_context(host, record) for record in records]


def dead_letters(host: Host, flow: str | None, limit: int, before: DeadLetter | None) -> list[DeadLetter]:
    if before is not None and not isinstance(before, DeadLetter):
        raise TypeError(f"before must be a DeadLetter, not {type(before).__name__}")
    key = None if before is None else before.record.key
    with host.store.read() as connection:
        records = dead_letter_rows.dead_letters(connection, flow=flow, limit=count(limit), before=key)
    return [DeadLetter(record, host) for record in records]


def open_jobs(host: Host, worker_id: str) -> list[JobRecord]:
    """Some of the jobs of a worker that have not ended."""
    with host.store.read() as connection:
        return [
            record
            for status in (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.PAUSED)
            for record in history.jobs(
                connection, status=status, flow=None, worker_id=worker_id, limit=500, before=None
            )
        ]
