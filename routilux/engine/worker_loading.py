"""Reads workers from the database: what waits for them, their windows, their jobs.

It changes no other memory.

`exec` of a known worker, take-over, and recovery after an unexpected error all load a worker in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from routilux.core.compiled import CompiledFlow
from routilux.core.mailbox import RoutineCell, WorkerCell
from routilux.core.message import Job, Message, Rerun
from routilux.core.slot_queue import SlotQueue
from routilux.core.states import ENDED_WORKER, JobStatus, MessageStatus, WorkerStatus
from routilux.engine.death_pauses import DeathPauses
from routilux.errors import RoutiluxError, RoutineNotFoundError, SlotNotFoundError
from routilux.store.reads import parked_rows, worker_reads
from routilux.store.reads.worker_reads import StoredWorker
from routilux.store.types import Connection, Row

_JOB_STATUS = {str(status): status for status in JobStatus}
MOST_RERUNS = 1000
Unroutable = tuple[int, int, str, str]  # worker key, lowest seq, routine, slot


@dataclass(slots=True)
class LoadedWorker:
    """A worker as the database has it, and what follows for the parts of the engine."""

    cell: WorkerCell
    ready: list[RoutineCell] = field(default_factory=list)  # they have something to run
    is_uncounted: bool = False  # its counters must be written again
    unroutable: list[Unroutable] = field(default_factory=list)  # slots that the definition no longer has


def load_worker(
    connection: Connection, stored: StoredWorker, flow: CompiledFlow, window: int, pauses: DeathPauses
) -> LoadedWorker:
    """Read a worker of this runtime, with the first window of each slot and what came back into line."""
    worker_reads.along_keys(connection)
    cell = WorkerCell(
        stored.key, stored.worker_id, stored.flow, flow, is_named=stored.is_named, window=window
    )
    loaded = LoadedWorker(cell)
    lasts = stored.status == WorkerStatus.PAUSED or stored.status in ENDED_WORKER
    cell.start_from(
        status=stored.status if lasts else WorkerStatus.RUNNING,
        deaths=stored.deaths,
        numbers=worker_reads.next_numbers(connection, stored),
        state=worker_reads.state_of(connection, stored.key),
    )
    cell.recount(*parked_rows.counts(connection, stored.key))
    now = pauses.clock.now_us()
    for row in parked_rows.suspects(connection, cell.key):
        pause_us = pauses.us(row.deaths)
        # without a pause the time is 0: the wall clock may be set back
        cell.suspects[row.seq] = (row.deaths, now + pause_us if pause_us else 0)
    _load_slots(connection, loaded)
    _load_reruns(connection, loaded, pauses)
    loaded.ready.extend(routine for routine in cell.routines.values() if routine.has_backlog)
    return loaded


def _load_slots(connection: Connection, loaded: LoadedWorker) -> None:
    cell = loaded.cell
    counters = worker_reads.slot_counters(connection, cell.key)
    names = [(rid, name) for rid, routine in cell.routines.items() for name in routine.slots]
    # The slots of a definition are written together. A slot without a row has nothing older than the others.
    low = min((known.low_seq for known in counters.values()), default=0)
    counts = worker_reads.waiting_counts(connection, cell.key, low)
    for routine_id, slot_name in names:
        routine = cell.routines[routine_id]
        queue = routine.slots[slot_name]
        queue.start_at(counts.pop((routine_id, slot_name), 0), low)
        known = counters.get((routine_id, slot_name))
        if known is not None:
            routine.fired_at(known.last_fired_at)
            if known.waiting != queue.waiting:  # its last owner died before it wrote them again
                loaded.is_uncounted = True
        read_on(connection, routine, queue)
    gone = counts.keys() | (counters.keys() - set(names))
    loaded.unroutable.extend((cell.key, low, routine, slot) for routine, slot in sorted(gone))


def read_on(connection: Connection, routine: RoutineCell, queue: SlotQueue) -> None:
    """Read the next part of a slot into its window.

    Call it between two commits: memory and database agree then.
    """
    most, room = queue.room
    rows = worker_reads.window(
        connection, routine.worker.key, routine.routine_id, queue.name, queue.loaded_to, most, room
    )
    for message in messages_of(connection, routine.worker, rows):
        queue.load(message)
        if message.job.status == JobStatus.PAUSED:
            routine.purge_soon()
    is_full = len(rows) == most or sum(len(row.payload) for row in rows) > room
    queue.end_of_read(is_full=bool(rows) and is_full)


def messages_of(connection: Connection, worker: WorkerCell, rows: Sequence[Sequence[Any]]) -> list[Message]:
    """Message rows as live records, with their jobs."""
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
            jobs[number].park_message(count)
    return jobs


def as_job(worker: WorkerCell, row: Sequence[Any]) -> Job:
    """A row of `worker_reads.LIVE_JOB` as a live record."""
    (
        no, job_id, flow, status, open_count, metadata, data, statuses, result, error, created_at, started_at,
        ended_at, active_us,
    ) = row[: len(worker_reads.LIVE_JOB)]  # fmt: skip  # in the order of the columns
    job = Job.stored(
        no,
        job_id,
        worker.worker_id,
        flow,
        created_at,
        metadata,
        status=_JOB_STATUS[status],
        open_count=open_count,
        started_at=started_at,
        active_us=active_us,
    )
    if not (data is statuses is result is error is ended_at is None):
        routine_status = {} if statuses is None else orjson.loads(statuses)
        job.restore_details(worker_reads.texts_of(data), routine_status, result, error, ended_at)
    worker.jobs[no] = job
    return job


def _load_reruns(connection: Connection, loaded: LoadedWorker, pauses: DeathPauses) -> None:
    cell = loaded.cell
    for row in parked_rows.in_line(connection, cell.key):
        messages = parked_messages(connection, cell, orjson.loads(row.seqs))
        if messages and row.routine in cell.routines:
            for message in messages if cell.flow.execution_timeout is not None else ():
                message.job.unpark_message()  # `load_jobs` has counted it as parked, and it is in line
            loaded.ready.append(add_rerun(cell, row, messages, row.line, row.attempt, pauses))


def parked_messages(
    connection: Connection, cell: WorkerCell, seqs: Sequence[int], status: str = MessageStatus.PARKED
) -> list[Message]:
    """The messages of a parked batch that are still parked. A job that ended has taken its own along."""
    return messages_of(connection, cell, worker_reads.messages_with(connection, cell.key, seqs, status))


def add_rerun(
    cell: WorkerCell,
    row: Row[Any],
    messages: list[Message],
    line: int,
    attempt: int,
    pauses: DeathPauses,
) -> RoutineCell:
    """Put a parked batch into the line of its routine, in memory.

    Returns the routine: it has something to run.
    """
    routine = cell.routines[row.routine]
    not_before = pauses.not_before(row.deaths)
    routine.requeue(Rerun(row.seq, line, messages, attempt, row.deaths, row.policy_message, not_before))
    return routine


def gone_from(cell: WorkerCell, routine: str, slot: str) -> RoutiluxError:
    """Why a message has nowhere to go."""
    if routine in cell.routines:
        return SlotNotFoundError(slot, routine)
    return RoutineNotFoundError(routine, cell.flow_name)
