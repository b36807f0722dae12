"""A clean stop: take no more, finish what runs (up to a deadline), give workers and lease back at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from routilux.engine import recovery
from routilux.engine.inputs import Task
from routilux.ownership import handover

if TYPE_CHECKING:
    from routilux.runtime.wiring import Parts

log = logging.getLogger("routilux")


def stop(parts: Parts, timeout_s: float) -> bool:
    """False: logic still ran at the deadline; it is named, its work goes on at the next start."""
    engine = parts.engine
    deadline = time.monotonic() + timeout_s
    engine.give_up_at = deadline
    finished = _drain(parts, deadline)
    parts.alarm.stop()
    released = finished and _in_engine(parts, lambda: _release_all(parts), deadline)
    engine.stop()
    parts.drive.join(max(0.1, deadline - time.monotonic()))
    recovery.refuse_rest(engine)
    if parts.lease.stop(max(0.1, deadline - time.monotonic())) and released:
        _retire(parts)
    else:
        parts.lease.drop_sign()
    parts.pool.stop(0.2 if finished else 0.0)
    parts.store.drop_connection()
    parts.database.close()
    return finished


def _drain(parts: Parts, deadline: float) -> bool:
    """Nothing new starts; what runs finishes and commits."""
    engine = parts.engine

    def begin() -> None:
        engine.is_stopping = True
        for run in engine.runs:
            run.should_stop = True

    if not _in_engine(parts, begin, deadline):
        return False
    while time.monotonic() < deadline and parts.is_running:
        task = Task(lambda: not engine.runs and not len(engine.inputs))
        engine.inputs.put(task)
        if parts.drive.answer(task.receipt, 0.05) and task.receipt.value is True:
            return True
    names = {f"{run.cell.worker.worker_id}/{run.cell.routine_id}" for run in list(engine.runs)}
    log.warning(
        "stop: the deadline passed while logic ran: %s", ", ".join(sorted(names)) or "(the database is away)"
    )
    return False


def _in_engine(parts: Parts, work: Callable[[], object], deadline: float) -> bool:
    task = Task(work)
    parts.engine.inputs.put(task)
    while not parts.drive.answer(task.receipt, 0.1):
        if time.monotonic() >= deadline or not parts.is_running:
            return False
    if task.receipt.error is not None:
        log.warning("stop: %s", task.receipt.error)
        return False
    return True


def _release_all(parts: Parts) -> None:
    engine = parts.engine
    for cell in list(engine.workers.values()):
        handover.release(engine, cell)


def _retire(parts: Parts) -> None:
    try:
        parts.lease.retire()
    except Exception as error:  # a stop ends whatever the database does; the lease runs out by itself
        log.warning("stop: the lease could not be given back: %s", error)
        parts.lease.drop_sign()
