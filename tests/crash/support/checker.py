"""Was everything done, once?

Plain SQL over Routilux's tables and the user's; nothing of the engine is imported.

    python -m tests.crash.support.checker URL PARTS < acknowledged-ids

It prints what is wrong and exits with 1, or prints nothing.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

Connection = Any  # of sqlite3 or psycopg


def connect(url: str) -> Connection:
    if url.startswith("sqlite:///"):
        return sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)
    import psycopg

    return psycopg.connect(url.replace("postgresql+psycopg", "postgresql"))


def faults(url: str, acknowledged: set[str], parts: int, *, is_exact: bool = True) -> list[str]:
    """Everything that is wrong, worded. `is_exact`: no job may be there that was not acknowledged."""
    with closing(connect(url)) as connection:
        return faults_in(connection, acknowledged, parts, is_exact=is_exact)


def faults_in(
    connection: Connection, acknowledged: set[str], parts: int, *, is_exact: bool = True
) -> list[str]:
    """The same, seen in a transaction of the caller."""

    def rows(sql: str) -> list[tuple[Any, ...]]:
        return list(connection.execute(sql).fetchall())

    return [
        *_jobs(rows, acknowledged, parts, is_exact),
        *_messages(rows, parts),
        *_activations(rows),
        *_effects(rows, parts),
        *_states(rows),
        *_left_over(rows),
    ]


Rows = Callable[[str], list[tuple[Any, ...]]]


def _jobs(rows: Rows, acknowledged: set[str], parts: int, is_exact: bool) -> list[str]:
    found = {
        job_id: rest
        for job_id, *rest in rows("SELECT job_id, status, open_count, data, error FROM routilux_jobs")
    }
    wrong = [
        f"job {job_id} was acknowledged and is not there" for job_id in sorted(acknowledged - found.keys())
    ]
    if is_exact:
        wrong += [
            f"job {job_id} is there and was never acknowledged"
            for job_id in sorted(found.keys() - acknowledged)
        ]
    for job_id, (status, open_count, data, error) in found.items():
        if status != "completed" or open_count != 0:
            wrong.append(f"job {job_id} is {status} with {open_count} messages open: {error}")
        elif json.loads(data or "{}").get("parts") not in (parts, str(parts)):
            wrong.append(f"job {job_id} has counted {data}, not {parts} parts")
    return wrong


def _messages(rows: Rows, parts: int) -> list[str]:
    wrong = [
        f"message {seq} of worker {worker} is {status}"
        for worker, seq, status in rows(
            "SELECT worker, seq, status FROM routilux_messages WHERE status <> 'consumed'"
        )
    ]
    counted = rows(
        "SELECT j.job_id, m.routine, count(*), count(DISTINCT m.payload) FROM routilux_jobs AS j LEFT JOIN"
        " routilux_messages AS m ON m.worker = j.worker AND m.job = j.job GROUP BY j.job_id, m.routine",
    )
    expected = {"split": 1, "work": parts, "store": parts}
    for job_id, routine, count, different in counted:
        if expected.get(routine) != count or count != different:
            wrong.append(f"job {job_id} has {count} messages, {different} of them different, at {routine}")
    if len(counted) != 3 * len({job_id for job_id, *_ in counted}):
        wrong.append("a job has no message at one of its routines")
    return wrong


def _activations(rows: Rows) -> list[str]:
    """A consumed message has one completed activation that lists it, and the other way round;
    lines are kept.
    """
    consumed = {
        (worker, seq): by
        for worker, seq, by in rows(
            "SELECT worker, seq, consumed_by FROM routilux_messages WHERE status = 'consumed'"
        )
    }
    wrong, listed = [], Counter[tuple[int, int]]()
    last: dict[tuple[int, str], int] = {}
    completed = (
        "SELECT worker, n, routine, seqs FROM routilux_activations WHERE status = 'completed' ORDER BY"
        " worker, n"
    )
    for worker, n, routine, seqs in rows(completed):
        for seq in map(int, seqs.split(",")):
            listed[worker, seq] += 1
            if consumed.get((worker, seq)) != n:
                wrong.append(
                    f"activation {n} of worker {worker} completed over message {seq}, which it did not"
                    " consume"
                )
            if routine != "work":  # what was retried comes back at the end of the line
                if seq <= last.get((worker, routine), -1):
                    wrong.append(f"message {seq} of worker {worker} was overtaken at {routine}")
                last[worker, routine] = seq
    for key in consumed:
        if listed[key] != 1:
            wrong.append(
                f"message {key[1]} of worker {key[0]} was consumed by {listed[key]} completed activations"
            )
    return wrong


def _effects(rows: Rows, parts: int) -> list[str]:
    """The user's rows: one for each part of each job, in the order of the activations that wrote them, and no
    other.
    """
    wrong = []
    stored = rows("SELECT job_id, part, count(*) FROM orders GROUP BY job_id, part")
    made = {(job_id, part): count for job_id, part, count in stored}
    for (job_id,) in rows("SELECT job_id FROM routilux_jobs WHERE status = 'completed'"):
        for part in range(parts):
            if made.pop((job_id, part), 0) != 1:
                wrong.append(f"part {part} of job {job_id} is not there exactly once")
    wrong += [
        f"{count} rows of part {part} of {job_id}, a job that is not completed"
        for (job_id, part), count in made.items()
    ]
    done = rows(
        "SELECT w.worker_id, j.job_id, m.payload FROM routilux_activations AS a"
        " JOIN routilux_messages AS m ON m.worker = a.worker AND m.consumed_by = a.n"
        " JOIN routilux_jobs AS j ON j.worker = m.worker AND j.job = m.job"
        " JOIN routilux_workers AS w ON w.key = a.worker"
        " WHERE a.routine = 'store' AND a.status = 'completed' ORDER BY w.worker_id, a.n",
    )
    places = Counter[str]()
    expected = []
    for worker_id, job_id, text in done:
        places[worker_id] += 1
        item = json.loads(text)
        expected.append((worker_id, places[worker_id], job_id, item["part"], item["amount"]))
    there = rows("SELECT worker_id, place, job_id, part, amount FROM orders ORDER BY worker_id, place, id")
    wrong += [
        f"{row} is in orders and no activation wrote it" for row in there if tuple(row) not in set(expected)
    ]
    wrong += [
        f"{row} was written and is not in orders" for row in expected if row not in set(map(tuple, there))
    ]
    return wrong


def _states(rows: Rows) -> list[str]:
    counters = {
        (worker, routine): int(json.loads(value))
        for worker, routine, value in rows(
            "SELECT worker, routine, value FROM routilux_worker_state WHERE key = 'n'"
        )
    }
    completed = rows(
        "SELECT worker, routine, count(*) FROM routilux_activations WHERE status = 'completed' GROUP BY"
        " worker, routine"
    )
    done = {(worker, routine): count for worker, routine, count in completed}
    return [
        f"{routine} of worker {worker} has counted {counters.get((worker, routine), 0)} activations,"
        f" {count} have completed"
        for (worker, routine), count in {**dict.fromkeys(counters, 0), **done}.items()
        if counters.get((worker, routine), 0) != count
    ]


def _left_over(rows: Rows) -> list[str]:
    tables = {"parked": "parked", "inbox": "in the inbox"}
    counts = {words: rows(f"SELECT count(*) FROM routilux_{table}")[0][0] for table, words in tables.items()}
    return [f"{count} rows are still {words}" for words, count in counts.items() if count]


if __name__ == "__main__":
    found = faults(sys.argv[1], set(sys.stdin.read().split()), int(sys.argv[2]))
    print("\n".join(found))
    sys.exit(bool(found))
