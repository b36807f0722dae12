"""One turn's commit: what each part of the engine says about the inputs, and what follows once it is in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from routilux.core.message import Job
from routilux.core.outcome import Outcome
from routilux.core.run import Run
from routilux.engine import acceptance, outcomes, user_statements
from routilux.engine.batch import Batch
from routilux.engine.facts import Fact
from routilux.engine.group_commit import GroupCommit
from routilux.engine.inbox import Taken
from routilux.engine.inputs import CommandIn, Input, PostIn, RunEnded, Task
from routilux.engine.parts import Parts
from routilux.store.writes.store import Commit, InboxRow


class Turn:
    """Makes one group commit of some inputs."""

    def __init__(self, parts: Parts, inputs: list[Input], *, is_for_inbox: bool = False) -> None:
        self._parts = parts
        self._inputs = inputs
        self._reported: list[Outcome] = []
        self._posts: list[PostIn] = []
        self._arrived: list[InboxRow] = []  # rows of the inbox that the commit has deleted
        self._taken: Taken = {}
        self.batch = Batch(
            parts.clock.now_us(),
            parts.workers.death_pauses,
            is_postgres=parts.transactions.is_postgres,
            wants_activations="activation.committed" in parts.facts.subscribers,
            is_for_inbox=is_for_inbox,
        )

    def commit(self) -> None:
        """Until it is in. Raises what `GroupCommit.run` raises."""
        parts = self._parts
        self._sort_inputs()
        prepare = self._prepare if self._asks_database() else None
        GroupCommit(parts.transactions, self.batch, prepare, self._decide, self._in_flight).run()
        self._deliver()

    def _sort_inputs(self) -> None:
        for entry in self._inputs:
            if type(entry) is Outcome:
                self._reported.append(entry)
            elif not isinstance(entry, (Outcome, RunEnded, Task)):
                entry.receipt.is_taken = True
                if type(entry) is PostIn:
                    self._posts.append(entry)

    def _asks_database(self) -> bool:
        """Whether something must be known before decisions: user statements, inbox rows, idempotency keys."""
        return bool(
            self._parts.inbox.ids
            or any(outcome.writes for outcome in self._reported)
            or any(post.fingerprint for entry in self._posts for post in entry.posts)
        )

    def _prepare(self, commit: Commit, batch: Batch) -> object:
        """Inside the transaction. A commit that is sent again must get the same answer."""
        digest = user_statements.execute(commit, batch, self._reported)
        self._arrived = self._parts.inbox.take(commit, batch)
        entries = self._posts + self._parts.inbox.posts(self._arrived)
        self._taken = acceptance.claim(commit, entries, batch)
        return digest, tuple(self._arrived), tuple(sorted(self._taken))

    def _decide(self, batch: Batch) -> None:
        parts = self._parts
        try:
            self._settle_outcomes_and_accept_posts(batch)
            self._carry_out_commands(batch)
            parts.inbox.apply(batch, self._arrived, self._taken)
            acceptance.free_unused(batch, self._taken)
            parts.workers.park_unroutable(batch)
            parts.redelivery.requeue_due(batch)
            parts.timeouts.fail_expired(batch)
            self._pass_on(batch)
            parts.scheduler.plan(batch, parts.recovery.rejections)
            parts.counters.flush(batch)
        finally:
            self._pass_on(batch)

    def _pass_on(self, batch: Batch) -> None:
        """Tell the parts what was decided, whether the commit goes in or not."""
        if batch.follow:
            self._parts.pass_on(batch.follow)

    def _in_flight(self, planned: Sequence[Run]) -> list[object]:
        """What is under way once these runs have started: the suspects, if this process dies."""
        return [run.in_flight() for run in (*self._parts.scheduler.runs, *planned)]

    def _settle_outcomes_and_accept_posts(self, batch: Batch) -> None:
        """In the order in which they came."""
        parts, settle = self._parts, outcomes.settle
        for entry in self._inputs:
            if type(entry) is Outcome:
                settle(batch, entry)
            elif type(entry) is RunEnded:
                parts.scheduler.run_ended(batch, entry.run)
            elif type(entry) is PostIn:
                cell = parts.workers.by_id.get(entry.worker_id)
                acceptance.accept(batch, cell, entry, self._taken, parts.clock)

    def _carry_out_commands(self, batch: Batch) -> None:
        """After the outcomes: a command sees, and may end, what they left."""
        for entry in self._inputs:
            if type(entry) is CommandIn:
                try:
                    self._parts.handlers.carry_out(batch, entry.command)
                except Exception as error:  # told to the caller, who waits on the receipt
                    batch.refusals.append((entry.receipt, error))
                else:
                    batch.receipts.append((entry.receipt, None))

    def _deliver(self) -> None:
        """It is in: runs start, callers are answered, facts are told."""
        parts, batch = self._parts, self.batch
        if batch.miscounted or batch.changes.swept_counts:
            parts.counters.delivered(batch, parts.scheduler.runs)
        parts.scheduler.start(batch.planned)
        for worker in batch.workers.values():
            if len(worker.jobs) > worker.jobs_limit:
                worker.drop_idle_jobs()
        batch.answer_callers()
        for follow in batch.after:
            follow()
        self._tell_facts(batch.ended_jobs)

    def _tell_facts(self, ended_jobs: Iterable[Job]) -> None:
        facts = self._parts.facts
        if self.batch.facts:
            facts.tell(self.batch.facts)
        if self.batch.ended_jobs and facts.wants("job.ended"):
            facts.tell(_job_ended(job) for job in ended_jobs)


def _job_ended(job: Job) -> Fact:
    fields = {
        "job_id": job.job_id,
        "worker_id": job.worker_id,
        "status": str(job.status),
        "error": job.error,
    }
    return Fact("job.ended", fields)
