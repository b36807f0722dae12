"""Reads of the engine: a worker with its waiting messages, the next window of a slot, what is due.

Every read is bounded by its arguments. Reads happen at start, at take-over, when a window moves on, and when
something is due. The steady state reads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, TextClause, bindparam, exists, func, or_, select, text, update

from routilux.core.states import ParkedReason
from routilux.store.backends.postgres_connection import ALONG_KEYS
from routilux.store.storable import is_storable
from routilux.store.tables import activations, jobs, messages, parked, slots, worker_state, workers


@dataclass(frozen=True, slots=True)
class StoredWorker:
    key: int
    worker_id: str
    flow: str
    status: str
    owner: int | None
    is_named: bool
    next_seq: int
    next_n: int
    deaths: int
    definition: str


_WORKER_COLUMNS = (
    workers.c.key,
    workers.c.worker_id,
    workers.c.flow,
    workers.c.status,
    workers.c.owner,
    workers.c.is_named,
    workers.c.next_seq,
    workers.c.next_n,
    workers.c.deaths,
    workers.c.definition,
)


def _stored(row: Any) -> StoredWorker | None:
    if row is None:
        return None
    return StoredWorker(
        row.key,
        row.worker_id,
        row.flow,
        row.status,
        row.owner,
        bool(row.is_named),
        row.next_seq,
        row.next_n,
        row.deaths,
        row.definition,
    )


def along_keys(connection: Connection) -> None:
    """Postgres: the reads that follow in this transaction use the indexes of the keys."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(ALONG_KEYS)


def worker_named(connection: Connection, worker_id: str) -> StoredWorker | None:
    if not is_storable(worker_id):
        return None
    return _stored(
        connection.execute(select(*_WORKER_COLUMNS).where(workers.c.worker_id == worker_id)).first()
    )


def worker_with_key(connection: Connection, key: int) -> StoredWorker | None:
    return _stored(connection.execute(select(*_WORKER_COLUMNS).where(workers.c.key == key)).first())


def state_of(connection: Connection, worker: int) -> dict[str, dict[str, str]]:
    """routine -> key -> JSON text. The marker row of an empty state gives the routine an empty dict."""
    states: dict[str, dict[str, str]] = {}
    rows = connection.execute(
        select(worker_state.c.routine, worker_state.c.key, worker_state.c.value).where(
            worker_state.c.worker == worker
        )
    )
    for routine, key, value in rows:
        texts = states.setdefault(routine, {})
        if value != "":
            texts[key] = value
    return states


def next_numbers(connection: Connection, worker: StoredWorker) -> tuple[int, int]:
    """The next free seq and activation number: above every row and not below the stored lower bounds."""
    top = (
        connection.execute(select(func.max(messages.c.seq)).where(messages.c.worker == worker.key)).scalar()
        or 0
    )
    line = (
        connection.execute(select(func.max(parked.c.line)).where(parked.c.worker == worker.key)).scalar() or 0
    )
    last = (
        connection.execute(
            select(func.max(activations.c.n)).where(activations.c.worker == worker.key)
        ).scalar()
        or 0
    )
    return max(worker.next_seq, top + 1, line + 1), max(worker.next_n, last + 1)


class SlotCounters(NamedTuple):
    low_seq: int
    last_fired_at: int | None
    waiting: int


def slot_counters(connection: Connection, worker: int) -> dict[tuple[str, str], SlotCounters]:
    """(routine, slot) -> its counters as they were last written."""
    columns = (slots.c.routine, slots.c.slot, slots.c.low_seq, slots.c.last_fired_at, slots.c.waiting)
    rows = connection.execute(select(*columns).where(slots.c.worker == worker))
    return {(routine, slot): SlotCounters(*counted) for routine, slot, *counted in rows}


def waiting_counts(connection: Connection, worker: int, low_seq: int) -> dict[tuple[str, str], int]:
    """(routine, slot) -> how many messages wait, from `low_seq` on."""
    rows = connection.execute(
        select(messages.c.routine, messages.c.slot, func.count())
        .where(messages.c.worker == worker, messages.c.seq >= low_seq, messages.c.status == "waiting")
        .group_by(messages.c.routine, messages.c.slot)
    )
    return {(routine, slot): count for routine, slot, count in rows}


_WINDOW = (
    select(
        messages.c.seq,
        messages.c.job,
        messages.c.slot,
        messages.c.payload,
        messages.c.created_at,
        messages.c.produced_by,
    )
    .where(
        messages.c.worker == bindparam("worker"),
        messages.c.seq > bindparam("after"),
        messages.c.routine == bindparam("routine"),
        messages.c.slot == bindparam("slot"),
        messages.c.status == "waiting",
    )
    .order_by(messages.c.seq)
    .limit(bindparam("most"))
)


def window(
    connection: Connection, worker: int, routine: str, slot: str, after: int, most: int, most_bytes: int
) -> list[Any]:
    """The first waiting messages of a slot with seq above `after`.

    At least one if there is any, then more up to `most` messages or about `most_bytes` bytes of payload.
    """
    query = {"worker": worker, "after": after, "routine": routine, "slot": slot, "most": most}
    rows, held = [], 0
    for part in connection.execute(_WINDOW, query).partitions(64):  # one row at a time costs twice as much
        for row in part:
            rows.append(row)
            held += len(row[3])
            if held > most_bytes:
                return rows
    return rows


