"""The rows of jobs, as the store writes them."""

from __future__ import annotations

from routilux.core.mailbox import WorkerCell
from routilux.core.message import Job
from routilux.store.reads.worker_reads import text_of


def new_job(cell: WorkerCell, job: Job) -> tuple[object, ...]:
    return (
        cell.key, job.no, job.job_id, job.flow, job.status, job.open_count, job.metadata, text_of(job.data),
        _statuses(job), job.result, job.error, job.created_at, job.started_at, job.ended_at, job.active_us,
    )  # fmt: skip  # in the order of the columns


def changed_job(cell: WorkerCell, job: Job) -> tuple[object, ...]:
    return (
        cell.key, job.no, job.status, job.open_count, text_of(job.data), _statuses(job), job.result,
        job.error,
        job.started_at, job.ended_at, job.active_us,
    )  # fmt: skip  # in the order of the columns


def _statuses(job: Job) -> str | None:
    if not job.routine_status:
        return None
    return text_of({routine: f'"{status}"' for routine, status in job.routine_status.items()})
