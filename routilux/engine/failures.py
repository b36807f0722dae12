"""An activation that failed, by its error strategy: goes on, is parked for a retry, or becomes a dead letter."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

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
from routilux.engine.user_statements import locked_key

if TYPE_CHECKING:
    from routilux.engine.engine import Engine

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


def fail(engine: Engine, batch: Batch, cell: RoutineCell, n: int, outcome: Outcome, failure: Failure) -> None:
    activation, worker = outcome.activation, cell.worker
    start_jobs(batch, worker, activation)
    decision = _decide(engine, batch, cell, activation, failure)
    status = _STATUS[decision.kind]
    for job in live_jobs(activation):
        job.routine_status[cell.routine_id] = str(status)
        job.is_touched = job.has_details = True
    match decision.kind:
        case DecisionKind.CONTINUE | DecisionKind.SKIP:
            consume(batch, cell, activation, n)
        case DecisionKind.RETRY | DecisionKind.LATER:
            _park_for_retry(engine, batch, cell, n, outcome, failure, decision)
        case _:
            bury(batch, cell, activation, n, failure)
    record(batch, cell, n, outcome, status)
    close_jobs(batch, worker, activation)


def _decide(
    engine: Engine, batch: Batch, cell: RoutineCell, activation: Activation, failure: Failure
) -> Decision:
    if engine.is_lock_timeout(failure.error):
        lock_tries, key = cell.worker.lock_tries, locked_key(activation)
        tries = lock_tries[key] = lock_tries.get(key, 0) + 1
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
    leave(batch, cell, activation)
    batch.park(
        worker, activation.messages, cell.routine_id, ParkedReason.RETRY,
        key=activation.rerun.key if activation.rerun else None, due_at=due_at, attempt=counted, activation=n,
        policy_message=policy_text(activation), failure=failure,
    )  # fmt: skip
    worker.timed_count += 1
    engine.due.expect(due_at)


def bury(batch: Batch, cell: RoutineCell, activation: Activation, n: int | None, failure: Failure) -> None:
    """The messages become a dead letter, their jobs fail."""
    worker = cell.worker
    for message in activation.messages:
        if not message.job.has_ended:
            batch.settle(worker, message.seq, MessageStatus.DEAD)
            message.job.open_count -= 1
    key = activation.rerun.key if activation.rerun else activation.messages[0].seq
    leave(batch, cell, activation)
    batch.park(
        worker, activation.messages, cell.routine_id, ParkedReason.DEAD, key=key, attempt=activation.attempt,
        activation=n, policy_message=policy_text(activation), failure=failure,
    )  # fmt: skip
    for job in live_jobs(activation):
        batch.end_job(worker, job, JobStatus.FAILED, f"{failure.type}: {failure.text}")


def fail_unrun(
    engine: Engine, batch: Batch, cell: RoutineCell, activation: Activation, error: BaseException
) -> None:
    """An activation fails without running: its error strategy decides as if it had."""
    outcome = Outcome(activation, batch.now, batch.now)
    outcome.fail(error)
    n = next_number(batch, cell.worker)
    assert outcome.failure is not None
    fail(engine, batch, cell, n, outcome, outcome.failure)


def bury_unrun(batch: Batch, cell: RoutineCell, activation: Activation, error: BaseException) -> None:
    """A dead letter at once, whatever the error strategy."""
    outcome = Outcome(activation, batch.now, batch.now)
    outcome.fail(error)
    n = next_number(batch, cell.worker)
    assert outcome.failure is not None
    start_jobs(batch, cell.worker, activation)
    bury(batch, cell, activation, n, outcome.failure)
    record(batch, cell, n, outcome, ActivationStatus.FAILED)
