"""What must be true of a world, held by plain Python that knows the promises and nothing of the engine.

The model is told what was posted and acknowledged, and what every run of logic wanted; after each commit it looks
at the tables and replays what went in. Whatever it finds otherwise is a `Violation` at the very step that made it.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from routilux.core.activation import Increment, JobIncrement, JobSet, Outcome, Replace
from routilux.core.compiled import CompiledFlow
from routilux.core.error_handler import ErrorHandler, ErrorStrategy
from routilux.core.message import Activation
from routilux.core.policies import AllSlotsReadyPolicy, BatchSizePolicy, ImmediatePolicy
from routilux.testing.simulation.process import Injected

Json = Any
ENDED = ("completed", "failed", "cancelled")


class Violation(BaseException):
    """A promise is broken. `promise`: P1 to P11, or "flow" for a fault of the user's flow."""

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(f"{promise}: {text}")
        self.promise = promise
        self.text = text


@dataclass(slots=True)
class Wish:
    """What one run of logic wanted to write, taken down before the engine saw it."""

    worker: int
    routine: str
    seqs: tuple[int, ...]
    error: str | None
    is_injected: bool
    emits: list[tuple[str, str, str]]
    state: list[Replace | Increment]
    job: list[JobSet | JobIncrement]
    ends_job: bool
    writes: bool  # own statements, which may fail
    n: int | None = None  # the activation that took it in


