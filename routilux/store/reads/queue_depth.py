"""How many messages wait: in one slot, to refuse a post to a full one; by slot, for people, from the view."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
from sqlalchemy import Connection, column, select, table, text

from routilux.store.records import QueueDepth

_WAITING_ABOUT = text(
    "SELECT coalesce((SELECT s.waiting FROM routilux_slots AS s JOIN routilux_workers AS w"
    " ON w.key = s.worker"
    " WHERE w.worker_id = :worker AND s.routine = :routine AND s.slot = :slot), 0)"
    " + (SELECT count(*) FROM routilux_inbox WHERE kind = 'post' AND flow = :flow"
    " AND coalesce(worker_id, :worker) = :worker AND body LIKE :body ESCAPE '!')"
)


def waiting_about(connection: Connection, names: tuple[str, str, str], worker_id: str | None) -> int:
    """The slot's counter, which is about a second old, plus the posts for the slot in the inbox."""
    flow, routine, slot = names
    start = orjson.dumps({"routine": routine, "slot": slot}).decode().removesuffix("}")
    for wild in "!%_":
        start = start.replace(wild, "!" + wild)
    row = {"worker": worker_id or "", "flow": flow, "routine": routine, "slot": slot, "body": f"{start},%"}
    return connection.execute(_WAITING_ABOUT, row).scalar() or 0


_DEPTH = table(
    "routilux_queue_depth",
    *map(column, ("flow_id", "worker_id", "routine_id", "slot", "waiting", "oldest_waiting_at", "parked")),
)


def queue_depth(connection: Connection, worker_id: str | None = None) -> list[QueueDepth]:
    """Waiting and parked messages by slot, of one worker or of all workers that have not ended."""
    query = select(_DEPTH).order_by(_DEPTH.c.worker_id, _DEPTH.c.routine_id, _DEPTH.c.slot)
    if worker_id is not None:
        query = query.where(_DEPTH.c.worker_id == worker_id)
    return [
        QueueDepth(
            r.flow_id, r.worker_id, r.routine_id, r.slot, r.waiting, _view_time(r.oldest_waiting_at), r.parked
        )
        for r in connection.execute(query)
    ]


def _view_time(value: datetime | str | None) -> datetime | None:
    if isinstance(value, str):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return None if value is None else value.astimezone(UTC)
