"""Pruning: ended jobs with all their rows, idempotency keys, commit rows. One bounded batch per call.

No index says when a job ended. That column changes, and with an index on it no update could stay in its page.
Instead a sweep walks the primary key, from the position where the last call stopped. The jobs of a worker are
numbered in the order of acceptance. So the first job that is younger than every limit ends the walk of that
worker: a sweep reads what it deletes and what it must keep, but not the young jobs. Commits are walked in the
same way. Keys have no such order: all of them are walked.

Dead letters, and anything else that has not been handled, keep their job.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, func, select, tuple_

from routilux.core.states import JobStatus, MessageStatus
from routilux.store.tables import activations, commits, job_keys, jobs, messages, runtimes, traces, workers

# A commit row is read after a lost answer, and the last one after a death. An hour is long after both.
COMMITS_KEPT_US = 3_600_000_000
# A job may have any number of rows. One call deletes this many per job of the batch; the next calls delete
# the rest.
ROWS_PER_JOB = 10
_DONE = (MessageStatus.CONSUMED, MessageStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a sweep continues: after this job (worker, job), and after this key.

    None: that walk has ended.
    """

    job: tuple[int, int] | None = (0, 0)
    key: str | None = ""


START = Position()


@dataclass(frozen=True, slots=True)
class PruneCounts:
    """Rows deleted by one batch, and where the next batch continues."""

    jobs: int = 0
    messages: int = 0
    activations: int = 0
    traces: int = 0
    keys: int = 0
    commits: int = 0
    position: Position = START

    @property
    def is_done(self) -> bool:
        """Whether the sweep has ended. A new one begins at `START`."""
        return self.position.job is None and self.position.key is None


@dataclass(frozen=True, slots=True)
class _Limits:
    """A job is deleted if it ended at or before the instant for its status."""

    completed_us: int
    failed_us: int

    @property
    def youngest_us(self) -> int:
        return max(self.completed_us, self.failed_us)

    def has_expired(self, job: Row[Any]) -> bool:
        if job.ended_at is None:
            return False
        match job.status:
            case JobStatus.COMPLETED:
                return bool(job.ended_at <= self.completed_us)
            case JobStatus.FAILED | JobStatus.CANCELLED:
                return bool(job.ended_at <= self.failed_us)
            case _:
                return False


def prune(
    connection: Connection,
    *,
    now_us: int,
    completed_after_us: int,
    failed_after_us: int,
    keys_after_us: int,
    batch: int,
    position: Position = START,
) -> PruneCounts:
    """Delete one batch inside the caller's transaction.

    `…_after_us` are ages in µs: of completed jobs, of failed and cancelled jobs, of idempotency keys.
    `batch`: one call examines at most so many jobs, keys, and commits of each runtime. Call again with
    `counts.position` until `counts.is_done`. Commit after each call.
    """
    limits = _Limits(now_us - completed_after_us, now_us - failed_after_us)
    counts = PruneCounts(
        position=position, commits=_prune_commits(connection, now_us - COMMITS_KEPT_US, batch)
    )
    if position.job is not None:
        counts = _prune_jobs(connection, counts, limits, position.job, batch)
    if position.key is not None:
        counts = _prune_keys(connection, counts, now_us - keys_after_us, position.key, batch)
    return counts


# jobs


def _prune_jobs(
    connection: Connection, counts: PruneCounts, limits: _Limits, after: tuple[int, int], batch: int
) -> PruneCounts:
    """Continue the walk through the workers until `batch` jobs, or as many workers, were examined."""
    room, last = batch, after[1]
    keys = select(workers.c.key).where(workers.c.key >= after[0]).order_by(workers.c.key).limit(batch)
    walked = connection.execute(keys).scalars().all()
    for worker in walked:
        last = last if worker == after[0] else 0
        old = _old_jobs(connection, worker, last, limits, room)
        counts, is_clean = _delete_jobs(
            connection, counts, worker, _deletable(connection, worker, old, limits), batch
        )
        if not is_clean:
            return _at(counts, (worker, last))
        room -= len(old)
        last = old[-1].job if old else last
        if room == 0:
            return _at(counts, (worker, last))
    return _at(counts, (walked[-1] + 1, 0) if len(walked) == batch else None)


def _at(counts: PruneCounts, job: tuple[int, int] | None) -> PruneCounts:
    return replace(counts, position=replace(counts.position, job=job))


