"""How much waits and is parked: counted in memory, written about once a second, counted in SQL where only that knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routilux.core.mailbox import RoutineCell, SlotQueue, WorkerCell
from routilux.core.states import ENDED_WORKER
from routilux.engine import worker_loading
from routilux.engine.batch import Batch
from routilux.store.reads import parked_rows

if TYPE_CHECKING:
    from routilux.engine.engine import Engine

SLOTS_EVERY_US = 1_000_000


def refresh(engine: Engine, batch: Batch) -> None:
    """About once a second, and once more when there is nothing more to do: counters of slots and workers that did
    something. A start reads only what waits, and whoever posts from outside learns by them whether there is room."""
    behind = engine.uncounted
    is_first = False
    for worker in batch.workers.values():
        behind[worker] = None
        is_first = is_first or not worker.refreshed_at
    if not is_first and 0 <= batch.now - engine.counted_at < SLOTS_EVERY_US // 4:  # there may be thousands
        return
    engine.counted_at = batch.now
    for worker in list(behind):
        if not 0 <= batch.now - worker.refreshed_at < SLOTS_EVERY_US:  # below: the clock was set back
            del behind[worker]
            if engine.workers.get(worker.key) is worker and worker.status not in ENDED_WORKER:
                worker.refreshed_at = batch.now
                write_slots(batch, worker)
                worker_loading.write_worker(batch, worker)


def write_slots(batch: Batch, worker: WorkerCell) -> None:
    for routine in worker.routines.values():
        for queue in routine.slots.values():
            batch.changes.slots[worker.key, routine.routine_id, queue.name] = (
                worker.key,
                routine.routine_id,
                queue.name,
                queue.waiting,
                _low_seq(routine, queue),
                routine.last_fired_at,
                batch.now,
            )


def _low_seq(routine: RoutineCell, queue: SlotQueue) -> int:
    """No waiting message of the slot has a smaller seq."""
    running = [
        message.seq
        for run in routine.runs
        for activation in run.activations[run.settled :]
        for message in activation.messages
        if message.slot == queue.name
    ]
    candidates = [*running, *([queue.items[0].seq] if queue.items else [])]
    if queue.has_more:
        candidates.append(queue.loaded_to + 1)
    return min(candidates, default=routine.worker.next_seq)


def count_out(engine: Engine, batch: Batch) -> None:
    """Messages that ended jobs took along wait no more; those of them that are in runs leave with their outcome."""
    for worker, routine, slot, count in batch.changes.swept_counts:
        cell = engine.workers.get(worker)
        if cell is not None and routine in cell.routines and slot in cell.routines[routine].slots:
            cell.slot(routine, slot).waiting -= count
            engine.uncounted[cell] = None
    ended = set(batch.ended_jobs)
    for run in engine.runs:
        for activation in run.activations[run.settled :] if not run.cell.worker.is_forgotten else ():
            for message in activation.messages if activation.rerun is None else ():
                if message.job in ended:
                    engine.uncounted[run.cell.worker] = None
                    run.cell.slots[message.slot].waiting += 1


def recount(engine: Engine) -> None:
    """Rows that a job took along with its end, or that wait for an operator, are counted where they are."""
    if engine.miscounted:
        with engine.store.read() as connection:
            for cell in engine.miscounted:
                cell.timed_count, cell.held_count = parked_rows.counts(connection, cell.key)
        engine.miscounted = {}
