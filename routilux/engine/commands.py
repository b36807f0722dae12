"""What users and operators ask of workers and jobs. Each takes effect in a group commit of the owner.

The same verbs serve a call in this process (a `Request`) and a row of the inbox (`apply`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Connection, Row

from routilux.core.mailbox import WorkerCell
from routilux.core.message import Job, Message
from routilux.core.states import ENDED_WORKER, JobStatus, MessageStatus, ParkedReason, WorkerStatus
from routilux.engine import acceptance, effects, redelivery, worker_loading
from routilux.engine.batch import Batch
from routilux.engine.inputs import Receipt, SignalIn
from routilux.errors import (
    DeadLetterGoneError,
    JobEndedError,
    JobNotFoundError,
    WorkerEndedError,
    WorkerNotFoundError,
)
from routilux.store.reads import parked_rows, worker_reads

if TYPE_CHECKING:
    from routilux.engine.engine import Engine

Body = dict[str, Any]


def apply(
    engine: Engine, batch: Batch, kind: str, worker_id: str | None, job_id: str | None, body: Body
) -> object:
    """Carry out one verb. Raises the errors that the caller is to see."""
    return _VERBS[kind](engine, batch, worker_id, job_id, body)


def _worker(engine: Engine, worker_id: str | None) -> WorkerCell:
    cell = engine.by_id.get(worker_id or "")
    if cell is None:
        raise WorkerNotFoundError(worker_id)
    return cell


def _job(engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None) -> tuple[WorkerCell, Job]:
    """The live record of a job; loaded if nothing of it is in memory."""
    cell = _worker(engine, worker_id)
    job = batch.posted.get(job_id or "")
    if job is not None and job.worker_id == cell.worker_id:
        return cell, job

    def find(connection: Connection) -> Job:
        row = worker_reads.job_with_id(connection, job_id or "")
        if row is None or row.worker != cell.key:
            raise JobNotFoundError(job_id)
        # an end that is still there is made by this very commit
        return cell.jobs.get(row.job) or worker_loading.load_jobs(connection, cell, {row.job})[row.job]

    return cell, engine.read(find)


def _live_job(
    engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None
) -> tuple[WorkerCell, Job]:
    cell, job = _job(engine, batch, worker_id, job_id)
    if job.has_ended:
        raise JobEndedError(job.job_id, str(job.status))
    return cell, job


def signal(engine: Engine, batch: Batch, entry: SignalIn) -> None:
    """One more message into a running job."""
    try:
        cell, job = _live_job(engine, batch, entry.worker_id, entry.job_id)
        acceptance.add_signal(engine, batch, cell, job, entry.routine, entry.slot, entry.payload)
    except Exception as error:  # told to the caller, who waits on the receipt
        batch.refusals.append((entry.receipt, error))
    else:
        batch.receipts.append((entry.receipt, None))


def _signal(engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None, body: Body) -> None:
    cell, job = _live_job(engine, batch, worker_id, job_id)
    acceptance.add_signal(engine, batch, cell, job, body["routine"], body["slot"], body["payload"])


def _pause_worker(
    engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None, body: Body
) -> None:
    cell = _worker(engine, worker_id)
    if cell.status in ENDED_WORKER:
        raise WorkerEndedError(cell.worker_id, str(cell.status))
    cell.status = WorkerStatus.PAUSED
    _stop_runs(cell)
    worker_loading.write_worker(batch, cell, body.get("reason"))


def _stop_runs(cell: WorkerCell) -> None:
    for routine in cell.routines.values():
        for run in routine.runs:
            run.should_stop = True


def _resume_worker(
    engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None, body: Body
) -> None:
    cell = _worker(engine, worker_id)
    if cell.status in ENDED_WORKER:
        raise WorkerEndedError(cell.worker_id, str(cell.status))
    cell.status = WorkerStatus.RUNNING
    for routine in cell.routines.values():
        engine.note(routine)
    worker_loading.write_worker(batch, cell)


def _cancel_worker(
    engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None, body: Body
) -> None:
    """The worker takes no more; its jobs are cancelled with it."""
    cell = _worker(engine, worker_id)
    for job in list(cell.jobs.values()):
        if not job.has_ended:
            batch.end_job(cell, job, JobStatus.CANCELLED, body.get("reason") or "worker cancelled")
    batch.changes.cancelled_workers.append((cell.key, batch.now, body.get("reason") or "worker cancelled"))
    cell.status = WorkerStatus.CANCELLED
    _stop_runs(cell)
    worker_loading.write_worker(batch, cell, body.get("reason"), ended_at=batch.now)
    batch.after.append(lambda: engine.to_release.append(cell))


def _pause_job(engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None, body: Body) -> None:
    cell, job = _live_job(engine, batch, worker_id, job_id)
    job.status = JobStatus.PAUSED
    job.is_touched = True
    batch.touch(cell, job)
    cell.purge_soon()
    for routine in cell.routines.values():
        engine.note(routine)


def _resume_job(engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None, body: Body) -> None:
    """Its parked messages come back to the end of the line."""
    cell, job = _live_job(engine, batch, worker_id, job_id)
    job.status = JobStatus.RUNNING if job.started_at else JobStatus.PENDING
    job.is_touched = True
    batch.touch(cell, job)

    def find(connection: Connection) -> list[tuple[Row[Any], list[Message]]]:
        rows = parked_rows.of_job(connection, cell.key, job.no, ParkedReason.PAUSED)
        return [
            (row, worker_loading.parked_messages(connection, cell, orjson.loads(row.seqs)))
            for row in [*rows, *parked_rows.of_job(connection, cell.key, 0, ParkedReason.PAUSED)]
            if batch.still_parks(
                cell, row.seq, ParkedReason.PAUSED
            )  # nobody else resumes it with this commit
        ]

    for row, messages in engine.read(find):
        redelivery.bring_back(engine, batch, cell, row, messages)


def _cancel_job(engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None, body: Body) -> None:
    cell, job = _live_job(engine, batch, worker_id, job_id)
    batch.end_job(cell, job, JobStatus.CANCELLED, body.get("reason") or None)


def _complete_job(
    engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None, body: Body
) -> None:
    cell, job = _live_job(engine, batch, worker_id, job_id)
    batch.end_job(cell, job, JobStatus(body["status"]), body.get("error"), body.get("result"))


def _change_data(engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None, body: Body) -> None:
    cell, job = _live_job(engine, batch, worker_id, job_id)
    acceptance.change_data(batch, cell, job, body)


def _replace_state(
    engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None, body: Body
) -> None:
    cell = _worker(engine, worker_id)
    effects.replace_state(batch, cell, body["routine"], body["texts"])
    batch.touch_worker(cell)


def _increment_state(
    engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None, body: Body
) -> None:
    cell = _worker(engine, worker_id)
    effects.increment_state(batch, cell, body["routine"], body["key"], body["by"])
    batch.touch_worker(cell)


def _retry_dead(engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None, body: Body) -> None:
    """A dead letter comes back into line with its attempts at naught; its job is open again."""
    cell = _worker(engine, worker_id)
    if cell.status in ENDED_WORKER:
        raise WorkerEndedError(cell.worker_id, str(cell.status))
    row = _dead_letter(engine, batch, cell, body["seq"])
    status = MessageStatus.DEAD if row.reason == ParkedReason.DEAD else MessageStatus.PARKED
    messages = engine.read(
        lambda connection: worker_loading.parked_messages(connection, cell, orjson.loads(row.seqs), status)
    )
    if body.get("payload") is not None and messages:
        messages[0].payload = _fitted(cell, row.routine, messages[0].slot, body["payload"])
        batch.changes.payloads.append((cell.key, messages[0].seq, messages[0].payload))
    for message in messages:
        if message.job.has_ended:
            _reopen(engine, batch, cell, message.job)
        if status == MessageStatus.DEAD:
            message.job.open_count += 1
            message.job.parked_count += 1
            batch.settle(cell, message.seq, MessageStatus.PARKED)
    redelivery.bring_back(engine, batch, cell, row, messages, attempt=0)


def _fitted(cell: WorkerCell, routine: str, slot: str, text: str) -> str:
    known = routine in cell.routines and slot in cell.routines[routine].slots
    return acceptance.fitted(cell.slot(routine, slot).spec, text) if known else text


def _dead_letter(engine: Engine, batch: Batch, cell: WorkerCell, seq: int) -> Row[Any]:
    """Its row, unless another operator was first (perhaps in this very commit)."""
    row: Row[Any] | None = engine.read(lambda connection: parked_rows.row(connection, cell.key, seq))
    if (
        row is None
        or row.reason not in (ParkedReason.DEAD, ParkedReason.UNROUTABLE)
        or (cell.key, seq) in batch.changes.parked
    ):
        raise DeadLetterGoneError(seq)
    return row


def _reopen(engine: Engine, batch: Batch, cell: WorkerCell, job: Job) -> None:
    job.status = JobStatus.RUNNING
    job.error = job.ended_at = None
    job.active_us = 0  # its time begins anew, or a limit that has passed would end it again before it runs
    job.is_touched = job.has_details = True
    cell.jobs[job.no] = job
    batch.touch(cell, job)


def _drop_dead(engine: Engine, batch: Batch, worker_id: str | None, job_id: str | None, body: Body) -> None:
    """An operator gives a dead letter up: its messages are cancelled, its history stays."""
    cell = _worker(engine, worker_id)
    row = _dead_letter(engine, batch, cell, body["seq"])
    batch.unpark(cell, row.seq)
    batch.miscounted[cell] = None
    for seq in orjson.loads(row.seqs):
        batch.settle(cell, seq, MessageStatus.CANCELLED)


def ask(
    engine: Engine, kind: str, worker_id: str | None, job_id: str | None, body: Body
) -> Callable[[Batch], object]:
    """A verb as the body of a `Request`."""
    return lambda batch: apply(engine, batch, kind, worker_id, job_id, body)


_VERBS: dict[str, Callable[[Any, Batch, str | None, str | None, Body], object]] = {
    "signal": _signal,
    "pause_worker": _pause_worker,
    "resume_worker": _resume_worker,
    "cancel_worker": _cancel_worker,
    "pause_job": _pause_job,
    "resume_job": _resume_job,
    "cancel_job": _cancel_job,
    "complete_job": _complete_job,
    "change_data": _change_data,
    "replace_state": _replace_state,
    "increment_state": _increment_state,
    "retry_dead": _retry_dead,
    "drop_dead": _drop_dead,
}

__all__ = ["Receipt", "apply", "ask", "signal"]