def _old_jobs(connection: Connection, worker: int, after: int, limits: _Limits, most: int) -> list[Row[Any]]:
    # SKIP LOCKED (Postgres): a job that its owner is writing now has not ended long ago
    query = (
        select(jobs.c.job, jobs.c.status, jobs.c.created_at, jobs.c.ended_at)
        .where(jobs.c.worker == worker, jobs.c.job > after)
        .order_by(jobs.c.job)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    return list(takewhile(lambda job: job.created_at <= limits.youngest_us, connection.execute(query)))


def _deletable(connection: Connection, worker: int, old: list[Row[Any]], limits: _Limits) -> list[int]:
    over = [job.job for job in old if limits.has_expired(job)]
    if not over:
        return []
    needed = select(messages.c.job).where(
        messages.c.worker == worker, messages.c.job.in_(over), messages.c.status.not_in(_DONE)
    )
    kept = set(connection.execute(needed.distinct()).scalars())
    return [job for job in over if job not in kept]


def _delete_jobs(
    connection: Connection, counts: PruneCounts, worker: int, numbers: list[int], batch: int
) -> tuple[PruneCounts, bool]:
    """Delete the rows of the jobs first.

    When none are left, delete the jobs. Returns whether none were left.
    """
    if not numbers:
        return counts, True
    most = batch * ROWS_PER_JOB
    gone = {
        table: _delete_rows(connection, table, worker, numbers, most)
        for table in (traces, activations, messages)
    }
    is_clean = all(count < most for count in gone.values())
    if is_clean:
        where = (jobs.c.worker == worker, jobs.c.job.in_(numbers))
        gone[jobs] = connection.execute(delete(jobs).where(*where)).rowcount
    counts = replace(
        counts,
        jobs=counts.jobs + gone.get(jobs, 0),
        messages=counts.messages + gone[messages],
        activations=counts.activations + gone[activations],
        traces=counts.traces + gone[traces],
    )
    return counts, is_clean


def _delete_rows(connection: Connection, table: Table, worker: int, numbers: list[int], most: int) -> int:
    """Delete at most `most` rows of these jobs, found by the index on (worker, job)."""
    keys = list(table.primary_key)[1:]
    some = select(*keys).where(table.c.worker == worker, table.c.job.in_(numbers)).limit(most)
    return connection.execute(delete(table).where(table.c.worker == worker, tuple_(*keys).in_(some))).rowcount


# keys and commits


def _prune_keys(
    connection: Connection, counts: PruneCounts, until_us: int, after: str, batch: int
) -> PruneCounts:
    query = select(job_keys.c.job_id, job_keys.c.created_at).where(job_keys.c.job_id > after)
    rows = connection.execute(query.order_by(job_keys.c.job_id).limit(batch)).all()
    old = [row.job_id for row in rows if row.created_at <= until_us]
    if old:
        connection.execute(delete(job_keys).where(job_keys.c.job_id.in_(old)))
    key = rows[-1].job_id if len(rows) == batch else None
    return replace(counts, keys=len(old), position=replace(counts.position, key=key))


def _prune_commits(connection: Connection, until_us: int, batch: int) -> int:
    """Delete old commit rows of each runtime.

    A runtime that may have work in flight keeps its last row, however old.
    """
    owns = select(workers.c.key).where(workers.c.owner == runtimes.c.key).exists()
    found = connection.execute(
        select(runtimes.c.key, ((runtimes.c.state == "alive") | owns).label("is_needed"))
    ).all()
    return sum(_prune_commits_of(connection, row.key, row.is_needed, until_us, batch) for row in found)


def _prune_commits_of(
    connection: Connection, runtime: int, is_needed: bool, until_us: int, batch: int
) -> int:
    mine = commits.c.runtime == runtime
    query = select(commits.c.n, commits.c.committed_at).where(mine).order_by(commits.c.n).limit(batch)
    if is_needed:
        newest = connection.execute(select(func.max(commits.c.n)).where(mine)).scalar() or 0
        query = query.where(commits.c.n < newest)
    old = list(takewhile(lambda row: row.committed_at <= until_us, connection.execute(query)))
    if not old:
        return 0
    return connection.execute(delete(commits).where(mine, commits.c.n <= old[-1].n)).rowcount
