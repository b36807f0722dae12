"""Accepts posts and signals: the owner of a worker gives each message its place in line.

Idempotency keys are settled inside the transaction, before anything is decided. A job id that is taken
answers with the job that has it, or with a conflict if it was posted as something else.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from routilux.core import payload
from routilux.core.mailbox import WorkerCell
from routilux.core.message import Job, Message
from routilux.core.outcome import Failure
from routilux.core.slot import Slot
from routilux.core.states import ENDED_WORKER, JobStatus, MessageStatus, ParkedReason
from routilux.engine.batch import Batch
from routilux.engine.clock import Clock
from routilux.engine.effects import emit
from routilux.engine.inputs import Post, PostIn
from routilux.errors import (
    IdempotencyConflictError,
    RoutiluxError,
    RoutineNotFoundError,
    SlotNotFoundError,
    SlotQueueFullError,
    WorkerEndedError,
    WorkerNotFoundError,
)
from routilux.store.writes.store import Commit


class NotOwned(Exception):
    """This runtime does not own the worker of a post."""

    def __init__(self, worker_id: str) -> None:
        super().__init__(worker_id)
        self.worker_id = worker_id


def fingerprint(flow: str, routine: str, slot: str, payload: str) -> str:
    """What a job was posted as. Two posts with one job id must have the same."""
    return sha256("\x1f".join((flow, routine, slot, payload)).encode()).hexdigest()


def claim(commit: Commit, posts: list[PostIn], batch: Batch) -> dict[str, tuple[str | None, str]]:
    """Settle the idempotency keys of a batch.

    Returns job id -> (worker id, fingerprint) of each id that is taken.
    """
    wanted = {
        post.job_id: post.fingerprint
        for entry in posts
        for post in entry.posts
        if post.fingerprint is not None
    }
    if not wanted:
        return {}
    workers = commit.job_workers(list(wanted))
    free = batch.claimed = commit.claim_keys(wanted, batch.now)
    taken = {job_id for job_id in wanted if job_id in workers or job_id not in free}
    if not taken:
        return {}
    prints = commit.known_keys([job_id for job_id in taken if job_id not in free])
    for job_id in taken - prints.keys():
        posted = commit.posted_as(job_id)
        if posted is not None:
            prints[job_id] = fingerprint(*posted)
    return {job_id: (workers.get(job_id), prints.get(job_id, "")) for job_id in taken}


def free_unused(batch: Batch, taken: dict[str, tuple[str | None, str]]) -> None:
    """Free the id of a post that was refused or waits for room. Its next try is not a repeat."""
    batch.unused_keys = batch.claimed - taken.keys()


def accept(
    batch: Batch,
    cell: WorkerCell | None,
    entry: PostIn,
    taken: dict[str, tuple[str | None, str]],
    clock: Clock,
) -> None:
    """Take a post into the batch, refuse it, or let it wait for room."""
    if cell is None or cell.is_forgotten:  # the caller finds the owner and tries again
        batch.refusals.append((entry.receipt, NotOwned(entry.worker_id)))
        return
    try:
        _check(cell, entry, taken)
    except SlotQueueFullError as error:
        if entry.deadline is not None and clock.monotonic() < entry.deadline:
            batch.follow.waiting_posts.append(entry)
        else:
            batch.refusals.append((entry.receipt, error))
        return
    except RoutiluxError as error:
        batch.refusals.append((entry.receipt, error))
        return
    for post in entry.posts:
        # a post with a generated id may have been made again while the first was in doubt: both may be here
        if post.job_id not in taken and post.job_id not in batch.posted:
            _store(batch, cell, entry, post)
            if post.fingerprint is not None:
                taken[post.job_id] = (cell.worker_id, post.fingerprint)
    worker_ids: dict[str, str | None] = {post.job_id: cell.worker_id for post in entry.posts}
    for job_id in taken.keys() & worker_ids.keys():
        worker_ids[job_id] = taken[job_id][0]
    batch.receipts.append((entry.receipt, worker_ids))


def _check(cell: WorkerCell, entry: PostIn, taken: dict[str, tuple[str | None, str]]) -> None:
    if cell.status in ENDED_WORKER:
        raise WorkerEndedError(cell.worker_id, str(cell.status))
    if cell.flow_name != entry.flow_name:
        raise WorkerNotFoundError(cell.worker_id)
    _check_target(cell, entry.routine, entry.slot)
    for post in entry.posts:
        known = taken.get(post.job_id)
        if known is not None and post.fingerprint != known[1]:
            raise IdempotencyConflictError(post.job_id)
    queue = cell.slot(entry.routine, entry.slot)
    if entry.inbox_id is not None:  # acknowledged already; the poster checked its limit, from counters
        for post in entry.posts:
            post.payload = fitted(queue.spec, post.payload)
        return
    limit = queue.spec.max_queue_length
    arriving = sum(1 for post in entry.posts if post.due_at is None and post.job_id not in taken)
    if limit is not None and arriving and queue.waiting + arriving > limit:
        raise SlotQueueFullError(entry.slot, limit)


def _check_target(cell: WorkerCell, routine: str, slot: str) -> None:
    """Check names against this definition: another process may have another one."""
    if routine not in cell.routines:
        raise RoutineNotFoundError(routine, cell.flow_name)
    if slot not in cell.routines[routine].slots:
        raise SlotNotFoundError(slot, routine)


def fitted(spec: Slot, text: str) -> str:
    """Check a payload of another process, which does not know the slot's model. Raises `SlotModelError`."""
    return text if spec.model is None else payload.encode(spec.check(payload.decode(text)))


def _store(batch: Batch, cell: WorkerCell, entry: PostIn, post: Post) -> None:
    job = Job(cell.next_seq, post.job_id, cell.worker_id, cell.flow_name, batch.now, post.metadata)
    cell.jobs[job.no] = job
    batch.posted[job.job_id] = job
    batch.touch(cell, job)
    batch.touch_worker(cell)
    if post.due_at is None or post.due_at <= batch.now:
        emit(batch, cell, job, entry.routine, entry.slot, post.payload, None)
        return
    message = Message(cell.take_seq(), job, entry.slot, post.payload, batch.now)
    job.add_message()
    cell.park_timed()
    batch.add_message(cell, message, entry.routine, MessageStatus.PARKED)
    batch.park(cell, [message], entry.routine, ParkedReason.DELAY, due_at=post.due_at)
    batch.expect(post.due_at)


def add_signal(batch: Batch, cell: WorkerCell, job: Job, routine: str, slot: str, text: str) -> None:
    """Add one message to a running job."""
    _check_target(cell, routine, slot)
    batch.touch(cell, job)
    emit(batch, cell, job, routine, slot, fitted(cell.slot(routine, slot).spec, text), None)


def keep_refused(
    batch: Batch,
    cell: WorkerCell,
    job_id: str,
    metadata: str | None,
    body: dict[str, Any],
    error: BaseException,
) -> None:
    """Keep a post of another process that cannot be accepted: a failed job with a dead letter."""
    job = Job(cell.take_seq(), job_id, cell.worker_id, cell.flow_name, batch.now, metadata)
    message = Message(job.no, job, body["slot"], body["payload"], batch.now)
    batch.touch_worker(cell)
    batch.add_message(cell, message, body["routine"], MessageStatus.DEAD)
    batch.park(cell, [message], body["routine"], ParkedReason.DEAD, failure=Failure.of(error))
    batch.end_job(cell, job, JobStatus.FAILED, str(error))
