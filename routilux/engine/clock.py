"""The one "now" of a runtime, so that tests can move it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from routilux.store.backends.host_clock import boot_time_us

PROMPT_US = 50_000  # an answer that took longer tells little
TRUSTED_US = 60_000_000


class Clock(Protocol):
    """Wall time for what is stored, monotonic time for how long something took."""

    def now_us(self) -> int: ...
    def monotonic(self) -> float: ...


class SystemClock:
    """The host's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


class ServerClock(SystemClock):
    """The clock of the database server, by which Postgres says what is due.

    The clocks of the hosts may differ, or be set.

    It is what the server has said last and the time since then, asleep or not. Ahead of the server by less
    than the answer took, never behind it: what is due by it is not early.
    """

    def __init__(self) -> None:
        self._ahead_us = time.time_ns() // 1000 - boot_time_us()  # until the server is heard: the host's
        self._asked_at_us = self._heard_at_us = float("-inf")

    def now_us(self) -> int:
        return boot_time_us() + self._ahead_us

    def ask(self, server: Callable[[], int | None]) -> bool:
        """`server` says its time, µs since 1970. False: it has said None."""
        asked_at_us = boot_time_us()
        said = server()
        took_us = boot_time_us() - asked_at_us
        if said is not None and (took_us < PROMPT_US or asked_at_us - self._heard_at_us > TRUSTED_US):
            self._ahead_us, self._heard_at_us = said - asked_at_us, asked_at_us
        self._asked_at_us = asked_at_us
        return said is not None

    @property
    def unasked_s(self) -> float:
        """Since the server was asked, whether its answer told much or not."""
        return (boot_time_us() - self._asked_at_us) / 1e6
