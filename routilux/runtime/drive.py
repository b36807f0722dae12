"""What makes the engine of a runtime take its turns, and how callers wait for it.

In production these are threads: the engine, the heartbeat and the alarm clock have one each, and a caller
sleeps. A test has another drive (`routilux.testing`): there the caller does the engine's work, on a clock
that the test moves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from routilux.engine.clock import Clock, SystemClock
from routilux.engine.engine import Engine
from routilux.engine.scheduler import Executor, Permission
from routilux.execution.performer import Performer
from routilux.execution.pool import Pool
from routilux.ownership.alarm import Alarm
from routilux.ownership.lease import Lease


class Waitable(Protocol):
    """A `Receipt` or a `threading.Event`."""

    def wait(self, timeout: float | None) -> bool: ...


class Executors(Executor, Protocol):
    """Where runs go, until it is stopped."""

    def stop(self, timeout: float) -> None: ...


class Driven(Protocol):
    """What a drive keeps going."""

    @property
    def engine(self) -> Engine: ...
    @property
    def lease(self) -> Lease: ...
    @property
    def alarm(self) -> Alarm: ...


class Drive(Protocol):
    """For one runtime: made before its engine, started with it. `is_real_time`: no test moves its clock."""

    is_real_time: bool

    @property
    def clock(self) -> Clock: ...

    def pool(self, size: int, performer: Performer) -> Executors: ...

    def permission(self, lease: Lease) -> Permission:
        """What says whether logic may start."""

    def start(self, driven: Driven) -> None:
        """From here on the engine takes its turns."""

    def keep_alive(self, owner: object) -> None:
        """Hold a reference to the runtime while its engine works: the program may hold none."""

    @property
    def is_running(self) -> bool: ...

    def wait_reply(self, receipt: Waitable, timeout_s: float) -> bool:
        """Wait for the engine's answer to something on its queue."""

    def wait_for(self, event: Waitable, period_s: float, until: float | None) -> bool:
        """Wait for what work and time bring: at most `period_s`, not past `until`, on `clock.monotonic`."""

    def join(self, timeout_s: float) -> None:
        """Wait until an engine that was told to stop has stopped."""


class Threads:
    """The drive of every runtime outside tests."""

    is_real_time = True

    def __init__(self) -> None:
        self.clock: Clock = SystemClock()
        self._thread: threading.Thread | None = None
        self._owner: object = None

    def pool(self, size: int, performer: Performer) -> Executors:
        return Pool(size, performer)

    def permission(self, lease: Lease) -> Permission:
        return lease

    def start(self, driven: Driven) -> None:
        self._thread = threading.Thread(
            target=self._run, args=(driven.engine.run,), name="routilux-engine", daemon=True
        )
        driven.lease.start()
        driven.alarm.start()
        self._thread.start()

    def _run(self, run: Callable[[], None]) -> None:
        try:
            run()
        finally:
            self._owner = None

    def keep_alive(self, owner: object) -> None:
        self._owner = owner

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait_reply(self, receipt: Waitable, timeout_s: float) -> bool:
        return receipt.wait(timeout_s)

    def wait_for(self, event: Waitable, period_s: float, until: float | None) -> bool:
        left = period_s if until is None else until - self.clock.monotonic()
        return event.wait(max(0.0, min(period_s, left)))

    def join(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)


__all__ = ["Drive", "Driven", "Executors", "Threads", "Waitable"]
