"""What a runtime costs that has nothing to do: processor, memory, queries."""

from __future__ import annotations

import subprocess
import time

import psutil

from tests.benchmarks import peers
from tests.benchmarks.bench import POSTGRES, SQLITE, Bench, said
from tests.benchmarks.figure import OURS, Figure, Metric, Series, Target, Values
from tests.benchmarks.served import rest

SETTLE_S = 3.0
WATCHED_S = 12.0


def watched(bench: Bench, database: str) -> Values:
    """From outside: the process has nothing in it but the runtime."""
    seconds = bench.scaled(round(WATCHED_S), 4)
    with bench.running(rest, database) as child:
        process = psutil.Process(child.pid)
        _sent(child)
        time.sleep(SETTLE_S)
        sent, spent, begun = _sent(child), sum(process.cpu_times()[:2]), time.perf_counter()
        time.sleep(seconds)
        took = time.perf_counter() - begun
        return {
            "CPU": 100 * (sum(process.cpu_times()[:2]) - spent) / took,
            "queries": (_sent(child) - sent) / took,
            "RSS": process.memory_info().rss / 2**20,
        }


def _sent(child: subprocess.Popen[str]) -> int:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
    return int(said(child, "sent"))


def figures() -> list[Figure]:
    return list(map(_idle, (SQLITE, POSTGRES)))


def _idle(kind: str) -> Figure:
    def ours(bench: Bench) -> Values:
        with bench.database(kind) as url:
            return watched(bench, url)

    return Figure(
        f"idle.{kind.lower()}",
        "At rest",
        f"idle Runtime, {kind}",
        f"A process with a Runtime and one worker that has done one job, watched from outside for {WATCHED_S:g} s; queries are"
        " the statements that it sends through SQLAlchemy (BEGIN counts; a PRAGMA that reads no page does not).",
        (
            Metric("CPU", "% of a core", is_higher_better=False),
            Metric("RSS", "MB", is_higher_better=False),
            Metric("queries", "queries/s", is_higher_better=False),
        ),
        (Series(OURS, ours), *peers.series("idle", kind)),
        (Target("CPU", 0.2), Target("RSS", 70), Target("queries", 1)),
    )
