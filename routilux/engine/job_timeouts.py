"""`Flow(execution_timeout=…)`: how long a job has been at work, and the end of one that takes too long.

A job is at work from the start of its first activation while something of it runs or waits in line. Time in which it
or its worker is paused and nothing of it runs, in which all of it is parked (a retry that is not due), or in which
nobody owns its worker does not count.
The engine looks every `PERIOD_S` and adds what has passed since it last looked; the sum goes into the job's row with
every change of the job. A job that waits on disk, outside the window of its slot, stands still as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from routilux.core.mailbox import WorkerCell
from routilux.core.message import Activation, Job, jobs_of
from routilux.core.run import Run
from routilux.core.states import JobStatus, WorkerStatus
from routilux.engine.batch import Batch
from routilux.engine.clock import Clock

if TYPE_CHECKING:
    from routilux.engine.engine import Engine

PERIOD_S = 0.05
MOST_S = 1.0  # a process that was stopped did no work meanwhile


class Watch:
    """When it last looked, and whose time is over."""

    def __init__(self, clock: Clock) -> None:
        self.looked_at = clock.monotonic()
        self.most_s = MOST_S
        self.expired: list[tuple[WorkerCell, Job]] = []


def look(engine: Engine) -> None:
    """Add what has passed. Between two commits."""
    watch, now = engine.timeouts, engine.clock.monotonic()
    passed = now - watch.looked_at
    if passed < PERIOD_S:
        return
    watch.looked_at = now
    timed = [worker for worker in engine.workers.values() if worker.flow.execution_timeout is not None]
    if not timed:
        return
    begun = _begun(engine)
    for worker in timed:
        assert worker.flow.execution_timeout is not None
        worker.drop_idle_jobs()
        for job in worker.jobs.values():
            if _is_at_work(worker, job, begun):
                since = now - begun[job] if job in begun and not _is_in_line(worker, job) else passed
                job.active_us += round(min(passed, since, watch.most_s) * 1e6)
                if job.active_us > worker.flow.execution_timeout * 1e6:
                    watch.expired.append((worker, job))


def next_at(engine: Engine) -> int | None:
    """When the time of a job will be over if nothing changes, µs; None: never. For a clock that jumps."""
    begun = _begun(engine)
    left = [
        round(worker.flow.execution_timeout * 1e6) - job.active_us
        for worker in engine.workers.values()
        if worker.flow.execution_timeout is not None
        for job in worker.jobs.values()
        if _is_at_work(worker, job, begun)
    ]
    if not left:
        return None
    return round(engine.timeouts.looked_at * 1e6) + max(min(left) + 1, round(PERIOD_S * 1e6))


def _begun(engine: Engine) -> dict[Job, float]:
    """Jobs of activations that run now, and since when; the first one of a job is known to its executor only."""
    begun: dict[Job, float] = {}
    for run in engine.runs:
        running = run.running  # another thread writes it
        if running is not None and not _is_settled(run, running[0]):
            for job in jobs_of(running[0]):
                begun[job] = min(running[1], begun.get(job, running[1]))
    return begun


def _is_settled(run: Run, activation: Activation) -> bool:
    """Its thread has more to do, or has not come to give the run back."""
    return run.settled > 0 and run.activations[run.settled - 1] is activation


def _is_at_work(worker: WorkerCell, job: Job, begun: dict[Job, float]) -> bool:
    return job.ended_at is None and (job in begun or _is_in_line(worker, job))


def _is_in_line(worker: WorkerCell, job: Job) -> bool:
    """It works or could, all the while. One that is not, as it is new or paused, works from when its logic began."""
    can_go_on = worker.status != WorkerStatus.PAUSED and job.status != JobStatus.PAUSED
    return can_go_on and job.started_at is not None and job.open_count > job.parked_count


def apply(engine: Engine, batch: Batch) -> None:
    """Jobs whose time is over fail with this commit; what still runs of them is discarded when it ends."""
    expired, engine.timeouts.expired = engine.timeouts.expired, []
    for worker, job in expired:
        if job.ended_at is None and not worker.is_forgotten:
            limit = worker.flow.execution_timeout
            batch.end_job(
                worker,
                job,
                JobStatus.FAILED,
                f"TimeoutError: at work longer than the execution_timeout of {limit} s",
            )
            for routine in worker.routines.values():
                for run in routine.runs:
                    if run.running is not None and job in jobs_of(run.running[0]):
                        run.should_stop = True
