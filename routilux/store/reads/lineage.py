"""The causes and the effects of a message: recursive queries over the views, for people to copy.

Both take `:worker_id` and `:message`, and return that message, too. They use the indexes: backward, over the
list of messages that an activation consumed; forward, over the messages of the activation's job. (A join on
`produced_by` or `consumed_by` alone would read the whole table at each step: those columns have no index, see
docs/decisions.)
"""

from __future__ import annotations

from sqlalchemy import Connection, Row, text

_BACKWARD = """
WITH RECURSIVE cause(worker_id, message, produced_by) AS (
    SELECT worker_id, message, produced_by FROM routilux_lineage
    WHERE worker_id = :worker_id AND message = :message
  UNION
    SELECT l.worker_id, l.message, l.produced_by
    FROM cause AS x
    {then} routilux_activation_history AS a ON a.worker_id = x.worker_id AND a.activation = x.produced_by
    {then} {messages_of_a} AS s ON true
    {then} routilux_lineage AS l ON l.worker_id = x.worker_id AND l.message = {number}
)
SELECT l.* FROM cause AS x
JOIN routilux_lineage AS l ON l.worker_id = x.worker_id AND l.message = x.message
ORDER BY l.message
"""

CAUSES = {
    # CROSS JOIN keeps the order: otherwise SQLite would read all messages of the worker before the list
    "sqlite": _BACKWARD.format(then="CROSS JOIN", messages_of_a="json_each(a.messages)", number="s.value"),
    "postgresql": _BACKWARD.format(
        then="JOIN",
        messages_of_a="jsonb_array_elements_text(CAST(a.messages AS jsonb))",
        number="CAST(s.value AS bigint)",
    ),
}

_FORWARD = """
WITH RECURSIVE effect(worker_id, message, consumed_by) AS (
    SELECT worker_id, message, consumed_by FROM routilux_lineage
    WHERE worker_id = :worker_id AND message = :message
  UNION
    SELECT l.worker_id, l.message, l.consumed_by
    FROM effect AS x
    JOIN routilux_activation_history AS a ON a.worker_id = x.worker_id AND a.activation = x.consumed_by
    JOIN {messages_of_job}
)
SELECT l.* FROM effect AS x
JOIN routilux_lineage AS l ON l.worker_id = x.worker_id AND l.message = x.message
ORDER BY l.message
"""

EFFECTS = {
    "sqlite": _FORWARD.format(
        messages_of_job="routilux_lineage AS l ON l.job_id = a.job_id AND l.produced_by = x.consumed_by"
    ),
    # OFFSET 0 keeps this one subquery per activation: otherwise Postgres hashes all messages to join them
    "postgresql": _FORWARD.format(
        messages_of_job="LATERAL (SELECT * FROM routilux_lineage AS m"
        " WHERE m.job_id = a.job_id AND m.produced_by = x.consumed_by OFFSET 0) AS l ON true"
    ),
}


def causes(connection: Connection, worker_id: str, message: int) -> list[Row[tuple[object, ...]]]:
    """Rows of `routilux_lineage`: the message and all its causes, oldest first."""
    query = text(CAUSES[connection.dialect.name])
    return list(connection.execute(query, {"worker_id": worker_id, "message": message}))


def effects(connection: Connection, worker_id: str, message: int) -> list[Row[tuple[object, ...]]]:
    """Rows of `routilux_lineage`: the message and all its effects, oldest first."""
    query = text(EFFECTS[connection.dialect.name])
    return list(connection.execute(query, {"worker_id": worker_id, "message": message}))
