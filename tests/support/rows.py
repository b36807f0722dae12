"""Rows made directly, for tests that read: each function inserts one row and returns its key."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Connection, Table, insert

from routilux.store import tables

T0 = 1_700_000_000_000_000  # 2023-11-14 22:13:20 UTC
SECOND = 1_000_000
DAY = 86_400 * SECOND


def runtime(connection: Connection, **columns: Any) -> int:
    row = {
        "boot_id": f"boot-{columns.get('key', 1)}",
        "state": "alive",
        "lease_until": T0,
        "host_boot": "b",
        "lease_us": 9 * SECOND,
        "started_at": T0,
        "heartbeat_at": T0,
        "host": "h",
        "pid": 1,
        "version": "0",
    }
    return _insert(connection, tables.runtimes, row | columns)


def commit(connection: Connection, runtime: int, n: int, **columns: Any) -> None:
    row = {"runtime": runtime, "n": n, "in_flight": "[]", "committed_at": T0}
    _insert(connection, tables.commits, row | columns)


def inbox_post(connection: Connection, job_id: str | None, **columns: Any) -> int:
    row = {"kind": "post", "flow": "f", "job_id": job_id, "body": "{}", "created_at": T0}
    return _insert(connection, tables.inbox, row | columns)


def worker(connection: Connection, worker_id: str = "w", **columns: Any) -> int:
    row = {
        "worker_id": worker_id,
        "flow": "f",
        "definition": "d",
        "status": "running",
        "is_named": 1,
        "next_seq": 1,
        "next_n": 1,
        "deaths": 0,
        "created_at": T0,
    }
    return _insert(connection, tables.workers, row | columns)


def slot(connection: Connection, worker: int, routine: str = "r", slot: str = "in", **columns: Any) -> None:
    row = {"worker": worker, "routine": routine, "slot": slot, "waiting": 0, "low_seq": 0, "refreshed_at": T0}
    _insert(connection, tables.slots, row | columns)


def job(connection: Connection, worker: int, job: int, **columns: Any) -> int:
    """An ended job unless told otherwise: accepted at `T0` + its number in µs, ended a second later."""
    at = T0 + job
    row = {
        "worker": worker,
        "job": job,
        "job_id": f"job-{worker}-{job}",
        "flow": "f",
        "status": "completed",
        "open_count": 0,
        "created_at": at,
        "started_at": at,
        "ended_at": at + SECOND,
    }
    _insert(connection, tables.jobs, row | columns)
    return job


def message(connection: Connection, worker: int, seq: int, job: int, **columns: Any) -> int:
    row = {
        "worker": worker,
        "seq": seq,
        "job": job,
        "routine": "r",
        "slot": "in",
        "payload": f'{{"n":{seq}}}',
        "status": "waiting",
        "created_at": T0 + seq,
    }
    _insert(connection, tables.messages, row | columns)
    return seq


def parked(connection: Connection, worker: int, seqs: list[int], job: int, **columns: Any) -> int:
    row = {
        "worker": worker,
        "seq": seqs[0],
        "job": job,
        "routine": "r",
        "reason": "retry",
        "seqs": orjson.dumps(seqs).decode(),
        "attempt": 1,
        "deaths": 0,
        "parked_at": T0,
    }
    _insert(connection, tables.parked, row | columns)
    return seqs[0]


def activation(connection: Connection, worker: int, n: int, job: int, seqs: list[int], **columns: Any) -> int:
    row = {
        "worker": worker,
        "n": n,
        "job": job,
        "routine": "r",
        "attempt": 1,
        "status": "completed",
        "started_at": T0,
        "ended_at": T0 + SECOND // 2,
        "seqs": ",".join(map(str, seqs)),
    }
    _insert(connection, tables.activations, row | columns)
    return n


def trace(connection: Connection, worker: int, n: int, i: int, job: int, **columns: Any) -> None:
    row = {
        "worker": worker,
        "n": n,
        "i": i,
        "job": job,
        "kind": "trace",
        "routine": "r",
        "action": "did",
        "at": T0,
    }
    _insert(connection, tables.traces, row | columns)


def job_key(connection: Connection, job_id: str, **columns: Any) -> None:
    _insert(connection, tables.job_keys, {"job_id": job_id, "fingerprint": "x", "created_at": T0} | columns)


def _insert(connection: Connection, table: Table, row: dict[str, Any]) -> int:
    key = connection.execute(insert(table).values(**row)).inserted_primary_key
    return int(key[0]) if key and isinstance(key[0], int) else 0
