"""Acknowledged posts per second: one at a time from one thread and from eight, and in bulk."""

from __future__ import annotations

import contextlib
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Callable

import psycopg
from sqlalchemy import make_url

from routilux import Runtime
from tests.benchmarks import flows, peers, replay
from tests.benchmarks.bench import POSTGRES, SQLITE, Bench, fresh
from tests.benchmarks.figure import OURS, Figure, Metric, Role, Series, Target, Values

POSTS = 2_000
BULK = 100_000
THREADS = 8
ONE, EIGHT = "one thread", "eight threads"
ALONE = "one thread, no logic beside"
HAND_OVERS = "two hand-overs, no database"
APART_S = 100e-6  # a disk that was left alone for so long may take twice the time for the next commit
_ROW = "INSERT INTO routilux_messages (worker, seq, job, routine, slot, payload, status, created_at) VALUES "


def post(database: str, count: int, threads: int, *, runs: bool = True) -> Values:
    """One message per call; logic runs beside it, as it would, unless its worker is paused."""
    items = flows.payloads(count)
    with Runtime(database=database, registry=flows.registry(flows.one_stage())) as runtime:
        worker = runtime.exec("one_stage")
        if not runs:
            runtime.pause_worker(str(worker.worker_id))

        def some(first: int) -> None:
            for item in items[first::threads]:
                runtime.post("one_stage", "only", "input", item)

        return {"posts": count / _timed(some, threads)}


def post_alone(database: str, count: int) -> Values:
    """What the peers do: nobody works while it is posted."""
    return post(database, count, 1, runs=False)


def hand_overs(database: str, count: int) -> Values:
    """What a post costs that is given to another thread and answered at once: what CPython and the machine
    need for it.
    """
    inputs: queue.SimpleQueue[threading.Event | None] = queue.SimpleQueue()

    def answer() -> None:
        while (event := inputs.get()) is not None:
            event.set()

    def ask(_: int) -> None:
        for _ in range(count):
            event = threading.Event()
            inputs.put(event)
            event.wait()
        inputs.put(None)

    other = threading.Thread(target=answer)
    other.start()
    took = _timed(ask, 1)
    other.join()
    return {"posts": count / took}


def post_many(database: str, count: int) -> Values:
    """One call; logic runs beside it."""
    items = flows.payloads(count)
    with Runtime(database=database, registry=flows.registry(flows.one_stage())) as runtime:
        runtime.exec("one_stage")
        begun = time.perf_counter()
        runtime.post_many("one_stage", "only", "input", items)
        took = time.perf_counter() - begun
        runtime.shutdown(wait=False)
    return {"posts": count / took}


def raw_commits(database: str, count: int, apart_s: float = 0.0) -> Values:
    """One message row and one commit at a time, by the driver alone, which does something else for so long
    between them.
    """
    commit = committer(database)
    begun = time.perf_counter()
    for number in range(count):
        commit(number)
        until = time.perf_counter() + apart_s
        while time.perf_counter() < until:
            pass
    return {"posts": count / (time.perf_counter() - begun)}


def committer(database: str) -> Callable[[int], object]:
    """A function that commits one message row."""
    body = json.dumps(flows.payload(0))
    if database.startswith("sqlite"):
        raw = sqlite3.connect(str(make_url(database).database), isolation_level=None)
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute("PRAGMA wal_autocheckpoint = 4000")
        statement = _ROW + "(1, ?, ?, 'only', 'input', ?, 'waiting', 0)"
        return lambda number: raw.execute(statement, (number, number, body))
    url = make_url(database).set(drivername="postgresql").render_as_string(hide_password=False)
    cursor = psycopg.connect(url, autocommit=True).cursor()
    text = _ROW + "(1, %s, %s, 'only', 'input', %s, 'waiting', 0)"
    return lambda number: cursor.execute(text, (number, number, body), prepare=True)


def _timed(some: Callable[[int], None], threads: int) -> float:
    """Seconds until all of them are through."""
    started = [threading.Thread(target=some, args=(first,)) for first in range(threads)]
    begun = time.perf_counter()
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return time.perf_counter() - begun


def figures() -> list[Figure]:
    return [*map(_post, (SQLITE, POSTGRES)), *map(_post_many, (SQLITE, POSTGRES))]


def _post(kind: str) -> Figure:
    def ours(threads: int) -> Callable[[Bench], Values]:
        return fresh(kind, post, POSTS, threads)

    raw = fresh(kind, raw_commits, POSTS)

    limit = Series(replay.NAME[kind], raw, Role.LIMIT)
    return Figure(
        f"post.{kind.lower()}",
        "Posting",
        f"post(), {kind}",
        "Acknowledged posts of one message each, while the logic of those before runs; the peers post and"
        " nobody works, as in"
        f" `{ALONE}`; the limit commits one message row at a time on one connection, as fast as it goes, or"
        " with 0.1 ms of Python in between.",
        (Metric("posts", "posts/s"),),
        (
            Series(ONE, ours(1)),
            limit,
            Series(EIGHT, ours(THREADS)),
            Series(ALONE, fresh(kind, post_alone, POSTS)),
            Series(HAND_OVERS, fresh(kind, hand_overs, POSTS), Role.LIMIT),
            Series(f"{limit.name}, 0.1 ms apart", fresh(kind, raw_commits, POSTS, APART_S), Role.LIMIT),
            *peers.series("enqueue", kind),
        ),
        (
            Target("posts", 0.8, series=ONE, of=limit.name),
            Target("posts", 4, series=EIGHT, of=ONE),
        ),
    )


def _post_many(kind: str) -> Figure:
    ours = fresh(kind, post_many, BULK)

    raw = fresh(kind, raw_bulk, BULK)

    return Figure(
        f"post_many.{kind.lower()}",
        "Posting",
        f"post_many(), {kind}",
        f"One call with {BULK:,} messages until it returns, while the logic of those that are in runs; the"
        " limit writes as many job rows and message rows, 5,000 of each to a commit.",
        (Metric("posts", "posts/s"),),
        (Series(OURS, ours), Series(replay.NAME[kind], raw, Role.LIMIT), *peers.series("bulk", kind)),
        (Target("posts", 60_000),),
    )


def raw_bulk(database: str, count: int) -> Values:
    """A job row and a message row for each, 5,000 to a commit."""
    body = json.dumps(flows.payload(0))
    writer = replay.writer(database)
    jobs = ("worker", "job", "job_id", "flow", "status", "open_count", "created_at")
    messages = ("worker", "seq", "job", "routine", "slot", "payload", "status", "created_at")
    begun = time.perf_counter()
    with contextlib.closing(writer):
        for start in range(0, count, 5_000):
            numbers = range(start, min(count, start + 5_000))
            with writer.transaction():
                writer.insert(
                    "routilux_jobs", jobs, [(1, n, f"{n:036}", "f", "pending", 1, 0) for n in numbers]
                )
                writer.insert(
                    "routilux_messages",
                    messages,
                    [(1, n, n, "only", "input", body, "waiting", 0) for n in numbers],
                )
    return {"posts": count / (time.perf_counter() - begun)}
