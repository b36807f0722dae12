"""`Flow(execution_timeout=…)`: how long a job has been at work, and the end of one that takes too long.

A job is at work from the start of its first activation, while something of it runs or waits in line. Time
does not count in which it or its worker is paused and nothing of it runs, in which all of it is parked (a
retry that is not due), or in which no runtime owns its worker. The engine looks every `PERIOD_S` and adds
what has passed; the sum goes into the job's row with every change of the job. A job that waits on disk,
outside the window of its slot, stands still as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from routilux.core.mailbox import WorkerCell
from routilux.core.message import Activation, Job, jobs_of
from routilux.core.run import Run
from routilux.core.states import JobStatus, WorkerStatus
from routilux.engine.batch import Batch
from routilux.engine.clock import Clock
from routilux.engine.worker_table import WorkerTable

PERIOD_S = 0.05
MOST_S = 1.0  # a process that was stopped did no work meanwhile


class JobTimeouts:
    """Owns the watch. `trusts_clock`: however long it is since the last look, it counts as work."""

    def __init__(self, clock: Clock, workers: WorkerTable, *, trusts_clock: bool = False) -> None:
        self._clock = clock
        self._workers = workers
        self._most_s = math.inf if trusts_clock else MOST_S
        self._looked_at = clock.monotonic()
        self._expired: list[tuple[WorkerCell, Job]] = []

    @property
    def has_expired(self) -> bool:
        return bool(self._expired)

    def poll(self, runs: Iterable[Run]) -> None:
        """Add what has passed. `runs`: what is under way. Call it between two commits."""
        now = self._clock.monotonic()
        passed = now - self._looked_at
        if passed < PERIOD_S:
            return
        self._looked_at = now
        timed = [worker for worker in self._workers if worker.flow.execution_timeout is not None]
        if not timed:
            return
        begun = _begun(runs)
        for worker in timed:
            assert worker.flow.execution_timeout is not None
            worker.drop_idle_jobs()
            for job in worker.jobs.values():
                if _is_at_work(worker, job, begun):
                    since = now - begun[job] if job in begun and not _is_in_line(worker, job) else passed
                    job.work(round(min(passed, since, self._most_s) * 1e6))
                    if job.active_us > worker.flow.execution_timeout * 1e6:
                        self._expired.append((worker, job))

    def next_at(self, runs: Iterable[Run]) -> int | None:
        """When the time of a job is over if nothing changes, µs.

        Returns None if never. For a clock that jumps.
        """
        begun = _begun(runs)
        left = [
            round(worker.flow.execution_timeout * 1e6) - job.active_us
            for worker in self._workers
            if worker.flow.execution_timeout is not None
            for job in worker.jobs.values()
            if _is_at_work(worker, job, begun)
        ]
        if not left:
            return None
        return round(self._looked_at * 1e6) + max(min(left) + 1, round(PERIOD_S * 1e6))

    def fail_expired(self, batch: Batch) -> None:
        """Fail jobs whose time is over with this commit.

        What still runs of them is discarded when it ends.
        """
        expired, self._expired = self._expired, []
        for worker, job in expired:
            if job.ended_at is None and not worker.is_forgotten:
                limit = worker.flow.execution_timeout
                text = f"TimeoutError: at work longer than the execution_timeout of {limit} s"
                batch.end_job(worker, job, JobStatus.FAILED, text)
                for routine in worker.routines.values():
                    for run in routine.runs:
                        if run.running is not None and job in jobs_of(run.running[0]):
                            run.stop()


def _begun(runs: Iterable[Run]) -> dict[Job, float]:
    """Jobs of activations that run now, and since when. Only the executor knows when the first one began."""
    begun: dict[Job, float] = {}
    for run in runs:
        running = run.running  # another thread writes it
        if running is not None and not _is_settled(run, running[0]):
            for job in jobs_of(running[0]):
                begun[job] = min(running[1], begun.get(job, running[1]))
    return begun


def _is_settled(run: Run, activation: Activation) -> bool:
    """Its thread has more to do, or has not given the run back yet."""
    return run.settled > 0 and run.activations[run.settled - 1] is activation


def _is_at_work(worker: WorkerCell, job: Job, begun: dict[Job, float]) -> bool:
    return job.ended_at is None and (job in begun or _is_in_line(worker, job))


def _is_in_line(worker: WorkerCell, job: Job) -> bool:
    """It works, or could, all the while. A new or paused job works from when its logic began."""
    can_go_on = worker.status != WorkerStatus.PAUSED and job.status != JobStatus.PAUSED
    return can_go_on and job.started_at is not None and job.open_count > job.parked_count
