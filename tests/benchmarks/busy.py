"""Beside logic that keeps the interpreter busy: throughput, and how long a commit takes.

Figures and their children.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator

from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine, insert

from routilux import Routine, Runtime
from tests.benchmarks import flows
from tests.benchmarks.bench import POSTGRES, SQLITE, Bench, fresh
from tests.benchmarks.figure import OURS, Figure, Metric, Role, Series, Target, Values
from tests.benchmarks.flows import Item
from tests.support.inside_runtime import store

JOBS = 1_500
COMMITS = 20
BUSY_THREADS = 4
ROUNDS = 2_000  # of pure Python in each stage: about 0.1 ms
NOTES = Table("notes", MetaData(), Column("id", Integer, primary_key=True), Column("stage", Text))


def think(routine: Routine, item: Item) -> None:
    """Pure Python, which holds the interpreter, and a row of one's own."""
    _sum()
    routine.write(insert(NOTES).values(stage=routine.__class__.__name__))


def _sum() -> int:
    total = 0
    for number in range(ROUNDS):
        total += number * number
    return total


def thinking(database: str, jobs: int, threads: int) -> Values:
    """Three stages that compute, read and write state, and write a row of their own."""
    engine = create_engine(database)
    NOTES.metadata.create_all(engine)
    engine.dispose()
    items = flows.payloads(jobs)
    registry = flows.registry(flows.three_stages(think))
    with Runtime(threads, database=database, registry=registry) as runtime:
        runtime.exec("three_stages")
        begun = time.perf_counter()
        runtime.post_many("three_stages", "first", "input", items)
        flows.check(runtime.wait_until_all_jobs_finished(600), "the jobs did not end")
        return {"jobs": jobs / (time.perf_counter() - begun)}


def only_thinking(jobs: int) -> Values:
    """What the interpreter takes for the computing alone."""
    begun = time.perf_counter()
    for _ in range(3 * jobs):
        _sum()
    return {"jobs": jobs / (time.perf_counter() - begun)}


def commits(database: str, count: int, busy_threads: int) -> Values:
    """The engine's transaction for 500 jobs with a message each, from BEGIN to after COMMIT, beside busy
    threads.
    """
    taken: list[float] = []
    with Runtime(database=database, registry=flows.registry(flows.one_stage())) as runtime:
        worker = runtime.exec("one_stage")
        runtime.pause_worker(str(worker.worker_id))  # so that posts are all that is committed
        real = store(runtime).commit

        @contextlib.contextmanager
        def timed(runtime_key: int) -> Iterator[object]:
            begun = time.perf_counter()
            with real(runtime_key) as commit:
                yield commit
            taken.append((time.perf_counter() - begun) * 1000)

        store(runtime).commit = timed  # type: ignore[method-assign, assignment]  # a stopwatch around it
        over = threading.Event()
        threads = [threading.Thread(target=_spin, args=(over,), daemon=True) for _ in range(busy_threads)]
        for thread in threads:
            thread.start()
        calls = []
        for _ in range(count):
            items = flows.payloads(500)
            begun = time.perf_counter()
            runtime.post_many("one_stage", "only", "input", items)
            calls.append((time.perf_counter() - begun) * 1000)
        over.set()
        for thread in threads:
            thread.join()
        runtime.shutdown(wait=False)
    large = sorted(taken)[-count:]  # the heartbeat commits too
    return {"commit": statistics.median(large), "post_many": statistics.median(calls)}


def _spin(over: threading.Event) -> None:
    while not over.is_set():
        _sum()


def figures() -> list[Figure]:
    return [*map(_thinking, (SQLITE, POSTGRES)), *map(_commits, (SQLITE, POSTGRES))]


def _thinking(kind: str) -> Figure:
    def ours(threads: int) -> Series:
        return Series(f"{threads} thread{'s' if threads > 1 else ''}", fresh(kind, thinking, JOBS, threads))

    def alone(bench: Bench) -> Values:
        return bench.child(only_thinking, bench.scaled(JOBS))

    return Figure(
        f"busy.{kind.lower()}",
        "Beside busy Python",
        f"3-stage flow, CPU-bound logic, {kind}",
        f"Each stage computes {ROUNDS:,} rounds of pure Python, reads and writes state and writes a row of"
        " its own; the limit is the computing alone, in one thread.",
        (Metric("jobs", "jobs/s"),),
        (ours(1), Series("the computing alone", alone, Role.LIMIT), ours(4)),
    )


def _commits(kind: str) -> Figure:
    def ours(busy_threads: int) -> Series:
        def run(bench: Bench) -> Values:
            with bench.database(kind) as url:
                return bench.child(commits, url, bench.scaled(COMMITS, 10), busy_threads)

        return Series(OURS if busy_threads else "no busy thread", run)

    return Figure(
        f"busy_commit.{kind.lower()}",
        "Beside busy Python",
        f"a commit of 1,000 rows beside {BUSY_THREADS} busy threads, {kind}",
        "The transaction of the engine for 500 posted jobs (500 job rows, 500 message rows), from BEGIN to"
        " after COMMIT,"
        f" beside {BUSY_THREADS} threads of pure Python; and the whole call of post_many.",
        (
            Metric("commit", "ms", is_higher_better=False),
            Metric("post_many", "ms", is_higher_better=False),
        ),
        (ours(BUSY_THREADS), ours(0)),
        (Target("commit", 30),),
    )
