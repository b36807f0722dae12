"""The rows of one group commit, and the statements that write them, in a valid order.

The engine fills a `Changes`, and `write` sends it. This module makes no decisions about jobs.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from routilux.core.states import ActivationStatus, JobStatus, MessageStatus
from routilux.store.backends.driver_sql import Literal
from routilux.store.tables import (
    activations,
    commits,
    jobs,
    messages,
    parked,
    slots,
    traces,
    worker_state,
    workers,
)
from routilux.store.writes import bulk
from routilux.store.writes.bulk import Bulk, Query, Row

MESSAGE = ("worker", "seq", "job", "routine", "slot", "payload", "produced_by", "status", "created_at")
WAITING = ("worker", "seq", "job", "routine", "slot", "payload", "produced_by", "created_at")
JOB = (
    "worker", "job", "job_id", "flow", "status", "open_count", "metadata", "data", "routine_status",
    "result", "error", "created_at", "started_at", "ended_at", "active_us",
)  # fmt: skip  # the columns of a table, a few to a line
JOB_CHANGE = (
    "worker", "job", "status", "open_count", "data", "routine_status", "result", "error",
    "started_at", "ended_at", "active_us",
)  # fmt: skip  # the columns of a table, a few to a line
POSTED_JOB = ("worker", "job", "job_id", "flow", "metadata", "created_at")
ACTIVATION = (
    "worker", "n", "job", "routine", "attempt", "status", "started_at", "ended_at", "seqs", "policy_message",
    "error_type", "error", "traceback",
)  # fmt: skip  # the columns of a table, a few to a line
COMPLETED = ("worker", "n", "job", "routine", "started_at", "ended_at", "seqs")
TRACE = ("worker", "n", "i", "job", "kind", "routine", "action", "details", "at")
PARKED = (
    "worker", "seq", "job", "routine", "reason", "due_at", "line", "seqs", "attempt", "deaths", "activation",
    "policy_message", "error_type", "error", "parked_at",
)  # fmt: skip  # the columns of a table, a few to a line
CommitRow = tuple[int, int, str, int]  # runtime, number, what is in flight as JSON, sent at
Step = tuple[Bulk, Sequence[Row]]  # a statement and its rows
WHOLE_ROWS = 96  # a commit with more rows is not small
RANGE_PAYS = 16  # rows per range from which a separate statement for each range pays
SLOT = ("worker", "routine", "slot", "waiting", "low_seq", "last_fired_at", "refreshed_at")
WORKER_CHANGE = ("key", "status", "next_seq", "next_n", "deaths", "reason", "started_at", "ended_at")

_INSERT_MESSAGES = bulk.insert(messages, MESSAGE)
_SETTLE_MESSAGES = bulk.update(messages, ("worker", "seq"), ("status",))
_INSERT_JOBS = bulk.insert(jobs, JOB)
_UPDATE_JOBS = bulk.update(jobs, ("worker", "job"), JOB_CHANGE[2:])
_INSERT_ACTIVATIONS = bulk.insert(activations, ACTIVATION)
# The common cases, which are nearly all rows: values that are the same in every row are constants of the
# statement.
_CONSUME_MESSAGES = bulk.update(
    messages, ("worker", "seq"), ("consumed_by",), {"status": MessageStatus.CONSUMED}
)
# The same for a range, on SQLite only. If the worker is newer than the statistics, Postgres sees no gain in a
# range on seq over an index that begins with the worker. Then it reads all messages of the worker.
_CONSUME_RANGE = text(
    "UPDATE routilux_messages SET status = 'consumed', consumed_by = seq + :shift"
    " WHERE worker = :worker AND seq BETWEEN :first AND :last"
)
_INSERT_WAITING = bulk.insert(messages, WAITING, {"status": MessageStatus.WAITING})
_INSERT_POSTED = bulk.insert(jobs, POSTED_JOB, {"status": JobStatus.PENDING, "open_count": 1})
_START_JOBS = bulk.update(
    jobs, ("worker", "job"), ("open_count", "started_at"), {"status": JobStatus.RUNNING}
)
_FINISH_JOBS = bulk.update(
    jobs, ("worker", "job"), ("started_at", "ended_at"), {"status": JobStatus.COMPLETED, "open_count": 0}
)
_INSERT_COMPLETED = bulk.insert(activations, COMPLETED, {"attempt": 1, "status": ActivationStatus.COMPLETED})
_INSERT_TRACES = bulk.insert(traces, TRACE)
_UPSERT_STATE = bulk.upsert(worker_state, ("worker", "routine", "key", "value"), ("value",))
_DELETE_STATE = bulk.delete(worker_state, ("worker", "routine", "key"))
_UPSERT_PARKED = bulk.upsert(parked, PARKED, PARKED[2:])
_DELETE_PARKED = bulk.delete(parked, ("worker", "seq"))
_UPSERT_SLOTS = bulk.upsert(slots, SLOT, SLOT[3:])
_UPDATE_WORKERS = Bulk(
    # an update, not an upsert: few rows, and no filler value would fit the unique worker_id
    text(
        "UPDATE routilux_workers SET status = n.status, next_seq = n.next_seq, next_n = n.next_n,"
        " deaths = n.deaths, reason = n.reason,"
        " started_at = coalesce(routilux_workers.started_at, n.started_at), ended_at = n.ended_at"
        " FROM (SELECT "
        + ", ".join(f"json_extract(value, '$[{i}]') AS {name}" for i, name in enumerate(WORKER_CHANGE))
        + " FROM json_each(:rows)) AS n WHERE routilux_workers.key = n.key"
    ),
    text(
        "UPDATE routilux_workers AS w SET status = n.status, next_seq = n.next_seq, next_n = n.next_n,"
        " deaths = n.deaths, reason = n.reason, started_at = coalesce(w.started_at, n.started_at),"
        " ended_at = n.ended_at FROM ("
        + bulk.postgres_source(workers, WORKER_CHANGE)
        + ") AS n WHERE w.key = n.key"
    ),
)

# When a job ends, its remaining messages are cancelled: [worker, job].
_CANCEL_MESSAGES = Bulk(
    text(
        "UPDATE routilux_messages SET status = 'cancelled' WHERE status IN ('waiting', 'parked')"
        " AND (worker, job) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]')"
        " FROM json_each(:rows))"
    ),
    text(
        "UPDATE routilux_messages AS m SET status = 'cancelled' FROM"
        " (SELECT CAST(v ->> 0 AS bigint) AS worker,"
        " CAST(v ->> 1 AS bigint) AS job FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r(v)) AS n"
        " WHERE m.worker = n.worker AND m.job = n.job AND m.status IN ('waiting', 'parked')"
    ),
)
# How many of those messages wait: worker, routine, slot, count.
_COUNT_CANCELLED = Query(
    text(
        "SELECT worker, routine, slot, count(*) FROM routilux_messages WHERE status = 'waiting'"
        " AND (worker, job) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]')"
        " FROM json_each(:rows)) GROUP BY 1, 2, 3"
    ),
    text(
        "SELECT m.worker, m.routine, m.slot, count(*) FROM (SELECT CAST(v ->> 0 AS bigint) AS worker,"
        " CAST(v ->> 1 AS bigint) AS job FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r(v)) AS n"
        " JOIN routilux_messages AS m ON m.worker = n.worker AND m.job = n.job"
        " WHERE m.status = 'waiting' GROUP BY 1, 2, 3"
    ),
)
_DELETE_PARKED_OF_JOBS = Bulk(
    text(
        "DELETE FROM routilux_parked WHERE reason <> 'dead' AND (worker, seq, job) IN"
        " (SELECT m.worker, m.seq, m.job FROM json_each(:rows) AS r JOIN routilux_messages AS m"
        " ON m.worker = json_extract(r.value, '$[0]')"
        " AND m.job = json_extract(r.value, '$[1]'))"
    ),
    text(
        "DELETE FROM routilux_parked AS p USING (SELECT CAST(v ->> 0 AS bigint) AS worker,"
        " CAST(v ->> 1 AS bigint) AS job FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r(v)) AS n"
        " JOIN routilux_messages AS m ON m.worker = n.worker AND m.job = n.job"
        " WHERE p.worker = m.worker AND p.seq = m.seq AND p.job = m.job AND p.reason <> 'dead'"
    ),
)
# A delayed message is due: it joins the end of the queue with a new seq. [worker, seq, new seq]
_MOVE_MESSAGES = Bulk(
    text(
        "UPDATE routilux_messages SET status = 'waiting', seq = n.new FROM"
        " (SELECT json_extract(value, '$[0]') AS worker, json_extract(value, '$[1]') AS seq,"
        " json_extract(value, '$[2]') AS new FROM json_each(:rows)) AS n"
        " WHERE routilux_messages.worker = n.worker AND routilux_messages.seq = n.seq"
    ),
    text(
        "UPDATE routilux_messages AS m SET status = 'waiting', seq = n.new FROM"
        " (SELECT CAST(v ->> 0 AS bigint) AS worker, CAST(v ->> 1 AS bigint) AS seq,"
        " CAST(v ->> 2 AS bigint) AS new FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r(v)) AS n"
        " WHERE m.worker = n.worker AND m.seq = n.seq"
    ),
)

_INSERT_COMMIT = bulk.insert(commits, ("runtime", "n", "in_flight", "committed_at"))
_UPDATE_PAYLOADS = bulk.update(messages, ("worker", "seq"), ("payload",))
# Cancelling a worker cancels all that is open in it: [worker, now, reason].
_CANCEL_STEPS = (
    "UPDATE routilux_jobs SET status = 'cancelled', ended_at = :now, error = :reason, open_count = 0"
    " WHERE worker = :worker AND status IN ('pending', 'running', 'paused')",
    "UPDATE routilux_messages SET status = 'cancelled'"
    " WHERE worker = :worker AND status IN ('waiting', 'parked')",
    "DELETE FROM routilux_parked WHERE worker = :worker AND reason <> 'dead'",
    "UPDATE routilux_slots SET waiting = 0 WHERE worker = :worker",
)


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
            steps.append((_INSERT_COMMIT, [commit_row]))
        if connection.dialect.name == "sqlite":
            _one_by_one(connection, steps)
            if self.consumed:
                _consume(connection, self.consumed)
        else:
            self._write_together(connection, [*steps, (_CONSUME_MESSAGES, self.consumed)])
        if self.swept_jobs:  # count and cancel what is still open in them
            self.swept_counts = [tuple(row) for row in _COUNT_CANCELLED.fetch(connection, self.swept_jobs)]
            _DELETE_PARKED_OF_JOBS.run(connection, self.swept_jobs)
            _CANCEL_MESSAGES.run(connection, self.swept_jobs)
        for worker, now, reason in self.cancelled_workers:
            for step in _CANCEL_STEPS:
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
        steps = [(_INSERT_COMMIT, [commit_row]), *self._steps(), (_CONSUME_MESSAGES, self.consumed)]
        return [step.literal(rows) for step, rows in steps if rows]

    def _steps(self) -> list[Step]:
        """All steps except the consumed messages."""
        state_rows: list[Row] = [(*key, value) for key, value in self.state.items() if value is not None]
        state_gone: list[Row] = [key for key, value in self.state.items() if value is None]
        parked_rows = [row for row in self.parked.values() if row is not None]
        parked_gone: list[Row] = [key for key, row in self.parked.items() if row is None]
        return [
            (_INSERT_MESSAGES, self.messages),
            (_INSERT_WAITING, self.waiting),
            (_UPDATE_PAYLOADS, self.payloads),
            (_MOVE_MESSAGES, self.moved),  # before settled rows, which have the new seq already
            (_SETTLE_MESSAGES, self.settled),
            (_INSERT_COMPLETED, self.completed),
            (_INSERT_ACTIVATIONS, self.activations),
            (_UPSERT_PARKED, parked_rows),
            (_DELETE_PARKED, parked_gone),
            (_INSERT_JOBS, self.new_jobs),
            (_INSERT_POSTED, self.posted_jobs),
            (_UPDATE_JOBS, self.jobs),
            (_START_JOBS, self.started_jobs),
            (_FINISH_JOBS, self.finished_jobs),
            (_UPSERT_STATE, state_rows),
            (_DELETE_STATE, state_gone),
            (_INSERT_TRACES, self.traces),
            (_UPSERT_SLOTS, list(self.slots.values())),
            (_UPDATE_WORKERS, list(self.workers.values())),
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
        _CONSUME_MESSAGES.run(connection, rows)
        return
    for worker, first, last, shift in ranges:
        connection.execute(_CONSUME_RANGE, {"worker": worker, "first": first, "last": last, "shift": shift})


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
