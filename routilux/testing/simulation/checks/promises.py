"""What must be true of a world, in plain Python that knows the promises but not the engine.

The model is told what was posted and acknowledged, and what each run of logic wanted. After each commit it
looks at the tables and replays what went in. A difference is a `Violation`, at the step that made it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from routilux.core.compiled import CompiledFlow
from routilux.core.message import Activation
from routilux.core.outcome import JobSet, Outcome, Replace
from routilux.core.policies import AllSlotsReadyPolicy, BatchSizePolicy, ImmediatePolicy
from routilux.testing.simulation.checks.attempts import Attempts
from routilux.testing.simulation.checks.cancels import Cancels
from routilux.testing.simulation.checks.dead_letters import DeadLetters
from routilux.testing.simulation.checks.pauses import Pauses
from routilux.testing.simulation.checks.refusals import Refusals
from routilux.testing.simulation.checks.signals import Signals
from routilux.testing.simulation.checks.time_limits import Limits
from routilux.testing.simulation.recorded_runs import Wish
from routilux.testing.simulation.tables import ENDED, Json, Tables, Violation


@dataclass(slots=True)
class Model:
    """The truth of one world. `clock`: monotonic seconds. `may_fail`: jobs may fail by errors of the flow."""

    tables: Tables
    flows: list[CompiledFlow]
    clock: Callable[[], float]
    may_fail: bool = False
    posted: dict[str, Json] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    asked_to_end: set[tuple[str, str]] = field(default_factory=set)  # job id, status
    told_ended: set[str] = field(default_factory=set)  # jobs whose end was acknowledged
    jobs: dict[str, str] = field(default_factory=dict)  # job id -> status
    wishes: dict[tuple[int, int], Wish] = field(default_factory=dict)  # (worker, start) -> wish
    _seen: dict[int, int] = field(default_factory=dict)  # worker -> last activation
    _consumed: dict[tuple[int, int], int] = field(default_factory=dict)
    _lines: dict[tuple[int, str, str], int] = field(default_factory=dict)
    _state: dict[tuple[int, str], dict[str, Json]] = field(default_factory=dict)
    _data: dict[tuple[int, int], dict[str, Json]] = field(default_factory=dict)
    _ended: set[tuple[int, int]] = field(default_factory=set)  # jobs that have ended
    _latest_us: int = 0
    pauses: Pauses = field(default_factory=Pauses)
    attempts: Attempts = field(init=False)
    letters: DeadLetters = field(init=False)
    limits: Limits = field(init=False)
    cancels: Cancels = field(init=False)
    signals: Signals = field(init=False)
    refusals: Refusals = field(init=False)

    def __post_init__(self) -> None:
        self.attempts = Attempts(self.tables, self.flows, self._ended)
        self.letters = DeadLetters(self.tables, self.attempts, self.asked_to_end)
        self.limits = Limits(self.tables, self.flows, self.clock)
        self.cancels = Cancels(self.tables)
        self.signals = Signals(self.tables)
        self.refusals = Refusals(self.tables, self.wishes)

    # what the world tells

    def before_logic(self, activation: Activation, worker: int) -> None:
        """P4: logic never sees a message that is not durable."""
        self.limits.before_logic(activation, worker)
        for message in activation.messages:
            row = self.tables.one(
                "SELECT payload FROM routilux_messages WHERE worker = ? AND seq = ?", worker, message.seq
            )
            if row is None or row[0] != message.payload:
                raise Violation("P4", f"logic got message {message.seq}, but the database has {row}")

    def after_logic(self, worker: int, routine: str, activation: Activation, outcome: Outcome) -> None:
        in_pause = worker in self.pauses.paused
        self.wishes[worker, outcome.started_at] = Wish.of(
            worker, routine, activation, outcome, in_pause=in_pause
        )

    # after each commit

    def look(self, runtime: int | None, began_us: int, now_us: int) -> None:
        """`runtime`: the one that has just committed; None if a client has. Times are of the wall clock."""
        self._latest_us = max(self._latest_us, now_us)
        self.attempts.look(began_us, self._latest_us)
        self.letters.look()
        for worker, owner, worker_id, state in self.tables.all(
            "SELECT key, owner, worker_id, status FROM routilux_workers"
        ):
            self.pauses.look(worker, worker_id, state)
            for row in self.tables.all(
                "SELECT n, job, routine, attempt, status, started_at, seqs, error_type"
                " FROM routilux_activations WHERE worker = ? AND n > ? ORDER BY n",
                worker,
                self._seen.get(worker, 0),
            ):
                if runtime is not None and owner != runtime:
                    raise Violation(
                        "P5", f"runtime {runtime} committed for worker {worker}, but {owner} owns it"
                    )
                self._seen[worker] = row[0]
                self._take_in(worker, *row)
            self.cancels.look(worker, worker_id, state)
            self._check_state(worker)
        self.attempts.check_places()
        self.limits.look()
        self._check_jobs()
        self.signals.look(self.jobs)
        self.refusals.look()
        self._check_marks()

    def _take_in(
        self,
        worker: int,
        n: int,
        job: int,
        routine: str,
        attempt: int,
        status: str,
        started_at: int,
        seqs: str,
        error: str | None,
    ) -> None:
        what = f"activation {n} of {routine!r} (attempt {attempt}, {status})"
        messages = tuple(sorted(map(int, seqs.split(","))))
        self.limits.settle(worker, messages)
        self.cancels.check_activation(worker, status, what)
        wish = self.wishes.get((worker, started_at))
        is_rejected = False
        if wish is None or wish.routine != routine:
            is_rejected = self.refusals.rejects(worker, routine, messages, status)
            if status == "completed" or (status != "failed" and not is_rejected):
                raise Violation("P2", f"{what} is in the history, but no logic ran")
            wish = None
        elif wish.n is not None:
            raise Violation("P3", f"one run of logic counts twice: as activation {wish.n} and as {what}")
        else:
            wish.n = n
            if wish.in_pause:
                raise Violation("pause", f"{what} began while its worker was paused")
            if wish.seqs != messages:
                raise Violation("P2", f"{what} names messages {messages}, but its logic ran with {wish.seqs}")
            failed = wish.error is not None or (wish.writes and error is not None)
            if status != "discarded" and failed == (status == "completed"):
                raise Violation("P2", f"{what}, but its logic ended with {wish.error}")
        self.attempts.check(worker, routine, messages, attempt, status, what)
        if status == "completed":
            assert wish is not None
            self._count_in(worker, n, job, wish, messages, what)
        elif self.tables.all(
            "SELECT 1 FROM routilux_messages WHERE worker = ? AND produced_by = ?", worker, n
        ):
            raise Violation("P2", f"{what} has emitted messages")
        if status in ("completed", "error_continued", "skipped"):
            self._consume(worker, n, routine, messages, what)
        if status == "failed":
            self.letters.check_failed(worker, messages, what)
        if status == "failed" and not (self.may_fail or is_rejected or (wish and wish.is_injected)):
            raise Violation("flow", f"{what} failed: {error}: {wish and wish.error}")

    def _count_in(
        self, worker: int, n: int, job: int, wish: Wish, messages: Sequence[int], what: str
    ) -> None:
        emitted = self.tables.all(
            "SELECT routine, slot, payload FROM routilux_messages"
            " WHERE worker = ? AND produced_by = ? ORDER BY seq",
            worker,
            n,
        )
        if emitted != wish.emits and not wish.ends_job:
            raise Violation("P2", f"{what} emitted {wish.emits}, but {emitted} is stored")
        for change in wish.state:
            if isinstance(change, Replace):
                self._state[worker, change.routine] = {
                    key: json.loads(text) for key, text in change.texts.items()
                }
            else:
                state = self._state.setdefault((worker, change.routine), {})
                state[change.key] = state.get(change.key, 0) + change.by
        for edit in wish.job if (worker, job) not in self._ended else ():
            data = self._data.setdefault((worker, job), {})
            data[edit.key] = (
                json.loads(edit.text) if isinstance(edit, JobSet) else data.get(edit.key, 0) + edit.by
            )

    def _consume(self, worker: int, n: int, routine: str, messages: Sequence[int], what: str) -> None:
        for seq in messages:
            if (worker, seq) in self._consumed:
                first = self._consumed[worker, seq]
                text = f"message {seq} was consumed twice: by activation {first} and by {what}"
                raise Violation("P3", text)
            self._consumed[worker, seq] = n
            row = self.tables.one(
                "SELECT slot, status, consumed_by FROM routilux_messages WHERE worker = ? AND seq = ?",
                worker,
                seq,
            )
            if row is None or (row[1] != "cancelled" and row[1:] != ("consumed", n)):
                raise Violation("P2", f"{what} consumed message {seq}, but the database has {row}")
            if (worker, seq) not in self.attempts.parked and self._keeps_order(routine):
                line = (worker, routine, row[0])
                if seq <= self._lines.get(line, 0):
                    raise Violation(
                        "P6",
                        f"{what} consumed message {seq} after message {self._lines[line]} of the same slot",
                    )
                self._lines[line] = seq

    def _keeps_order(self, routine: str) -> bool:
        """Not a join by job, which takes what has its partner, nor a user's policy."""
        found = [flow.routines[routine] for flow in self.flows if routine in flow.routines]
        return all(
            each.concurrency == 1
            and (
                isinstance(each.policy, (ImmediatePolicy, BatchSizePolicy))
                or (isinstance(each.policy, AllSlotsReadyPolicy) and not each.policy.by_job)
            )
            for each in found
        )

    def _check_state(self, worker: int) -> None:
        """P2, P3: state is what the stored activations left, in their order."""
        stored = {key: state for key, state in self.tables.states().items() if key[0] == worker}
        expected = {key: state for key, state in self._state.items() if key[0] == worker}
        if stored != expected:
            wrong = sorted(
                {key[1] for key in stored.keys() | expected.keys() if stored.get(key) != expected.get(key)}
            )
            texts = (
                f"the state of {name!r} is {stored.get((worker, name))},"
                f" but its activations left {expected.get((worker, name))}"
                for name in wrong
            )
            raise Violation("P2", "; ".join(texts))

    def _check_jobs(self) -> None:
        """P1 and P8: acknowledged jobs are there; ended jobs stay ended; nothing of a live job is missing."""
        before, self.jobs = self.jobs, {}
        open_count = Counter[tuple[int, int]](
            self.tables.all("SELECT worker, job FROM routilux_messages WHERE status IN ('waiting', 'parked')")
        )
        for worker, job, job_id, status, count, data in self.tables.all(
            "SELECT worker, job, job_id, status, open_count, data FROM routilux_jobs"
        ):
            self.jobs[job_id] = status
            if status in ENDED:
                self._ended.add((worker, job))
            elif job_id in self.letters.reopened:
                self._ended.discard((worker, job))
            if (
                before.get(job_id) in ENDED
                and before[job_id] != status
                and job_id not in self.letters.reopened
            ):
                raise Violation("P8", f"job {job_id} was {before[job_id]} but is {status} now")
            if before.get(job_id) != status and (job_id, status) not in self.asked_to_end:
                self._check_end(worker, job, job_id, status)
            if status in ENDED and open_count[worker, job]:
                raise Violation(
                    "P8", f"job {job_id} is {status}, but {open_count[worker, job]} of its messages wait"
                )
            if status not in ENDED and count != open_count[worker, job]:
                raise Violation(
                    "P8", f"job {job_id} counts {count} open messages, but has {open_count[worker, job]}"
                )
            if (json.loads(data) if data else {}) != self._data.get((worker, job), {}):
                raise Violation(
                    "P2",
                    f"the data of job {job_id} is {data},"
                    f" but its activations left {self._data.get((worker, job))}",
                )
        for job_id in sorted(self.acknowledged - self.jobs.keys()):
            if not self.tables.one("SELECT 1 FROM routilux_inbox WHERE job_id = ?", job_id):
                raise Violation("P1", f"job {job_id} was acknowledged but is missing")
        for job_id in sorted(before.keys() - self.jobs.keys()):
            raise Violation("P1", f"job {job_id} has vanished")

    def _check_end(self, worker: int, job: int, job_id: str, status: str) -> None:
        """P8: only an operator cancels a job; a job is completed only if all its messages were consumed."""
        if status == "cancelled" and worker not in self.cancels.ids.values():
            raise Violation("P8", f"job {job_id} was cancelled, but no operator asked for it")
        if status != "completed" or job_id in self.letters.ever_reopened:
            return
        for seq, routine, state in self.tables.all(
            "SELECT seq, routine, status FROM routilux_messages"
            " WHERE worker = ? AND job = ? AND status <> 'consumed'",
            worker,
            job,
        ):
            raise Violation(
                "P8", f"job {job_id} is completed, but its message {seq} at {routine!r} is {state}"
            )

    def _check_marks(self) -> None:
        """P11: nothing waits below the low mark of a slot: a start reads from there."""
        for worker, seq, routine, slot, low in self.tables.all(
            "SELECT m.worker, m.seq, m.routine, m.slot, s.low_seq FROM routilux_slots AS s"
            " JOIN routilux_messages AS m ON m.worker = s.worker AND m.routine = s.routine"
            " AND m.slot = s.slot AND m.seq < s.low_seq WHERE m.status = 'waiting'"
        ):
            raise Violation(
                "P11", f"message {seq} of worker {worker} waits below the mark {low} of {routine}.{slot}"
            )


__all__ = ["Model"]
