"""What is measured in databases that have grown.

This module imports nothing that the measured process does not need.
"""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path

from routilux import Runtime
from tests.benchmarks import flows
from tests.benchmarks.flows import Item, Values

WORKER = "grown"
WAIT_S = 600.0


def through(database: str, jobs: int) -> Values:
    """Jobs per second through one stage of the worker with the history,
    from the first post to the last end.
    """
    with Runtime(database=database, registry=flows.registry(flows.one_stage())) as runtime:
        runtime.exec("one_stage", worker_id=WORKER)
        items = flows.payloads(jobs)
        begun = time.perf_counter()
        runtime.post_many("one_stage", "only", "input", items)
        flows.check(runtime.wait_until_all_jobs_finished(WAIT_S), "the jobs did not end")
        return {"jobs": jobs / (time.perf_counter() - begun), "RSS": peak_mb()}


def out_of_backlog(database: str, jobs: int) -> Values:
    """So many jobs out of what waits; the rest stays. Seconds from the constructor to the first of them."""
    starts: list[float] = []
    enough = threading.Event()

    def started(item: Item) -> None:
        starts.append(time.perf_counter())
        if len(starts) == jobs:
            enough.set()

    flow = flows.one_stage(flows.Sink(started))
    begun = time.perf_counter()
    runtime = Runtime(database=database, registry=flows.registry(flow))
    flows.check(enough.wait(WAIT_S), "the jobs did not run")
    runtime.shutdown(wait=False)
    return {
        "jobs": jobs / (starts[jobs - 1] - starts[0]),
        "first activation": starts[0] - begun,
        "RSS": peak_mb(),
    }


def peak_mb() -> float:
    """The most memory that this process has held."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux, where getrusage would count the process that started this one
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
