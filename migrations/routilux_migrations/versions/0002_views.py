"""The views: the public query interface, with the same columns and the same meaning on both databases.

Timestamps are `timestamptz` on Postgres and text `YYYY-MM-DD HH:MM:SS.ffffff` in UTC on SQLite. JSON is text
on both: cast it (`data::jsonb`, `json(data)`). A filter by `worker_id` or `job_id` uses the indexes in every
view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COMMENTS = {
    "job_history": "One row per job, and per post that no worker has accepted yet (pending)",
    "activation_history": "One row per attempt to run logic",
    "queue_depth": "One row per slot of a worker that has not ended: messages that wait or are parked",
    "dead_letters": "One row per batch that was given up; `routilux` can send it again",
    "lineage": "One row per message: the activation that produced it and the one that consumed it",
}


class Words(NamedTuple):
    """SQL that differs between the databases. `s` is an element of the message list of a parked row `p`."""

    time: Callable[[str], str]
    then: str  # a join that reads its left side first
    waiting: str  # joins the messages m that may wait to a worker w
    each: str
    seq: str
    joined: Callable[[str, str, str], str]  # (expression, order, FROM …): texts with commas between


def _sqlite_time(us: str) -> str:
    seconds = f"strftime('%Y-%m-%d %H:%M:%S', ({us}) / 1000000, 'unixepoch')"
    return f"{seconds} || printf('.%06d', ({us}) % 1000000)"


def _postgres_time(us: str) -> str:
    # a double holds the seconds of present times to a quarter of a microsecond, and to_timestamp rounds
    return f"to_timestamp(CAST({us} AS double precision) / 1e6)"


def _sqlite_joined(expression: str, order: str, source: str) -> str:
    # an ordered subquery: group_concat has its own ORDER BY only from SQLite 3.44 on
    return f"(SELECT group_concat(o.v, ',') FROM (SELECT {expression} AS v {source} ORDER BY {order}) AS o)"


def _postgres_joined(expression: str, order: str, source: str) -> str:
    return f"(SELECT string_agg({expression}, ',' ORDER BY {order}) {source})"


LOW_SEQ = "coalesce((SELECT min(s.low_seq) FROM routilux_slots AS s WHERE s.worker = w.key), 0)"
WAITING = f"m.worker = w.key AND m.seq >= {LOW_SEQ} AND m.status = 'waiting'"

SQLITE = Words(
    time=_sqlite_time,
    then="CROSS JOIN",
    waiting=f"CROSS JOIN routilux_messages AS m ON {WAITING}",
    each="json_each(p.seqs) AS s",
    seq="s.value",
    joined=_sqlite_joined,
)
POSTGRES = Words(
    time=_postgres_time,
    then="JOIN",
    # OFFSET 0 keeps this one key range per worker. Otherwise Postgres reads all messages to find the few that
    # wait.
    waiting=f"CROSS JOIN LATERAL (SELECT * FROM routilux_messages AS m WHERE {WAITING} OFFSET 0) AS m",
    each="jsonb_array_elements_text(CAST(p.seqs AS jsonb)) WITH ORDINALITY AS s(value, key)",
    seq="CAST(s.value AS bigint)",
    joined=_postgres_joined,
)


def upgrade() -> None:
    is_postgres = op.get_context().dialect.name == "postgresql"
    for name, view in VIEWS.items():
        op.execute(f"CREATE VIEW routilux_{name} AS {view(POSTGRES if is_postgres else SQLITE)}")
        if is_postgres:
            op.execute(f"COMMENT ON VIEW routilux_{name} IS '{COMMENTS[name]}'")


def downgrade() -> None:
    for name in VIEWS:
        op.execute(f"DROP VIEW routilux_{name}")


def _job_history(words: Words) -> str:
    return f"""
        SELECT j.job_id, w.worker_id, j.flow AS flow_id, j.status,
            {words.time("j.created_at")} AS created_at,
            {words.time("j.started_at")} AS started_at,
            {words.time("j.ended_at")} AS completed_at,
            (j.ended_at - j.started_at) / 1000000.0E0 AS duration_s,
            j.open_count AS open_messages, j.error, j.metadata, j.data, j.result
        FROM routilux_jobs AS j JOIN routilux_workers AS w ON w.key = j.worker
        UNION ALL
        SELECT i.job_id, i.worker_id, i.flow, 'pending', {words.time("i.created_at")}, NULL, NULL, NULL,
            1, NULL, i.metadata, NULL, NULL
        FROM routilux_inbox AS i
        WHERE i.kind = 'post' AND i.job_id IS NOT NULL
            -- an id posted twice is one job
            AND NOT EXISTS (SELECT 1 FROM routilux_jobs AS j WHERE j.job_id = i.job_id)
            AND NOT EXISTS (SELECT 1 FROM routilux_inbox AS e
                            WHERE e.job_id = i.job_id AND e.kind = 'post' AND e.id < i.id)"""


def _activation_history(words: Words) -> str:
    return f"""
        SELECT w.worker_id, a.n AS activation, j.job_id, w.flow AS flow_id, a.routine AS routine_id,
            a.attempt, a.status,
            {words.time("a.started_at")} AS started_at,
            {words.time("a.ended_at")} AS ended_at,
            (a.ended_at - a.started_at) / 1000000.0E0 AS duration_s,
            a.policy_message, a.error_type, a.error, a.traceback, '[' || a.seqs || ']' AS messages
        FROM routilux_activations AS a
        JOIN routilux_workers AS w ON w.key = a.worker
        LEFT JOIN routilux_jobs AS j ON j.worker = a.worker AND j.job = a.job"""


def _queue_depth(words: Words) -> str:
    # Worker first, in each part: Postgres applies a filter by worker_id to the key ranges. SQLite does not,
    # but it reads only what may wait, not the whole history.
    live = "w.status NOT IN ('completed', 'failed', 'cancelled')"
    return f"""
        SELECT flow_id, worker_id, routine_id, slot, CAST(sum(waiting) AS bigint) AS waiting,
            {words.time("min(oldest)")} AS oldest_waiting_at, CAST(sum(parked) AS bigint) AS parked
        FROM (
            SELECT w.flow AS flow_id, w.worker_id, m.routine AS routine_id, m.slot, 1 AS waiting,
                m.created_at AS oldest, 0 AS parked
            FROM routilux_workers AS w {words.waiting}
            WHERE {live}
            UNION ALL
            SELECT w.flow, w.worker_id, m.routine, m.slot, 0, NULL, 1
            FROM routilux_workers AS w {words.then} routilux_parked AS p ON p.worker = w.key
            {words.then} {words.each} ON true
            {words.then} routilux_messages AS m ON m.worker = p.worker AND m.seq = {words.seq}
            WHERE {live} AND p.reason <> 'dead' AND m.status = 'parked'
            UNION ALL
            SELECT w.flow, w.worker_id, s.routine, s.slot, 0, NULL, 0
            FROM routilux_workers AS w {words.then} routilux_slots AS s ON s.worker = w.key
            WHERE {live}
        ) AS parts
        GROUP BY flow_id, worker_id, routine_id, slot"""


def _dead_letters(words: Words) -> str:
    batch = f"FROM {words.each} JOIN routilux_messages AS m ON m.worker = p.worker AND m.seq = {words.seq}"
    return f"""
        SELECT w.worker_id, w.flow AS flow_id, j.job_id, p.seq AS message, p.routine AS routine_id,
            {words.joined("DISTINCT m.slot", "m.slot", batch)} AS slot,
            '[' || {words.joined("m.payload", "s.key", batch)} || ']' AS payload,
            p.attempt AS attempts, p.deaths, p.error_type, p.error, {words.time("p.parked_at")} AS dead_since
        FROM routilux_parked AS p
        JOIN routilux_workers AS w ON w.key = p.worker
        LEFT JOIN routilux_jobs AS j ON j.worker = p.worker AND j.job = p.job
        WHERE p.reason = 'dead'"""


def _lineage(words: Words) -> str:
    return f"""
        SELECT w.worker_id, w.flow AS flow_id, j.job_id, m.seq AS message, m.routine AS routine_id,
            m.slot, m.status, m.produced_by, p.routine AS produced_by_routine, m.consumed_by, c.routine AS
            consumed_by_routine, m.payload, {words.time("m.created_at")} AS created_at
        FROM routilux_messages AS m
        JOIN routilux_workers AS w ON w.key = m.worker
        LEFT JOIN routilux_jobs AS j ON j.worker = m.worker AND j.job = m.job
        LEFT JOIN routilux_activations AS p ON p.worker = m.worker AND p.n = m.produced_by
        LEFT JOIN routilux_activations AS c ON c.worker = m.worker AND c.n = m.consumed_by"""


VIEWS = {
    "job_history": _job_history,
    "activation_history": _activation_history,
    "queue_depth": _queue_depth,
    "dead_letters": _dead_letters,
    "lineage": _lineage,
}