@dataclass(slots=True)
class Model:
    """One world's truth. `reader`: a connection of its own. `may_fail`: jobs may fail by the flow's own errors."""

    reader: sqlite3.Connection
    flows: list[CompiledFlow]
    may_fail: bool = False
    posted: dict[str, Json] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    asked_to_cancel: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)  # and told that it is
    jobs: dict[str, str] = field(default_factory=dict)  # job id -> status
    wishes: dict[tuple[int, int], Wish] = field(default_factory=dict)  # (worker, when it began) -> wish
    _seen: dict[int, int] = field(default_factory=dict)  # worker -> last activation
    _consumed: dict[tuple[int, int], int] = field(default_factory=dict)
    _attempts: dict[tuple[int, tuple[int, ...]], tuple[int, str]] = field(default_factory=dict)
    _retried: set[tuple[int, tuple[int, ...]]] = field(default_factory=set)  # tried, and to be tried again
    _parked: set[tuple[int, int]] = field(default_factory=set)  # has been parked: it has left the line
    _due: dict[tuple[int, int], int] = field(default_factory=dict)
    _lines: dict[tuple[int, str, str], int] = field(default_factory=dict)
    _state: dict[tuple[int, str], dict[str, Json]] = field(default_factory=dict)
    _data: dict[tuple[int, int], dict[str, Json]] = field(default_factory=dict)
    _ended: set[tuple[int, int]] = field(default_factory=set)  # jobs, by an earlier commit
    _latest_us: int = 0

    # what the world tells

    def before_logic(self, activation: Activation, worker: int) -> None:
        """P4: no logic sees a message that is not durable."""
        for message in activation.messages:
            row = self._one(
                "SELECT payload FROM routilux_messages WHERE worker = ? AND seq = ?", worker, message.seq
            )
            if row is None or row[0] != message.payload:
                raise Violation(
                    "P4", f"logic was given message {message.seq}, which is not in the database: {row}"
                )

    def after_logic(self, worker: int, routine: str, activation: Activation, outcome: Outcome) -> None:
        failure = outcome.failure
        self.wishes[worker, outcome.started_at] = Wish(
            worker, routine, tuple(sorted(message.seq for message in activation.messages)),
            None if failure is None else f"{failure.type}: {failure.text}",
            failure is not None and isinstance(failure.error, Injected),
            list(outcome.emits), list(outcome.state), list(outcome.job), outcome.job_end is not None, bool(outcome.writes),
        )  # fmt: skip

    # after each commit

    def look(self, runtime: int | None, began_us: int, now_us: int) -> None:
        """`runtime`: who has just committed; None: somebody else than a runtime. Times of the wall clock."""
        self._latest_us = max(self._latest_us, now_us)
        self._look_at_parked(began_us)
        for worker, owner in self._all("SELECT key, owner FROM routilux_workers"):
            for row in self._all(
                "SELECT n, job, routine, attempt, status, started_at, seqs, error_type FROM routilux_activations"
                " WHERE worker = ? AND n > ? ORDER BY n",
                worker, self._seen.get(worker, 0),
            ):  # fmt: skip
                if runtime is not None and owner != runtime:
                    raise Violation(
                        "P5", f"runtime {runtime} committed for worker {worker}, whose owner is {owner}"
                    )
                self._seen[worker] = row[0]
                self._take_in(worker, *row)
            self._check_state(worker)
        self._check_places()
        self._check_jobs()
        self._check_marks()

    def _take_in(
        self, worker: int, n: int, job: int, routine: str, attempt: int, status: str, started_at: int, seqs: str, error: str | None
    ) -> None:  # fmt: skip
        what = f"activation {n} of {routine!r} (attempt {attempt}, {status})"
        messages = tuple(sorted(map(int, seqs.split(","))))
        wish = self.wishes.get((worker, started_at))
        if wish is None or wish.routine != routine:
            if status == "completed" or (
                status != "failed" and not self._was_refused(worker, routine, messages)
            ):
                raise Violation("P2", f"{what} is in the history, and no logic ran")
            wish = None
        elif wish.n is not None:
            raise Violation("P3", f"one run of logic counted twice: as activation {wish.n} and as {what}")
        else:
            wish.n = n
            if wish.seqs != messages:
                raise Violation("P2", f"{what} names messages {messages}, its logic ran over {wish.seqs}")
            failed = wish.error is not None or (wish.writes and error is not None)
            if status != "discarded" and failed == (status == "completed"):
                raise Violation("P2", f"{what} ended with {wish.error}")
        self._check_attempt(worker, routine, messages, attempt, status, what)
        if status == "completed":
            assert wish is not None
            self._count_in(worker, n, job, wish, messages, what)
        elif self._all("SELECT 1 FROM routilux_messages WHERE worker = ? AND produced_by = ?", worker, n):
            raise Violation("P2", f"{what} has emitted")
        if status in ("completed", "error_continued", "skipped"):
            self._consume(worker, n, routine, messages, what)
        if status == "failed" and not self.may_fail and not (wish is not None and wish.is_injected):
            raise Violation("flow", f"{what} failed: {error}: {wish and wish.error}")

    def _was_refused(self, worker: int, routine: str, messages: tuple[int, ...]) -> bool:
        """Its logic ran, and the database refuses what it wrote: then it fails without running again."""
        ran = (wish for wish in self.wishes.values() if wish.writes and wish.n is None)
        return any((wish.worker, wish.routine, wish.seqs) == (worker, routine, messages) for wish in ran)

    def _count_in(
        self, worker: int, n: int, job: int, wish: Wish, messages: Sequence[int], what: str
    ) -> None:
        emitted = self._all(
            "SELECT routine, slot, payload FROM routilux_messages WHERE worker = ? AND produced_by = ? ORDER BY seq",
            worker,
            n,
        )
        if emitted != wish.emits and not wish.ends_job:
            raise Violation("P2", f"{what} emitted {wish.emits}, stored is {emitted}")
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
                raise Violation(
                    "P3",
                    f"message {seq} was consumed twice: by activation {self._consumed[worker, seq]} and by {what}",
                )
            self._consumed[worker, seq] = n
            row = self._one(
                "SELECT slot, status, consumed_by FROM routilux_messages WHERE worker = ? AND seq = ?",
                worker,
                seq,
            )
            if row is None or (row[1] != "cancelled" and row[1:] != ("consumed", n)):
                raise Violation("P2", f"{what} consumed message {seq}, which is {row}")
            if (worker, seq) not in self._parked and self._keeps_order(routine):
                line = (worker, routine, row[0])
                if seq <= self._lines.get(line, 0):
                    raise Violation(
                        "P6",
                        f"{what} consumed message {seq} after message {self._lines[line]} of the same slot",
                    )
                self._lines[line] = seq

    def _keeps_order(self, routine: str) -> bool:
        """A join by job takes what has its partner, a user's policy what it likes."""
        found = [flow.routines[routine] for flow in self.flows if routine in flow.routines]
        return all(
            each.concurrency == 1
            and (
                isinstance(each.policy, (ImmediatePolicy, BatchSizePolicy))
                or (isinstance(each.policy, AllSlotsReadyPolicy) and not each.policy.by_job)
            )
            for each in found
        )

    def _check_attempt(
        self, worker: int, routine: str, messages: tuple[int, ...], attempt: int, status: str, what: str
    ) -> None:
        """P7: each retry once, and no more of them than the handler asks for."""
        before, last = self._attempts.get((worker, messages)) or self._attempt_of_more(worker, messages)
        if attempt != before + 1 or last != "retrying":
            raise Violation("P7", f"{what} over {messages} follows attempt {before} ({last})")
        handler = self._handler(routine)
        if handler is not None and attempt > handler.max_retries + 1:
            raise Violation("P7", f"{what}: only {handler.max_retries} retries are allowed")
        self._attempts[worker, messages] = (attempt, status)
        self._retried = {key for key in self._retried if key != (worker, messages)}
        if status == "retrying":
            self._retried.add((worker, messages))

    def _attempt_of_more(self, worker: int, messages: tuple[int, ...]) -> tuple[int, str]:
        """The last attempt over these and messages of jobs that have ended since; (0, "retrying") if there was none."""
        for (owner, earlier), attempt in self._attempts.items():
            if owner == worker and attempt[1] == "retrying" and set(messages) < set(earlier):
                gone = set(earlier) - set(messages)
                jobs = [
                    self._one("SELECT job FROM routilux_messages WHERE worker = ? AND seq = ?", worker, seq)
                    for seq in gone
                ]
                if all(job is not None and (worker, job[0]) in self._ended for job in jobs):
                    return attempt
        return 0, "retrying"

    def _check_places(self) -> None:
        """P7: what is to be tried again keeps its messages, and they their places; with others it would begin anew."""
        if self._retried:
            places = set(self._all("SELECT worker, seq FROM routilux_messages"))
            for worker, messages in self._retried:
                for seq in messages:
                    if (worker, seq) not in places:
                        raise Violation(
                            "P7", f"message {seq} of {messages} is to be tried again, and has moved"
                        )

    def _handler(self, routine: str) -> ErrorHandler | None:
        for flow in self.flows:
            handler = flow.routines[routine].error_handler if routine in flow.routines else None
            if handler is not None and handler.strategy == ErrorStrategy.RETRY:
                return handler
        return None

    def _look_at_parked(self, began_us: int) -> None:
        """P7: what is parked until a time comes back then, never earlier."""
        due = {}
        for worker, seq, reason, due_at, seqs, attempt, routine in self._all(
            "SELECT worker, seq, reason, due_at, seqs, attempt, routine FROM routilux_parked"
        ):
            if reason != "suspect":
                self._parked.update((worker, each) for each in json.loads(seqs))
            if due_at is not None:
                due[worker, seq] = due_at
                handler = self._handler(routine)
                if reason == "retry" and (worker, seq) not in self._due and handler is not None:
                    delay = handler.retry_delay * handler.retry_backoff ** (attempt - 1)
                    if handler.max_retry_delay is not None:
                        delay = min(delay, handler.max_retry_delay)
                    if due_at < began_us + delay * 1e6 - 1:
                        raise Violation(
                            "P7",
                            f"the retry of message {seq} is due {(due_at - began_us) / 1e6} s after its failure, not {delay}",
                        )
        for (worker, seq), due_at in self._due.items():
            if (worker, seq) not in due and due_at > self._latest_us and self._is_alive(worker, seq):
                raise Violation("P7", f"message {seq} came back {(due_at - self._latest_us) / 1e6} s early")
        self._due = due
        self._parked.update(self._all("SELECT worker, seq FROM routilux_messages WHERE status = 'parked'"))

    def _is_alive(self, worker: int, seq: int) -> bool:
        """Neither ended with its job nor held by an operator. One that is not there has a new place in line."""
        row = self._one(
            "SELECT j.status, p.reason FROM routilux_messages AS m JOIN routilux_jobs AS j ON j.worker = m.worker AND j.job = m.job"
            " LEFT JOIN routilux_parked AS p ON p.worker = m.worker AND p.seq = m.seq WHERE m.worker = ? AND m.seq = ?",
            worker, seq,
        )  # fmt: skip
        return row is None or (row[0] not in ENDED and row[1] != "paused")

    def _check_state(self, worker: int) -> None:
        """P2, P3: state is what the activations that are in left, in their order."""
        stored = {key: state for key, state in states_of(self.reader).items() if key[0] == worker}
        expected = {key: state for key, state in self._state.items() if key[0] == worker}
        if stored != expected:
            wrong = sorted(
                {key[1] for key in stored.keys() | expected.keys() if stored.get(key) != expected.get(key)}
            )
            raise Violation(
                "P2",
                "; ".join(
                    f"state of {name!r} is {stored.get((worker, name))}, its activations left {expected.get((worker, name))}"
                    for name in wrong
                ),
            )

    def _check_jobs(self) -> None:
        """P1 and P8: whoever was told that a job is accepted finds it; ended is ended; nothing of a live one is missing."""
        before, self.jobs = self.jobs, {}
        open_count = Counter[tuple[int, int]](
            self._all("SELECT worker, job FROM routilux_messages WHERE status IN ('waiting', 'parked')")
        )
        for worker, job, job_id, status, count, data in self._all(
            "SELECT worker, job, job_id, status, open_count, data FROM routilux_jobs"
        ):
            self.jobs[job_id] = status
            if status in ENDED:
                self._ended.add((worker, job))
            if before.get(job_id) in ENDED and before[job_id] != status:
                raise Violation("P8", f"job {job_id} was {before[job_id]} and is {status}")
            if (
                status == "cancelled"
                and job_id not in self.cancelled
                and before.get(job_id) != status
                and job_id not in self.asked_to_cancel
            ):
                raise Violation("P8", f"job {job_id} was cancelled, and nobody asked for it")
            if status in ENDED and open_count[worker, job]:
                raise Violation(
                    "P8",
                    f"job {job_id} is {status}, and {open_count[worker, job]} of its messages still wait",
                )
            if status not in ENDED and count != open_count[worker, job]:
                raise Violation(
                    "P8", f"job {job_id} counts {count} open messages, there are {open_count[worker, job]}"
                )
            if (json.loads(data) if data else {}) != self._data.get((worker, job), {}):
                raise Violation(
                    "P2",
                    f"data of job {job_id} is {data}, its activations left {self._data.get((worker, job))}",
                )
        for job_id in self.acknowledged - self.jobs.keys():
            if not self._one("SELECT 1 FROM routilux_inbox WHERE job_id = ?", job_id):
                raise Violation("P1", f"job {job_id} was acknowledged and is not there")
        for job_id in before.keys() - self.jobs.keys():
            raise Violation("P1", f"job {job_id} was there and is gone")

    def _check_marks(self) -> None:
        """P11: a start reads a slot from its low mark on, so nothing may wait below it."""
        for worker, seq, routine, slot, low in self._all(
            "SELECT m.worker, m.seq, m.routine, m.slot, s.low_seq FROM routilux_slots AS s JOIN routilux_messages AS m ON"
            " m.worker = s.worker AND m.routine = s.routine AND m.slot = s.slot AND m.seq < s.low_seq WHERE m.status = 'waiting'"
        ):
            raise Violation(
                "P11", f"message {seq} of worker {worker} waits below the mark {low} of {routine}.{slot}"
            )

    # at the end

    def check_waiting(self) -> None:
        """P11: nothing stands in the way of a message that is taken one at a time, when everybody has had a turn."""
        for seq, routine, job_id in self._all(
            "SELECT m.seq, m.routine, j.job_id FROM routilux_messages AS m JOIN routilux_jobs AS j ON j.worker = m.worker"
            " AND j.job = m.job WHERE m.status = 'waiting' AND j.status <> 'paused'"
        ):
            policies = [flow.routines[routine].policy for flow in self.flows if routine in flow.routines]
            if all(isinstance(policy, ImmediatePolicy) for policy in policies):
                raise Violation(
                    "P11", f"message {seq} of job {job_id} waits at {routine!r}, and nothing runs"
                )

    def check_counters(self) -> None:
        """P8: what is written of how much waits is right when nothing has happened for a while."""
        for routine, slot, counted, waiting in self._all(
            "SELECT s.routine, s.slot, s.waiting, (SELECT count(*) FROM routilux_messages AS m WHERE m.worker = s.worker"
            " AND m.routine = s.routine AND m.slot = s.slot AND m.status = 'waiting') AS counted FROM routilux_slots AS s"
            " WHERE s.waiting <> counted"
        ):
            raise Violation("P8", f"{waiting} messages wait at {routine}.{slot}, counted are {counted}")

    def check_end(self) -> None:
        """P11: every job has come to its end, and everything that was posted is there."""
        for job_id in self.posted.keys() - self.jobs.keys():
            raise Violation("P11", f"job {job_id} was posted again and again and was never accepted")
        for job_id, status in self.jobs.items():
            if status not in ENDED:
                waits = self._all(
                    "SELECT m.seq, m.routine, m.slot, m.status, p.reason FROM routilux_messages AS m JOIN routilux_jobs AS j"
                    " ON j.worker = m.worker AND j.job = m.job LEFT JOIN routilux_parked AS p ON p.worker = m.worker AND p.seq = m.seq"
                    " WHERE j.job_id = ? AND m.status IN ('waiting', 'parked')",
                    job_id,
                )  # fmt: skip
                if all(reason == "unroutable" for *_, reason in waits) and waits:
                    continue
                where = ", ".join(
                    f"message {seq} {status} at {routine}.{slot}" for seq, routine, slot, status, _ in waits
                )
                raise Violation(
                    "P11", f"job {job_id} never ends: it is {status}; {where or 'nothing of it waits'}"
                )
        for job_id in self.cancelled:
            if self.jobs[job_id] != "cancelled":
                raise Violation("P8", f"job {job_id} was cancelled, and is {self.jobs[job_id]}")

    # reading

    def _all(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self.reader.execute(sql, values).fetchall()

    def _one(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self.reader.execute(sql, values).fetchone()
        return row


def states_of(reader: sqlite3.Connection) -> dict[tuple[int, str], dict[str, Json]]:
    """(worker, routine) -> its state, as it is stored."""
    states: dict[tuple[int, str], dict[str, Json]] = {}
    for worker, routine, key, value in reader.execute(
        "SELECT worker, routine, key, value FROM routilux_worker_state ORDER BY worker"
    ):
        state = states.setdefault((worker, routine), {})
        if key or value:  # an empty key marks an empty state
            state[key] = json.loads(value)
    return states


__all__ = ["Model", "Violation", "Wish", "states_of"]
