"""Takes outcomes into a commit, in the order in which the activations of a run ran.

An outcome that does not go in breaks its run off. The outcomes after it saw what it left: they are dropped
and run again.
"""

from __future__ import annotations

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
    record,
    start_jobs,
    take_effects,
    tell_committed,
)
from routilux.engine.failures import fail
from routilux.engine.statement_group import locked_key


def settle(batch: Batch, outcome: Outcome) -> None:
    """Take one outcome into the batch; drop it if its run is broken or its worker forgotten."""
    run, activation = outcome.run, outcome.activation
    cell = run.cell
    worker = cell.worker
    if run.is_broken or worker.is_forgotten:
        return
    if batch.skipped and id(outcome) in batch.skipped:
        run.break_off()
        return
    if run.is_ask:
        _take_asked(cell, run, activation)
    if batch.statement_errors and id(outcome) in batch.statement_errors:
        outcome.fail(batch.statement_errors[id(outcome)])
        run.break_off()
    elif worker.lock_tries:
        worker.lock_tries.pop(locked_key(activation), None)
    # written here, without calls: this runs for every activation
    run.settled += 1
    n = worker.next_n
    worker.next_n = n + 1
    worker.deaths = 0
    batch.workers[worker.key] = worker
    if outcome.failure is None and activation.rerun is None and len(activation.messages) == 1:
        if activation.job.ended_at is None:
            _succeed_alone(batch, cell, n, outcome)
        else:
            _discard(batch, cell, n, run, outcome)
    elif not live_jobs(activation):
        _discard(batch, cell, n, run, outcome)
    elif outcome.failure is None:
        _succeed(batch, cell, n, outcome)
    else:
        fail(batch, cell, n, outcome, outcome.failure)


def _take_asked(cell: RoutineCell, run: Run, activation: Activation) -> None:
    """Take what a user's policy chose out of the windows; until now it was only shown."""
    chosen = set(activation.seqs)
    for queue in cell.slots.values():
        queue.remove(chosen)
    run.activations.append(activation)


def _discard(batch: Batch, cell: RoutineCell, n: int, run: Run, outcome: Outcome) -> None:
    """Its job has ended meanwhile: keep it in the history, without effect."""
    run.break_off()
    leave(batch, cell, outcome.activation)
    record(batch, cell, n, outcome, ActivationStatus.DISCARDED)


def _succeed_alone(batch: Batch, cell: RoutineCell, n: int, outcome: Outcome) -> None:
    """The hot path of `_succeed`: one message of one job, at its first attempt."""
    message, worker = outcome.activation.messages[0], cell.worker
    job = message.job
    if job.started_at is None:
        job.start(batch.now)
    batch.jobs[job] = worker
    if outcome.emits or outcome.state or outcome.job or job.routine_status:
        take_effects(batch, cell, job, n, outcome)
    batch.changes.consumed.append((worker.key, message.seq, n))
    job.open_count -= 1
    cell.slots[message.slot].waiting -= 1
    if message.deaths is not None:
        clear_suspects(batch, worker, [message])
    activation = outcome.activation
    if activation.policy_message is IMMEDIATE and not outcome.traces:
        batch.changes.completed.append(
            (worker.key, n, job.no, cell.routine_id, outcome.started_at, outcome.ended_at, str(message.seq))
        )
        if batch.wants_activations:
            tell_committed(batch, cell, outcome, ActivationStatus.COMPLETED)
    else:
        record(batch, cell, n, outcome, ActivationStatus.COMPLETED)
    end = outcome.job_end
    if end is not None:
        batch.end_job(worker, job, JobStatus(end.status), end.error, end.result)
    elif job.open_count == 0:
        batch.end_job(worker, job, JobStatus.COMPLETED)


def _succeed(batch: Batch, cell: RoutineCell, n: int, outcome: Outcome) -> None:
    activation, worker = outcome.activation, cell.worker
    job = (
        activation.job if not activation.job.has_ended else max(live_jobs(activation), key=lambda job: job.no)
    )
    start_jobs(batch, worker, activation)
    take_effects(batch, cell, job, n, outcome)
    consume(batch, cell, activation, n)
    record(batch, cell, n, outcome, ActivationStatus.COMPLETED)
    end = outcome.job_end
    if end is not None and not job.has_ended:
        batch.end_job(worker, job, JobStatus(end.status), end.error, end.result)
    close_jobs(batch, worker, activation)
