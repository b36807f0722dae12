"""What can run though nothing has come in: a time has come, or somebody waits for the end of all."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from routilux.core.mailbox import WorkerCell

if TYPE_CHECKING:
    from routilux.engine.engine import Engine


def timers(engine: Engine) -> None:
    now = engine.clock.now_us()
    while engine.wakes and engine.wakes[0][0] <= now:
        engine.note(heapq.heappop(engine.wakes)[2])


def flush(engine: Engine) -> None:
    """Somebody waits for the end: policies that gather deliver what they have once nothing else can run."""
    if engine.flush_waiters and not engine.runs and not engine.ready:
        for worker in engine.workers.values():
            if is_flushing(engine, worker):
                for cell in worker.routines.values():
                    if cell.has_backlog:
                        engine.note(cell)


def is_flushing(engine: Engine, worker: WorkerCell) -> bool:
    return engine.flush_waiters > 0 and not worker.run_count and not worker.timed_count and not engine.runs
