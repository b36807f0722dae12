"""Engines that are broken on purpose, each in one way in which a design could be wrong.

The simulation must catch them all. Each function takes pytest's `monkeypatch` and breaks the real engine
until the test ends. Its docstring says what the broken engine does wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from routilux.core.mailbox import SlotQueue
from routilux.engine import acceptance, outcomes, requeue, scheduler, user_statements, worker_loading
from routilux.engine.batch import Batch
from routilux.engine.command_handlers import CommandHandlers
from routilux.engine.counters import Counters
from routilux.engine.effects import change_job
from routilux.engine.engine import Engine
from routilux.engine.group_commit import GroupCommit
from routilux.engine.inbox import Inbox
from routilux.engine.redelivery import Redelivery
from routilux.engine.scheduler import Scheduler
from routilux.engine.transactions import Transactions
from routilux.engine.worker_table import WorkerTable
from routilux.ownership.handover import MOST, Handover
from routilux.ownership.takeover import Takeover
from routilux.store.errors import AlreadyIn, Fenced
from routilux.store.reads import worker_reads
from routilux.store.writes import ownership
from routilux.store.writes.commit_rows import Changes
from routilux.store.writes.store import Commit, as_json
from routilux.testing.simulation import FAULTS
from tests.simulation import operators, strangers


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """A runtime that was declared dead goes on committing."""
    patch.setattr(Commit, "fence", lambda self: None)


def inbox_by_watermark(patch: pytest.MonkeyPatch) -> None:
    """It reads only inbox rows above the highest id that it has seen.

    That is right only if ids come in order and are never used again.
    """
    find = Inbox._find

    def above(self: Any, connection: Any) -> None:
        find(self, connection)
        top = getattr(self, "watermark", 0)
        self.ids = [number for number in self.ids if number > top]
        self.watermark = max([top, *self.ids])

    patch.setattr(Inbox, "_find", above)


def decides_before_own_statements(patch: pytest.MonkeyPatch) -> None:
    """It decides as if all user statements had gone in. Their errors come too late and are dropped."""
    execute = user_statements.execute

    def blind(commit: Any, batch: Batch, reported: Any) -> Any:
        execute(commit, batch, reported)
        batch.statement_errors.clear()
        batch.skipped.clear()
        return ()

    patch.setattr(user_statements, "execute", blind)


def retries_every_error_as_it_is(patch: pytest.MonkeyPatch) -> None:
    """It sends a commit that the database refuses again and again, unchanged."""

    def run(self: Any) -> None:
        attempt = 0
        while True:
            try:
                return self._try()
            except AlreadyIn:
                return None
            except Fenced:
                raise
            except Exception as error:
                attempt += 1
                self._wait(error, attempt)

    patch.setattr(GroupCommit, "run", run)


def paused_messages_fill_the_window(patch: pytest.MonkeyPatch) -> None:
    """Messages of a paused job stay in line. A window full of them hides messages that could run."""

    def keep(batch: Batch, cell: Any, chosen: Any) -> None:
        for message in chosen.paused:
            cell.slots[message.slot].give_back([message])
        cell.reruns.extend(chosen.paused_reruns)

    patch.setattr(scheduler, "park_paused", keep)


def loads_before_it_takes(patch: pytest.MonkeyPatch) -> None:
    """A take-over reads the waiting messages before the last commit of the dead owner is in."""

    def adopt(self: Any) -> int:
        with self._transactions.store.read() as connection:
            keys = ownership.ownerless(connection, self._flows.names(), self._clock.now_us(), MOST)
        for key in keys:
            self._workers.load_taken(key)
            if not self._take(key):
                self._workers.forget(self._workers.with_key(key))
        return len(keys)

    def run_once(self: Any) -> int:
        handover = self._handover
        taken: int = handover.adopt()
        for row in self._suspected():
            with self._transactions.store.read() as connection:
                owned = connection.execute(
                    text("SELECT key FROM routilux_workers WHERE owner = :dead"), {"dead": row.key}
                )
                keys = [key for (key,) in owned]
            for key in keys:
                handover._workers.load_taken(key)
            if self._declare_dead(row):
                for key in keys:
                    if not handover._take(key):
                        handover._workers.forget(handover._workers.with_key(key))
                taken += len(keys)
        return taken

    patch.setattr(Handover, "adopt", adopt)
    patch.setattr(Takeover, "run_once", run_once)


def counts_retries_in_memory(patch: pytest.MonkeyPatch) -> None:
    """Only the process that tried an activation knows how often. The next owner starts to count again."""
    tries: dict[tuple[int, int], int] = {}
    park, add = Batch.park, worker_loading.add_rerun

    def forgetful(self: Batch, cell: Any, messages: Any, routine: str, reason: Any, **more: Any) -> None:
        tries[id(cell), messages[0].seq] = more.get("attempt", 0)
        park(self, cell, messages, routine, reason, **{**more, "attempt": 0})

    def remembered(cell: Any, row: Any, messages: Any, line: int, attempt: int, pauses: Any) -> Any:
        return add(cell, row, messages, line, tries.get((id(cell), messages[0].seq), 0), pauses)

    patch.setattr(Batch, "park", forgetful)
    patch.setattr(worker_loading, "add_rerun", remembered)


def delivers_before_it_commits(patch: pytest.MonkeyPatch) -> None:
    """Logic starts on messages before their commit is in."""
    plan = Scheduler.plan

    def hasty(self: Scheduler, batch: Batch, rejections: Any) -> None:
        plan(self, batch, rejections)
        self.start(batch.planned)
        batch.planned.clear()

    patch.setattr(Scheduler, "plan", hasty)


def retries_a_second_early(patch: pytest.MonkeyPatch) -> None:
    """It stores due times that are one second too early."""
    parked = Batch.park

    def early(self: Batch, *rest: Any, **more: Any) -> None:
        if more.get("due_at") is not None:
            more["due_at"] -= 1_000_000
        parked(self, *rest, **more)

    patch.setattr(Batch, "park", early)


def sends_nothing_the_second_time(patch: pytest.MonkeyPatch) -> None:
    """After a lost answer it sends only the number of the commit again, without its rows."""
    write = Changes.write
    written: list[Changes] = []

    def once(self: Changes, connection: Any, commit_row: Any = None) -> None:
        if not any(one is self for one in written):
            written[:] = [self]
            write(self, connection, commit_row)

    patch.setattr(Changes, "write", once)


def forgets_state_on_take_over(patch: pytest.MonkeyPatch) -> None:
    """A worker that is taken over starts with an empty state."""
    patch.setattr(worker_reads, "state_of", lambda connection, worker: {})


def acknowledges_before_it_commits(patch: pytest.MonkeyPatch) -> None:
    """It answers a post as soon as the post is in a batch."""
    accept = acceptance.accept

    def eager(batch: Batch, *rest: Any) -> None:
        accept(batch, *rest)
        for receipt, value in batch.receipts:
            receipt.resolve(value)

    patch.setattr(acceptance, "accept", eager)


def takes_a_living_owners_worker(patch: pytest.MonkeyPatch) -> None:
    """Each runtime that asks for a worker becomes its owner."""
    patch.setattr(ownership, "_TAKE", text("UPDATE routilux_workers SET owner = :me WHERE key = :worker"))


def takes_inbox_rows_of_others(patch: pytest.MonkeyPatch) -> None:
    """It deletes inbox rows without asking whether it still owns their worker."""
    find = Inbox._find

    def all_of_them(self: Any, connection: Any) -> None:
        find(self, connection)
        for row in connection.execute(text("SELECT id, flow, worker_id FROM routilux_inbox")):
            self.found.setdefault(row.id, row)
        self.ids = list(self.found)

    patch.setattr(Inbox, "_find", all_of_them)
    patch.setattr(Inbox, "_is_owned", lambda self, row: True)


def resumes_twice_in_one_commit(patch: pytest.MonkeyPatch) -> None:
    """Two operators resume one job in one commit: its messages come back twice. (A simulation found it.)"""
    patch.setattr(Batch, "still_parks", lambda self, cell, key, reason: True)


def keeps_savepoints_that_fail(patch: pytest.MonkeyPatch) -> None:
    """It treats a savepoint whose RELEASE fails as one that was rolled back. (This simulation found it.)"""

    def together(self: Commit, groups: Any) -> bool:
        try:
            with self.connection.begin_nested():
                for group in groups:
                    self._run(group)
        except Exception:
            return False
        return True

    patch.setattr(Commit, "own_together", together)


def counts_only_who_is_busy(patch: pytest.MonkeyPatch) -> None:
    """The counters of a worker are written by its next commit a second later, so never if there is none.

    (A broken engine in `strangers` showed it.)
    """
    flush = Counters.flush

    def busy_ones(self: Any, batch: Batch) -> None:
        self._uncounted.clear()
        flush(self, batch)

    patch.setattr(Counters, "flush", busy_ones)


def keeps_rows_behind_a_silent_discard(patch: pytest.MonkeyPatch) -> None:
    """A dropped outcome without statements does not exclude the rest of its run. (A simulation found it.)"""
    lets_in = user_statements._Excluded.lets_in

    def silent(self: Any, batch: Batch, group: Any) -> bool:
        return False if group.is_late and not group.writes else lets_in(self, batch, group)

    patch.setattr(user_statements._Excluded, "lets_in", silent)


def sets_data_of_another_job(patch: pytest.MonkeyPatch) -> None:
    """A batch sets data of a job that has ended: another job gets the data. (This simulation found it.)"""
    take = outcomes.take_effects

    def taken(batch: Batch, cell: Any, job: Any, n: int, outcome: Any) -> None:
        take(batch, cell, job, n, outcome)
        for edit in outcome.job if job is not outcome.activation.job else ():
            change_job(batch, cell.worker, job, edit)

    patch.setattr(outcomes, "take_effects", taken)


def keeps_what_it_found_for_a_worker_loaded_again(patch: pytest.MonkeyPatch) -> None:
    """It reads what is due, the worker is loaded again, and the batch is requeued in the new worker.

    Its messages hold job records that no other part of the new worker has. (The torture rig found it.)
    """
    poll = Redelivery.poll

    def requeue_due(self: Any, batch: Batch) -> None:
        found, self._found = self._found, []
        for _, row, messages in found:
            cell = self._workers.with_key(row.worker)
            if cell is not None:
                cell.unpark_timed()
                requeue.bring_back(batch, cell, row, messages)

    def poll_once(self: Any) -> None:
        if not self._found:
            poll(self)

    patch.setattr(Redelivery, "poll", poll_once)
    patch.setattr(Redelivery, "requeue_due", requeue_due)


def drops_a_dead_letter_by_half(patch: pytest.MonkeyPatch) -> None:
    """A dead letter that is dropped leaves its messages as they were."""

    def drop(self: Any, batch: Batch, command: Any) -> None:
        cell = self._worker(command)
        batch.unpark(cell, self._dead_letter(batch, cell, command.seq).seq)

    patch.setattr(CommandHandlers, "_drop_dead_letter", drop)


def loads_beside_what_is_loaded(patch: pytest.MonkeyPatch) -> None:
    """A read fails at its end, the worker is loaded again, and memory holds it twice."""
    load = WorkerTable.load

    def beside(self: Any, connection: Any, stored: Any) -> Any:
        self._by_key.pop(stored.key, None)
        return load(self, connection, stored)

    patch.setattr(WorkerTable, "load", beside)


def decides_over_again(patch: pytest.MonkeyPatch) -> None:
    """A read fails during a decision. All is decided again, in memory that was changed already."""

    def settle(self: Any) -> None:
        self._decide(self._batch)
        self._batch.finish()
        self._is_decided = True
        self._in_flight = as_json(self._ask_in_flight(self._batch.planned))

    def read(self: Any, work: Any) -> Any:
        with self.store.read() as connection:
            return work(connection)

    patch.setattr(GroupCommit, "_settle", settle)
    patch.setattr(Transactions, "read", read)


def begins_what_was_taken_back(patch: pytest.MonkeyPatch) -> None:
    """A run that was handed out before its worker was forgotten starts all the same."""
    forget = WorkerTable.forget

    def let_run(self: WorkerTable, worker: Any) -> None:
        forget(self, worker)
        for routine in worker.routines.values():
            for run in routine.runs:
                run.is_broken = run.should_stop = False

    patch.setattr(WorkerTable, "forget", let_run)


def refuses_without_using_up_the_number(patch: pytest.MonkeyPatch) -> None:
    """A caller is told of a refusal while the database may still read the first try. (A review found it.)"""
    patch.setattr(GroupCommit, "_went_in", lambda self: False)


def gives_up_when_declared_dead_while_it_starts(patch: pytest.MonkeyPatch) -> None:
    """A runtime is declared dead while it starts, and its start fails. (The torture rig found it.)"""
    patch.setattr(Engine, "again_if_fenced", lambda self, call: call())


def looks_for_partners_in_the_window_only(patch: pytest.MonkeyPatch) -> None:
    """A join whose partner is behind the window of its slot waits without end."""
    patch.setattr(SlotQueue, "widen", lambda self, by: None)


@dataclass(frozen=True, slots=True)
class BrokenEngine:
    """`promise`: what it breaks. If another promise catches it, that proves nothing.

    `sign`: a part of the message; needed with P11 and "flow", which stand for many things. `scene`, `faults`:
    what shows it soonest; with all faults it takes longer. `start`: the first seed of a usual run, a little
    before the one that catches it, where the seeds before take minutes. Nightly runs start at 0.
    """

    breaks: Callable[[pytest.MonkeyPatch], None]
    promise: str | tuple[str, ...]
    scene: str = "diamond"
    faults: tuple[str, ...] = tuple(FAULTS)
    start: int = 0
    sign: str = ""


BROKEN = {
    engine.breaks.__name__: engine
    for engine in (
        BrokenEngine(no_fence, "P5", faults=("pause",), start=60),
        BrokenEngine(inbox_by_watermark, "P11", faults=(), sign="never accepted"),
        BrokenEngine(decides_before_own_statements, "flow", faults=(), sign="own rows"),
        BrokenEngine(retries_every_error_as_it_is, "P11", faults=(), sign="tries the same without end"),
        BrokenEngine(paused_messages_fill_the_window, "P6", faults=("operate",)),
        BrokenEngine(loads_before_it_takes, "flow", faults=("lost_answer",), sign="IntegrityError"),
        BrokenEngine(counts_retries_in_memory, "P7", faults=("logic_error", "crash")),
        BrokenEngine(delivers_before_it_commits, "P4", faults=("overlap",)),
        BrokenEngine(retries_a_second_early, "P7", faults=("logic_error",)),
        BrokenEngine(sends_nothing_the_second_time, "P1", faults=("lost_answer", "busy")),
        BrokenEngine(forgets_state_on_take_over, "P2", faults=("crash",)),
        BrokenEngine(acknowledges_before_it_commits, "P1", faults=("crash",)),
        BrokenEngine(takes_a_living_owners_worker, "P5", faults=()),
        BrokenEngine(takes_inbox_rows_of_others, "P1", faults=("crash",)),
        BrokenEngine(resumes_twice_in_one_commit, "P4", faults=("operate",)),
        BrokenEngine(keeps_savepoints_that_fail, "flow", faults=("busy",), sign="own rows"),
        BrokenEngine(counts_only_who_is_busy, "P8", faults=()),
        BrokenEngine(
            keeps_rows_behind_a_silent_discard, "flow", "gathering", ("operate",), start=1100, sign="own rows"
        ),
        BrokenEngine(sets_data_of_another_job, "P2", "narrow", ("operate",), start=228),
        BrokenEngine(
            keeps_what_it_found_for_a_worker_loaded_again, "P8", faults=("mistake", "logic_error"), start=260
        ),
        BrokenEngine(drops_a_dead_letter_by_half, "P8", faults=("dead_letter",)),
        BrokenEngine(decides_over_again, "P11", faults=("lost_read", "operate"), start=810, sign="parked at"),
        BrokenEngine(begins_what_was_taken_back, "P4", faults=("mistake", "operate"), start=1148),
        BrokenEngine(
            looks_for_partners_in_the_window_only, "P11", faults=("logic_error", "operate"), sign="never ends"
        ),
        BrokenEngine(
            loads_beside_what_is_loaded,
            "flow",
            faults=("lost_read", "mistake"),
            start=390,
            sign="IntegrityError",
        ),
        BrokenEngine(refuses_without_using_up_the_number, "P1", "narrow", ("refused",), start=130),
        BrokenEngine(
            gives_up_when_declared_dead_while_it_starts, "P11", faults=("slow_start",), sign="gave up"
        ),
        BrokenEngine(strangers.ended_job_is_signalled, "P8", "narrow", ("signal",), start=40),
        BrokenEngine(strangers.edited_payload_is_not_written, "P4", faults=("dead_letter",)),
        BrokenEngine(
            strangers.retry_that_comes_due_in_a_pause_starts_afresh, "P7", faults=("logic_error", "operate")
        ),
        BrokenEngine(
            strangers.idle_workers_survive_the_loss_of_identity,
            "P11",
            faults=("pause",),
            start=224,
            sign="never ends",
        ),
        BrokenEngine(
            strangers.first_replaced_state_is_not_undone,
            "flow",
            faults=("logic_error",),
            start=40,
            sign="counted",
        ),
        BrokenEngine(
            strangers.batch_is_discarded_with_its_newest_job,
            "P11",
            "narrow",
            ("operate",),
            start=228,
            sign="below the mark",
        ),
        BrokenEngine(
            strangers.low_water_mark_forgets_what_runs, "P11", faults=("crash",), sign="below the mark"
        ),
        BrokenEngine(
            strangers.keyed_post_that_waits_for_room_is_taken_for_its_own_repeat, "P1", "narrow", ("pause",)
        ),
        BrokenEngine(operators.dispatches_though_paused, "pause", faults=("pause_worker",)),
        BrokenEngine(operators.pause_is_forgotten_on_take_over, "pause", faults=("pause_worker", "crash")),
        BrokenEngine(operators.runs_go_on_in_a_pause, "pause", faults=("pause_worker",)),
        BrokenEngine(
            operators.resumes_what_is_ready_only, "P11", faults=("pause_worker",), sign="nothing runs"
        ),
        BrokenEngine(
            operators.counts_time_in_which_a_job_cannot_run,
            "time limit",
            "timed",
            ("time_limit", "pause_worker"),
        ),
        BrokenEngine(operators.counts_time_before_logic_begins, "time limit", "timed", ("time_limit",)),
        BrokenEngine(
            operators.counts_what_is_over_until_its_thread_is_back,
            "time limit",
            "timed",
            ("time_limit", "logic_error"),
        ),
        BrokenEngine(
            operators.counts_time_in_which_nobody_ran_it, "time limit", "timed", ("time_limit", "crash")
        ),
        BrokenEngine(operators.forgets_the_time_on_take_over, "time limit", "timed", ("time_limit", "crash")),
        BrokenEngine(operators.never_looks_at_the_time, "time limit", "timed", ("time_limit",)),
        BrokenEngine(
            operators.timed_out_job_leaves_its_retries, "P8", "timed", ("time_limit", "logic_error")
        ),
        BrokenEngine(operators.cancelled_worker_takes_posts, "cancel", faults=("cancel_worker",)),
        BrokenEngine(operators.cancels_what_it_has_in_memory, "cancel", faults=("cancel_worker", "crash")),
        BrokenEngine(
            operators.late_arrivals_stay_in_the_inbox, "P11", faults=("cancel_worker",), sign="never accepted"
        ),
        BrokenEngine(operators.cancelled_worker_is_started_again, "cancel", faults=("cancel_worker",)),
        BrokenEngine(operators.outcomes_of_a_cancelled_worker_go_in, "cancel", faults=("cancel_worker",)),
        BrokenEngine(operators.completed_job_leaves_what_waits, "P8", faults=("operate",)),
        BrokenEngine(operators.job_with_a_dead_letter_is_completed, "P8", faults=("dead_letter",)),
    )
}

__all__ = ["BROKEN"]
