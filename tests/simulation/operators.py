"""More engines that are broken on purpose: in commands for workers and in time limits of jobs."""

from __future__ import annotations

from typing import Any

import pytest

from routilux.core.states import ENDED_WORKER, JobStatus, WorkerStatus
from routilux.engine import acceptance, job_timeouts, scheduler, worker_loading
from routilux.engine.batch import Batch
from routilux.engine.command_handlers import CommandHandlers
from routilux.engine.job_timeouts import JobTimeouts
from routilux.engine.worker_table import WorkerTable
from routilux.ownership.handover import Handover


def dispatches_though_paused(patch: pytest.MonkeyPatch) -> None:
    """What is ready runs, even if its worker is paused."""
    patch.setattr(
        scheduler,
        "may_run",
        lambda cell: (
            not cell.worker.is_forgotten
            and cell.worker.status != WorkerStatus.CANCELLED
            and cell.can_run
            and len(cell.runs) < cell.compiled.concurrency
        ),
    )


def pause_is_forgotten_on_take_over(patch: pytest.MonkeyPatch) -> None:
    """A worker that is loaded runs."""
    load = WorkerTable.load

    def running(self: WorkerTable, connection: Any, stored: Any) -> Any:
        cell = load(self, connection, stored)
        cell.set_status(WorkerStatus.RUNNING)
        return cell

    patch.setattr(WorkerTable, "load", running)


def runs_go_on_in_a_pause(patch: pytest.MonkeyPatch) -> None:
    """A run that was handed out before the pause runs all its activations."""

    def pause(self: Any, batch: Batch, command: Any) -> None:
        cell = self._worker(command)
        cell.set_status(WorkerStatus.PAUSED)
        batch.write_worker(cell)

    patch.setattr(CommandHandlers, "_pause_worker", pause)


def resumes_what_is_ready_only(patch: pytest.MonkeyPatch) -> None:
    """A resumed worker looks at its waiting messages only when another one comes in."""

    def resume(self: Any, batch: Batch, command: Any) -> None:
        cell = self._worker(command)
        cell.set_status(WorkerStatus.RUNNING)
        batch.write_worker(cell)

    patch.setattr(CommandHandlers, "_resume_worker", resume)


def counts_time_in_which_a_job_cannot_run(patch: pytest.MonkeyPatch) -> None:
    """A job is at work from its first activation to its end, even while it is paused or waits for a retry."""
    patch.setattr(
        job_timeouts,
        "_is_at_work",
        lambda worker, job, begun: job.ended_at is None and (job in begun or job.started_at is not None),
    )


def counts_time_before_logic_begins(patch: pytest.MonkeyPatch) -> None:
    """A job that starts between two looks is at work since the first look. (This simulation found it.)"""
    begun = job_timeouts._begun
    patch.setattr(job_timeouts, "_begun", lambda runs: dict.fromkeys(begun(runs), float("-inf")))


def counts_what_is_over_until_its_thread_is_back(patch: pytest.MonkeyPatch) -> None:
    """An activation counts as running until its thread starts another or gives the run back.

    (This simulation found it.)
    """
    patch.setattr(job_timeouts, "_is_settled", lambda run, activation: False)


def counts_time_in_which_nobody_ran_it(patch: pytest.MonkeyPatch) -> None:
    """After a take-over, the time in which the old owner was dead counts as work."""
    load = WorkerTable.load

    def late(self: WorkerTable, connection: Any, stored: Any) -> Any:
        cell = load(self, connection, stored)
        for job in cell.jobs.values():
            if job.started_at is not None:
                job.active_us = max(job.active_us, self.death_pauses.clock.now_us() - job.started_at)
        return cell

    patch.setattr(WorkerTable, "load", late)


def forgets_the_time_on_take_over(patch: pytest.MonkeyPatch) -> None:
    """After a take-over, a job has its whole time limit again."""
    as_job = worker_loading.as_job

    def fresh(worker: Any, row: Any) -> Any:
        job = as_job(worker, row)
        job.active_us = 0
        return job

    patch.setattr(worker_loading, "as_job", fresh)


