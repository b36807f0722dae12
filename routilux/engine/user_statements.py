"""User statements: what `self.write` collected. They run inside the group commit, before anything is decided.

First all of them run in one savepoint. If that fails, each activation gets a savepoint of its own, in order.
An activation after a failed one in the same run saw state that is dropped; one of the same job may find the
job ended. Both are left out and run again.
"""

from __future__ import annotations

from routilux.core.outcome import Outcome
from routilux.engine.batch import Batch
from routilux.engine.statement_group import StatementGroup, group_of
from routilux.errors import WriteError
from routilux.store import user_sql
from routilux.store.errors import TransactionEnded
from routilux.store.writes.store import Commit

# How long the group waits for a lock of another session, and for one that it has met before.
LOCK_WAIT_MS, KNOWN_LOCK_WAIT_MS = 250, 20


def refusal(statement: object) -> str | None:
    """Say why `write()` cannot take a statement. Returns None if it can."""
    if not user_sql.is_dml(statement):
        return (
            f"write() takes a Core insert(), update() or delete(), not {type(statement).__name__}:"
            " other statements could end the shared transaction"
        )
    if user_sql.returns_rows(statement):
        return "write() cannot give rows back: leave .returning() out and read in another place"
    return None


def execute(commit: Commit, batch: Batch, reported: list[Outcome]) -> tuple[int, ...]:
    """Run the user statements that will go in. Fills `batch.statement_errors` and `batch.skipped`.

    Returns a digest. A commit that is sent again must get the same one.
    """
    if batch.statements is None:
        batch.statements = [group_of(outcome) for outcome in reported]
    batch.statement_errors.clear()
    batch.skipped.clear()
    groups = batch.statements
    if not any(group.writes for group in groups):
        return ()
    commit.limit_lock_wait(KNOWN_LOCK_WAIT_MS if any(group.was_locked for group in groups) else LOCK_WAIT_MS)
    if batch.is_split or not _together(commit, batch, groups):
        batch.skipped.clear()
        _one_by_one(commit, batch, groups)
    commit.limit_lock_wait(None)
    return tuple(sorted((*batch.statement_errors, *batch.skipped)))


def _together(commit: Commit, batch: Batch, groups: list[StatementGroup]) -> bool:
    excluded = _Excluded()
    try:
        return commit.own_together([group.writes for group in groups if excluded.lets_in(batch, group)])
    except TransactionEnded:
        batch.is_split = True  # only one savepoint per activation shows which statement it was
        raise


def _one_by_one(commit: Commit, batch: Batch, groups: list[StatementGroup]) -> None:
    excluded = _Excluded()
    for group in groups:
        if not excluded.lets_in(batch, group):
            continue
        error = batch.rejected_statements.get(group.key)
        if error is None:
            try:
                error = commit.own_alone(group.writes)
            except TransactionEnded as end:
                batch.rejected_statements[group.key] = WriteError(
                    f"an own statement ended the transaction: {end.__cause__ or 'it was not open any more'}"
                )
                raise
        if error is not None:
            batch.statement_errors[group.key] = error
            excluded.add(group)
            if batch.is_lock_timeout(error):
                commit.limit_lock_wait(KNOWN_LOCK_WAIT_MS)


class _Excluded:
    """Runs and jobs that nothing more goes in of, with this batch."""

    def __init__(self) -> None:
        self._runs: set[int] = set()
        self._jobs: set[tuple[int, int]] = set()

    def lets_in(self, batch: Batch, group: StatementGroup) -> bool:
        """Whether its statements run.

        What is dropped, with or without statements, excludes the rest of its run.
        """
        if group.is_dropped:
            return False
        is_excluded = group.run in self._runs or bool(group.jobs & self._jobs)
        if is_excluded or group.is_late:
            self._runs.add(group.run)
            if group.writes and is_excluded:
                batch.skipped.add(group.key)
            return False
        if group.may_end_jobs:
            self._jobs |= group.jobs
        return bool(group.writes)

    def add(self, group: StatementGroup) -> None:
        self._runs.add(group.run)
        self._jobs |= group.jobs
