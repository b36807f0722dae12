"""Waiting for jobs. The engine tells of ends in this process; everything else is one query per period."""

from __future__ import annotations

import threading
from collections.abc import Callable

from routilux.errors import DatabaseUnavailableError
from routilux.runtime.host import EngineHost
from routilux.runtime.validation import timeout_s
from routilux.store.reads import history, worker_reads
from routilux.store.writes.store import Store

PERIOD_S = 0.25


def job(host: EngineHost, job_id: str, timeout: float | None) -> bool:
    """Wait until a job has ended. Returns False if the time is over first."""
    deadline = _deadline(host, timeout)
    event = host.ends.add(job_id)
    try:
        while True:
            is_over = _is_over(host, deadline)
            if has_ended(host.store, job_id, is_last=is_over):
                return True
            if is_over:
                return False
            host.drive.wait_for(event, PERIOD_S, deadline)
    finally:
        host.ends.remove(job_id, event)


def has_ended(store: Store, job_id: str, *, is_last: bool) -> bool:
    """Whether a job has ended; `is_last`: as in `_answer`."""

    def ask() -> bool:
        with store.read() as connection:
            return not history.open_job_ids_among(connection, [job_id])

    return _answer(ask, unknown=False, is_last=is_last)


def _answer(ask: Callable[[], bool], *, unknown: bool, is_last: bool) -> bool:
    """What the database says.

    While it does not answer it is asked again later, unless this is the last time.
    """
    try:
        return ask()
    except DatabaseUnavailableError:
        if is_last:
            raise
        return unknown


def all_jobs(host: EngineHost, timeout: float | None) -> bool:
    """Wait until nothing of this runtime's workers waits, is parked or runs, wherever they run.

    Nor what it posted.
    """
    deadline = _deadline(host, timeout)
    while _here(host, deadline):
        is_over = _is_over(host, deadline)
        if not _answer(lambda: _is_work_elsewhere(host), unknown=True, is_last=is_over):
            return True
        if is_over:
            return False
        host.drive.wait_for(threading.Event(), PERIOD_S, deadline)
    return False


def _here(host: EngineHost, deadline: float | None) -> bool:
    host.parts.scheduler.begin_flush()
    try:
        return _watch(host, lambda: not host.engine.has_work(), deadline)
    finally:
        host.parts.scheduler.end_flush()


def _is_work_elsewhere(host: EngineHost) -> bool:
    """What it posted to others, and workers that it started by name.

    One whose owner died comes here a little later.
    """
    if host.elsewhere.job_ids:
        host.elsewhere.drop_ended()
    workers = host.parts.workers
    others = [worker_id for worker_id in list(workers.kept) if workers.get(worker_id) is None]
    if not others:
        return bool(host.elsewhere.job_ids)
    with host.store.read() as connection:
        return bool(host.elsewhere.job_ids) or worker_reads.has_work(connection, others)


def workers_idle(host: EngineHost, timeout: float | None) -> bool:
    """Wait until nothing of this runtime's workers can run now."""
    return _watch(host, lambda: not host.engine.can_run(), _deadline(host, timeout))


def _watch(host: EngineHost, condition: Callable[[], bool], deadline: float | None) -> bool:
    """Wait until the engine finds, between two commits, that something holds."""
    event = threading.Event()
    end = host.engine.watch(condition, event)
    while not host.drive.wait_for(event, PERIOD_S, deadline):
        host.parts.inputs.wake()
        if not host.is_running or _is_over(host, deadline):
            end()
            return event.is_set()
    return True


def _deadline(host: EngineHost, timeout: float | None) -> float | None:
    wait_s = timeout_s(timeout)
    return None if wait_s is None else host.parts.clock.monotonic() + wait_s


def _is_over(host: EngineHost, deadline: float | None) -> bool:
    return deadline is not None and host.parts.clock.monotonic() >= deadline
