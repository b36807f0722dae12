"""How another queue is measured: the same work, the same clock, a worker in a process of its own.

A driver file subclasses `Peer` and ends with `main(…)`. It runs in the peer's own virtual environment, so
nothing here or there imports Routilux, or this project as a package.

    python huey_peer.py measure pipeline w1 5000     prints one JSON line
    python huey_peer.py worker w1                    started by that: the worker process

BENCH_DSN names an empty Postgres database, BENCH_FOLDER an empty folder. A run of handlers counts from the
first handler's start until the store says that everything is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psutil

Item = dict[str, Any]
T = TypeVar("T")
DSN = os.environ.get("BENCH_DSN", "")
FOLDER = os.environ.get("BENCH_FOLDER", "")
SETTLE_S = 3.0
WARM = 5
RESULT_S = 240.0


def payload(number: int) -> Item:
    """About 200 bytes as JSON, the same as Routilux is given."""
    return {"id": number, "kind": "order.created", "ts": time.monotonic_ns(), "body": "x" * 130}


class Recorder:
    """In the worker: counts handlers, and reports to a file once all that were announced have started."""

    def __init__(self) -> None:
        self._expected = int(os.environ.get("BENCH_EXPECT", "0"))
        self._target = os.environ.get("BENCH_OUT", "")
        self._count = itertools.count(1)
        self._begun = 0
        self._samples: list[float] = []
        self._lock = threading.Lock()

    @property
    def expected(self) -> int:
        return self._expected

    def start(self) -> None:
        """The first stage of a pipeline has begun."""
        self._begun = self._begun or time.monotonic_ns()

    def hit(self, *_: object) -> None:
        """The handler of the last stage has begun."""
        number = next(self._count)
        self.start()
        if number == self._expected:
            self._report({"begun": self._begun, "ended": time.monotonic_ns()})

    def late(self, sent_ns: int) -> None:
        """A handler has begun for what was sent at this time."""
        self._samples.append((time.monotonic_ns() - sent_ns) / 1e6)
        if len(self._samples) == self._expected:
            self._report({"samples": self._samples})

    def _report(self, told: dict[str, Any]) -> None:
        with self._lock:
            draft = f"{self._target}.new"
            with open(draft, "w") as file:
                json.dump(told, file)
            os.replace(draft, self._target)


RECORDER = Recorder()


class Worker:
    """The worker process of one run; a context manager."""

    def __init__(self, config: str, task: str, expected: int) -> None:
        self._target = os.path.join(FOLDER, "report.json")
        told = {"BENCH_TASK": task, "BENCH_EXPECT": str(expected), "BENCH_OUT": self._target}
        self._log = open(os.path.join(FOLDER, "worker.log"), "ab")  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, os.path.abspath(sys.argv[0]), "worker", config],
            env={**os.environ, **told},
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(8)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(5)
        self._log.close()

    def report(self) -> dict[str, Any]:
        until = time.monotonic() + RESULT_S
        while time.monotonic() < until:
            if os.path.exists(self._target):
                with open(self._target) as file:
                    return dict(json.load(file))
            if self._process.poll() is not None:
                raise RuntimeError(f"the worker ended: {_tail(self._log.name)}")
            time.sleep(0.01)
        raise TimeoutError(f"no report in {RESULT_S} s: {_tail(self._log.name)}")

    def tree(self) -> list[psutil.Process]:
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _tail(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()[-600:]


class Peer:
    """What a driver says about its queue; the measurements follow from it.

    Tasks: noop, lat, stage1 (→ 2 → 3).
    """

    bulk_size = 1_000

    def prepare(self) -> None:
        """Schema and client of a fresh database."""

    def one(self, task: str, item: Item) -> None:
        """Enqueue durably."""
        raise NotImplementedError

    def many(self, task: str, items: list[Item]) -> None:
        """Enqueue in bulk, or one by one where there is no bulk call."""
        for item in items:
            self.one(task, item)

    def delayed(self, task: str, item: Item, seconds: float) -> None:
        raise NotImplementedError

    def left(self) -> int:
        """What is not acknowledged yet."""
        raise NotImplementedError

    def work(self, config: str) -> None:
        """Run handlers until killed."""
        raise NotImplementedError

    def fill(self, task: str, count: int) -> None:
        for start in range(0, count, self.bulk_size):
            self.many(task, [payload(n) for n in range(start, min(count, start + self.bulk_size))])

    # what `measure` can be asked for

    def enqueue(self, config: str, count: int) -> dict[str, float]:
        begun = time.perf_counter()
        for number in range(count):
            self.one("noop", payload(number))
        return {"posts": count / (time.perf_counter() - begun)}

    def bulk(self, config: str, count: int) -> dict[str, float]:
        begun = time.perf_counter()
        self.fill("noop", count)
        return {"posts": count / (time.perf_counter() - begun)}

    def drain(self, config: str, count: int) -> dict[str, float]:
        return self._counted(config, "noop", count)

    def pipeline(self, config: str, count: int) -> dict[str, float]:
        return self._counted(config, "stage1", count)

    def _counted(self, config: str, task: str, count: int) -> dict[str, float]:
        self.fill(task, count)
        with Worker(config, task, count) as worker:
            return {"jobs": self._rate(worker.report(), count)}

    def _rate(self, told: dict[str, Any], count: int) -> float:
        ended, until = told["ended"], time.monotonic() + 30
        while self.left() and time.monotonic() < until:
            time.sleep(0.01)
            ended = time.monotonic_ns()
        return count / ((ended - told["begun"]) / 1e9)

    def latency(self, config: str, count: int) -> dict[str, float]:
        with Worker(config, "lat", count + WARM) as worker:
            time.sleep(SETTLE_S)
            for number in range(count + WARM):
                self.one("lat", payload(number))
                time.sleep(0.02 if number >= WARM else 0.3)
            return percentiles(worker.report()["samples"][WARM:])

    def delay(self, config: str, count: int) -> dict[str, float]:
        """A delay of one second: how much later than that."""
        with Worker(config, "lat", count) as worker:
            time.sleep(SETTLE_S)
            for number in range(count):
                self.delayed("lat", payload(number), 1)
                time.sleep(0.137)
            late = [sample - 1_000 for sample in worker.report()["samples"]]
            return {**percentiles(late), "earliest": min(late)}

    def idle(self, config: str, seconds: int) -> dict[str, float]:
        with Worker(config, "idle", 1 << 60) as worker:
            time.sleep(SETTLE_S + 1)
            spent = _cpu_s(worker.tree())
            time.sleep(seconds)
            tree = worker.tree()
            return {
                "CPU": 100 * (_cpu_s(tree) - spent) / seconds,
                "RSS": sum(process.memory_info().rss for process in tree) / 2**20,
            }


class AsyncPeer(Peer):
    """For clients of asyncio: one loop, and the calls that are timed run inside it."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.new_event_loop()

    def wait(self, call: Awaitable[T]) -> T:
        return self._loop.run_until_complete(call)

    async def send(self, task: str, item: Item) -> None:
        raise NotImplementedError

    def one(self, task: str, item: Item) -> None:
        self.wait(self.send(task, item))

    def enqueue(self, config: str, count: int) -> dict[str, float]:
        async def all_of_them() -> float:
            begun = time.perf_counter()
            for number in range(count):
                await self.send("noop", payload(number))
            return time.perf_counter() - begun

        return {"posts": count / self.wait(all_of_them())}


def percentiles(samples: list[float]) -> dict[str, float]:
    ordered = sorted(samples)
    return {f"p{share}": ordered[round(share / 100 * (len(ordered) - 1))] for share in (50, 99)}


def _cpu_s(tree: list[psutil.Process]) -> float:
    return float(sum(sum(process.cpu_times()[:2]) for process in tree))


def count_rows(query: str) -> int:
    """Of the Postgres database, on a connection of its own."""
    import psycopg

    with psycopg.connect(DSN, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])


def main(make: Callable[[], Peer]) -> None:
    """The end of every driver file."""
    logging.disable(logging.CRITICAL)  # a line per job is not what is measured
    verb, *words = sys.argv[1:]
    peer = make()
    if verb == "worker":
        peer.work(words[0])
        return
    metric, config, count = words
    peer.prepare()
    print(json.dumps(getattr(peer, metric)(config, int(count))), flush=True)
    os._exit(0)  # some clients leave pool threads or an open loop behind
