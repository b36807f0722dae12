"""Engines that are broken on purpose, each in one way that a design could be wrong in. The simulation must catch them all.

Each takes pytest's `monkeypatch` and breaks the real engine until the test is over. The docstring says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from routilux.core.slot_queue import SlotQueue
from routilux.engine import (
    acceptance,
    commands,
    counters,
    inbox,
    outcomes,
    redelivery,
    scheduler,
    user_statements,
    worker_loading,
)
from routilux.engine.batch import Batch
from routilux.engine.effects import change_job
from routilux.engine.engine import Engine
from routilux.engine.group_commit import GroupCommit
from routilux.ownership import handover, takeover
from routilux.ownership.lease import Lease
from routilux.store.errors import Fenced
from routilux.store.reads import worker_reads
from routilux.store.writes import ownership
from routilux.store.writes.commit_rows import Changes
from routilux.store.writes.store import Commit
from routilux.testing.simulation import FAULTS
from tests.simulation import operators, strangers


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """A runtime that was declared dead goes on committing."""
    patch.setattr(Commit, "fence", lambda self: None)


def inbox_by_watermark(patch: pytest.MonkeyPatch) -> None:
    """It reads inbox rows above the highest number it has seen, as if numbers came in order and were not used again."""
    find = inbox._find

    def above(self: Any, connection: Any) -> None:
        find(self, connection)
        seen = self.inbox
        top = getattr(self, "watermark", 0)
        seen.ids = [number for number in seen.ids if number > top]
        self.watermark = max([top, *seen.ids])

    patch.setattr(inbox, "_find", above)


def decides_before_own_statements(patch: pytest.MonkeyPatch) -> None:
    """Outcomes are decided as if their own statements had gone in; errors of those are found too late and dropped."""
    execute = user_statements.execute

    def blind(self: Any, commit: Any, batch: Batch, reported: Any) -> Any:
        execute(self, commit, batch, reported)
        batch.own_errors.clear()
        batch.skipped.clear()
        return ()

    patch.setattr(user_statements, "execute", blind)


def retries_every_error_as_it_is(patch: pytest.MonkeyPatch) -> None:
    """A commit that the database refuses is sent again unchanged, for ever."""

    def run(self: GroupCommit) -> None:
        attempt = 0
        while True:
            try:
                return self._try()
            except Fenced:
                raise
            except Exception as error:
                if type(error).__name__ == "AlreadyIn":
                    return None
                attempt += 1
                self._wait(error, attempt)

    patch.setattr(GroupCommit, "run", run)


def paused_messages_fill_the_window(patch: pytest.MonkeyPatch) -> None:
    """Messages of a paused job stay in the line: a window full of them hides what could run."""

    def keep(batch: Batch, cell: Any, chosen: Any) -> None:
        for message in chosen.paused:
            cell.slots[message.slot].give_back([message])
        cell.reruns.extend(chosen.paused_reruns)

    patch.setattr(scheduler, "_park_paused", keep)


def loads_before_it_takes(patch: pytest.MonkeyPatch) -> None:
    """A take-over reads what waits before the commit that the dead owner still had in flight has landed."""

    def adopt(self: Any) -> int:
        with self.store.read() as connection:
            keys = ownership.ownerless(connection, self.flows.names(), self.clock.now_us(), handover.MOST)
        for key in keys:
            handover._load_key(self, key)
            if not handover._take(self, key):
                worker_loading.forget(self, self.workers[key])
        return len(keys)

    def run_once(self: Any, lease: Lease) -> int:
        taken = handover.adopt(self)
        for row in takeover._suspected(self, lease):
            with self.store.read() as connection:
                owned = connection.execute(
                    text("SELECT key FROM routilux_workers WHERE owner = :dead"), {"dead": row.key}
                )
                keys = [key for (key,) in owned]
            for key in keys:
                handover._load_key(self, key)
            if takeover._declare_dead(self, lease, row):
                for key in keys:
                    if not handover._take(self, key):
                        worker_loading.forget(self, self.workers[key])
                taken += len(keys)
        return taken

    patch.setattr(handover, "adopt", adopt)
    patch.setattr(takeover, "run_once", run_once)


def counts_retries_in_memory(patch: pytest.MonkeyPatch) -> None:
    """How often something was tried is known to the process that tried, and to nobody after it."""
    _tries: dict[tuple[int, int], int] = {}
    park, add = Batch.park, worker_loading.add_rerun

    def forgetful(self: Batch, cell: Any, messages: Any, routine: str, reason: Any, **more: Any) -> None:
        _tries[id(cell), messages[0].seq] = more.get("attempt", 0)
        park(self, cell, messages, routine, reason, **{**more, "attempt": 0})

    def remembered(self: Any, cell: Any, row: Any, messages: Any, line: int, attempt: int) -> None:
        add(self, cell, row, messages, line, _tries.get((id(cell), messages[0].seq), 0))

    patch.setattr(Batch, "park", forgetful)
    patch.setattr(worker_loading, "add_rerun", remembered)


def delivers_before_it_commits(patch: pytest.MonkeyPatch) -> None:
    """Logic starts on messages while their commit is still on its way."""
    plan = scheduler.plan

    def hasty(self: Any, batch: Batch) -> None:
        plan(self, batch)
        for run in batch.planned:
            self.runs[run] = None
            self.executor.submit(run)
        batch.planned.clear()

    patch.setattr(scheduler, "plan", hasty)


def retries_a_second_early(patch: pytest.MonkeyPatch) -> None:
    """A due time is written a second too early."""
    parked = Batch.park

    def early(self: Batch, *rest: Any, **more: Any) -> None:
        if more.get("due_at") is not None:
            more["due_at"] -= 1_000_000
        parked(self, *rest, **more)

    patch.setattr(Batch, "park", early)


def sends_nothing_the_second_time(patch: pytest.MonkeyPatch) -> None:
    """After a lost answer only the number of the commit is sent again, without its rows."""
    write = Changes.write
    written: list[Changes] = []

    def once(self: Changes, connection: Any, commit_row: Any = None) -> None:
        if not any(one is self for one in written):
            written[:] = [self]
            write(self, connection, commit_row)

    patch.setattr(Changes, "write", once)


def forgets_state_on_take_over(patch: pytest.MonkeyPatch) -> None:
    """A worker that changes hands begins with an empty state."""
    patch.setattr(worker_reads, "state_of", lambda connection, worker: {})


def acknowledges_before_it_commits(patch: pytest.MonkeyPatch) -> None:
    """A post is answered when it is accepted into a batch."""
    accept = acceptance.accept

    def eager(self: Any, batch: Batch, entry: Any, taken: Any) -> None:
        accept(self, batch, entry, taken)
        for receipt, value in batch.receipts:
            receipt.resolve(value)

    patch.setattr(acceptance, "accept", eager)


def takes_a_living_owners_worker(patch: pytest.MonkeyPatch) -> None:
    """Whoever asks becomes the owner."""
    patch.setattr(ownership, "_TAKE", text("UPDATE routilux_workers SET owner = :me WHERE key = :worker"))


def takes_inbox_rows_of_others(patch: pytest.MonkeyPatch) -> None:
    """It deletes inbox rows without asking whether their worker is still its own."""
    find = inbox._find

    def all_of_them(self: Any, connection: Any) -> None:
        find(self, connection)
        for row in connection.execute(text("SELECT id, flow, worker_id FROM routilux_inbox")):
            self.inbox.workers.setdefault(row.id, (row.flow, row.worker_id))
        self.inbox.ids = list(self.inbox.workers)

    patch.setattr(inbox, "_find", all_of_them)
    patch.setattr(inbox, "_is_mine", lambda self, flow, worker_id: True)


def resumes_twice_in_one_commit(patch: pytest.MonkeyPatch) -> None:
    """Two operators who resume one job in one commit bring its messages back twice (found by an earlier simulation)."""
    patch.setattr(Batch, "still_parks", lambda self, cell, key, reason: True)


def keeps_savepoints_that_fail(patch: pytest.MonkeyPatch) -> None:
    """A savepoint whose RELEASE fails is taken for one that was rolled back (found by this simulation)."""

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
    """Counters are written by the next commit of a worker a second later, or never (found by a stranger's broken engine)."""
    refresh = counters.refresh

    def busy_ones(self: Any, batch: Batch) -> None:
        self.uncounted.clear()
        refresh(self, batch)

    patch.setattr(counters, "refresh", busy_ones)


def keeps_rows_behind_a_silent_discard(patch: pytest.MonkeyPatch) -> None:
    """Only what wrote something itself takes the rest of its run along when it is discarded (found by this simulation)."""
    lets_in = user_statements._Doom.lets_in

    def silent(self: Any, batch: Batch, own: Any) -> bool:
        return False if own.is_late and not own.writes else lets_in(self, batch, own)

    patch.setattr(user_statements._Doom, "lets_in", silent)


def sets_data_of_another_job(patch: pytest.MonkeyPatch) -> None:
    """Data that a batch sets in a job that has ended lands in another one (found by this simulation)."""
    take = outcomes.take_effects

    def taken(self: Any, batch: Batch, cell: Any, job: Any, n: int, outcome: Any) -> None:
        take(self, batch, cell, job, n, outcome)
        for edit in outcome.job if job is not outcome.activation.job else ():
            change_job(batch, cell.worker, job, edit)

    patch.setattr(outcomes, "take_effects", taken)


def keeps_what_it_found_for_a_worker_loaded_again(patch: pytest.MonkeyPatch) -> None:
    """What comes due is read before the worker is loaded again, and brought back into the new one, with records of its jobs
    that nobody else has (found by the torture rig)."""

    def apply(self: Any, batch: Batch) -> None:
        found, self.due.found = self.due.found, []
        for _, row, messages in found:
            cell = self.workers.get(row.worker)
            if cell is not None:
                cell.timed_count -= 1
                redelivery.bring_back(self, batch, cell, row, messages)

    def look_once(self: Any) -> None:
        if not self.due.found:
            look(self)

    look = redelivery.look
    patch.setattr(redelivery, "look", look_once)
    patch.setattr(redelivery, "apply", apply)


def drops_a_dead_letter_by_half(patch: pytest.MonkeyPatch) -> None:
    """A dead letter that is given up leaves its messages as they were."""

    def drop(self: Any, batch: Batch, worker_id: Any, job_id: Any, body: Any) -> None:
        cell = commands._worker(self, worker_id)
        batch.unpark(cell, commands._dead_letter(self, batch, cell, body["seq"]).seq)

    patch.setitem(commands._VERBS, "drop_dead", drop)


def loads_beside_what_is_loaded(patch: pytest.MonkeyPatch) -> None:
    """A worker that is loaded once more, as the read before failed at its end, stays in memory twice."""
    load = worker_loading.load

    def beside(self: Any, connection: Any, stored: Any) -> Any:
        self.workers.pop(stored.key, None)
        return load(self, connection, stored)

    patch.setattr(worker_loading, "load", beside)


def decides_over_again(patch: pytest.MonkeyPatch) -> None:
    """A read that fails in the middle of a decision has the whole decision made once more, over what it left in memory."""

    def settle(self: Any) -> None:
        self._decide(self._batch)
        self._batch.finish()
        self._is_decided = True
        self._in_flight = self._engine.in_flight(self._batch)

    def read(self: Any, work: Any) -> Any:
        with self.store.read() as connection:
            return work(connection)

    patch.setattr(GroupCommit, "_settle", settle)
    patch.setattr(Engine, "read", read)


def begins_what_was_taken_back(patch: pytest.MonkeyPatch) -> None:
    """A run that was handed out before its worker was forgotten begins all the same."""
    forget = worker_loading.forget

    def let_run(self: Any, worker: Any) -> None:
        forget(self, worker)
        for routine in worker.routines.values():
            for run in routine.runs:
                run.is_broken = run.should_stop = False

    patch.setattr(worker_loading, "forget", let_run)


def refuses_without_using_up_the_number(patch: pytest.MonkeyPatch) -> None:
    """Whoever waits is told of a refusal while the first try may still be read and go in (found by a review)."""
    patch.setattr(GroupCommit, "_went_in", lambda self: False)


def gives_up_when_declared_dead_while_it_starts(patch: pytest.MonkeyPatch) -> None:
    """A runtime that stands still while it starts, and is taken for dead, lets the fence out (found by the torture rig)."""
    patch.setattr(Engine, "again_if_fenced", lambda self, call: call())


def looks_for_partners_in_the_window_only(patch: pytest.MonkeyPatch) -> None:
    """A join whose partner is further back than what is held of its slots waits for it for ever."""
    patch.setattr(SlotQueue, "widen", lambda self, by: None)


@dataclass(frozen=True, slots=True)
class BrokenEngine:
    """`promise`: what it breaks; caught by another one it proves nothing. `sign`: a part of what is told then; with P11 and "flow",
    which are many things. `scene` and `faults`: what brings it out soonest; with all faults it takes longer. `start`: the first
    seed of a usual run, a little before the one that catches it, where those before that take a large part of its minutes;
    nights begin at 0.
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
        BrokenEngine(retries_every_error_as_it_is, "P11", faults=(), sign="tried for ever"),
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
