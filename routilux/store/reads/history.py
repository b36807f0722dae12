"""Reads for people: jobs, workers, activations, traces. A second interface, which only reads.

Beside it are `dead_letter_rows`, `queue_depth` (what waits) and `routine_progress` (the status of a job's
routines).

Every list is newest first, bounded by `limit` and paged by key. So a page costs the same at any depth.
A post that no worker has accepted is still in the inbox. It is shown as a pending job.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import orjson
from sqlalchemy import Connection, Row, Select, select, text, tuple_

from routilux.errors import JobNotFoundError
from routilux.store.records import (
    ActivationRecord,
    JobRecord,
    TraceRecord,
    WorkerRecord,
    instant,
    maybe_instant,
)
from routilux.store.storable import is_storable
from routilux.store.tables import activations as activation_rows
from routilux.store.tables import inbox
from routilux.store.tables import jobs as job_rows
from routilux.store.tables import traces as trace_rows
from routilux.store.tables import workers as worker_rows

AnyRow = Row[*tuple[Any, ...]]


# jobs

_JOBS = select(
    job_rows.c.job_id,
    worker_rows.c.worker_id,
    job_rows.c.flow,
    job_rows.c.status,
    job_rows.c.created_at,
    job_rows.c.started_at,
    job_rows.c.ended_at,
    job_rows.c.open_count,
    job_rows.c.metadata,
    job_rows.c.data,
    job_rows.c.result,
    job_rows.c.error,
    job_rows.c.worker,
    job_rows.c.job,
).join(worker_rows, worker_rows.c.key == job_rows.c.worker)
_POSTS = select(
    inbox.c.job_id, inbox.c.worker_id, inbox.c.flow, inbox.c.created_at, inbox.c.metadata, inbox.c.id
).where(inbox.c.kind == "post", inbox.c.job_id.is_not(None))
_OPEN = {
    "sqlite": text(
        "SELECT job_id FROM routilux_jobs WHERE job_id IN (SELECT value FROM json_each(:ids))"
        " AND status NOT IN ('completed', 'failed', 'cancelled') UNION ALL SELECT job_id FROM routilux_inbox"
        " WHERE kind = 'post' AND job_id IN (SELECT value FROM json_each(:ids))"
    ),
    "postgresql": text(
        "SELECT job_id FROM routilux_jobs WHERE job_id IN (SELECT v FROM"
        " jsonb_array_elements_text(CAST(:ids AS jsonb)) AS r(v))"
        " AND status NOT IN ('completed', 'failed', 'cancelled') UNION ALL SELECT job_id FROM routilux_inbox"
        " WHERE kind = 'post' AND job_id IN (SELECT v FROM"
        " jsonb_array_elements_text(CAST(:ids AS jsonb)) AS r(v))"
    ),
}


def job(connection: Connection, job_id: str) -> JobRecord | None:
    """The job with this id. Returns None if there is none. One indexed read, or two while it is in the inbox.

    The owner may accept the post between the two reads. That moves it from the inbox to the jobs, where the
    first read looked. So only a third read proves that the job does not exist.
    """
    if not is_storable(job_id):
        return None
    query = _JOBS.where(job_rows.c.job_id == job_id)
    row = connection.execute(query).first()
    if row is not None:
        return _job(row)
    post = connection.execute(_POSTS.where(inbox.c.job_id == job_id).order_by(inbox.c.id).limit(1)).first()
    if post is not None:
        return _pending(post)
    row = connection.execute(query).first()
    return None if row is None else _job(row)


def jobs(
    connection: Connection,
    *,
    status: str | None = None,
    flow: str | None = None,
    worker_id: str | None = None,
    limit: int = 100,
    before: str | None = None,
) -> list[JobRecord]:
    """Jobs in pages: first posts that no worker has accepted, then jobs, those of the newest worker first.

    Within a worker the newest job comes first. `before`: the last job id of the page before. Raises
    `JobNotFoundError` if that job is gone.
    """
    position, found = None, []
    if not all(name is None or is_storable(name) for name in (flow, worker_id)):
        return []
    if before is not None and not is_storable(before):
        raise JobNotFoundError(before)
    if before is not None:
        position = connection.execute(
            select(job_rows.c.worker, job_rows.c.job).where(job_rows.c.job_id == before)
        ).first()
    if position is None:
        found = _posts(connection, status=status, flow=flow, worker_id=worker_id, limit=limit, before=before)
    posts = {post.job_id for post in found}  # the owner may accept one before the next read
    for query in _job_queries(connection, flow, worker_id, position):
        if len(found) >= limit:
            break
        if status is not None:
            query = query.where(job_rows.c.status == status)
        rows = connection.execute(query.limit(limit - len(found)))
        found.extend(_job(row) for row in rows if row.job_id not in posts)
    return found


def _job_queries(
    connection: Connection, flow: str | None, worker_id: str | None, position: AnyRow | None
) -> Iterable[Select[*tuple[Any, ...]]]:
    """One walk down the primary key, or one per worker of a flow. A join would sort all jobs of a worker."""
    query = _JOBS.order_by(job_rows.c.worker.desc(), job_rows.c.job.desc())
    if position is not None:
        query = query.where(tuple_(job_rows.c.worker, job_rows.c.job) < tuple_(position.worker, position.job))
    if flow is None and worker_id is None:
        yield query
        return
    keys = select(worker_rows.c.key).order_by(worker_rows.c.key.desc())
    if worker_id is not None:
        keys = keys.where(worker_rows.c.worker_id == worker_id)
    if flow is not None:
        keys = keys.where(worker_rows.c.flow == flow)
    if position is not None:
        keys = keys.where(worker_rows.c.key <= position.worker)
    for key in connection.execute(keys).scalars().all():
        yield query.where(job_rows.c.worker == key)


def _posts(
    connection: Connection,
    *,
    status: str | None,
    flow: str | None,
    worker_id: str | None,
    limit: int,
    before: str | None,
) -> list[JobRecord]:
    query = _POSTS.order_by(inbox.c.id.desc()).limit(limit)
    if before is not None:
        last = connection.execute(
            _POSTS.where(inbox.c.job_id == before).order_by(inbox.c.id).limit(1)
        ).first()
        if last is None:
            raise JobNotFoundError(before)
        query = query.where(inbox.c.id < last.id)
    if status not in (None, "pending"):
        return []
    if flow is not None:
        query = query.where(inbox.c.flow == flow)
    if worker_id is not None:
        query = query.where(inbox.c.worker_id == worker_id)
    return [_pending(row) for row in connection.execute(query)]


def open_job_ids_among(connection: Connection, ids: Collection[str]) -> set[str]:
    """Which of these jobs have not ended. Posts in the inbox have not ended. Unknown ids are left out."""
    if not ids:
        return set()
    parameter = {"ids": orjson.dumps(list(ids)).decode()}
    return set(connection.execute(_OPEN[connection.dialect.name], parameter).scalars())


# what happened inside a job


def traces(connection: Connection, job_id: str) -> list[TraceRecord]:
    """What a job's logic traced and printed, in the order in which it was stored."""
    rows = connection.execute(
        select(trace_rows)
        .join(job_rows, (job_rows.c.worker == trace_rows.c.worker) & (job_rows.c.job == trace_rows.c.job))
        .where(job_rows.c.job_id == job_id)
        .order_by(trace_rows.c.n, trace_rows.c.i)
    )
    return [TraceRecord(instant(r.at), r.kind, r.routine, r.action, r.details, r.n) for r in rows]


