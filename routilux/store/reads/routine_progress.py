"""The status of each routine of a job.

It follows from the job's messages, from what an error strategy has recorded, and from what runs now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, Row, select

from routilux.core.states import MessageStatus
from routilux.store.tables import commits, jobs, messages, workers

AnyRow = Row[*tuple[Any, ...]]


def routine_status(connection: Connection, job_id: str) -> dict[str, str]:
    """routine -> `pending running completed failed skipped error_continued retrying`.

    Not reached: not included.
    """
    row = connection.execute(
        select(jobs.c.worker, jobs.c.job, jobs.c.routine_status, workers.c.owner)
        .join(workers, workers.c.key == jobs.c.worker)
        .where(jobs.c.job_id == job_id)
    ).first()
    if row is None:
        return {}
    seen: dict[str, set[str]] = {}
    pairs = select(messages.c.routine, messages.c.status).where(
        messages.c.worker == row.worker, messages.c.job == row.job
    )
    for routine, status in connection.execute(pairs.distinct()):
        seen.setdefault(routine, set()).add(status)
    recorded: dict[str, str] = orjson.loads(row.routine_status or "{}")
    found = {routine: _routine(statuses, recorded.get(routine)) for routine, statuses in seen.items()}
    statuses = recorded | {routine: status for routine, status in found.items() if status is not None}
    return statuses | dict.fromkeys(_running(connection, row), "running")


def _routine(statuses: set[str], recorded: str | None) -> str | None:
    """The status from the routine's message statuses and from what an error strategy has recorded."""
    if MessageStatus.PARKED in statuses and recorded == "retrying":
        return recorded
    if statuses & {MessageStatus.WAITING, MessageStatus.PARKED}:
        return "pending"
    if MessageStatus.DEAD in statuses:
        return "failed"
    return recorded or ("completed" if MessageStatus.CONSUMED in statuses else None)


def _running(connection: Connection, job: AnyRow) -> set[str]:
    """Routines with a message of this job in the last commit's list of what runs."""
    if job.owner is None:
        return set()
    query = (
        select(commits.c.in_flight)
        .where(commits.c.runtime == job.owner)
        .order_by(commits.c.n.desc())
        .limit(1)
    )
    runs = orjson.loads(connection.execute(query).scalar() or "[]")
    return {run[1] for run in runs if run[0] == job.worker and _has_part(connection, job, run)}


def _has_part(connection: Connection, job: AnyRow, run: Sequence[Any]) -> bool:
    _, routine, first, last, *_ = run
    query = select(messages.c.seq).where(
        messages.c.worker == job.worker,
        messages.c.seq.between(first, last),
        messages.c.job == job.job,
        messages.c.routine == routine,
        messages.c.status.in_([MessageStatus.WAITING, MessageStatus.PARKED]),
    )
    return connection.execute(query.limit(1)).first() is not None
