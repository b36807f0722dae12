"""What is committed of a job or a worker, in the form that handles and logic return it."""

from __future__ import annotations

from typing import Any

from routilux.core import payload
from routilux.store.reads import history
from routilux.store.writes.store import Store


def traces(store: Store, job_id: str) -> list[dict[str, Any]]:
    """The committed trace lines of a job, oldest first."""
    with store.read() as connection:
        return [
            {
                "timestamp": line.at.timestamp(),
                "routine_id": line.routine_id,
                "action": line.action,
                "details": None if line.details is None else payload.decode(line.details),
            }
            for line in history.traces(connection, job_id)
            if line.kind == "trace"
        ]


def execution_history(store: Store, worker_id: str, routine_id: str | None) -> list[dict[str, Any]]:
    """The last activations of a worker, oldest first."""
    with store.read() as connection:
        rows = history.activations(connection, worker_id, routine=routine_id, limit=1000)[::-1]
    return [
        {
            "routine_id": row.routine_id,
            "job_id": row.job_id,
            "attempt": row.attempt,
            "status": row.status,
            "started_at": row.started_at.timestamp(),
            "ended_at": row.ended_at.timestamp(),
            "error": row.error,
        }
        for row in rows
    ]
