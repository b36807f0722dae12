"""Waiting for jobs. In-process ends are told by the engine; everything else is asked for, one query per period."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from routilux.engine.batch import Fact
from routilux.errors import DatabaseUnavailableError
from routilux.runtime.validation import timeout_s
from routilux.store.reads import history, worker_reads
from routilux.store.writes.store import Store

if TYPE_CHECKING:
    from routilux.runtime.runtime import Runtime

PERIOD_S = 0.25
MOST_ELSEWHERE = 10_000


class Ends:
    """Who waits for the end of which job, in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[threading.Event]] = {}

    def __bool__(self) -> bool:
        """Somebody waits."""
        return bool(self._waiting)

    def add(self, job_id: str) -> threading.Event:
        event = threading.Event()
        with self._lock:
            self._waiting.setdefault(job_id, []).append(event)
        return event

    def remove(self, job_id: str, event: threading.Event) -> None:
        with self._lock:
            events = self._waiting.get(job_id, [])
            if event in events:
                events.remove(event)
            if not events:
                self._waiting.pop(job_id, None)

    def told(self, job_id: str) -> None:
        for event in self._waiting.get(job_id, ()):
            event.set()


def tell(runtime: Runtime, facts: list[Fact]) -> None:
    """The engine has committed the ends of jobs."""
    for fact in facts:
        if fact.name == "job.ended":
            runtime.ends.told(fact.fields["job_id"])


def job(runtime: Runtime, job_id: str, timeout: float | None) -> bool:
    """Until a job has ended. False: the time is over first."""
    deadline = _deadline(runtime, timeout)
    event = runtime.ends.add(job_id)
    try:
        while True:
            is_over = _is_over(runtime, deadline)
            if has_ended(runtime.store, job_id, is_last=is_over):
                return True
            if is_over:
                return False
            runtime.drive.happens(event, PERIOD_S, deadline)
    finally:
        runtime.ends.remove(job_id, event)


def has_ended(store: Store, job_id: str, *, is_last: bool) -> bool:
    """Whether a job has ended; `is_last`: as in `_answer`."""

    def ask() -> bool:
        with store.read() as connection:
            return not history.open_job_ids_among(connection, [job_id])

    return _answer(ask, unknown=False, is_last=is_last)


def _answer(ask: Callable[[], bool], *, unknown: bool, is_last: bool) -> bool:
    """What the database says. While it does not answer it is asked again later, unless this is the last time."""
    try:
        return ask()
    except DatabaseUnavailableError:
        if is_last:
            raise
        return unknown


def all_jobs(runtime: Runtime, timeout: float | None) -> bool:
    """Until nothing of my workers waits, is parked or runs, wherever they run, and what I posted elsewhere has ended."""
    deadline = _deadline(runtime, timeout)
    while _here(runtime, deadline):
        is_over = _is_over(runtime, deadline)
        if not _answer(lambda: _is_work_elsewhere(runtime), unknown=True, is_last=is_over):
            return True
        if is_over:
            return False
        runtime.drive.happens(threading.Event(), PERIOD_S, deadline)
    return False


def _here(runtime: Runtime, deadline: float | None) -> bool:
    engine = runtime.engine
    engine.flush_waiters += 1
    try:
        return _watch(runtime, lambda: not engine.has_work(), deadline)
    finally:
        engine.flush_waiters -= 1


def _is_work_elsewhere(runtime: Runtime) -> bool:
    """What I posted to others, and workers that I started by name: one whose owner has died is mine a little later."""
    if runtime.posted_elsewhere:
        _drop_ended(runtime)
    engine = runtime.engine
    others = [worker_id for worker_id in list(engine.mine) if worker_id not in engine.by_id]
    if not others:
        return bool(runtime.posted_elsewhere)
    with runtime.store.read() as connection:
        return bool(runtime.posted_elsewhere) or worker_reads.has_work(connection, others)


def workers_idle(runtime: Runtime, timeout: float | None) -> bool:
    """Until nothing of my workers can run now."""
    deadline = _deadline(runtime, timeout)
    return _watch(runtime, lambda: not runtime.engine.can_run(), deadline)


def _watch(runtime: Runtime, predicate: Callable[[], bool], deadline: float | None) -> bool:
    """Until the engine finds, between two commits, that something holds."""
    event = threading.Event()
    watcher = (predicate, event)
    runtime.engine.watchers.append(watcher)  # not by the engine, which may be waiting for the database
    runtime.engine.inputs.wake()
    while not runtime.drive.happens(event, PERIOD_S, deadline):
        runtime.engine.inputs.wake()
        if runtime.is_engine_gone or _is_over(runtime, deadline):
            with contextlib.suppress(ValueError):  # told just now
                runtime.engine.watchers.remove(watcher)
            return event.is_set()
    return True


def remember(runtime: Runtime, job_ids: Sequence[str]) -> None:
    """Jobs that others run for me: known until they have ended, which is asked for when somebody waits, or there are many."""
    if len(runtime.posted_elsewhere) > runtime.most_elsewhere:
        with contextlib.suppress(DatabaseUnavailableError):  # next time
            _drop_ended(runtime)
        runtime.most_elsewhere = 2 * len(runtime.posted_elsewhere) + MOST_ELSEWHERE
    runtime.posted_elsewhere.update(job_ids)


def _drop_ended(runtime: Runtime) -> None:
    known = set(runtime.posted_elsewhere)  # other threads post meanwhile
    with runtime.store.read() as connection:
        runtime.posted_elsewhere -= known - history.open_job_ids_among(connection, known)


def _deadline(runtime: Runtime, timeout: float | None) -> float | None:
    wait_s = timeout_s(timeout)
    return None if wait_s is None else runtime.engine.clock.monotonic() + wait_s


def _is_over(runtime: Runtime, deadline: float | None) -> bool:
    return deadline is not None and runtime.engine.clock.monotonic() >= deadline
