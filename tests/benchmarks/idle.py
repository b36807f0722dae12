"""What a runtime costs that has nothing to do: processor, memory, queries."""

from __future__ import annotations

import subprocess
import time

import psutil

from tests.benchmarks import peers
from tests.benchmarks.bench import POSTGRES, SQLITE, Bench, said
from tests.benchmarks.figure import OURS, Figure, Metric, Series, Target, Values
from tests.benchmarks.served import rest

SETTLE_S = 7.0  # it is quiet when nothing has come for 5 s
WATCHED_S = 15.0


def watched(bench: Bench, database: str) -> Values:
    """From outside: the process has nothing in it but the runtime."""
    with bench.running(rest, database) as child:
        _asked(child)
        time.sleep(SETTLE_S)
        begun, (sent, spent) = time.perf_counter(), _asked(child)
        time.sleep(WATCHED_S)
        took, (sent_then, spent_then) = time.perf_counter() - begun, _asked(child)
        return {
            "CPU": 100 * (spent_then - spent) / took,
            "RSS": psutil.Process(child.pid).memory_info().rss / 2**20,
            "queries": (sent_then - sent) / took,
        }


def _asked(child: subprocess.Popen[str]) -> tuple[int, float]:
    """Statements sent, seconds of a processor."""
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
    sent, spent = said(child, "sent").split()
    return int(sent), float(spent)


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
        "A process with a Runtime and one worker that has done one job, watched from outside for"
        f" {WATCHED_S:g} s; queries are"
        " the statements that it sends through SQLAlchemy (BEGIN counts; a PRAGMA that reads no page does"
        " not).",
        (
            Metric("CPU", "% of a core", is_higher_better=False),
            Metric("RSS", "MB", is_higher_better=False),
            Metric("queries", "queries/s", is_higher_better=False),
        ),
        (Series(OURS, ours), *peers.series("idle", kind)),
        (Target("CPU", 0.2), Target("RSS", 70), Target("queries", 1)),
    )
