"""Workers in memory: loading what waits for them, moving their windows on, forgetting and loading again.

Take-over, `exec` of a known worker and recovery after an unexpected error all use the same path: `load`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from sqlalchemy import Connection, Row

from routilux.core.compiled import CompiledFlow
from routilux.core.mailbox import RoutineCell, SlotQueue, WorkerCell
from routilux.core.message import Job, Message, Rerun
from routilux.core.outcome import Failure, Outcome
from routilux.core.states import ENDED_WORKER, JobStatus, MessageStatus, ParkedReason, WorkerStatus
from routilux.engine.batch import Batch
from routilux.errors import RoutiluxError, RoutineNotFoundError, SlotNotFoundError
from routilux.store.reads import parked_rows, worker_reads
from routilux.store.reads.worker_reads import StoredWorker

if TYPE_CHECKING:
    from routilux.engine.engine import Engine

log = logging.getLogger("routilux")
_JOB_STATUS = {str(status): status for status in JobStatus}
MOST_RERUNS = 1000


class Flows(Protocol):
    """The flow definitions that this runtime can run."""

    def has(self, name: str) -> bool: ...
    def names(self) -> list[str]: ...
    def get(self, name: str) -> CompiledFlow: ...
    def definition(self, name: str) -> tuple[str, str]: ...
    def prepare(self, name: str) -> str: ...
    def entry(self, name: str) -> tuple[str, str]: ...


class NotMine(Exception):
    """The worker of a post is not owned by this runtime."""

    def __init__(self, worker_id: str) -> None:
        super().__init__(worker_id)
        self.worker_id = worker_id


def load(engine: Engine, connection: Connection, stored: StoredWorker) -> WorkerCell:
    """A worker that I own, with the first window of each slot and what has come back into line."""
    worker_reads.along_keys(connection)
    cell = WorkerCell(
        stored.key,
        stored.worker_id,
        stored.flow,
        engine.flows.get(stored.flow),
        is_named=stored.is_named,
        window=engine.settings.window,
    )
    lasts = stored.status == WorkerStatus.PAUSED or stored.status in ENDED_WORKER
    cell.status = stored.status if lasts else WorkerStatus.RUNNING
    cell.stored_status = stored.status
    cell.deaths = stored.deaths
    cell.next_seq, cell.next_n = worker_reads.next_numbers(connection, stored)
    cell.state = worker_reads.state_of(connection, stored.key)
    cell.timed_count, cell.held_count = parked_rows.counts(connection, stored.key)
    _load_suspects(engine, connection, cell)
    _load_slots(engine, connection, cell)
    _load_reruns(engine, connection, cell)
    before = engine.workers.get(cell.key)
    if (
        before is not None
    ):  # a read that failed at its very end is tried again: only one may run what it found
        forget(engine, before)
    engine.workers[cell.key] = cell
    engine.by_id[cell.worker_id] = cell
    if stored.status in ENDED_WORKER:  # only to refuse what arrives, or to let go of it once more
        engine.to_release.append(cell)
    engine.due.expect_soon()
    for routine in cell.routines.values():
        if routine.has_backlog:
            engine.note(routine)
    return cell


def _load_suspects(engine: Engine, connection: Connection, cell: WorkerCell) -> None:
    now = engine.clock.now_us()
    for row in parked_rows.suspects(connection, cell.key):
        pause_us = death_pause_us(engine, row.deaths)
        # no pause is no time: the wall clock may be set back before it has come
        cell.suspects[row.seq] = (row.deaths, now + pause_us if pause_us else 0)


def death_pause_us(engine: Engine, deaths: int) -> int:
    pauses = engine.settings.death_pause_s
    return round(pauses[min(deaths, len(pauses) - 1)] * 1e6)


def _load_slots(engine: Engine, connection: Connection, cell: WorkerCell) -> None:
    counters = worker_reads.slot_counters(connection, cell.key)
    names = [(rid, name) for rid, routine in cell.routines.items() for name in routine.slots]
    # all slots of a definition are written together, so one without a row has nothing older than the oldest of the others
    low = min((known.low_seq for known in counters.values()), default=0)
    counts = worker_reads.waiting_counts(connection, cell.key, low)
    for routine_id, slot_name in names:
        routine = cell.routines[routine_id]
        queue = routine.slots[slot_name]
        queue.waiting = counts.pop((routine_id, slot_name), 0)
        queue.has_more = queue.waiting > 0
        queue.loaded_to = low - 1
        known = counters.get((routine_id, slot_name))
        if known is not None:
            routine.last_fired_at = known.last_fired_at or routine.last_fired_at
            if known.waiting != queue.waiting:  # its last owner died before it wrote them again
                engine.uncounted[cell] = None
        _fill(connection, routine, queue)
    gone = counts.keys() | (counters.keys() - set(names))
    engine.unroutable.extend((cell.key, low, routine, slot) for routine, slot in sorted(gone))


def _fill(connection: Connection, routine: RoutineCell, queue: SlotQueue) -> None:
    """Read on in a slot. Memory and database agree when this is called: between two commits."""
    most, room = queue.room
    rows = worker_reads.window(
        connection, routine.worker.key, routine.routine_id, queue.name, queue.loaded_to, most, room
    )
    for message in _messages(connection, routine.worker, rows):
        queue.load(message)
        routine.needs_purge = routine.needs_purge or message.job.status == JobStatus.PAUSED
    full = len(rows) == most or sum(len(row.payload) for row in rows) > room
    queue.has_more = bool(rows) and full


def _messages(connection: Connection, worker: WorkerCell, rows: Sequence[Sequence[Any]]) -> list[Message]:
    jobs = load_jobs(connection, worker, {row[1] for row in rows})
    messages = [
        Message(seq, jobs[job], slot, text, created_at, produced_by)
        for seq, job, slot, text, created_at, produced_by in rows
    ]
    for message in messages if worker.suspects else ():
        if message.seq in worker.suspects:
            message.deaths, message.not_before = worker.suspects[message.seq]
    return messages


def load_jobs(connection: Connection, worker: WorkerCell, numbers: set[int]) -> dict[int, Job]:
    """Live job records by number: those in memory, and the rest from the database."""
    jobs = {
        number: job
        for number in numbers
        if (job := worker.jobs.get(number)) is not None and not job.has_ended
    }
    missing = sorted(numbers - jobs.keys())
    for row in worker_reads.jobs_with(connection, worker.key, missing):
        jobs[row[0]] = as_job(worker, row)
    if missing and worker.flow.execution_timeout is not None:
        for number, count in parked_rows.per_job(connection, worker.key, missing):
            jobs[number].parked_count = count
    return jobs


def as_job(worker: WorkerCell, row: Sequence[Any]) -> Job:
    """A row of `worker_reads.LIVE_JOB` as a live record."""
    (
        no, job_id, flow, status, open_count, metadata, data, statuses, result, error, created_at, started_at, ended_at,
        active_us,
    ) = row[:14]  # fmt: skip
    job = Job(no, job_id, worker.worker_id, flow, created_at, metadata)
    job.status = _JOB_STATUS[status]
    job.open_count = job.stored_open_count = open_count
    job.started_at, job.active_us = started_at, active_us
    job.is_new = False
    if not (data is statuses is result is error is ended_at is None):
        job.has_details = True
        job.data = worker_reads.texts_of(data)
        job.routine_status = {} if statuses is None else orjson.loads(statuses)
        job.result, job.error, job.ended_at = result, error, ended_at
    worker.jobs[no] = job
    return job


def _load_reruns(engine: Engine, connection: Connection, cell: WorkerCell) -> None:
    for row in parked_rows.in_line(connection, cell.key):
        messages = parked_messages(connection, cell, orjson.loads(row.seqs))
        if messages and row.routine in cell.routines:
            for message in messages if cell.flow.execution_timeout is not None else ():
                message.job.parked_count -= 1  # `load_jobs` has counted it, and it is in line
            add_rerun(engine, cell, row, messages, row.line, row.attempt)


def parked_messages(
    connection: Connection, cell: WorkerCell, seqs: Sequence[int], status: str = MessageStatus.PARKED
) -> list[Message]:
    """Those of a parked batch that are still parked: a job that ended has taken its own along."""
    return _messages(connection, cell, worker_reads.messages_with(connection, cell.key, seqs, status))


def add_rerun(
    engine: Engine, cell: WorkerCell, row: Row[Any], messages: list[Message], line: int, attempt: int
) -> None:
    """A parked batch is in the line again, in memory."""
    routine = cell.routines[row.routine]
    not_before = engine.clock.now_us() + death_pause_us(engine, row.deaths) if row.deaths else 0
    routine.reruns.append(Rerun(row.seq, line, messages, attempt, row.deaths, row.policy_message, not_before))
    engine.note(routine)


def refill(engine: Engine) -> None:
    """Windows that run low are read on."""
    if not engine.low:
        return
    with engine.store.read() as connection:
        worker_reads.along_keys(connection)
        for routine, queue in engine.low:
            if not routine.worker.is_forgotten and queue.wants_more:
                _fill(connection, routine, queue)
                engine.note(routine)
    engine.low = {}  # not before the read has ended well


def write_worker(
    batch: Batch, worker: WorkerCell, reason: str | None = None, ended_at: int | None = None
) -> None:
    status = worker.status
    batch.changes.workers[worker.key] = (
        worker.key, status, worker.next_seq, worker.next_n, worker.deaths, reason, batch.now, ended_at,
    )  # fmt: skip
    worker.stored_status = status


def forget(engine: Engine, worker: WorkerCell) -> None:
    """Its memory is void: runs of it are told to stop, outcomes that still come are dropped."""
    worker.is_forgotten = True
    if engine.workers.get(worker.key) is worker:
        del engine.workers[worker.key]
    if engine.by_id.get(worker.worker_id) is worker:
        del engine.by_id[worker.worker_id]
    for routine in worker.routines.values():
        for run in routine.runs:
            run.should_stop = run.is_broken = True
    if engine.lone_cell is not None and engine.lone_cell.worker is worker:
        engine.lone_cell = None


def reload(engine: Engine, worker: WorkerCell) -> None:
    """Forget a worker and load it again as the database has it. Errors that pass are tried again."""
    if worker.is_forgotten:
        return
    forget(engine, worker)

    def again() -> None:
        with engine.store.read() as connection:
            stored = worker_reads.worker_with_key(connection, worker.key)
            if stored is not None and stored.owner == engine.runtime_key:
                load(engine, connection, stored)

    engine.patiently(again)


def convict(engine: Engine, outcome: Outcome, cause: BaseException) -> None:
    """The commit of this outcome alone was refused: when its messages come up again, they fail with the cause."""
    key = outcome.run.cell.worker.key, outcome.activation.seqs[0]
    engine.verdicts[key] = cause, engine.clock.monotonic()


def gone_from(cell: WorkerCell, routine: str, slot: str) -> RoutiluxError:
    """Why a message has nowhere to go."""
    if routine in cell.routines:
        return SlotNotFoundError(slot, routine)
    return RoutineNotFoundError(routine, cell.flow_name)


def park_unroutable(engine: Engine, batch: Batch) -> None:
    """Messages whose routine or slot is gone from the definition leave the line; they are never deleted."""
    work, engine.unroutable = engine.unroutable, []
    for key, low, routine, slot in work:
        cell = engine.workers.get(key)
        if cell is not None:
            _park_unroutable(engine, batch, cell, low, routine, slot)


def _park_unroutable(
    engine: Engine, batch: Batch, cell: WorkerCell, low: int, routine: str, slot: str
) -> None:
    def find(connection: Connection) -> list[Message]:
        rows = worker_reads.unroutable(connection, cell.key, low, routine, slot, MOST_RERUNS)
        return _messages(connection, cell, rows)

    messages = engine.read(find)
    for message in messages:
        batch.settle(cell, message.seq, MessageStatus.PARKED)
        cause = Failure.of(gone_from(cell, routine, slot))
        batch.park(cell, [message], routine, ParkedReason.UNROUTABLE, failure=cause)
    if len(messages) == MOST_RERUNS:
        engine.unroutable.append((cell.key, messages[-1].seq + 1, routine, slot))
    else:  # or every start would look for them again, from there on
        nothing = (cell.key, routine, slot, 0, cell.next_seq, None, batch.now)
        batch.changes.slots[cell.key, routine, slot] = nothing
