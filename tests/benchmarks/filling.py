"""Databases that have grown: one worker with a history of finished jobs and a line of waiting messages, made
by SQL.

The rows are those that Routilux would have left: a job, a message and an activation for each finished job, a
job and a message for each that waits, ids that sort by age, and the counters of the slot.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable

import psycopg
from sqlalchemy import make_url

from tests.benchmarks.bench import Bench

WORKER = "grown"
FLOW = "one_stage"
AT_ONCE = 250_000
DAY_US = 86_400_000_000
_BODY = "x" * 130
_NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n <"
    " {last}) ",
    "postgresql": "WITH numbers(n) AS (SELECT generate_series(CAST({first} AS bigint), {last})) ",
}
_JOB_ID = {"sqlite": "printf('%036d', n)", "postgresql": "lpad(CAST(n AS text), 36, '0')"}
_PAYLOAD = (
    """'{"id":' || CAST(n AS text) || ',"kind":"order.created","ts":0,"body":""" + f'"{_BODY}"' + """}'"""
)
_HISTORY = (
    "INSERT INTO routilux_jobs (worker, job, job_id, flow, status, open_count, created_at, started_at,"
    " ended_at) {numbers}SELECT 1, n, {job_id}, '{flow}', 'completed', 0, {at} + n, {at} + n + 900, {at} +"
    " n + 1000 FROM numbers",
    "INSERT INTO routilux_messages (worker, seq, job, routine, slot, payload, consumed_by, status,"
    " created_at) {numbers}SELECT 1, n, n, 'only', 'input', {payload}, n, 'consumed', {at} + n FROM numbers",
    "INSERT INTO routilux_activations (worker, n, job, routine, attempt, status, started_at, ended_at, seqs)"
    " {numbers}SELECT 1, n, n, 'only', 1, 'completed', {at} + n + 900, {at} + n + 1000, CAST(n AS text)"
    " FROM numbers",
)
_WAITING = (
    "INSERT INTO routilux_jobs (worker, job, job_id, flow, status, open_count, created_at)"
    " {numbers}SELECT 1, n, {job_id}, '{flow}', 'pending', 1, {at} + n FROM numbers",
    "INSERT INTO routilux_messages (worker, seq, job, routine, slot, payload, status, created_at)"
    " {numbers}SELECT 1, n, n, 'only', 'input', {payload}, 'waiting', {at} + n FROM numbers",
)
_SETTLED = (
    "DELETE FROM routilux_workers WHERE key = 1",
    "INSERT INTO routilux_workers (key, worker_id, flow, definition, status, is_named, next_seq, next_n,"
    " deaths, created_at) VALUES (1, '{worker}', '{flow}', '', 'running', 1, {top} + 1, {top} + 1, 0, {at})",
    "DELETE FROM routilux_slots WHERE worker = 1",
    "INSERT INTO routilux_slots (worker, routine, slot, waiting, low_seq, refreshed_at)"
    " VALUES (1, 'only', 'input', {waiting}, {top} - {waiting} + 1, {at})",
)


def grown(bench: Bench, kind: str, history: int, waiting: int) -> str:
    """The URL of such a database: made once in each run of the suite, out of one without waiting messages if
    there is.
    """
    key = ("grown", kind, history, waiting)
    if key not in bench.kept:
        begun = time.monotonic()
        url = bench.kept.pop(("grown", kind, history, 0), None)
        top = 0
        if url is None:
            url = bench.kept_database(kind)
            top = fill(url, history, 0)
        if waiting:
            top = fill(url, 0, waiting)
        bench.kept[key] = url
        print(
            f"    filled {kind} with {history:,} finished and {waiting:,} waiting jobs, up to number {top:,},"
            f" in {time.monotonic() - begun:.0f} s",
            flush=True,
        )
    return str(bench.kept[key])


def fill(url: str, history: int, waiting: int) -> int:
    """Add rows behind those that are there; returns the last number.

    No runtime may be alive on the database.
    """
    dialect = make_url(url).get_backend_name()
    with contextlib.closing(_Driver(url)) as driver:
        top = driver.number("SELECT coalesce(max(seq), 0) FROM routilux_messages WHERE worker = 1")
        shared = {"job_id": _JOB_ID[dialect], "payload": _PAYLOAD, "flow": FLOW, "worker": WORKER}
        shared["at"] = str(time.time_ns() // 1000 - DAY_US)
        for statements, count in ((_HISTORY, history), (_WAITING, waiting)):
            for start in range(top, top + count, AT_ONCE):
                limits = {"first": start + 1, "last": min(top + count, start + AT_ONCE)}
                numbers = _NUMBERS[dialect].format(**limits)
                driver.together([text.format(numbers=numbers, **shared) for text in statements])
            top += count
        waits = driver.number(
            "SELECT coalesce((SELECT sum(waiting) FROM routilux_slots WHERE worker = 1), 0)"
        )
        values = {**shared, "top": top, "waiting": waits + waiting}
        driver.together([text.format(**values) for text in _SETTLED])
        driver.settle()
    return top


class _Driver:
    """Plain statements on either database, fast: what is lost here is filled again."""

    def __init__(self, url: str) -> None:
        self._run: Callable[[str], object]
        self._is_sqlite = url.startswith("sqlite")
        if self._is_sqlite:
            self._sqlite = sqlite3.connect(str(make_url(url).database), isolation_level=None)
            self._run = self._sqlite.execute
            for pragma in ("synchronous = OFF", "cache_size = -262144"):
                self._run(f"PRAGMA {pragma}")
        else:
            plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
            self._postgres = psycopg.connect(plain, autocommit=True)
            self._run = self._postgres.execute
            self._run("SET synchronous_commit = off")

    def number(self, query: str) -> int:
        connection = self._sqlite if self._is_sqlite else self._postgres
        row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def together(self, statements: list[str]) -> None:
        self._run("BEGIN")
        for statement in statements:
            self._run(statement)
        self._run("COMMIT")

    def settle(self) -> None:
        """What autovacuum and checkpoints would have done by then, and not during the measurement."""
        for statement in (
            ["PRAGMA wal_checkpoint(TRUNCATE)"] if self._is_sqlite else ["VACUUM ANALYZE", "CHECKPOINT"]
        ):
            self._run(statement)

    def close(self) -> None:
        (self._sqlite if self._is_sqlite else self._postgres).close()
