"""Outcomes into rows: what one activation wanted to write, or what its error strategy says.

Outcomes of a run are settled in the order in which its activations ran. One that does not go in breaks the run:
those after it saw what it left, so they are thrown away and run again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from routilux.core import payload
from routilux.core.activation import Failure, Increment, JobIncrement, JobSet, Outcome, Replace, jobs_of
from routilux.core.choosing import IMMEDIATE
from routilux.core.mailbox import RoutineCell, Run, WorkerCell
from routilux.core.message import Activation, Job, Message
from routilux.core.retry import Decision, DecisionKind, decide
from routilux.core.states import ActivationStatus, JobStatus, MessageStatus, ParkedReason
from routilux.core.worker_state import added
from routilux.runtime.batch import Batch, Fact
from routilux.runtime.owning import locked_key

if TYPE_CHECKING:
    from routilux.runtime.engine import Engine

# a stranger holds a lock that an own statement needs: the activation steps aside, no attempt counted
LOCK_PAUSES_S = (0.25, 0.5, 1.0, 2.0, 5.0)
_STATUS = {
    DecisionKind.CONTINUE: ActivationStatus.ERROR_CONTINUED,
    DecisionKind.SKIP: ActivationStatus.SKIPPED,
    DecisionKind.RETRY: ActivationStatus.RETRYING,
    DecisionKind.LATER: ActivationStatus.RETRYING,
    DecisionKind.FAIL: ActivationStatus.FAILED,
    DecisionKind.DEAD: ActivationStatus.FAILED,
}


def settle(engine: Engine, batch: Batch, outcome: Outcome) -> None:
    """Take one outcome into the batch. Outcomes of a broken run or a forgotten worker are dropped."""
    run, activation = outcome.run, outcome.activation
    cell = run.cell
    worker = cell.worker
    if run.is_broken or worker.is_forgotten:
        return
    if batch.skipped and id(outcome) in batch.skipped:
        run.is_broken = run.should_stop = True
        return
    if run.is_ask:
        _take_asked(cell, run, activation)
    if batch.own_errors and id(outcome) in batch.own_errors:
        outcome.fail(batch.own_errors[id(outcome)])
        run.is_broken = run.should_stop = True
    elif engine.lock_tries:
        engine.lock_tries.pop(locked_key(worker, activation), None)
    run.settled += 1
    n = _number(batch, worker)
    if outcome.failure is None and activation.rerun is None and len(activation.messages) == 1:
        if activation.job.ended_at is None:
            _succeed_alone(engine, batch, cell, n, outcome)
        else:
            _discard(batch, cell, n, run, outcome)
    elif not _live(activation):
        _discard(batch, cell, n, run, outcome)
    elif outcome.failure is None:
        _succeed(engine, batch, cell, n, outcome)
    else:
        _fail(engine, batch, cell, n, outcome, outcome.failure)


def _take_asked(cell: RoutineCell, run: Run, activation: Activation) -> None:
    """What a user's policy chose leaves the windows only now."""
    chosen = set(activation.seqs)
    for queue in cell.slots.values():
        queue.remove(chosen)
    run.activations.append(activation)


def _discard(batch: Batch, cell: RoutineCell, n: int, run: Run, outcome: Outcome) -> None:
    """Its job has ended meanwhile: kept in the history, without effect."""
    run.is_broken = run.should_stop = True
    _leave(batch, cell, outcome.activation)
    _record(batch, cell, n, outcome, ActivationStatus.DISCARDED)


