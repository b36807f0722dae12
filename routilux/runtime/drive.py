"""What makes the engine of a runtime go, and how its callers wait for it.

In production: threads. The engine, the heartbeat and the alarm clock have one each, and who waits sleeps. A test
has another drive (`routilux.testing`), in which who waits does the engine's work, on a clock that the test moves.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from routilux.engine.clock import Clock, SystemClock
from routilux.engine.engine import Engine, Executor
from routilux.execution.performer import Performer
from routilux.execution.pool import Pool

if TYPE_CHECKING:
    from routilux.ownership.alarm import Alarm
    from routilux.ownership.lease import Lease


class Waitable(Protocol):
    """A `Receipt` or a `threading.Event`."""

    def wait(self, timeout: float | None) -> bool: ...


class Executors(Executor, Protocol):
    """Where runs go, until it is stopped."""

    def stop(self, timeout: float) -> None: ...


class Drive(Protocol):
    """For one runtime: made before its engine, started with it."""

    @property
    def clock(self) -> Clock: ...

    def pool(self, size: int, performer: Performer) -> Executors: ...

    def start(self, engine: Engine, lease: Lease, alarm: Alarm) -> None:
        """From here on the engine takes its turns."""

    @property
    def is_running(self) -> bool: ...

    def answer(self, receipt: Waitable, timeout_s: float) -> bool:
        """Wait for the engine's answer to something on its queue."""

    def happens(self, event: Waitable, period_s: float, until: float | None) -> bool:
        """Wait for what work and time bring: `period_s` at most, and not past `until`, on `clock.monotonic`."""

    def join(self, timeout_s: float) -> None:
        """Wait until an engine that was told to stop has stopped."""


class Threads:
    """The drive of every runtime outside tests."""

    def __init__(self) -> None:
        self.clock: Clock = SystemClock()
        self._thread: threading.Thread | None = None

    def pool(self, size: int, performer: Performer) -> Executors:
        return Pool(size, performer)

    def start(self, engine: Engine, lease: Lease, alarm: Alarm) -> None:
        engine.lease_is_good = lambda: lease.is_good
        engine.watch_alarm = lambda: None if alarm.is_alive else alarm.rebuild()
        self._thread = threading.Thread(target=engine.run, name="routilux-engine", daemon=True)
        lease.start()
        alarm.start()
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def answer(self, receipt: Waitable, timeout_s: float) -> bool:
        return receipt.wait(timeout_s)

    def happens(self, event: Waitable, period_s: float, until: float | None) -> bool:
        left = period_s if until is None else until - self.clock.monotonic()
        return event.wait(max(0.0, min(period_s, left)))

    def join(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)


__all__ = ["Drive", "Executors", "Threads", "Waitable"]
