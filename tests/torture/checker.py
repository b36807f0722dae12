"""Is everything there, once, in order?

Plain SQL over Routilux's tables and the user's; nothing of Routilux is imported.

    python -m tests.torture.checker URL < acknowledged-ids

Two questions: what must hold at any commit (`at_any_commit`, also of a database torn by a power cut), and
what must hold once everything has come to rest (`at_rest`). The answer counts faults by kind, each with a few
examples.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

from tests.crash.support.checker import connect

KINDS = ("lost", "refused", "doubled", "orphaned", "out of order", "early", "state")
PARTS = 3
RETRY_US = 200_000
EXAMPLES = 5
# routine -> how many messages a job has there; own table -> rows of a job
MESSAGES = {"intake": 1, "work": PARTS, "store": PARTS, "batch": PARTS, "join": 2}
OWN = {"stored": ("store", range(PARTS)), "batched": ("batch", range(PARTS)), "joined": ("join", [PARTS - 1])}
ENDED = ("completed", "failed", "cancelled")

Rows = Callable[[str], list[tuple[Any, ...]]]


class Faults:
    """What is wrong, by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, what: str) -> None:
        assert kind in KINDS
        self.counts[kind] += 1
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(what)

    def __str__(self) -> str:
        return "\n".join(
            f"{kind} ({self.counts[kind]}): {'; '.join(self.examples[kind])}" for kind in self.counts
        )


def check(
    url: str,
    acknowledged: Iterable[str] = (),
    refused: Iterable[str] = (),
    *,
    is_at_rest: bool = True,
    judges_early: bool = True,
) -> Faults:
    """`acknowledged`: jobs that must be there.

    `refused`: numbers that must not. `judges_early`: the clock that says what is due was not set.
    """
    with closing(connect(url)) as connection:
        return check_in(connection, acknowledged, refused, is_at_rest=is_at_rest, judges_early=judges_early)


def check_in(
    connection: Any,
    acknowledged: Iterable[str] = (),
    refused: Iterable[str] = (),
    *,
    is_at_rest: bool = True,
    judges_early: bool = True,
) -> Faults:
    """The same, seen in a transaction of the caller."""
    faults = Faults()

    def rows(sql: str) -> list[tuple[Any, ...]]:
        return list(connection.execute(sql).fetchall())

    at_any_commit(rows, faults)
    there = {
        job_id
        for (job_id,) in rows("SELECT job_id FROM routilux_jobs UNION SELECT job_id FROM routilux_inbox")
    }
    for job_id in set(acknowledged) - there:
        faults.add("lost", f"{job_id} was acknowledged and is not there")
    for number in sorted(set(refused) & set(_numbers(rows))):
        faults.add("refused", f"the post of number {number} failed with an error, and is there")
    if judges_early:
        _early(rows, faults)
    if is_at_rest:
        at_rest(rows, faults)
    return faults


def at_any_commit(rows: Rows, faults: Faults) -> None:
    """Messages, activations, own rows and state of each worker are those of the same commits."""
    consumed = {
        (worker, seq): by
        for worker, seq, by in rows(
            "SELECT worker, seq, consumed_by FROM routilux_messages WHERE status = 'consumed'"
        )
    }
    listed: Counter[tuple[int, int]] = Counter()
    done: Counter[tuple[int, str]] = Counter()
    last: dict[tuple[int, str], int] = {}
    for worker, n, routine, seqs in rows(
        "SELECT worker, n, routine, seqs FROM routilux_activations WHERE status = 'completed' ORDER BY"
        " worker, n"
    ):
        numbers = [int(seq) for seq in seqs.split(",")]
        done[worker, routine] += len(numbers) if routine in ("store", "batch") else 1
        for seq in numbers:
            listed[worker, seq] += 1
            if consumed.get((worker, seq)) != n:
                faults.add(
                    "orphaned",
                    f"activation {n} of worker {worker} completed over message {seq}, not consumed by it",
                )
        if routine in (
            "intake",
            "store",
            "batch",
        ):  # what was retried, or waited for a partner, leaves its place
            if numbers[0] <= last.get((worker, routine), -1):
                faults.add(
                    "out of order", f"message {numbers[0]} of worker {worker} was overtaken at {routine}"
                )
            last[worker, routine] = numbers[-1]
    for key in consumed:
        if listed[key] != 1:
            kind = "doubled" if listed[key] > 1 else "lost"
            faults.add(kind, f"message {key[1]} of worker {key[0]} has {listed[key]} completed activations")
    _own_rows(rows, faults)
    _states(rows, faults, done)


def _numbers(rows: Rows) -> Iterator[str]:
    """Those that were posted."""
    for (text,) in rows("SELECT payload FROM routilux_messages WHERE routine = 'intake'"):
        yield str(json.loads(text)["number"])
    for (text,) in rows("SELECT body FROM routilux_inbox WHERE kind = 'post'"):
        yield str(json.loads(json.loads(text).get("payload", "{}")).get("number"))