def _succeed_alone(engine: Engine, batch: Batch, cell: RoutineCell, n: int, outcome: Outcome) -> None:
    """The hot path of `_succeed`: one message of one job, for the first time."""
    message, worker = outcome.activation.messages[0], cell.worker
    job = message.job
    if job.started_at is None:
        job.started_at = batch.now
        job.is_touched = True
        if job.status == "pending":  # it may have been paused meanwhile
            job.status = JobStatus.RUNNING
    batch.jobs[job] = worker
    for routine, slot, text in outcome.emits:
        emit(engine, batch, worker, job, routine, slot, text, n)
    for change in outcome.state:
        change_state(batch, worker, change)
    for edit in outcome.job:
        _change_job(batch, worker, job, edit)
    if job.routine_status and job.routine_status.pop(cell.routine_id, None) is not None:
        job.is_touched = True
    batch.changes.consumed.append((worker.key, message.seq, n))
    job.open_count -= 1
    cell.slots[message.slot].waiting -= 1
    if message.deaths is not None:
        _clear_suspects(batch, worker, [message])
    activation = outcome.activation
    if activation.policy_message is IMMEDIATE and not outcome.traces and not batch.wants_facts:
        batch.changes.completed.append(
            (worker.key, n, job.no, cell.routine_id, outcome.started_at, outcome.ended_at, str(message.seq))
        )
    else:
        _record(batch, cell, n, outcome, ActivationStatus.COMPLETED)
    end = outcome.job_end
    if end is not None:
        batch.end_job(worker, job, JobStatus(end.status), end.error, end.result)
    elif job.open_count == 0:
        batch.end_job(worker, job, JobStatus.COMPLETED)


def _succeed(engine: Engine, batch: Batch, cell: RoutineCell, n: int, outcome: Outcome) -> None:
    activation, worker = outcome.activation, cell.worker
    job = activation.job if not activation.job.has_ended else max(_live(activation), key=lambda job: job.no)
    _start(batch, worker, activation)
    for routine, slot, text in outcome.emits:
        emit(engine, batch, worker, job, routine, slot, text, n)
    for change in outcome.state:
        change_state(batch, worker, change)
    for edit in outcome.job:
        _change_job(batch, worker, job, edit)
    if job.routine_status.pop(cell.routine_id, None) is not None:
        job.is_touched = True
    _consume(batch, cell, activation, n)
    _record(batch, cell, n, outcome, ActivationStatus.COMPLETED)
    end = outcome.job_end
    if end is not None and not job.has_ended:
        batch.end_job(worker, job, JobStatus(end.status), end.error, end.result)
    close_jobs(batch, worker, activation)


def emit(
    engine: Engine,
    batch: Batch,
    worker: WorkerCell,
    job: Job,
    routine: str,
    slot: str,
    text: str,
    produced_by: int | None,
) -> None:
    """A new message joins the line of a slot; it is dispatched only after the commit. The job is touched by the caller."""
    seq = worker.next_seq
    worker.next_seq = seq + 1
    job.open_count += 1
    batch.changes.messages.append(
        (worker.key, seq, job.no, routine, slot, text, produced_by, "waiting", batch.now)
    )
    cell = worker.routines[routine]
    cell.slots[slot].push(seq, job, text, batch.now, produced_by)
    cell.is_asked = False
    if job.status == "paused":
        cell.needs_purge = True
    if not cell.is_ready:
        engine.note(cell)


def _live(activation: Activation) -> list[Job]:
    """Its jobs that have not ended."""
    if len(activation.messages) == 1:
        job = activation.messages[0].job
        return [] if job.has_ended else [job]
    return [job for job in jobs_of(activation) if not job.has_ended]


def _start(batch: Batch, worker: WorkerCell, activation: Activation) -> None:
    for job in _live(activation):
        if job.started_at is None:
            job.started_at = batch.now
            job.is_touched = True
        if job.status == JobStatus.PENDING:
            job.status = JobStatus.RUNNING
        batch.touch(worker, job)


def _consume(batch: Batch, cell: RoutineCell, activation: Activation, n: int) -> None:
    worker = cell.worker
    for message in activation.messages:
        if not message.job.has_ended:
            batch.changes.consumed.append((worker.key, message.seq, n))
            message.job.open_count -= 1
    _leave(batch, cell, activation)


def _leave(batch: Batch, cell: RoutineCell, activation: Activation) -> None:
    """The messages are no longer waiting; marks that were kept for them go."""
    if activation.rerun is not None:
        batch.unpark(cell.worker, activation.rerun.key)
        return
    _leave_slots(cell, activation.messages)
    _clear_suspects(batch, cell.worker, activation.messages)


