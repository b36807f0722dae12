"""The counter rows of the slots of a worker."""

from __future__ import annotations

from routilux.core.mailbox import RoutineCell, WorkerCell
from routilux.core.slot_queue import SlotQueue
from routilux.engine.batch import Batch


def write_slots(batch: Batch, worker: WorkerCell) -> None:
    """The counter rows of all slots of a worker."""
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
        for activation in run.unsettled
        for message in activation.messages
        if message.slot == queue.name
    ]
    candidates = [*running, *([queue.items[0].seq] if queue.items else [])]
    if queue.has_more:
        candidates.append(queue.loaded_to + 1)
    return min(candidates, default=routine.worker.next_seq)
