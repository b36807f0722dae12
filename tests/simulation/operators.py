"""More engines that are broken on purpose: in what operators ask of workers, and in how long a job may take."""

from __future__ import annotations

from typing import Any

import pytest

from routilux.core.states import ENDED_WORKER, JobStatus, WorkerStatus
from routilux.engine import acceptance, commands, job_timeouts, scheduler, worker_loading
from routilux.engine.batch import Batch
from routilux.engine.commands import Body
from routilux.ownership import handover


def dispatches_though_paused(patch: pytest.MonkeyPatch) -> None:
    """What is ready runs, whether its worker is paused or not."""
    patch.setattr(
        scheduler,
        "_may_run",
        lambda cell: (
            not cell.worker.is_forgotten
            and cell.worker.status != WorkerStatus.CANCELLED
            and cell.can_run
            and len(cell.runs) < cell.compiled.concurrency
        ),
    )


def pause_is_forgotten_on_take_over(patch: pytest.MonkeyPatch) -> None:
    """A worker that is loaded runs."""
    load = worker_loading.load

    def running(*rest: Any) -> Any:
        cell = load(*rest)
        cell.status = WorkerStatus.RUNNING
        return cell

    patch.setattr(worker_loading, "load", running)


def runs_go_on_in_a_pause(patch: pytest.MonkeyPatch) -> None:
    """What was handed out before the pause runs to its end, one activation after another."""

    def pause(engine: Any, batch: Any, worker_id: Any, job_id: Any, body: Body) -> None:
        cell = commands._worker(engine, worker_id)
        cell.status = WorkerStatus.PAUSED
        worker_loading.write_worker(batch, cell)

    patch.setitem(commands._VERBS, "pause_worker", pause)


def resumes_what_is_ready_only(patch: pytest.MonkeyPatch) -> None:
    """A worker that is resumed waits for something to come in before it looks at what waits already."""

    def resume(engine: Any, batch: Any, worker_id: Any, job_id: Any, body: Body) -> None:
        cell = commands._worker(engine, worker_id)
        cell.status = WorkerStatus.RUNNING
        worker_loading.write_worker(batch, cell)

    patch.setitem(commands._VERBS, "resume_worker", resume)


def counts_time_in_which_a_job_cannot_run(patch: pytest.MonkeyPatch) -> None:
    """A job is at work from its first activation to its end, paused or waiting for a retry."""
    patch.setattr(
        job_timeouts,
        "_is_at_work",
        lambda worker, job, begun: job.ended_at is None and (job in begun or job.started_at is not None),
    )


def counts_time_before_logic_begins(patch: pytest.MonkeyPatch) -> None:
    """Whoever begins between two looks is at work since the first of them. (Found by this simulation.)"""
    begun = job_timeouts._begun
    patch.setattr(job_timeouts, "_begun", lambda engine: dict.fromkeys(begun(engine), float("-inf")))


def counts_what_is_over_until_its_thread_is_back(patch: pytest.MonkeyPatch) -> None:
    """An activation runs until its thread takes another one or gives the run back. (Found by this simulation.)"""
    patch.setattr(job_timeouts, "_is_settled", lambda run, activation: False)


def counts_time_in_which_nobody_ran_it(patch: pytest.MonkeyPatch) -> None:
    """A worker that is taken over brings the time along in which its owner was dead."""
    load = worker_loading.load

    def late(engine: Any, *rest: Any) -> Any:
        cell = load(engine, *rest)
        for job in cell.jobs.values():
            if job.started_at is not None:
                job.active_us = max(job.active_us, engine.clock.now_us() - job.started_at)
        return cell

    patch.setattr(worker_loading, "load", late)


def forgets_the_time_on_take_over(patch: pytest.MonkeyPatch) -> None:
    """A job of a worker that changes hands has all of its time again."""
    as_job = worker_loading.as_job

    def fresh(worker: Any, row: Any) -> Any:
        job = as_job(worker, row)
        job.active_us = 0
        return job

    patch.setattr(worker_loading, "as_job", fresh)


