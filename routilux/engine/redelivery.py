"""What was parked until a time comes back into line.

Rows are the truth: whoever owns the worker reads what is due, in bounded batches, and gives it a place at the end
of the line. A delayed message moves there; a batch that is retried keeps its messages and gets a line number.
The engine's sleep ends when the next is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Connection, Row

from routilux.core.mailbox import WorkerCell
from routilux.core.message import Message
from routilux.core.selection import is_paused
from routilux.core.states import JobStatus, ParkedReason
from routilux.engine import worker_loading
from routilux.engine.batch import Batch
from routilux.store.reads import parked_rows, worker_reads
from routilux.store.writes.commit_rows import PARKED

if TYPE_CHECKING:
    from routilux.engine.engine import Engine

BATCH = 500
Found = tuple[WorkerCell, Row[Any], list[Message]]


class Due:
    """When to look next, and the rows that were found."""

    def __init__(self) -> None:
        self.next_at: int | None = None
        self.found: list[Found] = []  # for the next commit
        self.full: list[int] = []  # workers that hold enough in memory: their rows wait
        self.must_look = False

    def expect(self, due_at: int) -> None:
        """Something comes due at this time."""
        if self.next_at is None or due_at < self.next_at:
            self.next_at = due_at

    def in_s(self, now: int) -> float | None:
        """Seconds until there is something to look at; None: it is not known, or it is to be looked at as soon as can be."""
        return None if self.must_look or self.next_at is None else max(0.0, (self.next_at - now) / 1e6)

    def expect_soon(self) -> None:
        self.must_look = True


def look(engine: Engine) -> None:
    """Read what is due, except for workers of which enough that came back still waits. Between two commits."""
    due = engine.due
    now = engine.clock.now_us()
    if due.full and not all(_is_full(engine, key) for key in due.full):
        due.must_look = True
    if due.found:  # that commit was refused: jobs may have been let go of since, and read again
        due.found, due.must_look = [], True
    if not (due.must_look or (due.next_at is not None and due.next_at <= now)):
        return
    due.full = [key for key in engine.workers if _is_full(engine, key)]
    with engine.store.read() as connection:
        clock = engine.store.database.now_us(connection) if engine.clock_is_real else now
        worker_reads.along_keys(connection)
        rows = parked_rows.due(connection, engine.runtime_key, clock, BATCH, due.full)
        due.found = _with_messages(engine, connection, rows)
        due.next_at = parked_rows.next_due_at(connection, engine.runtime_key, due.full)
    # more than a batch, or what was just read
    due.must_look = due.next_at is not None and due.next_at <= clock
    if due.next_at is not None and not due.must_look:  # the engine's clock is a little ahead of the server's
        due.next_at += engine.clock.now_us() - clock


def _with_messages(engine: Engine, connection: Connection, rows: Sequence[Row[Any]]) -> list[Found]:
    """Those of my workers, each with its messages: read worker by worker, as a burst has hundreds of rows."""
    mine: dict[int, list[tuple[Row[Any], list[int]]]] = {}
    for row in rows:
        mine.setdefault(row.worker, []).append((row, orjson.loads(row.seqs)))
    found = []
    for key, some in mine.items():
        cell = engine.workers.get(key)
        if cell is None:
            continue
        seqs = [seq for _, each in some for seq in each]
        messages = {
            message.seq: message for message in worker_loading.parked_messages(connection, cell, seqs)
        }
        found += [
            (cell, row, [messages[seq] for seq in sorted(each) if seq in messages]) for row, each in some
        ]
    return found


def _is_full(engine: Engine, key: int) -> bool:
    worker = engine.workers.get(key)
    return worker is not None and worker.rerun_count >= worker_loading.MOST_RERUNS


def apply(engine: Engine, batch: Batch) -> None:
    """What was found joins the line with this commit."""
    found, engine.due.found = engine.due.found, []
    for cell, row, messages in found:
        # what was loaded in the place of a forgotten worker has other records of these jobs
        if not cell.is_forgotten:
            cell.timed_count -= 1
            batch.touch_worker(cell)
            bring_back(engine, batch, cell, row, messages)


def bring_back(
    engine: Engine,
    batch: Batch,
    cell: WorkerCell,
    row: Row[Any],
    messages: list[Message],
    attempt: int | None = None,
) -> None:
    """Parked messages come to the end of the line; what the definition no longer has is kept as unroutable."""
    if row.due_at is None:
        batch.miscounted[cell] = None
    if not messages:
        batch.unpark(cell, row.seq)
    elif row.routine not in cell.routines or any(
        m.slot not in cell.routines[row.routine].slots for m in messages
    ):
        keep_unroutable(batch, cell, row, messages[0].slot)
    elif _has_not_run(row):
        move_into_line(engine, batch, cell, row, messages)
    elif is_paused(messages):
        hold(batch, cell, row)
    else:
        rejoin(engine, batch, cell, row, messages, row.attempt if attempt is None else attempt)


def _has_not_run(row: Row[Any]) -> bool:
    if row.reason == ParkedReason.PAUSED:
        return row.line is None
    return row.reason in (ParkedReason.DELAY, ParkedReason.UNROUTABLE)


def move_into_line(
    engine: Engine, batch: Batch, cell: WorkerCell, row: Row[Any], messages: list[Message]
) -> None:
    """Messages that have not run yet take a new seq at the end of the line."""
    batch.unpark(cell, row.seq)
    routine = cell.routines[row.routine]
    for old in messages:
        old.job.parked_count -= 1
        seq = cell.next_seq
        cell.next_seq += 1
        batch.changes.moved.append((cell.key, old.seq, seq))
        batch.touch_worker(cell)
        routine.slots[old.slot].push(seq, old.job, old.payload, batch.now, old.produced_by)
        routine.is_asked = False
        if old.job.status == JobStatus.PAUSED:
            routine.needs_purge = True
        engine.note(routine)


def rejoin(
    engine: Engine, batch: Batch, cell: WorkerCell, row: Row[Any], messages: list[Message], attempt: int
) -> None:
    """A batch that has run before gets a line number; its row stays until it is settled."""
    line = cell.next_seq
    cell.next_seq += 1
    for message in messages:
        message.job.parked_count -= 1
    batch.touch_worker(cell)
    _rewrite(batch, cell, row, ParkedReason.RETRY, line, attempt=attempt)
    worker_loading.add_rerun(engine, cell, row, messages, line, attempt)


def hold(batch: Batch, cell: WorkerCell, row: Row[Any]) -> None:
    """A batch that came due while its job is paused; a line number says that it has run before."""
    batch.miscounted[cell] = None
    _rewrite(batch, cell, row, ParkedReason.PAUSED, row.line or 0)


def keep_unroutable(batch: Batch, cell: WorkerCell, row: Row[Any], slot: str) -> None:
    batch.miscounted[cell] = None
    cause = worker_loading.gone_from(cell, row.routine, slot)
    _rewrite(
        batch, cell, row, ParkedReason.UNROUTABLE, None, error_type=type(cause).__name__, error=str(cause)
    )


def _rewrite(
    batch: Batch, cell: WorkerCell, row: Row[Any], reason: ParkedReason, line: int | None, **more: Any
) -> None:
    """A parked row that waits for no time any more."""
    values = {**row._mapping, "reason": str(reason), "due_at": None, "line": line, **more}
    batch.changes.parked[cell.key, row.seq] = tuple(values[name] for name in PARKED)