def never_looks_at_the_time(patch: pytest.MonkeyPatch) -> None:
    """A time limit is stored with the flow and never checked."""
    patch.setattr(JobTimeouts, "poll", lambda self, runs: None)


def timed_out_job_leaves_its_retries(patch: pytest.MonkeyPatch) -> None:
    """A job whose time is over fails; its parked messages stay parked."""
    fail_expired = JobTimeouts.fail_expired

    def half(self: JobTimeouts, batch: Batch) -> None:
        swept = list(batch.changes.swept_jobs)
        fail_expired(self, batch)
        batch.changes.swept_jobs[:] = swept

    patch.setattr(JobTimeouts, "fail_expired", half)


def cancelled_worker_takes_posts(patch: pytest.MonkeyPatch) -> None:
    """A cancelled worker runs nothing, but still accepts posts."""
    check = acceptance._check

    def lenient(cell: Any, entry: Any, taken: Any) -> None:
        status, cell.status = cell.status, WorkerStatus.RUNNING
        try:
            check(cell, entry, taken)
        finally:
            cell.status = status

    patch.setattr(acceptance, "_check", lenient)


def cancels_what_it_has_in_memory(patch: pytest.MonkeyPatch) -> None:
    """A cancelled worker leaves those of its jobs as they are that wait on disk or until a time."""
    cancel = CommandHandlers._cancel_worker

    def half(self: Any, batch: Batch, command: Any) -> None:
        cancel(self, batch, command)
        batch.changes.cancelled_workers.clear()

    patch.setattr(CommandHandlers, "_cancel_worker", half)


def late_arrivals_stay_in_the_inbox(patch: pytest.MonkeyPatch) -> None:
    """No runtime takes what arrives for a worker after its end. (Found on the way to this simulation.)"""
    patch.setattr(Handover, "_receive", lambda self, worker_id: None)


def cancelled_worker_is_started_again(patch: pytest.MonkeyPatch) -> None:
    """A worker that is loaded runs unless it is paused, so a program can start a cancelled one by its name.

    (Found by reading the code.)
    """
    load = WorkerTable.load

    def running(self: WorkerTable, connection: Any, stored: Any) -> Any:
        cell = load(self, connection, stored)
        if cell.status in ENDED_WORKER:
            cell.set_status(WorkerStatus.RUNNING)
        return cell

    patch.setattr(WorkerTable, "load", running)


def outcomes_of_a_cancelled_worker_go_in(patch: pytest.MonkeyPatch) -> None:
    """The jobs of a cancelled worker end only in the database: what still runs of them counts."""

    def cancel(self: Any, batch: Batch, command: Any) -> None:
        cell = self._worker(command)
        batch.changes.cancelled_workers.append((cell.key, batch.now, "worker cancelled"))
        cell.set_status(WorkerStatus.CANCELLED)
        batch.write_worker(cell, None, ended_at=batch.now)
        batch.after_commit.append(lambda: self._workers.release_later(cell))

    patch.setattr(CommandHandlers, "_cancel_worker", cancel)


def completed_job_leaves_what_waits(patch: pytest.MonkeyPatch) -> None:
    """An operator completes a job; only its record changes."""
    complete = CommandHandlers._complete_job

    def half(self: Any, batch: Batch, command: Any) -> None:
        self._live_job(batch, command)[1].open_count = 0
        complete(self, batch, command)

    patch.setattr(CommandHandlers, "_complete_job", half)


def job_with_a_dead_letter_is_completed(patch: pytest.MonkeyPatch) -> None:
    """A job is completed with its last message, even if that became a dead letter."""
    end = Batch.end_job

    def well(self: Any, cell: Any, job: Any, status: Any, *rest: Any) -> None:
        end(self, cell, job, JobStatus.COMPLETED if status == JobStatus.FAILED else status, *rest)

    patch.setattr(Batch, "end_job", well)
