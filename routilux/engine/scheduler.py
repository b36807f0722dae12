"""Who runs next. Plans runs for free executors; they are handed over only after the commit that names them.

A message that was in flight when an owner died runs with nothing beside it in this process: running work is asked
to stop between two activations, and nothing else starts until the suspect is through.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from routilux.core.mailbox import RoutineCell, SlotQueue
from routilux.core.message import Activation, Message
from routilux.core.policies import AllSlotsReadyPolicy, BatchSizePolicy, TimeIntervalPolicy
from routilux.core.run import Run
from routilux.core.selection import Pick, give_back, pick
from routilux.core.states import MessageStatus, ParkedReason, WorkerStatus
from routilux.engine import counters, failures, waking
from routilux.engine.batch import Batch
from routilux.errors import ProcessDiedError

if TYPE_CHECKING:
    from routilux.engine.engine import Engine

RUN_AHEAD = 512


def plan(engine: Engine, batch: Batch) -> None:
    """Fill free executors from the ready routines, first come first served."""
    if engine.lone_run is not None or not engine.may_dispatch():
        return
    if engine.lone_cell is not None:
        if engine.runs:
            return
        cell, engine.lone_cell = engine.lone_cell, None
        engine.ready.appendleft(cell)
        cell.is_ready = True
    held: list[RoutineCell] = []
    while engine.ready and engine.lone_run is None and engine.lone_cell is None:
        cell = engine.ready.popleft()
        cell.is_ready = False
        if not engine.has_room(cell):
            held.append(cell)
            if engine.is_full:
                break
        elif _may_run(cell):
            if _is_held_back(cell) and engine.ready:
                held.append(cell)
            else:
                _plan_cell(engine, batch, cell)
    for cell in held:
        engine.note(cell)
    if not engine.runs and not batch.planned and engine.lone_run is None:
        _plan_fullest(engine, batch, held)


def _plan_fullest(engine: Engine, batch: Batch, held: list[RoutineCell]) -> None:
    """Everything that is ready is held back: the one with the fullest slot runs, so that nothing waits for ever."""
    candidates = [cell for cell in held if _may_run(cell) and engine.has_room(cell)]
    if candidates:
        fullest = max(
            candidates, key=lambda cell: max((queue.waiting for queue in cell.slots.values()), default=0)
        )
        _plan_cell(engine, batch, fullest)


def _may_run(cell: RoutineCell) -> bool:
    worker = cell.worker
    if (
        worker.is_forgotten
        or worker.status in (WorkerStatus.PAUSED, WorkerStatus.CANCELLED)
        or not cell.can_run
    ):
        return False
    return len(cell.runs) < cell.compiled.concurrency


def _is_held_back(cell: RoutineCell) -> bool:
    """A slot that it feeds is above its mark."""
    for targets in cell.compiled.targets.values():
        for routine, slot, spec in targets:
            if spec.max_queue_length is not None:
                mark = spec.max_queue_length * spec.watermark
                if cell.worker.slot(routine, slot).waiting > mark:
                    return True
    return False


def _plan_cell(engine: Engine, batch: Batch, cell: RoutineCell) -> None:
    limit = RUN_AHEAD if cell.compiled.concurrency == 1 and not engine.verdicts else 1
    chosen = pick(cell, batch.now, limit, is_flushing=waking.is_flushing(engine, cell.worker))
    if chosen.paused or chosen.paused_reruns:
        _park_paused(batch, cell, chosen)
    if cell.wake_at is not None:
        engine.wake_n += 1
        heapq.heappush(engine.wakes, (cell.wake_at, engine.wake_n, cell))
    for queue in cell.slots.values():
        if not chosen.activations and _wants_wider(cell, queue):
            queue.widen(engine.settings.window)
        if queue.wants_more:
            engine.low[cell, queue] = None
    if _is_condemned(engine, batch, cell, chosen):
        engine.note(cell)
    elif chosen.is_alone and (engine.runs or batch.planned):
        _wait_alone(engine, cell, chosen)
    elif chosen.activations or chosen.is_ask:
        _start(engine, batch, cell, chosen)


def _wants_wider(cell: RoutineCell, queue: SlotQueue) -> bool:
    """What it needs may be further back: a partner of the same job, or the rest of a large batch."""
    match cell.compiled.policy:
        case AllSlotsReadyPolicy(by_job=by_job):
            return by_job
        case BatchSizePolicy(size=int(size)):
            return len(queue.items) < size
    return False


def _is_condemned(engine: Engine, batch: Batch, cell: RoutineCell, chosen: Pick) -> bool:
    """It has killed its process too often, or its commit is refused: it fails without running again."""
    if not chosen.activations or not (chosen.is_alone or engine.verdicts):
        return False
    first = chosen.activations[0]
    verdict = engine.verdicts.pop((cell.worker.key, first.seqs[0]), None)
    if verdict is not None:
        failures.fail_unrun(engine, batch, cell, first, verdict[0])
        return True
    deaths = first.rerun.deaths if first.rerun is not None else max(m.deaths or 0 for m in first.messages)
    if deaths >= engine.settings.deaths:
        failures.bury_unrun(batch, cell, first, ProcessDiedError(deaths))
        return True
    return False


def _start(engine: Engine, batch: Batch, cell: RoutineCell, chosen: Pick) -> None:
    run = Run(cell, chosen.activations, is_alone=chosen.is_alone, is_in_line=chosen.is_in_line)
    if chosen.is_ask:
        run.is_ask = cell.is_asked = True
        run.snapshot = {name: list(queue.items) for name, queue in cell.slots.items()}
    cell.runs.append(run)
    batch.planned.append(run)
    if isinstance(cell.compiled.policy, TimeIntervalPolicy):
        counters.write_slots(batch, cell.worker)  # its clock is durable
    engine.take_room(run)
    if chosen.is_alone:
        engine.lone_run = run
    if cell.has_backlog and not chosen.is_ask:
        engine.note(cell)


def _wait_alone(engine: Engine, cell: RoutineCell, chosen: Pick) -> None:
    unpick(cell, chosen.activations)
    engine.lone_cell = cell
    for run in engine.runs:
        run.should_stop = True


def unpick(cell: RoutineCell, activations: list[Activation]) -> None:
    """Activations that did not run return to the front of the line."""
    messages: list[Message] = []
    for activation in reversed(activations):
        if activation.rerun is not None:
            cell.reruns.appendleft(activation.rerun)
            continue
        for message in activation.messages:
            if not message.job.has_ended:
                messages.append(message)
            elif not message.job.ends_now:
                cell.slots[message.slot].waiting -= 1
    messages.sort(key=lambda message: message.seq)
    give_back(cell, messages)


def _park_paused(batch: Batch, cell: RoutineCell, chosen: Pick) -> None:
    """Messages of a paused job leave the line, so that they cannot fill the window; resuming brings them back."""
    batch.touch_worker(cell.worker)
    for message in chosen.paused:
        cell.slots[message.slot].waiting -= 1
        batch.settle(cell.worker, message.seq, MessageStatus.PARKED)
        batch.park(cell.worker, [message], cell.routine_id, ParkedReason.PAUSED)
    for rerun in chosen.paused_reruns:  # its line number tells it from messages that have not run yet
        batch.park(
            cell.worker, rerun.messages, cell.routine_id, ParkedReason.PAUSED, key=rerun.key, line=rerun.line,
            attempt=rerun.attempt, deaths=rerun.deaths, policy_message=rerun.policy_message,
        )  # fmt: skip


def ended(engine: Engine, run: Run) -> None:
    """The executor has let go of a run: what it did not get to returns to the line."""
    engine.give_room(run)
    if engine.lone_run is run:
        engine.lone_run = None
    cell = run.cell
    if run in cell.runs:
        cell.runs.remove(run)
    if cell.worker.is_forgotten:
        return
    if run.settled < len(run.activations):
        unpick(cell, run.activations[run.settled :])
        engine.uncounted[cell.worker] = None
    if run.is_ask and run.should_stop and run.running is None:  # it was not its policy that declined
        cell.is_asked = False
    if cell.has_backlog:
        engine.note(cell)
