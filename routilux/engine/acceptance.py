"""Posts and signals into rows: the owner gives each message its place in line.

Idempotency keys are settled inside the transaction, before anything is decided: an id that is taken answers with
the job that has it, or with a conflict when it was posted as something else.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from routilux.core import payload
from routilux.core.mailbox import WorkerCell
from routilux.core.message import Job, Message
from routilux.core.outcome import Failure
from routilux.core.slot import Slot
from routilux.core.states import ENDED_WORKER, JobStatus, MessageStatus, ParkedReason
from routilux.core.worker_state import added
from routilux.engine.batch import Batch
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

if TYPE_CHECKING:
    from routilux.engine.engine import Engine


def fingerprint(flow: str, routine: str, slot: str, payload: str) -> str:
    """What a job was posted as; two posts of one id must agree in it."""
    return sha256("\x1f".join((flow, routine, slot, payload)).encode()).hexdigest()


def claim(commit: Commit, posts: list[PostIn], batch: Batch) -> dict[str, tuple[str | None, str]]:
    """Settle the idempotency keys of a batch. job id -> (worker id, fingerprint) of each id that was taken already."""
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
    """A post that was refused, or waits for room, leaves its id free: else the next try would be taken for a repeat."""
    batch.unused_keys = batch.claimed - taken.keys()


def accept(engine: Engine, batch: Batch, entry: PostIn, taken: dict[str, tuple[str | None, str]]) -> None:
    """Take a post into the batch, refuse it, or let it wait for room."""
    cell = engine.by_id.get(entry.worker_id)
    if cell is None or cell.is_forgotten:
        engine.reroute(batch, entry)
        return
    try:
        _check(cell, entry, taken)
    except SlotQueueFullError as error:
        if entry.deadline is not None and engine.clock.monotonic() < entry.deadline:
            engine.waiting_posts.append(entry)
        else:
            batch.refusals.append((entry.receipt, error))
        return
    except RoutiluxError as error:
        batch.refusals.append((entry.receipt, error))
        return
    for post in entry.posts:
        # made again while the first, of a generated id, was in doubt: both may wait for the same commit
        if post.job_id not in taken and post.job_id not in batch.posted:
            _store(engine, batch, cell, entry, post)
            if post.fingerprint is not None:
                taken[post.job_id] = (cell.worker_id, post.fingerprint)
    mine = cell.worker_id
    worker_ids: dict[str, str | None] = {post.job_id: mine for post in entry.posts}
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
    if entry.inbox_id is not None:  # acknowledged already: its limit was checked at the door, from counters
        for post in entry.posts:
            post.payload = fitted(queue.spec, post.payload)
        return
    limit = queue.spec.max_queue_length
    arriving = sum(1 for post in entry.posts if post.due_at is None and post.job_id not in taken)
    if limit is not None and arriving and queue.waiting + arriving > limit:
        raise SlotQueueFullError(entry.slot, limit)


def _check_target(cell: WorkerCell, routine: str, slot: str) -> None:
    """What is there in this definition: another process may have looked at another."""
    if routine not in cell.routines:
        raise RoutineNotFoundError(routine, cell.flow_name)
    if slot not in cell.routines[routine].slots:
        raise SlotNotFoundError(slot, routine)


def fitted(spec: Slot, text: str) -> str:
    """A payload of another process, which has not seen the slot's model. Raises `SlotModelError`."""
    return text if spec.model is None else payload.encode(spec.check(payload.decode(text)))


def _store(engine: Engine, batch: Batch, cell: WorkerCell, entry: PostIn, post: Post) -> None:
    job = Job(cell.next_seq, post.job_id, cell.worker_id, cell.flow_name, batch.now, post.metadata)
    cell.jobs[job.no] = job
    batch.posted[job.job_id] = job
    batch.touch(cell, job)
    batch.touch_worker(cell)
    if post.due_at is None or post.due_at <= batch.now:
        emit(engine, batch, cell, job, entry.routine, entry.slot, post.payload, None)
        return
    message = Message(cell.next_seq, job, entry.slot, post.payload, batch.now)
    cell.next_seq += 1
    job.open_count = 1
    cell.timed_count += 1
    batch.add_message(cell, message, entry.routine, MessageStatus.PARKED)
    batch.park(cell, [message], entry.routine, ParkedReason.DELAY, due_at=post.due_at)
    engine.due.expect(post.due_at)


def add_signal(
    engine: Engine, batch: Batch, cell: WorkerCell, job: Job, routine: str, slot: str, text: str
) -> None:
    """One more message into a running job."""
    _check_target(cell, routine, slot)
    batch.touch(cell, job)
    emit(engine, batch, cell, job, routine, slot, fitted(cell.slot(routine, slot).spec, text), None)


def change_data(batch: Batch, cell: WorkerCell, job: Job, body: dict[str, Any]) -> None:
    """Job data that is set from outside logic."""
    if "by" in body:
        job.data[body["key"]] = added(job.data.get(body["key"]), body["by"])
    else:
        job.data[body["key"]] = body["text"]
    job.is_touched = job.has_details = True
    batch.touch(cell, job)


def keep_refused(
    batch: Batch,
    cell: WorkerCell,
    job_id: str,
    metadata: str | None,
    body: dict[str, Any],
    error: BaseException,
) -> None:
    """A post from another process that its owner cannot take: a failed job with a dead letter."""
    job = Job(cell.next_seq, job_id, cell.worker_id, cell.flow_name, batch.now, metadata)
    cell.next_seq += 1
    message = Message(job.no, job, body["slot"], body["payload"], batch.now)
    batch.touch_worker(cell)
    batch.add_message(cell, message, body["routine"], MessageStatus.DEAD)
    batch.park(cell, [message], body["routine"], ParkedReason.DEAD, failure=Failure.of(error))
    batch.end_job(cell, job, JobStatus.FAILED, str(error))
