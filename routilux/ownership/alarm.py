"""The alarm clock of a process: the only file that knows APScheduler.

It reminds the engine of what must be looked at periodically. A lost alarm costs a delay and nothing else.
Its job store is in memory. Callbacks set a mark and never raise. An exception inside its job store kills
its thread while it still says that it runs; so the thread is watched and rebuilt.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler

log = logging.getLogger("routilux")
STOP_S = 2.0


class Alarm:
    """Calls at intervals, from a thread of its own."""

    def __init__(self) -> None:
        self._duties: dict[str, tuple[float, Callable[[], None]]] = {}
        self._scheduler: Any = None
        self._is_started = False

    def every(self, seconds: float, name: str, call: Callable[[], None]) -> None:
        """Before `start`: call this at an interval."""
        self._duties[name] = (seconds, call)

    def start(self) -> None:
        self._is_started = True
        self._scheduler = self._build()

    def _build(self) -> Any:
        scheduler = BackgroundScheduler(
            timezone=UTC,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
            executors={"default": {"type": "threadpool", "max_workers": 2}},
            daemon=True,
        )
        for name, (seconds, duty) in self._duties.items():
            scheduler.add_job(duty, "interval", seconds=seconds, id=name)
        scheduler.start()
        return scheduler

    @property
    def is_alive(self) -> bool:
        thread = getattr(self._scheduler, "_thread", None)
        return thread is not None and thread.is_alive()

    def ensure_alive(self) -> None:
        """Rebuild the scheduler if it was started and its thread is gone."""
        if self._is_started and not self.is_alive:
            self.rebuild()

    def rebuild(self) -> None:
        """Replace the scheduler with a new one. If that fails, the next `ensure_alive` tries again."""
        self._end()
        self._scheduler = self._build()

    def stop(self) -> None:
        self._is_started = False
        self._end()

    def _end(self) -> None:
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None and scheduler.running:
            # it joins its own thread without a limit, and the process must be able to exit
            ending = threading.Thread(
                target=_shut_down, args=(scheduler,), name="routilux-alarm-end", daemon=True
            )
            ending.start()
            ending.join(STOP_S)


def _shut_down(scheduler: Any) -> None:
    try:
        scheduler.shutdown(wait=False)
    except Exception as error:  # its thread may be dead already
        log.debug("alarm clock did not stop cleanly: %s", error)
