"""What must be true at the end of a world, after the last accident, when all processes have had a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routilux.core.policies import ImmediatePolicy
from routilux.testing.simulation.tables import ENDED, Violation

if TYPE_CHECKING:
    from routilux.testing.simulation.checks.promises import Model


def waiting(model: Model) -> None:
    """P11: when all processes have had a turn, no message waits that is taken one at a time."""
    for seq, routine, job_id in model.tables.all(
        "SELECT m.seq, m.routine, j.job_id FROM routilux_messages AS m"
        " JOIN routilux_jobs AS j ON j.worker = m.worker AND j.job = m.job"
        " JOIN routilux_workers AS w ON w.key = m.worker"
        " WHERE m.status = 'waiting' AND j.status <> 'paused' AND w.status <> 'paused'"
    ):
        policies = [flow.routines[routine].policy for flow in model.flows if routine in flow.routines]
        if all(isinstance(policy, ImmediatePolicy) for policy in policies):
            raise Violation("P11", f"message {seq} of job {job_id} waits at {routine!r}, but nothing runs")


def counters(model: Model) -> None:
    """P8: the stored counters are right when nothing has happened for a while."""
    for routine, slot, counted, waiting in model.tables.all(
        "SELECT s.routine, s.slot, s.waiting, (SELECT count(*) FROM routilux_messages AS m"
        " WHERE m.worker = s.worker AND m.routine = s.routine AND m.slot = s.slot AND m.status = 'waiting'"
        ") AS counted FROM routilux_slots AS s WHERE s.waiting <> counted"
    ):
        raise Violation("P8", f"{waiting} messages wait at {routine}.{slot}, but the counter says {counted}")


def jobs(model: Model, refused: set[str]) -> None:
    """P11: all jobs have ended, and no post is missing."""
    for job_id in sorted(model.posted.keys() - refused - model.jobs.keys()):
        raise Violation("P11", f"job {job_id} was posted several times but never accepted")
    for job_id, status in model.jobs.items():
        if status not in ENDED:
            waits = model.tables.all(
                "SELECT m.seq, m.routine, m.slot, m.status, p.reason FROM routilux_messages AS m"
                " JOIN routilux_jobs AS j ON j.worker = m.worker AND j.job = m.job"
                " LEFT JOIN routilux_parked AS p ON p.worker = m.worker AND p.seq = m.seq"
                " WHERE j.job_id = ? AND m.status IN ('waiting', 'parked')",
                job_id,
            )
            if all(reason == "unroutable" for *_, reason in waits) and waits:
                continue
            where = ", ".join(
                f"message {seq} {status} at {routine}.{slot}" for seq, routine, slot, status, _ in waits
            )
            raise Violation(
                "P11", f"job {job_id} never ends: it is {status}; {where or 'nothing of it waits'}"
            )
    for job_id in sorted(model.told_ended - model.letters.ever_reopened):
        status = model.jobs[job_id]
        if (job_id, status) not in model.asked_to_end:
            raise Violation("P8", f"an operator ended job {job_id}, but it is {status}")
