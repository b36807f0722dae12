"""One turn's commit: what each part of the engine says about the inputs, and what follows once it is in."""

from __future__ import annotations

from collections.abc import Sequence

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
        self._outcomes: list[Outcome] = []
        self._posts: list[PostIn] = []
        self._inbox_rows: list[InboxRow] = []  # rows of the inbox that the commit has deleted
        self._known_ids: Taken = {}
        self.batch = Batch(
            parts.clock.now_us(),
            parts.workers.death_pauses,
            is_postgres=parts.transactions.is_postgres,
            wants_activations="activation.committed" in parts.facts.subscribers,
            is_for_inbox=is_for_inbox,
        )

    def commit(self) -> None:
        """Try until the database has committed. Raises what `GroupCommit.run` raises."""
        parts = self._parts
        self._sort_inputs()
        prepare = self._prepare if self._asks_database() else None
        GroupCommit(parts.transactions, self.batch, prepare, self._decide, self._in_flight).run()
        self._deliver()

    def _sort_inputs(self) -> None:
        for entry in self._inputs:
            if type(entry) is Outcome:
                self._outcomes.append(entry)
            elif not isinstance(entry, (Outcome, RunEnded, Task)):
                entry.receipt.is_taken = True
                if type(entry) is PostIn:
                    self._posts.append(entry)

    def _asks_database(self) -> bool:
        """Whether something must be known before decisions: user statements, inbox rows, idempotency keys."""
        return bool(
            self._parts.inbox.ids
            or any(outcome.writes for outcome in self._outcomes)
            or any(post.fingerprint for entry in self._posts for post in entry.posts)
        )

    def _prepare(self, commit: Commit, batch: Batch) -> object:
        """Runs inside the transaction. If the commit is sent again, the answer must be the same."""
        digest = user_statements.execute(commit, batch, self._outcomes)
        self._inbox_rows = self._parts.inbox.take(commit, batch)
        entries = self._posts + self._parts.inbox.posts(self._inbox_rows)
        self._known_ids = acceptance.claim(commit, entries, batch)
        return digest, tuple(self._inbox_rows), tuple(sorted(self._known_ids))

    def _decide(self, batch: Batch) -> None:
        parts = self._parts
        try:
            self._settle_outcomes_and_accept_posts(batch)
            self._carry_out_commands(batch)
            parts.inbox.apply(batch, self._inbox_rows, self._known_ids)
            acceptance.free_unused(batch, self._known_ids)
            parts.workers.park_unroutable(batch)
            parts.redelivery.requeue_due(batch)
            parts.timeouts.fail_expired(batch)
            self._pass_on(batch)  # the scheduler must know what is ready now
            parts.scheduler.plan(batch, parts.recovery.rejections)
            parts.counters.flush(batch)
        finally:
            self._pass_on(batch)

    def _pass_on(self, batch: Batch) -> None:
        """Tell the parts what was decided, even if the commit fails."""
        if batch.follow:
            self._parts.pass_on(batch.follow)

    def _in_flight(self, planned: Sequence[Run]) -> list[object]:
        """List what will run after the commit. These are the suspects if this process dies."""
        return [run.in_flight() for run in (*self._parts.scheduler.runs, *planned)]

    def _settle_outcomes_and_accept_posts(self, batch: Batch) -> None:
        """Handle them in the order of arrival."""
        parts, settle = self._parts, outcomes.settle
        for entry in self._inputs:
            if type(entry) is Outcome:
                settle(batch, entry)
            elif type(entry) is RunEnded:
                parts.scheduler.run_ended(batch, entry.run)
            elif type(entry) is PostIn:
                cell = parts.workers.by_id.get(entry.worker_id)
                acceptance.accept(batch, cell, entry, self._known_ids, parts.clock)

    def _carry_out_commands(self, batch: Batch) -> None:
        """Run commands after the outcomes: a command sees the jobs that they left, and may end them."""
        for entry in self._inputs:
            if type(entry) is CommandIn:
                try:
                    self._parts.handlers.carry_out(batch, entry.command)
                except Exception as error:  # told to the caller, who waits on the receipt
                    batch.refusals.append((entry.receipt, error))
                else:
                    batch.receipts.append((entry.receipt, None))

    def _deliver(self) -> None:
        """The commit succeeded: start the runs, answer the callers, tell the facts."""
        parts, batch = self._parts, self.batch
        if batch.miscounted or batch.changes.swept_counts:
            parts.counters.delivered(batch, parts.scheduler.runs)
        parts.scheduler.start(batch.planned)
        for worker in batch.workers.values():
            if len(worker.jobs) > worker.jobs_limit:
                worker.drop_idle_jobs()
        batch.answer_callers()
        for call in batch.after_commit:
            call()
        self._tell_facts()

    def _tell_facts(self) -> None:
        """Callers that wait for a job come first: a subscriber may take its time."""
        facts, ended = self._parts.facts, self.batch.ended_jobs
        if ended and facts.wants("job.ended"):
            ends = [_job_ended(job) for job in ended]
            facts.tell_topics(ends)
            facts.tell_subscribers([*self.batch.facts, *ends])
        elif self.batch.facts:
            facts.tell_subscribers(self.batch.facts)


def _job_ended(job: Job) -> Fact:
    fields = {
        "job_id": job.job_id,
        "worker_id": job.worker_id,
        "status": str(job.status),
        "error": job.error,
    }
    return Fact("job.ended", fields)
