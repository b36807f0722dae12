"""The clock of a test: it stands still until it is told to move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from routilux.core.job_context import instant
from routilux.errors import NaiveDatetimeError
from routilux.runtime.validation import seconds

START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(at: datetime) -> int:
    """Since 1970 in UTC, exact. Raises `NaiveDatetimeError` without a time zone."""
    if at.tzinfo is None:
        raise NaiveDatetimeError("start")
    return (at - _EPOCH) // timedelta(microseconds=1)


class ManualClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return self._now_us / 1e6

    def advance(self, seconds: float) -> None:
        self._now_us += round(seconds * 1e6)


class TestClock(ManualClock):
    """Begins at `start`, an aware datetime; default midnight UTC of Monday, 2024-01-01."""

    __test__ = False  # no test class, whatever pytest makes of its name

    def __init__(self, start: datetime = START) -> None:
        super().__init__(microseconds(start))

    def __repr__(self) -> str:
        return f"<TestClock {self.now().isoformat()}>"

    def now(self) -> datetime:
        """The time in UTC, for `post(at=…)` and to compare with what is stored."""
        found = instant(self.now_us())
        assert found is not None
        return found

    def advance(self, by: float | timedelta) -> None:
        """Move forward, by seconds or a timedelta; what comes due runs when the runtime is next asked to run.

        Raises `ValueError` for anything else, and for a step back.
        """
        step = seconds(by, "by")
        if step < 0:
            raise ValueError(f"time does not run backwards: by must not be negative, not {by!r}")
        super().advance(step)

    def move_to(self, us: int) -> None:
        """Move forward to an instant, µs since 1970; not at all if it has passed."""
        self._now_us = max(self._now_us, us)
