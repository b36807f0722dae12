"""The same work spread differently: in bursts, over workers, over processes, in larger payloads.

For child processes.
"""

from __future__ import annotations

import sys
import threading
import time
from itertools import cycle

from routilux import Post, Runtime
from tests.benchmarks import flows
from tests.benchmarks.flows import Values

WAIT_S = 600.0
THREADS = 8
AT_ONCE = 10  # items of one call


def burst(database: str, posts: int) -> Values:
    """One call, and everything that follows from it."""
    items = flows.payloads(posts)
    with Runtime(database=database, registry=flows.registry(flows.one_stage())) as runtime:
        runtime.exec("one_stage")
        begun = time.perf_counter()
        runtime.post_many("one_stage", "only", "input", items)
        flows.check(runtime.wait_until_all_jobs_finished(WAIT_S), "the jobs did not end")
        return {"jobs": posts / (time.perf_counter() - begun)}


def over_workers(database: str, jobs: int, count: int) -> Values:
    """Small calls from eight threads, to one worker after the other."""
    items = flows.payloads(jobs)
    with Runtime(database=database, registry=flows.registry(flows.one_stage())) as runtime:
        names = [f"worker_{number}" for number in range(count)]
        begun = time.perf_counter()
        for name in names:
            runtime.exec("one_stage", worker_id=name)
        started_s = time.perf_counter() - begun
        calls = list(zip(range(0, jobs, AT_ONCE), cycle(names), strict=False))

        def some(first: int) -> None:
            for start, name in calls[first::THREADS]:
                runtime.post_many(
                    "one_stage", "only", "input", items[start : start + AT_ONCE], worker_id=name
                )

        threads = [threading.Thread(target=some, args=(first,)) for first in range(THREADS)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        flows.check(runtime.wait_until_all_jobs_finished(WAIT_S), "the jobs did not end")
        return {"jobs": jobs / (time.perf_counter() - begun), "exec": 1_000 * started_s / count}


def due_at_once(database: str, jobs: int) -> Values:
    """Delayed posts that all come due at one instant; from then to the last of them."""
    arrivals = flows.Arrivals(jobs)
    flow = flows.one_stage(flows.Sink(arrivals))
    with Runtime(database=database, registry=flows.registry(flow)) as runtime:
        runtime.exec("one_stage")
        due_at = time.time() + 2 + jobs / 2_000
        items = [Post(item, delay=due_at - time.time()) for item in flows.payloads(jobs)]
        runtime.post_many("one_stage", "only", "input", items)
        flows.check(time.time() < due_at, "posting them took too long")
        flows.check(arrivals.all_seen.wait(WAIT_S), "not all of them ran")
        return {"jobs": jobs / (time.time() - due_at)}


def one_of_many(database: str, jobs: int) -> None:
    """Says when it is ready, begins at a line of input, and says when it began and ended by the clock of the
    host.
    """
    items = flows.payloads(jobs)
    with Runtime(database=database, registry=flows.registry(flows.three_stages())) as runtime:
        worker = runtime.exec("three_stages").worker_id
        print("ready", flush=True)
        sys.stdin.readline()
        begun = time.time()
        runtime.post_many("three_stages", "first", "input", items, worker_id=worker)
        flows.check(runtime.wait_until_all_jobs_finished(WAIT_S), "the jobs did not end")
        print("done", begun, time.time(), flush=True)
        sys.stdin.readline()


def of_size(database: str, jobs: int, size: int) -> Values:
    """Three stages with payloads of this many bytes."""
    with Runtime(database=database, registry=flows.registry(flows.three_stages())) as runtime:
        runtime.exec("three_stages")
        items = flows.payloads(jobs, size)
        begun = time.perf_counter()
        runtime.post_many("three_stages", "first", "input", items)
        flows.check(runtime.wait_until_all_jobs_finished(WAIT_S), "the jobs did not end")
        took = time.perf_counter() - begun
    return {"jobs": jobs / took, "payload": jobs * size / took / 1e6}