# workers


def worker(connection: Connection, worker_id: str) -> WorkerRecord | None:
    """The worker with this public id. Returns None if there is none."""
    row = connection.execute(select(worker_rows).where(worker_rows.c.worker_id == worker_id)).first()
    return None if row is None else _worker(row)


def workers(
    connection: Connection, *, flow: str | None = None, status: str | None = None, limit: int = 1000
) -> list[WorkerRecord]:
    """Workers, newest first."""
    query = select(worker_rows).order_by(worker_rows.c.key.desc()).limit(limit)
    if flow is not None:
        query = query.where(worker_rows.c.flow == flow)
    if status is not None:
        query = query.where(worker_rows.c.status == status)
    return [_worker(row) for row in connection.execute(query)]


def activations(
    connection: Connection, worker_id: str, *, routine: str | None = None, limit: int = 1000
) -> list[ActivationRecord]:
    """Attempts of a worker to run logic, newest first."""
    found = worker(connection, worker_id)
    if found is None or (routine is not None and not is_storable(routine)):
        return []
    rows = activation_rows
    query = (
        select(rows, job_rows.c.job_id)
        .outerjoin(job_rows, (job_rows.c.worker == rows.c.worker) & (job_rows.c.job == rows.c.job))
        .where(rows.c.worker == found.key)
        .order_by(rows.c.n.desc())
        .limit(limit)
    )
    if routine is not None:
        query = query.where(rows.c.routine == routine)
    return [_activation(worker_id, row) for row in connection.execute(query)]


# rows into records


def _job(row: AnyRow) -> JobRecord:
    return JobRecord(
        row.job_id,
        row.worker_id,
        row.flow,
        row.status,
        instant(row.created_at),
        maybe_instant(row.started_at),
        maybe_instant(row.ended_at),
        row.open_count,
        row.metadata,
        row.data,
        row.result,
        row.error,
    )


def _pending(row: AnyRow) -> JobRecord:
    return JobRecord(
        row.job_id, row.worker_id, row.flow, "pending", instant(row.created_at), metadata=row.metadata
    )


def _worker(row: AnyRow) -> WorkerRecord:
    return WorkerRecord(
        row.key,
        row.worker_id,
        row.flow,
        row.status,
        row.owner,
        bool(row.is_named),
        row.reason,
        instant(row.created_at),
        maybe_instant(row.started_at),
        maybe_instant(row.ended_at),
    )


def _activation(worker_id: str, row: AnyRow) -> ActivationRecord:
    return ActivationRecord(
        worker_id,
        row.n,
        row.job_id,
        row.routine,
        row.attempt,
        row.status,
        instant(row.started_at),
        instant(row.ended_at),
        tuple(map(int, row.seqs.split(","))),
        row.policy_message,
        row.error_type,
        row.error,
        row.traceback,
    )
