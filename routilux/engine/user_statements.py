"""Own statements: what `self.write` collected, executed inside the group commit before anything is decided.

All in one savepoint; if that fails, one savepoint per activation in order. What follows a failure in its run saw
state that is thrown away, and what follows in its job may find the job ended: both are left out, to run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from routilux.core.message import Activation, jobs_of
from routilux.core.outcome import Outcome
from routilux.engine.batch import Batch
from routilux.errors import WriteError
from routilux.store import user_sql
from routilux.store.errors import TransactionEnded
from routilux.store.writes.store import Commit

if TYPE_CHECKING:
    from routilux.engine.engine import Engine

# For a stranger's lock the group waits this long; for one that was there before, or a second one, hardly at all.
LOCK_WAIT_MS, KNOWN_LOCK_WAIT_MS = 250, 20


def refusal(statement: object) -> str | None:
    """Why a statement cannot be an own statement; None: it can."""
    if not user_sql.is_dml(statement):
        return (
            f"write() takes a Core insert(), update() or delete(), not {type(statement).__name__}: anything else could end"
            " the transaction of everybody"
        )
    if user_sql.returns_rows(statement):
        return "write() cannot give rows back: leave .returning() out and read in another place"
    return None


@dataclass(frozen=True, slots=True)
class Own:
    """What one outcome stood for before anything was decided: a commit that is sent again asks the same again."""

    key: int  # id(outcome)
    run: int
    jobs: frozenset[tuple[int, int]]
    writes: tuple[tuple[Any, Any], ...]
    is_gone: bool  # its run is broken or its worker forgotten: it is dropped
    is_late: bool  # its jobs have ended
    was_locked: bool  # a stranger's lock sent it away before
    may_end_jobs: bool


def _own(outcome: Outcome) -> Own:
    run = outcome.run
    jobs, worker = jobs_of(outcome.activation), run.cell.worker
    return Own(
        id(outcome),
        id(run),
        frozenset((worker.key, job.no) for job in jobs),
        tuple(outcome.writes),
        run.is_broken or worker.is_forgotten,
        all(job.has_ended for job in jobs),
        locked_key(outcome.activation) in worker.lock_tries,
        outcome.failure is not None or outcome.job_end is not None,
    )


def locked_key(activation: Activation) -> int:
    """The parked row that it has, or would have."""
    return activation.messages[0].seq if activation.rerun is None else activation.rerun.key


def execute(engine: Engine, commit: Commit, batch: Batch, reported: list[Outcome]) -> tuple[int, ...]:
    """Run what will go in; fills `batch.own_errors` and `batch.skipped`. Returns a digest to compare a resend with."""
    if batch.own is None:
        batch.own = [_own(outcome) for outcome in reported]
    batch.own_errors.clear()
    batch.skipped.clear()
    if not any(own.writes for own in batch.own):
        return ()
    commit.limit_lock_wait(KNOWN_LOCK_WAIT_MS if any(own.was_locked for own in batch.own) else LOCK_WAIT_MS)
    if batch.is_split or not _together(commit, batch, batch.own):
        batch.skipped.clear()
        _one_by_one(engine, commit, batch, batch.own)
    commit.limit_lock_wait(None)
    return tuple(sorted((*batch.own_errors, *batch.skipped)))


def _together(commit: Commit, batch: Batch, owns: list[Own]) -> bool:
    doom = _Doom()
    try:
        return commit.own_together([own.writes for own in owns if doom.lets_in(batch, own)])
    except TransactionEnded:
        batch.is_split = True  # whose statement it was shows only one by one
        raise


def _one_by_one(engine: Engine, commit: Commit, batch: Batch, owns: list[Own]) -> None:
    doom = _Doom()
    for own in owns:
        if not doom.lets_in(batch, own):
            continue
        error = engine.convicted.get(own.key)
        if error is None:
            try:
                error = commit.own_alone(own.writes)
            except TransactionEnded as end:
                engine.convicted[own.key] = WriteError(
                    f"an own statement ended the transaction: {end.__cause__ or 'it was not open any more'}"
                )
                raise
        if error is not None:
            batch.own_errors[own.key] = error
            doom.add(own)
            if engine.is_lock_timeout(error):
                commit.limit_lock_wait(KNOWN_LOCK_WAIT_MS)


class _Doom:
    """Runs and jobs of which nothing more goes in with this batch."""

    def __init__(self) -> None:
        self._runs: set[int] = set()
        self._jobs: set[tuple[int, int]] = set()

    def lets_in(self, batch: Batch, own: Own) -> bool:
        """Whether its statements run. What is discarded, with statements or without, takes the rest of its run along."""
        if own.is_gone:
            return False
        is_doomed = own.run in self._runs or bool(own.jobs & self._jobs)
        if is_doomed or own.is_late:
            self._runs.add(own.run)
            if own.writes and is_doomed:
                batch.skipped.add(own.key)
            return False
        if own.may_end_jobs:
            self._jobs |= own.jobs
        return bool(own.writes)

    def add(self, own: Own) -> None:
        self._runs.add(own.run)
        self._jobs |= own.jobs
