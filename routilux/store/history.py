"""Reads for people: jobs, workers, activations, traces, dead letters, depths. The second interface:
read-only.

Every list is newest first, bounded by `limit` and paged by key, so that a page costs the same at any depth.
A post that no worker has accepted is still in the inbox and shows as a pending job.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, Row, Select, column, select, table, text, tuple_

from routilux.core.states import MessageStatus, ParkedReason
from routilux.errors import JobNotFoundError
from routilux.store.loading import is_storable
from routilux.store.records import (
    ActivationRecord,
    DeadLetterKey,
    DeadLetterRecord,
    DeadMessage,
    JobRecord,
    QueueDepth,
    TraceRecord,
    WorkerRecord,
)
from routilux.store.tables import activations as activation_rows
from routilux.store.tables import commits, inbox, messages, parked
from routilux.store.tables import jobs as job_rows
from routilux.store.tables import traces as trace_rows
from routilux.store.tables import workers as worker_rows

AnyRow = Row[*tuple[Any, ...]]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# jobs

_JOBS = select(
    job_rows.c.job_id, worker_rows.c.worker_id, job_rows.c.flow, job_rows.c.status, job_rows.c.created_at,
    job_rows.c.started_at, job_rows.c.ended_at, job_rows.c.open_count, job_rows.c.metadata, job_rows.c.data,
    job_rows.c.result, job_rows.c.error, job_rows.c.worker, job_rows.c.job,
).join(worker_rows, worker_rows.c.key == job_rows.c.worker)  # fmt: skip
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
    """The job of this id; None if there is none. One indexed read, a second one while it is in the inbox.

    Its owner may accept it between the two, which moves it from where the second looks to where the first looked:
    only a third read tells that nobody knows it.
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
    """Jobs in pages: posts not yet accepted, then those of the newest worker, newest first, then the next.

    `before` is the job id that ended the last page. Raises `JobNotFoundError` if it is gone.
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
    posts = {post.job_id for post in found}  # its owner may accept one before the next read
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
    """One walk down the primary key, or one per worker of a flow: a join would sort all jobs of a worker."""
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
    """Which of these jobs have not ended; posts in the inbox have not. Ids that nobody knows are left out."""
    if not ids:
        return set()
    parameter = {"ids": orjson.dumps(list(ids)).decode()}
    return set(connection.execute(_OPEN[connection.dialect.name], parameter).scalars())


# what happened inside a job


def traces(connection: Connection, job_id: str) -> list[TraceRecord]:
    """What a job's logic traced and printed, in the order in which it went in."""
    rows = connection.execute(
        select(trace_rows)
        .join(job_rows, (job_rows.c.worker == trace_rows.c.worker) & (job_rows.c.job == trace_rows.c.job))
        .where(job_rows.c.job_id == job_id)
        .order_by(trace_rows.c.n, trace_rows.c.i)
    )
    return [TraceRecord(_at(r.at), r.kind, r.routine, r.action, r.details, r.n) for r in rows]


