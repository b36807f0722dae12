"""More engines that are broken on purpose, by somebody who had read the promises and the engine, and had not seen the simulator.

Six of the eight were not caught at first; what the simulator has learned from each stands beside it.
"""

from __future__ import annotations

from typing import Any

import pytest

from routilux.core.mailbox import RoutineCell
from routilux.core.run_overlay import Overlay
from routilux.core.slot_queue import SlotQueue
from routilux.core.states import ParkedReason
from routilux.engine import acceptance, commands, counters, outcomes, recovery, redelivery, worker_loading
from routilux.engine.user_statements import locked_key
from routilux.errors import JobNotFoundError
from routilux.ownership import handover
from routilux.store.reads import worker_reads


def retry_that_comes_due_in_a_pause_starts_afresh(patch: pytest.MonkeyPatch) -> None:
    """A retry that comes due while its job is paused counts as one that has not run yet. (Nothing looked at places in line.)"""

    def hold(batch: Any, cell: Any, row: Any) -> None:
        batch.miscounted[cell] = None
        redelivery._rewrite(batch, cell, row, ParkedReason.PAUSED, row.line)

    patch.setattr(redelivery, "hold", hold)


def idle_workers_survive_the_loss_of_identity(patch: pytest.MonkeyPatch) -> None:
    """A runtime that was declared dead keeps its idle workers in memory, whoever owns them now."""

    def lose_identity(engine: Any, batch: Any = None) -> None:
        for run in batch.planned if batch is not None else ():
            engine.executor.give(run)
        for run in engine.runs:
            run.should_stop = True
        engine.lone_run = engine.lone_cell = None
        engine.inbox.forget()
        touched = set(batch.workers) if batch is not None else set()
        for worker in list(engine.workers.values()):
            if worker.has_work or worker.key in touched:
                worker_loading.forget(engine, worker)
        handover.patiently(engine, engine.reidentify)

    patch.setattr(recovery, "lose_identity", lose_identity)


def first_replaced_state_is_not_undone(patch: pytest.MonkeyPatch) -> None:
    """State that a failed activation was the first in its run to replace is seen by the next one of the run. (The model
    replayed what logic wrote and did not ask what it had seen: now the flows count, and their counts are checked.)"""

    def replace(self: Any, scope: Any, texts: Any) -> None:
        before = self._changed.get(scope)
        if before is not None:
            self._undo.append((scope, None, before))
        self._own.discard(scope)
        self._changed[scope] = texts

    patch.setattr(Overlay, "replace", replace)


def batch_is_discarded_with_its_newest_job(patch: pytest.MonkeyPatch) -> None:
    """A batch is let go of when its newest job ends while it runs, with the messages of the other jobs in it. (Operators
    rarely met a job that was being worked on, and no flow gathered jobs early on.)"""

    def settle(engine: Any, batch: Any, outcome: Any) -> None:
        run, activation = outcome.run, outcome.activation
        cell = run.cell
        worker = cell.worker
        if run.is_broken or worker.is_forgotten:
            return
        if batch.skipped and id(outcome) in batch.skipped:
            run.is_broken = run.should_stop = True
            return
        if run.is_ask:
            outcomes._take_asked(cell, run, activation)
        if batch.own_errors and id(outcome) in batch.own_errors:
            outcome.fail(batch.own_errors[id(outcome)])
            run.is_broken = run.should_stop = True
        elif worker.lock_tries:
            worker.lock_tries.pop(locked_key(activation), None)
        run.settled += 1
        n = outcomes.next_number(batch, worker)
        if activation.job.ended_at is not None:
            outcomes._discard(batch, cell, n, run, outcome)
        elif outcome.failure is not None:
            outcomes.fail(engine, batch, cell, n, outcome, outcome.failure)
        elif activation.rerun is None and len(activation.messages) == 1:
            outcomes._succeed_alone(engine, batch, cell, n, outcome)
        else:
            outcomes._succeed(engine, batch, cell, n, outcome)

    patch.setattr(outcomes, "settle", settle)


def low_water_mark_forgets_what_runs(patch: pytest.MonkeyPatch) -> None:
    """The low mark of a slot is the head of its window, though an older message still runs."""

    def low_seq(routine: RoutineCell, queue: SlotQueue) -> int:
        if queue.items:
            return queue.items[0].seq
        candidates = [
            message.seq
            for run in routine.runs
            for activation in run.activations[run.settled :]
            for message in activation.messages
            if message.slot == queue.name
        ]
        if queue.has_more:
            candidates.append(queue.loaded_to + 1)
        return min(candidates, default=routine.worker.next_seq)

    patch.setattr(counters, "_low_seq", low_seq)


def keyed_post_that_waits_for_room_is_taken_for_its_own_repeat(patch: pytest.MonkeyPatch) -> None:
    """A post that waits for room in a full slot keeps its key, and the next turn takes it for a repeat of itself. (No slot was
    ever full. The first world with one found counters that stayed behind for ever.)"""

    def free_unused(batch: Any, taken: Any) -> None:
        if batch.refusals:
            batch.unused_keys = batch.claimed - taken.keys()

    patch.setattr(acceptance, "free_unused", free_unused)


def ended_job_is_signalled(patch: pytest.MonkeyPatch) -> None:
    """A signal in the very commit of a job's last outcome is taken in, by a second record of the job. (There were no signals.)"""
    load = worker_loading.load_jobs

    def job(engine: Any, batch: Any, worker_id: Any, job_id: Any) -> Any:
        cell = commands._worker(engine, worker_id)
        posted = batch.posted.get(job_id or "")
        if posted is not None and posted.worker_id == cell.worker_id:
            return cell, posted
        with engine.store.read() as connection:
            row = worker_reads.job_with_id(connection, job_id or "")
            if row is None or row.worker != cell.key:
                raise JobNotFoundError(job_id)
            return cell, load(connection, cell, {row.job})[row.job]

    patch.setattr(commands, "_job", job)


def edited_payload_is_not_written(patch: pytest.MonkeyPatch) -> None:
    """A dead letter that is sent again with another payload runs with it, and the table keeps the old one. (There were no dead
    letters.)"""
    retry = commands._VERBS["retry_dead"]

    def unwritten(engine: Any, batch: Any, *rest: Any) -> None:
        retry(engine, batch, *rest)
        batch.changes.payloads.clear()

    patch.setitem(commands._VERBS, "retry_dead", unwritten)
