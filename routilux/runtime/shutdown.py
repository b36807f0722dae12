"""A clean stop: take no more, finish what runs (up to a deadline), give workers and lease back at once."""

from __future__ import annotations

import time
from collections.abc import Callable

from routilux.engine.inputs import Task
from routilux.runtime.wiring import RunningParts


def stop(running: RunningParts, timeout_s: float) -> bool:
    """Returns False if logic still ran at the deadline.

    A fact names it, and its work goes on at the next start.
    """
    engine = running.engine
    deadline = time.monotonic() + timeout_s
    running.parts.transactions.give_up_at(deadline)
    finished = _drain(running, deadline)
    running.alarm.stop()
    released = finished and _in_engine(running, running.assembly.handover.release_all, deadline)
    engine.stop()
    running.drive.join(max(0.1, deadline - time.monotonic()))
    engine.failed_turn.reject_pending()
    if running.lease.stop(max(0.1, deadline - time.monotonic())) and released:
        _retire(running)
    else:
        running.lease.drop_sign()
    running.pool.stop(0.2 if finished else 0.0)
    running.parts.transactions.store.drop_connection()
    running.database.close()
    return finished


def _drain(running: RunningParts, deadline: float) -> bool:
    """Nothing new starts; what runs finishes and commits."""
    parts = running.parts
    scheduler = parts.scheduler
    if not _in_engine(running, scheduler.drain, deadline):
        return False
    while time.monotonic() < deadline and running.drive.is_running:
        task = Task(lambda: not scheduler.runs and not len(parts.inputs))
        parts.inputs.put(task)
        if running.drive.wait_reply(task.receipt, 0.05) and task.receipt.value is True:
            return True
    names = {f"{run.cell.worker.worker_id}/{run.cell.routine_id}" for run in list(scheduler.runs)}
    what = ", ".join(sorted(names)) or "nothing (the database does not answer)"
    parts.facts.report("shutdown.timed_out", running=what)
    return False


def _in_engine(running: RunningParts, work: Callable[[], object], deadline: float) -> bool:
    """Run `work` in the engine's thread. Returns whether it was done."""
    task = Task(work)
    running.parts.inputs.put(task)
    while not running.drive.wait_reply(task.receipt, 0.1):
        if time.monotonic() >= deadline or not running.drive.is_running:
            return False
    if task.receipt.error is not None:
        running.parts.facts.report("shutdown.failed", error=task.receipt.error)
        return False
    return True


def _retire(running: RunningParts) -> None:
    try:
        running.lease.retire()
    except Exception as error:  # a stop ends whatever the database does; the lease runs out by itself
        running.parts.facts.report("shutdown.lease_kept", error=error)
        running.lease.drop_sign()
