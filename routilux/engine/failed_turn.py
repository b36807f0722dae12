"""Handles a commit that failed: fenced, refused, or stopped by an unexpected error. And the engine's end.

Memory is ahead of the database then. The workers concerned are loaded again, and every caller is told what
is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from routilux.core.outcome import Outcome
from routilux.engine.batch import Batch
from routilux.engine.inputs import CommandIn, Input, PostIn, RunEnded
from routilux.engine.parts import Parts
from routilux.engine.scheduler import RUN_AHEAD
from routilux.errors import DatabaseUnavailableError, PostInDoubt, RuntimeShutDownError
from routilux.store.backends.database_url import named
from routilux.store.errors import PASSING, classify


class Identity(Protocol):
    """The registration of this runtime."""

    def come_back(self) -> None:
        """Register again, under a new key."""


class FailedTurn:
    """Repairs the parts after a commit that failed."""

    def __init__(self, parts: Parts, identity: Identity) -> None:
        self._parts = parts
        self._identity = identity

    def fenced(
        self, batch: Batch | None = None, inputs: Iterable[Input] = (), *, was_in: bool = False
    ) -> None:
        """Another runtime took over.

        Drop all workers and register again. `was_in`: it was committed; only the answer was lost.
        """
        parts = self._parts
        parts.facts.report("runtime.fenced", runtime=parts.transactions.runtime_key)
        self.lose_identity(batch)
        parts.recovery.undo_waits(inputs)
        for entry in inputs:
            if isinstance(entry, RunEnded):
                parts.scheduler.release(entry.run)
        if was_in and batch is not None:
            batch.answer_callers()
        else:
            parts.inputs.put_back([entry for entry in inputs if not isinstance(entry, (Outcome, RunEnded))])

    def lose_identity(self, batch: Batch | None = None) -> None:
        """The database says that this runtime is dead: drop every worker, register under a new key."""
        parts = self._parts
        parts.scheduler.cancel(batch.planned if batch is not None else ())
        parts.scheduler.lose_identity()
        parts.inbox.forget()  # another runtime may own the workers of these rows now
        parts.workers.forget_all()
        parts.transactions.retry_transient(self._identity.come_back)

    def refused(self, batch: Batch, inputs: list[Input], cause: BaseException) -> None:
        """The error is permanent: load the workers of this commit again, try the inputs one by one."""
        parts = self._parts
        parts.transactions.store.drop_connection()
        parts.recovery.undo_waits(inputs)
        if batch.inbox_ids:
            parts.inbox.commit_refused(batch.inbox_ids, len(inputs), cause)
        is_alone = len(inputs) == 1 and not batch.inbox_ids
        reported = (entry.run.cell.worker for entry in inputs if isinstance(entry, (Outcome, RunEnded)))
        planned = (run.cell.worker for run in batch.planned)
        concerned = dict.fromkeys([*reported, *planned, *batch.jobs.values(), *batch.workers.values()])
        parts.scheduler.cancel(batch.planned)
        again = [entry for entry in inputs if self._is_tried_again(entry, cause, is_alone=is_alone)]
        parts.facts.report("commit.refused", error=cause, inputs=len(inputs))
        for worker in concerned:
            parts.workers.reload(worker)
        for key in dict.fromkeys(worker for worker, _, _ in batch.changes.slots):
            cell = parts.workers.with_key(key)  # it may have only counters in this commit
            if cell is not None:
                parts.counters.write_soon(cell)
        outcomes = sum(isinstance(entry, Outcome) for entry in inputs)
        parts.recovery.isolate(0 if is_alone else outcomes + RUN_AHEAD)
        parts.inputs.put_back(again)
        parts.inbox.forget()

    def _is_tried_again(self, entry: Input, cause: BaseException, *, is_alone: bool) -> bool:
        """Posts and commands are; one that was alone is answered with the cause, an outcome fails with it."""
        parts = self._parts
        match entry:
            case Outcome() if is_alone:
                parts.recovery.rejections.add(entry, cause, parts.clock.monotonic())
            case RunEnded(run=run):
                parts.scheduler.release(run)
            case PostIn() | CommandIn() if is_alone:
                entry.receipt.fail(named(cause, parts.transactions.store.database.url))
            case PostIn() | CommandIn():
                return True
        return False

    def interrupted(self, inputs: Iterable[Input], error: BaseException, failures: int) -> None:
        """Something unexpected, `failures` times in a row.

        Tell the callers of these inputs that they are in doubt.
        """
        parts = self._parts
        if classify(error) in PASSING:
            parts.transactions.report_failed_try(error, failures)
        else:
            parts.facts.report("engine.failed", error=error)
        for entry in inputs:
            match entry:
                case RunEnded(run=run):
                    parts.scheduler.release(run)
                case PostIn() | CommandIn() if not entry.receipt.is_done:
                    entry.receipt.fail(_in_doubt(entry, error))

    def reload_all(self) -> None:
        for worker in list(self._parts.workers):
            self._parts.workers.reload(worker)

    def reject_pending(self) -> None:
        """The engine has stopped: answer everybody who still waits."""
        parts = self._parts
        for entry in [*parts.inputs.take(1 << 30), *parts.recovery.waiting_posts]:
            match entry:
                case Outcome() | RunEnded():
                    continue
                case PostIn() | CommandIn() if entry.receipt.is_taken and not entry.receipt.is_done:
                    entry.receipt.fail(_in_doubt(entry, None))  # its commit may have been sent
                case _ if not entry.receipt.is_done:
                    entry.receipt.fail(RuntimeShutDownError("Runtime is shut down"))


def _in_doubt(entry: PostIn | CommandIn, cause: BaseException | None) -> BaseException:
    """What a caller is told whose commit may be in, or may go in."""
    if isinstance(entry, PostIn):
        return PostInDoubt(entry.posts[0].job_id)
    error = DatabaseUnavailableError("the commit was interrupted: it is not known whether this was stored")
    error.__cause__ = cause
    return error