def never_looks_at_the_time(patch: pytest.MonkeyPatch) -> None:
    """A time limit is noted with the flow, and that is all."""
    patch.setattr(job_timeouts, "look", lambda engine: None)


def timed_out_job_leaves_its_retries(patch: pytest.MonkeyPatch) -> None:
    """A job whose time is over is failed, and what waits of it goes on waiting."""
    apply = job_timeouts.apply

    def half(engine: Any, batch: Any) -> None:
        swept = list(batch.changes.swept_jobs)
        apply(engine, batch)
        batch.changes.swept_jobs[:] = swept

    patch.setattr(job_timeouts, "apply", half)


def cancelled_worker_takes_posts(patch: pytest.MonkeyPatch) -> None:
    """Whoever is cancelled runs nothing, and accepts as before."""
    check = acceptance._check

    def lenient(cell: Any, entry: Any, taken: Any) -> None:
        status, cell.status = cell.status, WorkerStatus.RUNNING
        try:
            check(cell, entry, taken)
        finally:
            cell.status = status

    patch.setattr(acceptance, "_check", lenient)


def cancels_what_it_has_in_memory(patch: pytest.MonkeyPatch) -> None:
    """Jobs of a cancelled worker that wait on disk, or for a time, are left as they are."""
    cancel = commands._VERBS["cancel_worker"]

    def half(engine: Any, batch: Any, *rest: Any) -> None:
        cancel(engine, batch, *rest)
        batch.changes.cancelled_workers.clear()

    patch.setitem(commands._VERBS, "cancel_worker", half)


def late_arrivals_stay_in_the_inbox(patch: pytest.MonkeyPatch) -> None:
    """What comes for a worker after its end is left to whoever runs it: nobody. (Found on the way to this simulation.)"""
    patch.setattr(handover, "_receive", lambda engine, worker_id: None)


def cancelled_worker_is_started_again(patch: pytest.MonkeyPatch) -> None:
    """A worker that is loaded runs, unless it is paused, and who asks for one by its name gets it. (Loading was found by reading.)"""
    load = worker_loading.load

    def running(engine: Any, *rest: Any) -> Any:
        cell = load(engine, *rest)
        if cell.status in ENDED_WORKER:
            cell.status = WorkerStatus.RUNNING
        return cell

    patch.setattr(worker_loading, "load", running)


def outcomes_of_a_cancelled_worker_go_in(patch: pytest.MonkeyPatch) -> None:
    """Its jobs are ended in the database only: what still runs of them counts."""

    def cancel(engine: Any, batch: Any, worker_id: Any, job_id: Any, body: Body) -> None:
        cell = commands._worker(engine, worker_id)
        batch.changes.cancelled_workers.append((cell.key, batch.now, "worker cancelled"))
        cell.status = WorkerStatus.CANCELLED
        worker_loading.write_worker(batch, cell, None, ended_at=batch.now)
        batch.after.append(lambda: engine.to_release.append(cell))

    patch.setitem(commands._VERBS, "cancel_worker", cancel)


def completed_job_leaves_what_waits(patch: pytest.MonkeyPatch) -> None:
    """Whoever says that a job is over has only its record changed."""
    end = commands._VERBS["complete_job"]

    def half(engine: Any, batch: Any, worker_id: Any, job_id: Any, body: Body) -> None:
        commands._live_job(engine, batch, worker_id, job_id)[1].open_count = 0
        end(engine, batch, worker_id, job_id, body)

    patch.setitem(commands._VERBS, "complete_job", half)


def job_with_a_dead_letter_is_completed(patch: pytest.MonkeyPatch) -> None:
    """The last message of a job ends it well, whatever became of it."""
    end = Batch.end_job

    def well(self: Any, cell: Any, job: Any, status: Any, *rest: Any) -> None:
        end(self, cell, job, JobStatus.COMPLETED if status == JobStatus.FAILED else status, *rest)

    patch.setattr(Batch, "end_job", well)
