"""The rows of one group commit, and the statements that write them, in a valid order.

The engine fills a `Changes`, and `write` sends it. This module makes no decisions about jobs.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from routilux.store.backends.driver_sql import Literal
from routilux.store.writes import bulk
from routilux.store.writes import commit_statements as sql
from routilux.store.writes.bulk import Bulk, Row

CommitRow = tuple[int, int, str, int]  # runtime, number, what is in flight as JSON, sent at
Step = tuple[Bulk, Sequence[Row]]  # a statement and its rows
WHOLE_ROWS = 96  # a commit with more rows is not small
RANGE_PAYS = 16  # rows per range from which a separate statement for each range pays


@dataclass(slots=True)
class Changes:
    """Rows by statement. Each list holds tuples in the order of the columns above."""

    messages: list[Row] = field(default_factory=list)
    waiting: list[Row] = field(default_factory=list)  # new messages that wait: nearly all new messages
    settled: list[Row] = field(default_factory=list)  # worker, seq, status
    consumed: list[tuple[int, int, int]] = field(default_factory=list)  # worker, seq, consumed_by
    moved: list[Row] = field(default_factory=list)
    new_jobs: list[Row] = field(default_factory=list)
    posted_jobs: list[Row] = field(default_factory=list)  # new, with one message, not started
    started_jobs: list[Row] = field(default_factory=list)  # worker, job, open count, started
    finished_jobs: list[Row] = field(default_factory=list)  # completed: worker, job, started, ended
    jobs: list[Row] = field(default_factory=list)
    swept_jobs: list[Row] = field(default_factory=list)
    swept_counts: list[tuple[int, str, str, int]] = field(default_factory=list)  # found while writing
    activations: list[Row] = field(default_factory=list)
    # activations that completed at their first attempt, without a policy message
    completed: list[Row] = field(default_factory=list)
    traces: list[Row] = field(default_factory=list)
    state: dict[tuple[int, str, str], str | None] = field(default_factory=dict)  # None: delete
    parked: dict[tuple[int, int], Row | None] = field(default_factory=dict)  # None: delete
    slots: dict[tuple[int, str, str], Row] = field(default_factory=dict)  # the last value counts
    workers: dict[int, Row] = field(default_factory=dict)
    payloads: list[Row] = field(default_factory=list)
    cancelled_workers: list[tuple[int, int, str]] = field(default_factory=list)

    def write(self, connection: Connection, commit_row: CommitRow | None = None) -> None:
        """Send all rows inside the caller's transaction.

        `commit_row`: sent with them, unless it is stored already.
        """
        steps = self._steps()
        if commit_row is not None:
            steps.append((sql.INSERT_COMMIT, [commit_row]))
        if connection.dialect.name == "sqlite":
            _one_by_one(connection, steps)
            if self.consumed:
                _consume(connection, self.consumed)
        else:
            self._write_together(connection, [*steps, (sql.CONSUME_MESSAGES, self.consumed)])
        if self.swept_jobs:  # count and cancel what is still open in them
            self.swept_counts = [tuple(row) for row in sql.COUNT_CANCELLED.fetch(connection, self.swept_jobs)]
            sql.DELETE_PARKED_OF_JOBS.run(connection, self.swept_jobs)
            sql.CANCEL_MESSAGES.run(connection, self.swept_jobs)
        for worker, now, reason in self.cancelled_workers:
            for step in sql.CANCEL_STEPS:
                values = (
                    {"worker": worker, "now": now, "reason": reason} if ":now" in step else {"worker": worker}
                )
                connection.execute(text(step), values)

    def whole(self, commit_row: CommitRow) -> list[Literal] | None:
        """Postgres: the statements of a small commit with their values, the commit row first.

        Returns None if the commit is not small, or if it must read.
        """
        if self.swept_jobs or self.cancelled_workers or sum(map(len, self._parts)) > WHOLE_ROWS:
            return None
        steps = [(sql.INSERT_COMMIT, [commit_row]), *self._steps(), (sql.CONSUME_MESSAGES, self.consumed)]
        return [step.literal(rows) for step, rows in steps if rows]

    def _steps(self) -> list[Step]:
        """All steps except the consumed messages."""
        state_rows: list[Row] = [(*key, value) for key, value in self.state.items() if value is not None]
        state_gone: list[Row] = [key for key, value in self.state.items() if value is None]
        parked_rows = [row for row in self.parked.values() if row is not None]
        parked_gone: list[Row] = [key for key, row in self.parked.items() if row is None]
        return [
            (sql.INSERT_MESSAGES, self.messages),
            (sql.INSERT_WAITING, self.waiting),
            (sql.UPDATE_PAYLOADS, self.payloads),
            (sql.MOVE_MESSAGES, self.moved),  # before settled rows, which have the new seq already
            (sql.SETTLE_MESSAGES, self.settled),
            (sql.INSERT_COMPLETED, self.completed),
            (sql.INSERT_ACTIVATIONS, self.activations),
            (sql.UPSERT_PARKED, parked_rows),
            (sql.DELETE_PARKED, parked_gone),
            (sql.INSERT_JOBS, self.new_jobs),
            (sql.INSERT_POSTED, self.posted_jobs),
            (sql.UPDATE_JOBS, self.jobs),
            (sql.START_JOBS, self.started_jobs),
            (sql.FINISH_JOBS, self.finished_jobs),
            (sql.UPSERT_STATE, state_rows),
            (sql.DELETE_STATE, state_gone),
            (sql.INSERT_TRACES, self.traces),
            (sql.UPSERT_SLOTS, list(self.slots.values())),
            (sql.UPDATE_WORKERS, list(self.workers.values())),
        ]

    def _write_together(self, connection: Connection, steps: Sequence[Step]) -> None:
        """Large steps use COPY, one by one.

        Small steps go as one statement, unless two may touch the same message.
        """
        large = [(step, rows) for step, rows in steps if not step.is_small(rows)]
        small = [(step, rows) for step, rows in steps if rows and step.is_small(rows)]
        _one_by_one(connection, large)
        if self.moved or self.settled or self.payloads:
            _one_by_one(connection, small)
        elif small:
            bulk.run_together(connection, small)

    @property
    def is_empty(self) -> bool:
        return not any(self._parts)

    @property
    def _parts(self) -> tuple[Sized, ...]:
        return (
            self.messages,
            self.waiting,
            self.settled,
            self.consumed,
            self.moved,
            self.new_jobs,
            self.posted_jobs,
            self.jobs,
            self.started_jobs,
            self.finished_jobs,
            self.swept_jobs,
            self.activations,
            self.completed,
            self.traces,
            self.state,
            self.parked,
            self.slots,
            self.workers,
            self.payloads,
            self.cancelled_workers,
        )


def _one_by_one(connection: Connection, steps: Sequence[Step]) -> None:
    for step, rows in steps:
        if rows:
            step.run(connection, rows)


def _consume(connection: Connection, rows: list[tuple[int, int, int]]) -> None:
    """Send consumed messages as ranges where that saves statements.

    Runs consume messages in order. Where both numbers count up together, one range stands for many rows.
    """
    ranges = _ranges(rows)
    if not 0 < len(ranges) * RANGE_PAYS <= len(rows):
        sql.CONSUME_MESSAGES.run(connection, rows)
        return
    for worker, first, last, shift in ranges:
        connection.execute(
            sql.CONSUME_RANGE, {"worker": worker, "first": first, "last": last, "shift": shift}
        )


def _ranges(rows: list[tuple[int, int, int]]) -> list[list[int]]:
    """The rows as ranges: [worker, first seq, last seq, consumed_by - seq]."""
    ranges: list[list[int]] = []
    for worker, seq, n in rows:
        if ranges:
            last = ranges[-1]
            if last[2] == seq - 1 and last[3] == n - seq and last[0] == worker:
                last[2] = seq
                continue
        ranges.append([worker, seq, seq, n - seq])
    return ranges
