"""The alarm clock of a process: the only file that knows APScheduler.

It reminds the engine of what must be looked at now and then; a lost alarm costs a delay and nothing else. Its job store is in
memory. Callbacks put a mark on the engine and never raise. An exception inside its job store kills its thread while it still
says that it runs, so the thread is watched and rebuilt.
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
    """Interval alarms: name -> seconds, and what to call."""

    def __init__(self, duties: dict[str, tuple[float, Callable[[], None]]]) -> None:
        self._duties = duties
        self._scheduler: Any = None

    def start(self) -> None:
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

    def rebuild(self) -> None:
        """A new scheduler in place of one whose thread is gone."""
        self.stop()
        self._scheduler = self._build()

    def stop(self) -> None:
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None and scheduler.running:
            # it joins its own thread without a limit; the process must be able to exit all the same
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
