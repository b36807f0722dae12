"""The clocks of the one host of a world."""

from __future__ import annotations


class HostClock:
    """Wall time, monotonic time and time since boot. Each can be moved; each look at it takes 1 µs."""

    def __init__(self) -> None:
        self._ticks = 0
        self._awake_us = 1_000_000_000
        self._asleep_us = 0
        self._wall_offset_us = 1_700_000_000_000_000

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self._awake_us += round(seconds * 1e6)

    def sleep(self, seconds: float) -> None:
        """The host is suspended: monotonic time stands still."""
        self._asleep_us += round(seconds * 1e6)

    def step(self, seconds: float) -> None:
        """The wall clock is set forward or back."""
        self._wall_offset_us += round(seconds * 1e6)

    def now_us(self) -> int:
        self._ticks += 1
        return self.wall_us

    @property
    def wall_us(self) -> int:
        """`now_us` without looking."""
        return self._wall_offset_us + self._awake_us + self._asleep_us + self._ticks

    def boot_us(self) -> int:
        return self._awake_us + self._asleep_us + self._ticks

    def monotonic(self) -> float:
        return (self._awake_us + self._ticks) / 1e6
