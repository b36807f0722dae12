"""Carries commands out, in a group commit of the worker's owner.

The same handlers serve a call of this process and a row of the inbox.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from routilux.core.mailbox import WorkerCell
from routilux.core.message import Job, Message
from routilux.core.outcome import JobIncrement, JobSet
from routilux.core.states import ENDED_WORKER, JobStatus, MessageStatus, ParkedReason, WorkerStatus
from routilux.engine import acceptance, commands, effects, requeue, worker_loading
from routilux.engine.batch import Batch
from routilux.engine.commands import Command
from routilux.engine.transactions import Transactions
from routilux.engine.worker_table import WorkerTable
from routilux.errors import (
    DeadLetterGoneError,
    JobEndedError,
    JobNotFoundError,
    WorkerEndedError,
    WorkerNotFoundError,
)
from routilux.store.reads import parked_rows, worker_reads
from routilux.store.types import Connection, Row


class CommandHandlers:
    """`carry_out` a command in a batch.

    Owns nothing; it finds workers and jobs and changes them by their verbs.
    """

    def __init__(self, transactions: Transactions, workers: WorkerTable) -> None:
        self._transactions = transactions
        self._workers = workers
        self._handlers: dict[str, Callable[[Batch, Any], None]] = {
            "signal": self._signal,
            "pause_worker": self._pause_worker,
            "resume_worker": self._resume_worker,
            "cancel_worker": self._cancel_worker,
            "pause_job": self._pause_job,
            "resume_job": self._resume_job,
            "cancel_job": self._cancel_job,
            "complete_job": self._complete_job,
            "change_data": self._change_data,
            "replace_state": self._replace_state,
            "increment_state": self._increment_state,
            "retry_dead": self._retry_dead_letter,
            "drop_dead": self._drop_dead_letter,
        }

    def carry_out(self, batch: Batch, command: Command) -> None:
        """Raises the errors that the caller is to see."""
        self._handlers[command.kind](batch, command)

    # finding what a command is about

    def _worker(self, command: Command) -> WorkerCell:
        cell = self._workers.get(command.worker_id or "")
        if cell is None:
            raise WorkerNotFoundError(command.worker_id)
        return cell

    def _live_worker(self, command: Command) -> WorkerCell:
        cell = self._worker(command)
        if cell.status in ENDED_WORKER:
            raise WorkerEndedError(cell.worker_id, str(cell.status))
        return cell

    def _job(self, batch: Batch, command: Command) -> tuple[WorkerCell, Job]:
        """The live record of a job; loaded if nothing of it is in memory."""
        cell, job_id = self._worker(command), command.job_id
        job = batch.posted.get(job_id or "")
        if job is not None and job.worker_id == cell.worker_id:
            return cell, job

        def find(connection: Connection) -> Job:
            row = worker_reads.job_with_id(connection, job_id or "")
            if row is None or row.worker != cell.key:
                raise JobNotFoundError(job_id)
            # an ended job that is still in memory is ended by this very commit
            return cell.jobs.get(row.job) or worker_loading.load_jobs(connection, cell, {row.job})[row.job]

        return cell, self._transactions.read(find)

    def _live_job(self, batch: Batch, command: Command) -> tuple[WorkerCell, Job]:
        cell, job = self._job(batch, command)
        if job.has_ended:
            raise JobEndedError(job.job_id, str(job.status))
        return cell, job

    # workers

    def _pause_worker(self, batch: Batch, command: commands.PauseWorker) -> None:
        cell = self._live_worker(command)
        cell.set_status(WorkerStatus.PAUSED)
        cell.stop_runs()
        batch.write_worker(cell, command.reason)

    def _resume_worker(self, batch: Batch, command: commands.ResumeWorker) -> None:
        cell = self._live_worker(command)
        cell.set_status(WorkerStatus.RUNNING)
        _wake(batch, cell)
        batch.write_worker(cell)

    def _cancel_worker(self, batch: Batch, command: commands.CancelWorker) -> None:
        cell = self._worker(command)
        reason = command.reason or "worker cancelled"
        for job in list(cell.jobs.values()):
            if not job.has_ended:
                batch.end_job(cell, job, JobStatus.CANCELLED, reason)
        batch.changes.cancelled_workers.append((cell.key, batch.now, reason))
        cell.set_status(WorkerStatus.CANCELLED)
        cell.stop_runs()
        batch.write_worker(cell, command.reason, ended_at=batch.now)
        batch.after_commit.append(partial(self._workers.release_later, cell))

    # jobs

    def _signal(self, batch: Batch, command: commands.Signal) -> None:
        cell, job = self._live_job(batch, command)
        acceptance.add_signal(batch, cell, job, command.routine, command.slot, command.payload)

    def _pause_job(self, batch: Batch, command: commands.PauseJob) -> None:
        cell, job = self._live_job(batch, command)
        job.pause()
        batch.touch(cell, job)
        cell.purge_soon()
        _wake(batch, cell)

    def _resume_job(self, batch: Batch, command: commands.ResumeJob) -> None:
        cell, job = self._live_job(batch, command)
        job.resume()
        batch.touch(cell, job)

        def find(connection: Connection) -> list[tuple[Row[Any], list[Message]]]:
            rows = parked_rows.of_job(connection, cell.key, job.no, ParkedReason.PAUSED)
            return [
                (row, worker_loading.parked_messages(connection, cell, orjson.loads(row.seqs)))
                for row in [*rows, *parked_rows.of_job(connection, cell.key, 0, ParkedReason.PAUSED)]
                # two resumes in one commit bring it back once
                if batch.still_parks(cell, row.seq, ParkedReason.PAUSED)
            ]

        for row, messages in self._transactions.read(find):
            requeue.bring_back(batch, cell, row, messages)

    def _cancel_job(self, batch: Batch, command: commands.CancelJob) -> None:
        cell, job = self._live_job(batch, command)
        batch.end_job(cell, job, JobStatus.CANCELLED, command.reason or None)

    def _complete_job(self, batch: Batch, command: commands.CompleteJob) -> None:
        cell, job = self._live_job(batch, command)
        batch.end_job(cell, job, JobStatus(command.status), command.error, command.result)

    def _change_data(self, batch: Batch, command: commands.SetJobData | commands.IncrementJobData) -> None:
        cell, job = self._live_job(batch, command)
        edit: JobSet | JobIncrement
        if isinstance(command, commands.SetJobData):
            edit = JobSet(command.key, command.text)
        else:
            edit = JobIncrement(command.key, command.by)
        effects.change_job(batch, cell, job, edit)

    # state

    def _replace_state(self, batch: Batch, command: commands.ReplaceState) -> None:
        cell = self._worker(command)
        effects.replace_state(batch, cell, command.routine, command.texts)
        batch.touch_worker(cell)

    def _increment_state(self, batch: Batch, command: commands.IncrementState) -> None:
        cell = self._worker(command)
        effects.increment_state(batch, cell, command.routine, command.key, command.by)
        batch.touch_worker(cell)

    # dead letters

    def _retry_dead_letter(self, batch: Batch, command: commands.RetryDeadLetter) -> None:
        cell = self._live_worker(command)
        row = self._dead_letter(batch, cell, command.seq)
        status = MessageStatus.DEAD if row.reason == ParkedReason.DEAD else MessageStatus.PARKED
        messages = self._transactions.read(
            lambda connection: worker_loading.parked_messages(
                connection, cell, orjson.loads(row.seqs), status
            )
        )
        if command.payload is not None and messages:
            messages[0].payload = _fitted(cell, row.routine, messages[0].slot, command.payload)
            batch.changes.payloads.append((cell.key, messages[0].seq, messages[0].payload))
        for message in messages:
            if message.job.has_ended:
                _reopen(batch, cell, message.job)
            if status == MessageStatus.DEAD:
                message.job.add_message()
                message.job.park_message()
                batch.settle(cell, message.seq, MessageStatus.PARKED)
        requeue.bring_back(batch, cell, row, messages, attempt=0)

    def _drop_dead_letter(self, batch: Batch, command: commands.DropDeadLetter) -> None:
        cell = self._worker(command)
        row = self._dead_letter(batch, cell, command.seq)
        batch.unpark(cell, row.seq)
        batch.miscounted[cell] = None
        for seq in orjson.loads(row.seqs):
            batch.settle(cell, seq, MessageStatus.CANCELLED)

    def _dead_letter(self, batch: Batch, cell: WorkerCell, seq: int) -> Row[Any]:
        """Its row.

        Raises `DeadLetterGoneError` if another operator was first, perhaps in this very commit.
        """
        row: Row[Any] | None = self._transactions.read(
            lambda connection: parked_rows.row(connection, cell.key, seq)
        )
        if (
            row is None
            or row.reason not in (ParkedReason.DEAD, ParkedReason.UNROUTABLE)
            or (cell.key, seq) in batch.changes.parked
        ):
            raise DeadLetterGoneError(seq)
        return row


def _wake(batch: Batch, cell: WorkerCell) -> None:
    for routine in cell.routines.values():
        batch.mark_ready(routine)


def _fitted(cell: WorkerCell, routine: str, slot: str, text: str) -> str:
    is_known = routine in cell.routines and slot in cell.routines[routine].slots
    return acceptance.fitted(cell.slot(routine, slot).spec, text) if is_known else text


def _reopen(batch: Batch, cell: WorkerCell, job: Job) -> None:
    job.reopen()
    cell.jobs[job.no] = job
    batch.touch(cell, job)
