"""Brings parked messages back into line, in a commit.

A message that has not run yet moves to a new place at the end of the line. A batch that has run keeps its
messages and gets a line number; its parked row stays until it is settled.
"""

from __future__ import annotations

from typing import Any

from routilux.core.mailbox import WorkerCell
from routilux.core.message import Message
from routilux.core.selection import is_paused
from routilux.core.states import ParkedReason
from routilux.engine import worker_loading
from routilux.engine.batch import Batch
from routilux.store.types import Row
from routilux.store.writes.commit_statements import PARKED


def bring_back(
    batch: Batch, cell: WorkerCell, row: Row[Any], messages: list[Message], attempt: int | None = None
) -> None:
    """Requeue what a parked row holds. Messages whose slot is gone from the definition stay, as unroutable.

    `attempt`: the attempt count to go on with; default: that of the row.
    """
    if row.due_at is None:
        batch.miscounted[cell] = None
    if not messages:
        batch.unpark(cell, row.seq)
    elif row.routine not in cell.routines or any(
        m.slot not in cell.routines[row.routine].slots for m in messages
    ):
        keep_unroutable(batch, cell, row, messages[0].slot)
    elif _has_not_run(row):
        move_into_line(batch, cell, row, messages)
    elif is_paused(messages):
        hold(batch, cell, row)
    else:
        rejoin(batch, cell, row, messages, row.attempt if attempt is None else attempt)


def _has_not_run(row: Row[Any]) -> bool:
    if row.reason == ParkedReason.PAUSED:
        return row.line is None
    return row.reason in (ParkedReason.DELAY, ParkedReason.UNROUTABLE)


def move_into_line(batch: Batch, cell: WorkerCell, row: Row[Any], messages: list[Message]) -> None:
    """Messages that have not run yet take a new seq at the end of the line."""
    batch.unpark(cell, row.seq)
    routine = cell.routines[row.routine]
    for old in messages:
        old.job.unpark_message()
        seq = cell.take_seq()
        batch.changes.moved.append((cell.key, old.seq, seq))
        batch.touch_worker(cell)
        routine.push(seq, old.job, old.slot, old.payload, batch.now, old.produced_by)
        batch.mark_ready(routine)


def rejoin(batch: Batch, cell: WorkerCell, row: Row[Any], messages: list[Message], attempt: int) -> None:
    """A batch that has run before gets a line number; its row stays until it is settled."""
    line = cell.take_seq()
    for message in messages:
        message.job.unpark_message()
    batch.touch_worker(cell)
    _rewrite(batch, cell, row, ParkedReason.RETRY, line, attempt=attempt)
    routine = worker_loading.add_rerun(cell, row, messages, line, attempt, batch.death_pauses)
    batch.mark_ready(routine)


def hold(batch: Batch, cell: WorkerCell, row: Row[Any]) -> None:
    """A batch came due while its job is paused. Its line number says that it has run before."""
    batch.miscounted[cell] = None
    _rewrite(batch, cell, row, ParkedReason.PAUSED, row.line or 0)


def keep_unroutable(batch: Batch, cell: WorkerCell, row: Row[Any], slot: str) -> None:
    """Keep it parked, with the reason why it has nowhere to go."""
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
