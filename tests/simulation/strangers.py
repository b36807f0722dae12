"""More engines that are broken on purpose, by an author who knew the engine but not the simulator.

At first the simulator missed six of the eight. Beside each stands what the simulator lacked.
"""

from __future__ import annotations

from typing import Any

import pytest

from routilux.core.mailbox import RoutineCell
from routilux.core.run_overlay import Overlay
from routilux.core.slot_queue import SlotQueue
from routilux.core.states import ParkedReason
from routilux.engine import acceptance, counter_rows, effects, outcomes, requeue, worker_loading
from routilux.engine.command_handlers import CommandHandlers
from routilux.engine.failed_turn import FailedTurn
from routilux.engine.statement_group import locked_key
from routilux.errors import JobNotFoundError
from routilux.store.reads import worker_reads


def retry_that_comes_due_in_a_pause_starts_afresh(patch: pytest.MonkeyPatch) -> None:
    """A retry that comes due while its job is paused counts as one that has not run yet.

    (No check looked at places in line.)
    """

    def hold(batch: Any, cell: Any, row: Any) -> None:
        batch.miscounted[cell] = None
        requeue._rewrite(batch, cell, row, ParkedReason.PAUSED, row.line)

    patch.setattr(requeue, "hold", hold)


def idle_workers_survive_the_loss_of_identity(patch: pytest.MonkeyPatch) -> None:
    """A runtime that was declared dead keeps its idle workers in memory, though others may own them now."""

    def lose_identity(self: Any, batch: Any = None) -> None:
        parts = self._parts
        parts.scheduler.cancel(batch.planned if batch is not None else ())
        parts.scheduler.lose_identity()
        parts.inbox.forget()
        touched = set(batch.workers) if batch is not None else set()
        for worker in list(parts.workers):
            if worker.has_work or worker.key in touched:
                parts.workers.forget(worker)
        parts.transactions.retry_transient(self._identity.come_back)

    patch.setattr(FailedTurn, "lose_identity", lose_identity)


def first_replaced_state_is_not_undone(patch: pytest.MonkeyPatch) -> None:
    """An activation is the first of its run to replace a state and fails; the next one sees its state.

    (The model replayed what logic wrote, but did not ask what logic saw. Now the flows count, and the counts
    are checked.)
    """

    def replace(self: Any, scope: Any, texts: Any) -> None:
        before = self._changed.get(scope)
        if before is not None:
            self._undo.append((scope, None, before))
        self._own.discard(scope)
        self._changed[scope] = texts

    patch.setattr(Overlay, "replace", replace)


def batch_is_discarded_with_its_newest_job(patch: pytest.MonkeyPatch) -> None:
    """Its newest job ends while a batch runs; the messages of the other jobs are discarded with it.

    (Operators rarely chose a job that was running, and no flow gathered jobs early.)
    """

    def settle(batch: Any, outcome: Any) -> None:
        run, activation = outcome.run, outcome.activation
        cell = run.cell
        worker = cell.worker
        if run.is_broken or worker.is_forgotten:
            return
        if batch.skipped and id(outcome) in batch.skipped:
            run.break_off()
            return
        if run.is_ask:
            outcomes._take_asked(cell, run, activation)
        if batch.statement_errors and id(outcome) in batch.statement_errors:
            outcome.fail(batch.statement_errors[id(outcome)])
            run.break_off()
        elif worker.lock_tries:
            worker.lock_tries.pop(locked_key(activation), None)
        run.settled += 1
        n = effects.next_number(batch, worker)
        if activation.job.ended_at is not None:
            outcomes._discard(batch, cell, n, run, outcome)
        elif outcome.failure is not None:
            outcomes.fail(batch, cell, n, outcome, outcome.failure)
        elif activation.rerun is None and len(activation.messages) == 1:
            outcomes._succeed_alone(batch, cell, n, outcome)
        else:
            outcomes._succeed(batch, cell, n, outcome)

    patch.setattr(outcomes, "settle", settle)


def low_water_mark_forgets_what_runs(patch: pytest.MonkeyPatch) -> None:
    """The low mark of a slot is the head of its window, though an older message still runs."""

    low_seq = counter_rows._low_seq

    def head_first(routine: RoutineCell, queue: SlotQueue) -> int:
        return queue.items[0].seq if queue.items else low_seq(routine, queue)

    patch.setattr(counter_rows, "_low_seq", head_first)


def keyed_post_that_waits_for_room_is_taken_for_its_own_repeat(patch: pytest.MonkeyPatch) -> None:
    """A post that waits for room in a full slot keeps its key; the next turn takes it for its own repeat.

    (No slot was ever full. The first world with a full slot found counters that stayed behind.)
    """

    def free_unused(batch: Any, taken: Any) -> None:
        if batch.refusals:
            batch.unused_keys = batch.claimed - taken.keys()

    patch.setattr(acceptance, "free_unused", free_unused)


def ended_job_is_signalled(patch: pytest.MonkeyPatch) -> None:
    """A signal comes in the same commit as a job's last outcome. A second record of the job accepts it.

    (There were no signals.)
    """
    load = worker_loading.load_jobs

    def job(self: Any, batch: Any, command: Any) -> Any:
        cell, job_id = self._worker(command), command.job_id or ""
        posted = batch.posted.get(job_id)
        if posted is not None and posted.worker_id == cell.worker_id:
            return cell, posted
        with self._transactions.store.read() as connection:
            row = worker_reads.job_with_id(connection, job_id)
            if row is None or row.worker != cell.key:
                raise JobNotFoundError(command.job_id)
            return cell, load(connection, cell, {row.job})[row.job]

    patch.setattr(CommandHandlers, "_job", job)


def edited_payload_is_not_written(patch: pytest.MonkeyPatch) -> None:
    """A dead letter is sent again with another payload and runs with it; the table keeps the old payload.

    (There were no dead letters.)
    """
    retry = CommandHandlers._retry_dead_letter

    def unwritten(self: Any, batch: Any, command: Any) -> None:
        retry(self, batch, command)
        batch.changes.payloads.clear()

    patch.setattr(CommandHandlers, "_retry_dead_letter", unwritten)
