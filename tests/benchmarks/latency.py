"""Milliseconds: from a post to its logic, from a due time to its logic,
from a kill to the next activation.
"""

from __future__ import annotations

import threading
import time

from routilux import Client, RetryLater, Runtime
from tests.benchmarks import flows, peers, replay
from tests.benchmarks.bench import POSTGRES, SQLITE, Bench, fresh, said
from tests.benchmarks.figure import OURS, Figure, Metric, Role, Series, Target, Values
from tests.benchmarks.flows import Item
from tests.benchmarks.posting import committer
from tests.benchmarks.served import serve

POSTS = 150
RETRIES = 100
GAP_S = 0.02
RETRY_S = 1.0
WARM = 5  # first posts that are not counted
MS = (Metric("p50", "ms", is_higher_better=False), Metric("p99", "ms", is_higher_better=False))


def post_to_logic(database: str, posts: int) -> Values:
    """One post at a time into a runtime that has nothing else to do."""
    taken: list[float] = []
    done = threading.Event()

    def started(item: Item) -> None:
        taken.append((time.monotonic_ns() - item["ts"]) / 1e6)
        done.set()

    flow = flows.one_stage(flows.Sink(started))
    with Runtime(database=database, registry=flows.registry(flow)) as runtime:
        runtime.exec("one_stage")
        for number in range(posts + WARM):
            done.clear()
            runtime.post("one_stage", "only", "input", flows.payload(number))
            done.wait(30)
            time.sleep(GAP_S)
    return percentiles(taken[WARM:])


def raw_commit(database: str, posts: int) -> Values:
    """A commit of one row, as far apart."""
    commit, taken = committer(database), []
    for number in range(posts + WARM):
        begun = time.perf_counter()
        commit(number)
        taken.append((time.perf_counter() - begun) * 1000)
        time.sleep(GAP_S)
    return percentiles(taken[WARM:])


def redelivery(database: str, retries: int) -> Values:
    """Each first attempt asks to run again a second later; how much later than asked for it does."""
    asked: dict[int, float] = {}
    late: list[float] = []
    done = threading.Event()

    def attempt(item: Item) -> None:
        now = time.time()
        if item["id"] not in asked:
            asked[item["id"]] = now
            raise RetryLater(RETRY_S)
        late.append((now - asked[item["id"]] - RETRY_S) * 1000)
        if len(late) == retries:
            done.set()

    flow = flows.one_stage(flows.Sink(attempt))
    with Runtime(database=database, registry=flows.registry(flow)) as runtime:
        runtime.exec("one_stage")
        for number in range(retries):
            runtime.post("one_stage", "only", "input", flows.payload(number))
            time.sleep(0.037)
        done.wait(60)
    return {**percentiles(late), "earliest": min(late)}


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"p50": _at(ordered, 0.5), "p99": _at(ordered, 0.99)}


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def takeover(bench: Bench, database: str) -> Values:
    """Seconds from `kill -9` of the owner to the first activation in the other process."""
    with bench.running(serve, database) as owner:
        said(owner, "ready")
        with Client(database) as client:
            client.post_many("one_stage", "only", "input", flows.payloads(200))
        said(owner, "activation")
        with bench.running(serve, database) as other:
            said(other, "ready")
            said(owner, "activation")
            owner.kill()
            begun = time.perf_counter()
            said(other, "activation")
            return {"first activation": time.perf_counter() - begun}


def figures() -> list[Figure]:
    kinds = (SQLITE, POSTGRES)
    return [*map(_post_to_logic, kinds), *map(_redelivery, kinds), *map(_takeover, kinds)]


def _post_to_logic(kind: str) -> Figure:
    ours = fresh(kind, post_to_logic, POSTS)

    raw = fresh(kind, raw_commit, POSTS)

    p50, p99 = (1.3, 5.0) if kind == SQLITE else (2.4, 6.0)
    return Figure(
        f"post_to_logic.{kind.lower()}",
        "Latency",
        f"post to the start of its logic, {kind}",
        "From the call of post() to the first line of logic, one at a time, 20 ms apart, in a runtime with"
        " nothing else to do; the limit is one commit of one row by the driver alone.",
        MS,
        (Series(OURS, ours), Series(replay.NAME[kind], raw, Role.LIMIT), *peers.series("latency", kind)),
        (Target("p50", p50), Target("p99", p99)),
    )


def _redelivery(kind: str) -> Figure:
    ours = fresh(kind, redelivery, RETRIES)

    return Figure(
        f"redelivery.{kind.lower()}",
        "Latency",
        f"lateness of a redelivery, {kind}",
        "Logic raises RetryLater(1.0); how much later than a second after that it starts again. `earliest`"
        " above zero: never early.",
        (*MS, Metric("earliest", "ms", is_higher_better=True)),
        (Series(OURS, ours), *peers.series("delay", kind)),
        (Target("p50", 10), Target("p99", 40), Target("earliest", 0)),
    )


def _takeover(kind: str) -> Figure:
    def ours(bench: Bench) -> Values:
        with bench.database(kind) as url:
            return takeover(bench, url)

    return Figure(
        f"takeover.{kind.lower()}",
        "Latency",
        f"kill -9 to the first activation elsewhere, {kind}",
        "The owner of a worker is killed inside logic while another process with the same flow is there.",
        (Metric("first activation", "s", is_higher_better=False),),
        (Series(OURS, ours),),
    )
