"""What becomes of an activation that failed. Its error strategy decides: go on, retry, or dead letter."""

from __future__ import annotations

import random

from routilux.core.mailbox import RoutineCell
from routilux.core.message import Activation
from routilux.core.outcome import Failure, Outcome
from routilux.core.retry import Decision, DecisionKind, decide
from routilux.core.states import ActivationStatus, JobStatus, MessageStatus, ParkedReason
from routilux.engine.batch import Batch
from routilux.engine.effects import (
    close_jobs,
    consume,
    leave,
    live_jobs,
    next_number,
    policy_text,
    record,
    start_jobs,
)
from routilux.engine.statement_group import locked_key

# Another session holds a lock that a user statement needs: the activation steps aside; no attempt is counted.
LOCK_PAUSES_S = (0.25, 0.5, 1.0, 2.0, 5.0)
_STATUS = {
    DecisionKind.CONTINUE: ActivationStatus.ERROR_CONTINUED,
    DecisionKind.SKIP: ActivationStatus.SKIPPED,
    DecisionKind.RETRY: ActivationStatus.RETRYING,
    DecisionKind.LATER: ActivationStatus.RETRYING,
    DecisionKind.FAIL: ActivationStatus.FAILED,
    DecisionKind.DEAD: ActivationStatus.FAILED,
}


def fail(batch: Batch, cell: RoutineCell, n: int, outcome: Outcome, failure: Failure) -> None:
    """Do what the error strategy says: go on, skip, park for a retry, or make a dead letter."""
    activation, worker = outcome.activation, cell.worker
    start_jobs(batch, worker, activation)
    decision = _decide(batch, cell, activation, failure)
    status = _STATUS[decision.kind]
    for job in live_jobs(activation):
        job.set_routine_status(cell.routine_id, str(status))
    match decision.kind:
        case DecisionKind.CONTINUE | DecisionKind.SKIP:
            consume(batch, cell, activation, n)
        case DecisionKind.RETRY | DecisionKind.LATER:
            _park_for_retry(batch, cell, n, outcome, failure, decision)
        case _:
            dead_letter(batch, cell, activation, n, failure)
    record(batch, cell, n, outcome, status)
    close_jobs(batch, worker, activation)


def _decide(batch: Batch, cell: RoutineCell, activation: Activation, failure: Failure) -> Decision:
    if batch.is_lock_timeout(failure.error):
        lock_tries, key = cell.worker.lock_tries, locked_key(activation)
        tries = lock_tries[key] = lock_tries.get(key, 0) + 1
        pause_s = LOCK_PAUSES_S[min(tries, len(LOCK_PAUSES_S)) - 1]
        return Decision(DecisionKind.LATER, due_at=batch.now / 1e6 + pause_s)
    handler = cell.compiled.error_handler
    return decide(failure.error, activation.attempt, handler, batch.now / 1e6, random=random.random)


def _park_for_retry(
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
    leave(batch, cell, activation)
    batch.park(
        worker,
        activation.messages,
        cell.routine_id,
        ParkedReason.RETRY,
        key=activation.rerun.key if activation.rerun else None,
        due_at=due_at,
        attempt=counted,
        activation=n,
        policy_message=policy_text(activation),
        failure=failure,
    )
    worker.park_timed()
    batch.expect(due_at)


def dead_letter(
    batch: Batch, cell: RoutineCell, activation: Activation, n: int | None, failure: Failure
) -> None:
    """Make the messages a dead letter and fail their jobs."""
    worker = cell.worker
    for message in activation.messages:
        if not message.job.has_ended:
            batch.settle(worker, message.seq, MessageStatus.DEAD)
            message.job.close_message()
    key = activation.rerun.key if activation.rerun else activation.messages[0].seq
    leave(batch, cell, activation)
    batch.park(
        worker,
        activation.messages,
        cell.routine_id,
        ParkedReason.DEAD,
        key=key,
        attempt=activation.attempt,
        activation=n,
        policy_message=policy_text(activation),
        failure=failure,
    )
    for job in live_jobs(activation):
        batch.end_job(worker, job, JobStatus.FAILED, f"{failure.type}: {failure.text}")


def fail_unrun(batch: Batch, cell: RoutineCell, activation: Activation, error: BaseException) -> None:
    """Fail an activation without running it. Its error strategy decides as if it had run."""
    outcome = Outcome(activation, batch.now, batch.now)
    outcome.fail(error)
    n = next_number(batch, cell.worker)
    assert outcome.failure is not None
    fail(batch, cell, n, outcome, outcome.failure)


def dead_letter_unrun(batch: Batch, cell: RoutineCell, activation: Activation, error: BaseException) -> None:
    """Make an activation a dead letter without running it, whatever its error strategy is."""
    outcome = Outcome(activation, batch.now, batch.now)
    outcome.fail(error)
    n = next_number(batch, cell.worker)
    assert outcome.failure is not None
    start_jobs(batch, cell.worker, activation)
    dead_letter(batch, cell, activation, n, outcome.failure)
    record(batch, cell, n, outcome, ActivationStatus.FAILED)
