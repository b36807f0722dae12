"""Reads of the engine: which rows wait in the inbox, and who owns their workers."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

_FIND = text(
    "SELECT i.id, i.flow, i.worker_id, i.job_id, w.key, w.owner, r.state AS owner_state, w.status"
    " FROM routilux_inbox AS i"
    " LEFT JOIN routilux_workers AS w ON w.worker_id = i.worker_id"
    " LEFT JOIN routilux_runtimes AS r ON r.key = w.owner"
    " ORDER BY i.id LIMIT :most"
)


class FoundRow(NamedTuple):
    """An inbox row without its body.

    The last four fields are None if the row names no worker, or one that is unknown.
    """

    id: int
    flow: str
    worker_id: str | None
    job_id: str | None
    key: int | None
    owner: int | None
    owner_state: str | None
    status: str | None


def find(connection: Connection, most: int) -> list[FoundRow]:
    """The oldest rows of the inbox, for all workers, at most `most`."""
    return [FoundRow._make(row) for row in connection.execute(_FIND, {"most": most})]
