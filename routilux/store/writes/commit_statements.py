"""The statements of a group commit, each with the columns of its rows, for both databases."""

from __future__ import annotations

from sqlalchemy import text

from routilux.core.states import ActivationStatus, JobStatus, MessageStatus
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
from routilux.store.writes.bulk import Bulk, Query

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
SLOT = ("worker", "routine", "slot", "waiting", "low_seq", "last_fired_at", "refreshed_at")
WORKER_CHANGE = ("key", "status", "next_seq", "next_n", "deaths", "reason", "started_at", "ended_at")

INSERT_MESSAGES = bulk.insert(messages, MESSAGE)
SETTLE_MESSAGES = bulk.update(messages, ("worker", "seq"), ("status",))
INSERT_JOBS = bulk.insert(jobs, JOB)
UPDATE_JOBS = bulk.update(jobs, ("worker", "job"), JOB_CHANGE[2:])
INSERT_ACTIVATIONS = bulk.insert(activations, ACTIVATION)
# The common cases, which are nearly all rows: values that are the same in every row are constants of the
# statement.
CONSUME_MESSAGES = bulk.update(
    messages, ("worker", "seq"), ("consumed_by",), {"status": MessageStatus.CONSUMED}
)
# The same for a range, on SQLite only. If the worker is newer than the statistics, Postgres sees no gain in a
# range on seq over an index that begins with the worker. Then it reads all messages of the worker.
CONSUME_RANGE = text(
    "UPDATE routilux_messages SET status = 'consumed', consumed_by = seq + :shift"
    " WHERE worker = :worker AND seq BETWEEN :first AND :last"
)
INSERT_WAITING = bulk.insert(messages, WAITING, {"status": MessageStatus.WAITING})
INSERT_POSTED = bulk.insert(jobs, POSTED_JOB, {"status": JobStatus.PENDING, "open_count": 1})
START_JOBS = bulk.update(jobs, ("worker", "job"), ("open_count", "started_at"), {"status": JobStatus.RUNNING})
FINISH_JOBS = bulk.update(
    jobs, ("worker", "job"), ("started_at", "ended_at"), {"status": JobStatus.COMPLETED, "open_count": 0}
)
INSERT_COMPLETED = bulk.insert(activations, COMPLETED, {"attempt": 1, "status": ActivationStatus.COMPLETED})
INSERT_TRACES = bulk.insert(traces, TRACE)
UPSERT_STATE = bulk.upsert(worker_state, ("worker", "routine", "key", "value"), ("value",))
DELETE_STATE = bulk.delete(worker_state, ("worker", "routine", "key"))
UPSERT_PARKED = bulk.upsert(parked, PARKED, PARKED[2:])
DELETE_PARKED = bulk.delete(parked, ("worker", "seq"))
UPSERT_SLOTS = bulk.upsert(slots, SLOT, SLOT[3:])
UPDATE_WORKERS = Bulk(
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
CANCEL_MESSAGES = Bulk(
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
COUNT_CANCELLED = Query(
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
DELETE_PARKED_OF_JOBS = Bulk(
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
MOVE_MESSAGES = Bulk(
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

INSERT_COMMIT = bulk.insert(commits, ("runtime", "n", "in_flight", "committed_at"))
UPDATE_PAYLOADS = bulk.update(messages, ("worker", "seq"), ("payload",))
# Cancelling a worker cancels all that is open in it: [worker, now, reason].
CANCEL_STEPS = (
    "UPDATE routilux_jobs SET status = 'cancelled', ended_at = :now, error = :reason, open_count = 0"
    " WHERE worker = :worker AND status IN ('pending', 'running', 'paused')",
    "UPDATE routilux_messages SET status = 'cancelled'"
    " WHERE worker = :worker AND status IN ('waiting', 'parked')",
    "DELETE FROM routilux_parked WHERE worker = :worker AND reason <> 'dead'",
    "UPDATE routilux_slots SET waiting = 0 WHERE worker = :worker",
)
