"""Selects what a routine runs next: applies its policy to its slots. It takes messages from the windows only.

Messages of an ended job are dropped: the end of the job already cancelled them in the database and subtracted
them from the counts of their slots. Messages of a paused job go to the engine, which parks them, so they
cannot fill the window. A suspect is a message that was in flight when its owner died. It ends a run, since it
runs alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from routilux.core import payload
from routilux.core.mailbox import RoutineCell
from routilux.core.message import Activation, Job, Message, Rerun
from routilux.core.policies import AllSlotsReadyPolicy, BatchSizePolicy, ImmediatePolicy, TimeIntervalPolicy
from routilux.core.slot_queue import SlotQueue
from routilux.core.states import JobStatus

IMMEDIATE = {"reason": "immediate"}


@dataclass(slots=True)
class Pick:
    """What was taken: activations to run in this order, and messages to park since their job is paused."""

    activations: list[Activation] = field(default_factory=list)
    paused: list[Message] = field(default_factory=list)
    paused_reruns: list[Rerun] = field(default_factory=list)
    is_alone: bool = False
    is_ask: bool = False
    is_in_line: bool = False  # one message each, in the order of the queue


def pick(cell: RoutineCell, now: int, limit: int, *, is_flushing: bool = False) -> Pick:
    """Take up to `limit` activations that may run now, in order. Sets `cell.wake_at` if a timer is needed."""
    chosen = Pick()
    cell.wake_at = None
    if cell.needs_purge:
        _purge(cell, chosen)
    if _take_rerun(cell, chosen, now):
        return chosen
    match cell.compiled.policy:
        case ImmediatePolicy(max_items=1):
            _immediate(cell, chosen, now, limit)
        case ImmediatePolicy(max_items=most):
            _repeat(cell, chosen, now, limit, lambda: _same_job(cell, most))
        case AllSlotsReadyPolicy(by_job=True):
            _repeat(cell, chosen, now, limit, lambda: _joined(cell))
        case AllSlotsReadyPolicy():
            _repeat(cell, chosen, now, limit, lambda: _one_of_each(cell))
        case BatchSizePolicy(size=int(size), max_wait_s=max_wait_s):
            _repeat(cell, chosen, now, limit, lambda: _batch(cell, size, max_wait_s, now, is_flushing))
        case TimeIntervalPolicy(interval_s=interval_s):
            _repeat(cell, chosen, now, 1, lambda: _interval(cell, interval_s, now))
        case _:
            chosen.is_ask = not cell.is_asked and any(queue.items for queue in cell.slots.values())
    return chosen


def _purge(cell: RoutineCell, chosen: Pick) -> None:
    cell.needs_purge = False
    for queue in cell.slots.values():
        gone = [message for message in queue.items if not may_run(message.job)]
        queue.remove({message.seq for message in gone})
        chosen.paused += [message for message in gone if not message.job.has_ended]
    chosen.paused_reruns += [rerun for rerun in cell.reruns if is_paused(rerun.messages)]
    cell.reruns = deque(rerun for rerun in cell.reruns if not is_paused(rerun.messages))


def is_paused(messages: Iterable[Message]) -> bool:
    """Return whether a requeued batch must wait. The whole batch waits while one of its jobs is paused."""
    return any(message.job.status == JobStatus.PAUSED for message in messages)


def may_run(job: Job) -> bool:
    """Return whether messages of the job may be taken."""
    return job.status != JobStatus.PAUSED and not job.has_ended


def _take_rerun(cell: RoutineCell, chosen: Pick, now: int) -> bool:
    """Take a requeued batch if it is the first of the queue. Returns True if nothing else may be taken."""
    while cell.reruns:
        rerun = cell.reruns[0]
        head = _first(cell)
        if head is not None and head.items[0].seq < rerun.line:
            return False
        if head is None and any(q.has_more and q.loaded_to < rerun.line for q in cell.slots.values()):
            return False
        live = [message for message in rerun.messages if not message.job.has_ended]
        if not live:
            cell.reruns.popleft()
            continue
        if rerun.not_before > now:
            cell.wake_at = rerun.not_before
            return True
        cell.reruns.popleft()
        chosen.is_alone = rerun.deaths > 0
        chosen.activations.append(
            Activation(
                live,
                newest(live),
                rerun.attempt + 1,
                None if rerun.policy_message is None else payload.decode(rerun.policy_message),
                rerun,
                reason_text=rerun.policy_message,
            )
        )
        return True
    return False


def _first(cell: RoutineCell) -> SlotQueue | None:
    """Return the slot with the first message of all slots."""
    first = None
    for queue in cell.slots.values():
        if queue.items and (first is None or queue.items[0].seq < first.items[0].seq):
            first = queue
    return first


def newest(messages: Sequence[Message]) -> Job:
    """Return the job that an activation of these messages runs under."""
    return max((message.job for message in messages), key=lambda job: job.no)


def _immediate(cell: RoutineCell, chosen: Pick, now: int, limit: int) -> None:
    """The hot path: one message each, in the order of the queue."""
    activations = chosen.activations
    chosen.is_in_line = True
    if len(cell.slots) == 1 and not cell.reruns and not cell.worker.suspects:
        only = next(iter(cell.slots.values()))
        activations += [
            Activation((message,), message.job, 1, IMMEDIATE) for message in only.take_first(limit)
        ]
        return
    stop_at = cell.reruns[0].line if cell.reruns else None
    while len(activations) < limit:
        queue = _first(cell)
        if queue is None:
            return
        message = queue.items[0]
        if stop_at is not None and message.seq > stop_at:
            return
        if message.deaths is not None:
            if not activations:
                _take_suspects(cell, chosen, [queue.pop()], IMMEDIATE, now)
            return
        queue.pop()
        activations.append(Activation((message,), message.job, 1, IMMEDIATE))


def _repeat(
    cell: RoutineCell,
    chosen: Pick,
    now: int,
    limit: int,
    take: Callable[[], tuple[list[Message], object] | None],
) -> None:
    """Take batches until the policy has no more, the limit is reached, or a batch has a suspect."""
    while len(chosen.activations) < limit:
        taken = take()
        if taken is None:
            return
        messages, reason = taken
        if any(message.deaths is not None for message in messages):
            if chosen.activations:
                give_back(cell, messages)
            else:
                _take_suspects(cell, chosen, messages, reason, now)
            return
        chosen.activations.append(Activation(messages, newest(messages), 1, reason))


def _take_suspects(
    cell: RoutineCell, chosen: Pick, messages: list[Message], reason: object, now: int
) -> None:
    not_before = max(message.not_before for message in messages)
    if not_before > now:
        cell.wake_at = not_before
        give_back(cell, messages)
        return
    chosen.activations.append(Activation(messages, newest(messages), 1, reason))
    chosen.is_alone = True


def give_back(cell: RoutineCell, messages: list[Message]) -> None:
    """Put messages back to the front of their slots, in their order."""
    for name, queue in cell.slots.items():
        queue.give_back(message for message in messages if message.slot == name)


def _same_job(cell: RoutineCell, most: int) -> tuple[list[Message], object] | None:
    queue = _first(cell)
    if queue is None:
        return None
    messages = [queue.pop()]
    while len(messages) < most:
        queue = _first(cell)
        if queue is None or queue.items[0].job is not messages[0].job:
            break
        messages.append(queue.pop())
    return messages, IMMEDIATE


def _one_of_each(cell: RoutineCell) -> tuple[list[Message], object] | None:
    if not cell.slots or not all(queue.items for queue in cell.slots.values()):
        return None
    return [queue.pop() for queue in cell.slots.values()], {"reason": "all_slots_ready"}


def _joined(cell: RoutineCell) -> tuple[list[Message], object] | None:
    """Take one message of each slot for the job whose set was complete first."""
    seen: dict[int, dict[str, Message]] = {}
    arrivals = sorted((m for queue in cell.slots.values() for m in queue.items), key=lambda m: m.seq)
    for message in arrivals:
        partners = seen.setdefault(message.job.no, {})
        partners.setdefault(message.slot, message)
        if len(partners) == len(cell.slots):
            messages = [partners[name] for name in cell.slots]
            for name, queue in cell.slots.items():
                queue.remove({partners[name].seq})
            return messages, {"reason": "all_slots_ready"}
    return None


def _batch(
    cell: RoutineCell, size: int, max_wait_s: float | None, now: int, is_flushing: bool
) -> tuple[list[Message], object] | None:
    """Take a batch: a slot has `size`, or the oldest message is overdue, or a caller waits for all jobs."""
    queues = [queue for queue in cell.slots.values() if queue.items]
    if not queues:
        return None
    is_due = any(len(queue.items) >= size for queue in queues) or is_flushing
    if not is_due and max_wait_s is not None:
        oldest = min(queue.items[0].created_at for queue in queues)
        cell.wake_at = oldest + round(max_wait_s * 1e6)
        is_due = cell.wake_at <= now
    if not is_due:
        return None
    cell.wake_at = None
    messages = [queue.pop() for queue in queues for _ in range(min(size, len(queue.items)))]
    return messages, {"reason": "batch_ready", "batch_size": size}


def _interval(cell: RoutineCell, interval_s: float, now: int) -> tuple[list[Message], object] | None:
    """Take all waiting messages, at most once per interval."""
    queues = [queue for queue in cell.slots.values() if queue.items]
    if not queues:
        return None
    last = cell.last_fired_at
    if last is not None and now < last + round(interval_s * 1e6):
        cell.wake_at = last + round(interval_s * 1e6)
        return None
    messages = [queue.pop() for queue in queues for _ in range(len(queue.items))]
    cell.last_fired_at = now
    reason = {
        "reason": "time_interval_met",
        "interval": interval_s,
        "last_activation": None if last is None else last / 1e6,
    }
    return messages, reason
