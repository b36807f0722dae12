"""What the processes of the crash suite do: run the flow of `orders`, post jobs, note what was acknowledged."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from routilux.runtime import Runtime, leases
from routilux.runtime.door import PostItem
from routilux.runtime.settings import Settings
from tests.crash.support import hooks, orders
from tests.crash.support.black_box import BlackBox


class Acknowledged:
    """Job ids whose post has returned, one a line; what is written survives the writer."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, *job_ids: str) -> None:
        os.write(self._file, "".join(f"{job_id}\n" for job_id in job_ids).encode())

    @staticmethod
    def read(path: Path | str) -> set[str]:
        return set(Path(path).read_text().split()) if Path(path).exists() else set()


def settings(lease_s: float) -> Settings:
    """Looks around often, so that tests are short. A suspect need not wait: what killed us was not its fault."""
    return Settings(lease_s=lease_s, poll_s=0.01, reconcile_s=0.1, death_pause_s=(0.0, 0.0, 0.0))


def start(url: str, lease_s: float = 9.0, threads: int = 3) -> Runtime:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(process)d %(levelname)s %(message)s")
    leases.BACKEND_GONE_S = 0.1
    return Runtime(threads, database=url, lease=lease_s, registry=orders.register(), settings=settings(lease_s))


def work(
    url: str,
    acknowledged: str,
    box: str | None = None,
    workers: list[str] | None = None,
    numbers: tuple[int, int] = (0, 0),
    group: int = 1,
    phase: str | None = None,
    passes: int = 1,
    delay_us: int = 0,
) -> None:
    """Post the jobs that are not acknowledged yet, run them all, and end; or die on the way.

    `numbers`: from and to (exclusive). `group`: jobs of one call, singly or by `post_many`.
    """
    if box is not None:
        black_box = BlackBox(box)
        hooks.install(black_box, hooks.Death(black_box, phase, passes, delay_us))
    with start(url) as runtime:
        post(runtime, acknowledged, workers or ["w"], range(*numbers), group)
        if not runtime.wait_until_all_jobs_finished(60):
            sys.exit(3)


def post(runtime: Runtime, acknowledged: str, workers: list[str], numbers: range, group: int) -> None:
    """Each job to the worker of its number; ids are explicit, so a post in doubt is made again without harm."""
    for worker in workers:
        runtime.exec(orders.FLOW, worker_id=worker)
    known, notes = Acknowledged.read(acknowledged), Acknowledged(acknowledged)
    for first in range(numbers.start, numbers.stop, group):
        worker = workers[first // group % len(workers)]
        some = [n for n in range(first, min(first + group, numbers.stop)) if orders.job_id_of(n) not in known]
        if len(some) == 1:
            runtime.post(orders.FLOW, "split", "input", {"number": some[0]}, worker, orders.job_id_of(some[0]))
        elif some:
            items = [PostItem({"number": n}, job_id=orders.job_id_of(n)) for n in some]
            runtime.post_many(orders.FLOW, "split", "input", items, worker_id=worker)
        notes.add(*map(orders.job_id_of, some))
