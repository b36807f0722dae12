"""Own statements: what `self.write` collected, executed inside the group commit before anything is decided.

All in one savepoint; if that fails, one savepoint per activation in order. What follows a failure in its run saw
state that is thrown away, and what follows in its job may find the job ended: both are left out, to run again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Delete, Insert, Update

from routilux.core.activation import Outcome, jobs_of
from routilux.core.mailbox import Run
from routilux.errors import WriteError
from routilux.runtime.batch import Batch
from routilux.store.store import Commit, TransactionEnded

if TYPE_CHECKING:
    from routilux.runtime.engine import Engine

LOCK_WAIT_MS = 250
_DML = (Insert, Update, Delete)
Reported = list[tuple[Run, Outcome]]


def refusal(statement: object) -> str | None:
    """Why a statement cannot be an own statement; None: it can."""
    if not isinstance(statement, _DML):
        return (
            f"write() takes a Core insert(), update() or delete(), not {type(statement).__name__}: anything else could end"
            " the transaction of everybody"
        )
    if statement._returning:
        return "write() cannot give rows back: leave .returning() out and read in another place"
    return None


def execute(engine: Engine, commit: Commit, batch: Batch, reported: Reported) -> tuple[int, ...]:
    """Run what will go in; fills `batch.own_errors` and `batch.skipped`. Returns a digest to compare a resend with."""
    batch.own_errors.clear()
    batch.skipped.clear()
    if not any(outcome.writes for _, outcome in reported):
        return ()
    commit.limit_lock_wait(LOCK_WAIT_MS)
    if engine.convicted or not _together(commit, batch, reported):
        batch.skipped.clear()
        _one_by_one(engine, commit, batch, reported)
    commit.limit_lock_wait(None)
    return tuple(sorted((*batch.own_errors, *batch.skipped)))


def _candidates(batch: Batch, reported: Reported) -> list[Outcome]:
    return [outcome for _, outcome in reported if outcome.writes and id(outcome) not in batch.skipped]


def _together(commit: Commit, batch: Batch, reported: Reported) -> bool:
    doom = _Doom()
    for run, outcome in reported:
        doom.look(batch, run, outcome)
    return commit.own_together([outcome.writes for outcome in _candidates(batch, reported)])


def _one_by_one(engine: Engine, commit: Commit, batch: Batch, reported: Reported) -> None:
    doom = _Doom()
    for run, outcome in reported:
        doom.look(batch, run, outcome)
        if not outcome.writes or id(outcome) in batch.skipped:
            continue
        error = engine.convicted.get(id(outcome))
        if error is None:
            try:
                error = commit.own_alone(outcome.writes)
            except TransactionEnded as end:
                engine.convicted[id(outcome)] = WriteError(
                    f"an own statement ended the transaction: {end.__cause__ or 'it was not open any more'}"
                )
                raise
        if error is not None:
            batch.own_errors[id(outcome)] = error
            doom.add(run, outcome)


class _Doom:
    """Runs and jobs of which nothing more goes in with this batch."""

    def __init__(self) -> None:
        self._runs: set[int] = set()
        self._jobs: set[tuple[int, int]] = set()

    def look(self, batch: Batch, run: Run, outcome: Outcome) -> None:
        """Skip an outcome that follows a failure; remember one that may end its job."""
        worker = run.cell.worker.key
        jobs = {(worker, job.no) for job in jobs_of(outcome.activation)}
        if run.is_broken or run.cell.worker.is_forgotten:
            outcome.writes = []
        elif outcome.writes and (
            id(run) in self._runs
            or jobs & self._jobs
            or all(j.has_ended for j in jobs_of(outcome.activation))
        ):
            batch.skipped.add(id(outcome))
            self._runs.add(id(run))
        elif outcome.failure is not None or outcome.job_end is not None:
            self._jobs |= jobs

    def add(self, run: Run, outcome: Outcome) -> None:
        self._runs.add(id(run))
        self._jobs |= {(run.cell.worker.key, job.no) for job in jobs_of(outcome.activation)}
