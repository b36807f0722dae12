"""What logic raises to choose what happens next, and calls made in the wrong place."""

from __future__ import annotations

import math
from datetime import timedelta

from routilux.errors.root import RoutiluxError

# A century. A later time may not fit into a datetime.
LONGEST_DELAY_S = 100 * 365 * 86_400.0


class Steering(RoutiluxError):
    """Logic raises it to choose what happens next; the error strategy does not apply."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class RetryLater(Steering):
    """Run this activation again after `delay`; this does not count as an attempt.

    `delay`: seconds or `timedelta`, from 0 to a century. `reason`: stored in the history. Raises `ValueError`
    for a bad delay.
    """

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        try:
            self.delay_s = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        except OverflowError:  # an int that is too large for a float
            self.delay_s = math.inf
        if not 0 <= self.delay_s <= LONGEST_DELAY_S:
            raise ValueError(
                f"RetryLater: delay must be a finite number of seconds, 0 or more, not {delay!r}"
            )
        super().__init__(reason or f"again in {self.delay_s:g} s")


class GiveUp(Steering):
    """Make this activation's messages a dead letter now and fail the job, without a retry. `reason`: why."""


class WriteError(RoutiluxError, ValueError):
    """`Routine.write` does not accept this statement."""


class CalledInLogicError(RoutiluxError, RuntimeError):
    """Logic made a call that waits for the engine, while the engine waits for logic."""

    def __init__(self, call: str) -> None:
        self.call = call
        super().__init__(f"{call} would deadlock inside logic; emit an event and continue in another routine")


class OutsideLogicError(RoutiluxError, RuntimeError):
    """A call that belongs to an activation was made outside logic."""

    def __init__(self, call: str) -> None:
        self.call = call
        super().__init__(f"{call} works only inside logic; from outside use runtime.post() to send a message")
