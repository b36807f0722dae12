"""What the processes of the rig do.

Each runs in a fork of a zygote and ends when its folder has a file `stop`.
"""

from __future__ import annotations

import contextlib
import logging
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from routilux.engine.settings import Settings
from routilux.errors import PostInDoubt, RoutiluxError
from routilux.ownership import lease
from routilux.runtime import Client, Runtime, waiting
from tests.crash.support import hooks
from tests.crash.support.black_box import BlackBox
from tests.crash.support.program import Acknowledged
from tests.crash.support.zygote import until
from tests.support.inside_runtime import store
from tests.torture import load

REST_S = 120.0
HOLD_S = 0.7
POST_EVERY_S = 0.05
NOT_STARTED = 7
Host = TypeVar("Host", Runtime, Client)


def _runtime(url: str, lease_s: float) -> Runtime:
    """One that looks around often and blames no message for the deaths of its process."""
    logging.basicConfig(
        level=logging.ERROR, stream=sys.stderr, format="%(process)d %(levelname)s %(message)s"
    )
    lease.BACKEND_GONE_S = 0.04
    waiting.PERIOD_S = 0.02
    settings = Settings(
        lease_s=lease_s, poll_s=0.02, reconcile_s=0.1, death_pause_s=(0.0, 0.0, 0.0), deaths=100_000
    )
    return Runtime(2, database=url, lease=lease_s, registry=load.register(), settings=settings)


def _started(make: Callable[[], Host]) -> Host:
    """Ends the process, as any program would, where there is no database to be had."""
    try:
        return make()
    except (RoutiluxError, SQLAlchemyError) as error:
        print(f"cannot start: {error}", file=sys.stderr)
        sys.exit(NOT_STARTED)


def _keep_posting(host: Runtime | Client, folder: str, first: int) -> None:
    """Jobs with numbers from `first` on, until it is told to stop.

    One in doubt may be there, and nobody counts on it; one that was refused must not be.
    """
    stop, notes = Path(folder) / "stop", Acknowledged(Path(folder) / "acknowledged")
    refused = Acknowledged(Path(folder) / "refused")
    choose, number = random.Random(first), first
    while not stop.exists():
        worker = choose.choice(load.WORKERS)
        try:
            posted = host.post(
                load.FLOW, "intake", "input", {"number": number}, worker, load.job_id_of(number)
            )
            notes.add(posted.job.job_id)
        except PostInDoubt:
            pass  # nobody counts on it
        except (RoutiluxError, SQLAlchemyError):
            refused.add(str(number))
        number += 1
        threading.Event().wait(POST_EVERY_S)


def work(url: str, folder: str, box: str, first: int, lease_s: float) -> None:
    """Run whatever there is, and post jobs of its own from number `first` on.

    A file beside `box` with the suffix `.exhaust` asks for all pooled connections to be taken for a while.
    """
    black_box = BlackBox(box)
    hooks.install(black_box, hooks.Death(black_box, None, 0, 0))
    with _started(lambda: _runtime(url, lease_s)) as runtime:
        for worker in load.WORKERS:
            with contextlib.suppress(RoutiluxError, SQLAlchemyError):  # another process may have it by now
                runtime.exec(load.FLOW, worker_id=worker)
        wanted = Path(box).with_suffix(".exhaust")
        threading.Thread(target=_exhaust, args=(runtime, wanted), daemon=True).start()
        _keep_posting(runtime, folder, first)
        runtime.shutdown(wait=False)


def _exhaust(runtime: Runtime, wanted: Path) -> None:
    """Each time it is wanted: hold every connection that the pool gives."""
    engine = store(runtime).database._engine
    while True:
        threading.Event().wait(0.05)
        if not wanted.exists():
            continue
        wanted.unlink(missing_ok=True)
        with contextlib.ExitStack() as held:
            with contextlib.suppress(SQLAlchemyError):
                for _ in range(20):
                    held.enter_context(engine.connect().execution_options(isolation_level="AUTOCOMMIT"))
            threading.Event().wait(HOLD_S)


def post(url: str, folder: str, first: int) -> None:
    """Posts from a process that runs nothing: through the inbox."""
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    with _started(lambda: Client(url)) as client:
        _keep_posting(client, folder, first)


def _is_inbox_empty(runtime: Runtime) -> bool:
    with store(runtime).read() as connection:
        return connection.exec_driver_sql("SELECT 1 FROM routilux_inbox LIMIT 1").first() is None


def settle(url: str, folder: str, lease_s: float) -> None:
    """Post nothing; end with 0 once every acknowledged job has ended and nothing is left to do."""
    with _runtime(url, lease_s) as runtime:
        for worker in load.WORKERS:
            runtime.exec(load.FLOW, worker_id=worker)
        # only then does waiting for all flush what is left of a batch: it knows of no row on its way
        until(lambda: _is_inbox_empty(runtime), "the inbox is taken")
        if not runtime.wait_until_all_jobs_finished(REST_S):
            sys.exit("something is left to do")
        for job_id in sorted(Acknowledged.read(Path(folder) / "acknowledged")):
            job = runtime.get_job(job_id)
            if job is None or not job.wait(30):
                sys.exit(f"{job_id} has not ended: {job and job.to_dict()}")


def a_few(url: str, folder: str, count: int) -> None:
    """Post so many jobs and finish them."""
    notes = Acknowledged(Path(folder) / "acknowledged")
    with _runtime(url, 9.0) as runtime:
        runtime.exec(load.FLOW, worker_id=load.WORKERS[0])
        for number in range(count):
            posted = runtime.post(
                load.FLOW, "intake", "input", {"number": number}, load.WORKERS[0], load.job_id_of(number)
            )
            notes.add(posted.job.job_id)
    settle(url, folder, 9.0)