def _leave_slots(cell: RoutineCell, messages: Sequence[Message]) -> None:
    for message in messages:
        if not message.job.ends_now:
            cell.slots[message.slot].waiting -= 1


def _clear_suspects(batch: Batch, worker: WorkerCell, messages: Sequence[Message]) -> None:
    for message in messages:
        if message.deaths is not None:
            message.deaths = None
            worker.suspects.pop(message.seq, None)
            batch.unpark(worker, message.seq)


def close_jobs(batch: Batch, worker: WorkerCell, activation: Activation) -> None:
    """A job of which nothing waits, is parked or is being handled is completed."""
    for job in _live(activation):
        if job.open_count == 0:
            batch.end_job(worker, job, JobStatus.COMPLETED)


def _record(batch: Batch, cell: RoutineCell, n: int, outcome: Outcome, status: ActivationStatus) -> None:
    worker = cell.worker
    text = None if outcome.activation.policy_message is IMMEDIATE else policy_text(outcome.activation)
    batch.add_activation(worker, n, cell.routine_id, outcome, status, text)
    for i, trace in enumerate(outcome.traces or ()):
        batch.changes.traces.append(
            (
                worker.key,
                n,
                i,
                outcome.activation.job.no,
                trace.kind,
                trace.routine,
                trace.action,
                trace.details,
                trace.at,
            )
        )
    if not batch.wants_facts:
        return
    failure = outcome.failure
    batch.facts.append(
        Fact(
            "activation.committed",
            {
                "worker_id": worker.worker_id, "job_id": outcome.activation.job.job_id, "routine_id": cell.routine_id,
                "attempt": outcome.activation.attempt, "status": str(status), "error": failure and failure.text,
            },
        )
    )  # fmt: skip


def change_state(batch: Batch, worker: WorkerCell, change: Replace | Increment) -> None:
    rows = batch.changes.state
    current = worker.state.get(change.routine)
    if isinstance(change, Increment):
        if not current and change.key != "":
            rows[worker.key, change.routine, ""] = None  # no longer an empty state
        current = worker.state.setdefault(change.routine, {})
        current[change.key] = rows[worker.key, change.routine, change.key] = added(
            current.get(change.key), change.by
        )
        return
    replace_state(batch, worker, change.routine, change.texts)


def replace_state(batch: Batch, worker: WorkerCell, routine: str, texts: dict[str, str]) -> None:
    """The state of a routine is now exactly this; only keys that changed become rows."""
    rows = batch.changes.state
    current = worker.state.get(routine)
    for key, text in texts.items():
        if current is None or current.get(key) != text:
            rows[worker.key, routine, key] = text
    for key in current or ():
        if key not in texts:
            rows[worker.key, routine, key] = None
    if not texts:
        rows[worker.key, routine, ""] = ""  # marks an empty state, which is not an absent one
    elif not current and "" not in texts:
        rows[worker.key, routine, ""] = None
    worker.state[routine] = dict(texts)


def _change_job(batch: Batch, worker: WorkerCell, job: Job, edit: JobSet | JobIncrement) -> None:
    if isinstance(edit, JobSet):
        job.data[edit.key] = edit.text
    else:
        job.data[edit.key] = added(job.data.get(edit.key), edit.by)
    job.is_touched = job.has_details = True
    batch.touch(worker, job)


def _fail(
    engine: Engine, batch: Batch, cell: RoutineCell, n: int, outcome: Outcome, failure: Failure
) -> None:
    activation, worker = outcome.activation, cell.worker
    _start(batch, worker, activation)
    decision = _decide(engine, batch, cell, activation, failure)
    status = _STATUS[decision.kind]
    for job in _live(activation):
        job.routine_status[cell.routine_id] = str(status)
        job.is_touched = job.has_details = True
    match decision.kind:
        case DecisionKind.CONTINUE | DecisionKind.SKIP:
            _consume(batch, cell, activation, n)
        case DecisionKind.RETRY | DecisionKind.LATER:
            _park_for_retry(engine, batch, cell, n, outcome, failure, decision)
        case _:
            bury(batch, cell, activation, n, failure)
    _record(batch, cell, n, outcome, status)
    close_jobs(batch, worker, activation)