# The columns that make a live job record, in this order.
LIVE_JOB = (
    "job", "job_id", "flow", "status", "open_count", "metadata", "data", "routine_status", "result", "error",
    "created_at", "started_at", "ended_at", "active_us",
)  # fmt: skip  # the columns of a table, a few to a line
_LIVE_JOB = ", ".join(LIVE_JOB)


def _select_by_number(columns: str, table: str, number: str, rest: str = "") -> dict[str, TextClause]:
    """Rows of a worker by their numbers. `:rows` is a JSON list of [worker, number].

    On Postgres the worker must come from the list, too. If it is a constant and newer than the statistics of
    the table, the planner reads all of its rows for each number (measured: 130 µs a row instead of 10).
    """
    return {
        "sqlite": text(
            f"SELECT {columns} FROM {table} WHERE worker = :worker AND {number} IN"
            f" (SELECT json_extract(value, '$[1]') FROM json_each(:rows)){rest}"
        ),
        "postgresql": text(
            f"SELECT {columns} FROM (SELECT CAST(v ->> 0 AS bigint) AS of, CAST(v ->> 1 AS bigint) AS number"
            f" FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r(v)) AS n JOIN {table}"
            f" ON worker = n.of AND {number} = n.number{rest}"
        ),
    }


_JOBS_OF = _select_by_number(_LIVE_JOB, "routilux_jobs", "job")
_MESSAGES_OF = _select_by_number(
    "seq, job, slot, payload, created_at, produced_by",
    "routilux_messages",
    "seq",
    " AND status = :status ORDER BY seq",
)


def _number_rows(connection: Connection, worker: int, numbers: Sequence[int]) -> dict[str, object]:
    rows: dict[str, object] = {"rows": orjson.dumps([(worker, number) for number in numbers]).decode()}
    return rows | {"worker": worker} if connection.dialect.name == "sqlite" else rows


def messages_with(connection: Connection, worker: int, seqs: Sequence[int], status: str) -> list[Any]:
    """Those of these messages that have this status, ordered by seq."""
    values = {**_number_rows(connection, worker, seqs), "status": status}
    return list(connection.execute(_MESSAGES_OF[connection.dialect.name], values).all())


def jobs_with(connection: Connection, worker: int, numbers: Sequence[int]) -> list[Any]:
    """Job rows by number."""
    values = _number_rows(connection, worker, numbers)
    return list(connection.execute(_JOBS_OF[connection.dialect.name], values).all())


def job_with_id(connection: Connection, job_id: str) -> Any:
    """A row of `LIVE_JOB` and the key of its worker."""
    columns = [jobs.c[name] for name in LIVE_JOB]
    return connection.execute(select(*columns, jobs.c.worker).where(jobs.c.job_id == job_id)).first()


def texts_of(column: str | None) -> dict[str, str]:
    """A JSON object column as key -> JSON text."""
    if column is None:
        return {}
    return {key: orjson.dumps(value).decode() for key, value in orjson.loads(column).items()}


def text_of(texts: dict[str, str]) -> str | None:
    """key -> JSON text as one JSON object. Returns None if empty."""
    if not texts:
        return None
    return "{" + ",".join(f"{orjson.dumps(key).decode()}:{value}" for key, value in texts.items()) + "}"


def unroutable(
    connection: Connection, worker: int, low_seq: int, routine: str, slot: str, most: int
) -> list[Any]:
    """Waiting messages of a slot that the definition no longer has."""
    return window(connection, worker, routine, slot, low_seq - 1, most, 1 << 30)


_SET_OWNER = (
    update(workers).where(workers.c.key == bindparam("worker_key")).values(owner=bindparam("new_owner"))
)


def set_owner(connection: Connection, key: int, owner: int | None) -> None:
    connection.execute(_SET_OWNER, {"worker_key": key, "new_owner": owner})


_LIVE_WORKER = text(
    "SELECT worker_id FROM routilux_workers WHERE flow = :flow"
    " AND status NOT IN ('completed', 'failed', 'cancelled') ORDER BY key DESC LIMIT 1"
)


def newest_live_worker(connection: Connection, flow: str) -> str | None:
    """Public id of the newest worker of a flow that has not ended."""
    return connection.execute(_LIVE_WORKER, {"flow": flow}).scalar()


_NOT_DEAD = [reason for reason in ParkedReason if reason != ParkedReason.DEAD]


def has_work(connection: Connection, worker_ids: Sequence[str]) -> bool:
    """Whether anything waits, runs or is parked in these workers. Dead letters do not count."""
    lowest = select(func.coalesce(func.min(slots.c.low_seq), 0)).where(slots.c.worker == workers.c.key)
    waits = exists().where(
        messages.c.worker == workers.c.key,
        messages.c.seq >= lowest.scalar_subquery(),
        messages.c.status == "waiting",
    )
    is_parked = exists().where(parked.c.worker == workers.c.key, parked.c.reason.in_(_NOT_DEAD))
    query = select(workers.c.key).where(workers.c.worker_id.in_(worker_ids), or_(waits, is_parked)).limit(1)
    return connection.execute(query).first() is not None
