"""Reads of the engine: messages and batches that cannot run now, and when they may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from routilux.store.tables import messages, parked, workers


def per_job(connection: Connection, worker: int, numbers: Sequence[int]) -> list[Any]:
    """(job, number of its parked messages), for those of the jobs that have any."""
    query = select(messages.c.job, func.count()).where(
        messages.c.worker == worker, messages.c.job.in_(numbers), messages.c.status == "parked"
    )
    return list(connection.execute(query.group_by(messages.c.job)))


def in_line(connection: Connection, worker: int) -> list[Any]:
    """Batches that were requeued and have not run yet."""
    query = (
        select(parked)
        .where(parked.c.worker == worker, parked.c.line.is_not(None), parked.c.reason != "paused")
        .order_by(parked.c.line)
    )
    return list(connection.execute(query))


def suspects(connection: Connection, worker: int) -> list[Any]:
    return list(
        connection.execute(select(parked).where(parked.c.worker == worker, parked.c.reason == "suspect"))
    )


def of_job(connection: Connection, worker: int, job: int, reason: str) -> list[Any]:
    """Parked rows of a job with this reason. `job` 0: batches of several jobs."""
    query = select(parked).where(parked.c.worker == worker, parked.c.job == job, parked.c.reason == reason)
    return list(connection.execute(query.order_by(parked.c.seq)))


def row(connection: Connection, worker: int, seq: int) -> Any:
    return connection.execute(select(parked).where(parked.c.worker == worker, parked.c.seq == seq)).first()


def counts(connection: Connection, worker: int) -> tuple[int, int]:
    """How many rows are parked with a due time, and how many until an operator acts."""
    timed = func.count().filter(parked.c.due_at.is_not(None))
    held = func.count().filter(parked.c.reason.in_(("paused", "unroutable")), parked.c.due_at.is_(None))
    row = connection.execute(select(timed, held).where(parked.c.worker == worker)).one()
    return row[0], row[1]


def due(connection: Connection, runtime: int, now: int, most: int, without: Sequence[int] = ()) -> list[Any]:
    """Parked rows of this runtime's workers that are due, oldest first.

    `without`: keys of workers to leave out.
    """
    query = (
        select(parked)
        .join(workers, workers.c.key == parked.c.worker)
        .where(
            parked.c.due_at <= now,
            parked.c.due_at.is_not(None),
            workers.c.owner == runtime,
            workers.c.key.not_in(without),
        )
        .order_by(parked.c.due_at, parked.c.worker, parked.c.seq)
        .limit(most)
    )
    return list(connection.execute(query))


def next_due_at(connection: Connection, runtime: int, without: Sequence[int] = ()) -> int | None:
    """The earliest due time among this runtime's workers. `without`: keys of workers to leave out."""
    query = (
        select(parked.c.due_at)
        .join(workers, workers.c.key == parked.c.worker)
        .where(parked.c.due_at.is_not(None), workers.c.owner == runtime, workers.c.key.not_in(without))
        .order_by(parked.c.due_at)
        .limit(1)
    )
    return connection.execute(query).scalar()