def _decide(
    engine: Engine, batch: Batch, cell: RoutineCell, activation: Activation, failure: Failure
) -> Decision:
    key = locked_key(cell.worker, activation)
    if engine.is_lock_timeout(failure.error):
        tries = engine.lock_tries[key] = engine.lock_tries.get(key, 0) + 1
        pause_s = LOCK_PAUSES_S[min(tries, len(LOCK_PAUSES_S)) - 1]
        return Decision(DecisionKind.LATER, due_at=batch.now / 1e6 + pause_s)
    handler = cell.compiled.error_handler
    return decide(failure.error, activation.attempt, handler, batch.now / 1e6, random=random.random)


def _park_for_retry(
    engine: Engine,
    batch: Batch,
    cell: RoutineCell,
    n: int,
    outcome: Outcome,
    failure: Failure,
    decision: Decision,
) -> None:
    activation, worker = outcome.activation, cell.worker
    assert decision.due_at is not None
    due_at = -int(-decision.due_at * 1_000_000 // 1)  # up: never early
    counted = activation.attempt if decision.kind is DecisionKind.RETRY else activation.attempt - 1
    if activation.rerun is None:
        for message in activation.messages:
            if not message.job.has_ended:
                batch.settle(worker, message.seq, MessageStatus.PARKED)
        _leave(batch, cell, activation)
    batch.park(
        worker, activation.messages, cell.routine_id, ParkedReason.RETRY,
        key=activation.rerun.key if activation.rerun else None, due_at=due_at, attempt=counted, activation=n,
        policy_message=policy_text(activation), failure=failure,
    )  # fmt: skip
    worker.timed_count += 1
    engine.redelivery_due(due_at)


def policy_text(activation: Activation) -> str | None:
    """The policy message as it is stored."""
    if activation.reason_text is None and activation.policy_message is not None:
        activation.reason_text = payload.encode(activation.policy_message, root="policy_message")
    return activation.reason_text


def bury(batch: Batch, cell: RoutineCell, activation: Activation, n: int | None, failure: Failure) -> None:
    """The messages become a dead letter, their jobs fail."""
    worker = cell.worker
    for message in activation.messages:
        if not message.job.has_ended:
            batch.settle(worker, message.seq, MessageStatus.DEAD)
            message.job.open_count -= 1
    key = activation.rerun.key if activation.rerun else activation.messages[0].seq
    if activation.rerun is None:
        _leave_slots(cell, activation.messages)
        _clear_suspects(batch, worker, activation.messages)
    batch.park(
        worker, activation.messages, cell.routine_id, ParkedReason.DEAD, key=key, attempt=activation.attempt,
        activation=n, policy_message=policy_text(activation), failure=failure,
    )  # fmt: skip
    for job in _live(activation):
        batch.end_job(worker, job, JobStatus.FAILED, f"{failure.type}: {failure.text}")


def fail_unrun(
    engine: Engine, batch: Batch, cell: RoutineCell, activation: Activation, error: BaseException
) -> None:
    """An activation fails without running: its error strategy decides as if it had."""
    outcome = Outcome(activation, batch.now, batch.now)
    outcome.fail(error)
    n = _number(batch, cell.worker)
    assert outcome.failure is not None
    _fail(engine, batch, cell, n, outcome, outcome.failure)


def bury_unrun(batch: Batch, cell: RoutineCell, activation: Activation, error: BaseException) -> None:
    """A dead letter at once, whatever the error strategy."""
    outcome = Outcome(activation, batch.now, batch.now)
    outcome.fail(error)
    n = _number(batch, cell.worker)
    assert outcome.failure is not None
    _start(batch, cell.worker, activation)
    bury(batch, cell, activation, n, outcome.failure)
    _record(batch, cell, n, outcome, ActivationStatus.FAILED)


def _number(batch: Batch, worker: WorkerCell) -> int:
    n = worker.next_n
    worker.next_n += 1
    worker.deaths = 0
    batch.workers[worker.key] = worker
    return n
