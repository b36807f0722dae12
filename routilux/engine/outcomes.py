"""Outcomes into a commit, in the order in which the activations of a run ran.

One that does not go in breaks the run: those after it saw what it left, so they are thrown away and run again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from routilux.core.mailbox import RoutineCell
from routilux.core.message import Activation
from routilux.core.outcome import Outcome
from routilux.core.run import Run
from routilux.core.selection import IMMEDIATE
from routilux.core.states import ActivationStatus, JobStatus
from routilux.engine.batch import Batch
from routilux.engine.effects import (
    clear_suspects,
    close_jobs,
    consume,
    leave,
    live_jobs,
    next_number,
    record,
    start_jobs,
    take_effects,
)
from routilux.engine.failures import fail
from routilux.engine.user_statements import locked_key

if TYPE_CHECKING:
    from routilux.engine.engine import Engine


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
    elif worker.lock_tries:
        worker.lock_tries.pop(locked_key(activation), None)
    run.settled += 1
    n = next_number(batch, worker)
    if outcome.failure is None and activation.rerun is None and len(activation.messages) == 1:
        if activation.job.ended_at is None:
            _succeed_alone(engine, batch, cell, n, outcome)
        else:
            _discard(batch, cell, n, run, outcome)
    elif not live_jobs(activation):
        _discard(batch, cell, n, run, outcome)
    elif outcome.failure is None:
        _succeed(engine, batch, cell, n, outcome)
    else:
        fail(engine, batch, cell, n, outcome, outcome.failure)


def _take_asked(cell: RoutineCell, run: Run, activation: Activation) -> None:
    """What a user's policy chose leaves the windows only now."""
    chosen = set(activation.seqs)
    for queue in cell.slots.values():
        queue.remove(chosen)
    run.activations.append(activation)


def _discard(batch: Batch, cell: RoutineCell, n: int, run: Run, outcome: Outcome) -> None:
    """Its job has ended meanwhile: kept in the history, without effect."""
    run.is_broken = run.should_stop = True
    leave(batch, cell, outcome.activation)
    record(batch, cell, n, outcome, ActivationStatus.DISCARDED)


def _succeed_alone(engine: Engine, batch: Batch, cell: RoutineCell, n: int, outcome: Outcome) -> None:
    """The hot path of `_succeed`: one message of one job, for the first time."""
    message, worker = outcome.activation.messages[0], cell.worker
    job = message.job
    if job.started_at is None:
        job.started_at = batch.now
        job.is_touched = True
        if job.status == JobStatus.PENDING:  # it may have been paused meanwhile
            job.status = JobStatus.RUNNING
    batch.jobs[job] = worker
    if outcome.emits or outcome.state or outcome.job or job.routine_status:
        take_effects(engine, batch, cell, job, n, outcome)
    batch.changes.consumed.append((worker.key, message.seq, n))
    job.open_count -= 1
    cell.slots[message.slot].waiting -= 1
    if message.deaths is not None:
        clear_suspects(batch, worker, [message])
    activation = outcome.activation
    if activation.policy_message is IMMEDIATE and not outcome.traces and not batch.wants_facts:
        batch.changes.completed.append(
            (worker.key, n, job.no, cell.routine_id, outcome.started_at, outcome.ended_at, str(message.seq))
        )
    else:
        record(batch, cell, n, outcome, ActivationStatus.COMPLETED)
    end = outcome.job_end
    if end is not None:
        batch.end_job(worker, job, JobStatus(end.status), end.error, end.result)
    elif job.open_count == 0:
        batch.end_job(worker, job, JobStatus.COMPLETED)


def _succeed(engine: Engine, batch: Batch, cell: RoutineCell, n: int, outcome: Outcome) -> None:
    activation, worker = outcome.activation, cell.worker
    job = (
        activation.job if not activation.job.has_ended else max(live_jobs(activation), key=lambda job: job.no)
    )
    start_jobs(batch, worker, activation)
    take_effects(engine, batch, cell, job, n, outcome)
    consume(batch, cell, activation, n)
    record(batch, cell, n, outcome, ActivationStatus.COMPLETED)
    end = outcome.job_end
    if end is not None and not job.has_ended:
        batch.end_job(worker, job, JobStatus(end.status), end.error, end.result)
    close_jobs(batch, worker, activation)
