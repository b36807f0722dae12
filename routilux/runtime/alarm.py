"""The alarm clock of a process: the only file that knows APScheduler.

Rows are the truth; alarms only say when to look, and a lost alarm costs at most one reconcile period. Its job
store is in memory and holds three jobs. Callbacks put a mark on the engine and never raise. An exception inside
its job store kills its thread while it still says that it runs, so the thread is watched and rebuilt.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler

from routilux.runtime.clock import SystemClock

log = logging.getLogger("routilux")
_REDELIVERY = "redelivery"
HOST_CLOCK = SystemClock()
STOP_S = 2.0
LATEST_US = 253_402_214_400_000_000  # the last day of the year 9999: later is no date in every time zone


class Alarm:
    """One moving alarm for the next due row, and interval alarms for the duties. `now_us`: the clock that rows are due by."""

    def __init__(
        self,
        ring: Callable[[], None],
        duties: dict[str, tuple[float, Callable[[], None]]],
        now_us: Callable[[], int] = HOST_CLOCK.now_us,
    ) -> None:
        self._ring = ring
        self._now_us = now_us
        self._duties = duties
        self._due_at: int | None = None
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
        if self._due_at is not None:
            self._arm(scheduler, self._due_at)
        return scheduler

    def set(self, due_at: int | None) -> None:
        """Ring at this instant (µs since 1970 by the clock of the rows); None: nothing is due."""
        if due_at is None or due_at == self._due_at or self._scheduler is None:
            self._due_at = due_at
            return
        self._due_at = due_at
        try:
            self._arm(self._scheduler, due_at)
        except Exception as error:  # the reconcile period finds what is due without it
            log.warning("alarm clock: %s; it is rebuilt", error)
            self.rebuild()

    def _arm(self, scheduler: Any, due_at: int) -> None:
        host_is_behind_us = self._now_us() - HOST_CLOCK.now_us()
        when = datetime.fromtimestamp(min(due_at - host_is_behind_us, LATEST_US) / 1e6, UTC)
        scheduler.add_job(self._ring, "date", run_date=when, id=_REDELIVERY, replace_existing=True)

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