def routine_status(connection: Connection, job_id: str) -> dict[str, str]:
    """routine -> `pending running completed failed skipped error_continued retrying`; not reached: absent."""
    row = connection.execute(
        select(job_rows.c.worker, job_rows.c.job, job_rows.c.routine_status, worker_rows.c.owner)
        .join(worker_rows, worker_rows.c.key == job_rows.c.worker)
        .where(job_rows.c.job_id == job_id)
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
    """What the messages of a routine say, and what an error strategy has left on record."""
    if MessageStatus.PARKED in statuses and recorded == "retrying":
        return recorded
    if statuses & {MessageStatus.WAITING, MessageStatus.PARKED}:
        return "pending"
    if MessageStatus.DEAD in statuses:
        return "failed"
    return recorded or ("completed" if MessageStatus.CONSUMED in statuses else None)


def _running(connection: Connection, job: AnyRow) -> set[str]:
    """Routines that have a message of the job in the last commit's list of what runs."""
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


# workers


def worker(connection: Connection, worker_id: str) -> WorkerRecord | None:
    """The worker of this public id; None if there is none."""
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


_WAITING_ABOUT = text(
    "SELECT coalesce((SELECT s.waiting FROM routilux_slots AS s JOIN routilux_workers AS w ON w.key = s.worker"
    " WHERE w.worker_id = :worker AND s.routine = :routine AND s.slot = :slot), 0) + (SELECT count(*) FROM routilux_inbox"
    " WHERE kind = 'post' AND flow = :flow AND coalesce(worker_id, :worker) = :worker AND body LIKE :body ESCAPE '!')"
)


def waiting_about(connection: Connection, names: tuple[str, str, str], worker_id: str | None) -> int:
    """What waits in a slot by its counter, which is about a second old, and what is in the inbox for it."""
    flow, routine, slot = names
    start = orjson.dumps({"routine": routine, "slot": slot}).decode().removesuffix("}")
    for wild in "!%_":
        start = start.replace(wild, "!" + wild)
    row = {"worker": worker_id or "", "flow": flow, "routine": routine, "slot": slot, "body": f"{start},%"}
    return connection.execute(_WAITING_ABOUT, row).scalar() or 0


_DEPTH = table(
    "routilux_queue_depth",
    *map(column, ("flow_id", "worker_id", "routine_id", "slot", "waiting", "oldest_waiting_at", "parked")),
)


def queue_depth(connection: Connection, worker_id: str | None = None) -> list[QueueDepth]:
    """What waits and what is parked, by slot, of one worker or of all that have not ended."""
    query = select(_DEPTH).order_by(_DEPTH.c.worker_id, _DEPTH.c.routine_id, _DEPTH.c.slot)
    if worker_id is not None:
        query = query.where(_DEPTH.c.worker_id == worker_id)
    return [
        QueueDepth(
            r.flow_id, r.worker_id, r.routine_id, r.slot, r.waiting, _view_time(r.oldest_waiting_at), r.parked
        )
        for r in connection.execute(query)
    ]


# dead letters

_DEAD = (
    select(
        parked, worker_rows.c.worker_id, worker_rows.c.flow, job_rows.c.job_id, activation_rows.c.traceback
    )
    .join(worker_rows, worker_rows.c.key == parked.c.worker)
    .outerjoin(job_rows, (job_rows.c.worker == parked.c.worker) & (job_rows.c.job == parked.c.job))
    .outerjoin(
        activation_rows,
        (activation_rows.c.worker == parked.c.worker) & (activation_rows.c.n == parked.c.activation),
    )
    .where(parked.c.reason.in_((ParkedReason.DEAD, ParkedReason.UNROUTABLE)))
)


def dead_letters(
    connection: Connection, *, flow: str | None = None, limit: int = 100, before: DeadLetterKey | None = None
) -> list[DeadLetterRecord]:
    """Batches that were given up, or have nowhere to go, newest worker first. `before` is the key of the last one seen."""
    if flow is not None and not is_storable(flow):
        return []
    query = _DEAD.order_by(parked.c.worker.desc(), parked.c.seq.desc()).limit(limit)
    if flow is not None:
        query = query.where(worker_rows.c.flow == flow)
    if before is not None:
        query = query.where(tuple_(parked.c.worker, parked.c.seq) < tuple_(*before))
    return [_dead_letter(connection, row) for row in connection.execute(query).all()]


def dead_letter(connection: Connection, worker_key: int, seq: int) -> DeadLetterRecord | None:
    """One dead letter by its key; None when somebody has sent it again or dropped it."""
    row = connection.execute(_DEAD.where(parked.c.worker == worker_key, parked.c.seq == seq)).first()
    return None if row is None else _dead_letter(connection, row)


_LETTER = (
    "SELECT 1 FROM routilux_parked WHERE worker = :worker AND seq = :seq AND reason IN ('dead', 'unroutable')"
)
_ASKED = text(
    "SELECT i.body FROM routilux_inbox AS i JOIN routilux_workers AS w ON w.worker_id = i.worker_id"
    " WHERE i.kind IN ('retry_dead', 'drop_dead') AND w.key = :worker"
)


def hold_letter(connection: Connection, worker_key: int, seq: int) -> bool:
    """Lock a dead letter until the end of a write transaction. False: it is gone, or an operator has asked for it."""
    row = {"worker": worker_key, "seq": seq}
    lock = " FOR UPDATE" if connection.dialect.name == "postgresql" else ""
    if connection.execute(text(_LETTER + lock), row).first() is None:
        return False
    return not any(orjson.loads(body)["seq"] == seq for (body,) in connection.execute(_ASKED, row))


def _dead_letter(connection: Connection, row: AnyRow) -> DeadLetterRecord:
    batch = connection.execute(
        select(messages.c.seq, messages.c.slot, messages.c.payload, job_rows.c.job_id)
        .outerjoin(job_rows, (job_rows.c.worker == messages.c.worker) & (job_rows.c.job == messages.c.job))
        .where(messages.c.worker == row.worker, messages.c.seq.in_(orjson.loads(row.seqs)))
        .order_by(messages.c.seq)
    )
    return DeadLetterRecord(
        key=(row.worker, row.seq),
        worker_id=row.worker_id,
        flow_id=row.flow,
        job_id=row.job_id,
        routine_id=row.routine,
        messages=tuple(DeadMessage(*message) for message in batch),
        attempt=row.attempt,
        deaths=row.deaths,
        error_type=row.error_type,
        error=row.error,
        traceback=row.traceback,
        dead_since=_at(row.parked_at),
    )


# rows into records


def _at(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _maybe_at(us: int | None) -> datetime | None:
    return None if us is None else _at(us)


def _view_time(value: datetime | str | None) -> datetime | None:
    if isinstance(value, str):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return None if value is None else value.astimezone(UTC)


def _job(row: AnyRow) -> JobRecord:
    return JobRecord(
        row.job_id, row.worker_id, row.flow, row.status, _at(row.created_at), _maybe_at(row.started_at),
        _maybe_at(row.ended_at), row.open_count, row.metadata, row.data, row.result, row.error,
    )  # fmt: skip


def _pending(row: AnyRow) -> JobRecord:
    return JobRecord(
        row.job_id, row.worker_id, row.flow, "pending", _at(row.created_at), metadata=row.metadata
    )


def _worker(row: AnyRow) -> WorkerRecord:
    return WorkerRecord(
        row.key, row.worker_id, row.flow, row.status, row.owner, bool(row.is_named), row.reason,
        _at(row.created_at), _maybe_at(row.started_at), _maybe_at(row.ended_at),
    )  # fmt: skip


def _activation(worker_id: str, row: AnyRow) -> ActivationRecord:
    return ActivationRecord(
        worker_id, row.n, row.job_id, row.routine, row.attempt, row.status, _at(row.started_at),
        _at(row.ended_at), tuple(map(int, row.seqs.split(","))), row.policy_message,
        row.error_type, row.error, row.traceback,
    )  # fmt: skip
