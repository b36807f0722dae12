"""What the processes of the crash suite do: run the flow of `orders`, post jobs,
note what was acknowledged.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

from routilux.engine.settings import Settings
from routilux.ownership import lease
from routilux.runtime import Runtime, waiting
from routilux.runtime.validation import PostItem
from tests.crash.support import hooks, orders
from tests.crash.support.black_box import BlackBox
from tests.crash.support.zygote import until
from tests.support.inside_runtime import identity


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


def settings(lease_s: float = 9.0, deaths: int = 1000) -> Settings:
    """Looks around often, so that tests are short."""
    return Settings(
        lease_s=lease_s, poll_s=0.01, reconcile_s=0.05, death_pause_s=(0.0, 0.0, 0.0), deaths=deaths
    )


def start(url: str, lease_s: float = 9.0, patience: Settings | None = None) -> Runtime:
    """Many deaths make a dead letter by default: it is these tests that kill,
    and no message is guilty of it.
    """
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(process)d %(levelname)s %(message)s"
    )
    lease.BACKEND_GONE_S = 0.04
    waiting.PERIOD_S = 0.02
    return Runtime(
        3, database=url, lease=lease_s, registry=orders.register(), settings=patience or settings(lease_s)
    )


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
    lease_s: float = 9.0,
) -> None:
    """Post the jobs that are not acknowledged yet, run them all, and end; or die on the way.

    `numbers`: from and to (exclusive). `group`: jobs of one call, singly or by `post_many`.
    """
    if box is not None:
        black_box = BlackBox(box)
        hooks.install(black_box, hooks.Death(black_box, phase, passes, delay_us))
    with start(url, lease_s) as runtime:
        post(runtime, acknowledged, workers or ["w"], range(*numbers), group)
        finish(runtime, acknowledged)


def finish(runtime: Runtime, acknowledged: str) -> None:
    """Until every acknowledged job has ended, those too whose worker is still somebody else's."""
    for job_id in sorted(Acknowledged.read(acknowledged)):
        job = runtime.get_job(job_id)
        if job is None or not job.wait(60):
            sys.exit(f"{job_id} has not ended: {job and job.to_dict()}")
    if not runtime.wait_until_all_jobs_finished(60):
        sys.exit("something is left to do")


def post(runtime: Runtime, acknowledged: str, workers: list[str], numbers: range, group: int) -> None:
    """Each job to the worker of its number; ids are explicit,
    so a post in doubt is made again without harm.
    """
    for worker in workers:
        runtime.exec(orders.FLOW, worker_id=worker)
    known, notes = Acknowledged.read(acknowledged), Acknowledged(acknowledged)
    for first in range(numbers.start, numbers.stop, group):
        worker = workers[first // group % len(workers)]
        some = [n for n in range(first, min(first + group, numbers.stop)) if orders.job_id_of(n) not in known]
        if len(some) == 1:
            runtime.post(
                orders.FLOW, "split", "input", {"number": some[0]}, worker, orders.job_id_of(some[0])
            )
        elif some:
            items = [PostItem({"number": n}, job_id=orders.job_id_of(n)) for n in some]
            runtime.post_many(orders.FLOW, "split", "input", items, worker_id=worker)
        notes.add(*map(orders.job_id_of, some))


def poisoned(
    url: str,
    acknowledged: str,
    poison: dict[str, int],
    entered: str,
    numbers: tuple[int, int] = (0, 0),
    workers: list[str] | None = None,
    pause_s: float = 0.0,
    stop: str | None = None,
) -> None:
    """As `work`, but logic that meets one of these numbers ends the process; `entered` notes each time it
    does.

    `pause_s`: before a suspect that has killed while alone runs again. `stop`: work until this file is there.
    """
    orders.is_flaky = False
    notes = os.open(entered, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def take_poison(routine: str, item: dict[str, int]) -> None:
        if routine == "work" and item["part"] == 0 and item["number"] in poison.values():
            os.write(notes, f"{item['number']}\n".encode())
            if item["number"] == poison.get("segfault"):
                ctypes.string_at(0)
            os._exit(66)

    orders.gates.append(take_poison)
    patience = replace(settings(9.0, deaths=3), death_pause_s=(0.0, pause_s, pause_s))
    with start(url, patience=patience) as runtime:
        if stop is not None:
            until(lambda: Path(stop).exists(), "nobody stops it")
            runtime.shutdown(wait=False)
            return
        workers = workers or ["w"]
        post(runtime, acknowledged, workers, range(*numbers), numbers[1] if len(workers) == 1 else 1)
        finish(runtime, acknowledged)


def rescue(url: str, ready: str, acknowledged: str) -> None:
    """Post nothing; once `ready`, which it makes, is gone, finish what is acknowledged."""
    with start(url) as runtime:
        Path(ready).touch()
        until(lambda: not Path(ready).exists(), "nobody is ready")
        finish(runtime, acknowledged)


def stopped(
    url: str, acknowledged: str, numbers: tuple[int, int], lease_s: float, commits: int, where: str
) -> None:
    """Post, then stop itself (SIGSTOP) where it cannot hold up the database: after a commit, or inside logic.

    `commits`: how many of its commits with own rows go in before. Continued, it goes on as if nothing had
    happened.
    """
    stop = hooks.Stop(commits, where)
    with start(url, lease_s) as runtime:
        stop.install(runtime)
        post(runtime, acknowledged, ["w"], range(*numbers), numbers[1])
        finish(runtime, acknowledged)
        print(f"{os.getpid()} was runtime {stop.runtime_key}, is {identity(runtime)}")
        if stop.runtime_key == identity(runtime):
            sys.exit("it was stopped past its lease and has kept its identity")


def exclusive(url: str, acknowledged: str, numbers: tuple[int, int], workers: list[str], marks: str) -> None:
    """As `work`, but logic of a worker that runs in another process too is reported and ends the process with
    9.
    """
    orders.gates.append(hooks.OneProcess(marks, workers).entering)
    with start(url) as runtime:
        post(runtime, acknowledged, workers, range(*numbers), 1)
        finish(runtime, acknowledged)


def post_only(url: str, acknowledged: str, numbers: tuple[int, int]) -> None:
    """Posts that are due in an hour: nothing but posts is written.

    One `acknowledged` line each, after its return.
    """
    notes = Acknowledged(acknowledged)
    with start(url, lease_s=600.0) as runtime:
        runtime.exec(orders.FLOW, worker_id="w")
        for number in range(*numbers):
            job_id = orders.job_id_of(number)
            runtime.post(orders.FLOW, "split", "input", {"number": number}, "w", job_id, delay=3600)
            notes.add(job_id)
        os._exit(0)
