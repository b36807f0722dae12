"""A group commit that is being built: its rows, and its effects on the parts of the engine.

Memory changes with each input at once; the rows collect here. If the database refuses the commit, the workers
in it are loaded again, so memory never stands for something that is not stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from routilux.core.mailbox import RoutineCell, WorkerCell
from routilux.core.message import Job, Message, mark_stored
from routilux.core.outcome import Failure, Outcome
from routilux.core.run import Run
from routilux.core.slot_queue import SlotQueue
from routilux.core.states import JobStatus, MessageStatus, ParkedReason
from routilux.engine.death_pauses import DeathPauses
from routilux.engine.facts import Fact
from routilux.engine.inputs import PostIn, Receipt
from routilux.engine.job_rows import changed_job, new_job
from routilux.engine.state_draft import StateDraft
from routilux.engine.statement_group import StatementGroup
from routilux.store.errors import Failure as StoreFailure
from routilux.store.errors import classify
from routilux.store.writes.commit_rows import Changes
from routilux.store.writes.commit_statements import PARKED


@dataclass(slots=True)
class FollowUps:
    """What decisions mean for the parts of the engine.

    The turn passes it on, whether the commit goes in or not.
    """

    ready: list[RoutineCell] = field(default_factory=list)
    due_at: list[int] = field(default_factory=list)  # when something that was parked comes due
    waiting_posts: list[PostIn] = field(default_factory=list)  # they wait for room in a full slot
    low_windows: dict[tuple[RoutineCell, SlotQueue], None] = field(default_factory=dict)
    uncounted: dict[WorkerCell, None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ready or self.due_at or self.waiting_posts or self.low_windows or self.uncounted)

    def clear(self) -> None:
        """Empty all lists after they were passed on."""
        for each in (self.ready, self.due_at, self.waiting_posts, self.low_windows, self.uncounted):
            each.clear()


@dataclass(slots=True)
class Batch:
    """Collects; decides nothing. `now`: µs since 1970."""

    now: int
    death_pauses: DeathPauses
    is_postgres: bool = False
    changes: Changes = field(default_factory=Changes)
    jobs: dict[Job, WorkerCell] = field(default_factory=dict)
    workers: dict[int, WorkerCell] = field(default_factory=dict)
    planned: list[Run] = field(default_factory=list)
    miscounted: dict[WorkerCell, None] = field(
        default_factory=dict
    )  # only SQL can count what is parked of them
    follow: FollowUps = field(default_factory=FollowUps)
    receipts: list[tuple[Receipt, object]] = field(default_factory=list)
    refusals: list[tuple[Receipt, BaseException]] = field(default_factory=list)
    ended_jobs: list[Job] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    after_commit: list[Callable[[], None]] = field(default_factory=list)
    statements: list[StatementGroup] | None = None  # the outcomes as they were before anything was decided
    rejected_statements: dict[int, BaseException] = field(default_factory=dict)  # they ended a transaction
    posted: dict[str, Job] = field(default_factory=dict)  # the jobs that it makes, by their id
    claimed: set[str] = field(default_factory=set)  # idempotency keys that this commit takes
    unused_keys: set[str] = field(default_factory=set)  # those of posts that were refused after all
    inbox_ids: tuple[int, ...] | None = None  # rows that the first try took
    statement_errors: dict[int, BaseException] = field(default_factory=dict)  # id(outcome) -> error
    skipped: set[int] = field(default_factory=set)  # id(outcome): left out, it runs again
    is_split: bool = (
        False  # an own statement ended the transaction: one savepoint per activation from the start
    )
    states: dict[tuple[WorkerCell, str], StateDraft] = field(default_factory=dict)
    wants_activations: bool = False  # somebody has subscribed to `activation.committed`
    is_for_inbox: bool = False  # one row of the inbox and nothing else

    def mark_ready(self, cell: RoutineCell) -> None:
        """This routine may have something to run after the commit."""
        if cell.mark_ready():
            self.follow.ready.append(cell)

    def expect(self, due_at: int) -> None:
        """Remember that a parked row is due at this time."""
        self.follow.due_at.append(due_at)

    def is_lock_timeout(self, error: BaseException) -> bool:
        """Whether another session held a lock for too long. SQLite has no such error of one statement."""
        return self.is_postgres and classify(error) is StoreFailure.RETRY

    def touch(self, cell: WorkerCell, job: Job) -> None:
        """This job's row may have to be written."""
        self.jobs[job] = cell

    def touch_worker(self, cell: WorkerCell) -> None:
        self.workers[cell.key] = cell

    def state_of(self, cell: WorkerCell, routine: str) -> StateDraft:
        """The state of a routine as this commit will leave it."""
        draft = self.states.get((cell, routine))
        if draft is None:
            draft = self.states[cell, routine] = StateDraft(cell.state.get(routine))
        return draft

    def add_message(self, cell: WorkerCell, message: Message, routine: str, status: str = "waiting") -> None:
        self.changes.messages.append(
            (
                cell.key,
                message.seq,
                message.job.no,
                routine,
                message.slot,
                message.payload,
                message.produced_by,
                status,
                message.created_at,
            )
        )

    def settle(self, cell: WorkerCell, seq: int, status: MessageStatus) -> None:
        self.changes.settled.append((cell.key, seq, status))

    def add_activation(
        self, cell: WorkerCell, n: int, routine: str, outcome: Outcome, status: str, reason: str | None
    ) -> None:
        activation, failure = outcome.activation, outcome.failure
        self.changes.activations.append(
            (
                cell.key,
                n,
                activation.job.no,
                routine,
                activation.attempt,
                status,
                outcome.started_at,
                outcome.ended_at,
                ",".join(map(str, activation.seqs)),
                reason,
                failure and failure.type,
                failure and failure.text,
                failure and failure.traceback,
            )
        )

    def write_worker(self, cell: WorkerCell, reason: str | None = None, ended_at: int | None = None) -> None:
        """Add the present row of a worker."""
        self.changes.workers[cell.key] = (
            cell.key, cell.status, cell.next_seq, cell.next_n, cell.deaths, reason, self.now, ended_at,
        )  # fmt: skip  # one row a line

    def park(
        self,
        cell: WorkerCell,
        messages: Sequence[Message],
        routine: str,
        reason: ParkedReason,
        *,
        key: int | None = None,
        due_at: int | None = None,
        line: int | None = None,
        attempt: int = 0,
        deaths: int = 0,
        activation: int | None = None,
        policy_message: str | None = None,
        failure: Failure | None = None,
    ) -> None:
        """A parked row for a batch of messages; a row with this key is replaced."""
        if reason in (ParkedReason.PAUSED, ParkedReason.UNROUTABLE):
            self.miscounted[cell] = None
        if reason != ParkedReason.DEAD:
            for message in messages:
                message.job.park_message()
        numbers = {message.job.no for message in messages}
        seqs = [message.seq for message in messages]
        key = seqs[0] if key is None else key
        self.changes.parked[cell.key, key] = (
            cell.key, key, numbers.pop() if len(numbers) == 1 else 0, routine, reason, due_at, line,
            str(seqs), attempt,
            deaths, activation, policy_message, failure and failure.type, failure and failure.text, self.now,
        )  # fmt: skip  # in the order of the columns

    def still_parks(self, cell: WorkerCell, key: int, reason: ParkedReason) -> bool:
        """Whether a row that is parked for this reason is so after this commit, as far as is decided."""
        if (cell.key, key) not in self.changes.parked:
            return True
        row = self.changes.parked[cell.key, key]
        return row is not None and row[PARKED.index("reason")] == reason

    def unpark(self, cell: WorkerCell, key: int) -> None:
        self.changes.parked[cell.key, key] = None

    def end_job(
        self,
        cell: WorkerCell,
        job: Job,
        status: JobStatus,
        error: str | None = None,
        result: str | None = None,
    ) -> None:
        """End a job. The same commit cancels its open messages."""
        if job.end(self.now, status, error, result):
            self.changes.swept_jobs.append((cell.key, job.no))
            self.miscounted[cell] = None
            cell.purge_soon()
        self.touch(cell, job)
        self.ended_jobs.append(job)

    def finish(self) -> None:
        """Turn what was touched into rows: jobs and states as they are now.

        Called once, after the last decision.
        """
        for (cell, routine), draft in self.states.items():
            if draft.texts is not None and draft.texts is not draft.before:
                cell.state[routine] = draft.texts
                for key, text in draft.changed():
                    self.changes.state[cell.key, routine, key] = text
        for job, cell in self.jobs.items():
            if job.is_new:
                self._add_job(cell, job)
            elif job.is_touched or job.open_count != job.stored_open_count:
                self._change_job(cell, job)
            if job.ended_at is not None:
                cell.jobs.pop(job.no, None)
        mark_stored(self.jobs)

    def _add_job(self, cell: WorkerCell, job: Job) -> None:
        if job.status == JobStatus.PENDING and job.open_count == 1 and not job.has_details:
            self.changes.posted_jobs.append(
                (cell.key, job.no, job.job_id, job.flow, job.metadata, job.created_at)
            )
        else:
            self.changes.new_jobs.append(new_job(cell, job))

    def _change_job(self, cell: WorkerCell, job: Job) -> None:
        is_plain = not job.has_details and cell.flow.execution_timeout is None
        if is_plain and job.status == JobStatus.COMPLETED:
            self.changes.finished_jobs.append((cell.key, job.no, job.started_at, job.ended_at))
        elif is_plain and job.status == JobStatus.RUNNING:
            self.changes.started_jobs.append((cell.key, job.no, job.open_count, job.started_at))
        else:
            self.changes.jobs.append(changed_job(cell, job))

    def answer_callers(self) -> None:
        """Answer all callers. Call it after COMMIT."""
        for receipt, value in self.receipts:
            receipt.resolve(value)
        for receipt, error in self.refusals:
            receipt.fail(error)

    @property
    def is_empty(self) -> bool:
        return self.changes.is_empty and not self.planned
