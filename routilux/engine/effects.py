"""What one outcome does to memory and to the rows of a commit: messages, state, jobs, history."""

from __future__ import annotations

from collections.abc import Sequence

from routilux.core import payload
from routilux.core.mailbox import RoutineCell, WorkerCell
from routilux.core.message import Activation, Job, Message, jobs_of
from routilux.core.outcome import JobIncrement, JobSet, Outcome, Replace
from routilux.core.selection import IMMEDIATE
from routilux.core.states import ActivationStatus, JobStatus
from routilux.core.worker_state import added
from routilux.engine.batch import Batch
from routilux.engine.facts import Fact


def emit(
    batch: Batch,
    worker: WorkerCell,
    job: Job,
    routine: str,
    slot: str,
    text: str,
    produced_by: int | None,
) -> None:
    """Add a message to the line of a slot. It runs only after the commit. The caller touches the job."""
    seq = worker.next_seq
    worker.next_seq = seq + 1
    job.open_count += 1
    batch.changes.waiting.append((worker.key, seq, job.no, routine, slot, text, produced_by, batch.now))
    cell = worker.routines[routine]
    cell.push(seq, job, slot, text, batch.now, produced_by)
    if not cell.is_ready:
        batch.mark_ready(cell)


def replace_state(batch: Batch, worker: WorkerCell, routine: str, texts: dict[str, str]) -> None:
    """Make this the whole state of a routine. The texts are shared; do not change them."""
    batch.state_of(worker, routine).replace(texts)


def increment_state(batch: Batch, worker: WorkerCell, routine: str, key: str, by: float) -> None:
    state = batch.state_of(worker, routine)
    state.set(key, added(state.get(key), by))


def change_job(batch: Batch, worker: WorkerCell, job: Job, edit: JobSet | JobIncrement) -> None:
    if isinstance(edit, JobSet):
        job.set_data(edit.key, edit.text)
    else:
        job.set_data(edit.key, added(job.data.get(edit.key), edit.by))
    batch.touch(worker, job)


def live_jobs(activation: Activation) -> list[Job]:
    """Its jobs that have not ended."""
    if len(activation.messages) == 1:
        job = activation.messages[0].job
        return [] if job.has_ended else [job]
    return [job for job in jobs_of(activation) if not job.has_ended]


def start_jobs(batch: Batch, worker: WorkerCell, activation: Activation) -> None:
    for job in live_jobs(activation):
        job.start(batch.now)
        batch.touch(worker, job)


def take_effects(batch: Batch, cell: RoutineCell, job: Job, n: int, outcome: Outcome) -> None:
    """What logic that succeeded wants: messages, state, and data of its job.

    The job that it ran as gets no data if it has ended.
    """
    worker = cell.worker
    for routine, slot, text in outcome.emits:
        emit(batch, worker, job, routine, slot, text, n)
    for change in outcome.state:
        if isinstance(change, Replace):
            replace_state(batch, worker, change.routine, change.texts)
        else:
            increment_state(batch, worker, change.routine, change.key, change.by)
    for edit in outcome.job if job is outcome.activation.job else ():
        change_job(batch, worker, job, edit)
    if job.routine_status:
        job.clear_routine_status(cell.routine_id)


def consume(batch: Batch, cell: RoutineCell, activation: Activation, n: int) -> None:
    worker = cell.worker
    for message in activation.messages:
        if not message.job.has_ended:
            batch.changes.consumed.append((worker.key, message.seq, n))
            message.job.close_message()
    leave(batch, cell, activation)


def leave(batch: Batch, cell: RoutineCell, activation: Activation) -> None:
    """The messages wait no longer; the marks that were kept for them go."""
    if activation.rerun is not None:
        batch.unpark(cell.worker, activation.rerun.key)
        return
    for message in activation.messages:
        if not message.job.ends_now:
            cell.slots[message.slot].leave()
    clear_suspects(batch, cell.worker, activation.messages)


def clear_suspects(batch: Batch, worker: WorkerCell, messages: Sequence[Message]) -> None:
    for message in messages:
        if message.deaths is not None:
            worker.clear_suspect(message)
            batch.unpark(worker, message.seq)


def close_jobs(batch: Batch, worker: WorkerCell, activation: Activation) -> None:
    """Complete each job that has no message waiting, parked or being handled."""
    for job in live_jobs(activation):
        if job.open_count == 0:
            batch.end_job(worker, job, JobStatus.COMPLETED)


def record(batch: Batch, cell: RoutineCell, n: int, outcome: Outcome, status: ActivationStatus) -> None:
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
    if batch.wants_activations:
        tell_committed(batch, cell, outcome, status)


def tell_committed(batch: Batch, cell: RoutineCell, outcome: Outcome, status: ActivationStatus) -> None:
    """The fact `activation.committed`, for those who asked for it."""
    failure = outcome.failure
    fields = {
        "worker_id": cell.worker.worker_id,
        "job_id": outcome.activation.job.job_id,
        "routine_id": cell.routine_id,
        "attempt": outcome.activation.attempt,
        "status": str(status),
        "error": failure and failure.text,
    }
    batch.facts.append(Fact("activation.committed", fields))


def policy_text(activation: Activation) -> str | None:
    """The policy message as it is stored."""
    if activation.reason_text is None and activation.policy_message is not None:
        activation.reason_text = payload.encode(activation.policy_message, root="policy_message")
    return activation.reason_text


def next_number(batch: Batch, worker: WorkerCell) -> int:
    batch.workers[worker.key] = worker
    return worker.take_number()
