"""Jobs per second: through three stages, and out of a backlog through one."""

from __future__ import annotations

import time
from collections.abc import Callable

from routilux import Runtime
from tests.benchmarks import flows, peers, replay
from tests.benchmarks.bench import POSTGRES, SQLITE, fresh
from tests.benchmarks.figure import FASTEST_PEER, OURS, Figure, Metric, Series, Target, Values

JOBS = 20_000
WAIT_S = 600.0


def three_stages(database: str, jobs: int, on_begin: Callable[[], None] = lambda: None) -> Values:
    """From the first post_many to the end of the last job."""
    items = flows.payloads(jobs)
    with Runtime(database=database, registry=flows.registry(flows.three_stages())) as runtime:
        worker = runtime.exec("three_stages")
        on_begin()
        begun = time.perf_counter()
        runtime.post_many("three_stages", "first", "input", items)
        flows.check(runtime.wait_until_all_jobs_finished(WAIT_S), "the jobs did not end")
        took = time.perf_counter() - begun
        flows.check(worker.get_routine_state("third") == {"count": jobs}, "the state is wrong")
    return {"jobs": jobs / took}


def drain(database: str, jobs: int, on_begin: Callable[[], None] = lambda: None) -> Values:
    """A backlog that is durable before the clock starts:
    from resuming the worker to the end of the last job.
    """
    with Runtime(database=database, registry=flows.registry(flows.one_stage())) as runtime:
        worker = runtime.exec("one_stage")
        runtime.pause_worker(str(worker.worker_id))
        runtime.post_many("one_stage", "only", "input", flows.payloads(jobs))
        on_begin()
        begun = time.perf_counter()
        runtime.resume_worker(str(worker.worker_id))
        flows.check(runtime.wait_until_all_jobs_finished(WAIT_S), "the jobs did not end")
        return {"jobs": jobs / (time.perf_counter() - begun)}


def figures() -> list[Figure]:
    return [*map(_three_stages, (SQLITE, POSTGRES)), *map(_drain, (SQLITE, POSTGRES))]


def _three_stages(kind: str) -> Figure:
    ours = fresh(kind, three_stages, JOBS)

    if kind == SQLITE:
        goals = (Target("jobs", 10_000), Target("jobs", 1, of=peers.IN_MEMORY, is_strict=True))
        share = 0.6
    else:
        goals = (Target("jobs", 5_000), Target("jobs", 8, of=FASTEST_PEER))
        share = 0.4
    limit = replay.limit(kind, three_stages, JOBS)
    return Figure(
        f"three_stages.{kind.lower()}",
        "Throughput",
        f"3-stage flow, {kind}",
        "Posted with post_many to one worker, order kept, state read and written in each stage, durable;"
        " from the first post to the end of the last job. Peers begin with a queue that is filled. The"
        " limit writes the rows of the"
        f" same commits with the raw driver ({replay.HOW[kind]}), without any logic.",
        (Metric("jobs", "jobs/s"),),
        (Series(OURS, ours), limit, *peers.series("pipeline", kind)),
        (*goals, Target("jobs", share, of=limit.name)),
    )


def _drain(kind: str) -> Figure:
    ours = fresh(kind, drain, JOBS)

    if kind == SQLITE:
        goals: tuple[Target, ...] = (Target("jobs", 20_000),)
        share = 0.6
    else:
        goals = (Target("jobs", 16_000), Target("jobs", 1, of=peers.PGQUEUER, is_strict=True))
        share = 0.4
    limit = replay.limit(kind, drain, JOBS)
    return Figure(
        f"drain.{kind.lower()}",
        "Throughput",
        f"one-stage drain, {kind}",
        "A backlog that is durable before the clock starts, one worker, logic that does nothing; from"
        " resuming the worker to the end of the last job.",
        (Metric("jobs", "jobs/s"),),
        (Series(OURS, ours), limit, *peers.series("drain", kind)),
        (*goals, Target("jobs", share, of=limit.name)),
    )
