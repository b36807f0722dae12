"""`make bench`: jobs per second, latency and recovery time, on both databases, medians of several runs.

Nothing is asserted. The machine is noisy: read medians and ratios taken in one run.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from routilux import Client, FlowRegistry, Runtime
from routilux.store.schema import upgrade
from tests.benchmarks import flows
from tests.support.postgres import PostgresServer

RUNS = 5
JOBS = 10_000
POSTS = 300


def three_stages(database: str) -> float:
    """Jobs per second through three stages, state written in each, order kept, posted with post_many."""
    registry = FlowRegistry()
    registry.register_by_name("three_stages", flows.three_stages())
    items = [{"id": number, "name": "abc", "pad": "x" * 120} for number in range(JOBS)]
    with Runtime(4, database=database, registry=registry) as runtime:
        worker = runtime.exec("three_stages")
        begun = time.perf_counter()
        runtime.post_many("three_stages", "stage_0", "input", items)
        assert runtime.wait_until_all_jobs_finished(300)
        took = time.perf_counter() - begun
        assert worker.get_routine_state("stage_2") == {"count": JOBS}
    return JOBS / took


def latency(database: str) -> list[float]:
    """Milliseconds from `post` to the start of logic, idle runtime, one post at a time."""
    registry = FlowRegistry()
    note = flows.Note()
    registry.register_by_name("note", flows.one(note, "note"))
    taken = []
    with Runtime(2, database=database, registry=registry) as runtime:
        runtime.exec("note")
        for number in range(POSTS):
            note.started.clear()
            begun = time.perf_counter()
            runtime.post("note", "only", "input", {"id": number})
            note.started.wait(10)
            taken.append((note.at - begun) * 1000)
            runtime.wait_until_all_jobs_finished(10)
    return taken


def recovery(database: str) -> float:
    """Seconds from `kill -9` of the owner to the first activation at another runtime."""
    command = [sys.executable, "-m", "tests.benchmarks.flows", database]
    owner = _started(command)
    with Client(database) as client:
        client.post_many("slow", "only", "input", [{"id": number} for number in range(200)])
    _line(owner, "activation")
    other = _started(command)
    seen = threading.Event()
    threading.Thread(target=lambda: (_line(other, "activation"), seen.set()), daemon=True).start()
    _line(owner, "activation")
    owner.kill()
    begun = time.perf_counter()
    seen.wait(60)
    took = time.perf_counter() - begun
    other.kill()
    owner.wait()
    other.wait()
    return took


def _started(command: list[str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2]
    )
    _line(process, "ready")
    return process


def _line(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "":
        if line.strip() == word:
            return
    raise AssertionError(f"the process ended before it said {word!r}")


def main() -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        server = PostgresServer().start()
        kinds: dict[str, Callable[[int], str]] = {
            "SQLite FULL": lambda n: f"sqlite:///{folder}/{n}.db",
            "Postgres": lambda n: server.create_database(f"bench_{n}"),
        }
        number = 0
        for kind, fresh in kinds.items():
            for figure, measure in (
                ("3-stage jobs/s", three_stages),
                ("post to logic, ms", latency),
                ("recovery, s", recovery),
            ):
                values: list[Any] = []
                for _ in range(RUNS if figure != "post to logic, ms" else 1):
                    number += 1
                    database = fresh(number)
                    upgrade(database)
                    values.append(measure(database))
                rows.append(_row(kind, figure, values))
                print(rows[-1], flush=True)
        server.remove()
    root = Path(__file__).resolve().parents[2]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()
    where = {
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
    }
    target = root / "docs" / "benchmarks"
    target.mkdir(parents=True, exist_ok=True)
    (target / "latest.json").write_text(json.dumps({**where, "rows": rows}, indent=1) + "\n")
    (target / "latest.md").write_text(_page(where, rows))


def _page(where: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    lines = [
        "# Measured by `make bench`",
        "",
        "Written by the last run; the raw rows are in `latest.json`. The machine is shared and noisy: read medians and"
        " ratios taken in one run.",
        "",
        ", ".join(f"{name} {value}" for name, value in where.items()),
        "",
        "| database | figure | median | min | max | p99 | n |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row['database']} | {row['figure']} | {row['median']} | {row['min']} | {row['max']} | {row['p99']} | {row['n']} |"
            for row in rows
        ),
    ]
    return "\n".join(lines) + "\n"


def _row(kind: str, figure: str, values: list[Any]) -> dict[str, Any]:
    flat = sorted(value for run in values for value in (run if isinstance(run, list) else [run]))
    return {
        "database": kind,
        "figure": figure,
        "median": round(statistics.median(flat), 2),
        "min": round(flat[0], 2),
        "max": round(flat[-1], 2),
        "p99": round(flat[min(len(flat) - 1, int(len(flat) * 0.99))], 2),
        "n": len(flat),
    }


if __name__ == "__main__":
    main()
