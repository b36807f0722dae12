"""What has come in, as one group commit: what each duty has to say about it, and what follows once it is in.

`committing` brings the batch in, `trouble` knows what to do if it is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from routilux.core.message import Job
from routilux.core.outcome import Outcome
from routilux.engine import (
    acceptance,
    commands,
    counters,
    inbox,
    job_timeouts,
    outcomes,
    recovery,
    redelivery,
    scheduler,
    user_statements,
    worker_loading,
)
from routilux.engine.batch import Batch, Fact
from routilux.engine.group_commit import GroupCommit, Refused
from routilux.engine.inputs import Input, PostIn, Request, RunEnded, SignalIn, Task
from routilux.errors import RuntimeShutDownError
from routilux.store.errors import Fenced
from routilux.store.writes.store import Commit, InboxRow

if TYPE_CHECKING:
    from routilux.engine.engine import Engine


def commit(engine: Engine, inputs: list[Input]) -> None:
    """What has come in, in one commit; in several while it is to be found out which input the database refuses."""
    if engine.inbox.suspects and engine.inbox.ids:
        engine.inbox.suspects -= 1
        _commit_group(engine, [], is_for_inbox=True)
    while engine.careful and inputs:
        first, *inputs = inputs
        engine.careful -= isinstance(first, Outcome)
        _commit_group(engine, [first])
    _commit_group(engine, inputs)


def _commit_group(engine: Engine, inputs: list[Input], *, is_for_inbox: bool = False) -> None:
    batch = Batch(engine.clock.now_us(), wants_facts=engine.wants_facts, is_for_inbox=is_for_inbox)
    engine.commit_n += 1
    reported: list[Outcome] = []
    posts: list[PostIn] = []
    for entry in inputs:
        if type(entry) is Outcome:
            reported.append(entry)
        elif not isinstance(entry, (Outcome, RunEnded, Task)):
            entry.receipt.is_taken = True
            if type(entry) is PostIn:
                posts.append(entry)
    arrived: list[InboxRow] = []
    taken: dict[str, tuple[str | None, str]] = {}

    def prepare(commit: Commit, batch: Batch) -> object:
        digest = user_statements.execute(engine, commit, batch, reported)
        arrived[:] = inbox.take(engine, commit, batch)
        entries = posts + inbox.posts(arrived, engine)
        taken.clear()
        taken.update(acceptance.claim(commit, entries, batch))
        return digest, tuple(arrived), tuple(sorted(taken))

    def decide(batch: Batch) -> None:
        _apply(engine, batch, inputs, taken)
        inbox.apply(engine, batch, arrived, taken)
        acceptance.free_unused(batch, taken)
        if engine.unroutable:
            worker_loading.park_unroutable(engine, batch)
        redelivery.apply(engine, batch)
        job_timeouts.apply(engine, batch)
        scheduler.plan(engine, batch)
        counters.refresh(engine, batch)

    asks = (
        engine.inbox.ids
        or any(outcome.writes for outcome in reported)
        or any(p.fingerprint for e in posts for p in e.posts)
    )
    try:
        GroupCommit(engine, batch, prepare if asks else None, decide).run()
    except Fenced as fenced:
        recovery.fenced(engine, batch, inputs, was_in=fenced.was_in)
    except Refused as error:
        recovery.refused(engine, batch, inputs, error.cause)
    except RuntimeShutDownError:
        engine.inputs.put_back(inputs)
        raise
    else:
        _deliver(engine, batch)


def _apply(
    engine: Engine, batch: Batch, inputs: Iterable[Input], taken: dict[str, tuple[str | None, str]]
) -> None:
    """Outcomes first, then posts, then requests: a request sees, and may end, what the outcomes left."""
    later: list[Request | SignalIn] = []
    settle = outcomes.settle
    for entry in inputs:
        if type(entry) is Outcome:
            settle(engine, batch, entry)
            continue
        match entry:
            case RunEnded(run=run):
                scheduler.ended(engine, run)
            case PostIn():
                acceptance.accept(engine, batch, entry, taken)
            case Request() | SignalIn():
                later.append(entry)
    for entry in later:
        if isinstance(entry, SignalIn):
            commands.signal(engine, batch, entry)
        else:
            _request(batch, entry)


def _request(batch: Batch, entry: Request) -> None:
    try:
        batch.receipts.append((entry.receipt, entry.apply(batch)))
    except Exception as error:  # told to the caller, who waits on the receipt
        batch.refusals.append((entry.receipt, error))


def _deliver(engine: Engine, batch: Batch) -> None:
    """It is in: runs start, callers are answered, facts are told."""
    engine.convicted.clear()
    engine.miscounted |= batch.miscounted
    if batch.changes.swept_counts:
        counters.count_out(engine, batch)
    for run in batch.planned:
        engine.runs[run] = None
        engine.executor.submit(run)
    for worker in batch.workers.values():
        if len(worker.jobs) > worker.jobs_limit:
            worker.drop_idle_jobs()
    batch.answer_callers()
    for follow in batch.after:
        follow()
    if batch.facts or (batch.ended_jobs and engine.wants_ends()):
        engine.on_facts([*batch.facts, *(_job_ended(job) for job in batch.ended_jobs)])


def _job_ended(job: Job) -> Fact:
    return Fact(
        "job.ended",
        {"job_id": job.job_id, "worker_id": job.worker_id, "status": str(job.status), "error": job.error},
    )
