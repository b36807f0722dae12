"""Dead letters: reads for people, and the lock for a request to retry or to drop one.

A dead letter is a batch that was given up or has no destination, with its messages and its last error.
"""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Connection, Row, select, text, tuple_

from routilux.core.states import ParkedReason
from routilux.store.records import DeadLetterKey, DeadLetterRecord, DeadMessage, instant
from routilux.store.storable import is_storable
from routilux.store.tables import activations, jobs, messages, parked, workers

_DEAD = (
    select(parked, workers.c.worker_id, workers.c.flow, jobs.c.job_id, activations.c.traceback)
    .join(workers, workers.c.key == parked.c.worker)
    .outerjoin(jobs, (jobs.c.worker == parked.c.worker) & (jobs.c.job == parked.c.job))
    .outerjoin(
        activations,
        (activations.c.worker == parked.c.worker) & (activations.c.n == parked.c.activation),
    )
    .where(parked.c.reason.in_((ParkedReason.DEAD, ParkedReason.UNROUTABLE)))
)


def dead_letters(
    connection: Connection, *, flow: str | None = None, limit: int = 100, before: DeadLetterKey | None = None
) -> list[DeadLetterRecord]:
    """Dead letters, those of the newest worker first. `before`: the key of the last one seen."""
    if flow is not None and not is_storable(flow):
        return []
    query = _DEAD.order_by(parked.c.worker.desc(), parked.c.seq.desc()).limit(limit)
    if flow is not None:
        query = query.where(workers.c.flow == flow)
    if before is not None:
        query = query.where(tuple_(parked.c.worker, parked.c.seq) < tuple_(*before))
    return [_dead_letter(connection, row) for row in connection.execute(query).all()]


def dead_letter(connection: Connection, worker_key: int, seq: int) -> DeadLetterRecord | None:
    """One dead letter by its key. Returns None if it was retried or dropped."""
    row = connection.execute(_DEAD.where(parked.c.worker == worker_key, parked.c.seq == seq)).first()
    return None if row is None else _dead_letter(connection, row)


_EXISTS = (
    "SELECT 1 FROM routilux_parked WHERE worker = :worker AND seq = :seq AND reason IN ('dead', 'unroutable')"
)
_REQUESTS = text(
    "SELECT i.body FROM routilux_inbox AS i JOIN routilux_workers AS w ON w.worker_id = i.worker_id"
    " WHERE i.kind IN ('retry_dead', 'drop_dead') AND w.key = :worker"
)


def hold_letter(connection: Connection, worker_key: int, seq: int) -> bool:
    """Lock a dead letter until the end of a write transaction.

    Returns False if it is gone, or if the inbox already has a request for it.
    """
    row = {"worker": worker_key, "seq": seq}
    lock = " FOR UPDATE" if connection.dialect.name == "postgresql" else ""
    if connection.execute(text(_EXISTS + lock), row).first() is None:
        return False
    return not any(orjson.loads(body)["seq"] == seq for (body,) in connection.execute(_REQUESTS, row))


def _dead_letter(connection: Connection, row: Row[Any]) -> DeadLetterRecord:
    batch = connection.execute(
        select(messages.c.seq, messages.c.slot, messages.c.payload, jobs.c.job_id)
        .outerjoin(jobs, (jobs.c.worker == messages.c.worker) & (jobs.c.job == messages.c.job))
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
        dead_since=instant(row.parked_at),
    )
