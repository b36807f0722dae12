"""The user statements of one outcome, as they were before anything was decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from routilux.core.message import Activation, jobs_of
from routilux.core.outcome import Outcome


@dataclass(frozen=True, slots=True)
class StatementGroup:
    """What one outcome stood for before decisions changed memory.

    A commit that is sent again asks the same.
    """

    key: int  # id(outcome)
    run: int
    jobs: frozenset[tuple[int, int]]
    writes: tuple[tuple[Any, Any], ...]
    is_dropped: bool  # its run is broken or its worker forgotten
    is_late: bool  # its jobs have ended
    was_locked: bool  # another session's lock sent it away before
    may_end_jobs: bool


def group_of(outcome: Outcome) -> StatementGroup:
    run = outcome.run
    jobs, worker = jobs_of(outcome.activation), run.cell.worker
    return StatementGroup(
        id(outcome),
        id(run),
        frozenset((worker.key, job.no) for job in jobs),
        tuple(outcome.writes),
        run.is_broken or worker.is_forgotten,
        all(job.has_ended for job in jobs),
        locked_key(outcome.activation) in worker.lock_tries,
        outcome.failure is not None or outcome.job_end is not None,
    )


def locked_key(activation: Activation) -> int:
    """The key of the parked row that it has, or would have."""
    return activation.messages[0].seq if activation.rerun is None else activation.rerun.key
