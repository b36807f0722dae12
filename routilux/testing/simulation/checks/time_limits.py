"""`Flow(execution_timeout=…)`: a job that is at work for longer fails, never before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from routilux.core.compiled import CompiledFlow
from routilux.core.message import Activation
from routilux.testing.simulation.tables import ENDED, Tables, Violation

TICKS_S = 0.01  # each look at the simulated clock takes 1 µs: so much may be missing
Job = tuple[int, int]

_JOBS = """
    SELECT j.worker, j.job, j.job_id, j.status, coalesce(j.error, ''), j.active_us, w.status, w.owner,
      coalesce(r.state, 'dead'),
      EXISTS (
        SELECT 1 FROM routilux_messages AS m
        WHERE m.worker = j.worker AND m.job = j.job AND m.status = 'waiting'
      ) OR EXISTS (
        SELECT 1 FROM routilux_parked AS p, json_each(p.seqs) AS s
        JOIN routilux_messages AS m ON m.worker = p.worker AND m.seq = s.value
        WHERE p.worker = j.worker AND p.line IS NOT NULL AND p.reason <> 'paused'
          AND m.job = j.job AND m.status = 'parked'
      )
    FROM routilux_jobs AS j JOIN routilux_workers AS w ON w.key = j.worker
    LEFT JOIN routilux_runtimes AS r ON r.key = w.owner
"""


class Limits:
    """The longest time for which each job can have been at work, from the tables and the starts of its logic.

    `clock`: monotonic seconds. The time in which a process is stopped is included: it is an upper bound.
    """

    def __init__(self, tables: Tables, flows: Sequence[CompiledFlow], clock: Callable[[], float]) -> None:
        limits = [flow.execution_timeout for flow in flows]
        self.limit_s = min((limit for limit in limits if limit is not None), default=None)
        self._tables = tables
        self._clock = clock
        self._at = clock()
        self._worked_s: dict[Job, float] = {}  # of jobs whose logic has begun
        self._busy: dict[Job, None] = {}  # jobs that may be at work after the last commit
        self._in_logic: dict[tuple[int, tuple[int, ...]], list[Job]] = {}  # begun, not in the history
        self._told_us: dict[Job, int] = {}
        self._has_ended: dict[Job, None] = {}
        self._gone: dict[int, None] = {}  # runtimes whose process is dead

    def before_logic(self, activation: Activation, worker: int) -> None:
        if self.limit_s is not None:
            self._advance()
            jobs = [(worker, message.job.no) for message in activation.messages]
            self._in_logic[worker, tuple(sorted(message.seq for message in activation.messages))] = jobs
            for job in jobs:
                self._worked_s.setdefault(job, 0.0)
                self._busy[job] = None

    def settle(self, worker: int, messages: tuple[int, ...]) -> None:
        """An activation is in the history."""
        self._in_logic.pop((worker, messages), None)

    def process_died(self, runtime: int) -> None:
        """The process of this runtime is dead: its workers do not run until they are taken over."""
        self._advance()
        self._gone[runtime] = None
        self.look()

    def look(self) -> None:
        """After a commit."""
        if self.limit_s is None:
            return
        self._advance()
        running = {job for jobs in self._in_logic.values() for job in jobs}
        self._busy.clear()
        for (
            worker,
            no,
            job_id,
            status,
            error,
            active_us,
            worker_status,
            owner,
            state,
            waits,
        ) in self._tables.all(_JOBS):
            job = worker, no
            if status in ENDED:
                self._has_ended[job] = None
            elif job in self._has_ended:  # an operator opened it again: its time starts again
                del self._has_ended[job]
                self._told_us[job], self._worked_s[job] = 0, 0.0
            self._check_sum(job, job_id, active_us)
            self._check_end(job_id, status, error, active_us / 1e6)
            may_go_on = waits and "paused" not in (status, worker_status)
            is_run = state == "alive" and owner not in self._gone
            if status not in ENDED and is_run and (may_go_on or job in running):
                self._busy[job] = None

    def check_over(self, job_ids: Sequence[str]) -> None:
        """The logic of these jobs ran longer than the limit, and their engine took turns meanwhile."""
        for job_id in job_ids:
            row = self._tables.one("SELECT status FROM routilux_jobs WHERE job_id = ?", job_id)
            if row is None or row[0] not in ENDED:
                raise Violation("time limit", f"job {job_id} is at work for too long, but does not end")

    def _advance(self) -> None:
        now = self._clock()
        passed, self._at = now - self._at, now
        for job in self._busy:
            if job in self._worked_s:
                self._worked_s[job] += passed

    def _check_sum(self, job: Job, job_id: str, active_us: int) -> None:
        """The stored time at work is no more than the upper bound, and no less than before."""
        before, self._told_us[job] = self._told_us.get(job, 0), active_us
        worked_s = self._worked_s.get(job, 0.0)
        if active_us < before:
            raise Violation(
                "time limit", f"job {job_id} had {before} µs at work before, but has {active_us} µs now"
            )
        if active_us > (worked_s + TICKS_S) * 1e6:
            raise Violation(
                "time limit",
                f"job {job_id} counts {active_us / 1e6} s at work, but it was at most {worked_s:.3f} s",
            )

    def _check_end(self, job_id: str, status: str, error: str, active_s: float) -> None:
        """A job ends when it is past the limit, not before. It may end in another way meanwhile."""
        assert self.limit_s is not None
        is_late = error.startswith("TimeoutError: at work longer")
        if is_late and (status != "failed" or active_s <= self.limit_s):
            raise Violation("time limit", f"job {job_id} is {status} after {active_s} s at work: {error}")
        if active_s > self.limit_s and status not in ENDED:
            raise Violation("time limit", f"job {job_id} is {status} after {active_s} s at work")