def _own_rows(rows: Rows, faults: Faults) -> None:
    """A row for each message that a completed activation consumed; places count up without a gap."""
    for table, (routine, _) in OWN.items():
        expected: Counter[tuple[str, str, int]] = Counter()
        for worker_id, text in rows(
            "SELECT w.worker_id, m.payload FROM routilux_messages AS m JOIN routilux_workers AS w ON w.key"
            " = m.worker"
            f" WHERE m.routine = '{routine}' AND m.status = 'consumed' AND m.slot <> 'order'"
        ):
            item = json.loads(text)
            expected[worker_id, item["job"], item["part"]] += 1
        there: Counter[tuple[str, str, int]] = Counter()
        next_place: Counter[str] = Counter()
        for worker_id, place, job_id, part in rows(
            f"SELECT worker_id, place, job_id, part FROM {table} ORDER BY worker_id, place, id"
        ):
            there[worker_id, job_id, part] += 1
            next_place[worker_id] += 1
            if place != next_place[worker_id]:
                faults.add(
                    "state",
                    f"{table}: place {place} of worker {worker_id} where {next_place[worker_id]} was due",
                )
                next_place[worker_id] = place
        for key in expected.keys() | there.keys():
            if there[key] < expected[key]:
                faults.add(
                    "lost", f"{table} has {there[key]} rows of {key}, {expected[key]} activations wrote one"
                )
            elif there[key] > expected[key]:
                faults.add(
                    "doubled",
                    f"{table} has {there[key]} rows of {key}, {expected[key]} activations wrote one",
                )


def _states(rows: Rows, faults: Faults, done: Counter[tuple[int, str]]) -> None:
    counted = {
        (worker, routine): int(json.loads(value))
        for worker, routine, value in rows(
            "SELECT worker, routine, value FROM routilux_worker_state WHERE key = 'n'"
        )
    }
    for worker, routine in counted.keys() | done.keys():
        if counted.get((worker, routine), 0) != done[worker, routine]:
            faults.add(
                "state",
                f"{routine} of worker {worker} has counted {counted.get((worker, routine), 0)} of"
                f" {done[worker, routine]}",
            )


def _early(rows: Rows, faults: Faults) -> None:
    """The next try of a batch begins no sooner than its pause after the one that failed."""
    ends: dict[tuple[int, str], tuple[int, int]] = {}
    for worker, seqs, _n, attempt, started_at, ended_at in rows(
        "SELECT worker, seqs, n, attempt, started_at, ended_at FROM routilux_activations WHERE routine ="
        " 'work' ORDER BY worker, n"
    ):
        before = ends.get((worker, seqs))
        if before is not None and attempt > before[0] and started_at < before[1] + RETRY_US:
            faults.add(
                "early",
                f"try {attempt} of {seqs} of worker {worker}: {started_at - before[1]} µs after the last",
            )
        ends[worker, seqs] = (attempt, ended_at)


def at_rest(rows: Rows, faults: Faults) -> None:
    """Nothing is left to do, and each job has done all of it."""
    for job_id, status, open_count, data, error in rows(
        "SELECT job_id, status, open_count, data, error FROM routilux_jobs"
    ):
        if status not in ENDED:
            faults.add("lost", f"{job_id} is {status} with {open_count} open")
        elif status != "completed" or open_count:
            faults.add("orphaned", f"{job_id} is {status} with {open_count} open: {error}")
        elif json.loads(data or "{}").get("stored") != PARTS:
            faults.add("state", f"{job_id} has counted {data}")
    per_job = {
        (job_id, routine): count
        for job_id, routine, count in rows(
            "SELECT j.job_id, m.routine, count(*) FROM routilux_jobs AS j JOIN routilux_messages AS m"
            " ON m.worker = j.worker AND m.job = j.job WHERE m.status = 'consumed' GROUP BY j.job_id,"
            " m.routine"
        )
    }
    for (job_id,) in rows("SELECT job_id FROM routilux_jobs WHERE status = 'completed'"):
        for routine, count in MESSAGES.items():
            found = per_job.get((job_id, routine), 0)
            if found != count:
                faults.add(
                    "lost" if found < count else "doubled", f"{job_id} has {found} messages at {routine}"
                )
    for table, (_, parts) in OWN.items():
        made = Counter(rows(f"SELECT job_id, part FROM {table}"))
        for (job_id,) in rows("SELECT job_id FROM routilux_jobs WHERE status = 'completed'"):
            for part in parts:
                if made[job_id, part] != 1:
                    kind = "doubled" if made[job_id, part] else "lost"
                    faults.add(kind, f"{table} has {made[job_id, part]} rows of part {part} of {job_id}")
    left = (
        "SELECT 'message ' || seq || ' of worker ' || worker || ' is ' || status FROM routilux_messages"
        " WHERE status <> 'consumed'"
    )
    for (what,) in rows(left):
        faults.add("orphaned", what)
    for table in ("parked", "inbox"):
        for _ in range(rows(f"SELECT count(*) FROM routilux_{table}")[0][0]):
            faults.add("orphaned", f"a row is left in routilux_{table}")


if __name__ == "__main__":
    found = check(sys.argv[1], sys.stdin.read().split())
    print(found)
    sys.exit(bool(found.counts))
