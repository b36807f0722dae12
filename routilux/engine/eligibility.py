"""What a routine may run now, and what happens to messages that were picked and do not run. Owns no state."""

from __future__ import annotations

from routilux.core.mailbox import RoutineCell
from routilux.core.message import Activation, Message
from routilux.core.policies import AllSlotsReadyPolicy, BatchSizePolicy
from routilux.core.selection import Pick, give_back
from routilux.core.slot_queue import SlotQueue
from routilux.core.states import MessageStatus, ParkedReason, WorkerStatus
from routilux.engine.batch import Batch


def may_run(cell: RoutineCell) -> bool:
    worker = cell.worker
    if (
        worker.is_forgotten
        or worker.status in (WorkerStatus.PAUSED, WorkerStatus.CANCELLED)
        or not cell.can_run
    ):
        return False
    return len(cell.runs) < cell.compiled.concurrency


def is_held_back(cell: RoutineCell) -> bool:
    """Whether a slot that it feeds is above its mark."""
    for targets in cell.compiled.targets.values():
        for routine, slot, spec in targets:
            if spec.max_queue_length is not None:
                mark = spec.max_queue_length * spec.watermark
                if cell.worker.slot(routine, slot).waiting > mark:
                    return True
    return False


def wants_wider(cell: RoutineCell, queue: SlotQueue) -> bool:
    """Whether what it needs may be further back: a partner of the same job, or the rest of a large batch."""
    match cell.compiled.policy:
        case AllSlotsReadyPolicy(by_job=by_job):
            return by_job
        case BatchSizePolicy(size=int(size)):
            return len(queue.items) < size
    return False


def unpick(cell: RoutineCell, activations: list[Activation]) -> None:
    """Return activations that did not run to the front of the line."""
    messages: list[Message] = []
    for activation in reversed(activations):
        if activation.rerun is not None:
            cell.return_rerun(activation.rerun)
            continue
        for message in activation.messages:
            if not message.job.has_ended:
                messages.append(message)
            elif not message.job.ends_now:
                cell.slots[message.slot].leave()
    messages.sort(key=lambda message: message.seq)
    give_back(cell, messages)


def park_paused(batch: Batch, cell: RoutineCell, chosen: Pick) -> None:
    """Park the messages of a paused job, so that they cannot fill the window. Resuming brings them back."""
    batch.touch_worker(cell.worker)
    for message in chosen.paused:
        cell.slots[message.slot].leave()
        batch.settle(cell.worker, message.seq, MessageStatus.PARKED)
        batch.park(cell.worker, [message], cell.routine_id, ParkedReason.PAUSED)
    for rerun in chosen.paused_reruns:  # its line number says that it has run before
        batch.park(
            cell.worker,
            rerun.messages,
            cell.routine_id,
            ParkedReason.PAUSED,
            key=rerun.key,
            line=rerun.line,
            attempt=rerun.attempt,
            deaths=rerun.deaths,
            policy_message=rerun.policy_message,
        )
